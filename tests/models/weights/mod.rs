//! Weights files: what PyTorch and others write is read, and whatever else a file holds is an error
//! that says so, with nothing run and nothing allocated for what it only promises.

mod fitting;
mod lies;

use std::fs;
use std::path::{Path, PathBuf};

use wgrad::error::{Error, Result};
use wgrad::io::{Archive, HostTensor, open_weights};
use wgrad::tensor::Shape;

/// Made by `tests/reference/generate_weights.py`.
fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/weights").join(name)
}

fn open(bytes: &[u8]) -> Result<Archive> {
    // One folder a test: thousands of files are written.
    thread_local!(static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap());
    let path = FOLDER.with(|folder| folder.path().join("hostile.pth"));
    fs::write(&path, bytes).unwrap();
    open_weights(&path)
}

/// The file is refused by an error that names it and has these words.
#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    match open(bytes) {
        Err(Error::Data { source_name, message }) => {
            assert!(source_name.ends_with("hostile.pth"), "{source_name}");
            words.iter().for_each(|word| assert!(message.contains(word), "no \"{word}\" in: {message}"));
            assert!(message.len() < 1000, "{} bytes of message", message.len());
        }
        other => panic!("{other:?}"),
    }
}

fn floats<const N: usize>(shape: impl Into<Shape>, data: [f32; N]) -> HostTensor {
    HostTensor::F32(shape.into(), data.into())
}

#[test]
fn files_of_pytorch_are_read_with_every_type_and_view() {
    for name in ["state_dict.pth", "legacy.pth"] {
        let archive = open_weights(&reference(name)).unwrap();
        let base: [f32; 12] = std::array::from_fn(|i| i as f32 / 4.0 - 1.0);
        let [a, b, c, d, e, f, g, h, i, j, k, l] = base;
        for (key, expected) in [
            ("plain", floats([3, 4], base)),
            ("transposed", floats([4, 3], [a, e, i, b, f, j, c, g, k, d, h, l])),
            ("row", floats([4], [e, f, g, h])),
            ("every_other", floats([6], [b, d, f, h, j, l])),
            ("expanded", floats([2, 3], [c; 6])),
            ("parameter", floats([2], [0.5, -2.0])),
            ("float16", floats([3], [1.0, 2.0, 100.0])),
            ("bfloat16", floats([3], [1.0, 2.0, 100.0])),
            ("float64", floats([3], [1.0, 2.0, 100.0])),
            ("int64", HostTensor::I64([3].into(), vec![1, 2, 100])),
            ("int32", HostTensor::I32([3].into(), vec![1, 2, 100])),
            ("int16", HostTensor::I32([3].into(), vec![1, 2, 100])),
            ("int8", HostTensor::I32([3].into(), vec![1, 2, 100])),
            ("uint8", HostTensor::I32([3].into(), vec![1, 2, 100])),
            ("bool", HostTensor::I32([2].into(), vec![1, 0])),
            ("empty", floats([0, 3], [])),
            ("bn.num_batches_tracked", HostTensor::I64([].into(), vec![1_234_567_890_123])),
        ] {
            assert_eq!(archive.tensors.get(key), Some(&expected), "{name}: {key}");
        }
        assert_eq!(archive.tensors.len(), 17, "{name}");
    }
}

#[test]
fn a_checkpoint_is_unwrapped_and_the_prefix_of_parallel_training_goes() {
    let archive = open_weights(&reference("checkpoint.pth")).unwrap();
    let names: Vec<&str> = archive.tensors.keys().map(String::as_str).collect();
    assert_eq!(names, ["bn.bias", "bn.num_batches_tracked", "bn.running_mean", "bn.running_var", "bn.weight", "fc.bias", "fc.weight"]);
    assert_eq!(archive.tensors["fc.weight"], floats([1, 2], [0.25, -0.75]));
    assert_eq!(archive.tensors["fc.bias"], floats([1], [3.0]));
}

#[test]
fn files_that_end_early_are_refused_and_damaged_ones_never_panic() {
    for name in ["state_dict.pth", "legacy.pth", "checkpoint.pth"] {
        let whole = fs::read(reference(name)).unwrap();
        for length in (0..whole.len()).step_by(3) {
            refused(&whole[..length], &[]);
        }
        for at in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            if let Err(error) = open(&damaged) {
                assert!(matches!(error, Error::Data { .. }), "{error}");
            }
        }
    }
    let mut longer = fs::read(reference("state_dict.pth")).unwrap();
    longer.extend([0; 100]);
    refused(&longer, &["no complete zip file"]);
    for none in [&b"PK\x03\x04 is no zip file"[..], b"PK", b"", b"\x89PNG", b"\x80\x02}q\x00.", &[0; 100]] {
        refused(none, &[]);
    }
}

// Pickles by hand: each function gives the opcodes that push a value.

fn int(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn sizes(sizes: &[i64]) -> Vec<u8> {
    tuple(&sizes.iter().map(|s| int(*s)).collect::<Vec<_>>())
}

fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn call(function: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [function, tuple(arguments), b"R".to_vec()].concat()
}

fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(", &items[..], b"u"].concat()
}

/// A tensor of the storage "0", which should have `stored` elements.
fn tensor(kind: &str, stored: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let name = tuple(&[text("storage"), global("torch", kind), text("0"), text("cpu"), int(stored)]);
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let arguments = [[name, b"Q".to_vec()].concat(), int(offset), sizes(shape), sizes(strides), vec![0x89], hooks];
    call(global("torch._utils", "_rebuild_tensor_v2"), &arguments)
}

fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

/// A zip file of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in entries {
        let (checksum, size) = (crc32fast::hash(contents).to_le_bytes(), (contents.len() as u32).to_le_bytes());
        let length = (name.len() as u16).to_le_bytes();
        let place = (file.len() as u32).to_le_bytes();
        let common = [&[0; 4][..], &[0; 4], &checksum, &size, &size, &length, &[0; 2]].concat();
        directory.extend([b"PK\x01\x02\0\0\0\0", &common[..], &[0; 10], &place, name.as_bytes()].concat());
        file.extend([b"PK\x03\x04\0\0", &common[..], name.as_bytes(), contents].concat());
    }
    let (count, size) = ((entries.len() as u16).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    let start = (file.len() as u32).to_le_bytes();
    [file, directory, [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &start, &[0; 2]].concat()].concat()
}

/// A file of a pickle and the four floats of its storage "0".
fn file(body: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", &pickle(body)), ("a/byteorder", b"little"), ("a/data/0", bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]))])
}

fn weights(kind: &str, stored: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    file(&dict(&[("w", tensor(kind, stored, offset, shape, strides))]))
}

#[test]
fn a_file_by_hand_is_read_also_with_newer_opcodes() {
    let good = weights("FloatStorage", 4, 1, &[3], &[1]);
    assert_eq!(open(&good).unwrap().tensors["w"], floats([3], [2.0, 3.0, 4.0]));
    // Frames, short text, a memo by order and names from the stack, as protocol 4 writes them.
    let hooks = call([&b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93"[..], b"\x94"].concat(), &[]);
    let body = [&b"\x95\0\0\0\0\0\0\0\0"[..], &dict(&[("hooks", hooks), ("w", tensor("FloatStorage", 4, 0, &[], &[]))])].concat();
    assert_eq!(open(&file(&body)).unwrap().tensors["w"], floats([], [1.0]));
}

fn safetensors(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn types_are_read_as_what_holds_them_and_unknown_ones_are_listed() {
    let json = r#"{"u":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"BOOL","shape":[],"data_offsets":[2,3]},
        "i":{"dtype":"I16","shape":[1],"data_offsets":[3,5]},"z":{"dtype":"F32","shape":[3,0],"data_offsets":[5,5]},
        "e":{"dtype":"F8_E4M3","shape":[2,1],"data_offsets":[5,7]}}"#;
    let archive = open(&safetensors(json, 7)).unwrap();
    assert_eq!(archive.tensors["u"], HostTensor::I32([2].into(), vec![0, 0]));
    assert_eq!(archive.tensors["b"], HostTensor::I32([].into(), vec![0]));
    assert_eq!(archive.tensors["i"], HostTensor::I32([1].into(), vec![0]));
    assert_eq!(archive.tensors["z"], floats([3, 0], []));
    assert_eq!(archive.tensors["e"], HostTensor::Other([2, 1].into(), "F8_E4M3".into()));
    let folder = tempfile::tempdir().unwrap();
    let error = archive.save(&folder.path().join("again")).unwrap_err();
    assert!(matches!(&error, Error::Data { message, .. } if message.contains("\"e\" of type F8_E4M3")), "{error}");
}

#[test]
fn what_wrappers_put_before_names_goes_in_every_format() {
    let floats = |name: &str| (name.to_string(), tensor("FloatStorage", 4, 0, &[4], &[1]));
    for prefix in ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod."] {
        let entries = ["fc.weight", "fc.bias"].map(|name| floats(&format!("{prefix}{name}")));
        let entries: Vec<(&str, Vec<u8>)> = entries.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let plain = file(&dict(&entries));
        let wrapped = file(&dict(&[("epoch", int(3)), ("state_dict", dict(&entries))]));
        let twice = file(&dict(&[("model", dict(&[("model_state_dict", dict(&entries))]))]));
        let listing = |name: &str, from: usize| {
            format!("\"{prefix}{name}\":{{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[{from},{}]}}", from + 16)
        };
        let safe = safetensors(&format!("{{{},{}}}", listing("fc.weight", 0), listing("fc.bias", 16)), 32);
        for bytes in [plain, wrapped, twice, safe] {
            let names: Vec<String> = open(&bytes).unwrap().tensors.into_keys().collect();
            assert_eq!(names, ["fc.bias", "fc.weight"], "{prefix}");
        }
    }
}
