//! Knowledge distillation (Hinton, Vinyals and Dean 2015): the student's softened distribution
//! against the teacher's.

use super::mean;
use super::rows::{self, Rows, check_alike, check_logits, log_softmax, saves};
use crate::error::{Result, require_positive};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, normal, normal_with};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{Spec, Tensor};

/// The operator `distillation_kl`: student, teacher to loss. No gradient flows to the teacher.
#[derive(Debug, Clone, Copy)]
pub struct DistillationKl {
    temperature: f32,
}

impl DistillationKl {
    /// The operator at this temperature.
    pub fn new(temperature: f32) -> Self {
        Self { temperature }
    }

    fn rows(&self) -> Rows {
        Rows { kind: "distill", constant: self.temperature, ignore: None }
    }
}

impl Operator for DistillationKl {
    fn name(&self) -> &str {
        "distillation_kl"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [student, teacher] = exactly(self.name(), inputs)?;
        check_logits(self.name(), "student", student)?;
        check_alike(self.name(), ["student", "teacher"], student, teacher)?;
        require_positive(self.name(), "temperature", self.temperature)?;
        Ok(self.rows().outputs(student))
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [student, teacher] = exactly(self.name(), inputs)?;
        self.rows().forward(student, teacher)
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        self.rows().backward(step)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        saves()
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [student, teacher] = exactly(self.name(), inputs)?;
        let temperature = f64::from(self.temperature);
        let divergence = |(s, t): (&[f64], &[f64])| -> f64 {
            let (log_s, log_t) = (log_softmax(s, temperature), log_softmax(t, temperature));
            // t log t is 0 at 0.
            let term = |(t, s): (&f64, &f64)| if t.exp() == 0.0 { -t.exp() * s } else { t.exp() * (t - s) };
            log_t.iter().zip(&log_s).map(term).sum()
        };
        let sum: f64 = student.rows().zip(teacher.rows()).map(divergence).sum();
        Ok(vec![Array::new([], vec![temperature * temperature * sum / student.rows().len().max(1) as f64])])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements = inputs.first().map_or(0, |s| s.shape.numel());
        Cost { flops: 11.0 * elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let shapes: [&[usize]; 8] = [&[1, 1], &[3, 5], &[7, 33], &[65, 12], &[5, 1000], &[2, 20001], &[2, 3, 7], &[0, 4]];
    let temperatures = [1.0, 4.0, 20.0, 0.5];
    let sample = |(shape, temperature): (&&[usize], &f32)| {
        Sample::new(DistillationKl::new(*temperature), [normal_with(*shape, 2.0, 5.0), normal_with(*shape, 2.0, -1.0)])
    };
    shapes.iter().zip(temperatures.iter().cycle()).map(sample).collect()
}

fn bad() -> Vec<Bad> {
    let bad = |temperature, inputs: Vec<Input>, expect| Bad::new(DistillationKl::new(temperature), inputs, expect);
    vec![
        bad(1.0, vec![normal([3, 5])], "it takes 2 inputs"),
        bad(1.0, vec![normal([3, 5]), normal([5, 3])], "student and teacher must be floats of the same shape and type"),
        bad(1.0, vec![normal([3, 0]), normal([3, 0])], "at least one class"),
        bad(0.0, vec![normal([3, 5]), normal([3, 5])], "temperature must be positive and finite, found 0"),
        bad(f32::INFINITY, vec![normal([3, 5]), normal([3, 5])], "temperature must be positive and finite, found inf"),
    ]
}

/// The family's line of the registry for distillation.
pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "distillation_kl",
        module: module_path!(),
        inputs: &["student", "teacher"],
        outputs: &["loss"],
        kernels: &[rows::KERNELS, mean::KERNELS],
        build: Box::new(|attributes| Ok(Box::new(DistillationKl::new(attributes.number_or("temperature", 1.0)? as f32)))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }]
}

impl Tensor {
    /// `T^2 KL(softmax(teacher / T) || softmax(self / T))`, mean over rows (Hinton, Vinyals and
    /// Dean 2015). `self` are the student's logits `[.., C]`, `teacher` is like them and gets no
    /// gradient; the result is f32 `[]`.
    ///
    /// # Errors
    /// Shapes or types that do not fit; a temperature that is not positive; out of memory.
    pub fn distillation_kl(&self, teacher: &Tensor, temperature: f32) -> Result<Tensor> {
        apply_one(DistillationKl::new(temperature), &[self, teacher])
    }
}
