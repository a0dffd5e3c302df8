//! Files that lie are refused by name. The sizes that they promise are such that to allocate them
//! would end the program.

use super::{call, dict, file, floats, global, int, open, pickle, refused, safetensors, tensor, text, weights, zip};

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
