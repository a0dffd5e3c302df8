//! Several tasks on one trunk: weighted losses and gradients against plain formulas, masks, and the
//! same bits after an interruption.

use crate::common::tiny;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::common::gpu;
use crate::common::tiny::dataset;
use wgrad::autograd::Gradients;
use wgrad::error::Result;
use wgrad::gpu::Gpu;
use wgrad::methods::{
    Batch, Clock, HIDDEN, Method, MethodContext, MethodFactory, Multitask, MultitaskConfig, TaskLabels, TrainStep, Weighting,
};
use wgrad::models::{ModelOptions, model};
use wgrad::nn::{Mode, Parameters};
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::tensor::{InputShape, Tensor};
use wgrad::train::progress::Style;
use wgrad::train::{Recipe, Trainer};

const IMAGES: usize = 8;
const HEADS: [&str; 2] = ["classifier", "side"];

struct Learner {
    gpu: Gpu,
    params: Parameters,
    clock: Clock,
    method: Multitask,
}

fn learner(config: MultitaskConfig, labels: &[i32; IMAGES]) -> Result<Learner> {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 3);
    let clock = Clock { steps: 30, steps_per_epoch: 3, ..Default::default() };
    let task = TaskLabels { name: "side".into(), classes: 4, labels: labels.as_slice().into() };
    let setting =
        MethodContext { clock: clock.clone(), classes: 4, input: InputShape::Image([16, 16, 1]), tasks: vec![task], ..Default::default() };
    let network = model("cnn_16_32_64", ModelOptions { channels: 1, size: Some([16, 16]), ..Default::default() })?;
    let method = Multitask::new(&params, &|params| network.architecture.build(params), config, &setting)?;
    Ok(Learner { gpu, params, clock, method })
}

fn of(weighting: Weighting) -> MultitaskConfig {
    MultitaskConfig { weighting, ..Default::default() }
}

impl Learner {
    fn step(&self, number: u64) -> TrainStep {
        self.clock.step.set(number);
        let (pixels, labels) = tiny::images(IMAGES);
        let pixels: Vec<f32> = pixels.into_iter().map(|v| f32::from(v) / 120.0 - 1.0).collect();
        let integers = |values: Vec<i32>| Tensor::from_slice(&self.gpu, &values, [IMAGES]).unwrap();
        let views = vec![Tensor::from_slice(&self.gpu, &pixels, [IMAGES, 16, 16, 1]).unwrap()];
        let labels = integers(labels.into_iter().map(i32::from).collect());
        self.method.loss(&Batch { views, labels, indices: integers((0..IMAGES as i32).collect()), epoch: 0.into() }).unwrap()
    }

    /// All gradients by name.
    fn named(&self, gradients: &Gradients) -> BTreeMap<String, Vec<f64>> {
        let of =
            |p: wgrad::nn::Parameter| Some((p.slot().unwrap().name, gradients.get(&p.tensor(Mode::Train).unwrap())?.to_f64().unwrap()));
        self.params.all().into_iter().filter_map(of).collect()
    }

    /// Those of each task alone; the tape stays.
    fn each(&self, step: &TrainStep) -> [BTreeMap<String, Vec<f64>>; 2] {
        [0, 1].map(|task| self.named(&step.parts[task].1.backward_retain_graph().unwrap()))
    }

    fn state(&self, name: &str) -> Vec<f64> {
        self.method.state().into_iter().find(|(own, _)| own == name).unwrap().1.to_f64().unwrap()
    }
}

fn losses(step: &TrainStep) -> [f64; 2] {
    [0, 1].map(|task| f64::from(step.parts[task].1.item().unwrap()))
}

fn close(what: &str, found: &[f64], expected: &[f64]) {
    let size = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 2e-5 * size, "{what}: {found}, expected {expected}");
    }
}

fn dot(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>) -> f64 {
    let shared = a.iter().filter(|(name, _)| !HEADS.iter().any(|head| name.starts_with(head)));
    shared.map(|(name, a)| a.iter().zip(&b[name]).map(|(a, b)| a * b).sum::<f64>()).sum()
}

const LABELS: [i32; IMAGES] = [0, 1, 0, 2, 3, 1, HIDDEN, 0];

#[test]
fn a_weighted_sum_has_the_weighted_sum_of_the_gradients() {
    let learner = learner(MultitaskConfig { task_weights: vec![2.0, 0.5], ..of(Weighting::Fixed) }, &LABELS).unwrap();
    let step = learner.step(0);
    let (each, [first, second]) = (learner.each(&step), losses(&step));
    close("loss", &[step.loss.item().unwrap().into()], &[2.0 * first + 0.5 * second]);
    assert_eq!(step.parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), HEADS);
    let found = learner.named(&learner.method.gradients(&step).unwrap());
    assert_eq!(found.len(), 3 * 3 + 4);
    for (name, found) in found {
        let of = |task: usize, i: usize| each[task].get(&name).map_or(0.0, |g| g[i]);
        let expected: Vec<f64> = (0..found.len()).map(|i| 2.0 * of(0, i) + 0.5 * of(1, i)).collect();
        close(&name, &found, &expected);
    }
}

#[test]
fn the_optimum_of_uncertainty_is_the_logarithm_of_the_loss() {
    let learner = learner(of(Weighting::Uncertainty), &LABELS).unwrap();
    let step = learner.step(0);
    let [first, second] = losses(&step);
    let slope = |step: &TrainStep| learner.named(&learner.method.gradients(step).unwrap()).remove("log_var").unwrap();
    close("at 0", &slope(&step), &[1.0 - first, 1.0 - second]);
    let log_var = learner.params.get("log_var").unwrap().detach().unwrap();
    log_var.write(&[first.ln() as f32, second.ln() as f32]).unwrap();
    let step = learner.step(1);
    assert_eq!(losses(&step), [first, second]);
    assert!(slope(&step).iter().all(|slope| slope.abs() < 1e-6));
    close("loss", &[step.loss.item().unwrap().into()], &[2.0 + first.ln() + second.ln()]);
}

#[test]
fn tasks_that_pull_apart_are_projected() {
    let labels = [0, 1, 2, 3, 0, 1, 2, 3];
    let learner = learner(of(Weighting::Pcgrad), &labels).unwrap();
    // The same task by a head of the opposite sign: what helps the one spoils the other.
    for name in ["weight", "bias"] {
        let of = |head: &str| learner.params.get(&format!("{head}.{name}")).unwrap().detach().unwrap();
        of("side").copy_from(&of("classifier").mul_scalar(-1.5).unwrap()).unwrap();
    }
    let step = learner.step(0);
    let [a, b] = learner.each(&step);
    let (along, squares) = (dot(&a, &b), [dot(&a, &a), dot(&b, &b)]);
    assert!(along < -0.1 * squares[0].min(squares[1]), "{along} of {squares:?}");
    let found = learner.named(&learner.method.gradients(&step).unwrap());
    for (name, found) in &found {
        let expected: Vec<f64> = match (a.get(name), b.get(name)) {
            (Some(a), Some(b)) => {
                let one = |(a, b): (&f64, &f64)| a - along / squares[1] * b + b - along / squares[0] * a;
                a.iter().zip(b).map(one).collect()
            }
            (own, other) => own.or(other).unwrap().clone(),
        };
        close(name, found, &expected);
    }
    assert!(dot(&found, &a) >= -1e-6 && dot(&found, &b) >= -1e-6);
}

#[test]
fn images_without_a_label_take_no_part() {
    let whole = losses(&learner(of(Weighting::Fixed), &[0, 1, 2, 3, 3, 2, 1, 0]).unwrap().step(0));
    let alone = [0, 1, 2, 3, 3, 2, 1, 0].iter().enumerate().map(|(image, label)| {
        let mut labels = [HIDDEN; IMAGES];
        labels[image] = *label;
        losses(&learner(of(Weighting::Fixed), &labels).unwrap().step(0))[1]
    });
    close("mean", &[alone.sum::<f64>() / IMAGES as f64], &[whole[1]]);
    let none = learner(of(Weighting::Fixed), &[HIDDEN; IMAGES]).unwrap();
    let step = none.step(0);
    assert_eq!(losses(&step), [whole[0], 0.0]);
    assert!(none.named(&none.method.gradients(&step).unwrap())["side.weight"].iter().all(|g| *g == 0.0));
}

#[test]
fn dynamic_averages_follow_the_means_of_epochs() {
    let learner = learner(of(Weighting::Dwa), &LABELS).unwrap();
    let mut sgd = Sgd::new(&learner.params, SgdOptions::default()).unwrap();
    let mut means: Vec<[f64; 2]> = Vec::new();
    for epoch in 0..5 {
        let weights = if let [.., before, last] = means.as_slice() {
            let powers = [0, 1].map(|task| (last[task] / before[task] / 2.0).exp());
            powers.map(|power| 2.0 * power / powers.iter().sum::<f64>())
        } else {
            [1.0; 2]
        };
        let mut sum = [0.0; 2];
        for batch in 0..3 {
            let step = learner.step(epoch * 3 + batch);
            let [first, second] = losses(&step);
            close("loss", &[step.loss.item().unwrap().into()], &[weights[0] * first + weights[1] * second]);
            sum = [sum[0] + first, sum[1] + second];
            sgd.step(&learner.method.gradients(&step).unwrap(), 0.02).unwrap();
            learner.method.after_update(&step).unwrap();
        }
        assert!(epoch < 2 || (weights[0] - 1.0).abs() > 1e-3, "{weights:?} tell nothing");
        means.push(sum.map(|sum| sum / 3.0));
    }
}

#[test]
fn weights_follow_the_norms_of_gradients() {
    let learner = learner(MultitaskConfig { weights_learning_rate: 0.2, ..of(Weighting::Gradnorm) }, &LABELS).unwrap();
    let mut sgd = Sgd::new(&learner.params, SgdOptions::default()).unwrap();
    let (mut weights, mut initial) = ([1.0; 2], None);
    for number in 0..6 {
        let step = learner.step(number);
        let (each, losses) = (learner.each(&step), losses(&step));
        let initial = *initial.get_or_insert(losses);
        close("loss", &[step.loss.item().unwrap().into()], &[weights[0] * losses[0] + weights[1] * losses[1]]);
        let found = learner.method.gradients(&step).unwrap();
        for (name, found) in learner.named(&found) {
            let of = |task: usize, i: usize| each[task].get(&name).map_or(0.0, |g| weights[task] * g[i]);
            close(&name, &found, &(0..found.len()).map(|i| of(0, i) + of(1, i)).collect::<Vec<_>>());
        }
        let norms = [0, 1].map(|task| each[task]["conv3.weight"].iter().map(|g| g * g).sum::<f64>().sqrt());
        let behind = [0, 1].map(|task| losses[task] / initial[task]);
        let mean = |values: [f64; 2]| (values[0] + values[1]) / 2.0;
        let weighted = [0, 1].map(|task| weights[task] * norms[task]);
        let moved = [0, 1].map(|task| {
            let target = mean(weighted) * (behind[task] / mean(behind)).powf(1.5);
            (weights[task] - 0.2 * (weighted[task] - target).signum() * norms[task]).max(0.01)
        });
        weights = moved.map(|w| 2.0 * w / (moved[0] + moved[1]));
        sgd.step(&found, 0.02).unwrap();
        learner.method.after_update(&step).unwrap();
        close("weights", &learner.state("weights"), &weights);
        close("initial", &learner.state("initial_losses"), &initial);
    }
    assert!((weights[0] - 1.0).abs() > 0.01, "{weights:?} tell nothing");
}

fn recipe(tasks: &str) -> Recipe {
    Recipe::defaults("multitask").with(["batch=16", "epochs=4", "learning_rate=0.05", &format!("tasks={tasks}")]).unwrap()
}

#[test]
fn every_weighting_goes_on_to_the_same_bits() {
    let data = dataset(100);
    for weighting in ["uncertainty", "gradnorm", "dwa", "pcgrad"] {
        let mut recipe = recipe("side: 0+2, 1+3; corner: 0, 3");
        recipe.set(&format!("weighting={weighting}")).unwrap();
        let mut whole = Trainer::new(&gpu(), recipe.clone(), data.clone()).unwrap();
        assert!(whole.run(None, Style::Silent, &mut |_| false).unwrap().finished);
        for stop_at in [7, 18] {
            let mut first = Trainer::new(&gpu(), recipe.clone(), data.clone()).unwrap();
            first.run(None, Style::Silent, &mut |position| position.step == stop_at).unwrap();
            let mut rest = Trainer::resume(&gpu(), &first.checkpoint().unwrap(), data.clone()).unwrap();
            assert!(rest.run(None, Style::Silent, &mut |_| false).unwrap().finished);
            assert!(rest.checkpoint().unwrap() == whole.checkpoint().unwrap(), "{weighting} stopped at {stop_at}");
        }
    }
}

#[test]
fn what_cannot_be_learnt_is_named() {
    let refused = |recipe: Recipe, words: &str| {
        let message = Trainer::new(&gpu(), recipe, dataset(100)).err().unwrap().to_string();
        assert!(message.contains(words), "{message} should say {words}");
    };
    refused(recipe(""), "set `data.tasks` in the recipe");
    refused(recipe("classifier: 0, 1"), "classifier is the name of something else");
    refused(recipe("side: 0, 4"), "there is no \"4\"");
    for (weighting, weights, words) in [("fixed", "1", "expected 2 numbers"), ("dwa", "1, 1", "they are for weighting = \"fixed\"")] {
        let mut recipe = recipe("side: 0, 1");
        recipe.set(&format!("weighting={weighting}")).unwrap();
        recipe.set(&format!("task_weights={weights}")).unwrap();
        refused(recipe, words);
    }
    let frozen = recipe("side: 0, 1").with(["freeze=backbone", "weighting=pcgrad"]).unwrap();
    let message = Trainer::new(&gpu(), frozen, dataset(100)).unwrap().run(None, Style::Silent, &mut |_| false).unwrap_err().to_string();
    assert!(message.contains("what they share is frozen"), "{message}");
}

#[test]
fn eval_prints_a_line_for_each_task() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (tiny::data_called(folder.path(), "data"), folder.path().join("run"));
    // Of every third image it is known whether its place is even.
    for (name, count) in [("train", 96), ("test", 40)] {
        let line = |i: usize| if i.is_multiple_of(3) { ["even\n", "odd\n"][i % 2] } else { "\n" };
        fs::write(data.join(format!("{name}_tasks.csv")), format!("place\n{}", (0..count).map(line).collect::<String>())).unwrap();
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).env("WGRAD_TUNING", "off").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    run(&["train", "multitask", "--data", data, "--out", out, "--set", "tasks=side: 0+2, 1+3", "--set", "epochs=2", "--set", "batch=16"]);
    let text = run(&["eval", out]);
    assert!(text.contains("place: accuracy") && text.contains(" of 14 images") && text.contains("side: accuracy"), "{text}");
    let found: serde_json::Value = serde_json::from_str(&run(&["eval", out, "--json"])).unwrap();
    assert_eq!(found["tasks"].as_array().unwrap().len(), 2);
    assert_eq!((&found["tasks"][1]["name"], &found["tasks"][1]["images"]), (&"side".into(), &40.into()));
    // A trunk that has learnt several tasks begins a network of one.
    let (weights, next) = (format!("{out}/weights.safetensors"), folder.path().join("next"));
    let own = ["train", "supervised", "--model", "cnn_16_32_64", "--data", data, "--weights", &weights, "--set", "stem_stride=1"];
    run(&[&own[..], &["--set", "epochs=1", "--set", "batch=16", "--out", next.to_str().unwrap()]].concat());
}
