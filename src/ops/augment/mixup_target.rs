//! Labels of mixed images (Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899).

use crate::error::{Error, Result, require_share};
use crate::gpu::{Launch, Scalar};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, uniform};
use crate::ops::{Array, Attributes, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(MIXUP_TARGET = "augment/mixup_target");

/// Labels of mixed images as probabilities, i32 `[N]` twice to `[N, classes]`: timm's
/// `mixup_target`. `lam` of the first label and the rest of the second, each with
/// `label_smoothing` spread evenly over all classes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MixupTarget {
    /// How many classes there are.
    pub classes: usize,
    /// The first label's weight, in 0..=1.
    pub lam: Scalar,
    /// The part of each target that is spread evenly, in 0..=1.
    pub label_smoothing: f32,
}

impl Operator for MixupTarget {
    fn name(&self) -> &str {
        "mixup_target"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [labels, others] = exactly(self.name(), inputs)?;
        if self.classes == 0 || self.classes > 1 << 24 {
            return Err(Error::argument(self.name(), format!("classes must lie in 1..=2^24, found {}", self.classes)));
        }
        for (what, spec) in [("labels", labels), ("others", others)] {
            spec.check_indices(self.name(), what, self.classes, None)?;
        }
        let Some([n]) = labels.shape.array().filter(|_| labels.shape == others.shape) else {
            let message = format!("labels and others must have the same shape [N], found {} and {}", labels.shape, others.shape);
            return Err(Error::shape(self.name(), message));
        };
        require_share(self.name(), "lam", self.lam.get())?;
        require_share(self.name(), "label_smoothing", self.label_smoothing)?;
        Ok(vec![Spec::f32([n, self.classes])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([labels, others], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let y = Tensor::empty(labels.gpu(), &spec.shape, spec.dtype)?;
        let (on, off) = (1.0 - self.label_smoothing, self.label_smoothing / self.classes as f32);
        Launch::new(labels.gpu(), &MIXUP_TARGET, "mixup_target")
            .read(*labels)
            .read(*others)
            .write(&y)
            .params(params![y.numel(), self.classes, self.lam.clone(), on, off])
            .invocations(y.numel())?;
        Ok(vec![y])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0, 1]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [labels, others] = exactly(self.name(), inputs)?;
        let (lam, smoothing) = (f64::from(self.lam.get()), f64::from(self.label_smoothing));
        Ok(vec![Array::from_fn([labels.data.len(), self.classes], |index| {
            let [n, class] = index else { return f64::NAN };
            let target = |label: f64| smoothing / self.classes as f64 + if label == *class as f64 { 1.0 - smoothing } else { 0.0 };
            lam * target(labels.flat(*n)) + (1.0 - lam) * target(others.flat(*n))
        })])
    }
}

pub(super) fn entry() -> Entry {
    let target = |classes, lam: f32, label_smoothing| MixupTarget { classes, lam: lam.into(), label_smoothing };
    Entry {
        name: "mixup_target",
        module: module_path!(),
        inputs: &["labels", "others"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(|attributes: &Attributes| {
            Ok(Box::new(MixupTarget {
                classes: attributes.size("classes")?,
                lam: (attributes.number_or("lam", 1.0)? as f32).into(),
                label_smoothing: attributes.number_or("label_smoothing", 0.0)? as f32,
            }))
        }),
        samples: Box::new(move || {
            let sizes = [(1, 1), (3, 5), (65, 10), (7, 1000), (0, 4)];
            let pair = |n, classes| [indices([n], classes), indices([n], classes)];
            sizes.into_iter().flat_map(|(n, k)| [0.0, 0.1].map(|s| Sample::new(target(k, 0.7, s), pair(n, k)))).collect()
        }),
        bad: Box::new(move || {
            let labels = |values: Vec<f64>| Input::Values(Array::integers([values.len()], values));
            let bad = |lam, smoothing, inputs: [Input; 2], words| Bad::new(target(5, lam, smoothing), inputs, words);
            let mut all = vec![
                bad(0.5, 0.0, [labels(vec![1.0, 5.0]), indices([2], 5)], "labels holds 5, outside 0..5"),
                bad(0.5, 0.0, [indices([2], 5), labels(vec![1.0, -1.0])], "others holds -1, outside 0..5"),
                bad(0.5, 0.0, [indices([2], 5), indices([3], 5)], "the same shape [N], found [2] and [3]"),
                bad(0.5, 0.0, [indices([2, 1], 5), indices([2, 1], 5)], "the same shape [N]"),
                bad(0.5, 0.0, [uniform([2], 0.0, 1.0), indices([2], 5)], "labels must be i32"),
                bad(1.5, 0.0, [indices([2], 5), indices([2], 5)], "lam must lie in 0..=1"),
                bad(0.5, 1.5, [indices([2], 5), indices([2], 5)], "label_smoothing must lie in 0..=1"),
                Bad::new(target(0, 0.5, 0.0), [indices([0], 5), indices([0], 5)], "classes must lie in"),
            ];
            all.extend(Bad::sizes(move |classes| target(classes, 0.5, 0.0), [indices([2], 5), indices([2], 5)], "classes must lie in"));
            all
        }),
    }
}

impl Tensor {
    /// Labels, i32 `[N]`, mixed with those of `others`, as probabilities `[N, classes]`: see
    /// [`MixupTarget`].
    ///
    /// # Errors
    /// Anything but i32 labels of the same number; one known to lie outside `0..classes` (one
    /// computed on the device makes its row NaN); numbers outside their limits.
    pub fn mixup_target(&self, others: &Tensor, target: MixupTarget) -> Result<Tensor> {
        apply_one(target, &[self, others])
    }
}
