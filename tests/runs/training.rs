//! Training runs: the same bits every time and after every interruption, constant memory, typed
//! errors, learning.

use crate::common::tiny;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::common::teachers::teachers;
use crate::common::tiny::dataset;
use crate::common::{files, wanted};
use serde_json::Value;
use wgrad::data::{Dataset, Samples};
use wgrad::error::{Error, Result};
use wgrad::evaluate::evaluate;
use wgrad::gpu::{Gpu, GpuOptions, Schedule};
use wgrad::methods::{Method, Teacher};
use wgrad::models::{Backbone, HEADS};
use wgrad::nn::matches;
use wgrad::optim::Optimizer;
use wgrad::train::methods::METHODS;
use wgrad::train::progress::Style;
use wgrad::train::{Checkpoint, Outcome, Recipe, RunDirectory, Trainer};

/// The methods' names.
pub fn methods() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|entry| entry.name).filter(|name| wanted(name))
}

/// What a method learns from: images, or texts of the class's own word among others.
pub fn data_of(method: &str, count: usize) -> Arc<Dataset> {
    if !reads(method) {
        return dataset(count);
    }
    let text = |index: usize| {
        let class = (index % tiny::CLASSES) as u16;
        let words = (0..7).map(move |place| if place == index % 7 { 10 + class } else { 20 + (index * 7 + place * 3) as u16 % 40 });
        [2].into_iter().chain(words).chain([3, 0, 0])
    };
    let names = (0..tiny::CLASSES).map(|i| format!("word {i}")).collect();
    let labels = (0..count).map(|i| (i % tiny::CLASSES) as i32).collect();
    let samples = Samples::Tokens { length: 11, numbers: (0..count).flat_map(text).collect() };
    Arc::new(Dataset::of("texts", samples, labels, names).unwrap())
}

/// Whether it learns from texts, by the network of its recipe.
fn reads(method: &str) -> bool {
    Recipe::defaults(method).model.name.starts_with("bert_")
}

/// 6 steps an epoch of `data_of(method, 100)`.
pub fn recipe(method: &str) -> Recipe {
    let own = Recipe::defaults(method);
    let model = match own.model.name.split('_').next() {
        Some("vit") => "vit_mini_patch4_28",
        Some("bert") => "bert_l2_h16_v64",
        _ => "cnn_16_32_64",
    };
    // So few that an epoch has no fewer steps.
    let (labels, labelled) = (own.data.labels_per_class.min(2), own.data.labelled_batch.min(1));
    let model = format!("model={model}");
    let settings = [
        model.as_str(),
        "batch=16",
        "epochs=3",
        "seed=7",
        if reads(method) { "augmentation=none" } else { "augmentation=grey_simclr" },
        "learning_rate=0.1",
        "checkpoint_every=4",
        if own.data.tasks.is_empty() { "tasks=" } else { "tasks=side: 0+2, 1+3" },
        // Every part of the state takes part in one of the methods.
        if method == "supervised" { "ema=0.9" } else { "ema=0" },
        if method == "supervised" { "optimizer=sgd" } else { "optimizer=adamw" },
        &format!("labels_per_class={labels}"),
        &format!("labelled_batch={labelled}"),
    ];
    // The recipe's groups are of other classes; a queue that joins in the second epoch.
    let others: &[&str] = match method {
        "coarse_to_fine" => &["coarse=0+2, 1+3"],
        "swav" => &["queue=32", "epoch_queue_starts=1"],
        _ => &[],
    };
    own.with(settings.into_iter().chain(others.iter().copied())).unwrap()
}

/// A run with the teachers that its method needs.
pub fn trainer(gpu: &Gpu, recipe: Recipe, data: &Arc<Dataset>) -> Trainer {
    let teachers = teachers(gpu, &recipe, data);
    Trainer::with_teachers(gpu, recipe, data.clone(), teachers).unwrap()
}

pub fn to_the_end(trainer: &mut Trainer, run: Option<&RunDirectory>) -> Result<Outcome> {
    trainer.run(run, Style::Silent, &mut |_| false)
}

/// Every tensor's bytes, and the texts, of a safetensors file.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let texts = header.metadata().clone().unwrap_or_default();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec()));
    tensors.chain(texts.into_iter().map(|(key, text)| (format!("text {key}"), text.into_bytes()))).collect()
}

/// The whole state of a run, bit for bit.
pub fn bits(trainer: &mut Trainer) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    trainer.checkpoint().unwrap().save(&path).unwrap();
    contents(&path)
}

/// The lines of metrics without the time that they took.
pub fn metrics(run: &RunDirectory) -> Vec<Value> {
    let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("images_per_second")));
    lines
}

/// A run directory below `folder` and its run from start to end.
fn uninterrupted(folder: &Path, recipe: &Recipe, data: &Arc<Dataset>) -> (RunDirectory, Trainer) {
    let gpu = crate::common::gpu();
    let run = RunDirectory::create(&folder.join("uninterrupted"), recipe, &gpu).unwrap();
    let mut trainer = trainer(&gpu, recipe.clone(), data);
    let outcome = to_the_end(&mut trainer, Some(&run)).unwrap();
    assert!(outcome.finished && outcome.position.step == trainer.steps());
    (run, trainer)
}

/// Goes on from the checkpoint in `run` with a new device.
pub fn resumed(run: &RunDirectory, data: &Arc<Dataset>) -> Trainer {
    let checkpoint = Checkpoint::load(&run.last_checkpoint()).unwrap();
    run.rewind(checkpoint.position.step).unwrap();
    let gpu = crate::common::gpu();
    let teachers = teachers(&gpu, &checkpoint.recipe, data);
    let mut trainer = Trainer::resume_with_teachers(&gpu, &checkpoint, data.clone(), teachers).unwrap();
    assert!(to_the_end(&mut trainer, Some(run)).unwrap().finished);
    trainer
}

fn assert_equal_runs(what: &str, (run, trainer): (&RunDirectory, &mut Trainer), (other_run, other): (&RunDirectory, &mut Trainer)) {
    let (found, expected) = (bits(other), bits(trainer));
    let different: Vec<&String> = expected.keys().filter(|name| found.get(*name) != expected.get(*name)).collect();
    assert!(different.is_empty() && found.len() == expected.len(), "{what}: {different:?} differ");
    assert_eq!(contents(&other_run.weights()), contents(&run.weights()), "{what}");
    assert_eq!(metrics(other_run), metrics(run), "{what}");
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    for (method, turn) in methods().zip(0..) {
        let data = data_of(method, 100);
        // On the other schedules every third method: they share all but the heavy kernels.
        let wanted = |schedule: &Schedule| *schedule == Schedule::Software || turn % 3 == 0;
        for (schedule, gpu) in crate::common::gpus().into_iter().filter(|(schedule, _)| wanted(schedule)) {
            let run = |seed: u32| {
                let mut trainer = trainer(&gpu, Recipe { seed, epochs: 2, ..recipe(method) }, &data);
                to_the_end(&mut trainer, None).unwrap();
                bits(&mut trainer)
            };
            let first = run(7);
            assert!(first == run(7), "{method}, {schedule}");
            if schedule == Schedule::Software {
                assert!(first != run(8), "{method}: the seed has no effect");
            }
        }
    }
}

#[test]
fn a_run_that_was_stopped_anywhere_goes_on_to_the_same_bits() {
    // The first step, amid an epoch, at a checkpoint's own step, at an epoch's last batch, and
    // before the last step: two of them for each method, so that every place has eleven methods.
    let places = [1, 4, 6, 11, 17];
    for (method, turn) in methods().zip(0..) {
        let data = data_of(method, 100);
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(method);
        let (whole_run, mut whole) = uninterrupted(folder.path(), &recipe, &data);
        for stop_at in [turn, turn + 2].map(|place: usize| places[place % places.len()]) {
            let gpu = crate::common::gpu();
            let run = RunDirectory::create(&folder.path().join(stop_at.to_string()), &recipe, &gpu).unwrap();
            let mut trainer = trainer(&gpu, recipe.clone(), &data);
            let outcome = trainer.run(Some(&run), Style::Silent, &mut |position| position.step == stop_at).unwrap();
            assert_eq!((outcome.finished, outcome.position.step, run.weights().exists()), (false, stop_at, false));
            drop((trainer, gpu));
            let mut rest = resumed(&run, &data);
            assert_equal_runs(&format!("{method} stopped at {stop_at}"), (&whole_run, &mut whole), (&run, &mut rest));
        }
    }
}

/// It does not compile where one of these cannot be sent.
#[test]
fn what_trains_can_be_sent() {
    fn is_send<T: Send>() {}
    is_send::<Trainer>();
    is_send::<Box<dyn Method>>();
    is_send::<Box<dyn Backbone>>();
    is_send::<Box<dyn Optimizer>>();
    is_send::<Arc<Teacher>>();
    is_send::<Checkpoint>();
}

/// What a file of weights loses, because only another task needs it, follows from these.
#[test]
fn every_methods_heads_are_known_without_making_it() {
    let gpu = crate::common::gpu().dry().unwrap();
    for entry in METHODS.iter().filter(|entry| wanted(entry.name)) {
        let trainer = trainer(&gpu, recipe(entry.name), &data_of(entry.name, 100));
        let known: Vec<&str> = HEADS.iter().chain(entry.heads).copied().chain(["side"]).collect();
        let names: Vec<String> = trainer.params.slots().into_iter().map(|slot| slot.name).collect();
        for head in trainer.method.heads() {
            assert!(known.contains(&head), "{}: {head} is none of {known:?}", entry.name);
            assert!(names.iter().any(|name| matches(head, name)), "{}: no parameter in {head}", entry.name);
        }
    }
}

/// Methods with a queue, with averages and their own epochs, and with a teacher.
#[test]
fn a_trainer_has_the_same_bits_on_another_thread() {
    for method in ["moco", "dino", "distillation"].into_iter().filter(|name| wanted(name)) {
        let data = data_of(method, 100);
        let gpu = crate::common::gpu();
        let mut here = trainer(&gpu, recipe(method), &data);
        to_the_end(&mut here, None).unwrap();
        let mut there = trainer(&gpu, recipe(method), &data);
        // It begins here and goes on there.
        there.run(None, Style::Silent, &mut |position| position.step == 3).unwrap();
        let there = std::thread::spawn(move || to_the_end(&mut there, None).map(|_| there)).join().unwrap();
        assert!(bits(&mut there.unwrap()) == bits(&mut here), "{method}");
    }
}

#[test]
fn a_device_lost_amid_a_run_is_a_typed_error_and_a_new_one_goes_on() {
    let data = dataset(100);
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe("supervised");
    let (whole_run, mut whole) = uninterrupted(folder.path(), &recipe, &data);
    let gpu = crate::common::gpu();
    let run = RunDirectory::create(&folder.path().join("lost"), &recipe, &gpu).unwrap();
    let mut trainer = Trainer::new(&gpu, recipe, data.clone()).unwrap();
    let result = trainer.run(Some(&run), Style::Silent, &mut |position| {
        if position.step == 10 {
            gpu.destroy();
        }
        false
    });
    assert!(matches!(result, Err(Error::DeviceLost(_))), "{result:?}");
    assert_eq!(Checkpoint::load(&run.last_checkpoint()).unwrap().position.step, 8);
    assert!(!run.weights().exists());
    let mut rest = resumed(&run, &data);
    assert_equal_runs("device lost", (&whole_run, &mut whole), (&run, &mut rest));
}

#[test]
fn replayed_steps_have_the_bits_of_steps_that_are_run_anew() {
    for method in methods() {
        let data = data_of(method, 100);
        // What traces non-finite numbers reads after every operator, so its steps are never
        // replayed.
        let [replayed, anew] = [false, true].map(|trace_non_finite| {
            let gpu = Gpu::with(GpuOptions { trace_non_finite, ..crate::common::options() }).unwrap();
            let mut trainer = trainer(&gpu, recipe(method), &data);
            to_the_end(&mut trainer, None).unwrap();
            assert_eq!(trainer.program().is_none(), trace_non_finite, "{method}");
            bits(&mut trainer)
        });
        assert!(replayed == anew, "{method}");
    }
}

#[test]
fn a_hundred_steps_take_no_more_memory_than_a_few() {
    let folder = tempfile::tempdir().unwrap();
    for method in methods() {
        let data = data_of(method, 320);
        // Poisoned memory would add dispatches of its own.
        let gpu = Gpu::with(GpuOptions { poison: false, ..crate::common::options() }).unwrap();
        let recipe = Recipe { epochs: 5, checkpoint_every: 50, ..recipe(method) };
        let run = RunDirectory::create(&folder.path().join(method), &recipe, &gpu).unwrap();
        let mut trainer = trainer(&gpu, recipe, &data);
        let mut seen = Vec::new();
        trainer
            .run(Some(&run), Style::Silent, &mut |_| {
                seen.push((gpu.memory(), gpu.counters().submits));
                false
            })
            .unwrap();
        // Of images some of which have labels, an epoch has 25 steps, else 20.
        let epoch = seen.len() / 5;
        assert!([20, 25].contains(&epoch), "{method}: {}", seen.len());
        // The first look at what is watched is that of step 20; in the second epoch DINO's last
        // layer is no longer frozen, and the step is recorded anew.
        for (step, (memory, _)) in seen.iter().enumerate().skip(45) {
            assert_eq!(*memory, seen[45].0, "{method}: step {}", step + 1);
        }
        // Behind an epoch and every 50 steps a checkpoint reads parameters, their averages and the
        // method's state, one after another.
        let checkpoint = |step: usize| step.is_multiple_of(epoch) || step.is_multiple_of(50);
        for (step, pair) in seen.windows(2).enumerate().map(|(i, pair)| (i + 1, pair)) {
            let submits = pair[1].1 - pair[0].1;
            assert!(submits <= if checkpoint(step) { 16 } else { 2 }, "{method}: {submits} submissions behind step {step}");
        }
    }
}

#[test]
fn too_small_a_budget_is_a_typed_error_that_leaves_nothing_half_written() {
    let gpu = Gpu::with(GpuOptions { memory_budget_bytes: Some(1 << 20), poison: false, ..crate::common::options() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe { batch: 96, ..recipe("simclr") };
    let path = folder.path().join("run");
    let run = RunDirectory::create(&path, &recipe, &gpu).unwrap();
    let mut trainer = Trainer::new(&gpu, recipe.clone(), dataset(100)).unwrap();
    match to_the_end(&mut trainer, Some(&run)) {
        Err(Error::OutOfMemory(message)) => {
            assert!(message.contains("budget of 1048576 bytes") && message.contains("smaller batch"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(files(&path), [".holder.json", "environment.json", "recipe.toml"]);
    // Nothing was learnt, so the directory can be used again, once it is let go.
    assert!(RunDirectory::create(&path, &recipe, &gpu).unwrap_err().to_string().contains("another process"));
    drop(run);
    RunDirectory::create(&path, &recipe, &gpu).unwrap();
}

fn not_finite(result: Result<Outcome>, words: &[&str]) {
    match result {
        Err(Error::NonFinite { operator, message }) => {
            assert_eq!(operator, "supervised");
            words.iter().for_each(|word| assert!(message.contains(word), "{message}"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_names_the_step_and_what_to_do() {
    let mut trainer = Trainer::new(&crate::common::gpu(), recipe("supervised"), dataset(100)).unwrap();
    trainer.run(None, Style::Silent, &mut |position| position.step == 5).unwrap();
    let bias = trainer.params.get("classifier.bias").unwrap().detach().unwrap();
    let mut values = bias.to_vec::<f32>().unwrap();
    values[0] = f32::NAN;
    bias.write(&values).unwrap();
    not_finite(to_the_end(&mut trainer, None), &["the loss of step 6 is NaN", "lower the learning rate"]);
}

#[test]
fn a_run_that_learns_nothing_because_every_step_is_skipped_ends() {
    // Decay times rate is far above 2: the weights grow until gradients overflow, while the loss
    // stays finite.
    let recipe = recipe("supervised").with(["learning_rate=1e6", "schedule=constant", "ema=0", "epochs=100"]).unwrap();
    let mut trainer = Trainer::new(&crate::common::gpu(), recipe, dataset(100)).unwrap();
    not_finite(to_the_end(&mut trainer, None), &["no gradient of epoch ", "step ", "lower the learning rate (1000000)"]);
}

#[test]
fn losses_fall_and_the_classes_are_learnt() {
    let data = dataset(100);
    for method in ["supervised", "simclr"] {
        let folder = tempfile::tempdir().unwrap();
        // Without augmentation both views of SimCLR would be the same image.
        let settings = match method {
            "simclr" => ["augmentation=grey_simclr", "optimizer=sgd", "batch=32"],
            _ => ["augmentation=none", "label_smoothing=0", "batch=16"],
        };
        let recipe = recipe(method).with(["epochs=6", "ema=0"].into_iter().chain(settings)).unwrap();
        let (run, trainer) = uninterrupted(folder.path(), &recipe, &data);
        let losses: Vec<f64> = metrics(&run).iter().filter(|m| m["kind"] == "epoch").map(|m| m["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 6);
        if method == "simclr" {
            assert!(losses[5] < losses[0], "{losses:?}");
            continue;
        }
        assert!(losses[5] < 0.3 * losses[0], "{losses:?}");
        let found = evaluate(
            trainer.params.gpu(),
            trainer.method.network().module(),
            &data,
            &trainer.recipe.preprocessing("none", 0, &data).unwrap(),
        )
        .unwrap();
        assert!(found.accuracy() > 0.9, "{found:?}");
    }
}

#[test]
fn the_average_is_what_is_kept_where_one_is_asked_for() {
    let data = dataset(100);
    let folder = tempfile::tempdir().unwrap();
    let (run, mut trainer) = uninterrupted(folder.path(), &recipe("supervised"), &data);
    let (state, weights) = (bits(&mut trainer), contents(&run.weights()));
    assert_eq!(weights["conv1.weight"], state["ema.conv1.weight"]);
    assert_ne!(weights["conv1.weight"], state["model.conv1.weight"]);
    assert_eq!(weights["bn1.running_mean"], state["model.bn1.running_mean"]);
}

#[test]
fn a_profile_has_every_kernel_of_the_step_and_what_the_host_did() {
    let gpu = crate::common::gpu();
    let mut trainer = Trainer::new(&gpu, recipe("supervised"), dataset(100)).unwrap();
    let profile = trainer.profile(2).unwrap();
    let names: Vec<_> = profile.host.iter().map(|span| span.name).collect();
    assert_eq!(names, ["load", "upload", "encode", "submit", "wait"].repeat(2));
    assert!(profile.device.len() > 20 && profile.device.len().is_multiple_of(2), "{}", profile.device.len());
    let (first, second) = profile.device.split_at(profile.device.len() / 2);
    assert!(first.iter().zip(second).all(|(a, b)| a.kernel == b.kernel && a.variant == b.variant && a.grid == b.grid));
    assert!(first.iter().any(|i| i.kernel.starts_with("optimizer/")) && first.iter().any(|i| i.kernel.starts_with("loss/")));
    // Each step's kernels follow each other, between its encoding and the end of its wait.
    for (step, spans) in [first, second].into_iter().zip(profile.host.chunks(5)) {
        assert!(step.windows(2).all(|pair| pair[0].end_seconds <= pair[1].begin_seconds + 1e-9));
        assert!(spans[2].begin_seconds <= step[0].begin_seconds && step[step.len() - 1].end_seconds <= spans[4].end_seconds + 1e-9);
    }
    let kernels = profile.kernels(&Default::default());
    approx::assert_abs_diff_eq!(kernels.iter().map(|k| k.share).sum::<f64>(), 1.0, epsilon = 1e-6);
    assert_eq!(kernels.iter().map(|k| k.calls).sum::<f64>(), first.len() as f64);
}

#[test]
fn recipes_that_name_what_does_not_exist_are_refused() {
    let gpu = crate::common::gpu();
    for (bad, words) in [
        ("method=mystery", "supervised, simclr, moco"),
        ("model=mystery", "cnn_16_32_64"),
        ("optimizer=mystery", "sgd, adam, adamw, rmsprop, lars"),
        ("schedule=mystery", "one_cycle"),
        ("augmentation=mystery", "grey_simclr"),
        ("batch=101", "batch size of 1 to 100, found 101"),
    ] {
        let recipe = recipe("supervised").with([bad]);
        let error = recipe.and_then(|recipe| Trainer::new(&gpu, recipe, dataset(100)).map(|_| ())).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains(words), "{error}");
    }
}
