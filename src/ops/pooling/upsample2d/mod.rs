//! Images resampled to another size.

mod launch;
mod ratio;
mod spec;

use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::{Array, Attributes, Backward, Cost, Edges, Operator, apply_one, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// How a pixel between pixels is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpsampleMode {
    /// The pixel before.
    Nearest,
    /// A weighted mean of the four around.
    Bilinear,
    /// Keys' cubic with a = -0.75 of the sixteen around; it may overshoot.
    Bicubic,
}

/// What images are resampled to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Upsample {
    /// Height and width.
    Size([usize; 2]),
    /// Multiples of height and width, rounded down. Pixels lie as far apart as the scale says, not
    /// as the sizes do.
    Scale([f64; 2]),
}

/// x `[N, H, W, C]` resampled along H and W (PyTorch's `interpolate` without antialiasing).
#[derive(Debug, Clone)]
pub struct Upsample2d {
    /// The new size.
    pub to: Upsample,
    /// How pixels are made.
    pub mode: UpsampleMode,
    /// Whether the centres of the corners' pixels lie upon each other, rather than the corners; not
    /// with [`UpsampleMode::Nearest`].
    pub align_corners: bool,
}

impl Upsample2d {
    fn output(&self, x: &Spec) -> Result<Shape> {
        let ([n, _, _, c], [rows, columns]) = self.ratios(x)?;
        Ok(Shape::from([n, rows.size, columns.size, c]))
    }
}

impl Operator for Upsample2d {
    fn name(&self) -> &str {
        "upsample2d"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("upsample2d", inputs)?;
        Ok(vec![Spec::new(self.output(x)?, x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [y]) = (exactly("upsample2d", inputs)?, exactly("upsample2d", outputs)?);
        Ok(vec![launch::forward(self, x, y)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(launch::gradient(self, &step.cotangent(0)?, step.input_spec(0)?)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, _: usize) -> Edges {
        // A tap that weighs 0 is read or not, as in PyTorch.
        Edges::Spread
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        spec::cost(self, inputs, outputs)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let mode = match attributes.text_or("mode", "nearest")? {
        "nearest" => UpsampleMode::Nearest,
        "bilinear" => UpsampleMode::Bilinear,
        "bicubic" => UpsampleMode::Bicubic,
        other => return Err(Error::argument("upsample2d", format!("mode is nearest, bilinear or bicubic, found \"{other}\""))),
    };
    let to = match (attributes.has("size"), attributes.number("scale")) {
        (true, _) => Upsample::Size(attributes.pair("size")?),
        (false, Ok(scale)) => Upsample::Scale([scale; 2]),
        (false, Err(_)) => {
            let scales = attributes.numbers_or("scale", &[])?;
            let wrong = |_| Error::argument("attribute scale", "expected one or two numbers");
            Upsample::Scale(scales.as_slice().try_into().map_err(wrong)?)
        }
    };
    Ok(Box::new(Upsample2d { to, mode, align_corners: attributes.flag("align_corners")? }))
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "upsample2d",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[launch::KERNELS],
        build: Box::new(build),
        samples: Box::new(spec::samples),
        bad: Box::new(spec::bad),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` resampled to another height and width, the corners' centres not
    /// aligned: [`Self::interpolate`].
    ///
    /// # Errors
    /// As [`Self::interpolate`].
    pub fn upsample2d(&self, to: Upsample, mode: UpsampleMode) -> Result<Tensor> {
        self.interpolate(to, mode, false)
    }

    /// Images `[N, H, W, C]` resampled to another height and width (PyTorch's `interpolate`, no
    /// antialiasing).
    ///
    /// # Errors
    /// Other than four axes of floats; sizes of 0; a scale that is not above 0; `align_corners`
    /// with the nearest pixel; out of memory.
    pub fn interpolate(&self, to: Upsample, mode: UpsampleMode, align_corners: bool) -> Result<Tensor> {
        apply_one(Upsample2d { to, mode, align_corners }, &[self])
    }
}
