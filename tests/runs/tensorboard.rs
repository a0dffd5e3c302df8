//! A run's event files, read as TensorBoard reads them.

use std::fs;
use std::path::Path;

use prost::Message;
use serde_json::Value;

use crate::common::program::{data, files, folder, run, train, wgrad};

/// TensorBoard's `Event`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The events of a file, each of whose records is whole.
fn events(file: &Path) -> Vec<Event> {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let bytes = fs::read(file).unwrap();
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    let part = |rest: &mut &[u8], length: usize| {
        let (bytes, sum) = rest[..length + 4].split_at(length);
        *rest = &rest[length + 4..];
        let masked = u64::from(crc.checksum(bytes).rotate_right(15)) + 0xa282_ead8;
        assert_eq!(u64::from(u32::from_le_bytes(sum.try_into().unwrap())), masked & 0xffff_ffff, "{}", file.display());
        bytes.to_vec()
    };
    while !rest.is_empty() {
        let length = u64::from_le_bytes(part(&mut rest, 8).try_into().unwrap());
        found.push(Event::decode(part(&mut rest, length as usize).as_slice()).unwrap());
    }
    found
}

/// The scalars of all files of a run, in the order of their names, as TensorBoard keeps them: a start
/// drops what was there of its step and later ones. Also where the last file starts.
fn scalars(run: &Path) -> (Vec<(String, i64, f32)>, i64) {
    let (mut kept, mut start): (Vec<(String, i64, f32)>, _) = (Vec::new(), 0);
    for name in files(&run.join("tensorboard")) {
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        let events = events(&run.join("tensorboard").join(name));
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(events[1].session_log, Some(SessionLog { status: 1 }));
        start = events[1].step;
        kept.retain(|(_, step, _)| *step < start);
        for event in &events[2..] {
            assert!(event.wall_time > 1.7e9, "{event:?}");
            let values = event.summary.iter().flat_map(|summary| &summary.value);
            kept.extend(values.map(|value| (value.tag.clone(), event.step, value.simple_value.unwrap())));
        }
    }
    (kept, start)
}

/// The same of the run's own lines.
fn metrics(run: &Path) -> Vec<(String, i64, f32)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let scalars = |line: Value| {
        let (kind, step) = (line["kind"].as_str().unwrap().to_string(), line["step"].as_i64().unwrap());
        let numbers = line.as_object().unwrap().clone().into_iter().filter(|(key, _)| key != "step" && key != "epoch");
        numbers.filter_map(move |(key, value)| Some((format!("{kind}/{key}"), step, value.as_f64()? as f32))).collect::<Vec<_>>()
    };
    lines.flat_map(scalars).collect()
}

#[test]
fn tensorboard_reads_what_the_metrics_say_once() {
    let folder = folder();
    let (data, out) = (data(folder.path()), folder.path().join("run"));
    let mut command = train("supervised", &data, &out, 8);
    command.args(["--tensorboard", "--set", "split=0.25", "--set", "checkpoint_every=1"]);
    let trained = run(&mut command);
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    let (seen, start) = scalars(&out);
    assert_eq!((start, &seen), (1, &metrics(&out)));
    for tag in [
        "step/loss",
        "step/learning_rate",
        "step/gradient_norm",
        "epoch/loss",
        "epoch/learning_rate",
        "epoch/images_per_second",
        "validation/loss",
        "validation/top_1",
    ] {
        assert!(seen.iter().any(|(name, ..)| name == tag), "{tag}: {seen:?}");
    }

    // It goes on from the checkpoint before the last, so the last epoch's events come again.
    let last = out.join("checkpoints/last.safetensors");
    fs::write(&last, "damaged").unwrap();
    let resume = |more: &[&str]| {
        let resumed = run(wgrad().args(["train", "supervised", "--resume", "--out"]).arg(&out).args(more));
        assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    };
    resume(&[]);
    let steps = seen.last().unwrap().1;
    assert_eq!(files(&out.join("tensorboard")).len(), 2);
    let (seen, start) = scalars(&out);
    assert_eq!((start, seen), (steps, metrics(&out)));

    // Where it is asked for later, it has what came before, too.
    fs::remove_dir_all(out.join("tensorboard")).unwrap();
    resume(&["--epochs", "10"]);
    assert!(!out.join("tensorboard").exists());
    resume(&["--epochs", "12", "--tensorboard"]);
    let (seen, start) = scalars(&out);
    assert_eq!((start, seen), (1, metrics(&out)));
}
