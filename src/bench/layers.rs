//! The suite `layers`: the layers of real networks, forward and with gradients. A layer that a
//! network repeats is measured once.

use std::sync::Arc;

use super::peers::{Convolution, batch_norm, tensor};
use super::sampled::{self, Geometry};
use super::workload::{Workload, operator, twin};
use crate::error::{Error, Result};
use crate::gpu::{AdapterKind, Capabilities};
use crate::io::layout::Layout;
use crate::models::mobilenet::{Head, Kind};
use crate::models::{MobileNetConfig, ResNetConfig};
use crate::ops::linear::Linear;
use crate::ops::pooling::Window;
use crate::ops::pooling::global_avg_pool2d::GlobalAvgPool2d;
use crate::ops::pooling::max_pool2d::MaxPool2d;
use crate::ops::sample::{Sample, distinct, normal};
use crate::ops::{Activation, apply_one};

const SUITE: &str = "layers";

/// A layer by its shapes; images are square.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layer {
    Convolution(Convolution),
    Norm { n: usize, size: usize, c: usize, activation: Activation },
    MaxPool { n: usize, size: usize, c: usize },
    GlobalPool { n: usize, size: usize, c: usize },
    Linear { n: usize, inputs: usize, outputs: usize },
}

/// A network as it is walked: the present size and channels, and the layers so far.
struct Walk {
    n: usize,
    size: usize,
    c: usize,
    layers: Vec<Layer>,
}

impl Walk {
    fn images(n: usize, size: usize) -> Self {
        Self { n, size, c: 3, layers: Vec::new() }
    }

    fn convolution(&mut self, k: usize, kernel: usize, stride: usize, depthwise: bool, activation: Activation) {
        let Walk { n, size, c, .. } = *self;
        self.layers.push(Layer::Convolution(Convolution { n, size, c, k, kernel, stride, depthwise }));
        self.size = (size + 2 * (kernel / 2) - kernel) / stride + 1;
        self.c = k;
        self.layers.push(Layer::Norm { n, size: self.size, c: k, activation });
    }

    fn dense(&mut self, k: usize, kernel: usize, stride: usize, activation: Activation) {
        self.convolution(k, kernel, stride, false, activation);
    }

    fn depthwise(&mut self, kernel: usize, stride: usize, activation: Activation) {
        self.convolution(self.c, kernel, stride, true, activation);
    }

    fn head(mut self, classes: usize) -> Vec<Layer> {
        let Walk { n, size, c, .. } = self;
        self.layers.push(Layer::GlobalPool { n, size, c });
        self.layers.push(Layer::Linear { n, inputs: c, outputs: classes });
        self.layers
    }
}

/// A network of the mobile family, with 10 classes for small images.
fn mobile(n: usize, size: usize, config: Result<MobileNetConfig>) -> Vec<Layer> {
    let Ok(config) = config else { return Vec::new() };
    let small = size < 64;
    let mut walk = Walk::images(n, size);
    walk.dense(config.stem, 3, if small { 1 } else { config.stem_stride }, config.style.activation);
    for block in config.stages.iter().flatten() {
        if block.expanded != walk.c {
            walk.dense(block.expanded, 1, 1, block.activation);
        }
        walk.depthwise(block.kernel, block.stride, block.activation);
        if block.squeezed > 0 {
            let Walk { size, c, .. } = walk;
            walk.layers.push(Layer::GlobalPool { n, size, c });
            for (from, to) in [(c, block.squeezed), (block.squeezed, c)] {
                walk.layers.push(Layer::Convolution(Convolution { n, size: 1, c: from, k: to, kernel: 1, stride: 1, depthwise: false }));
            }
        }
        let behind = if block.kind == Kind::DepthwiseSeparableActivated { block.activation } else { Activation::None };
        walk.dense(block.outputs, 1, 1, behind);
    }
    if let Head::Convolution(k) = config.head {
        walk.dense(k, 1, 1, config.style.activation);
    }
    walk.head(if small { 10 } else { 1000 })
}

fn mobilenet(n: usize, size: usize) -> Vec<Layer> {
    mobile(n, size, MobileNetConfig::v1(1.0))
}

fn efficientnet(n: usize, size: usize) -> Vec<Layer> {
    mobile(n, size, MobileNetConfig::efficientnet(1.0, 1.0))
}

fn resnet(n: usize, size: usize) -> Vec<Layer> {
    let (small, relu) = (size < 64, Activation::Relu);
    let mut walk = Walk::images(n, size);
    if small {
        walk.dense(64, 3, 1, relu);
    } else {
        walk.dense(64, 7, 2, relu);
        walk.layers.push(Layer::MaxPool { n, size: walk.size, c: walk.c });
        walk.size = walk.size.div_ceil(2);
    }
    for (stage, blocks) in ResNetConfig::deep(18).into_iter().flat_map(|config| config.blocks).enumerate() {
        let k = 64 << stage;
        for index in 0..blocks {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let (size, c) = (walk.size, walk.c);
            walk.dense(k, 3, stride, relu);
            walk.dense(k, 3, 1, relu);
            if stride != 1 || c != k {
                let after = (walk.size, walk.c);
                (walk.size, walk.c) = (size, c);
                walk.dense(k, 1, stride, Activation::None);
                (walk.size, walk.c) = after;
            }
        }
    }
    walk.head(if small { 10 } else { 1000 })
}

impl Layer {
    fn name(&self) -> String {
        match *self {
            Layer::Convolution(Convolution { size, c, k, kernel, stride, depthwise, .. }) => {
                let stride = if stride == 1 { String::new() } else { format!("s{stride}") };
                if depthwise { format!("depthwise{kernel}{stride}_{size}x{c}") } else { format!("conv{kernel}{stride}_{size}x{c}x{k}") }
            }
            Layer::Norm { size, c, activation, .. } => format!("norm_{size}x{c}_{}", activation.name()),
            Layer::MaxPool { size, c, .. } => format!("maxpool_{size}x{c}"),
            Layer::GlobalPool { size, c, .. } => format!("avgpool_{size}x{c}"),
            Layer::Linear { inputs, outputs, .. } => format!("linear_{inputs}x{outputs}"),
        }
    }

    fn workloads(&self, name: &str, network: &str) -> Vec<Workload> {
        let both = |make: &dyn Fn(String, bool) -> Workload| vec![make(format!("{name}_fwd"), false), make(format!("{name}_fwdbwd"), true)];
        match *self {
            Layer::Convolution(convolution) => convolution.workloads(SUITE, name, network).into(),
            Layer::Norm { n, size, c, activation } => both(&|name, both| batch_norm(SUITE, name, [n, c, size, size], activation, both)),
            Layer::Linear { n, inputs, outputs } => both(&|name, both| linear(name, [n, inputs, outputs], both)),
            Layer::MaxPool { n, size, c } => both(&|name, both| {
                let own = || MaxPool2d { window: Window::square(3, 2, 1) };
                Workload::new(SUITE, name, "maxpool", format!("[{n}, {size}, {size}, {c}], 3x3 / 2"), move |gpu| {
                    let x = tensor(gpu, 3, [n, c, size, size], Layout::Convolution)?;
                    let half = size.div_ceil(2);
                    let dy = both.then(|| tensor(gpu, 5, [n, c, half, half], Layout::Convolution)).transpose()?;
                    let gate = twin(gpu, &format!("[1, 5, 5, {c}]"), move || Sample::new(own(), [distinct([1, 5, 5, c])]));
                    operator(Arc::new(own()), vec![x], dy, &[0], gate)
                })
            }),
            Layer::GlobalPool { n, size, c } => both(&|name, both| {
                Workload::new(SUITE, name, "avgpool", format!("[{n}, {size}, {size}, {c}]"), move |gpu| {
                    let x = tensor(gpu, 3, [n, c, size, size], Layout::Convolution)?;
                    let dy = both.then(|| tensor(gpu, 5, [n, c], Layout::Plain)).transpose()?;
                    let gate = twin(gpu, &format!("[2, 3, 3, {c}]"), move || Sample::new(GlobalAvgPool2d, [normal([2, 3, 3, c])]));
                    operator(Arc::new(GlobalAvgPool2d), vec![x], dy, &[0], gate)
                })
            }),
        }
    }
}

/// A linear layer without bias: `[n, inputs]` to `[n, outputs]`.
fn linear(name: String, [n, inputs, outputs]: [usize; 3], both: bool) -> Workload {
    Workload::new(SUITE, name, "linear", format!("[{n}, {inputs}] -> {outputs}"), move |gpu| {
        let x = tensor(gpu, 3, [n, inputs], Layout::Plain)?;
        let weight = tensor(gpu, 4, [outputs, inputs], Layout::Plain)?;
        let dy = both.then(|| tensor(gpu, 5, [n, outputs], Layout::Plain)).transpose()?;
        let geometry = Geometry { product: false, ..Geometry::product([n, inputs, outputs]) };
        let (x0, w0, dy0) = (x.watch(), weight.watch(), dy.clone());
        let gate = move || {
            let y = apply_one(Linear, &[&x0, &w0])?;
            let Some(dy) = &dy0 else { return sampled::gate(&geometry, &x0, &w0, &y, None) };
            let gradients = y.backward_from(dy)?;
            let gradient = |t| gradients.get(t).ok_or_else(|| Error::autograd("linear", "no gradient reached its inputs"));
            sampled::gate(&geometry, &x0, &w0, &y, Some([dy, gradient(&x0)?, gradient(&w0)?]))
        };
        operator(Arc::new(Linear), vec![x, weight], dy, &[0, 1], gate)
    })
}

/// The layers of MobileNetV1 at 32 and 224, ResNet-18 and EfficientNet-B0, with batches that a
/// software driver can bear where it is one.
pub fn workloads(capabilities: &Capabilities) -> Vec<Workload> {
    let (small, large) = if capabilities.kind == AdapterKind::Software { (8, 1) } else { (128, 32) };
    let networks = [
        ("mobilenet_v1_32", mobilenet(small, 32)),
        ("mobilenet_v1_224", mobilenet(large, 224)),
        ("resnet18_32", resnet(small, 32)),
        ("resnet18_224", resnet(large, 224)),
        ("efficientnet_b0_224", efficientnet(large, 224)),
    ];
    let mut list = Vec::new();
    for (network, layers) in networks {
        let mut seen: Vec<Layer> = Vec::new();
        for layer in &layers {
            if seen.contains(layer) {
                continue;
            }
            seen.push(*layer);
            let times = layers.iter().filter(|l| *l == layer).count();
            let mut both = layer.workloads(&format!("{network}/{}", layer.name()), network);
            for workload in &mut both {
                workload.group = network.into();
                if times > 1 {
                    workload.shape += &format!(", {times} times");
                }
            }
            list.append(&mut both);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn macs(layers: &[Layer]) -> usize {
        let of = |layer: &Layer| match *layer {
            Layer::Convolution(convolution) => {
                let [h, w] = convolution.geometry().output();
                let inner = if convolution.depthwise { 1 } else { convolution.c };
                convolution.n * h * w * convolution.k * inner * convolution.kernel * convolution.kernel
            }
            Layer::Linear { n, inputs, outputs } => n * inputs * outputs,
            _ => 0,
        };
        layers.iter().map(of).sum()
    }

    /// Multiply-adds an image: torchvision's tables for 224 (EfficientNet-B0 0.386 G, ResNet-18
    /// 1.814 G); MobileNetV1's paper, 569 M.
    #[test]
    fn networks_have_the_layers_of_the_papers() {
        assert_eq!(macs(&mobilenet(1, 224)) / 1_000_000, 568);
        assert_eq!(macs(&resnet(1, 224)) / 1_000_000, 1814);
        assert_eq!(macs(&efficientnet(1, 224)) / 1_000_000, 385);
        assert_eq!(macs(&resnet(2, 32)), 2 * macs(&resnet(1, 32)));
    }
}
