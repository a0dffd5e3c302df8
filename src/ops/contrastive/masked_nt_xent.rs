//! NT-Xent by its matrix of similarities: the unfused twin that `nt_xent` is tested against, and
//! easier to read.

use super::pairs::{log_sum_exp, scalar, specs};
use crate::error::{Error, Result};
use crate::gpu::{Launch, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::loss::mean::{self, mean};
use crate::ops::sample::{Bad, Input, Sample, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly, require_f32};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "masked_nt_xent";
kernels!(KERNEL = "contrastive/masked_nt_xent");

/// NT-Xent from similarities divided by the temperature, all [N, N]: `s11` and `s22` within each
/// view, `s12` between them. The diagonals of `s11` and `s22` (a row with itself) are left out of
/// the softmax.
#[derive(Debug, Clone)]
pub struct MaskedNtXent;

impl Operator for MaskedNtXent {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let matrices: [&Spec; 3] = specs(NAME, inputs)?;
        let n = matrices.first().map_or(0, |s| s.shape.dim(0));
        for (name, spec) in ["s11", "s12", "s22"].iter().zip(matrices) {
            require_f32(NAME, name, spec)?;
            if n == 0 || spec.shape.array() != Some([n, n]) {
                return Err(Error::shape(NAME, format!("{name} must be [N, N] with the N of s11, at least 1; found {}", spec.shape)));
            }
        }
        Ok(vec![Spec::f32([]), Spec::f32([2 * n, 4])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [s11, s12, s22] = *exactly(NAME, inputs)?;
        let n = s11.shape().dim(0);
        let stats = Tensor::empty(s11.gpu(), [2 * n, 4], DType::F32)?;
        let lanes = s11.gpu().capabilities().schedule.row_lanes();
        Launch::new(s11.gpu(), &KERNEL, "rows")
            .define("ENTRY", "rows")
            .define("LANES", lanes)
            .read(s11)
            .read(s12)
            .read(s22)
            .write(&stats)
            .params(params![n])
            .walk(rounds(n.div_ceil(lanes), 0))
            .invocations(2 * n * lanes)?;
        let (loss, _) = mean(&stats, 2 * n, [3, 4], None, 2 * n)?;
        Ok(vec![loss, stats])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let cotangent = step.cotangent(0)?;
        let part = |index: usize| {
            let s = step.input(index)?;
            let ds = Tensor::empty(s.gpu(), s.shape(), DType::F32)?;
            Launch::new(s.gpu(), &KERNEL, "backward")
                .define("ENTRY", "backward")
                .define("PART", index)
                .read(s)
                .read(step.output(1)?)
                .read(&cotangent)
                .write(&ds)
                .params(params![s.shape().dim(0)])
                .invocations(s.numel())?;
            Ok(ds)
        };
        (0..3).map(|index| step.needs(index).then(|| part(index)).transpose()).collect()
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1, 2], outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [s11, s12, s22] = exactly(NAME, inputs)?;
        let n = s11.shape.dim(0);
        let mut loss = 0.0;
        for i in 0..n {
            let others = |s: &Array| (0..n).filter(|j| *j != i).map(|j| s.at(&[i, j])).collect::<Vec<f64>>();
            let first: Vec<f64> = others(s11).into_iter().chain((0..n).map(|j| s12.at(&[i, j]))).collect();
            let second: Vec<f64> = others(s22).into_iter().chain((0..n).map(|j| s12.at(&[j, i]))).collect();
            loss += log_sum_exp(&first) + log_sum_exp(&second) - 2.0 * s12.at(&[i, i]);
        }
        Ok(scalar(loss / (2 * n) as f64))
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        // s12 takes part in a row and in a column.
        Cost { flops: 4.0 * bytes as f64, bytes: bytes as f64 + 4.0 }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize| Sample::new(MaskedNtXent, [normal([n, n]), normal([n, n]), normal([n, n])]);
    vec![on(1), on(3), on(5), on(33), on(65), Sample::new(MaskedNtXent, [normal([7, 7]), normal([7, 7]), Input::Same(0)])]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(MaskedNtXent, [normal([3, 3]), normal([3, 3])], "takes 3 inputs, 2 were given"),
        Bad::new(MaskedNtXent, [normal([3, 3]), normal([3, 4]), normal([3, 3])], "s12 must be [N, N]"),
        Bad::new(MaskedNtXent, [normal([0, 0]), normal([0, 0]), normal([0, 0])], "at least 1"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["s11", "s12", "s22"],
        outputs: &["loss"],
        kernels: &[KERNELS, mean::KERNELS],
        build: Box::new(|_| Ok(Box::new(MaskedNtXent))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

/// [`Tensor::nt_xent`] by the stored matrix of similarities: the same loss and gradients in memory
/// that grows with the batch's square.
///
/// # Errors
/// As [`Tensor::nt_xent`].
pub fn nt_xent_unfused(z1: &Tensor, z2: &Tensor, temperature: f32) -> Result<Tensor> {
    let s11 = z1.similarity_matrix(z1, temperature)?;
    let s12 = z1.similarity_matrix(z2, temperature)?;
    let s22 = z2.similarity_matrix(z2, temperature)?;
    apply_one(MaskedNtXent, &[&s11, &s12, &s22])
}
