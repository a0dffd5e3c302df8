//! Fine-tuning: what is frozen does not move by a bit, groups have rates of their own, weights of one task begin another.

mod common;

use common::gpu;
use wgrad::gpu::Gpu;
use wgrad::io::{Archive, HostTensor};
use wgrad::models::{Classifier, SmallCnn, SmallCnnConfig};
use wgrad::nn::{DropPath, Init, Kind, Linear, Mode, Module, ParameterGroup, Parameters, layer_decay, state_dict};
use wgrad::optim::{AdamConfig, AdamW, Common, Ema, Optimizer, Sgd, SgdConfig};
use wgrad::tensor::Tensor;
use wgrad::tensor::random::{Purpose, Stream};

type Net = Classifier<SmallCnn>;

fn network(gpu: &Gpu) -> (Parameters, Net) {
    let params = Parameters::new(gpu, 3);
    let backbone = SmallCnn::new(&params, SmallCnnConfig { channels: 3, widths: [8, 12, 16] }).unwrap();
    let model = Classifier::new(&params, backbone, 5).unwrap();
    (params, model)
}

fn batch(gpu: &Gpu, number: u32) -> (Tensor, Tensor) {
    let mut stream = Stream::new(number, Purpose::Test);
    let pixels: Vec<f32> = (0..8 * 16 * 16 * 3).map(|_| stream.normal()).collect();
    let images = Tensor::from_slice(gpu, &pixels, [8, 16, 16, 3]).unwrap();
    let labels: Vec<i32> = (0..8).map(|i| (i * (1 + number as i32)) % 5).collect();
    (images, Tensor::from_slice(gpu, &labels, [8]).unwrap())
}

fn train(model: &Net, optimizer: &mut dyn Optimizer, gpu: &Gpu, steps: u32, mode: Mode) {
    for number in 0..steps {
        let (x, labels) = batch(gpu, number);
        let loss = model.forward(&x, mode).unwrap().cross_entropy(&labels, 0.1).unwrap();
        optimizer.step_with(&loss.backward().unwrap(), 0.05.into()).unwrap();
    }
}

/// The names of tensors that are not the same, to the bit.
fn moved(before: &Archive, after: &Archive) -> Vec<String> {
    let bits = |tensor: &HostTensor| match tensor {
        HostTensor::F32(_, data) => data.iter().map(|v| u64::from(v.to_bits())).collect::<Vec<_>>(),
        HostTensor::I64(_, data) => data.iter().map(|v| *v as u64).collect(),
        HostTensor::I32(_, data) => data.iter().map(|v| *v as u64).collect(),
        HostTensor::Other(..) => panic!("no such tensor is written"),
    };
    assert_eq!(before.tensors.len(), after.tensors.len());
    before.tensors.iter().filter(|(name, tensor)| bits(tensor) != bits(&after.tensors[*name])).map(|(name, _)| name.clone()).collect()
}

#[test]
fn head_only_training_leaves_everything_else_bit_for_bit() {
    for (schedule, gpu) in common::gpus() {
        let (params, model) = network(&gpu);
        // Statistics that are no round numbers.
        train(&model, &mut Sgd::new(&params, SgdConfig::default()).unwrap(), &gpu, 2, Mode::Train);
        params.freeze("*", true).unwrap();
        assert_eq!(params.freeze("classifier", false).unwrap(), 2);
        let ema = Ema::new(&params).unwrap();
        let common = Common { weight_decay: 0.1, clip_norm: Some(1.0), ..Default::default() };
        let mut optimizer = AdamW::new(&params, AdamConfig { common, ..Default::default() }).unwrap();
        let before = state_dict::to_archive(&params).unwrap();
        for _ in 0..3 {
            train(&model, &mut optimizer, &gpu, 2, Mode::Train);
            ema.update(0.9).unwrap();
        }
        let head = ["classifier.bias", "classifier.weight"];
        assert_eq!(moved(&before, &state_dict::to_archive(&params).unwrap()), head, "{schedule}");
        assert_eq!(moved(&before, &state_dict::to_archive(ema.parameters()).unwrap()), head, "{schedule}");
        for (name, state) in optimizer.state().unwrap().into_iter().filter(|(name, _)| name != "skipped") {
            let values = state.to_vec::<f32>().unwrap();
            for slot in params.slots().iter().filter(|slot| !slot.name.contains("running")) {
                let untouched = values[slot.start..slot.start + slot.shape.elements()].iter().all(|v| *v == 0.0);
                assert_eq!(untouched, slot.frozen, "{name} of {}", slot.name);
            }
        }
    }
}

#[test]
fn a_frozen_backbone_computes_what_it_does_in_eval_and_keeps_nothing() {
    let gpu = gpu();
    let (params, model) = network(&gpu);
    train(&model, &mut Sgd::new(&params, SgdConfig::default()).unwrap(), &gpu, 2, Mode::Train);
    let (x, _) = batch(&gpu, 9);
    let bits = |y: Tensor| y.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let by_batch = bits(model.forward(&x, Mode::Train).unwrap());
    let expected = bits(model.forward(&x, Mode::Eval).unwrap());
    assert_ne!(by_batch, expected);
    params.freeze("*", true).unwrap();
    params.freeze("classifier", false).unwrap();
    assert_eq!(bits(model.forward(&x, Mode::Train).unwrap()), expected);
    let features = model.backbone.forward(&x, Mode::Train).unwrap();
    assert!(!features.is_watched(), "a frozen backbone is on the tape");
    assert!(model.forward(&x, Mode::Train).unwrap().is_watched());
}

#[test]
fn frozen_statistics_stay_while_everything_else_is_trained() {
    let gpu = gpu();
    let states: Vec<Archive> = [false, true]
        .into_iter()
        .map(|by_mode| {
            let (params, model) = network(&gpu);
            let before = state_dict::to_archive(&params).unwrap();
            if !by_mode {
                assert_eq!(params.freeze("*.running_*", true).unwrap(), 6);
            }
            let mode = if by_mode { Mode::Frozen } else { Mode::Train };
            train(&model, &mut Sgd::new(&params, SgdConfig::default()).unwrap(), &gpu, 3, mode);
            let after = state_dict::to_archive(&params).unwrap();
            let expected: Vec<String> =
                before.tensors.keys().filter(|name| !name.contains("running") && !name.contains("num_batches")).cloned().collect();
            assert_eq!(moved(&before, &after), expected);
            after
        })
        .collect();
    // Without dropout the two ways are one.
    assert_eq!(states[0], states[1]);
}

#[test]
fn a_frozen_scope_has_no_stochastic_depth() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 0);
    let block = params.scope("blocks.0");
    Linear::new(&block, "fc", 4, 4).unwrap();
    Linear::new(&params, "head", 4, 4).unwrap();
    let x = Tensor::full(&gpu, [64, 4], 1.0).unwrap();
    let changed = |layer: &DropPath| layer.forward(&x, Mode::Train).unwrap().to_vec::<f32>().unwrap() != vec![1.0; 256];
    let [inner, outer] = [&block, &params].map(|scope| DropPath::new(scope, 0.5, 0));
    assert!(changed(&inner) && changed(&outer));
    params.freeze("blocks", true).unwrap();
    assert!(!changed(&inner) && changed(&outer));
}

#[test]
fn groups_have_their_own_rates_and_decay() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 0);
    let names = ["stem.weight", "blocks.0.weight", "blocks.1.weight", "head.weight"];
    let parameters: Vec<_> = names.iter().map(|name| params.parameter(name, [3], Kind::Other, Init::ONES).unwrap()).collect();
    let decay = Common { weight_decay: 0.5, ..Default::default() };
    let mut optimizer = Sgd::new(&params, SgdConfig { common: decay, ..Default::default() }).unwrap();
    let mut groups = layer_decay(&names.map(String::from), "head", 0.5);
    groups.push(ParameterGroup { weight_decay: 0.0, ..ParameterGroup::new("head", 10.0) });
    params.set_groups(&groups).unwrap();
    let mut step = |expected: [f32; 4]| {
        let watched: Vec<Tensor> = parameters.iter().map(|p| p.tensor(Mode::Train).unwrap()).collect();
        let sum = watched.iter().skip(1).fold(watched[0].clone(), |sum, p| sum.add(p).unwrap());
        let before: Vec<f32> = parameters.iter().map(|p| p.plain().unwrap().to_vec::<f32>().unwrap()[0]).collect();
        optimizer.step(&sum.sum(&[0], false).unwrap().backward().unwrap(), 0.125).unwrap();
        for ((parameter, before), rate) in parameters.iter().zip(before).zip(expected) {
            let after = parameter.plain().unwrap().to_vec::<f32>().unwrap()[0];
            // The gradient is 1, and every value 1 before the first step.
            let decay = if rate == 10.0 { 0.0 } else { 0.5 };
            assert!((after - (before - 0.125 * rate * (1.0 + decay * before))).abs() < 1e-6, "{rate}: {before} to {after}");
        }
    };
    step([0.125, 0.25, 0.5, 10.0]);
    // Earlier groups are gone.
    params.set_groups(&[ParameterGroup::new("blocks", 3.0)]).unwrap();
    step([1.0, 3.0, 3.0, 1.0]);
    for (pattern, factor, words) in [("block", 1.0, "\"block\" means none of stem.weight, "), ("head", -1.0, "not negative, found -1")] {
        let message = params.set_groups(&[ParameterGroup::new(pattern, factor)]).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let message = params.freeze("blocks.2", true).unwrap_err().to_string();
    assert!(message.contains("blocks.2") && message.contains("head.weight"), "{message}");
}
