//! `wgrad inspect`. What needs a compiler for a GPU that is not there is ignored, and run by
//! scripts/test.sh where `wgrad inspect --setup` could fetch one.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use wgrad::models::{ModelOptions, model};
use wgrad::nn::{Module, Parameters, Summary};

use crate::common::gpu;

fn inspect(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgrad")).arg("inspect").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Software drivers do not say what they compile; a GPU's may.
#[test]
fn the_adapter_at_hand_answers_or_says_what_to_do() {
    let output = inspect(&["=matmul"]);
    let text = text(&output);
    match output.status.success() {
        true => assert!(text.contains("compiled and not run") && text.contains("linear/gemm_"), "{text}"),
        false => assert!(text.contains("VK_KHR_pipeline_executable_properties") && text.contains("wgrad inspect --setup"), "{text}"),
    }
}

#[test]
fn wrong_words_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mesa = format!("--mesa={}", folder.path().display());
    for (arguments, words) in [
        (["--target=rdna3", "matmul", &mesa], "run `wgrad inspect --setup`"),
        (["--target=rdna33", "matmul", &mesa], "rdna3"),
        (["--target=all", "matmul", &mesa], "nothing is set up"),
        (["--cards", "--model=resnet19", &mesa], "resnet19"),
        (["--compare=none.json", "matmul", &mesa], "none.json"),
    ] {
        let output = inspect(&arguments);
        assert!(!output.status.success() && text(&output).contains(words), "{arguments:?}: {}", text(&output));
    }
}

/// A training step multiplies three times as often as a forward pass, less the gradient of the
/// images; every product and convolution says so.
#[test]
fn a_step_on_paper_has_the_operations_of_its_network() {
    let output = inspect(&["--model", "mobilenetv1_100", "--batch", "2", "--resolution", "64", "--cards", "--json"]);
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    let network = model("mobilenetv1_100", ModelOptions { size: Some([64; 2]), ..Default::default() }).unwrap();
    let mut summary = Summary::default();
    let classifier = network.classifier(&Parameters::new(&gpu().dry().unwrap(), 0), 1000).unwrap();
    classifier.summarize(&network.input(64, 3).batch(2).shape, &mut summary).unwrap();
    let dispatches = page["dispatches"].as_array().unwrap();
    let flops: f64 = dispatches.iter().map(|d| d["launches"].as_f64().unwrap() * d["flops"].as_f64().unwrap()).sum();
    let first = summary.rows.first().unwrap().macs as f64;
    approx::assert_relative_eq!(flops, 6.0 * summary.macs() as f64 - 2.0 * first, max_relative = 1e-9);
    let cards = page["cards"].as_array().unwrap();
    assert!(cards.len() > 5 && cards.iter().all(|card| card["estimate"]["seconds"].as_f64().unwrap() > 0.0));
}

/// What is kept of every pipeline on RDNA3.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results/static/rdna3.csv");

/// Compares with what is kept, by the compiler that it was kept of: the one for AMD alone, though
/// `wgrad inspect --setup all` has fetched a newer one since.
fn check(subject: &[&str]) -> Output {
    let home = || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, Into::into);
    let folder = tempfile::tempdir().unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(cache.join("wgrad/mesa/amd"), folder.path().join("amd")).unwrap();
    let mesa = folder.path().to_str().unwrap();
    inspect(&[&["--mesa", mesa, "--target", "rdna3", "--check", KEPT], subject].concat())
}

#[test]
#[ignore = "needs `wgrad inspect --setup`"]
fn no_kernel_spills_or_waits_on_amd() {
    let output = check(&[]);
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An array that is indexed by what only the device knows cannot lie in registers.
#[test]
#[ignore = "needs `wgrad inspect --setup`"]
fn a_planted_spill_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("planted.wgsl");
    let planted = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;\n@compute @workgroup_size(64)\n\
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n    var kept: array<u32, 512>;\n\
         for (var i = 0u; i < 512u; i += 1u) { kept[i] = x[i * 64u + id.x]; }\n    x[id.x] = kept[x[id.x] % 512u] + kept[x[id.x + 1u] % 512u];\n}\n";
    std::fs::write(&file, planted).unwrap();
    let output = check(&[file.to_str().unwrap()]);
    assert!(!output.status.success() && text(&output).contains("bytes of scratch memory"), "{}", text(&output));
}

/// A product whose load is used as soon as it is there.
#[test]
#[ignore = "needs `wgrad inspect --setup`"]
fn a_planted_wait_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gemm_gpu.wgsl");
    let planted = "@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;\n@compute @workgroup_size(64)\n\
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n    var sum = vec4<f32>();\n    let n = arrayLength(&x);\n\
         for (var i = id.x; i < n; i += 64u) { let v = x[i]; sum = fma(v, v, sum); }\n    x[id.x] = sum;\n}\n";
    std::fs::write(&file, planted).unwrap();
    let output = check(&[file.to_str().unwrap()]);
    assert!(!output.status.success() && text(&output).contains("waited for before any multiply-add"), "{}", text(&output));
}
