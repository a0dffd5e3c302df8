//! The first ten steps of every learning method against PyTorch, on both schedules: losses of each
//! step, and the norm of every parameter after the last. Short programs on the public API. The
//! generator draws images that keep the inputs of ReLUs away from their edge. `WGRAD_TRAJECTORIES`
//! names another folder, and `WGRAD_PARALLEL` one of steps that PyTorch's processes shared: these
//! are taken over as many shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::filled::{fill, integers, nhwc, unit};
use crate::common::{gpus, reference_files};
use crate::shards::Sharded;
use serde_json::Value;
use wgrad::error::Result;
use wgrad::gpu::Gpu;
use wgrad::methods::{
    BarlowTwins, BarlowTwinsConfig, Batch, Byol, ByolConfig, Clock, DecoupledDistillation, DecoupledDistillationConfig, Dino, DinoConfig,
    Distillation, DistillationConfig, EmaTeacherConfig, FeatureDistillation, FeatureDistillationConfig, HIDDEN, Hint, MeanTeacher,
    MeanTeacherConfig, Method, MethodContext, MethodFactory, Moco, MocoConfig, Multitask, MultitaskConfig, NnClr, NnClrConfig, SimClr,
    SimClrConfig, SimSiam, SimSiamConfig, SupCon, SupConConfig, Supervised, SupervisedConfig, SwAv, SwAvConfig, TaskLabels, Teacher,
    VicReg, VicRegConfig, Weighting,
};
use wgrad::models::{Backbone, MlpConfig, Network};
use wgrad::nn::layers::{BatchNormOptions, Conv2dOptions};
use wgrad::nn::{BatchNorm, Conv2d, DepthwiseConv2d, Mode, Module, Parameter, Parameters, Summary};
use wgrad::ops::activation::Activation;
use wgrad::optim::{AdamOptions, AdamW, Ema, Lars, LarsOptions, Optimizer, OptimizerOptions, Schedule, Sgd, SgdOptions};
use wgrad::tensor::{InputShape, Shape, Tensor};

const BATCH: usize = 16;
const STEPS: u64 = 10;

/// The encoder of the generator.
struct Net(Vec<(Box<dyn Module>, BatchNorm)>);

impl Module for Net {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.maps(x, mode).global_avg_pool2d()
    }

    fn summarize(&self, _: &Shape, _: &mut Summary) -> Result<Shape> {
        unreachable!("trajectories cost what they cost")
    }
}

impl Backbone for Net {
    fn features(&self) -> usize {
        64
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        Ok(self.maps(x, mode))
    }

    fn head(&self) -> &'static str {
        "fc"
    }
}

impl Net {
    fn new(params: &Parameters) -> Net {
        let norm = |scope: &Parameters, channels| {
            BatchNorm::new(scope, "bn", channels, BatchNormOptions { activation: Activation::Relu, ..Default::default() }).unwrap()
        };
        let mut layers: Vec<(Box<dyn Module>, BatchNorm)> = Vec::new();
        let stem = params.scope("stem");
        layers.push((Box::new(Conv2d::new(&stem, "conv", 3, 16, Conv2dOptions::default()).unwrap()), norm(&stem, 16)));
        for (name, inputs, outputs) in [("block1", 16, 32), ("block2", 32, 64)] {
            let dw = params.scope(format!("{name}.dw"));
            let config = Conv2dOptions { stride: 2, ..Default::default() };
            layers.push((Box::new(DepthwiseConv2d::new(&dw, "conv", inputs, config).unwrap()), norm(&dw, inputs)));
            let pw = params.scope(format!("{name}.pw"));
            let config = Conv2dOptions { kernel: 1, ..Default::default() };
            layers.push((Box::new(Conv2d::new(&pw, "conv", inputs, outputs, config).unwrap()), norm(&pw, outputs)));
        }
        Net(layers)
    }

    fn maps(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.0.iter().fold(x.clone(), |x, (conv, bn)| bn.forward(&conv.forward(&x, mode).unwrap(), mode).unwrap())
    }
}

/// What a method is told beyond images and labels.
struct Told {
    teachers: Vec<Arc<Teacher>>,
    /// Further labels by the name of their data, with the number of their classes.
    tasks: Vec<(&'static str, u64)>,
    /// The first so many labels of each batch are known.
    labelled: usize,
}

impl Default for Told {
    fn default() -> Self {
        Self { teachers: Vec::new(), tasks: Vec::new(), labelled: BATCH }
    }
}

/// A method with what it is trained by.
struct Learner<M> {
    /// What takes steps over shards.
    sharded: Option<Sharded>,
    params: Parameters,
    method: M,
    clock: Clock,
    /// Of all steps.
    labels: Vec<i32>,
}

/// A method's file, and the data that it names.
struct Run<'a> {
    gpu: &'a Gpu,
    doc: &'a Value,
    prefix: &'a str,
}

impl Run<'_> {
    fn hp(&self, name: &str) -> f32 {
        self.doc["hyper_parameters"][name].as_f64().unwrap_or_else(|| panic!("hyper-parameter {name}")) as f32
    }

    fn images(&self, step: u64, view: usize) -> Tensor {
        let draw = match self.doc["draws"][step as usize].as_u64().unwrap_or(0) {
            0 => String::new(),
            draw => format!("{draw}."),
        };
        let own = unit(&format!("{}{draw}images.{step}.{view}", self.prefix), BATCH * 3 * 256);
        let base = unit(&format!("{}{draw}images.{step}.base", self.prefix), BATCH * 3);
        let values: Vec<f64> = own.iter().enumerate().map(|(i, v)| 0.5 * v + base[i / 256]).collect();
        Tensor::from_slice(self.gpu, &nhwc(&values, [BATCH, 3, 16, 16]), [BATCH, 16, 16, 3]).unwrap()
    }

    fn integers(&self, step: u64, name: &str, below: u64) -> Vec<i32> {
        integers(&format!("{}{name}.{step}", self.prefix), BATCH, below)
    }

    /// The library's method, as `config` sets it up, with the generator's initial values. The
    /// images of all steps are its data set, in their order.
    fn learner<M: MethodFactory>(&self, config: M::Config, told: Told) -> Learner<M> {
        let shards = self.doc["processes"].as_u64().unwrap_or(1) as usize;
        let sharded = (shards > 1).then(|| self.sharded(shards));
        let params = sharded.as_ref().map_or_else(|| Parameters::new(self.gpu, 0), |sharded| sharded.parameters().clone());
        let clock = Clock { steps: STEPS, steps_per_epoch: STEPS, ..Default::default() };
        let table = |name: &str, below| (0..STEPS).flat_map(|step| self.integers(step, name, below)).collect::<Vec<i32>>();
        let known = |(at, label): (usize, i32)| if at % BATCH < told.labelled { label } else { HIDDEN };
        let labels: Vec<i32> = table("labels", 10).into_iter().enumerate().map(known).collect();
        let task = |(name, below): &(&str, u64)| TaskLabels {
            name: name.to_string(),
            classes: *below as usize,
            labels: table(name, *below).into(),
        };
        let tasks = told.tasks.iter().map(task).collect();
        let (classes, input, teachers) = (10, InputShape::Image([16, 16, 3]), told.teachers);
        let context =
            MethodContext { clock: clock.clone(), classes, input, seed: 0, shards, labels: labels.clone().into(), tasks, teachers };
        let method = M::new(&params, &|params| Ok(Box::new(Net::new(params))), config, &context).unwrap();
        fill(&params, "");
        method.begin().unwrap();
        Learner { sharded, params, method, clock, labels }
    }

    /// A run with the file's SGD.
    fn sharded(&self, shards: usize) -> Sharded {
        let [rate, momentum] = ["lr", "momentum"].map(|name| self.hp(name));
        let optimizer = [format!("learning_rate={rate}"), "optimizer=sgd".into(), format!("momentum={momentum}"), "nesterov=false".into()];
        let steps = [format!("epochs={STEPS}"), format!("batch={BATCH}"), format!("shards={shards}")];
        Sharded::new(self.gpu, BATCH, &[steps.as_slice(), optimizer.as_slice()].concat())
    }

    /// As [`Self::learner`], of images and labels alone, trained by [`Self::follow`].
    fn plain<M: MethodFactory>(&self, config: M::Config) -> Vec<String> {
        self.follow(self.learner::<M>(config, Told::default()))
    }

    /// As many as the file says, or as the method takes.
    fn views(&self, step: u64, method: &dyn Method) -> Vec<Tensor> {
        let crops = self.doc["hyper_parameters"]["crops"].as_u64();
        (0..crops.map_or(method.views(), |crops| crops as usize)).map(|view| self.images(step, view)).collect()
    }

    /// Gives the method's state `name`, a queue, the generator's first contents.
    fn fill_queue(&self, method: &dyn Method, name: &str) {
        let (_, queue) = method.state().into_iter().find(|(found, _)| found == name).unwrap();
        let values: Vec<f32> = unit(&format!("{}{name}", self.prefix), queue.numel()).iter().map(|v| *v as f32).collect();
        let filled = Tensor::from_slice(self.gpu, &values, queue.shape()).unwrap().l2_normalize(-1, 1e-12).unwrap();
        queue.copy_from(&filled).unwrap();
    }

    fn batch(&self, step: u64, method: &dyn Method, labels: &[i32]) -> Batch {
        let views = self.views(step, method);
        let indices: Vec<i32> = (step as i32 * BATCH as i32..).take(BATCH).collect();
        let known: Vec<i32> = indices.iter().map(|image| labels[*image as usize]).collect();
        let [labels, indices] = [known, indices].map(|values| Tensor::from_slice(self.gpu, &values, [BATCH]).unwrap());
        Batch { views, labels, indices, epoch: 0.into() }
    }

    /// Trains with the file's SGD.
    fn follow<M: Method + 'static>(&self, learner: Learner<M>) -> Vec<String> {
        if let Some(sharded) = learner.sharded {
            return self.compare(&sharded.train(learner.method, |step, method| self.views(step, method)), &learner.params);
        }
        let mut sgd = Sgd::new(&learner.params, SgdOptions { momentum: self.hp("momentum"), ..Default::default() }).unwrap();
        self.follow_with(&learner, &mut sgd, |_| self.hp("lr"), || {})
    }

    /// Trains as `Trainer` does in steps of one shard, and compares. `after` runs after each step.
    fn follow_with<M: Method>(
        &self,
        Learner { params, method, clock, labels, .. }: &Learner<M>,
        optimizer: &mut dyn Optimizer,
        rate: impl Fn(u64) -> f32,
        after: impl Fn(),
    ) -> Vec<String> {
        let one_step = |number: u64| {
            clock.step.set(number);
            method.begin_step().unwrap();
            let step = method.loss(&self.batch(number, method, labels)).unwrap();
            optimizer.step_with(&method.gradients(&step).unwrap(), rate(number).into()).unwrap();
            method.after_update(&step).unwrap();
            after();
            f64::from(step.loss.item().unwrap())
        };
        let losses: Vec<f64> = (0..STEPS).map(one_step).collect();
        assert_eq!(optimizer.skipped().unwrap(), 0);
        self.compare(&losses, params)
    }

    /// What of the losses, and of the parameters' norms after the last step, is not the file's.
    fn compare(&self, losses: &[f64], params: &Parameters) -> Vec<String> {
        let expected: Vec<f64> = self.doc["losses"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let f32_error = |what: &str| self.doc["f32_error"][what].as_f64().unwrap();
        let mut wrong = Vec::new();
        assert_eq!(losses.len(), expected.len());
        for (number, (found, want)) in losses.iter().zip(expected).enumerate() {
            if (found - want).abs() > (20.0 * f32_error("losses")).max(1e-4) * want.abs().max(1e-3) {
                wrong.push(format!("loss of step {number}: {found}, expected {want}"));
            }
        }
        for (name, want) in self.doc["param_norm"].as_object().unwrap() {
            let parameter = params.get(name).unwrap_or_else(|| panic!("no parameter {name}"));
            let (found, want) = (norm(&[parameter]), want.as_f64().unwrap());
            if (found - want).abs() > (20.0 * f32_error("param_norm")).max(1e-3) * want.abs().max(1e-2) {
                wrong.push(format!("norm of {name}: {found}, expected {want}"));
            }
        }
        wrong
    }

    /// The teacher that never changes, made of the tensors whose names begin with `teacher.`.
    fn frozen_teacher(&self) -> Arc<Teacher> {
        let params = Parameters::new(self.gpu, 0);
        let network = Network::new(&params, Box::new(Net::new(&params)), Some(10)).unwrap();
        fill(&params, "teacher.");
        Arc::new(Teacher::new("teacher", params, network, (0..10).collect()))
    }

    /// The teacher of every file: its momentum stays as it is.
    fn teacher(&self) -> EmaTeacherConfig {
        EmaTeacherConfig { momentum: self.hp("ema"), momentum_end: self.hp("ema") }
    }
}

fn norm(parameters: &[Parameter]) -> f64 {
    parameters.iter().flat_map(|p| p.detach().unwrap().to_f64().unwrap()).map(|v| v * v).sum::<f64>().sqrt()
}

fn supervised(run: &Run) -> Vec<String> {
    let learner =
        run.learner::<Supervised>(SupervisedConfig { label_smoothing: run.hp("label_smoothing"), ..Default::default() }, Told::default());
    let common = OptimizerOptions { weight_decay: run.hp("weight_decay"), ..Default::default() };
    let mut sgd = Sgd::new(&learner.params, SgdOptions { momentum: run.hp("momentum"), nesterov: true, common }).unwrap();
    run.follow_with(&learner, &mut sgd, |_| run.hp("lr"), || {})
}

/// Cross entropy without smoothing.
fn classifier(run: &Run) -> Learner<Supervised> {
    run.learner(SupervisedConfig { label_smoothing: 0.0, ..Default::default() }, Told::default())
}

fn supervised_adamw(run: &Run) -> Vec<String> {
    let learner = classifier(run);
    let common = OptimizerOptions { weight_decay: run.hp("weight_decay"), ..Default::default() };
    let mut adamw = AdamW::new(&learner.params, AdamOptions { common, ..Default::default() }).unwrap();
    run.follow_with(&learner, &mut adamw, |_| run.hp("lr"), || {})
}

fn supervised_schedule(run: &Run) -> Vec<String> {
    let learner = classifier(run);
    let common = OptimizerOptions { weight_decay: run.hp("weight_decay"), clip_norm: Some(0.5), ..Default::default() };
    let options = LarsOptions { momentum: run.hp("momentum"), trust_coefficient: run.hp("eta"), clip_lr: false, common };
    let mut lars = Lars::new(&learner.params, options).unwrap();
    let average = Ema::new(&learner.params).unwrap();
    let schedule = Schedule::Cosine { rate: 0.5, end: 0.0, steps: STEPS };
    let mut wrong = run.follow_with(&learner, &mut lars, |step| schedule.rate(step), || average.update(run.hp("ema")).unwrap());
    let trained: Vec<Parameter> = average.parameters().all().into_iter().filter(|p| !p.slot().unwrap().name.contains("running_")).collect();
    let (found, want) = (norm(&trained), run.doc["ema_norm"].as_f64().unwrap());
    if (found - want).abs() > 1e-3 * want {
        wrong.push(format!("norm of the average: {found}, expected {want}"));
    }
    wrong
}

/// The generator's projector: 64 to 64 to 32 features, without batch norm.
fn projector() -> MlpConfig {
    MlpConfig { layers: 2, hidden: 64, outputs: 32, ..Default::default() }
}

/// The generator's predictor: 32 to 64 to 32, with batch norm.
fn predictor() -> MlpConfig {
    MlpConfig { hidden: 64, ..MlpConfig::predictor() }
}

fn simclr(run: &Run) -> Vec<String> {
    run.plain::<SimClr>(SimClrConfig { temperature: run.hp("temperature"), projector: projector() })
}

fn moco(run: &Run) -> Vec<String> {
    let config = MocoConfig {
        temperature: run.hp("temperature"),
        projector: projector(),
        teacher: run.teacher(),
        queue: 64,
        batch_norm_splits: 1,
        shuffle: false,
        symmetric: false,
    };
    let learner = run.learner::<Moco>(config, Told::default());
    run.fill_queue(&learner.method, "queue");
    run.follow(learner)
}

fn byol(run: &Run) -> Vec<String> {
    run.plain::<Byol>(ByolConfig { projector: projector(), predictor: predictor(), teacher: run.teacher() })
}

fn simsiam(run: &Run) -> Vec<String> {
    run.plain::<SimSiam>(SimSiamConfig { projector: projector(), predictor: predictor(), stop_gradient: true })
}

fn dino(run: &Run) -> Vec<String> {
    let config = DinoConfig {
        projector: projector(),
        prototypes: 0,
        student_temperature: run.hp("student_temperature"),
        teacher_temperature: run.hp("teacher_temperature"),
        center_momentum: run.hp("center_momentum"),
        teacher: run.teacher(),
        ..Default::default()
    };
    run.plain::<Dino>(config)
}

fn barlow_twins(run: &Run) -> Vec<String> {
    run.plain::<BarlowTwins>(BarlowTwinsConfig { lambda_param: run.hp("lambda_param"), projector: projector(), ..Default::default() })
}

fn vicreg(run: &Run) -> Vec<String> {
    let [lambda_param, mu_param, nu_param] = ["lambda_param", "mu_param", "nu_param"].map(|name| run.hp(name));
    run.plain::<VicReg>(VicRegConfig { lambda_param, mu_param, nu_param, projector: projector() })
}

fn swav(run: &Run) -> Vec<String> {
    let config = SwAvConfig {
        projector: projector(),
        prototypes: 20,
        freeze_prototypes_epochs: 0,
        temperature: run.hp("temperature"),
        sinkhorn_epsilon: run.hp("sinkhorn_epsilon"),
        sinkhorn_iterations: run.hp("sinkhorn_iterations") as usize,
        queue: 32,
        epoch_queue_starts: 0,
    };
    let learner = run.learner::<SwAv>(config, Told::default());
    (0..2).for_each(|view| run.fill_queue(&learner.method, &format!("queue.{view}")));
    run.follow(learner)
}

fn nnclr(run: &Run) -> Vec<String> {
    let config = NnClrConfig { temperature: run.hp("temperature"), projector: projector(), predictor: predictor(), queue: 64 };
    let learner = run.learner::<NnClr>(config, Told::default());
    run.fill_queue(&learner.method, "queue");
    run.follow(learner)
}

fn supcon(run: &Run) -> Vec<String> {
    run.plain::<SupCon>(SupConConfig { temperature: run.hp("temperature"), projector: projector() })
}

fn distilled<M: MethodFactory>(run: &Run, config: M::Config) -> Vec<String> {
    run.follow(run.learner::<M>(config, Told { teachers: vec![run.frozen_teacher()], ..Told::default() }))
}

fn distillation(run: &Run) -> Vec<String> {
    distilled::<Distillation>(run, DistillationConfig { temperature: run.hp("temperature"), soft_weight: run.hp("soft_weight") })
}

fn decoupled_distillation(run: &Run) -> Vec<String> {
    let (temperature, alpha, beta) = (run.hp("temperature"), run.hp("alpha"), run.hp("beta"));
    distilled::<DecoupledDistillation>(run, DecoupledDistillationConfig { temperature, alpha, beta, warm_up_epochs: 0 })
}

fn feature_distillation(run: &Run) -> Vec<String> {
    distilled::<FeatureDistillation>(run, FeatureDistillationConfig { variant: Hint::Fitnet, weight: 1.0 })
}

fn multitask(run: &Run) -> Vec<String> {
    let config = MultitaskConfig { weighting: Weighting::Uncertainty, ..Default::default() };
    let told = Told { tasks: vec![("rotation", 4)], ..Told::default() };
    let learner = run.learner::<Multitask>(config, told);
    learner.params.get("log_var").unwrap().detach().unwrap().write(&[0.0f32; 2]).unwrap();
    run.follow(learner)
}

fn mean_teacher(run: &Run) -> Vec<String> {
    let config = MeanTeacherConfig { consistency: 1.0, ramp_up: 0.0, teacher: run.teacher() };
    run.follow(run.learner::<MeanTeacher>(config, Told { labelled: 4, ..Told::default() }))
}

/// Follows every file of a folder on both schedules.
fn follow_all(variable: &str, folder: &str) {
    type Program = fn(&Run) -> Vec<String>;
    let programs: BTreeMap<&str, Program> = BTreeMap::from([
        ("supervised", supervised as Program),
        ("supervised_adamw", supervised_adamw),
        ("supervised_schedule", supervised_schedule),
        ("simclr", simclr),
        ("moco", moco),
        ("byol", byol),
        ("simsiam", simsiam),
        ("dino", dino),
        ("barlow_twins", barlow_twins),
        ("vicreg", vicreg),
        ("swav", swav),
        ("nnclr", nnclr),
        ("supcon", supcon),
        ("distillation", distillation),
        ("decoupled_distillation", decoupled_distillation),
        ("feature_distillation", feature_distillation),
        ("multitask", multitask),
        ("mean_teacher", mean_teacher),
    ]);
    let paths = reference_files(variable, folder, "json");
    let (mut failures, mut passed) = (Vec::new(), 0);
    let gpus = gpus();
    for path in &paths {
        let doc: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (method, prefix) = (doc["method"].as_str().unwrap(), doc["data_prefix"].as_str().unwrap());
        let Some(program) = programs.get(method) else {
            failures.push(format!("{method}: there is no such method"));
            continue;
        };
        for (schedule, gpu) in &gpus {
            let wrong = program(&Run { gpu, doc: &doc, prefix });
            if wrong.is_empty() {
                passed += 1;
            } else {
                failures.push(format!("{method} ({schedule}): {}", wrong.join("\n    ")));
            }
        }
    }
    println!("{passed} of {} {folder} passed", paths.len() * gpus.len());
    assert!(failures.is_empty() && passed > 0, "{}", failures.join("\n"));
}

#[test]
fn methods_follow_pytorch_for_ten_steps() {
    follow_all("WGRAD_TRAJECTORIES", "trajectories");
}

#[test]
fn shards_follow_the_processes_of_pytorch_for_ten_steps() {
    follow_all("WGRAD_PARALLEL", "parallel");
}
