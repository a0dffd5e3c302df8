//! The second stage of the global gradient norm: clipping, loss scaling, and steps that must not be taken, all on the device.

use super::slab::{Scalars, check, lanes};
use crate::error::{Error, Result};
use crate::gpu::{Kernel, Launch, kernel};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, uniform};
use crate::ops::{Array, Operator, apply_one, require_f32};
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "clip_norm";
static KERNEL: Kernel = kernel!("optimizer/norms");

/// Slabs that one norm may span: as many as bindings allow.
const SLABS: usize = 4;

/// From `scalars`, the counter `skipped` i32 `[1]` and the partial sums of one to four slabs to what the updates read, f32 `[4]`: the norm of
/// all gradients after gradient_scale; the factor gradient_scale * min(1, max_norm / (norm + 1e-6)) (PyTorch's clip_grad_norm_; max_norm 0
/// clips nothing); 1, or 0 where the norm is not finite: then the updates leave everything as it is and `skipped` rises by one; and the factor
/// of all weight decays.
#[derive(Debug, Clone)]
pub struct ClipNorm;

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
        }
        check(NAME, "scalars", scalars, [Scalars::LENGTH])?;
        if skipped.dtype != DType::I32 || skipped.shape.elements() != 1 {
            return Err(Error::dtype(NAME, format!("skipped must be i32 [1], found {skipped}")));
        }
        Ok(vec![Spec::f32([4])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let (partials, scalars, skipped) = split(inputs)?;
        let gpu = scalars.gpu();
        let control = Tensor::empty(gpu, [4], DType::F32)?;
        let counts: Vec<String> = (0..partials.len()).map(|slab| format!("count{slab}: u32")).collect();
        let mut launch = Launch::new(gpu, &KERNEL, "clip")
            .define("ENTRY", "clip")
            .define("LANES", lanes(gpu))
            .define("SLABS", partials.len())
            .define("COUNTS", counts.join(", "));
        for slab in partials {
            launch = launch.read(*slab);
        }
        let counts: Vec<crate::gpu::Param> = partials.iter().map(|slab| slab.elements().into()).collect();
        launch.read(*scalars).write(&control).write(*skipped).params(&counts).groups(1)?;
        Ok(vec![control])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let (partials, scalars, skipped) = split(inputs)?;
        let scale = scalars.flat(5);
        let norm = partials.iter().flat_map(|slab| &slab.data).sum::<f64>().sqrt() * scale;
        let largest = scalars.flat(3);
        let factor = if largest > 0.0 { scale * (largest / (norm + 1e-6)).min(1.0) } else { scale };
        let taken = if norm.is_finite() { [factor, 1.0] } else { [0.0, 0.0] };
        let [factor, ok] = taken;
        Ok(vec![Array::new([4], vec![norm, factor, ok, scalars.flat(6)]), Array::integers([1], vec![skipped.flat(0) + 1.0 - ok])])
    }
}

fn samples() -> Vec<Sample> {
    let on = |max_norm: f32, gradient_scale: f32, slabs: &[Input]| {
        let scalars =
            Scalars { max_norm: max_norm.into(), gradient_scale: gradient_scale.into(), weight_decay: 0.5.into(), ..Scalars::default() };
        let scalars = scalars.to_array();
        let mut inputs = vec![
            Input::Values(Array::new([Scalars::LENGTH], scalars.map(|s| f64::from(s.get())).to_vec())),
            Input::Values(Array::integers([1], vec![3.0])),
        ];
        inputs.extend_from_slice(slabs);
        Sample::new(ClipNorm, inputs)
    };
    let sums = |n: usize| uniform([n], 0.0, 4.0);
    let with = |value: f64| Input::Values(Array::new([3], vec![1.0, value, 2.0]));
    vec![
        on(0.0, 1.0, &[sums(1)]),
        on(0.5, 1.0, &[sums(65)]),
        on(1e6, 0.25, &[sums(33), sums(7)]),
        on(0.5, 0.125, &[sums(5), sums(1), sums(3), sums(1000)]),
        on(0.5, 1.0, &[Input::Values(Array::zeros([1]))]),
        on(0.5, 1.0, &[with(f64::NAN)]),
        on(0.0, 1.0, &[with(f64::INFINITY)]),
    ]
}

fn bad() -> Vec<Bad> {
    let counter = || indices([1], 1);
    let scalars = || normal([Scalars::LENGTH]);
    vec![
        Bad::new(ClipNorm, [scalars(), counter()], "1 to 4 slabs"),
        Bad::new(ClipNorm, [normal([2]), counter(), normal([3])], "scalars must have shape [8]"),
        Bad::new(ClipNorm, [scalars(), normal([1]), normal([3])], "skipped must be i32"),
        Bad::new(ClipNorm, [scalars(), counter(), indices([3], 2)], "partials must be f32"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        family: "optimizer",
        inputs: &["scalars", "skipped", "partials0", "partials1", "partials2", "partials3"],
        outputs: &["control"],
        shaders: &["optimizer/norms"],
        build: Box::new(|_| Ok(Box::new(ClipNorm))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

/// What the updates of one step read, from the (gradients, segments, table) of every slab: the norm over all of them, clipped and checked.
///
/// # Errors
/// Shapes that do not fit; more than four slabs.
pub fn clip_norm(slabs: &[[&Tensor; 3]], scalars: &Tensor, skipped: &Tensor) -> Result<Tensor> {
    let partials = slabs.iter().map(|slab| apply_one(super::square_sums::SquareSums, slab)).collect::<Result<Vec<Tensor>>>()?;
    let inputs: Vec<&Tensor> = [scalars, skipped].into_iter().chain(&partials).collect();
    apply_one(ClipNorm, &inputs)
}
