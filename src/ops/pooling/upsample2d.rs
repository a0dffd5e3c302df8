//! Images resampled to another size.

use super::window::{float_images, vec};
use crate::error::{Error, Result};
use crate::gpu::{Kernel, Launch, kernel};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor, check_sizes};

static UPSAMPLE: Kernel = kernel!("pooling/upsample2d");

/// The largest denominator of a scale.
const DENOMINATOR: usize = 1024;

/// How a pixel between pixels is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpsampleMode {
    /// The pixel before.
    Nearest,
    /// A weighted mean of the four around, with the corners' centres not aligned.
    Bilinear,
}

/// What images are resampled to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Upsample {
    /// Height and width.
    Size([usize; 2]),
    /// Multiples of height and width, rounded down: whole numbers or fractions such as 1.5.
    Scale([f64; 2]),
}

/// x `[N, H, W, C]` resampled along H and W (PyTorch's `interpolate` with `align_corners` false).
#[derive(Debug, Clone)]
pub struct Upsample2d {
    /// The new size.
    pub to: Upsample,
    /// How pixels are made.
    pub mode: UpsampleMode,
}

/// One axis: the new size, and the ratio of old to new size.
#[derive(Debug, Clone, Copy)]
struct Ratio {
    size: usize,
    num: usize,
    den: usize,
}

impl Ratio {
    fn reduced(size: usize, num: usize, den: usize) -> Self {
        let (mut a, mut b) = (num, den);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        Self { size, num: num / a.max(1), den: den / a.max(1) }
    }
}

impl Upsample2d {
    fn ratios(&self, x: &Spec) -> Result<([usize; 4], [Ratio; 2])> {
        let shape @ [_, h, w, _] = float_images("upsample2d", x)?;
        check_sizes("upsample2d", "an image's side", [h, w])?;
        if let Upsample::Size(size) = self.to {
            check_sizes("upsample2d", "an image's side", size)?;
        }
        let scaled = |from: usize, scale: f64| {
            let exact = |num: &usize| (scale * *num as f64 - (scale * *num as f64).round()).abs() < 1e-9;
            let num = (1..=DENOMINATOR).find(exact).filter(|_| scale > 0.0 && scale < 1e6);
            let wrong = || format!("scale {scale} is no fraction with a denominator up to {DENOMINATOR}; give the size instead");
            let num = num.ok_or_else(|| Error::argument("upsample2d", wrong()))?;
            let den = (scale * num as f64).round() as usize;
            Ok::<Ratio, Error>(Ratio::reduced(from * den / num, num, den))
        };
        let ratios = match self.to {
            Upsample::Size([oh, ow]) => [Ratio::reduced(oh, h, oh), Ratio::reduced(ow, w, ow)],
            Upsample::Scale([sh, sw]) => [scaled(h, sh)?, scaled(w, sw)?],
        };
        let wrong = |rule: &str| Err(Error::shape("upsample2d", format!("images {} cannot become {:?}: {rule}", x.shape, self.to)));
        if h * w == 0 || ratios.iter().any(|r| r.size == 0) {
            return wrong("both need pixels");
        }
        if ratios.iter().zip([h, w]).any(|(r, from)| u32::try_from((2 * r.size + 3).max(2 * from + 3) * r.num.max(r.den)).is_err()) {
            return wrong("the sizes are too large for positions of 32 bits");
        }
        Ok((shape, ratios))
    }

    fn output(&self, x: &Spec) -> Result<Shape> {
        let ([n, _, _, c], [rows, columns]) = self.ratios(x)?;
        Ok(Shape::from([n, rows.size, columns.size, c]))
    }

    /// For an x like `spec`.
    fn launch(&self, entry: &str, from: &Tensor, to: &Tensor, spec: &Spec) -> Result<()> {
        let ([_, h, w, c], [rows, columns]) = self.ratios(spec)?;
        let v = vec(c);
        let n = to.elements() / v;
        let bilinear = self.mode == UpsampleMode::Bilinear;
        Launch::new(from.gpu(), &UPSAMPLE, entry)
            .storage(spec.dtype.storage())
            .define("VEC", v)
            .read(from)
            .write(to)
            .params(params![n, h, w, rows.size, columns.size, c / v, rows.num, rows.den, columns.num, columns.den, bilinear])
            .invocations(n)
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
        let ([x], [spec]) = (exactly("upsample2d", inputs)?, exactly("upsample2d", outputs)?);
        let y = Tensor::empty(x.gpu(), &spec.shape, spec.dtype)?;
        self.launch("forward", x, &y, x.spec())?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, spec) = (step.cotangent(0)?, step.input_spec(0)?);
        let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
        self.launch("backward", &dy, &dx, spec)?;
        Ok(vec![Some(dx)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("upsample2d", inputs)?;
        let ([_, h, w, _], [rows, columns]) = self.ratios(&Spec::f32(&x.shape))?;
        let taps = |o: usize, ratio: Ratio, size: usize| -> [(usize, f64); 2] {
            let step = ratio.num as f64 / ratio.den as f64;
            if self.mode == UpsampleMode::Nearest {
                return [((o * ratio.num / ratio.den).min(size - 1), 1.0), (0, 0.0)];
            }
            let s = ((o as f64 + 0.5) * step - 0.5).max(0.0);
            let first = (s.floor() as usize).min(size - 1);
            let share = s - first as f64;
            [(first, 1.0 - share), ((first + 1).min(size - 1), share)]
        };
        Ok(vec![Array::from_fn(self.output(&Spec::f32(&x.shape))?, |at| {
            let [n, i, j, c] = <[usize; 4]>::try_from(at).unwrap_or_default();
            let mut sum = 0.0;
            for (r, weight_r) in taps(i, rows, h) {
                for (q, weight_q) in taps(j, columns, w) {
                    sum += weight_r * weight_q * x.at(&[n, r, q, c]);
                }
            }
            sum
        })])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let flops = if self.mode == UpsampleMode::Bilinear { 9.0 } else { 0.0 };
        Cost::streaming(inputs, outputs, flops)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    if attributes.flag("align_corners")? {
        return Err(Error::argument("upsample2d", "align_corners is not supported: only false is"));
    }
    let mode = match attributes.text_or("mode", "nearest")? {
        "nearest" => UpsampleMode::Nearest,
        "bilinear" => UpsampleMode::Bilinear,
        other => return Err(Error::argument("upsample2d", format!("mode is nearest or bilinear, found \"{other}\""))),
    };
    let to = match (attributes.has("size"), attributes.number("scale")) {
        (true, _) => Upsample::Size(attributes.pair("size")?),
        (false, Ok(scale)) => Upsample::Scale([scale; 2]),
        (false, Err(_)) => Upsample::Scale(attributes.pair("scale")?.map(|s| s as f64)),
    };
    Ok(Box::new(Upsample2d { to, mode }))
}

fn size(to: [usize; 2], mode: UpsampleMode) -> Upsample2d {
    Upsample2d { to: Upsample::Size(to), mode }
}

fn scale(by: f64, mode: UpsampleMode) -> Upsample2d {
    Upsample2d { to: Upsample::Scale([by; 2]), mode }
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for mode in [UpsampleMode::Nearest, UpsampleMode::Bilinear] {
        samples.extend([
            Sample::new(size([7, 9], mode), [normal([2, 5, 6, 3])]),
            Sample::new(size([3, 2], mode), [normal([2, 5, 6, 4])]),
            Sample::new(size([1, 33], mode), [normal([1, 3, 1, 1])]),
            Sample::new(size([7, 65], mode), [normal([1, 1, 5, 8])]),
            Sample::new(scale(2.0, mode), [normal([1, 4, 5, 4])]),
            Sample::new(scale(1.5, mode), [normal([1, 5, 3, 5])]),
            Sample::new(scale(0.5, mode), [normal([1, 7, 5, 3])]),
            Sample::new(scale(1.0 / 3.0, mode), [normal([1, 7, 10, 1])]),
            Sample::new(scale(1.0, mode), [normal([1, 3, 3, 1])]),
            Sample::new(scale(2.0, mode), [normal([0, 3, 3, 1])]),
        ]);
    }
    samples
}

fn bad() -> Vec<Bad> {
    let mode = UpsampleMode::Bilinear;
    vec![
        Bad::new(size([4, 4], mode), [normal([4, 4, 3])], "x must be images [N, H, W, C]"),
        Bad::new(size([4, 4], mode), [indices([1, 4, 4, 3], 5)], "x must hold floats"),
        Bad::new(size([0, 4], mode), [normal([1, 4, 4, 3])], "both need pixels"),
        Bad::new(scale(0.1, mode), [normal([1, 4, 4, 3])], "both need pixels"),
        Bad::new(scale(std::f64::consts::PI, mode), [normal([1, 4, 4, 3])], "give the size instead"),
        Bad::new(scale(-1.0, mode), [normal([1, 4, 4, 3])], "give the size instead"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "upsample2d",
        family: "pooling",
        inputs: &["x"],
        outputs: &["y"],
        shaders: &["pooling/upsample2d"],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` resampled to another height and width (PyTorch's `interpolate`, `align_corners` false, no antialiasing).
    ///
    /// # Errors
    /// Other than four axes of floats; sizes of 0; a scale that is no simple fraction; out of memory.
    pub fn upsample2d(&self, to: Upsample, mode: UpsampleMode) -> Result<Tensor> {
        apply_one(Upsample2d { to, mode }, &[self])
    }
}
