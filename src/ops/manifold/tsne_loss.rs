//! What t-SNE minimises, and its gradient (van der Maaten and Hinton 2008).

use super::joint_probabilities::distances;
use super::{square, width};
use crate::error::{Error, Result, require_positive};
use crate::gpu::{Launch, Schedule, rounds};
use crate::ops::elementwise::pointwise;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Autocast, Backward, Cost, Edges, Operator, Saves, apply, exactly, require_f32};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "tsne_loss";
kernels!(KERNEL = "manifold/tsne_loss");
/// Partial sums of `totals`.
const LANES: usize = 64;

/// -exaggeration sum of q_ij log(n_ij) + log Z, for points y [N, 2] and joint probabilities q [N, N], symmetric and of sum 1, with
/// n_ij = 1 / (1 + |y_i - y_j|^2) and Z its sum over i != j. Without exaggeration (1) it is the cross entropy of q and n / Z: their
/// Kullback-Leibler divergence less the sum of q log q, which no point changes.
#[derive(Debug, Clone)]
pub struct TsneLoss {
    /// How many times as strong as it is attraction is taken.
    pub exaggeration: f32,
}

impl Operator for TsneLoss {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [y, q] = exactly(NAME, inputs)?;
        let n = square(NAME, "q", q)?;
        require_f32(NAME, "y", y)?;
        require_positive(NAME, "exaggeration", self.exaggeration)?;
        if y.shape.array() != Some([n, 2]) {
            return Err(Error::shape(NAME, format!("y {} must be [N, 2] for q {}", y.shape, q.shape)));
        }
        Ok(vec![Spec::f32([]), y.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [y, q] = *exactly(NAME, inputs)?;
        let (gpu, n) = (y.gpu(), y.shape().dim(0));
        let vec = width(n);
        let threads = if gpu.capabilities().schedule == Schedule::Software { 512 } else { 32_768 };
        let slice = n.div_ceil((threads * vec / n).clamp(1, 64));
        let slices = n.div_ceil(slice);
        let partial = Tensor::empty(gpu, [slices, 6, n], DType::F32)?;
        let total = Tensor::empty(gpu, [LANES, 4], DType::F32)?;
        let (gradient, loss) = (Tensor::empty(gpu, y.shape(), DType::F32)?, Tensor::empty(gpu, [], DType::F32)?);
        let launch = |entry: &str, count: usize, walk: usize| {
            Launch::new(gpu, &KERNEL, entry)
                .define("VEC", vec)
                .read(y)
                .read(q)
                .write(&partial)
                .write(&total)
                .write(&gradient)
                .write(&loss)
                .params(params![n, slices, slice, self.exaggeration])
                .walk(walk)
                .invocations(count)
        };
        launch("pairs", slices * n / vec, rounds(slice, 0))?;
        launch("totals", LANES, rounds((slices * n / vec).div_ceil(LANES), 0))?;
        launch("finish", n / vec, rounds(LANES, 0) + rounds(slices, 0))?;
        Ok(vec![loss, gradient])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(step.output(1)?.mul(&step.cotangent(0)?)?), None])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, input: usize) -> Edges {
        if input == 0 { Edges::Nan } else { Edges::None }
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [y, q] = exactly(NAME, inputs)?;
        let n = y.shape.dim(0);
        let distance = |i: usize, j: usize| 1.0 + (0..2).map(|c| (y.at(&[i, c]) - y.at(&[j, c])).powi(2)).sum::<f64>();
        let pairs = || (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j);
        let cross: f64 = pairs().map(|(i, j)| q.at(&[i, j]) * distance(i, j).ln()).sum();
        let z: f64 = pairs().map(|(i, j)| 1.0 / distance(i, j)).sum();
        Ok(vec![Array::new([], vec![f64::from(self.exaggeration) * cross + z.ln()])])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let pairs = inputs.get(1).map_or(0, |q| q.shape.numel());
        Cost { flops: 22.0 * pairs as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, scale: f64, exaggeration: f32| {
        let kernel = distances(n).map(|d| if d == 0.0 { 0.0 } else { (-d).exp() });
        let sum: f64 = kernel.data.iter().sum();
        Sample::new(
            TsneLoss { exaggeration },
            [normal_with([n, 2], scale, 0.0), Input::Values(kernel.map(|v| f64::from((v / sum) as f32)))],
        )
    };
    vec![on(2, 1.0, 1.0), on(3, 1.0, 1.0), on(7, 1e-4, 12.0), on(33, 3.0, 12.0), on(64, 5.0, 1.0), on(65, 30.0, 1.0), on(300, 5.0, 1.0)]
}

fn bad() -> Vec<Bad> {
    let loss = || TsneLoss { exaggeration: 1.0 };
    vec![
        Bad::new(loss(), [normal([5, 2])], "takes 2 inputs, 1 were given"),
        Bad::new(loss(), [normal([5, 3]), normal([5, 5])], "y [5, 3] must be [N, 2]"),
        Bad::new(loss(), [normal([4, 2]), normal([5, 5])], "for q [5, 5]"),
        Bad::new(loss(), [normal([5, 2]), normal([5, 4])], "q [5, 4] must be [N, N]"),
        Bad::new(TsneLoss { exaggeration: f32::NAN }, [normal([5, 2]), normal([5, 5])], "exaggeration must be positive and finite"),
        Bad::new(loss(), [indices([5, 2], 3), normal([5, 5])], "must be f32"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["y", "q"],
        outputs: &["loss"],
        kernels: &[KERNELS, pointwise::KERNELS],
        build: Box::new(|a| Ok(Box::new(TsneLoss { exaggeration: a.number_or("exaggeration", 1.0)? as f32 }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// t-SNE's loss of these points [N, 2] for the joint probabilities `q` [N, N] (symmetric, of
    /// sum 1), as [`TsneLoss`] defines it, and its gradient [N, 2], which comes with it.
    ///
    /// # Errors
    /// Other shapes or types; out of memory.
    pub fn tsne_loss(&self, q: &Tensor, exaggeration: f32) -> Result<(Tensor, Tensor)> {
        let outputs = apply(TsneLoss { exaggeration }, &[self, q])?;
        let [loss, gradient] = exactly(NAME, &outputs)?;
        Ok((loss.clone(), gradient.clone()))
    }
}
