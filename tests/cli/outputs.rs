//! The built program where its output is no ordinary file, where no one reads what it says, and
//! where names are orders to a terminal.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::program::{data, files, folder, ran, refused, run, text, train, wgrad};

/// A contact sheet of `data` in the file `out`.
fn preview(data: &Path, out: &Path) -> Command {
    let mut command = wgrad();
    command.args(["data", text(data), "--preview", "none", "--images", "1", "--epochs", "1", "--out", text(out)]);
    command
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn what_is_no_file_is_written_into_and_not_replaced() {
    let folder = folder();
    let data = data(folder.path());
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("inner")).unwrap();
    symlink("inner/sheet.png", at("link.png")).unwrap();
    assert_eq!(run(&mut preview(&data, &at("link.png"))).code, Some(0));
    assert!(fs::symlink_metadata(at("link.png")).unwrap().is_symlink());
    let sheet = fs::read(at("inner/sheet.png")).unwrap();
    assert!(sheet.starts_with(b"\x89PNG"));
    refused(&mut preview(&data, &at("inner")), &["inner: is a folder"]);

    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = at("pipe");
        move || fs::read(pipe).unwrap()
    });
    assert_eq!(run(&mut preview(&data, &at("pipe"))).code, Some(0));
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(reader.join().unwrap(), sheet);
    let streamed = preview(&data, Path::new("/dev/stdout")).output().unwrap();
    assert!(streamed.status.success() && streamed.stdout.starts_with(&sheet));
    if Path::new("/dev/full").exists() {
        // By a link, so that a program that replaces what it finds does no harm.
        symlink("/dev/full", at("full")).unwrap();
        refused(&mut preview(&data, &at("full")), &["full: no space left"]);
        assert!(fs::symlink_metadata(at("full")).unwrap().is_symlink());
    }
    assert_eq!(files(&at("inner")), ["sheet.png"]);
}

#[test]
fn training_goes_on_where_no_one_reads_what_it_says() {
    let folder = folder();
    let data = data(folder.path());
    let trained = |name: &str, more: &[&str], stdout: Stdio, stderr: Stdio| {
        let out = folder.path().join(name);
        let mut child = train("supervised", &data, &out, 3).args(more).stdout(stdout).stderr(stderr).spawn().unwrap();
        // Whoever was to read is gone before the first word.
        drop((child.stdout.take(), child.stderr.take()));
        let code = child.wait().unwrap().code();
        (code, fs::read(out.join("weights.safetensors")).unwrap(), fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count())
    };
    let (code, weights, lines) = trained("heard", &[], Stdio::null(), Stdio::null());
    assert_eq!((code, lines), (Some(0), 3));
    let closed = trained("closed", &["--json"], Stdio::piped(), Stdio::piped());
    assert_eq!(closed, (Some(0), weights.clone(), lines));
    if Path::new("/dev/full").exists() {
        let no_words = trained("no words", &[], Stdio::null(), full());
        assert_eq!(no_words, (Some(0), weights.clone(), lines));
        // What was asked for is not all there: that is said by the code, once the run is finished.
        let no_json = trained("no json", &["--json"], full(), full());
        assert_eq!(no_json, (Some(1), weights, lines));
        refused(wgrad().arg("--help").stdout(full()), &["stdout"]);
        let misused = ran(wgrad().arg("--nope").stderr(full()).output().unwrap());
        assert_eq!(misused.code, Some(2));
    }
}

#[test]
fn names_are_no_orders_to_a_terminal() {
    let folder = folder();
    let pictures = folder.path().join("pictures");
    for class in ["plain", "red\x1b[31m\x07\u{9b}2J", "two\nlines"] {
        fs::create_dir_all(pictures.join(class)).unwrap();
        image::GrayImage::new(8, 8).save(pictures.join(class).join("a.png")).unwrap();
    }
    let clean = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n');
    for arguments in [&["data", text(&pictures)][..], &["data", text(&pictures), "--json"]] {
        let ran = run(wgrad().args(arguments));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(clean(&ran.out) && ran.out.contains(r"red\u001b[31m\u0007\u009b2J"), "{}", ran.out);
        assert!(!ran.out.contains("\nlines"), "{}", ran.out);
    }
    let broken = pictures.join("plain").join("\x1b]0;title\x07.png");
    fs::write(&broken, "no picture").unwrap();
    let ran = run(wgrad().args(["data", text(&pictures)]).env("RUST_LOG", "trace"));
    assert!(ran.code == Some(1) && clean(&ran.err) && ran.err.contains(r"\u001b]0;title\u0007.png"), "{}", ran.err);
    let ran = run(wgrad().args(["data", "no\x1b[2Jwhere"]));
    assert!(ran.code == Some(1) && clean(&ran.err), "{}", ran.err);
}
