//! ResNets (He et al. 2015, arXiv:1512.03385), with the stride in the 3x3 convolution as PyTorch
//! and timm have it; their names and initial values.

use std::sync::Arc;

use super::preprocessing::{HALF, IMAGENET, Published, published};
use super::registry::Family;
use super::torchvision::Renames;
use super::{Architecture, Backbone, Model, ModelOptions};
use crate::error::{Error, Result, require_share};
use crate::io::Interpolation::{Bicubic, Bilinear};
use crate::nn::layers::{BatchNormOptions, Conv2dOptions};
use crate::nn::{Blocks, ConvNorm, DropPath, Init, Mode, Module, Parameters, Summary};
use crate::ops::activation::Activation;
use crate::ops::pooling::Window;
use crate::tensor::{Shape, Tensor};

/// How a network is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResNetConfig {
    /// Channels of the images.
    pub channels: usize,
    /// Channels of the stem and the first stage; doubled by each further one.
    pub width: usize,
    /// Blocks of each stage.
    pub blocks: [usize; 4],
    /// Blocks of 1x1, 3x3 and 1x1 to four times the channels, instead of two 3x3.
    pub bottleneck: bool,
    /// For images of 32 x 32 and less: begins with a 3x3 of stride 1, instead of a 7x7 of stride 2
    /// and a pooling.
    pub small: bool,
    /// Added to the variance in batch norm.
    pub eps: f32,
    /// Weight of the new batch in running statistics.
    pub momentum: f32,
    /// The scale of each block's last batch norm starts at 0, so that all blocks begin as
    /// identities (Goyal et al. 2017, arXiv:1706.02677).
    pub zero_init_last: bool,
    /// Dropout before a classifier.
    pub drop_rate: f32,
    /// Stochastic depth of the last block; block i of n has `i / (n - 1)` of it.
    pub drop_path: f32,
}

/// ResNets.
pub(super) const FAMILY: Family = Family {
    names: &["resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152"],
    patterns: &[],
    parse,
    published: PUBLISHED,
};

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let config = ResNetConfig::deep(name.strip_prefix("resnet")?.parse().ok()?)?;
    let small = match options.stem_stride {
        None | Some(2) => false,
        Some(1) => true,
        Some(stride) => {
            let message = format!("\"{name}\" begins with a stride of 1 or 2, not {stride}");
            return Some(Err(Error::argument("stem_stride", message)));
        }
    };
    let width = (config.width as f64 * options.width).round().max(1.0) as usize;
    let ModelOptions { channels, drop_rate, drop_path, .. } = *options;
    Some(Ok(Model::new(224, ResNetConfig { channels, width, small, drop_rate, drop_path, ..config })))
}

#[rustfmt::skip]
const PUBLISHED: &[Published] = &[
    published("resnet18", "a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    published("resnet18", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    published("resnet18", "fb_ssl_yfcc100m_ft_in1k fb_swsl_ig1b_ft_in1k tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    published("resnet18", "gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("resnet34", "a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    published("resnet34", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    published("resnet34", "bt_in1k gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("resnet34", "ra4_e3600_r224_in1k", 224, 0.9, Bicubic, HALF),
    published("resnet34", "tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    published("resnet50", "a1_in1k a2_in1k b1k_in1k b2k_in1k c1_in1k c2_in1k d_in1k", 224, 0.95, Bicubic, IMAGENET),
    published("resnet50", "a1h_in1k", 176, 0.9, Bicubic, IMAGENET),
    published("resnet50", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    published("resnet50", "am_in1k bt_in1k gluon_in1k ra_in1k ram_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("resnet50", "bamboo", 224, 1.0, Bicubic, IMAGENET),
    published("resnet50", "fb_ssl_yfcc100m_ft_in1k fb_swsl_ig1b_ft_in1k tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    published("resnet50", "tv2_in1k", 176, 0.875, Bilinear, IMAGENET),
    published("resnet26", "bt_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("resnet101", "a1h_in1k a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    published("resnet101", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    published("resnet101", "gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("resnet101", "tv2_in1k", 176, 0.875, Bilinear, IMAGENET),
    published("resnet101", "tv_in1k", 224, 0.875, Bilinear, IMAGENET),
    published("resnet152", "a1h_in1k a1_in1k a2_in1k", 224, 0.95, Bicubic, IMAGENET),
    published("resnet152", "a3_in1k", 160, 0.95, Bicubic, IMAGENET),
    published("resnet152", "gluon_in1k", 224, 0.875, Bicubic, IMAGENET),
    published("resnet152", "tv2_in1k", 176, 0.875, Bilinear, IMAGENET),
    published("resnet152", "tv_in1k", 224, 0.875, Bilinear, IMAGENET),
];

impl Architecture for ResNetConfig {
    fn build(&self, params: &Parameters) -> Result<Box<dyn Backbone>> {
        Ok(Box::new(ResNet::new(params, self)?))
    }

    fn with_norm(&self, eps: f32, momentum: f32) -> Option<Arc<dyn Architecture>> {
        Some(Arc::new(Self { eps, momentum, ..*self }))
    }

    fn torchvision(&self) -> Option<Renames> {
        // The same names.
        Some(Renames::new())
    }
}

impl ResNetConfig {
    /// The network with so many convolutions and linear layers on its way: 18, 26, 34, 50, 101 or
    /// 152; `None` for another number.
    pub fn deep(depth: usize) -> Option<Self> {
        let (bottleneck, blocks) = match depth {
            18 => (false, [2, 2, 2, 2]),
            26 => (true, [2, 2, 2, 2]),
            34 => (false, [3, 4, 6, 3]),
            50 => (true, [3, 4, 6, 3]),
            101 => (true, [3, 4, 23, 3]),
            152 => (true, [3, 8, 36, 3]),
            _ => return None,
        };
        let BatchNormOptions { eps, momentum, .. } = BatchNormOptions::default();
        Some(Self {
            channels: 3,
            width: 64,
            blocks,
            bottleneck,
            small: false,
            eps,
            momentum,
            zero_init_last: true,
            drop_rate: 0.0,
            drop_path: 0.0,
        })
    }

    fn norm(&self, activation: Activation) -> BatchNormOptions {
        BatchNormOptions { eps: self.eps, momentum: self.momentum, activation, ..Default::default() }
    }

    fn layer(
        &self,
        params: &Parameters,
        names: [&str; 2],
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        norm: BatchNormOptions,
    ) -> Result<ConvNorm> {
        let init = Some(Init::kaiming_fan_out(outputs.saturating_mul(kernel * kernel)));
        ConvNorm::new(params, names, [inputs, outputs], Conv2dOptions { kernel, stride, init, ..Default::default() }, norm)
    }
}

/// Convolutions around which the input goes, by one of its own where the shape changes.
struct Block {
    first: Vec<ConvNorm>,
    last: ConvNorm,
    shortcut: Option<ConvNorm>,
    /// Where it is `None`, the last batch norm's kernel adds and activates.
    drop_path: Option<DropPath>,
}

impl Block {
    fn new(params: &Parameters, config: &ResNetConfig, [inputs, width]: [usize; 2], stride: usize, number: usize) -> Result<Self> {
        let count = config.blocks.iter().sum::<usize>();
        let rate = config.drop_path * number as f32 / count.saturating_sub(1).max(1) as f32;
        let drop_path = (rate > 0.0).then(|| DropPath::new(params, rate, number as u32));
        let (relu, none) = (config.norm(Activation::Relu), config.norm(Activation::None));
        let behind = if drop_path.is_some() { none } else { relu };
        let weight = if config.zero_init_last { Init::ZEROS } else { Init::ONES };
        let last = BatchNormOptions { weight, ..behind };
        let outputs = if config.bottleneck { 4 * width } else { width };
        // In timm's order, which is that of the state.
        let (first, last) = if config.bottleneck {
            let first = vec![
                config.layer(params, ["conv1", "bn1"], [inputs, width], [1, 1], relu)?,
                config.layer(params, ["conv2", "bn2"], [width, width], [3, stride], relu)?,
            ];
            (first, config.layer(params, ["conv3", "bn3"], [width, outputs], [1, 1], last)?)
        } else {
            let first = vec![config.layer(params, ["conv1", "bn1"], [inputs, width], [3, stride], relu)?];
            (first, config.layer(params, ["conv2", "bn2"], [width, outputs], [3, 1], last)?)
        };
        let shortcut = (stride != 1 || inputs != outputs)
            .then(|| config.layer(params, ["downsample.0", "downsample.1"], [inputs, outputs], [1, stride], none))
            .transpose()?;
        Ok(Self { first, last, shortcut, drop_path })
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let inside = self.first.iter().try_fold(x.clone(), |y, layer| layer.forward(&y, mode))?;
        let identity = self.shortcut.as_ref().map_or(Ok(x.clone()), |shortcut| shortcut.forward(x, mode))?;
        match &self.drop_path {
            None => self.last.forward_residual(&inside, Some(&identity), mode),
            Some(drop_path) => drop_path.forward(&self.last.forward(&inside, mode)?, mode)?.add(&identity)?.relu(),
        }
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let inside = self.first.iter().try_fold(input.clone(), |shape, layer| layer.summarize(&shape, summary))?;
        let output = self.last.summarize(&inside, summary)?;
        if let Some(shortcut) = &self.shortcut {
            shortcut.summarize(input, summary)?;
        }
        Ok(output)
    }

    fn fold(&mut self) -> Result<()> {
        self.first.iter_mut().chain([&mut self.last]).chain(&mut self.shortcut).try_for_each(ConvNorm::fold)
    }
}

/// The pooling behind the stem.
const POOL: (usize, usize, usize) = (3, 2, 1);

/// The network without its classifier: images `[N, H, W, C]` to features `[N, D]`.
pub struct ResNet {
    stem: ConvNorm,
    pool: Option<Window>,
    blocks: Blocks<Block>,
    features: usize,
    drop_rate: f32,
}

impl ResNet {
    /// Makes the network in the scope `params`.
    ///
    /// # Errors
    /// Out of memory; a name that is taken with another shape.
    pub fn new(params: &Parameters, config: &ResNetConfig) -> Result<Self> {
        require_share("resnet", "drop_rate", config.drop_rate)?;
        require_share("resnet", "drop_path", config.drop_path)?;
        let ends = [config.channels, config.width];
        let stem =
            config.layer(params, ["conv1", "bn1"], ends, if config.small { [3, 1] } else { [7, 2] }, config.norm(Activation::Relu))?;
        let (mut blocks, mut channels) = (Vec::new(), config.width);
        for (stage, count) in config.blocks.into_iter().enumerate() {
            let width = config.width << stage;
            for index in 0..count {
                let scope = params.scope(format!("layer{}.{index}", stage + 1));
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new(&scope, config, [channels, width], stride, blocks.len())?);
                channels = if config.bottleneck { 4 * width } else { width };
            }
        }
        let (kernel, stride, padding) = POOL;
        let pool = (!config.small).then(|| Window::square(kernel, stride, padding));
        Ok(Self { stem, pool, blocks: blocks.into(), features: channels, drop_rate: config.drop_rate })
    }
}

impl Module for ResNet {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward_features(x, mode)?.global_avg_pool2d()
    }

    fn summarize(&self, input: &Shape, summary: &mut Summary) -> Result<Shape> {
        let mut shape = self.stem.summarize(input, summary)?;
        if self.pool.is_some() {
            // A window of 3 every 2 with a padding of 1 halves, rounded up.
            shape = shape.with(1, shape.dim(1).div_ceil(2)).with(2, shape.dim(2).div_ceil(2));
        }
        let maps = self.blocks.summarize(&shape, summary)?;
        Ok(Shape::from([maps.dim(0), self.features]))
    }

    fn fold(&mut self) -> Result<()> {
        self.stem.fold()?;
        self.blocks.fold()
    }
}

impl Backbone for ResNet {
    fn features(&self) -> usize {
        self.features
    }

    fn forward_features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let x = self.stem.forward(x, mode)?;
        let x = self.pool.map_or(Ok(x.clone()), |window| x.max_pool2d(window))?;
        self.blocks.forward(&x, mode)
    }

    fn set_grad_checkpointing(&mut self, on: bool) -> Result<()> {
        self.blocks.set_checkpoints(on);
        Ok(())
    }

    fn drop_rate(&self) -> f32 {
        self.drop_rate
    }

    fn head(&self) -> &'static str {
        "fc"
    }

    fn head_init(&self, _: usize) -> Option<Init> {
        None
    }
}
