//! Networks that are only measured: torchvision's ResNet-18 and EfficientNet-B0, whose training steps other libraries are measured on. They
//! are here for their shapes and costs; `models` has the networks that wgrad trains.

use crate::error::Result;
use crate::nn::layers::{BatchNormConfig, Conv2dConfig, SqueezeExciteConfig};
use crate::nn::{BatchNorm, Conv2d, DepthwiseConv2d, Linear, Mode, Module, Parameters, SqueezeExcite, Summary};
use crate::ops::Activation;
use crate::ops::pooling::Window;
use crate::tensor::{Shape, Tensor};

/// A convolution, dense or depthwise, and the batch norm behind it.
struct Unit {
    convolution: Convolution,
    norm: BatchNorm,
}

enum Convolution {
    Dense(Conv2d),
    Depthwise(DepthwiseConv2d),
}

impl Unit {
    fn new(
        params: &Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        activation: Activation,
    ) -> Result<Self> {
        let scope = params.scope(name);
        let convolution = Conv2d::new(&scope, "conv", inputs, outputs, Conv2dConfig { kernel, stride, ..Default::default() })?;
        let norm = BatchNorm::new(&scope, "norm", outputs, BatchNormConfig { activation, ..Default::default() })?;
        Ok(Self { convolution: Convolution::Dense(convolution), norm })
    }

    fn depthwise(params: &Parameters, name: &str, channels: usize, [kernel, stride]: [usize; 2], activation: Activation) -> Result<Self> {
        let scope = params.scope(name);
        let convolution = DepthwiseConv2d::new(&scope, "conv", channels, Conv2dConfig { kernel, stride, ..Default::default() })?;
        let norm = BatchNorm::new(&scope, "norm", channels, BatchNormConfig { activation, ..Default::default() })?;
        Ok(Self { convolution: Convolution::Depthwise(convolution), norm })
    }

    /// With `residual` added before the activation.
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        match &self.convolution {
            Convolution::Dense(convolution) => self.norm.forward_behind(convolution, x, residual, mode),
            Convolution::Depthwise(convolution) => self.norm.forward_residual(&convolution.forward(x, mode)?, residual, mode),
        }
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let output = match &self.convolution {
            Convolution::Dense(convolution) => convolution.summarize(input, summary)?,
            Convolution::Depthwise(convolution) => convolution.summarize(input, summary)?,
        };
        self.norm.summarize(&output, summary)
    }
}

/// Channels and the first stride of ResNet-18's four stages of two blocks.
pub const RESNET18: [(usize, usize); 4] = [(64, 1), (128, 2), (256, 2), (512, 2)];

/// Two convolutions around which the input goes, by a third where its shape changes.
struct Basic {
    first: Unit,
    second: Unit,
    shortcut: Option<Unit>,
}

/// ResNet-18 (He et al. 2015). The small form, for 32 x 32, begins with a 3x3 of stride 1 and has no pooling.
pub struct ResNet18 {
    small: bool,
    stem: Unit,
    blocks: Vec<Basic>,
    head: Linear,
}

impl ResNet18 {
    /// Makes the network in the scope `params`; its classifier is `fc`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(params: &Parameters, small: bool, classes: usize) -> Result<Self> {
        let relu = Activation::Relu;
        let stem = Unit::new(params, "stem", [3, 64], if small { [3, 1] } else { [7, 2] }, relu)?;
        let (mut blocks, mut inputs) = (Vec::new(), 64);
        for (stage, (outputs, stride)) in RESNET18.into_iter().enumerate() {
            for (index, stride) in [stride, 1].into_iter().enumerate() {
                let scope = params.scope(format!("layer{stage}.{index}"));
                let shortcut = stride != 1 || inputs != outputs;
                blocks.push(Basic {
                    first: Unit::new(&scope, "1", [inputs, outputs], [3, stride], relu)?,
                    second: Unit::new(&scope, "2", [outputs, outputs], [3, 1], relu)?,
                    shortcut: shortcut
                        .then(|| Unit::new(&scope, "shortcut", [inputs, outputs], [1, stride], Activation::None))
                        .transpose()?,
                });
                inputs = outputs;
            }
        }
        Ok(Self { small, stem, blocks, head: Linear::new(params, "fc", inputs, classes)? })
    }
}

/// The pooling behind ResNet's stem.
const POOL: (usize, usize, usize) = (3, 2, 1);

impl Module for ResNet18 {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = self.stem.forward(x, None, mode)?;
        if !self.small {
            x = x.max_pool2d(Window::square(POOL.0, POOL.1, POOL.2))?;
        }
        for Basic { first, second, shortcut } in &self.blocks {
            let identity = shortcut.as_ref().map(|unit| unit.forward(&x, None, mode)).transpose()?.unwrap_or_else(|| x.clone());
            x = second.forward(&first.forward(&x, None, mode)?, Some(&identity), mode)?;
        }
        self.head.forward(&x.global_avg_pool2d()?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let mut shape = self.stem.summarize(input, summary)?;
        if !self.small {
            shape = shape.with(1, shape.dim(1).div_ceil(2)).with(2, shape.dim(2).div_ceil(2));
        }
        for Basic { first, second, shortcut } in &self.blocks {
            shortcut.as_ref().map(|unit| unit.summarize(&shape, summary)).transpose()?;
            shape = second.summarize(&first.summarize(&shape, summary)?, summary)?;
        }
        self.head.summarize(&Shape::from([shape.dim(0), shape.last()]), summary)
    }
}

/// EfficientNet-B0's stages (Tan and Le 2019, table 1): expansion, channels, blocks, first stride, kernel.
pub const EFFICIENTNET_B0: [(usize, usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)];

/// An inverted residual with squeeze and excitation.
struct Inverted {
    expand: Option<Unit>,
    depthwise: Unit,
    excite: SqueezeExcite,
    project: Unit,
    residual: bool,
}

/// EfficientNet-B0, without its dropout and stochastic depth.
pub struct EfficientNetB0 {
    stem: Unit,
    blocks: Vec<Inverted>,
    last: Unit,
    head: Linear,
}

impl EfficientNetB0 {
    /// Makes the network in the scope `params`; its classifier is `fc`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(params: &Parameters, classes: usize) -> Result<Self> {
        let silu = Activation::Silu;
        let stem = Unit::new(params, "stem", [3, 32], [3, 2], silu)?;
        let (mut blocks, mut inputs) = (Vec::new(), 32);
        for (stage, (expansion, outputs, count, first, kernel)) in EFFICIENTNET_B0.into_iter().enumerate() {
            for index in 0..count {
                let scope = params.scope(format!("blocks.{stage}.{index}"));
                let (stride, wide) = (if index == 0 { first } else { 1 }, inputs * expansion);
                // As many channels in the bottleneck as a quarter of the block's input.
                let excite = SqueezeExciteConfig { squeezed: inputs / 4, activation: silu, hard_gate: false };
                blocks.push(Inverted {
                    expand: (expansion > 1).then(|| Unit::new(&scope, "expand", [inputs, wide], [1, 1], silu)).transpose()?,
                    depthwise: Unit::depthwise(&scope, "depthwise", wide, [kernel, stride], silu)?,
                    excite: SqueezeExcite::new(&scope, "se", wide, excite)?,
                    project: Unit::new(&scope, "project", [wide, outputs], [1, 1], Activation::None)?,
                    residual: stride == 1 && inputs == outputs,
                });
                inputs = outputs;
            }
        }
        let last = Unit::new(params, "last", [inputs, 1280], [1, 1], silu)?;
        Ok(Self { stem, blocks, last, head: Linear::new(params, "fc", 1280, classes)? })
    }
}

impl Module for EfficientNetB0 {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = self.stem.forward(x, None, mode)?;
        for block in &self.blocks {
            let wide = block.expand.as_ref().map(|unit| unit.forward(&x, None, mode)).transpose()?.unwrap_or_else(|| x.clone());
            let wide = block.excite.forward(&block.depthwise.forward(&wide, None, mode)?, mode)?;
            x = block.project.forward(&wide, block.residual.then_some(&x), mode)?;
        }
        self.head.forward(&self.last.forward(&x, None, mode)?.global_avg_pool2d()?, mode)
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let mut shape = self.stem.summarize(input, summary)?;
        for block in &self.blocks {
            if let Some(expand) = &block.expand {
                shape = expand.summarize(&shape, summary)?;
            }
            shape = block.depthwise.summarize(&shape, summary)?;
            shape = block.excite.summarize(&shape, summary)?;
            shape = block.project.summarize(&shape, summary)?;
        }
        shape = self.last.summarize(&shape, summary)?;
        self.head.summarize(&Shape::from([shape.dim(0), shape.last()]), summary)
    }
}
