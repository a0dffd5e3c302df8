//! The second stage of the global gradient norm: clipping, loss scaling, and steps that must not be
//! taken, all on the device.

use super::norms::{self, NORMS, lanes, settled};
use super::slab::{CONTROL, Scalars, check};
use crate::error::{Error, Result};
use crate::gpu::{Launch, rounds};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Edges, Operator, apply_one, require_f32};
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "clip_norm";

/// Slabs that one norm may span: as many as bindings allow.
const SLABS: usize = 4;

/// From `scalars`, the counter `skipped` i32 `[1]` and the partial sums of one to four slabs (f32
/// [parts, 2], see `square_sums`) to what the updates read, f32 `[7]`: the norm of all gradients
/// after gradient_scale; the factor gradient_scale * min(1, max_norm / (norm + 1e-6)) (PyTorch's
/// clip_grad_norm_; max_norm 0 clips nothing); 1, or 0 where not all gradients are finite: then the
/// updates leave everything as it is and `skipped` rises by one; the factor of all weight decays;
/// what the second number must be multiplied by, 1 unless it is too small for f32; and 1 - beta^n of
/// both `betas` at the n-th step that is taken (`scalars` has them where none was skipped).
#[derive(Debug, Clone)]
pub struct ClipNorm {
    /// Decay rates of Adam's averages; 0 where there are none.
    pub betas: [f32; 2],
}

impl ClipNorm {
    /// ln beta. Below e^-100 there is nothing left that f32 could tell from 0.
    fn logarithms(&self) -> [f32; 2] {
        self.betas.map(|beta| f64::from(beta).ln().max(-100.0) as f32)
    }
}

fn split<T>(inputs: &[T]) -> Result<(&[T], &T, &T)> {
    match inputs {
        [scalars, skipped, partials @ ..] if (1..=SLABS).contains(&partials.len()) => Ok((partials, scalars, skipped)),
        _ => Err(Error::shape(
            NAME,
            format!("it takes scalars, a counter, and the partial sums of 1 to {SLABS} slabs; {} inputs were given", inputs.len()),
        )),
    }
}

impl Operator for ClipNorm {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (partials, scalars, skipped) = split(inputs)?;
        for spec in partials {
            require_f32(NAME, "partials", spec)?;
            if spec.shape.rank() != 2 || spec.shape.dim(1) != 2 {
                return Err(Error::shape(NAME, format!("partials must be [parts, 2], found {}", spec.shape)));
            }
        }
        check(NAME, "scalars", scalars, [Scalars::LENGTH])?;
        if skipped.dtype != DType::I32 || skipped.shape.numel() != 1 {
            return Err(Error::dtype(NAME, format!("skipped must be i32 [1], found {skipped}")));
        }
        Ok(vec![Spec::f32([CONTROL])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let (partials, scalars, skipped) = split(inputs)?;
        let gpu = scalars.gpu();
        let control = Tensor::empty(gpu, [CONTROL], DType::F32)?;
        let counts = (0..partials.len()).map(|slab| format!("count{slab}: u32"));
        let declared: Vec<String> = counts.chain(["log_beta1: f32, log_beta2: f32".to_string()]).collect();
        let mut launch = Launch::new(gpu, &NORMS, "clip")
            .define("ENTRY", "clip")
            .define("LANES", lanes(gpu))
            .define("SLABS", partials.len())
            .define("PARAMS", declared.join(", "));
        for slab in partials {
            launch = launch.read(*slab);
        }
        let counts = partials.iter().map(|slab| slab.shape().dim(0).into());
        let params: Vec<crate::gpu::Param> = counts.chain(self.logarithms().map(Into::into)).collect();
        let each = |slab: &Tensor| rounds(slab.shape().dim(0).div_ceil(lanes(gpu) as usize), 0);
        let walk = partials.iter().map(|slab| each(slab)).sum::<usize>() + rounds(16, 0);
        launch.read(*scalars).write(&control).write(*skipped).params(&params).walk(walk).groups(1)?;
        Ok(vec![control])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![1]
    }

    fn edges(&self, input: usize) -> Edges {
        // Partial sums have exponents.
        if input < 2 { Edges::All } else { Edges::None }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (partials, scalars, skipped) = split(inputs)?;
        let scale = scalars.flat(5);
        let sums = partials.iter().flat_map(|slab| slab.data.chunks_exact(2));
        let sum: f64 = sums.map(|sum| if let [m, e] = sum { m * 4f64.powf(*e) } else { f64::NAN }).sum();
        let norm = sum.sqrt() * scale;
        let largest = scalars.flat(3);
        let factor = if largest > 0.0 { (largest / (norm + 1e-6)).min(1.0) } else { 1.0 };
        // Two factors where one were near the least number of f32.
        let first = if sum > f64::from(f32::MAX) && factor < 2f64.powi(-60) { 2f64.powi(-80) } else { factor };
        let ok = f64::from(u8::from(norm.is_finite()));
        let first_or_none = if norm.is_finite() { scale * first } else { 0.0 };
        let second = if first == factor || ok == 0.0 { 1.0 } else { factor / first };
        let before = skipped.flat(0);
        let taken = scalars.flat(7) - before;
        let [beta1, beta2] = self.betas.map(f64::from);
        let correction = |i: usize, beta: f64| if before == 0.0 { scalars.flat(i) } else { 1.0 - beta.powf(taken) };
        let control = vec![norm, first_or_none, ok, scalars.flat(6), second, correction(1, beta1), correction(2, beta2)];
        Ok(vec![Array::new([CONTROL], control), Array::integers([1], vec![before + 1.0 - ok])])
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let beta = |name: &str| attributes.number_or(name, 0.0).map(|v| v as f32);
    Ok(Box::new(ClipNorm { betas: [beta("beta1")?, beta("beta2")?] }))
}

fn samples() -> Vec<Sample> {
    let after = |skipped: f64, betas: [f32; 2], max_norm: f32, gradient_scale: f32, slabs: &[Input]| {
        let scalars = Scalars {
            bias_correction1: 0.75.into(),
            bias_correction2: 0.625.into(),
            max_norm: max_norm.into(),
            gradient_scale: gradient_scale.into(),
            weight_decay: 0.5.into(),
            step: 12.0.into(),
            ..Scalars::default()
        };
        let scalars = scalars.to_array();
        let mut inputs = vec![
            Input::Values(Array::new([Scalars::LENGTH], scalars.map(|s| f64::from(s.get())).to_vec())),
            Input::Values(Array::integers([1], vec![skipped])),
        ];
        inputs.extend_from_slice(slabs);
        Sample::new(ClipNorm { betas }, inputs)
    };
    let on = |max_norm: f32, gradient_scale: f32, slabs: &[Input]| after(3.0, [0.9, 0.999], max_norm, gradient_scale, slabs);
    let partials = |sums: &[f64]| Input::Values(Array::new([sums.len(), 2], sums.iter().flat_map(|sum| settled(*sum)).collect()));
    let sums = |n: usize| partials(&(0..n).map(|i| (i * 37 % 101) as f64 / 25.0).collect::<Vec<_>>());
    let with = |value: f64| partials(&[1.0, value, 2.0]);
    vec![
        on(0.0, 1.0, &[sums(1)]),
        on(0.5, 1.0, &[sums(65)]),
        on(1e6, 0.25, &[sums(33), sums(7)]),
        on(0.5, 0.125, &[sums(5), sums(1), sums(3), sums(1000)]),
        on(0.5, 1.0, &[partials(&[0.0])]),
        // What f32 cannot hold: sums beyond its range, and the squares of what is almost nothing.
        on(0.5, 0.5, &[with(1e40), sums(2)]),
        on(0.5, 1.0, &[with(1e60), with(1e75)]),
        on(0.5, 1.0, &[partials(&[1e-60, 2e-60]), partials(&[3e-50])]),
        on(0.5, 1.0, &[with(f64::NAN)]),
        on(0.0, 1.0, &[with(f64::INFINITY)]),
        after(0.0, [0.9, 0.999], 0.0, 1.0, &[sums(1)]),
        after(7.0, [0.0, 0.5], 0.0, 1.0, &[sums(1)]),
    ]
}

fn bad() -> Vec<Bad> {
    let clip = || ClipNorm { betas: [0.9, 0.999] };
    let counter = || indices([1], 1);
    let scalars = || normal([Scalars::LENGTH]);
    vec![
        Bad::new(clip(), [scalars(), counter()], "1 to 4 slabs"),
        Bad::new(clip(), [normal([2]), counter(), normal([3, 2])], "scalars must have shape [8]"),
        Bad::new(clip(), [scalars(), normal([1]), normal([3, 2])], "skipped must be i32"),
        Bad::new(clip(), [scalars(), counter(), indices([3, 2], 2)], "partials must be f32"),
        Bad::new(clip(), [scalars(), counter(), normal([3])], "partials must be [parts, 2]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["scalars", "skipped", "partials0", "partials1", "partials2", "partials3"],
        outputs: &["control"],
        kernels: &[norms::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

/// What the updates of one step read, from the (gradients, segments, table) of every slab: the norm
/// over all of them, clipped and checked; `betas` are those of [`ClipNorm`].
///
/// # Errors
/// Shapes that do not fit; more than four slabs.
pub fn clip_norm(slabs: &[[&Tensor; 3]], scalars: &Tensor, skipped: &Tensor, betas: [f32; 2]) -> Result<Tensor> {
    let partials = slabs.iter().map(|slab| apply_one(super::square_sums::SquareSums, slab)).collect::<Result<Vec<Tensor>>>()?;
    let inputs: Vec<&Tensor> = [scalars, skipped].into_iter().chain(&partials).collect();
    apply_one(ClipNorm { betas }, &inputs)
}
