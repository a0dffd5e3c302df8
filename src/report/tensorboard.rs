//! TensorBoard's event files: a TFRecord for each `Event` of its protocol (`event.proto` and
//! `summary.proto` in tensorflow/tensorboard), of which only what scalars need is written.
//!
//! By prost, from the messages below, and crc. Of the crates that write whole files tensorboard-rs
//! 0.5.9 brings protobuf 2 and image 0.23 along, and tboard 0.1.1 needs protoc where it is built.

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

/// CRC-32C.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// What the first event of a file says of the others.
const FILE_VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const START: i32 = 1;

/// What was seen at a moment. Its fields but for time and step are a `oneof`, of which one is there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Event {
    /// Seconds since 1970.
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
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// One of a `oneof`, so it is there even where it is 0.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl Event {
    /// What a file begins with.
    pub(crate) fn version(wall_time: f64) -> Self {
        Self { wall_time, file_version: Some(FILE_VERSION.into()), ..Default::default() }
    }

    /// A run begins, or goes on, with `step`: TensorBoard drops what it has read of that step and
    /// later ones.
    pub(crate) fn start(wall_time: f64, step: u64) -> Self {
        Self { wall_time, step: signed(step), session_log: Some(SessionLog { status: START }), ..Default::default() }
    }

    /// Numbers by their names, behind `step`.
    pub(crate) fn scalars(wall_time: f64, step: u64, values: impl Iterator<Item = (String, f32)>) -> Self {
        let value = values.map(|(tag, value)| SummaryValue { tag, simple_value: Some(value) }).collect();
        Self { wall_time, step: signed(step), summary: Some(Summary { value }), ..Default::default() }
    }

    /// The bytes that it adds to a file: its length, and it, each with its checksum behind it.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let event = self.encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        [length.as_slice(), &checksum(&length), &event, &checksum(&event)].concat()
    }
}

fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

/// TFRecord's masked CRC-32C (`tensorflow/core/lib/hash/crc32c.h`): that of a text which holds
/// checksums itself would be a poor one.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `RecordWriter` and `event_pb2` of TensorBoard 2.21.0 write them.
    #[test]
    fn records_are_tensorboards() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(Event::version(1.5).to_record()),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
        );
        assert_eq!(hex(Event::start(1.5, 41).to_record()), "0f000000000000006d532b0909000000000000f83f10293a020801a6ac353d");
        let values = [("step/loss".to_string(), 0.0), ("epoch/loss".to_string(), -2.25)];
        assert_eq!(
            hex(Event::scalars(1.5, 300, values.into_iter()).to_record()),
            "33000000000000000ca7205609000000000000f83f10ac022a250a100a09737465702f6c6f737315000000000a110a0a65706f63682f6c6f737315000010c0e70855f2"
        );
    }
}
