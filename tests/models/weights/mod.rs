//! Weights files: what PyTorch and others write is read, and whatever else a file holds is an error that says so, with nothing run and
//! nothing allocated for what it only promises. Promised sizes are such that to allocate them would end the program.

use std::fs;
use std::path::{Path, PathBuf};

use wgrad::error::{Error, Result};
use wgrad::io::{Archive, HostTensor, open_weights};
use wgrad::nn::{BatchNorm, Linear, Parameters, state_dict};
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

#[test]
fn views_that_leave_their_storage_and_lies_about_its_size_are_refused() {
    let huge = i64::MAX;
    for (kind, stored, offset, shape, strides, words) in [
        ("FloatStorage", 4, 1, &[4][..], &[1][..], "beyond its storage"),
        ("FloatStorage", 4, huge, &[1], &[1], "beyond its storage"),
        ("FloatStorage", 4, -1, &[1], &[1], "-1"),
        ("FloatStorage", 4, 0, &[-1], &[1], "-1"),
        ("FloatStorage", 4, 0, &[2], &[-1], "-1"),
        ("FloatStorage", 4, 0, &[2], &[huge], "beyond its storage"),
        ("FloatStorage", 4, 0, &[2, 2], &[1], "1 strides"),
        ("FloatStorage", 4, 0, &[huge], &[0], "too often"),
        ("FloatStorage", 4, 0, &[huge, huge], &[0, 0], "too many"),
        ("FloatStorage", 4, 0, &[huge, huge, 0], &[0, 0, 0], "too many"),
        ("FloatStorage", huge, 0, &[huge], &[1], "storage of 9223372036854775807 elements, it has 16 bytes"),
        ("FloatStorage", huge, 0, &[1], &[1], "it has 16 bytes"),
        ("FloatStorage", 5, 0, &[5], &[1], "it has 16 bytes"),
        ("DoubleStorage", 4, 0, &[4], &[1], "it has 16 bytes"),
        ("FloatStorage", -4, 0, &[4], &[1], "unknown way"),
        ("FloatStorage", 4, 0, &[1; 65], &[1; 65], "unknown way"),
        ("ComplexFloatStorage", 2, 0, &[2], &[1], "torch.ComplexFloatStorage"),
    ] {
        refused(&weights(kind, stored, offset, shape, strides), &[words]);
    }
    // Sharing is fine, but not so often that little becomes much.
    let shared: Vec<(String, Vec<u8>)> = (0..3).map(|i| (format!("w{i}"), tensor("FloatStorage", 4, 0, &[100], &[0]))).collect();
    let entries: Vec<(&str, Vec<u8>)> = shared.iter().map(|(name, t)| (name.as_str(), t.clone())).collect();
    assert_eq!(open(&file(&dict(&entries))).unwrap().tensors.len(), 3);
    let memoized =
        [b"}(", &text("a")[..], &tensor("FloatStorage", 4, 0, &[300], &[0]), b"q\x07", &text("b"), b"h\x07", &text("c"), b"h\x07u"];
    refused(&file(&memoized.concat()), &["too often"]);
}

#[test]
fn a_pickle_with_code_is_refused_by_the_name_of_what_it_calls_and_nothing_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let command = [text(&format!("touch {}", made.display()))];
    let stack_global = [text("os"), text("system"), b"\x93".to_vec()].concat();
    let getattr = call(global("__builtin__", "getattr"), &[global("torch", "Size"), text("__init__")]);
    for (body, name) in [
        (call(global("posix", "system"), &command), "posix.system"),
        (call(global("os", "system"), &command), "os.system"),
        (call(stack_global, &command), "os.system"),
        ([b"(", &command[0][..], b"ios\nsystem\n"].concat(), "os.system"),
        (dict(&[("w", call(global("builtins", "eval"), &command))]), "builtins.eval"),
        (dict(&[("w", tensor("FloatStorage", 4, 0, &[1], &[1])), ("x", getattr)]), "__builtin__.getattr"),
        (dict(&[("args", global("argparse", "Namespace"))]), "argparse.Namespace"),
        (global("torch._utils", "_rebuild_tensor_v2\u{200b}"), "torch._utils._rebuild_tensor_v2\u{200b}"),
        (global(&"m".repeat(1 << 20), "n"), "mmmm"),
    ] {
        refused(&file(&body), &["holds code", name]);
    }
    // Objects that set their own attributes, and classes that are made without a call.
    refused(&file(&[&tensor("FloatStorage", 4, 0, &[1], &[1])[..], &dict(&[]), b"b"].concat()), &["sets the attributes"]);
    refused(&file(&[&global("torch", "Size")[..], b")\x81"].concat()), &["0x81"]);
    refused(&file(b"\x82\x01"), &["0x82"]);
    assert!(!made.exists());
}

#[test]
fn pickles_that_nest_promise_or_break_off_are_refused() {
    let deep = 1 << 20;
    for body in [
        "(".repeat(deep).into_bytes(),
        [vec![b']'; deep], vec![b'a'; deep - 1]].concat(),
        [vec![b')'], vec![0x85; deep]].concat(),
        [&b"}q\0("[..], &text("state_dict"), b"h\0u"].concat(), // itself
        text("only text"),
        b"X\xff\xff\xff\xff".to_vec(),
        b"B\xff\xff\xff\xff".to_vec(),
        b"\x8a\xff".to_vec(),
        b"\x8b\xff\xff\xff\x7f".to_vec(),
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
        b"X\x01\0\0\0\xff".to_vec(),
        b"j\xff\xff\xff\xff".to_vec(),
        b"r\xff\xff\xff\xff".to_vec(),
        b"q\x01".to_vec(),
        b"h\x01".to_vec(),
        b"".to_vec(),
        b"t".to_vec(),
        b"\x87".to_vec(),
        b"Na".to_vec(),
        b"}Na".to_vec(),
        b"](NNu".to_vec(),
        b"}(Nu".to_vec(),
        b"NNR".to_vec(),
        b"NQ".to_vec(),
        b"NN\x93".to_vec(),
        vec![b'N'; 5 << 20],
    ] {
        refused(&file(&body), &[]);
    }
    refused(&file(&dict(&[("epoch", int(3)), ("lr", int(1))])), &["no tensors by name", "epoch, lr"]);
    refused(&file(&tensor("FloatStorage", 4, 0, &[1], &[1])), &["no dictionary of tensors"]);
    let twice = [("w", tensor("FloatStorage", 4, 0, &[1], &[1])), ("_orig_mod.w", tensor("FloatStorage", 4, 0, &[1], &[1]))];
    refused(&file(&dict(&twice)), &["\"w\" is there twice"]);
}

#[test]
fn zip_files_that_lie_are_refused() {
    let good = weights("FloatStorage", 4, 0, &[4], &[1]);
    assert!(open(&good).is_ok());
    let pickled = pickle(&dict(&[("w", tensor("FloatStorage", 4, 0, &[4], &[1]))]));
    refused(&zip(&[("a/data.pkl", &pickled)]), &["tensor \"w\"", "no storage \"0\""]);
    refused(&zip(&[("a/data/0", &[0; 16])]), &["0 entries called data.pkl"]);
    refused(&zip(&[("a/data.pkl", &pickled), ("b/data.pkl", &pickled)]), &["2 entries called data.pkl"]);
    refused(&zip(&[("a/data.pkl", &pickled), ("a/data/0", &[0; 16]), ("a/data/0", &[1; 16])]), &["\"a/data/0\" is there twice"]);
    refused(&zip(&[("a/data.pkl", &pickled), ("a/data/0", &[0; 16]), ("a/byteorder", b"big")]), &["byte order \"big\""]);
    refused(&zip(&[]), &[]);

    // The last entry of the directory, of 8 bytes of name, is the storage's.
    let entry = good.len() - 22 - 46 - 8;
    let changed = |at: usize, bytes: &[u8], words: &[&str]| {
        let mut file = good.clone();
        file[entry + at..entry + at + bytes.len()].copy_from_slice(bytes);
        refused(&file, words);
    };
    changed(8, &[1], &["\"a/data/0\" compressed or encrypted"]);
    changed(10, &[8], &["\"a/data/0\" compressed or encrypted"]);
    changed(24, &[0xfe, 0xff, 0xff, 0xff], &["\"a/data/0\" compressed"]); // a bomb: small packed, large unpacked
    changed(20, &[0xfe, 0xff, 0xff, 0x7f, 0xfe, 0xff, 0xff, 0x7f], &["2147483646 bytes"]);
    changed(20, &[0xff; 8], &["damaged"]); // wide sizes that are nowhere
    changed(42, &[0xfe, 0xff, 0xff, 0xff], &["at byte 4294967294"]);
    changed(42, &[1, 0, 0, 0], &["at byte 1"]);
    changed(42, &[0, 0, 0, 0], &["checksum"]); // the place of another entry
    changed(28, &[0xff, 0xff], &["damaged"]);
    changed(16, &[0; 4], &["checksum"]);
    changed(46, &[0xff; 8], &["damaged"]);
    let mut lost = good.clone();
    let end = lost.len() - 22;
    lost[end + 12..end + 16].copy_from_slice(&[0xff; 4]);
    refused(&lost, &["no complete zip file"]);

    // Entries that all are the same bytes.
    let many = zip(&[("a/data.pkl", &pickled), ("b", &[7; 5000])]);
    let directory = many.len() - 22 - 47;
    let mut file = many[..directory].to_vec();
    for name in [b'c', b'd', b'e'] {
        file.extend([&many[directory..directory + 46], &[name]].concat());
    }
    let (size, start) = (3 * 47u32, directory as u32);
    file.extend([b"PK\x05\x06\0\0\0\0\x03\0\x03\0", &size.to_le_bytes()[..], &start.to_le_bytes(), &[0; 2]].concat());
    refused(&file, &["overlaps"]);
}

fn safetensors(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn safetensors_files_that_lie_are_refused_by_the_name_of_the_tensor() {
    let tensor = |name: &str, dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let file = |tensors: &[String], data: usize| safetensors(&format!("{{{}}}", tensors.join(",")), data);
    let a = || tensor("a", "F32", "[2]", 0, 8);
    assert_eq!(open(&file(&[a()], 8)).unwrap().tensors["a"], floats([2], [0.0; 2]));

    for (tensors, data, words) in [
        (vec![a(), tensor("b", "F32", "[2]", 4, 12)], 12, &["\"b\"", "overlaps"][..]),
        (vec![a(), tensor("b", "F32", "[2]", 0, 8)], 8, &["\"b\"", "overlaps"]),
        (vec![a(), tensor("b", "F32", "[2]", 12, 20)], 20, &["\"b\"", "gap"]),
        (vec![a()], 12, &["end at byte 8", "12"]),
        (vec![a()], 7, &["\"a\"", "no complete safetensors file"]),
        (vec![a(), a()], 8, &["\"a\"", "twice"]),
        (vec![tensor("a", "F32", "[3]", 0, 8)], 8, &["\"a\"", "8 bytes"]),
        (vec![tensor("a", "F64", "[2]", 0, 8)], 8, &["\"a\""]),
        (vec![tensor("a", "F32", "[2]", 8, 0)], 8, &["\"a\""]),
        (vec![tensor("a", "F32", "[1152921504606846976]", 0, 1 << 62)], 8, &["\"a\"", "no complete safetensors file"]),
        (vec![tensor("a", "F32", "[4294967296,4294967296,4294967296]", 0, 8)], 8, &["\"a\"", "8 bytes"]),
        (vec![tensor("a", "F32", "[4294967296,4294967296,0]", 0, 0)], 0, &["\"a\""]),
        (vec![tensor("a", "F32", "[-1]", 0, 8)], 8, &["\"a\""]),
        (vec![tensor("a", "F32", "[99999999999999999999]", 0, 8)], 8, &["\"a\""]),
        (vec![tensor("a", "C3PO", "[2]", 0, 8)], 8, &["\"a\"", "C3PO"]),
        (vec![r#""a":{"dtype":"F32"}"#.into()], 8, &["\"a\"", "shape"]),
        (vec![r#""__metadata__":{"a":1}"#.into()], 0, &["header"]),
    ] {
        refused(&file(&tensors, data), words);
    }
    let mut lie = file(&[a()], 8);
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, lie.len() as u64] {
        lie[..8].copy_from_slice(&length.to_le_bytes());
        refused(&lie, &[&length.to_string()]);
    }
    let mut text = file(&[a()], 8);
    text[10] = 0xff;
    refused(&text, &["header"]);
    refused(&safetensors(&format!("{{\"a\":{}", "[".repeat(1 << 20)), 0), &["header"]);
    let good = file(&[a(), tensor("b", "F16", "[2]", 8, 12)], 12);
    (0..good.len()).for_each(|length| refused(&good[..length], &[]));
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

/// A head of 3 classes behind a norm.
fn model(params: &Parameters) {
    BatchNorm::new(params, "bn", 2, Default::default()).unwrap();
    Linear::new(params, "fc", 2, 3).unwrap();
}

fn whole() -> Archive {
    let mut archive = Archive::default();
    for name in ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"] {
        archive.insert(name, floats([2], [0.5, 2.0]));
    }
    archive.insert("bn.num_batches_tracked", HostTensor::I64([].into(), vec![9]));
    archive.insert("fc.weight", floats([3, 2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    archive.insert("fc.bias", floats([3], [7.0, 8.0, 9.0]));
    archive
}

#[test]
fn every_tensor_that_does_not_fit_is_named_with_both_shapes_and_nothing_is_changed() {
    let params = Parameters::new(&crate::common::gpu(), 0);
    model(&params);
    let before = state_dict::to_archive(&params).unwrap();
    let mut bad = whole();
    bad.insert("bn.weight", floats([1], [0.5]));
    bad.insert("fc.weight", floats([2, 3], [0.0; 6]));
    bad.insert("bn.running_mean", HostTensor::I32([2].into(), vec![1, 2]));
    bad.insert("bn.running_var", HostTensor::Other([2].into(), "F8_E5M2".into()));
    bad.insert("bn.num_batches_tracked", floats([2], [0.0; 2]));
    bad.insert("stem.weight", HostTensor::Other([4, 1].into(), "U64".into()));
    bad.tensors.remove("fc.bias");
    let error = state_dict::fill(&params, &bad, "some.safetensors", &["fc.weight", "fc.bias"]).unwrap_err();
    let Error::Data { source_name, message } = &error else { panic!("{error}") };
    assert_eq!(source_name, "some.safetensors");
    for line in [
        "in 7 tensors",
        "\"bn.weight\" has shape [1] of F32, the model's has [2] of F32",
        "\"fc.weight\" has shape [2, 3] of F32, the model's has [3, 2] of F32",
        "\"bn.running_mean\" has shape [2] of I32, the model's has [2] of F32",
        "\"bn.running_var\" has shape [2] of F8_E5M2, the model's has [2] of F32",
        "\"bn.num_batches_tracked\" has shape [2] of F32, the model's has [] of I64",
        "\"fc.bias\" [3] is missing",
        "\"stem.weight\" [4, 1] is not in the model",
    ] {
        assert!(message.contains(line), "no {line} in: {message}");
    }
    assert_eq!(state_dict::to_archive(&params).unwrap(), before);
}

#[test]
fn a_head_of_other_classes_is_replaced_where_it_is_named_and_a_missing_counter_is_no_fault() {
    let params = Parameters::new(&crate::common::gpu(), 0);
    model(&params);
    let before = state_dict::to_archive(&params).unwrap();
    let mut other = whole();
    other.insert("fc.weight", floats([5, 2], [0.0; 10]));
    other.insert("fc.bias", floats([5], [0.0; 5]));
    other.tensors.remove("bn.num_batches_tracked");
    assert!(state_dict::fill(&params, &other, "file", &["fc.bias"]).is_err());
    let report = state_dict::fill(&params, &other, "file", &["fc.weight", "fc.bias"]).unwrap();
    assert_eq!(report.replaced, ["fc.weight", "fc.bias"]);
    let after = state_dict::to_archive(&params).unwrap();
    assert_eq!(after.tensors["bn.weight"], floats([2], [0.5, 2.0]));
    assert_eq!(after.tensors["fc.weight"], before.tensors["fc.weight"]);

    assert_eq!(state_dict::fill(&params, &whole(), "file", &["fc.weight", "fc.bias"]).unwrap(), Default::default());
    assert_eq!(state_dict::to_archive(&params).unwrap(), whole());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    state_dict::save(&params, &path).unwrap();
    state_dict::load(&params, &path).unwrap();
    assert_eq!(open_weights(&path).unwrap(), whole());
}

#[test]
fn tensors_that_are_not_finite_are_named_and_counted_and_nothing_is_changed() {
    let params = Parameters::new(&crate::common::gpu(), 0);
    model(&params);
    let before = state_dict::to_archive(&params).unwrap();
    let mut bad = whole();
    bad.insert("bn.running_var", floats([2], [1.0, f32::INFINITY]));
    bad.insert("fc.weight", floats([3, 2], [-f32::NAN, 2.0, f32::NAN, 4.0, f32::NEG_INFINITY, 6.0]));
    // What the model does not have is not looked at.
    bad.insert("other.weight", floats([1], [f32::NAN]));
    let message = state_dict::from_archive(&params, &bad, "some.safetensors").unwrap_err().to_string();
    for words in ["some.safetensors: 2 tensors hold NaN or infinity", "\"bn.running_var\" (1 of 2 values)", "\"fc.weight\" (3 of 6 values)"]
    {
        assert!(message.contains(words), "no {words} in: {message}");
    }
    bad.tensors.remove("other.weight");
    assert_eq!(state_dict::fill(&params, &bad, "some.safetensors", &[]).unwrap_err().to_string(), message);
    for name in ["bn.weight", "bn.bias", "bn.running_mean", "fc.bias"] {
        let HostTensor::F32(_, data) = bad.tensors.get_mut(name).unwrap() else { panic!("{name}") };
        data.fill(f32::NAN);
    }
    let message = state_dict::fill(&params, &bad, "f", &[]).unwrap_err().to_string();
    assert!(message.contains("6 tensors") && message.contains(" and 1 more"), "{message}");
    assert_eq!(state_dict::to_archive(&params).unwrap(), before);
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
    // Another one is named.
    let params = Parameters::new(&crate::common::gpu(), 0);
    model(&params);
    let mut other = whole();
    other.tensors = other.tensors.into_iter().map(|(name, tensor)| (format!("encoder.body.{name}"), tensor)).collect();
    for report in [state_dict::fill(&params, &other, "file", &[]), state_dict::fill(&params, &whole(), "file", &[])] {
        match report {
            Err(error) => assert!(error.to_string().contains("all names in the file begin with \"encoder.body.\""), "{error}"),
            Ok(report) => assert_eq!(report, Default::default()),
        }
    }
    other.tensors.remove("encoder.body.fc.bias");
    other.insert("fc.bias", whole().tensors["fc.bias"].clone());
    assert!(!state_dict::fill(&params, &other, "file", &[]).unwrap_err().to_string().contains("all names"));
}
