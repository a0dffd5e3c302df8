//! The workloads that other libraries were measured on, by the same names and on the same inputs.
//!
//! Inputs are made by a hash of seed and index in the order of PyTorch's layouts (images NCHW,
//! weights OIHW) and then laid out as the engine has them, so element 0 of a result is the same
//! element.

use std::rc::Rc;
use std::sync::Arc;

use super::run::Gate;
use super::sampled::{self, Geometry};
use super::workload::{Prepared, Workload, gate_of, operator, twin};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::layout::Layout;
use crate::models::{Classifier, MobileNet, MobileNetConfig};
use crate::nn::{Kind, Mode, Module, Parameters, Role};
use crate::ops::contrastive::nt_xent::NtXent;
use crate::ops::convolution::conv2d::{Conv2d, Conv2dFuncOptions};
use crate::ops::convolution::depthwise_conv2d::{DepthwiseConv2d, DepthwiseConv2dFuncOptions};
use crate::ops::linear::{Form, Matmul};
use crate::ops::normalization::batch_norm::{BatchNorm, BatchNormFuncOptions};
use crate::ops::sample::{Sample, normal, uniform as uniform_input};
use crate::ops::softmax::Softmax;
use crate::ops::{Activation, Cost, Operator, apply_one, apply_shared};
use crate::optim::{Optimizer, Sgd, SgdOptions};
use crate::tensor::{DType, Shape, Tensor};

const SUITE: &str = "peers";

/// What a reader of the figures must know: the other program does a little more.
pub const UPSTREAM: &str = "burn's fwdbwd includes a product and a sum that supply the upstream gradient; here it is given";

/// `n` numbers in [-1, 1): the PCG hash (Jarzynski and Olano 2020) of index and seed, as in the
/// other programs.
pub fn uniform(seed: u32, n: usize) -> Vec<f32> {
    let key = seed.wrapping_mul(0x9E37_79B9);
    (0..n as u32)
        .map(|i| {
            let state = (i ^ key).wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
            let hash = (word >> 22) ^ word;
            (hash >> 8) as f32 / (1u32 << 24) as f32 * 2.0 - 1.0
        })
        .collect()
}

/// Above so many elements a tensor repeats itself: its values do not matter any more, and the host
/// need not hash for minutes.
const MOST_HASHED: usize = 1 << 24;

/// The numbers of a tensor that lies in a file as `layout` says.
pub fn tensor(gpu: &Gpu, seed: u32, file: impl Into<Shape>, layout: Layout) -> Result<Tensor> {
    let file = file.into();
    let n = file.numel();
    let engine = layout.engine_shape(&file)?;
    // A dry device holds no values.
    if gpu.is_dry() {
        return Tensor::empty(gpu, engine, DType::F32);
    }
    if n <= MOST_HASHED {
        return Tensor::from_slice(gpu, &layout.to_engine(&uniform(seed, n), &file)?, engine);
    }
    let parts = (n.div_ceil(MOST_HASHED)..).find(|parts| n.is_multiple_of(*parts)).unwrap_or(n);
    let part = Tensor::from_slice(gpu, &uniform(seed, n / parts), [1, n / parts])?;
    let sizes: Vec<isize> = engine.iter().map(|s| *s as isize).collect();
    part.expand(&[parts, n / parts])?.reshape(&sizes)
}

/// Images NCHW in a file.
const IMAGES: Layout = Layout::Convolution;

/// A product [m, k] times [k, n].
pub fn matmul(suite: &'static str, name: String, sizes: [usize; 3]) -> Workload {
    let [m, k, n] = sizes;
    Workload::new(suite, name, "matmul", format!("[{m}, {k}] x [{k}, {n}]"), move |gpu| {
        let a = tensor(gpu, 1, [m, k], Layout::Plain)?;
        let b = tensor(gpu, 2, [k, n], Layout::Plain)?;
        let (x, y) = (a.clone(), b.clone());
        let gate = move || sampled::gate(&Geometry::product(sizes), &x, &y, &x.matmul(&y)?, None);
        operator(Arc::new(Matmul { form: Form::Nn }), vec![a, b], None, &[], gate)
    })
}

/// A convolution, dense or depthwise, with a square kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Images.
    pub n: usize,
    /// Height and width.
    pub size: usize,
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub k: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels between two positions.
    pub stride: usize,
    /// Every channel has its own kernel.
    pub depthwise: bool,
}

impl Convolution {
    /// Sizes for the gate.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            n: self.n,
            size: [self.size; 2],
            c: self.c,
            k: self.k,
            kernel: [self.kernel; 2],
            stride: self.stride,
            padding: self.kernel / 2,
            depthwise: self.depthwise,
            product: false,
        }
    }

    /// The operator.
    pub fn operator(&self) -> Arc<dyn Operator> {
        let (stride, padding) = ([self.stride; 2], (self.kernel / 2).into());
        if self.depthwise {
            Arc::new(DepthwiseConv2d::new(DepthwiseConv2dFuncOptions { stride, padding, ..Default::default() }))
        } else {
            Arc::new(Conv2d::new(Conv2dFuncOptions { stride, padding, ..Default::default() }))
        }
    }

    /// `[n, size, size, c] -> k, kernel, stride`
    pub fn shape(&self) -> String {
        let Convolution { n, size, c, k, kernel, stride, depthwise } = *self;
        let kind = if depthwise { "depthwise " } else { "" };
        let stride = if stride == 1 { String::new() } else { format!(" / {stride}") };
        format!("[{n}, {size}, {size}, {c}] -> {k}, {kind}{kernel}x{kernel}{stride}")
    }

    /// The workloads `NAME_fwd` and `NAME_fwdbwd`.
    pub fn workloads(self, suite: &'static str, name: &str, group: &str) -> [Workload; 2] {
        [false, true].map(|both| {
            let name = format!("{name}{}", if both { "_fwdbwd" } else { "_fwd" });
            Workload::new(suite, name, group, self.shape(), move |gpu| self.make(gpu, both))
        })
    }

    fn make(&self, gpu: &Gpu, both: bool) -> Result<Prepared> {
        let Convolution { n, size, c, k, kernel, depthwise, .. } = *self;
        let geometry = self.geometry();
        let [h, w] = geometry.output();
        let x = tensor(gpu, 3, [n, c, size, size], IMAGES)?;
        let weight = if depthwise {
            tensor(gpu, 4, [k, 1, kernel, kernel], Layout::Depthwise)?
        } else {
            tensor(gpu, 4, [k, c, kernel, kernel], Layout::Convolution)?
        };
        let dy = both.then(|| tensor(gpu, 5, [n, k, h, w], IMAGES)).transpose()?;
        let own = self.operator();
        let (x0, w0, dy0) = (x.clone(), weight.clone(), dy.clone());
        let gate = move || -> Result<Gate> {
            let (x, w) = (x0.watch(), w0.watch());
            let y = apply_shared(own.clone(), &[&x, &w])?.into_iter().next().ok_or_else(|| Error::argument(own.name(), "has no output"))?;
            let Some(dy) = &dy0 else { return sampled::gate(&geometry, &x, &w, &y, None) };
            let gradients = y.backward_from(dy)?;
            let (Some(dx), Some(dw)) = (gradients.get(&x), gradients.get(&w)) else {
                return Err(Error::autograd(own.name(), "no gradient reached its inputs"));
            };
            sampled::gate(&geometry, &x, &w, &y, Some([dy, dx, dw]))
        };
        operator(self.operator(), vec![x, weight], dy, &[0, 1], gate)
    }
}

/// `softmax(x / 4)` over the rows of [rows, columns], forward or both.
pub fn softmax(suite: &'static str, name: &str, [rows, columns]: [usize; 2]) -> [Workload; 2] {
    [false, true].map(|both| {
        let name = format!("{name}{}", if both { "_fwdbwd" } else { "_fwd" });
        Workload::new(suite, name, "softmax", format!("[{rows}, {columns}], temperature 4"), move |gpu| {
            let x = tensor(gpu, 6, [rows, columns], Layout::Plain)?;
            let dy = both.then(|| tensor(gpu, 7, [rows, columns], Layout::Plain)).transpose()?;
            let gate =
                twin(gpu, &format!("[3, {columns}]"), move || Sample::new(Softmax::new(-1, 4.0), [uniform_input([3, columns], -1.0, 1.0)]));
            operator(Arc::new(Softmax::new(-1, 4.0)), vec![x], dy, &[0], gate)
        })
    })
}

/// NT-Xent at temperature 0.5 of two views, [rows / 2, d] each, which lie behind one another.
pub fn nt_xent(suite: &'static str, name: &str, [rows, d]: [usize; 2]) -> Workload {
    Workload::new(suite, name, "ntxent", format!("[{rows}, {d}]"), move |gpu| {
        let z = tensor(gpu, 8, [rows, d], Layout::Plain)?;
        let views = [(0, rows / 2), (rows / 2, rows)].map(|(from, to)| Ok(z.slice(0, from, to)?.detach().watch()));
        let [first, second] = views;
        let (first, second) = (first?, second?);
        let both = first.numel() as f64 * 4.0 * 2.0;
        // Similarities and their gradient, and the rows and their gradients once.
        let cost = Cost { flops: 4.0 * (rows * rows * d) as f64, bytes: 2.0 * both };
        let step = move || {
            let loss = apply_one(NtXent { temperature: 0.5.into() }, &[&first, &second])?;
            let gradients = loss.backward()?;
            let gradient = |t| gradients.get(t).cloned().ok_or_else(|| Error::autograd("nt_xent", "no gradient reached its inputs"));
            Ok(vec![gradient(&first)?, gradient(&second)?, loss])
        };
        let gate =
            twin(gpu, &format!("[34, {d}]"), move || Sample::new(NtXent { temperature: 0.5.into() }, [normal([17, d]), normal([17, d])]));
        Ok(Prepared { step: Box::new(step), gate: Box::new(gate), cost, dtype: DType::F32 })
    })
}

/// Batch norm in training of images NCHW with an activation fused behind it: forward, or both.
pub fn batch_norm(suite: &'static str, name: String, [n, c, h, w]: [usize; 4], activation: Activation, both: bool) -> Workload {
    let shape = if activation == Activation::None { String::new() } else { format!(", {}", activation.name()) };
    Workload::new(suite, name, "batchnorm", format!("[{n}, {h}, {w}, {c}]{shape}"), move |gpu| {
        let full = |value| Tensor::full(gpu, [c], value, DType::F32);
        let x = tensor(gpu, 9, [n, c, h, w], IMAGES)?;
        let dy = both.then(|| tensor(gpu, 10, [n, c, h, w], IMAGES)).transpose()?;
        let own = move || BatchNorm::new(BatchNormFuncOptions { activation, ..Default::default() });
        let gate = twin(gpu, &format!("[2, 3, 3, {c}]"), move || {
            Sample::new(own(), [normal([2, 3, 3, c]), uniform_input([c], 0.5, 1.5), normal([c]), normal([c]), uniform_input([c], 0.5, 1.5)])
        });
        operator(Arc::new(own()), vec![x, full(1.0)?, full(0.0)?, full(0.0)?, full(1.0)?], dy, &[0, 1], gate)
    })
}

/// A training step: forward, backward and SGD with momentum. The results are the classifier's
/// weight and the loss.
pub struct TrainingStep {
    /// Its parameters.
    pub params: Parameters,
    /// The network.
    pub model: Box<dyn Module>,
    /// Images.
    pub x: Tensor,
    /// Labels.
    pub labels: Tensor,
    /// The name of the parameter that is waited for.
    pub last: &'static str,
}

impl TrainingStep {
    /// The workload of it. `gate` compares the first loss.
    pub fn prepare(self, gate: impl Fn(&Self) -> Result<Gate> + 'static) -> Result<Prepared> {
        let this = Rc::new(self);
        let mut optimizer = Sgd::new(&this.params, SgdOptions { momentum: 0.9, ..Default::default() })?;
        let weight = this.params.get(this.last).ok_or_else(|| Error::argument(this.last, "the network has no such parameter"))?;
        let mut summary = crate::nn::Summary::default();
        this.model.summarize(this.x.shape(), &mut summary)?;
        // Each layer's output is written and read forwards, and again with its gradient backwards;
        // parameters, gradients and state once.
        let bytes = 5.0 * summary.activation_bytes() as f64 + 20.0 * summary.parameters() as f64;
        let cost = Cost { flops: 6.0 * summary.macs() as f64, bytes };
        let own = this.clone();
        let step = move || {
            let loss = own.loss()?;
            optimizer.step(&loss.backward()?, 0.01)?;
            Ok(vec![weight.detach()?, loss])
        };
        Ok(Prepared { step: Box::new(step), gate: Box::new(move || gate(&this)), cost, dtype: DType::F32 })
    }

    /// The loss of the present weights.
    ///
    /// # Errors
    /// Those of the network.
    pub fn loss(&self) -> Result<Tensor> {
        self.model.forward(&self.x, Mode::Train)?.cross_entropy(&self.labels, 0.0)
    }
}

/// Weights as the other programs have them: uniform within `sqrt(6 / fan in)`, the classifier's
/// within `sqrt(1 / fan in)`, one seed after another; biases 0, scales 1.
pub fn fill(params: &Parameters, first_seed: u32) -> Result<()> {
    if params.gpu().is_dry() {
        return Ok(());
    }
    let mut seed = first_seed;
    for parameter in params.all() {
        let slot = parameter.slot()?;
        let (layout, gain) = match slot.role {
            Role::Value(kind @ (Kind::Convolution | Kind::Depthwise)) => (kind.layout(), 6.0),
            Role::Value(Kind::Linear) => (Layout::Plain, 1.0),
            _ => continue,
        };
        let file = layout.file_shape(&slot.shape)?;
        let fan_in = file.numel() / file.dim(0).max(1);
        let scale = (gain / fan_in as f32).sqrt();
        let values: Vec<f32> = uniform(seed, file.numel()).iter().map(|u| u * scale).collect();
        parameter.detach()?.write(&layout.to_engine(&values, &file)?)?;
        seed += 1;
    }
    Ok(())
}

/// `index % classes`, one for each image.
pub fn labels(gpu: &Gpu, images: usize, classes: usize) -> Result<Tensor> {
    Tensor::from_slice(gpu, &(0..images).map(|i| (i % classes) as i32).collect::<Vec<_>>(), [images])
}

/// The loss of the first step as burn 0.22.1 prints it (`burn-peer wgpu =mobilenet_step`).
const MOBILENET_LOSS: f64 = 2.3364964;

/// The training step of MobileNetV1 of width 0.25 with a stem of stride 1 and ReLU, 32 images of 32
/// x 32.
fn mobilenet_step() -> Workload {
    Workload::new(SUITE, "mobilenet_step", "mobilenet_v1", "width 0.25, [32, 32, 32, 3], SGD with momentum", |gpu| {
        let params = Parameters::new(gpu, 0);
        let config = MobileNetConfig { stem_stride: 1, ..MobileNetConfig::v1(0.25)?.with_activation(Activation::Relu) };
        let model = Classifier::new(&params, MobileNet::new(&params, &config)?, 10)?;
        fill(&params, 100)?;
        // The gate has a network of its own, because training moves the weights.
        let untrained = params.snapshot()?;
        let reference = Classifier::new(&untrained, MobileNet::new(&untrained, &config)?, 10)?;
        let x = tensor(gpu, 11, [32, 3, 32, 32], IMAGES)?;
        let labels = labels(gpu, 32, 10)?;
        let step = TrainingStep { params, model: Box::new(model), x, labels, last: "classifier.weight" };
        step.prepare(move |step| {
            let loss = reference.forward(&step.x, Mode::Train)?.cross_entropy(&step.labels, 0.0)?.item()?;
            let error = (f64::from(loss) - MOBILENET_LOSS).abs() / 1e-3;
            Ok(gate_of(Ok(error), format!("burn 0.22.1's loss of the first step, {MOBILENET_LOSS}; as a fraction of 1e-3")))
        })
    })
}

/// All of them, in the order of the other programs.
pub fn workloads() -> Vec<Workload> {
    let convolution =
        |size: usize, c: usize, k: usize, kernel: usize, depthwise: bool| Convolution { n: 16, size, c, k, kernel, stride: 1, depthwise };
    let mut list = vec![
        matmul(SUITE, "matmul_512".into(), [512; 3]),
        matmul(SUITE, "matmul_1024".into(), [1024; 3]),
        matmul(SUITE, "matmul_4096x256x256".into(), [4096, 256, 256]),
    ];
    list.extend(convolution(32, 64, 64, 3, false).workloads(SUITE, "conv3x3", "conv3x3"));
    list.extend(convolution(16, 128, 256, 1, false).workloads(SUITE, "conv1x1", "conv1x1"));
    list.extend(convolution(32, 128, 128, 3, true).workloads(SUITE, "dwconv3x3", "dwconv3x3"));
    list.extend(softmax(SUITE, "softmax_t4", [4096, 1000]));
    list.push(nt_xent(SUITE, "ntxent_fwdbwd", [512, 128]));
    list.push(batch_norm(SUITE, "batchnorm_fwdbwd".into(), [16, 128, 32, 32], Activation::None, true));
    list.push(mobilenet_step());
    list
}
