//! Cross entropy of logits with labels, with label smoothing (Szegedy et al. 2016) and an ignored
//! label.

use super::mean;
use super::rows::{self, Rows, check_labels, check_logits, log_softmax, saves};
use crate::error::{Result, require_share};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{Spec, Tensor};

/// What [`Tensor::cross_entropy_with`] can be told.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CrossEntropyFuncOptions {
    /// The part of each target that is spread evenly over all classes, in `0..=1`.
    pub label_smoothing: f32,
    /// Rows with this label neither count nor get a gradient.
    pub ignore_index: Option<i32>,
}

/// The operators `cross_entropy` and, with an ignored label, `cross_entropy_ignore`: logits, target
/// to loss.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy {
    options: CrossEntropyFuncOptions,
}

impl CrossEntropy {
    /// The operator with these options.
    pub fn new(options: CrossEntropyFuncOptions) -> Self {
        Self { options }
    }

    fn rows(&self) -> Rows {
        Rows { kind: "hard", constant: self.options.label_smoothing, ignore: self.options.ignore_index }
    }
}

impl Operator for CrossEntropy {
    fn name(&self) -> &str {
        if self.options.ignore_index.is_some() { "cross_entropy_ignore" } else { "cross_entropy" }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        check_logits(self.name(), "logits", logits)?;
        check_labels(self.name(), logits, target, self.options.ignore_index)?;
        require_share(self.name(), "label_smoothing", self.options.label_smoothing)?;
        Ok(self.rows().outputs(logits))
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [logits, target] = exactly(self.name(), inputs)?;
        self.rows().forward(logits, target)
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
        let [logits, target] = exactly(self.name(), inputs)?;
        let smoothing = f64::from(self.options.label_smoothing);
        let (mut sum, mut count) = (0.0, 0.0);
        for (row, label) in logits.rows().zip(&target.data) {
            if self.options.ignore_index.map(f64::from) == Some(*label) {
                continue;
            }
            let log = log_softmax(row, 1.0);
            let classes = log.len() as f64;
            for (class, value) in log.iter().enumerate() {
                let wanted = if class as f64 == *label { 1.0 - smoothing } else { 0.0 } + smoothing / classes;
                sum -= if wanted == 0.0 { 0.0 } else { wanted * value };
            }
            count += 1.0;
        }
        Ok(vec![Array::new([], vec![if count == 0.0 { 0.0 } else { sum / count }])])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements = inputs.first().map_or(0, |s| s.shape.numel());
        Cost { flops: 4.0 * elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples(ignore_index: Option<i32>) -> Vec<Sample> {
    let with = |label_smoothing| CrossEntropy::new(CrossEntropyFuncOptions { label_smoothing, ignore_index });
    let mut samples = Vec::new();
    for (n, c) in [(1, 1), (3, 5), (7, 33), (65, 10), (33, 12), (5, 1000), (2, 20001), (0, 4)] {
        for smoothing in [0.0, 0.1] {
            samples.push(Sample::new(with(smoothing), [normal_with([n, c], 3.0, 0.0), indices([n], c)]));
        }
    }
    samples.push(Sample::new(with(0.0), [normal_with([7, 12], 40.0, 500.0), indices([7], 12)]));
    samples.push(Sample::new(with(0.1), [normal([2, 3, 5, 7]), indices([2, 3, 5], 7)]));
    samples
}

fn bad(ignore_index: Option<i32>) -> Vec<Bad> {
    let operator = || CrossEntropy::new(CrossEntropyFuncOptions { label_smoothing: 0.0, ignore_index });
    let labels = |values: Vec<f64>| Input::Values(Array::integers([values.len()], values));
    let smoothed = CrossEntropy::new(CrossEntropyFuncOptions { label_smoothing: 1.5, ignore_index });
    vec![
        Bad::new(operator(), [normal([3, 5])], "it takes 2 inputs"),
        Bad::new(operator(), [normal([3, 5]), indices([4], 5)], "without its last axis, [3], found [4]"),
        Bad::new(operator(), [normal([3, 0]), indices([3], 5)], "at least one class"),
        Bad::new(operator(), [indices([3, 5], 2), indices([3], 5)], "logits must be floats"),
        Bad::new(operator(), [normal([3, 5]), normal([3])], "target must be i32"),
        Bad::new(operator(), [normal([3, 5]), labels(vec![0.0, 5.0, 1.0])], "target holds 5, outside 0..5"),
        Bad::new(operator(), [normal([3, 5]), labels(vec![0.0, -2.0, 1.0])], "target holds -2, outside 0..5"),
        Bad::new(smoothed, [normal([3, 5]), indices([3], 5)], "label_smoothing must lie in 0..=1, found 1.5"),
    ]
}

fn build(attributes: &Attributes, ignores: bool) -> Result<Box<dyn Operator>> {
    let ignore_index = if ignores { Some(attributes.number_or("ignore_index", -100.0)? as i32) } else { None };
    let label_smoothing = attributes.number_or("label_smoothing", 0.0)? as f32;
    Ok(Box::new(CrossEntropy::new(CrossEntropyFuncOptions { label_smoothing, ignore_index })))
}

/// The family's lines of the registry for cross entropy with labels.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name, ignore: Option<i32>| Entry {
        name,
        module: module_path!(),
        inputs: &["logits", "target"],
        outputs: &["loss"],
        kernels: &[rows::KERNELS, mean::KERNELS],
        build: Box::new(move |attributes| build(attributes, ignore.is_some())),
        samples: Box::new(move || {
            let mut list = samples(ignore);
            if let Some(label) = ignore {
                let operator = || CrossEntropy::new(CrossEntropyFuncOptions { label_smoothing: 0.1, ignore_index: ignore });
                let labels = [0, label, 2, 4, label].map(f64::from).to_vec();
                list.push(Sample::new(operator(), [normal([5, 5]), Input::Values(Array::integers([5], labels))]));
                let none = vec![f64::from(label); 3];
                list.push(Sample::new(operator(), [normal([3, 8]), Input::Values(Array::integers([3], none))]));
            }
            list
        }),
        bad: Box::new(move || bad(ignore)),
    };
    vec![entry("cross_entropy", None), entry("cross_entropy_ignore", Some(-1))]
}

impl Tensor {
    /// The mean over rows of `-log softmax(logits)[target]`, with `label_smoothing` of the target
    /// spread evenly over all classes (Szegedy et al. 2016). `self` are logits `[.., C]`, `target`
    /// is i32 `[..]` in `0..C`; the result is f32 `[]`.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let logits = Tensor::from_slice(&gpu, &[0.0f32, 0.0, 0.0, 0.0], [2, 2])?.watch();
    /// let labels = Tensor::from_slice(&gpu, &[0, 1], [2])?;
    /// let loss = logits.cross_entropy(&labels, 0.0)?;
    /// assert!((loss.item()? - 2f32.ln()).abs() < 1e-6);
    /// let gradients = loss.backward()?;
    /// let gradient = gradients.get(&logits).expect("the logits are watched").to_vec::<f32>()?;
    /// assert_eq!(gradient, [-0.25, 0.25, 0.25, -0.25]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Shapes or types that do not fit; a label known to lie outside `0..C` (one computed on the
    /// device makes the loss NaN).
    pub fn cross_entropy(&self, target: &Tensor, label_smoothing: f32) -> Result<Tensor> {
        self.cross_entropy_with(target, &CrossEntropyFuncOptions { label_smoothing, ignore_index: None })
    }

    /// As [`Self::cross_entropy`], with all options. Where every row is ignored the loss is 0, and
    /// so is its gradient.
    ///
    /// # Errors
    /// As [`Self::cross_entropy`].
    pub fn cross_entropy_with(&self, target: &Tensor, options: &CrossEntropyFuncOptions) -> Result<Tensor> {
        apply_one(CrossEntropy::new(*options), &[self, target])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions, Schedule};
    use crate::tensor::DType;

    /// No sum runs over many rows: of four million equal ones the mean is that of one.
    #[test]
    fn the_mean_of_many_rows_is_exact() {
        let rows = 4_000_001;
        let gpu = Gpu::new().unwrap();
        let logits = Tensor::from_slice(&gpu, &[0.3f32, -1.0], [2]).unwrap().expand(&[rows, 2]).unwrap();
        let labels: Vec<i32> = (0..rows).map(|row| (row % 3 == 0).into()).collect();
        let loss = logits.cross_entropy(&Tensor::from_slice(&gpu, &labels, [rows]).unwrap(), 0.0).unwrap().item().unwrap();
        let (of_0, of_1) = ((-1.3f64).exp().ln_1p(), 1.3f64.exp().ln_1p());
        let ones = labels.iter().filter(|label| **label == 1).count() as f64 / rows as f64;
        let expected = ones * of_1 + (1.0 - ones) * of_0;
        assert!((f64::from(loss) - expected).abs() < 5e-7 * expected, "{loss}, expected {expected}");
    }

    /// Labels computed on the device have no known range: the kernels must not read outside, and
    /// say NaN.
    #[test]
    fn unknown_labels_outside_are_nan_and_can_be_ignored() {
        for schedule in Schedule::ALL {
            let options = GpuOptions { schedule: Some(schedule), poison: true, ..GpuOptions::from_env().unwrap() };
            let gpu = Gpu::with(options).unwrap();
            for (classes, bad) in [(5, 5), (8, -1), (5, i32::MIN), (8, i32::MAX)] {
                let values: Vec<f32> = (0..3 * classes).map(|i| (i * 7 % 11) as f32).collect();
                let logits = Tensor::from_slice(&gpu, &values, [3, classes as usize]).unwrap().watch();
                let target = Tensor::zeros(&gpu, [3], DType::I32).unwrap();
                target.write(&[0, bad, 1]).unwrap();
                assert!(logits.cross_entropy(&target, 0.1).unwrap().item().unwrap().is_nan());
                assert!(logits.correct(&target).unwrap().item().unwrap().is_nan());
                let options = CrossEntropyFuncOptions { label_smoothing: 0.1, ignore_index: Some(bad) };
                let loss = logits.cross_entropy_with(&target, &options).unwrap();
                assert!(loss.item().unwrap().is_finite());
                let gradient = loss.backward().unwrap().get(&logits).unwrap().to_vec::<f32>().unwrap();
                let rows: Vec<bool> = gradient.chunks(classes as usize).map(|row| row.iter().all(|v| *v == 0.0)).collect();
                assert_eq!(rows, [false, true, false]);
                assert!(gradient.iter().all(|v| v.is_finite()));
            }
        }
    }
}
