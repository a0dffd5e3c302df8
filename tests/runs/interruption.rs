//! The built program where it is killed, interrupted, or cannot write.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{data, files, folder, refused, run, train, wgrad};
use serde_json::Value;

#[test]
fn a_run_that_cannot_be_written_says_so_and_leaves_no_part_of_a_file() {
    let folder = folder();
    let data = data(folder.path());
    let below_a_file = data.join("train-labels-idx1-ubyte/run");
    refused(&mut train("supervised", &data, &below_a_file, 1), &["train-labels-idx1-ubyte/run"]);
}

/// Ends the program for certain, whatever becomes of the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
mod unix {
    use super::*;

    fn spawn(command: &mut Command) -> Guard {
        Guard(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn resume(out: &Path) -> Command {
        let mut command = wgrad();
        command.args(["train", "supervised", "--resume", "--out"]).arg(out);
        command
    }

    /// A run's metrics but for what the clock says.
    fn lines(run: &Path) -> Vec<Value> {
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("images_per_second");
            line
        };
        fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().map(parse).collect()
    }

    /// Waits until the checkpoint in `run` has gone beyond step `beyond`.
    fn checkpoint_beyond(run: &Path, beyond: u64, child: &mut Guard) -> u64 {
        let begun = Instant::now();
        let path = run.join("checkpoints/last.safetensors");
        loop {
            if let Some(step) = wgrad::train::Checkpoint::load(&path).ok().map(|c| c.position.step).filter(|step| *step > beyond) {
                return step;
            }
            assert!(child.0.try_wait().unwrap().is_none(), "the run ended before it could be interrupted");
            assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint came");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(child: &Guard, name: &str) {
        assert!(Command::new("kill").args([name, &child.0.id().to_string()]).status().unwrap().success());
    }

    #[test]
    fn a_killed_and_an_interrupted_run_go_on_to_the_same_weights() {
        let folder = folder();
        let data = data(folder.path());
        let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
        let epochs = 50;
        assert_eq!(run(&mut train("supervised", &data, &whole, epochs)).code, Some(0));

        let mut killed = spawn(&mut train("supervised", &data, &out, epochs));
        let step = checkpoint_beyond(&out, 0, &mut killed);
        killed.0.kill().unwrap();
        assert_eq!(killed.0.wait().unwrap().code(), None);
        assert!(!out.join("weights.safetensors").exists());

        let resume = || resume(&out);
        let mut interrupted = spawn(&mut resume());
        checkpoint_beyond(&out, step, &mut interrupted);
        signal(&interrupted, "-INT");
        let status = interrupted.0.wait().unwrap();
        assert_eq!(status.code(), Some(130));
        let mut words = String::new();
        std::io::Read::read_to_string(interrupted.0.stderr.as_mut().unwrap(), &mut words).unwrap();
        assert!(words.contains("--resume --out") && !words.contains("panicked"), "{words}");
        assert!(!out.join("weights.safetensors").exists());

        let spent = |run: &Path| -> Value { serde_json::from_slice(&fs::read(run.join("outcome.json")).unwrap()).unwrap() };
        // As if it had taken a million seconds so far: what a run has taken is summed over its
        // resumptions.
        let mut before = spent(&out);
        assert!(before["steps"].as_u64() > Some(step), "{before}");
        before["seconds"] = 1e6.into();
        fs::write(out.join("outcome.json"), before.to_string()).unwrap();
        let rest = run(&mut resume());
        assert_eq!(rest.code, Some(0), "{}", rest.err);
        let (after, at_once) = (spent(&out), spent(&whole));
        assert_eq!([&after["steps"], &after["images"]], [&at_once["steps"], &at_once["images"]]);
        assert!(after["seconds"].as_f64() > Some(1e6), "{after}");
        assert!(rest.err.contains("resuming after step"), "{}", rest.err);
        assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), fs::read(whole.join("weights.safetensors")).unwrap());
        assert_eq!(lines(&out), lines(&whole));
    }

    /// One run that is ended again and again, at moments that nothing depends on: amid a step, a
    /// checkpoint, the start, or the page behind an epoch.
    #[test]
    fn a_run_that_is_ended_twenty_times_comes_to_the_same_weights() {
        let folder = folder();
        let data = data(folder.path());
        let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
        let epochs = 100;
        assert_eq!(run(&mut train("supervised", &data, &whole, epochs)).code, Some(0));
        let (mut random, mut interrupted) = (17u64, 0);
        for _ in 0..20 {
            let begun = out.join("recipe.toml").exists();
            let mut command = if begun { resume(&out) } else { train("supervised", &data, &out, epochs) };
            let mut child = spawn(&mut command);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(random >> 33 & 1023));
            signal(&child, "-TERM");
            let status = child.0.wait().unwrap();
            // Before a run listens, it is the system that ends it.
            assert!([Some(130), Some(0), None].contains(&status.code()), "{status}");
            interrupted += usize::from(status.code() == Some(130));
        }
        assert!(interrupted > 0, "the run never listened");
        assert_eq!(run(&mut resume(&out)).code, Some(0));
        assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), fs::read(whole.join("weights.safetensors")).unwrap());
        assert_eq!(lines(&out), lines(&whole));
        assert!(!out.join(".holder.json").exists());
    }

    /// Waits until the process listens to SIGTERM.
    #[cfg(target_os = "linux")]
    fn listens(child: &mut Guard) {
        let path = format!("/proc/{}/status", child.0.id());
        let caught = || {
            let status = fs::read_to_string(&path).unwrap_or_default();
            let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
            mask.is_some_and(|mask| mask >> 14 & 1 == 1)
        };
        while !caught() {
            assert!(child.0.try_wait().unwrap().is_none(), "the run ended before it listened");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Amid a step that takes much longer.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_second_signal_ends_at_once_unless_it_has_the_cause_of_the_first() {
        let folder = folder();
        let (data, out) = (data(folder.path()), folder.path().join("run"));
        for (first, second) in [("-TERM", "-TERM"), ("-HUP", "-INT")] {
            if first == "-HUP" && hangups_are_ignored() {
                continue;
            }
            let mut long = train("supervised", &data, &out, 1);
            long.args(["--set", "model=resnet18", "--set", "batch=96", "--set", "resolution=64"]);
            let mut child = spawn(&mut long);
            listens(&mut child);
            // A process and its group: twice, for one cause.
            signal(&child, first);
            signal(&child, first);
            let mut words = std::io::BufReader::new(child.0.stderr.take().unwrap());
            let mut line = String::new();
            while !line.contains("interrupted: stopping after this step") {
                line.clear();
                assert!(std::io::BufRead::read_line(&mut words, &mut line).unwrap() > 0, "the run ended");
            }
            std::thread::sleep(Duration::from_millis(1200));
            assert!(child.0.try_wait().unwrap().is_none(), "the run ended though its step is a long one");
            let asked = Instant::now();
            signal(&child, second);
            assert_eq!(child.0.wait().unwrap().code(), Some(130));
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            assert_eq!(files(&out.join("checkpoints")), [""; 0]);
        }
        // The note of who was there is left, and is no lock: the directory is anyone's.
        assert!(out.join(".holder.json").exists());
        assert_eq!(run(&mut train("supervised", &data, &out, 1)).code, Some(0));
    }

    /// Whether these tests run under nohup: then so do their runs, which go on to their end.
    fn hangups_are_ignored() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored =
            status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        ignored & 1 == 1
    }

    #[test]
    fn other_signals_write_a_checkpoint_too_and_no_one_else_may_write_meanwhile() {
        let folder = folder();
        let (data, out) = (data(folder.path()), folder.path().join("run"));
        let whole = folder.path().join("whole");
        let epochs = 60;
        assert_eq!(run(&mut train("supervised", &data, &whole, epochs)).code, Some(0));
        let resume = || resume(&out);
        let mut first = train("supervised", &data, &out, epochs);
        first.args(["--set", "checkpoint_every=1000000"]);
        let mut child = spawn(&mut first);
        let mut step = 0;
        for signal_name in ["-TERM", "-HUP"] {
            checkpoint_beyond(&out, step, &mut child);
            // It stands still while others try, however long these take.
            signal(&child, "-STOP");
            let who = format!("run: another process is training into this directory (process {} on host ", child.0.id());
            for other in [&mut train("simclr", &data, &out, 1), &mut resume()] {
                refused(other, &[&who, ", since 2", "--out"]);
            }
            assert!(child.0.try_wait().unwrap().is_none(), "the run ended while others tried");
            signal(&child, "-CONT");
            signal(&child, signal_name);
            if signal_name == "-HUP" && hangups_are_ignored() {
                break;
            }
            assert_eq!(child.0.wait().unwrap().code(), Some(130));
            assert!(!out.join("weights.safetensors").exists());
            // The signal has written one: the next is by a run that has begun again.
            step = wgrad::train::Checkpoint::load(&out.join("checkpoints/last.safetensors")).unwrap().position.step;
            child = spawn(&mut resume());
        }
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
        // The interval of checkpoints is all that the recipes differ in, so all but that is the
        // same.
        assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), fs::read(whole.join("weights.safetensors")).unwrap());
    }

    #[test]
    fn a_run_from_a_damaged_checkpoint_comes_to_the_same_weights() {
        let folder = folder();
        let (data, out) = (data(folder.path()), folder.path().join("run"));
        assert_eq!(run(&mut train("supervised", &data, &out, 2)).code, Some(0));
        let weights = fs::read(out.join("weights.safetensors")).unwrap();
        let last = out.join("checkpoints/last.safetensors");
        let mut bytes = fs::read(&last).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 32;
        fs::write(&last, &bytes).unwrap();
        let mut resume = resume(&out);
        let resumed = run(&mut resume);
        assert_eq!(resumed.code, Some(0), "{}", resumed.err);
        for words in ["last.safetensors: is damaged", "the checkpoint before it, of step 9", "resuming after step 9 of 12"] {
            assert!(resumed.err.contains(words), "{}", resumed.err);
        }
        assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), weights);

        // An edited recipe is not passed over, and images that came to it are not either.
        let recipe = fs::read_to_string(out.join("recipe.toml")).unwrap();
        fs::write(out.join("recipe.toml"), recipe.replace("momentum = ", "momentum = 0.5 # was ")).unwrap();
        refused(&mut resume, &["recipe.toml: was edited", "momentum was 0.9", "now it is 0.5"]);
        fs::write(out.join("recipe.toml"), recipe).unwrap();
        let labels = data.join("train-labels-idx1-ubyte");
        let mut bytes = fs::read(&labels).unwrap();
        bytes[8] = (bytes[8] + 1) % 4;
        fs::write(&labels, bytes).unwrap();
        refused(&mut resume, &["the data have changed since the run began: labels"]);
    }

    /// A limit on the size of files, with its signal ignored, stops writing amid a file as a full
    /// disk does.
    #[test]
    fn a_full_disk_is_a_typed_error_and_leaves_no_part_of_a_file() {
        let folder = folder();
        let (data, out) = (data(folder.path()), folder.path().join("run"));
        let mut full = Command::new("sh");
        full.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$@\"", "sh"]);
        let inner = train("supervised", &data, &out, 2);
        full.arg(inner.get_program()).args(inner.get_args()).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        full.env("MESA_SHADER_CACHE_DISABLE", "true");
        refused(&mut full, &["last.safetensors"]);
        assert_eq!(files(&out.join("checkpoints")), [""; 0]);
        assert_eq!(files(&out), ["checkpoints", "environment.json", "recipe.toml"]);
        // With room again the same command does its work.
        assert_eq!(run(&mut train("supervised", &data, &out, 1)).code, Some(0));

        if Path::new("/dev/full").exists() {
            let mut command = wgrad();
            command.arg("info").stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
            refused(&mut command, &["stdout", "no space left"]);
        }
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_program_quietly() {
        let mut child =
            Guard(wgrad().args(["ops", "conv2d", "--emit", "wgsl"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        drop(child.0.stdout.take());
        let status = child.0.wait().unwrap();
        let mut words = String::new();
        std::io::Read::read_to_string(child.0.stderr.as_mut().unwrap(), &mut words).unwrap();
        assert_eq!((status.code(), words.as_str()), (Some(141), ""));
    }
}
