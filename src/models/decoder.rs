//! What an autoencoder's code becomes an image by: a linear layer to small maps, then maps of twice
//! the side and a convolution, again and again.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::layers::{BatchNormOptions, Conv2dOptions};
use crate::nn::{Conv2d, ConvNorm, Linear, Mode, Module, Parameters};
use crate::ops::activation::Activation;
use crate::ops::pooling::upsample2d::{Upsample, UpsampleMode};
use crate::tensor::Tensor;

/// How a decoder is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageDecoderConfig {
    /// Channels of the smallest maps; larger ones have half as many each time.
    pub width: usize,
    /// How often maps double their sides until they are the image's.
    pub doublings: u32,
}

impl Default for ImageDecoderConfig {
    fn default() -> Self {
        Self { width: 32, doublings: 2 }
    }
}

/// Codes `[N, D]` to images `[N, H, W, C]` of any values.
///
/// Nearest pixels and a convolution instead of a transposed one, whose uneven overlaps make
/// chequerboards (Odena et al. 2016).
pub struct ImageDecoder {
    first: Linear,
    /// Sides of maps, and the layer that makes them.
    layers: Vec<([usize; 2], ConvNorm)>,
    last: Conv2d,
    /// Sides and channels of the smallest maps.
    start: [usize; 3],
    image: [usize; 2],
}

impl ImageDecoder {
    /// Makes `linear`, `conv1`, `bn1` and so on in the scope `params`, for images `[H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for maps without channels, or no doubling at all; out of memory.
    pub fn new(params: &Parameters, features: usize, image: [usize; 3], config: &ImageDecoderConfig) -> Result<Self> {
        let ([height, width, channels], ImageDecoderConfig { width: most, doublings }) = (image, *config);
        if !(1..=8).contains(&doublings) || most >> (doublings - 1) == 0 {
            let message = format!("expected 1 to 8 doublings and a width that can be halved as often, found {config:?}");
            return Err(Error::argument(params.name(), message));
        }
        let sides = |left: u32| [height, width].map(|side| side.div_ceil(1 << left));
        let norm = BatchNormOptions { activation: Activation::Relu, ..Default::default() };
        let layer = |number: u32| {
            let ends = [most >> (number - 1), most >> number];
            let names = [format!("conv{number}"), format!("bn{number}")];
            let [conv, bn] = names.each_ref().map(String::as_str);
            Ok((sides(doublings - number), ConvNorm::new(params, [conv, bn], ends, Conv2dOptions::default(), norm)?))
        };
        let [h, w] = sides(doublings);
        let first = Linear::new(params, "linear", features, most.saturating_mul(h * w))?;
        let layers = (1..doublings).map(layer).collect::<Result<_>>()?;
        let convolution = Conv2dOptions { bias: true, ..Default::default() };
        let last = Conv2d::new(params, &format!("conv{doublings}"), most >> (doublings - 1), channels, convolution)?;
        Ok(Self { first, layers, last, start: [h, w, most], image: [height, width] })
    }

    /// The images of a batch of codes.
    ///
    /// # Errors
    /// Those of its operators.
    pub fn forward(&self, codes: &Tensor, mode: Mode) -> Result<Tensor> {
        let [h, w, c] = self.start;
        let larger = |x: &Tensor, sides| x.upsample2d(Upsample::Size(sides), UpsampleMode::Nearest);
        let x = self.first.forward(codes, mode)?.relu()?.reshape(&[codes.shape().dim(0), h, w, c])?;
        let x = self.layers.iter().try_fold(x, |x, (sides, layer)| layer.forward(&larger(&x, *sides)?, mode))?;
        self.last.forward(&larger(&x, self.image)?, mode)
    }
}
