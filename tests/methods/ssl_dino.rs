//! DINO: what its loss is where the answer is known, what moves at a step and what stays, and
//! clipping and decay as its authors have them.

use crate::common::tiny;
use wgrad::gpu::{Gpu, ScalarCell};
use wgrad::methods::{Batch, Clock, Dino, DinoConfig, EmaTeacherConfig, Method, MethodContext, MethodFactory, TrainStep, pairs};
use wgrad::models::{HeadActivation, Mlp, MlpConfig, ModelOptions, Prototypes, model};
use wgrad::nn::{Init, Kind, Mode, Module, Parameters};
use wgrad::optim::{Optimizer, OptimizerOptions, Sgd, SgdOptions, clip_each_norm};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, Tensor};
use wgrad::train::progress::Style;
use wgrad::train::{Checkpoint, Recipe, RunDirectory, Trainer};

const OUTPUTS: usize = 12;

fn config() -> DinoConfig {
    let projector = MlpConfig { hidden: 16, outputs: 8, ..DinoConfig::default().projector };
    let teacher = EmaTeacherConfig { momentum: 0.75, momentum_end: 0.75 };
    DinoConfig { projector, prototypes: OUTPUTS, teacher, ..Default::default() }
}

struct Run {
    params: Parameters,
    method: Dino,
    clock: Clock,
}

fn run_of(gpu: &Gpu, name: &str, config: DinoConfig) -> Run {
    let params = Parameters::new(gpu, 3);
    let clock = Clock { steps: 10, steps_per_epoch: 2, ..Default::default() };
    let setting = MethodContext { clock: clock.clone(), ..Default::default() };
    let network = model(name, ModelOptions { channels: 1, ..Default::default() }).unwrap();
    let method = Dino::new(&params, &|params| network.architecture.build(params), config, &setting).unwrap();
    method.begin().unwrap();
    Run { params, method, clock }
}

fn run(gpu: &Gpu, config: DinoConfig) -> Run {
    run_of(gpu, "cnn_16_32_64", config)
}

/// Four images a view, of the given sides.
fn batch(gpu: &Gpu, sides: &[usize]) -> Batch {
    let view = |(view, side): (usize, &usize)| {
        let mut stream = Stream::keyed(view as u32, Purpose::Test.key(), 0);
        let values: Vec<f32> = (0..4 * side * side).map(|_| stream.normal()).collect();
        Tensor::from_slice(gpu, &values, [4, *side, *side, 1]).unwrap()
    };
    let zeros = || Tensor::from_slice(gpu, &[0i32; 4], [4]).unwrap();
    Batch { views: sides.iter().enumerate().map(view).collect(), labels: zeros(), indices: zeros(), epoch: 0.into() }
}

fn values(params: &Parameters, name: &str) -> Vec<f32> {
    params.get(name).unwrap_or_else(|| panic!("no {name}")).detach().unwrap().to_vec().unwrap()
}

fn write(params: &Parameters, name: &str, value: impl Fn(usize) -> f32) {
    let tensor = params.get(name).unwrap().detach().unwrap();
    tensor.write(&(0..tensor.numel()).map(value).collect::<Vec<_>>()).unwrap();
}

fn center(run: &Run) -> Vec<f32> {
    run.method.state()[0].1.to_vec().unwrap()
}

/// Mean entropy of the rows of the teacher's probabilities.
fn entropy(step: &TrainStep) -> f32 {
    let p = step.teacher.as_ref().unwrap();
    let rows = p.shape().dim(0) as f32;
    p.to_vec::<f32>().unwrap().iter().map(|p| if *p > 0.0 { -p * p.ln() } else { 0.0 }).sum::<f32>() / rows
}

/// The logits of what `params` holds, from layers made here.
fn logits(params: &Parameters, images: &Tensor) -> Tensor {
    let config = config();
    let encoder = model("cnn_16_32_64", ModelOptions { channels: 1, ..Default::default() }).unwrap().architecture.build(params).unwrap();
    let head = Mlp::new(&params.scope("proj"), 64, &config.projector).unwrap();
    let last = Prototypes::new(&params.scope("last_layer"), 8, OUTPUTS, true).unwrap();
    let z = head.forward(&encoder.forward(images, Mode::Train).unwrap(), Mode::Train).unwrap();
    last.forward(&z, Mode::Train).unwrap()
}

#[test]
fn a_view_is_not_matched_with_itself() {
    for views in 2..10 {
        let all: Vec<_> = pairs(views).collect();
        assert_eq!(all.len(), 2 * views - 2, "{views}");
        assert!(all.iter().all(|(teacher, student)| *teacher < 2 && *student < views && teacher != student), "{all:?}");
    }
    // The loss of four views, two of them smaller, is the mean over the six pairs.
    let gpu = crate::common::gpu();
    let (run, batch) = (run(&gpu, config()), batch(&gpu, &[16, 16, 8, 8]));
    let zero = Tensor::full(&gpu, [OUTPUTS], 0.0, DType::F32).unwrap();
    let copy = run.params.snapshot().unwrap();
    let out: Vec<Tensor> = batch.views.iter().map(|view| logits(&copy, view)).collect();
    let term = |(t, s): (usize, usize)| out[s].dino_loss(&out[t], &zero, 0.1, 0.04).unwrap().item().unwrap();
    let expected = pairs(4).map(term).sum::<f32>() / 6.0;
    let found = run.method.loss(&batch).unwrap().loss.item().unwrap();
    assert!((found - expected).abs() < 1e-5 * expected, "{found}, expected {expected}");
}

#[test]
fn the_center_follows_after_it_was_used() {
    let gpu = crate::common::gpu();
    // The teacher stands still.
    let teacher = EmaTeacherConfig { momentum: 1.0, momentum_end: 1.0 };
    let (run, batch) = (run(&gpu, DinoConfig { teacher, ..config() }), batch(&gpu, &[16, 16]));
    let copy = run.params.snapshot().unwrap();
    let mut mean = vec![0.0f32; OUTPUTS];
    for view in &batch.views {
        let rows = logits(&copy, view).to_vec::<f32>().unwrap();
        rows.iter().enumerate().for_each(|(i, v)| mean[i % OUTPUTS] += v / 8.0);
    }
    for share in [0.1, 0.19, 0.271] {
        let step = run.method.loss(&batch).unwrap();
        run.method.after_update(&step).unwrap();
        // Of the logits as they are, not divided by the temperature.
        let off = center(&run).iter().zip(&mean).map(|(c, m)| (c - share * m).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{share}: {off}");
    }
}

#[test]
fn equal_outputs_cost_ln_k() {
    let gpu = crate::common::gpu();
    let (run, batch) = (run(&gpu, config()), batch(&gpu, &[16, 16]));
    write(&run.params, "last_layer.weight_v", |i| 1.0 + (i % 8) as f32);
    run.method.begin().unwrap();
    let step = run.method.loss(&batch).unwrap();
    for found in [step.loss.item().unwrap(), entropy(&step)] {
        approx::assert_abs_diff_eq!(found, (OUTPUTS as f32).ln(), epsilon = 1e-5);
    }
}

#[test]
fn one_output_for_all_has_no_entropy_until_it_is_centred() {
    let gpu = crate::common::gpu();
    for centering in [true, false] {
        let (run, batch) = (run(&gpu, DinoConfig { centering, ..config() }), batch(&gpu, &[16, 16]));
        // Every embedding is (1, 1, ..), the first prototype points there and all others away.
        write(&run.params, "proj.6.weight", |_| 0.0);
        write(&run.params, "proj.6.bias", |_| 1.0);
        write(&run.params, "last_layer.weight_v", |i| if i < 8 { 1.0 } else { -1.0 });
        run.method.begin().unwrap();
        let step = run.method.loss(&batch).unwrap();
        assert!(entropy(&step) < 1e-6 && step.loss.item().unwrap() < 1e-6, "{}", entropy(&step));
        for _ in 0..60 {
            let step = run.method.loss(&batch).unwrap();
            run.method.after_update(&step).unwrap();
        }
        let found = entropy(&run.method.loss(&batch).unwrap());
        let expected = if centering { (OUTPUTS as f32).ln() } else { 0.0 };
        assert!((found - expected).abs() < 0.01, "centering {centering}: {found}");
    }
}

fn sgd(params: &Parameters, common: OptimizerOptions) -> Sgd {
    Sgd::new(params, SgdOptions { common, ..Default::default() }).unwrap()
}

#[test]
fn a_step_moves_the_student_then_the_teacher_and_never_a_prototypes_length() {
    let gpu = crate::common::gpu();
    let (mut run, batch) = (run(&gpu, config()), batch(&gpu, &[16, 16]));
    run.method.begin_epoch(1).unwrap();
    let [(_, teacher)] = run.method.averages()[..] else { panic!("one teacher") };
    let mut optimizer = sgd(&run.params, OptimizerOptions::default());
    for _ in 0..2 {
        let names: Vec<String> = run.params.slots().into_iter().map(|s| s.name).filter(|n| !n.contains("running_")).collect();
        let before: Vec<Vec<f32>> = names.iter().map(|name| values(teacher, name)).collect();
        let step = run.method.loss(&batch).unwrap();
        let gradients = run.method.gradients(&step).unwrap();
        assert!(teacher.all().iter().all(|p| gradients.get(&p.tensor(Mode::Train).unwrap()).is_none()));
        assert!(gradients.get(&run.params.get("last_layer.weight_v").unwrap().tensor(Mode::Train).unwrap()).is_some());
        optimizer.step(&gradients, 0.5).unwrap();
        assert!(names.iter().zip(&before).all(|(name, old)| values(teacher, name) == *old), "it moves after the optimizer");
        run.method.after_update(&step).unwrap();
        for (name, old) in names.iter().zip(&before) {
            let student = values(&run.params, name);
            let expected = old.iter().zip(&student).map(|(t, s)| 0.75 * t + 0.25 * s);
            assert!(values(teacher, name).iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1e-3)), "{name}");
        }
        assert_eq!(values(&run.params, "last_layer.weight_g"), [1.0; OUTPUTS]);
        assert_eq!(values(teacher, "last_layer.weight_g"), [1.0; OUTPUTS]);
    }
    // Unless they are to be trained.
    let trained = self::run(&gpu, DinoConfig { normalize_last_layer: false, ..config() });
    let gradients = trained.method.loss(&batch).unwrap().loss.backward().unwrap();
    assert!(gradients.get(&trained.params.get("last_layer.weight_g").unwrap().tensor(Mode::Train).unwrap()).is_some());
}

#[test]
fn prototypes_wait_for_the_second_epoch() {
    let gpu = crate::common::gpu();
    let (mut run, batch) = (run(&gpu, config()), batch(&gpu, &[16, 16]));
    let mut optimizer = sgd(&run.params, OptimizerOptions { weight_decay: 0.1, ..Default::default() });
    for epoch in 0..3 {
        run.method.begin_epoch(epoch).unwrap();
        let before = ["last_layer.weight_v", "proj.0.weight"].map(|name| values(&run.params, name));
        optimizer.step(&run.method.loss(&batch).unwrap().loss.backward().unwrap(), 0.5).unwrap();
        let after = ["last_layer.weight_v", "proj.0.weight"].map(|name| values(&run.params, name));
        assert_eq!([before[0] != after[0], before[1] != after[1]], [epoch > 0, true], "epoch {epoch}");
    }
    // What somebody else froze stays frozen, whenever that was.
    for (epochs, when) in [(2..3, 2), (0..3, 0), (0..3, 1)] {
        let mut other = self::run(&gpu, config());
        for epoch in epochs {
            if epoch == when {
                other.params.freeze("last_layer", true).unwrap();
            }
            other.method.begin_epoch(epoch).unwrap();
        }
        assert!(other.params.get("last_layer.weight_v").unwrap().slot().unwrap().frozen, "frozen before epoch {when}");
    }
}

#[test]
fn the_teacher_warms_up_by_epochs() {
    let gpu = crate::common::gpu();
    let warm = DinoConfig { teacher_temperature: 0.07, teacher_warm_up_epochs: 4, ..config() };
    let run = run(&gpu, warm);
    let found: Vec<f64> = [0, 1, 2, 4, 6, 7, 8, 9]
        .iter()
        .map(|step| {
            run.clock.step.set(*step);
            run.method.metrics()[1].1
        })
        .collect();
    // np.linspace(0.04, 0.07, 4), two steps an epoch.
    let expected = [0.04, 0.04, 0.05, 0.06, 0.07, 0.07, 0.07, 0.07];
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{found:?}");
}

#[test]
fn views_of_another_size_reach_a_transformer() {
    let gpu = crate::common::gpu();
    let (run, batch) = (run_of(&gpu, "vit_mini_patch4_28", config()), batch(&gpu, &[28, 28, 12]));
    let step = run.method.loss(&batch).unwrap();
    let gradients = step.loss.backward().unwrap();
    let positions = gradients.get(&run.params.get("pos_embed").unwrap().tensor(Mode::Train).unwrap()).unwrap();
    assert!(step.loss.item().unwrap().is_finite() && positions.to_vec::<f32>().unwrap().iter().all(|g| g.is_finite() && *g != 0.0));
}

/// `clip_gradients` of DINO's authors, in float64: every tensor by itself.
#[test]
fn each_parameter_is_clipped_by_itself() {
    let gpu = crate::common::gpu();
    for (common, at_once) in [(OptimizerOptions { clip_each: Some(0.5), ..Default::default() }, true), (OptimizerOptions::default(), false)]
    {
        let params = Parameters::new(&gpu, 5);
        let make = |name: &str, n: usize| params.parameter(name, [n], Kind::Linear, Init::Normal { std: 1.0 }).unwrap();
        let all = [make("long", 1000), make("short", 3), make("odd", 65)];
        write(&params, "short", |i| 0.01 * i as f32);
        let before: Vec<Vec<f32>> = ["long", "short", "odd"].map(|name| values(&params, name)).into();
        // The gradient of half the sum of squares is the value.
        let half = |t: Tensor| t.square().unwrap().sum(&[0], false).unwrap().mul_scalar(0.5).unwrap();
        let terms = all.map(|p| half(p.tensor(Mode::Train).unwrap()));
        let loss = terms[0].add(&terms[1]).unwrap().add(&terms[2]).unwrap();
        let mut gradients = loss.backward().unwrap();
        if !at_once {
            clip_each_norm(&mut gradients, 0.5).unwrap();
        }
        sgd(&params, common).step(&gradients, 1.0).unwrap();
        for (name, old) in ["long", "short", "odd"].iter().zip(&before) {
            let norm = old.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let factor = (0.5 / (norm + 1e-6)).min(1.0);
            let right = |(new, old): (&f32, &f32)| (f64::from(*new) - f64::from(*old) * (1.0 - factor)).abs() < 1e-6;
            assert!(values(&params, name).iter().zip(old).all(right), "{name}");
        }
    }
}

#[test]
fn weight_decay_follows_its_schedule_and_changes_nothing_where_it_is_constant() {
    let gpu = crate::common::gpu();
    let after = |scheduled: Option<[f32; 3]>, weight_decay: f32| {
        let params = Parameters::new(&gpu, 5);
        let weight = params.parameter("weight", [70], Kind::Linear, Init::Normal { std: 1.0 }).unwrap();
        let bias = params.parameter("bias", [70], Kind::Bias, Init::Normal { std: 1.0 }).unwrap();
        let mut optimizer = sgd(&params, OptimizerOptions { weight_decay, exclude_bias_and_norm: true, ..Default::default() });
        let decay = ScalarCell::new(0.0f32);
        if scheduled.is_some() {
            optimizer.schedule_weight_decay(decay.scalar()).unwrap();
        }
        for step in 0..3 {
            decay.set(scheduled.map_or(0.0, |table| table[step]));
            let product = weight.tensor(Mode::Train).unwrap().mul(&bias.tensor(Mode::Train).unwrap()).unwrap();
            optimizer.step(&product.sum(&[0], false).unwrap().backward().unwrap(), 0.5).unwrap();
        }
        ["weight", "bias"].map(|name| values(&params, name))
    };
    assert_eq!(after(Some([0.3; 3]), 0.1), after(None, 0.3));
    let table = [0.04f32, 0.22, 0.4];
    let params = Parameters::new(&gpu, 5);
    let mut weight: Vec<f64> = Vec::new();
    let mut bias: Vec<f64> = Vec::new();
    for (name, kind, to) in [("weight", Kind::Linear, &mut weight), ("bias", Kind::Bias, &mut bias)] {
        let made = params.parameter(name, [70], kind, Init::Normal { std: 1.0 }).unwrap();
        to.extend(made.detach().unwrap().to_f64().unwrap());
    }
    for decay in table {
        for (w, b) in weight.iter_mut().zip(&mut bias) {
            (*w, *b) = (*w - 0.5 * (*b + f64::from(decay) * *w), *b - 0.5 * *w);
        }
    }
    for (found, expected) in after(Some(table), 0.1).iter().zip([weight, bias]) {
        assert!(found.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{found:?}");
    }
}

/// Every key that DINO adds takes part: crops of two sizes, frozen prototypes for an epoch,
/// schedules of rate, decay, momentum and temperature.
#[test]
fn a_run_goes_on_to_the_same_bits_with_its_center_and_teacher() {
    let data = tiny::dataset(64);
    let recipe = Recipe::defaults("dino").with([
        "batch=16",
        "epochs=3",
        "optimizer=adamw",
        "schedule=cosine",
        "augmentation=grey_dino_global_1, grey_dino_global_2, 2 grey_dino_local",
        "learning_rate=0.01",
        "minimum_learning_rate=1e-4",
        "warm_up_epochs=0.5",
        "weight_decay=0.04",
        "weight_decay_end=0.4",
        "clip_each=3",
        "prototypes=12",
        "teacher_temperature=0.07",
        "teacher_warm_up_epochs=2",
        "projector.hidden=16",
    ]);
    let recipe = recipe.unwrap();
    let run = |recipe: &Recipe, stop: u64| {
        let folder = tempfile::tempdir().unwrap();
        let gpu = crate::common::gpu();
        let directory = RunDirectory::create(&folder.path().join("run"), recipe, &gpu).unwrap();
        let mut trainer = Trainer::new(&gpu, recipe.clone(), data.clone()).unwrap();
        if !trainer.run(Some(&directory), Style::Silent, &mut |at| at.step == stop).unwrap().finished {
            let checkpoint = Checkpoint::load(&directory.last_checkpoint()).unwrap();
            trainer = Trainer::resume(&crate::common::gpu(), &checkpoint, data.clone()).unwrap();
            assert!(trainer.run(Some(&directory), Style::Silent, &mut |_| false).unwrap().finished);
        }
        let state = trainer.method.state().into_iter().chain(trainer.method.averages().into_iter().flat_map(|(_, average)| {
            average.slots().into_iter().map(|slot| (slot.name.clone(), average.get(&slot.name).unwrap().detach().unwrap()))
        }));
        let state: Vec<(String, Vec<f32>)> = state.map(|(name, tensor)| (name, tensor.to_vec().unwrap())).collect();
        let weights: Vec<Vec<f32>> = trainer.params.slots().iter().map(|slot| values(&trainer.params, &slot.name)).collect();
        (state, weights)
    };
    let whole = run(&recipe, 0);
    assert!(whole.0.iter().any(|(name, center)| name == "center" && center.iter().any(|c| *c != 0.0)));
    for stop in [2, 6] {
        assert!(run(&recipe, stop) == whole, "stopped after step {stop}");
    }
    // Each key has an effect.
    for other in [
        "weight_decay_end=0",
        "clip_each=0.01",
        "warm_up_epochs=0",
        "centering=false",
        "teacher_warm_up_epochs=0",
        "minimum_learning_rate=0",
    ] {
        let mut recipe = recipe.clone();
        recipe.set(other).unwrap();
        assert!(run(&recipe, 0) != whole, "{other}");
    }
}

#[test]
fn heads_are_configured() {
    let gpu = crate::common::gpu();
    let x = Tensor::from_slice(&gpu, &[1.0f32, -2.0, 0.5, 3.0, 0.25, -1.0], [2, 3]).unwrap();
    let outputs = |activation, norm| {
        let params = Parameters::new(&gpu, 1);
        let config = MlpConfig { layers: 3, hidden: 5, outputs: 4, norm, activation, init_std: 0.02, ..Default::default() };
        let mlp = Mlp::new(&params, 3, &config).unwrap();
        assert!(values(&params, "0.bias").iter().all(|b| *b == 0.0) && values(&params, "0.weight").iter().all(|w| w.abs() < 0.12));
        let names: Vec<String> = params.slots().into_iter().map(|s| s.name).filter(|n| n.ends_with("weight")).collect();
        assert_eq!(names.len(), if norm { 5 } else { 3 }, "{names:?}");
        mlp.forward(&x, Mode::Train).unwrap().to_vec::<f32>().unwrap()
    };
    let all = [(HeadActivation::Relu, false), (HeadActivation::Gelu, false), (HeadActivation::Relu, true), (HeadActivation::Gelu, true)];
    let all = all.map(|(activation, norm)| outputs(activation, norm));
    assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])), "{all:?}");
}

#[test]
fn outputs_are_cosines_with_prototypes() {
    let gpu = crate::common::gpu();
    let params = Parameters::new(&gpu, 2);
    let last = Prototypes::new(&params, 7, 5, true).unwrap();
    let mut stream = Stream::keyed(0, Purpose::Test.key(), 0);
    let x: Vec<f32> = (0..3 * 7).map(|_| 3.0 * stream.normal()).collect();
    let found = last.forward(&Tensor::from_slice(&gpu, &x, [3, 7]).unwrap(), Mode::Train).unwrap().to_vec::<f32>().unwrap();
    let v = values(&params, "weight_v");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let expected = x.chunks(7).flat_map(|x| v.chunks(7).map(move |v| dot(x, v) / (dot(x, x) * dot(v, v)).sqrt()));
    assert!(found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{found:?}");
}
