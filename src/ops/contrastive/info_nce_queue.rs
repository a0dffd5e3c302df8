//! InfoNCE against a queue of negatives (He et al. 2020, MoCo), fused as NT-Xent is: large
//! [N, 1 + M] logits are never stored.

use super::pairs::{
    self, Kind, Pairs, Rows, check_batch, check_rows, check_temperature, dot, input_gradients, log_sum_exp, loss_specs, rows_specs,
    saved_rows, scalar, specs, unit_rows,
};
use crate::error::Result;
use crate::gpu::Scalar;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "info_nce_queue";

/// The loss of queries `q` [N, D] with their keys `k` [N, D] and the `queue` of negatives [M, D],
/// all normalised here: the mean over queries of -log softmax([q.k, q.queue] / temperature) at the
/// key. The gradient is q's alone.
///
/// The keys are columns beside the queue's, each of which one query sees: N^2 D extra
/// multiply-adds, few beside M N D.
#[derive(Debug, Clone)]
pub struct InfoNceQueue {
    /// Divides the cosines.
    pub temperature: Scalar,
}

impl InfoNceQueue {
    fn pairs<'a>(&'a self, a: &'a Rows, b: &'a Rows, n: usize, m: usize) -> Pairs<'a> {
        Pairs { kind: Kind::Queue, a, b, labels: None, rows: n, columns: m + n, half: m, temperature: &self.temperature }
    }
}

impl Operator for InfoNceQueue {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [q, k, queue] = specs(NAME, inputs)?;
        check_temperature(NAME, &self.temperature)?;
        check_rows(NAME, ["q", "k", "queue"], [q, k, queue])?;
        check_batch(NAME, ["q", "k"], [q, k])?;
        let (n, m, d) = (q.shape.dim(0), queue.shape.dim(0), q.shape.last());
        let ([unit, inverse], [columns, norms]) = (rows_specs(n, d), rows_specs(n + m, d));
        let [stats, weight, kept] = loss_specs(n, n + m);
        Ok(vec![Spec::f32([]), unit, inverse, columns, norms, stats, weight, kept])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [q, k, queue] = *exactly(NAME, inputs)?;
        let a = Rows::new(q.gpu(), &[q])?;
        let b = Rows::new(q.gpu(), &[queue, k])?;
        let [loss, stats, weight, kept] = self.pairs(&a, &b, q.shape().dim(0), queue.shape().dim(0)).loss()?;
        Ok(vec![loss, a.unit, a.inverse, b.unit, b.inverse, stats, weight, kept])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = (saved_rows(step, 1)?, saved_rows(step, 3)?);
        let (n, m) = (step.input_spec(0)?.shape.dim(0), step.input_spec(2)?.shape.dim(0));
        input_gradients(step, &self.pairs(&a, &b, n, m), 5, 1)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        // Normalised copies, so that the queue may move on before the backward pass.
        Saves { inputs: vec![], outputs: vec![1, 2, 3, 4, 5, 6, 7] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [q, k, queue] = exactly(NAME, inputs)?;
        let t = f64::from(self.temperature.get());
        let (q, k, queue) = (unit_rows(q), unit_rows(k), unit_rows(queue));
        let loss: f64 = q
            .iter()
            .zip(&k)
            .map(|(row, key)| {
                let positive = dot(row, key) / t;
                let logits: Vec<f64> = std::iter::once(positive).chain(queue.iter().map(|negative| dot(row, negative) / t)).collect();
                log_sum_exp(&logits) - positive
            })
            .sum();
        Ok(scalar(loss / q.len() as f64))
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        let t = f64::from(self.temperature.get());
        // (d - <d, u> u) / |x|, where d is a mean over rows of differences of rows of length 1,
        // over the temperature.
        let of = |x: &Array| 4.0 / (t * x.shape.dim(0) as f64 * x.shortest_row());
        gradient_of.and_then(|input| inputs.get(input)).map_or(0.0, of)
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let size = |i: usize| inputs.get(i).map_or((0.0, 0.0), |z| (z.shape.dim(0) as f64, z.shape.last() as f64));
        let ((n, d), (m, _)) = (size(0), size(2));
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        Cost { flops: n * (m + 1.0) * (2.0 * d + 8.0), bytes: bytes as f64 + 4.0 }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, m: usize, d: usize, temperature: f32| {
        Sample::new(InfoNceQueue { temperature: temperature.into() }, [normal([n, d]), normal([n, d]), normal([m, d])])
    };
    vec![
        on(1, 1, 5, 0.2),
        on(3, 0, 7, 0.5),
        on(5, 7, 1, 0.2),
        on(33, 65, 65, 0.07),
        on(7, 300, 33, 0.01),
        Sample::new(InfoNceQueue { temperature: (0.3).into() }, [normal([5, 6]), Input::Same(0), normal([9, 6])]),
    ]
}

fn bad() -> Vec<Bad> {
    let loss = || InfoNceQueue { temperature: (0.1).into() };
    vec![
        Bad::new(loss(), [normal([3, 4]), normal([3, 4])], "takes 3 inputs, 2 were given"),
        Bad::new(loss(), [normal([3, 4]), normal([2, 4]), normal([5, 4])], "must have as many rows"),
        Bad::new(loss(), [normal([3, 4]), normal([3, 4]), normal([5, 3])], "must have 4 features"),
        Bad::new(loss(), [normal([3, 4]), normal([3, 4]), indices([5, 4], 2)], "must hold floats"),
        Bad::new(
            InfoNceQueue { temperature: (-1.0).into() },
            [normal([3, 4]), normal([3, 4]), normal([5, 4])],
            "temperature must be positive",
        ),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["q", "k", "queue"],
        outputs: &["loss"],
        kernels: pairs::LOSS,
        build: Box::new(|a| Ok(Box::new(InfoNceQueue { temperature: (a.number_or("temperature", 0.07)? as f32).into() }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The InfoNCE loss (He et al. 2020) of these queries [N, D] with their keys `k` [N, D] against
    /// the negatives of `queue` [M, D]; all are normalised here, and the gradient is the queries'
    /// alone.
    ///
    /// # Errors
    /// Shapes that do not fit, no rows, a temperature that is not positive; out of memory.
    pub fn info_nce_queue(&self, k: &Tensor, queue: &Tensor, temperature: impl Into<Scalar>) -> Result<Tensor> {
        apply_one(InfoNceQueue { temperature: temperature.into() }, &[self, k, queue])
    }
}
