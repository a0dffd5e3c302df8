//! Kernels on the interpreter, as users check theirs.

use std::fs;
use std::path::Path;

use crate::common::gpu;
use crate::common::program::{done, folder, refused, run, text, wgrad};
use serde_json::Value;
use wgrad::check::{Contents, Options, check};
use wgrad::gpu::{Kernel, Launch};
use wgrad::params;
use wgrad::tensor::{DType, Tensor};

const TUTORIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial/rms_norm.wgsl");

#[test]
fn the_interpreter_computes_what_the_device_computes() {
    let gpu = gpu();
    let values: Vec<f32> = (0..70 * 5).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
    let kernel = Kernel::new("rms_norm", fs::read_to_string(TUTORIAL).unwrap());
    let x = Tensor::from_slice(&gpu, &values, [70, 5]).unwrap();
    let y = Tensor::zeros(&gpu, [70, 5], DType::F32).unwrap();
    let all = params![70usize, 5usize, 1e-6f32];
    Launch::new(&gpu, &kernel, "rms_norm").define("GRADIENT", 0).read(&x).write(&y).params(all).groups(2).unwrap();
    let bytes = |name: &str, values: &[f32]| Contents { name: name.into(), bytes: bytemuck::cast_slice(values).to_vec() };
    let buffers = vec![bytes("x", &values), bytes("y", &[0.0; 350])];
    let defines = [("GRADIENT".to_string(), "0".to_string())];
    let report = check(&kernel, "rms_norm", &defines, buffers, all, [2, 1, 1], Options::default()).unwrap();
    assert_eq!((report.findings.len(), report.rounds, report.invocations), (0, 12, 128));
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(&report.buffers[1].1);
    for (found, expected) in found.iter().zip(y.to_vec::<f32>().unwrap()) {
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} {expected}");
    }
}

#[test]
fn kernels_are_checked_from_the_command_line() {
    let bind = ["--bind", "x=f32[70,5]:random", "--bind", "y=f32[70,5]:zero", "--define", "GRADIENT=0"];
    let good = done(&[&["check", TUTORIAL][..], &bind, &["--params", "70,5,1e-6", "--grid", "2"]].concat()).out;
    assert!(good.contains("rms_norm: nothing found in 128 invocations"), "{good}");

    let folder = folder();
    let racy = folder.path().join("racy.wgsl");
    let kernel = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
var<workgroup> s: array<f32, 64>;
@compute @workgroup_size(64) fn sum(@builtin(local_invocation_index) i: u32) {
    s[i] = y[i];
    if (i > 0u) { y[i] = s[i - 1u]; }
}";
    fs::write(&racy, kernel).unwrap();
    let arguments = ["check", text(&racy), "--bind", "y=f32[64]:index"];
    let found = run(wgrad().args(arguments));
    assert_eq!(found.code, Some(1));
    for words in ["race: byte 0 of s: invocation 1", "racy:5:26: here", "racy:4:5: and here", "racy: 1 found in 64 invocations"] {
        assert!(found.out.contains(words), "{words}: {}", found.out);
    }
    let json: Value = serde_json::from_str(&run(wgrad().args(arguments).arg("--json")).out).unwrap();
    assert_eq!((&json["findings"][0]["kind"], &json["findings"][0]["count"]), (&"race".into(), &63.into()));

    refused(wgrad().args(["check", text(&racy)]), &["the buffer y is missing"]);
    refused(wgrad().args(["check", text(&racy), "--bind", "y=f32[64]", "--params", "3"]), &["the shader declares none"]);
    refused(wgrad().args(["check", text(&racy), "--bind", "y=f32[64]", "--subgroup", "5"]), &["power of two from 4 to 128"]);
    refused(wgrad().args(["check", text(Path::new("no.wgsl"))]), &["no.wgsl"]);
}
