//! Tensors of a file in a model that they fit, or do not.

use wgrad::error::Error;
use wgrad::io::{Archive, HostTensor, open_weights};
use wgrad::nn::{BatchNorm, Linear, Parameters, state_dict};

use super::floats;

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
fn a_wrapper_that_is_not_known_is_named() {
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
