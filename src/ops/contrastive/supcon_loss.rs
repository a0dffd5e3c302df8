//! The supervised contrastive loss (Khosla et al. 2020, L_out), fused as NT-Xent is.

use super::pairs::{
    self, Kind, Pairs, Rows, check_rows, check_temperature, dot, input_gradients, log_sum_exp, loss_specs, not_empty, rows_specs,
    saved_rows, scalar, specs, unit_rows,
};
use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "supcon_loss";

/// The loss of `embeddings` [R, D] with `labels` i32 `[R]`: the mean over anchors of the mean over
/// their positives (same label, not themselves) of -log softmax(similarity / temperature), the
/// anchor left out. Anchors without a positive add nothing and are not counted; 0 where there is no
/// other. Labels are only compared, so any number will do.
#[derive(Debug, Clone)]
pub struct SupconLoss {
    /// Divides the cosines.
    pub temperature: Scalar,
}

impl SupconLoss {
    fn pairs<'a>(&'a self, rows: &'a Rows, labels: &'a Tensor) -> Pairs<'a> {
        let n = labels.numel();
        Pairs { kind: Kind::Labels, a: rows, b: rows, labels: Some(labels), rows: n, columns: n, half: 0, temperature: &self.temperature }
    }
}

impl Operator for SupconLoss {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [embeddings, labels] = specs(NAME, inputs)?;
        check_temperature(NAME, &self.temperature)?;
        check_rows(NAME, ["embeddings"], [embeddings])?;
        not_empty(NAME, "embeddings", embeddings)?;
        if labels.dtype != DType::I32 {
            return Err(Error::dtype(NAME, format!("labels must be i32, found {labels}")));
        }
        let rows = embeddings.shape.dim(0);
        if labels.shape.array() != Some([rows]) {
            return Err(Error::shape(NAME, format!("labels {} must be one for each row of embeddings {}", labels.shape, embeddings.shape)));
        }
        let ([unit, inverse], [stats, weight, kept]) = (rows_specs(rows, embeddings.shape.last()), loss_specs(rows, rows));
        Ok(vec![Spec::f32([]), unit, inverse, stats, weight, kept])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [embeddings, labels] = *exactly(NAME, inputs)?;
        let rows = Rows::new(embeddings.gpu(), &[embeddings])?;
        let [loss, stats, weight, kept] = self.pairs(&rows, labels).loss()?;
        Ok(vec![loss, rows.unit, rows.inverse, stats, weight, kept])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let rows = saved_rows(step, 1)?;
        input_gradients(step, &self.pairs(&rows, step.input(1)?), 3, 1)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![1], outputs: vec![1, 2, 3, 4, 5] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [embeddings, labels] = exactly(NAME, inputs)?;
        let t = f64::from(self.temperature.get());
        let z = unit_rows(embeddings);
        let (mut loss, mut anchors) = (0.0, 0.0);
        for (i, row) in z.iter().enumerate() {
            let similarity: Vec<f64> = z.iter().map(|other| dot(row, other) / t).collect();
            let others: Vec<f64> = similarity.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, s)| *s).collect();
            let same = |j: usize| j != i && labels.flat(j) == labels.flat(i);
            let positives: Vec<f64> = similarity.iter().enumerate().filter(|(j, _)| same(*j)).map(|(_, s)| *s).collect();
            if !positives.is_empty() {
                anchors += 1.0;
                loss += log_sum_exp(&others) - positives.iter().sum::<f64>() / positives.len() as f64;
            }
        }
        Ok(scalar(if anchors == 0.0 { 0.0 } else { loss / anchors }))
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let (n, d) = inputs.first().map_or((0.0, 0.0), |z| (z.shape.dim(0) as f64, z.shape.last() as f64));
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        Cost { flops: n * n * (2.0 * d + 12.0), bytes: bytes as f64 + 4.0 }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, d: usize, classes: usize, temperature: f32| {
        Sample::new(SupconLoss { temperature: temperature.into() }, [normal([n, d]), indices([n], classes)])
    };
    let alone = |labels: &[f64]| {
        let labels = Input::Values(Array::integers([labels.len()], labels.to_vec()));
        Sample::new(SupconLoss { temperature: (0.01).into() }, [normal([labels_len(&labels), 3]), labels])
    };
    vec![
        on(1, 5, 2, 0.5),
        on(5, 7, 2, 0.2),
        on(33, 65, 20, 0.1),
        on(130, 33, 3, 0.5),
        alone(&[0.0, 1.0, 2.0]),
        alone(&[-7.0, 4.0, -7.0, 3.0, 9.0]),
    ]
}

fn labels_len(input: &Input) -> usize {
    if let Input::Values(array) = input { array.data.len() } else { 0 }
}

fn bad() -> Vec<Bad> {
    let loss = |temperature: f32| SupconLoss { temperature: temperature.into() };
    vec![
        Bad::new(loss(0.5), [normal([3, 4]), indices([4], 2)], "one for each row"),
        Bad::new(loss(0.5), [normal([3, 4]), normal([3])], "labels must be i32"),
        Bad::new(loss(0.5), [normal([3]), indices([3], 2)], "must be a matrix"),
        Bad::new(loss(0.5), [normal([0, 4]), indices([0], 2)], "is empty"),
        Bad::new(loss(f32::NAN), [normal([3, 4]), indices([3], 2)], "temperature must be positive"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["embeddings", "labels"],
        outputs: &["loss"],
        kernels: pairs::LOSS,
        build: Box::new(|a| Ok(Box::new(SupconLoss { temperature: (a.number_or("temperature", 0.1)? as f32).into() }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The supervised contrastive loss (Khosla et al. 2020, L_out) of these embeddings [R, D],
    /// normalised here, with `labels` i32 `[R]`: the mean over anchors of the mean over their
    /// positives of -log softmax(similarity / temperature). Anchors without a positive add nothing
    /// and are not counted.
    ///
    /// # Errors
    /// Shapes that do not fit, no rows, a temperature that is not positive; out of memory.
    pub fn supcon_loss(&self, labels: &Tensor, temperature: impl Into<Scalar>) -> Result<Tensor> {
        apply_one(SupconLoss { temperature: temperature.into() }, &[self, labels])
    }
}
