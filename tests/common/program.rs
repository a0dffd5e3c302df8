//! The built program, as its users run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::tiny::data_called;

pub fn wgrad() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    // A table of the user's would make the bits differ.
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).env("WGRAD_TUNING", "off");
    command
}

/// What a command left behind; it did not panic.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked") && !ran.out.contains("panicked"), "{}\n{}", ran.out, ran.err);
    ran
}

pub fn run(command: &mut Command) -> Ran {
    ran(command.output().unwrap())
}

/// A command that does what it is asked.
pub fn done(arguments: &[&str]) -> Ran {
    let ran = run(wgrad().args(arguments));
    assert_eq!(ran.code, Some(0), "{arguments:?}\n{}\n{}", ran.out, ran.err);
    ran
}

pub fn json(arguments: &[&str]) -> Value {
    let ran = done(arguments);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{}", ran.out))
}

/// A command that fails, and says why in one message that holds all the words.
pub fn refused(command: &mut Command, words: &[&str]) {
    let ran = run(command);
    assert_eq!(ran.code, Some(1), "{command:?}\n{}\n{}", ran.out, ran.err);
    assert_eq!(ran.out, "", "{command:?}");
    let message = ran.err.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
    words.iter().for_each(|word| assert!(message.contains(word), "{command:?} should say \"{word}\":\n{}", ran.err));
}

/// A data set in MNIST's files: 96 images to learn from, 40 to test on.
pub fn data(folder: &Path) -> PathBuf {
    data_called(folder, "data")
}

/// `wgrad train METHOD` with a small model; 6 steps an epoch.
pub fn train(method: &str, data: &Path, out: &Path, epochs: usize) -> Command {
    let mut command = wgrad();
    command.args(["train", method, "--set", "model=cnn_16_32_64", "--set", "batch=16", "--set", "checkpoint_every=3"]);
    command.args(["--set", &format!("epochs={epochs}")]).arg("--data").arg(data).arg("--out").arg(out);
    command
}

pub fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}
