//! BYOL's loss: two less twice the cosine between a prediction and its target (Grill et al. 2020).

use super::pairs::{check_batch, check_rows, check_stored, dot, row_lanes, scalar, specs};
use crate::error::Result;
use crate::gpu::Launch;
use crate::ops::array::maximum;
use crate::ops::entry::{Entry, kernels};
use crate::ops::loss::mean::{self, mean};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "byol_loss";
kernels!(KERNEL = "contrastive/byol_loss");

/// The mean over rows of 2 - 2 cos(`prediction`, `target`), both [N, D]; the target gets no
/// gradient.
#[derive(Debug, Clone)]
pub struct ByolLoss;

impl ByolLoss {
    fn launch<'a>(&self, prediction: &'a Tensor, target: &Tensor, entry: &'a str) -> Launch<'a> {
        Launch::new(prediction.gpu(), &KERNEL, entry)
            .storage(prediction.dtype().storage())
            .define("TARGET", target.dtype().to_string())
            .define("BACKWARD", entry == "backward")
            .read(prediction)
            .read(target)
    }
}

impl Operator for ByolLoss {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [prediction, target] = specs(NAME, inputs)?;
        check_rows(NAME, ["prediction", "target"], [prediction, target])?;
        check_batch(NAME, ["prediction", "target"], [prediction, target])?;
        check_stored(NAME, ["prediction", "target"], [prediction, target])?;
        let n = prediction.shape.dim(0);
        Ok(vec![Spec::f32([]), Spec::f32([n, 4]), Spec::f32([n])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [prediction, target] = *exactly(NAME, inputs)?;
        let (gpu, n) = (prediction.gpu(), prediction.shape().dim(0));
        let stats = Tensor::empty(gpu, [n, 4], DType::F32)?;
        let norms = Tensor::empty(gpu, [n], DType::F32)?;
        let (lanes, walk) = row_lanes(gpu, prediction.shape().last(), 1);
        self.launch(prediction, target, "forward")
            .define("LANES", lanes)
            .walk(walk)
            .write(&stats)
            .write(&norms)
            .params(params![prediction.shape().last()])
            .groups(n)?;
        let (loss, _) = mean(&stats, n, [3, 4], None, n)?;
        Ok(vec![loss, stats, norms])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (prediction, target) = (step.input(0)?, step.input(1)?);
        let dx = Tensor::empty(step.gpu(), prediction.shape(), prediction.dtype())?;
        let scale = -2.0 / prediction.shape().dim(0) as f32;
        self.launch(prediction, target, "backward")
            .read(step.output(1)?)
            .read(step.output(2)?)
            .read(&step.cotangent(0)?)
            .write(&dx)
            .params(params![prediction.shape().last(), dx.numel(), scale])
            .invocations(dx.numel())?;
        Ok(vec![Some(dx), None])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![1, 2] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [prediction, target] = exactly(NAME, inputs)?;
        let norm = |row: &[f64]| maximum(dot(row, row).sqrt(), 1e-8);
        let loss: f64 = prediction.rows().zip(target.rows()).map(|(x, t)| 2.0 - 2.0 * dot(x, t) / (norm(x) * norm(t))).sum();
        Ok(scalar(loss / prediction.shape.dim(0) as f64))
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        let Some(prediction) = inputs.first() else { return 0.0 };
        // 2 less 2 cos; -2 / N (t - cos x) / |x| with t and x of length 1.
        if gradient_of.is_none() { 4.0 } else { 4.0 / (prediction.shape.dim(0) as f64 * prediction.shortest_row()) }
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        let elements = inputs.first().map_or(0, |x| x.shape.numel());
        Cost { flops: 6.0 * elements as f64, bytes: bytes as f64 + 4.0 }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, d: usize| Sample::new(ByolLoss, [normal([n, d]), normal([n, d])]);
    vec![on(1, 3), on(5, 1), on(3, 7), on(33, 65), on(65, 300), Sample::new(ByolLoss, [normal([5, 9]), Input::Same(0)])]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(ByolLoss, [normal([3, 4])], "takes 2 inputs, 1 were given"),
        Bad::new(ByolLoss, [normal([3, 4]), normal([3, 5])], "must have 4 features"),
        Bad::new(ByolLoss, [normal([3, 4]), normal([4, 4])], "must have as many rows"),
        Bad::new(ByolLoss, [normal([3, 4]), indices([3, 4], 2)], "must hold floats"),
        Bad::new(ByolLoss, [normal([0, 4]), normal([0, 4])], "is empty"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["prediction", "target"],
        outputs: &["loss"],
        kernels: &[KERNELS, mean::KERNELS],
        build: Box::new(|_| Ok(Box::new(ByolLoss))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// BYOL's loss of these predictions [N, D] against `target` [N, D]: the mean over rows of 2 - 2
    /// cos (Grill et al. 2020). The target gets no gradient.
    ///
    /// # Errors
    /// Unequal shapes, no rows, integers; out of memory.
    pub fn byol_loss(&self, target: &Tensor) -> Result<Tensor> {
        apply_one(ByolLoss, &[self, target])
    }
}
