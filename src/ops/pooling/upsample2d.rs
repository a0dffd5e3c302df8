//! Images resampled to another size.

use super::window::{float_images, vec};
use crate::error::{Error, Result};
use crate::gpu::{Launch, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Edges, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor, check_sizes};

kernels!(UPSAMPLE = "pooling/upsample2d");

/// The largest denominator of a scale that is taken to be a fraction exactly.
const DENOMINATOR: usize = 1024;
/// How far the last position of another scale may be off, in pixels.
const OFF: f64 = 1e-5;

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
    /// Multiples of height and width, rounded down. Pixels lie as far apart as the scale says, not as the sizes do.
    Scale([f64; 2]),
}

/// x `[N, H, W, C]` resampled along H and W (PyTorch's `interpolate` without antialiasing).
#[derive(Debug, Clone)]
pub struct Upsample2d {
    /// The new size.
    pub to: Upsample,
    /// How pixels are made.
    pub mode: UpsampleMode,
    /// Whether the centres of the corners' pixels lie upon each other, rather than the corners; not with [`UpsampleMode::Nearest`].
    pub align_corners: bool,
}

/// The best approximation of a number by a fraction of two numbers up to `most`, by its continued fraction.
fn fraction(number: f64, most: f64) -> Option<(usize, usize)> {
    let (mut before, mut now, mut rest) = ((0.0, 1.0), (1.0, 0.0), number);
    let mut best = None;
    for _ in 0..64 {
        let whole = rest.floor();
        let next = (whole * now.0 + before.0, whole * now.1 + before.1);
        if next.0 > most || next.1 > most {
            break;
        }
        (before, now) = (now, next);
        best = Some((now.0 as usize, now.1 as usize));
        if rest - whole < 1e-12 {
            break;
        }
        rest = 1.0 / (rest - whole);
    }
    best
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

    /// An axis that stays as it is.
    fn same(size: usize) -> Self {
        Self { size, num: 1, den: 1 }
    }

    /// New pixels that are looked at for one of `from` old ones, at most (`readers` of the shader).
    fn readers(&self, from: usize, reach: usize) -> usize {
        if from == 1 || self.num == 0 { self.size } else { self.size.min((2 * reach * self.den).div_ceil(self.num) + 5) }
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
            if !(scale > 0.0 && scale < 1e6) {
                return Err(Error::argument("upsample2d", format!("a scale must lie between 0 and 1e6, found {scale}")));
            }
            let exact = |num: &usize| (scale * *num as f64 - (scale * *num as f64).round()).abs() < 1e-9;
            if let Some(num) = (1..=DENOMINATOR).find(exact) {
                let den = (scale * num as f64).round() as usize;
                return Ok(Ratio::reduced(from * den / num, num, den));
            }
            let size = (from as f64 * scale).floor() as usize;
            let most = f64::from(u32::MAX) / (2.0 * size.max(from) as f64 + 9.0);
            let close = |(num, den): &(usize, usize)| (*num as f64 / *den as f64 - 1.0 / scale).abs() * (size as f64) < OFF;
            let wrong =
                || Error::argument("upsample2d", format!("scale {scale} of {from} pixels is too fine for 32 bits; give the size instead"));
            let (num, den) = fraction(1.0 / scale, most).filter(close).ok_or_else(wrong)?;
            Ok::<Ratio, Error>(Ratio { size, num, den })
        };
        let mut ratios = match self.to {
            Upsample::Size([oh, ow]) => [Ratio::reduced(oh, h, oh), Ratio::reduced(ow, w, ow)],
            Upsample::Scale([sh, sw]) => [scaled(h, sh)?, scaled(w, sw)?],
        };
        if self.align_corners {
            if self.mode == UpsampleMode::Nearest {
                return Err(Error::argument(
                    "upsample2d",
                    "align_corners goes with bilinear and bicubic, the nearest pixel has no corners",
                ));
            }
            for (ratio, from) in ratios.iter_mut().zip([h, w]) {
                *ratio = Ratio::reduced(ratio.size, from.saturating_sub(1), ratio.size.saturating_sub(1).max(1));
                // One pixel lies upon the first.
                ratio.num = if ratio.size == 1 { 0 } else { ratio.num };
            }
        }
        let wrong = |rule: &str| Err(Error::shape("upsample2d", format!("images {} cannot become {:?}: {rule}", x.shape, self.to)));
        if h * w == 0 || ratios.iter().any(|r| r.size == 0) {
            return wrong("both need pixels");
        }
        let margin = if self.mode == UpsampleMode::Bicubic { 8 } else { 3 };
        if ratios.iter().zip([h, w]).any(|(r, from)| u32::try_from((2 * r.size.max(from) + margin) * r.num.max(r.den)).is_err()) {
            return wrong("the sizes are too large for positions of 32 bits");
        }
        Ok((shape, ratios))
    }

    fn output(&self, x: &Spec) -> Result<Shape> {
        let ([n, _, _, c], [rows, columns]) = self.ratios(x)?;
        Ok(Shape::from([n, rows.size, columns.size, c]))
    }

    /// Rounds of the gradient of a pixel.
    fn reach(&self, [h, w]: [usize; 2], [rows, columns]: [Ratio; 2]) -> usize {
        let reach = if self.mode == UpsampleMode::Bicubic { 2 } else { 1 };
        rounds(rows.readers(h, reach), rounds(columns.readers(w, reach), 0))
    }

    /// For an x of `sides` that become `ratios`.
    fn launch(&self, entry: &str, from: &Tensor, to: &Tensor, [h, w]: [usize; 2], [rows, columns]: [Ratio; 2]) -> Result<()> {
        let c = to.shape().last();
        let v = vec(c);
        let n = to.numel() / v;
        let between = self.mode != UpsampleMode::Nearest;
        Launch::new(from.gpu(), &UPSAMPLE, entry)
            .storage(to.dtype().storage())
            .define("VEC", v)
            .define("CUBIC", self.mode == UpsampleMode::Bicubic)
            .read(from)
            .write(to)
            .params(params![
                n,
                h,
                w,
                rows.size,
                columns.size,
                c / v,
                rows.num,
                rows.den,
                columns.num,
                columns.den,
                between,
                self.align_corners
            ])
            .walk(if entry == "forward" { 0 } else { self.reach([h, w], [rows, columns]) })
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
        let ([_, h, w, _], ratios) = self.ratios(x.spec())?;
        self.launch("forward", x, &y, [h, w], ratios)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, spec) = (step.cotangent(0)?, step.input_spec(0)?);
        let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
        let ([n, h, w, c], [rows, columns]) = self.ratios(spec)?;
        if dy.gpu().capabilities().may_walk_exactly(self.reach([h, w], [rows, columns])) {
            self.launch("backward", &dy, &dx, [h, w], [rows, columns])?;
        } else {
            // The weights of a pixel are those of its row times those of its column, so the axes can be summed one after the other.
            let narrow = Tensor::empty(dy.gpu(), [n, rows.size, w, c], spec.dtype)?;
            self.launch("backward", &dy, &narrow, [rows.size, w], [Ratio::same(rows.size), columns])?;
            self.launch("backward", &narrow, &dx, [h, w], [rows, Ratio::same(w)])?;
        }
        Ok(vec![Some(dx)])
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
        let [x] = exactly("upsample2d", inputs)?;
        let ([_, h, w, _], [rows, columns]) = self.ratios(&Spec::f32(&x.shape))?;
        let taps = |o: usize, ratio: Ratio, size: usize| -> Vec<(usize, f64)> {
            let step = ratio.num as f64 / ratio.den as f64;
            if self.mode == UpsampleMode::Nearest {
                return vec![((o * ratio.num / ratio.den).min(size - 1), 1.0)];
            }
            let s = if self.align_corners { o as f64 * step } else { (o as f64 + 0.5) * step - 0.5 };
            let kernel = |d: f64| match (self.mode, d.abs()) {
                (UpsampleMode::Bicubic, d) if d <= 1.0 => 1.25 * d.powi(3) - 2.25 * d.powi(2) + 1.0,
                (UpsampleMode::Bicubic, d) if d < 2.0 => -0.75 * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
                (UpsampleMode::Bicubic, _) => 0.0,
                (_, d) => (1.0 - d).max(0.0),
            };
            let s = if self.mode == UpsampleMode::Bicubic { s } else { s.max(0.0) };
            let around = s.floor() as isize - 1..=s.floor() as isize + 2;
            around.map(|i| (i.clamp(0, size as isize - 1) as usize, kernel(s - i as f64))).filter(|(_, weight)| *weight != 0.0).collect()
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
        let flops = match self.mode {
            UpsampleMode::Nearest => 0.0,
            UpsampleMode::Bilinear => 9.0,
            UpsampleMode::Bicubic => 40.0,
        };
        Cost::streaming(inputs, outputs, flops)
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

fn size(to: [usize; 2], mode: UpsampleMode) -> Upsample2d {
    Upsample2d { to: Upsample::Size(to), mode, align_corners: false }
}

fn scale(by: f64, mode: UpsampleMode) -> Upsample2d {
    Upsample2d { to: Upsample::Scale([by; 2]), mode, align_corners: false }
}

fn aligned(operator: Upsample2d) -> Upsample2d {
    Upsample2d { align_corners: true, ..operator }
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for mode in [UpsampleMode::Nearest, UpsampleMode::Bilinear, UpsampleMode::Bicubic] {
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
            Sample::new(scale(std::f64::consts::SQRT_2, mode), [normal([1, 5, 7, 3])]),
            Sample::new(scale(0.618_033_988, mode), [normal([1, 9, 8, 4])]),
        ]);
        if mode != UpsampleMode::Nearest {
            samples.extend([
                Sample::new(aligned(size([7, 9], mode)), [normal([2, 5, 6, 3])]),
                Sample::new(aligned(size([3, 2], mode)), [normal([1, 5, 6, 4])]),
                Sample::new(aligned(size([1, 4], mode)), [normal([1, 3, 1, 1])]),
                Sample::new(aligned(scale(1.7, mode)), [normal([1, 4, 7, 2])]),
                Sample::new(aligned(size([5, 5], mode)), [normal([1, 5, 5, 1])]),
            ]);
        }
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
        Bad::new(scale(f64::NAN, mode), [normal([1, 4, 4, 3])], "a scale must lie between 0 and 1e6"),
        Bad::new(scale(-1.0, mode), [normal([1, 4, 4, 3])], "a scale must lie between 0 and 1e6"),
        Bad::new(aligned(size([4, 4], UpsampleMode::Nearest)), [normal([1, 4, 4, 3])], "align_corners goes with bilinear and bicubic"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "upsample2d",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Images `[N, H, W, C]` resampled to another height and width, the corners' centres not aligned: [`Self::interpolate`].
    ///
    /// # Errors
    /// As [`Self::interpolate`].
    pub fn upsample2d(&self, to: Upsample, mode: UpsampleMode) -> Result<Tensor> {
        self.interpolate(to, mode, false)
    }

    /// Images `[N, H, W, C]` resampled to another height and width (PyTorch's `interpolate`, no antialiasing).
    ///
    /// # Errors
    /// Other than four axes of floats; sizes of 0; a scale that is not above 0; `align_corners` with the nearest pixel; out of memory.
    pub fn interpolate(&self, to: Upsample, mode: UpsampleMode, align_corners: bool) -> Result<Tensor> {
        apply_one(Upsample2d { to, mode, align_corners }, &[self])
    }
}
