//! Fine-tuning: what is frozen does not move by a bit, groups have rates of their own, weights of
//! one task begin another.

use crate::common::tiny;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::common::gpu;
use wgrad::data::Split;
use wgrad::gpu::Gpu;
use wgrad::io::{Archive, HostTensor};
use wgrad::models::{Classifier, SmallCnn, SmallCnnConfig};
use wgrad::nn::{DropPath, Init, Kind, Linear, Mode, Module, ParameterGroup, Parameters, layer_decay, state_dict};
use wgrad::optim::{AdamOptions, AdamW, Ema, Optimizer, OptimizerOptions, Sgd, SgdOptions};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, Tensor};
use wgrad::train::progress::Style;
use wgrad::train::{Checkpoint, Recipe, RunDirectory, Trainer};

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
    for (schedule, gpu) in crate::common::gpus() {
        let (params, model) = network(&gpu);
        // Statistics that are no round numbers.
        train(&model, &mut Sgd::new(&params, SgdOptions::default()).unwrap(), &gpu, 2, Mode::Train);
        params.freeze("*", true).unwrap();
        assert_eq!(params.freeze("classifier", false).unwrap(), 2);
        let ema = Ema::new(&params).unwrap();
        let common = OptimizerOptions { weight_decay: 0.1, clip_norm: Some(1.0), ..Default::default() };
        let mut optimizer = AdamW::new(&params, AdamOptions { common, ..Default::default() }).unwrap();
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
                let untouched = values[slot.start..slot.start + slot.shape.numel()].iter().all(|v| *v == 0.0);
                assert_eq!(untouched, slot.frozen, "{name} of {}", slot.name);
            }
        }
    }
}

#[test]
fn a_frozen_backbone_computes_what_it_does_in_eval_and_keeps_nothing() {
    let gpu = gpu();
    let (params, model) = network(&gpu);
    train(&model, &mut Sgd::new(&params, SgdOptions::default()).unwrap(), &gpu, 2, Mode::Train);
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
            let mode = if by_mode { Mode::FrozenNorm } else { Mode::Train };
            train(&model, &mut Sgd::new(&params, SgdOptions::default()).unwrap(), &gpu, 3, mode);
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
    let x = Tensor::full(&gpu, [64, 4], 1.0, DType::F32).unwrap();
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
    let decay = OptimizerOptions { weight_decay: 0.5, ..Default::default() };
    let mut optimizer = Sgd::new(&params, SgdOptions { common: decay, ..Default::default() }).unwrap();
    let mut groups = layer_decay(&names.map(String::from), &["head"], 0.5);
    groups.push(ParameterGroup { weight_decay: 0.0, ..ParameterGroup::new("head", 10.0) });
    params.set_groups(&groups).unwrap();
    let mut step = |expected: [f32; 4]| {
        let watched: Vec<Tensor> = parameters.iter().map(|p| p.tensor(Mode::Train).unwrap()).collect();
        let sum = watched.iter().skip(1).fold(watched[0].clone(), |sum, p| sum.add(p).unwrap());
        let before: Vec<f32> = parameters.iter().map(|p| p.detach().unwrap().to_vec::<f32>().unwrap()[0]).collect();
        optimizer.step(&sum.sum(&[0], false).unwrap().backward().unwrap(), 0.125).unwrap();
        for ((parameter, before), rate) in parameters.iter().zip(before).zip(expected) {
            let after = parameter.detach().unwrap().to_vec::<f32>().unwrap()[0];
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

/// A recipe of few steps on small images.
fn recipe(data: PathBuf) -> Recipe {
    let settings = ["model=cnn_16_32_64", "batch=16", "epochs=2", "augmentation=grey_simclr", "learning_rate=0.05", "checkpoint_every=4"];
    let mut recipe = Recipe::default().with(settings).unwrap();
    recipe.data.path = data;
    recipe
}

fn trainer(recipe: &Recipe) -> wgrad::error::Result<Trainer> {
    Trainer::new(&gpu(), recipe.clone(), Arc::new(recipe.open(Split::Train)?))
}

/// The weights of a run on `data` to its end.
fn weights_of(recipe: &Recipe, path: &Path) -> PathBuf {
    let mut trainer = trainer(recipe).unwrap();
    trainer.run(None, Style::Silent, &mut |_| false).unwrap();
    trainer.save_weights(path).unwrap();
    path.into()
}

#[test]
fn a_run_from_weights_that_was_killed_goes_on_to_the_same_bits_without_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let (ten, four) = (tiny::data_called(folder.path(), "fashion"), tiny::data_called(folder.path(), "data"));
    let weights = weights_of(&recipe(ten), &folder.path().join("ten.safetensors"));
    for (freeze, frozen) in [("backbone", true), ("conv1, *.bias, !classifier", false)] {
        let settings = [
            &format!("freeze={freeze}"),
            &format!("freeze_batch_norm={}", !frozen),
            "layer_decay=0.5",
            "groups=classifier lr=3 decay=0",
            "ema=0.9",
            "per_class=20",
            "resolution=24",
        ];
        let mut recipe = recipe(four.clone()).with(settings).unwrap();
        recipe.finetune.weights.clone_from(&weights);
        let data = Arc::new(recipe.open(Split::Train).unwrap());
        let runs = ["whole", "killed"].map(|name| RunDirectory::create(&folder.path().join(name), &recipe, &gpu()).unwrap());
        let [whole, killed] = &runs;
        let mut trainer = trainer(&recipe).unwrap();
        assert_eq!(trainer.notes, ["classifier: 10 classes in the file, 4 here: starts anew"]);
        assert_eq!(trainer.steps(), 2 * (80 / 16));
        assert!(trainer.run(Some(whole), Style::Silent, &mut |_| false).unwrap().finished);
        let mut other = Trainer::new(&gpu(), recipe.clone(), data.clone()).unwrap();
        assert!(!other.run(Some(killed), Style::Silent, &mut |position| position.step == 6).unwrap().finished);
        drop(other);
        let moved_away = folder.path().join("gone.safetensors");
        fs::rename(&weights, &moved_away).unwrap();
        let checkpoint = Checkpoint::load(&killed.last_checkpoint()).unwrap();
        let mut rest = Trainer::resume(&gpu(), &checkpoint, data).unwrap();
        assert!(rest.notes.is_empty() && rest.run(Some(killed), Style::Silent, &mut |_| false).unwrap().finished);
        fs::rename(&moved_away, &weights).unwrap();
        let [after, again] = [whole, killed].map(|run| Archive::load(&run.weights()).unwrap());
        assert_eq!(after, again, "{freeze}");
        let mut before = Archive::load(&weights).unwrap();
        before.tensors.retain(|name, _| !name.starts_with("classifier"));
        let mut backbone = after.clone();
        backbone.tensors.retain(|name, _| !name.starts_with("classifier"));
        assert_eq!(moved(&before, &backbone).is_empty(), frozen, "{freeze}");
        for folder in [whole, killed] {
            fs::remove_dir_all(folder.path()).unwrap();
        }
    }
}

#[test]
fn epochs_may_thaw_what_earlier_ones_froze() {
    let folder = tempfile::tempdir().unwrap();
    let data = tiny::data_called(folder.path(), "data");
    let recipe = recipe(data).with(["freeze=backbone"]).unwrap();
    let mut trainer = trainer(&recipe).unwrap();
    let state = |trainer: &Trainer| state_dict::to_archive(&trainer.params).unwrap();
    let first = state(&trainer);
    // To the end of the first epoch, in steps that are replayed by then.
    trainer.run(None, Style::Silent, &mut |position| position.step == 6).unwrap();
    assert!(trainer.program().is_some());
    let second = state(&trainer);
    assert_eq!(moved(&first, &second), ["classifier.bias", "classifier.weight"]);
    trainer.params.freeze("conv3", false).unwrap();
    trainer.params.freeze("bn3", false).unwrap();
    trainer.run(None, Style::Silent, &mut |_| false).unwrap();
    let last = moved(&second, &state(&trainer));
    assert!(last.iter().all(|name| ["classifier", "conv3", "bn3"].iter().any(|scope| name.starts_with(scope))), "{last:?}");
    assert_eq!(last.len(), 8);
}

/// Also with what the recipe freezes for good, and from a checkpoint amid an epoch.
#[test]
fn layers_are_unfrozen_from_the_head_down() {
    let folder = tempfile::tempdir().unwrap();
    let data = tiny::data_called(folder.path(), "data");
    let settings = ["model=mobilenetv1_025", "freeze=*.bn2.bias", "epochs=4", "unfreeze_every=2", "batch=32", "augmentation=none"];
    let recipe = recipe(data).with(settings).unwrap();
    let mut whole = trainer(&recipe).unwrap();
    let state = |trainer: &Trainer| state_dict::to_archive(&trainer.params).unwrap();
    let first = state(&whole);
    whole.run(None, Style::Silent, &mut |position| position.step == 6).unwrap();
    let second = state(&whole);
    assert_eq!(moved(&first, &second), ["classifier.bias", "classifier.weight"]);
    whole.run(None, Style::Silent, &mut |_| false).unwrap();
    let third = moved(&second, &state(&whole));
    assert!(third.iter().all(|name| name.starts_with("classifier") || name.starts_with("blocks.4.1")), "{third:?}");
    assert!(third.contains(&"blocks.4.1.conv_pw.weight".into()) && third.contains(&"blocks.4.1.bn1.running_mean".into()), "{third:?}");
    assert!(!third.contains(&"blocks.4.1.bn2.bias".into()), "{third:?}");
    for stop_at in [4, 8] {
        let mut killed = trainer(&recipe).unwrap();
        killed.run(None, Style::Silent, &mut |position| position.step == stop_at).unwrap();
        let data = Arc::new(recipe.open(Split::Train).unwrap());
        let mut rest = Trainer::resume(&gpu(), &killed.checkpoint().unwrap(), data).unwrap();
        rest.run(None, Style::Silent, &mut |_| false).unwrap();
        assert!(rest.checkpoint().unwrap() == whole.checkpoint().unwrap(), "stopped at {stop_at}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = tiny::data_called(folder.path(), "data");
    let good = recipe(data);
    let weights = weights_of(&Recipe { epochs: 1, ..good.clone() }, &folder.path().join("weights.safetensors"));
    let refused = |settings: &[&str], words: &[&str]| {
        let recipe = good.clone().with(settings.iter().copied());
        let message = recipe.and_then(|recipe| trainer(&recipe)).err().unwrap().to_string();
        words.iter().for_each(|word| assert!(message.contains(word), "{message} should say {word}"));
    };
    let from_weights = format!("weights={}", weights.display());
    refused(&["freeze=blocks.3"], &["\"blocks.3\"", "conv1.weight", "* stands for any text"]);
    refused(&["freeze=*"], &["freeze", "nothing to train"]);
    refused(&["groups=conv1 rate=2"], &["groups", "\"rate=2\""]);
    refused(&["normalize=mean"], &["normalize", "\"mean\"", "imagenet"]);
    refused(&["per_class=25"], &["expected 25 images of class"]);
    refused(&["weights=nowhere.safetensors"], &["nowhere.safetensors", "no such file"]);
    refused(&[&from_weights, "rgb=true"], &["conv1.weight", "[16, 1, 3, 3]", "[16, 3, 3, 3]"]);
    refused(&[&from_weights, "model=mobilenetv1_025"], &["conv_stem.weight", "conv1.weight"]);
    // An encoder that was trained without labels begins a classifier; its projector is left out.
    let encoder = Recipe { epochs: 1, batch: 16, model: good.model.clone(), data: good.data.clone(), ..Recipe::defaults("simclr") };
    let mut classifier = good.clone();
    classifier.finetune.weights = weights_of(&encoder, &folder.path().join("encoder.safetensors"));
    let trainer = trainer(&classifier).unwrap();
    assert_eq!(trainer.notes, ["classifier: not in the file: starts anew", "proj: in the file, not in the model: not used"]);
}

#[test]
fn the_program_fine_tunes_and_says_what_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let [ten, four] = ["fashion", "data"].map(|name| tiny::data_called(folder.path(), name));
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let wgrad = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
        let output = command.args(arguments).env("WGRAD_TUNING", "off").output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}\n{words}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), words)
    };
    let out = ["first", "second"].map(|name| text(&folder.path().join(name)));
    let small = ["train", "supervised", "--model", "mobilenetv1_025", "--resolution", "32", "--set", "batch=16", "--set", "epochs=1"];
    wgrad(&[&small[..], &["--set", "rgb=true", "--set", "stem_stride=0", "--data", &text(&ten), "--out", &out[0]]].concat());
    let weights = format!("{}/weights.safetensors", out[0]);
    let tuned = ["--set", "rgb=true", "--weights", &weights, "--freeze", "backbone", "--data", &text(&four), "--out", &out[1]];
    let (costs, _) = wgrad(&[&small[..], &tuned, &["--dry-run"]].concat());
    assert!(costs.contains("predicted"), "{costs}");
    let (_, words) = wgrad(&[&small[..], &tuned].concat());
    assert!(words.contains("classifier: 10 classes in the file, 4 here: starts anew"), "{words}");
    let [before, after] = [0, 1].map(|at| Archive::load(&Path::new(&out[at]).join("weights.safetensors")).unwrap());
    let left = |mut archive: Archive| {
        archive.tensors.retain(|name, _| !name.starts_with("classifier"));
        archive
    };
    assert_eq!(moved(&left(before), &left(after)), Vec::<String>::new());
    let recipe = Recipe::read(&Path::new(&out[1]).join("recipe.toml")).unwrap();
    assert_eq!((recipe.model.stem_stride, recipe.data.resolution, recipe.finetune.freeze), (0, 32, vec!["backbone".to_string()]));
    let found: serde_json::Value = serde_json::from_str(&wgrad(&["eval", &out[1], "--per-class", "5", "--json"]).0).unwrap();
    assert_eq!(found["images"], 20);
}

/// Weight averaging and layer-wise decay belong to no method: all take both, on paper and by their
/// slots.
#[test]
fn every_method_takes_averages_and_layer_wise_decay() {
    let gpu = gpu().dry().unwrap();
    for method in super::training::methods() {
        let recipe = super::training::recipe(method).with(["ema=0.99", "layer_decay=0.5"]).unwrap();
        let trainer = super::training::trainer(&gpu, recipe, &super::training::data_of(method, 100));
        let mut rates: Vec<f32> = trainer.params.slots().iter().map(|slot| slot.learning_rate).collect();
        rates.sort_by(f32::total_cmp);
        // Heads learn at the full rate, and what lies before them at half of it and less.
        rates.dedup();
        assert!(rates.len() > 1 && rates.last() == Some(&1.0), "{method}: {rates:?}");
        assert!(rates.windows(2).all(|pair| pair[1] == 2.0 * pair[0]), "{method}: {rates:?}");
    }
}
