//! The published ImageNet weights of EfficientNet-Lite0 against PyTorch's answers
//! (`tests/reference/lite0`). They are not part of the repository:
//! `python3 scripts/fetch_weights.py efficientnet_lite0` and `.. photos` fetch them, then
//! `cargo test --test models pretrained -- --ignored`.

use std::path::PathBuf;
use std::process::Command;

use crate::common::filled::{nhwc, unit};
use serde_json::Value;
use wgrad::io::open_weights;
use wgrad::models::{ModelOptions, model};
use wgrad::nn::{Mode, Module, Parameters, state_dict};
use wgrad::tensor::Tensor;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn weights() -> PathBuf {
    root().join("data/weights/efficientnet_lite0.safetensors")
}

fn reference() -> Value {
    let file = root().join("tests/reference/lite0/efficientnet_lite0.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
#[ignore = "needs the files of scripts/fetch_weights.py"]
fn logits_are_pytorchs() {
    let doc = reference();
    let expected: Vec<f64> = doc["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    for (schedule, gpu) in crate::common::gpus() {
        let params = Parameters::new(&gpu, 0);
        let mut network = model(doc["model"].as_str().unwrap(), ModelOptions::default()).unwrap().classifier(&params, 1000).unwrap();
        let report = state_dict::from_archive(&params, &open_weights(&weights()).unwrap(), "weights").unwrap();
        assert_eq!(report, state_dict::LoadReport::default());
        let x = Tensor::from_slice(&gpu, &nhwc(&unit("input", 3 * 224 * 224), [1, 3, 224, 224]), [1, 224, 224, 3]).unwrap();
        for folded in [false, true] {
            if folded {
                network.fold().unwrap();
            }
            let found = network.forward(&x, Mode::Eval).unwrap().to_f64().unwrap();
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            println!("{schedule}, folded {folded}: largest difference {worst:.1e}");
            assert!(found.len() == expected.len() && worst < 1e-3, "{schedule}, folded {folded}: {worst}");
        }
    }
}

#[test]
#[ignore = "needs the files of scripts/fetch_weights.py"]
fn photographs_are_what_pytorch_says_they_are() {
    let doc = reference();
    let output = Command::new(env!("CARGO_BIN_EXE_wgrad"))
        .args(["predict", "--json", "--model", doc["model"].as_str().unwrap(), "--weights"])
        .args([weights(), root().join("data/photos")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), doc["photos"].as_object().unwrap().len());
    for picture in found {
        let name = PathBuf::from(picture["picture"].as_str().unwrap()).file_name().unwrap().to_string_lossy().into_owned();
        let expected = doc["photos"][&name]["top5"].as_array().unwrap();
        for (got, want) in picture["classes"].as_array().unwrap().iter().zip(expected) {
            let (p, q) = (got["probability"].as_f64().unwrap(), want["probability"].as_f64().unwrap());
            // The reference is rounded to four digits; decoders of JPEG may differ by a step.
            assert!(got["index"] == want["class"] && (p - q).abs() < 5e-3, "{name}: {got} instead of {want}");
        }
    }
}
