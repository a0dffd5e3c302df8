//! Distillation of what lies before the logits, with cross entropy for the labels that are known.
//! Variants, each as in RepDistiller, whose weights are the defaults: `fitnet` (Romero et al. 2014,
//! arXiv:1412.6550), mean squared error of maps behind a 1x1 convolution without batch norm (a
//! linear regressor, trained with the rest and not in a stage of its own); `attention_transfer`
//! (Zagoruyko and Komodakis 2016, arXiv:1612.03928), the mean over channels of squared maps, each
//! image's of length 1; `similarity_preserving` (Tung and Mori 2019, arXiv:1907.09682), the rows of
//! the batch's Gram matrix, of length 1; `relational` (Park et al. 2019, arXiv:1904.05068), smooth
//! L1 of distances between features, divided by their mean, plus twice that of angles. All losses
//! are means over elements. Maps of two sizes are brought to the smaller one by average pooling.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aligned_teacher::{REGRESSOR, known_cross_entropy, only_teacher};
use super::{Batch, Build, Method, MethodCard, MethodContext, MethodFactory, Supervision, Teacher, TrainStep, TrainedNetwork};
use crate::error::{Error, Result};
use crate::models::{Backbone, Classifier};
use crate::nn::layers::Conv2dOptions;
use crate::nn::{Conv2d, Mode, Module, Parameters};
use crate::ops::pooling::Window;
use crate::tensor::{DType, Tensor};

/// What of the teacher is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// Its maps.
    Fitnet,
    /// Where they are large.
    AttentionTransfer,
    /// Which images it finds similar.
    SimilarityPreserving,
    /// How far images are from each other, and at which angles.
    Relational,
}

impl Hint {
    /// RepDistiller's weight.
    fn weight(self) -> f32 {
        match self {
            Hint::Fitnet => 100.0,
            Hint::AttentionTransfer => 1000.0,
            Hint::SimilarityPreserving => 3000.0,
            Hint::Relational => 25.0,
        }
    }
}

/// How features are learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureDistillationConfig {
    /// `fitnet`, `attention_transfer`, `similarity_preserving` or `relational`.
    pub variant: Hint,
    /// The weight of the teacher's part beside the labels'; 0 for the variant's usual one: 100,
    /// 1000, 3000, 25.
    pub weight: f32,
}

impl Default for FeatureDistillationConfig {
    fn default() -> Self {
        Self { variant: Hint::Fitnet, weight: 0.0 }
    }
}

/// A student and its teacher.
pub struct FeatureDistillation {
    student: Classifier<Box<dyn Backbone>>,
    teacher: Arc<Teacher>,
    /// From the student's maps to the teacher's.
    regressor: Option<Conv2d>,
    variant: Hint,
    weight: f32,
}

impl MethodFactory for FeatureDistillation {
    const CARD: MethodCard = MethodCard {
        name: "feature_distillation",
        title: "Feature distillation",
        text: "Learn a teacher's maps, attention, similarities or relations, and labels",
        supervision: Supervision::Distillation,
        family: "features",
        year: 2014,
        authors: "Romero, Ballas, Kahou, Chassang, Gatta, Bengio",
        paper: "FitNets: Hints for Thin Deep Nets, arXiv:1412.6550; also arXiv:1612.03928, arXiv:1907.09682, arXiv:1904.05068",
        related: &["distillation", "contrastive_distillation", "embedding_distillation"],
    };

    const TEACHER_LOGITS: bool = false;

    const HEADS: &'static [&'static str] = &[REGRESSOR];

    type Config = FeatureDistillationConfig;

    fn new(params: &Parameters, build: Build, config: FeatureDistillationConfig, context: &MethodContext) -> Result<Self> {
        let FeatureDistillationConfig { variant, weight } = config;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::argument("weight", format!("expected 0 or more, found {weight}")));
        }
        let teacher = only_teacher(Self::CARD.name, context)?;
        let student = Classifier::new(params, build(params)?, context.classes)?;
        let [h, w, c] = context.input.image(Self::CARD.name)?;
        let image = Tensor::zeros(params.gpu(), [1, h, w, c], DType::F32)?;
        let (own, taught) = (student.backbone.forward_features(&image, Mode::Eval)?, teacher.maps(&image)?);
        if variant != Hint::Relational {
            alike(&own, &taught)?;
        }
        let config = Conv2dOptions { kernel: 1, ..Default::default() };
        let regressor = || Conv2d::new(params, REGRESSOR, own.shape().last(), taught.shape().last(), config);
        let regressor = (variant == Hint::Fitnet).then(regressor).transpose()?;
        Ok(Self { student, teacher, regressor, variant, weight: if weight > 0.0 { weight } else { variant.weight() } })
    }
}

/// Maps of one size: the larger ones are pooled.
fn alike(a: &Tensor, b: &Tensor) -> Result<[Tensor; 2]> {
    let size = |x: &Tensor| [x.shape().dim(1), x.shape().dim(2)];
    let pooled = |x: &Tensor, [h, w]: [usize; 2], to: [usize; 2]| {
        let [kh, kw] = [h / to[0].max(1), w / to[1].max(1)];
        x.avg_pool2d(Window { kernel: [kh, kw], stride: [kh, kw], ..Window::square(1, 1, 0) }, false)
    };
    let fits =
        |large: [usize; 2], small: [usize; 2]| large.iter().zip(small).all(|(large, small)| small > 0 && large.is_multiple_of(small));
    match (size(a), size(b)) {
        (own, other) if own == other => Ok([a.clone(), b.clone()]),
        (own, other) if fits(own, other) => Ok([pooled(a, own, other)?, b.clone()]),
        (own, other) if fits(other, own) => Ok([a.clone(), pooled(b, other, own)?]),
        (own, other) => {
            let message = format!("the student's maps are {own:?}, the teacher's {other:?}, and neither is a multiple of the other");
            Err(Error::argument("feature_distillation", message + ": use the variant `relational`, or another network"))
        }
    }
}

/// Where the maps `[N, h, w, K]` are large: `[N, h w]`, each row of length 1.
fn attention(maps: &Tensor) -> Result<Tensor> {
    let [n, pixels] = [maps.shape().dim(0), maps.shape().dim(1) * maps.shape().dim(2)];
    maps.square()?.mean(&[-1], false)?.reshape(&[n, pixels])?.l2_normalize(-1, 1e-12)
}

/// Which images have similar maps: `[N, N]`, each row of length 1.
fn similarity(maps: &Tensor) -> Result<Tensor> {
    let rows = maps.reshape(&[maps.shape().dim(0), maps.numel() / maps.shape().dim(0).max(1)])?;
    rows.matmul_nt(&rows)?.l2_normalize(-1, 1e-12)
}

/// Distances between features `[N, D]`, divided by their mean: `[N, N]`; and the cosines between
/// the ways from each to two others: `[N, N, N]`.
fn relations(features: &Tensor) -> Result<[Tensor; 2]> {
    let [n, d] = [features.shape().dim(0), features.shape().dim(1)];
    let ways = features.reshape(&[1, n, d])?.sub(&features.reshape(&[n, 1, d])?)?;
    // The diagonal, 0, is raised to 1e-6, where a root still has a gradient.
    let distances = ways.square()?.sum(&[-1], false)?.clamp(1e-12, f32::MAX)?.sqrt()?;
    let pairs = (n * n.saturating_sub(1)).max(1);
    let mean = distances.sum(&[0, 1], true)?.mul_scalar(1.0 / pairs as f32)?;
    let ways = ways.l2_normalize(-1, 1e-12)?;
    Ok([distances.div(&mean)?, ways.matmul_nt(&ways)?])
}

impl FeatureDistillation {
    fn hint(&self, own: &Tensor, images: &Tensor) -> Result<Tensor> {
        if self.variant == Hint::Relational {
            let [distances, angles] = relations(&own.global_avg_pool2d()?)?;
            let [wanted_distances, wanted_angles] = relations(&self.teacher.maps(images)?.global_avg_pool2d()?)?;
            let angles = angles.smooth_l1_loss(&wanted_angles, 1.0)?.mul_scalar(2.0)?;
            return distances.smooth_l1_loss(&wanted_distances, 1.0)?.add(&angles);
        }
        let [own, taught] = alike(own, &self.teacher.maps(images)?)?;
        match (self.variant, &self.regressor) {
            (_, Some(regressor)) => regressor.forward(&own, Mode::Train)?.mse_loss(&taught),
            (Hint::AttentionTransfer, _) => attention(&own)?.mse_loss(&attention(&taught)?),
            _ => similarity(&own)?.mse_loss(&similarity(&taught)?),
        }
    }
}

impl Method for FeatureDistillation {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let [maps, logits] = self.student.maps_and_logits(images, Mode::Train)?;
        let (hard, hint) = (known_cross_entropy(&logits, &batch.labels)?, self.hint(&maps, images)?);
        let loss = hard.add(&hint.mul_scalar(self.weight)?)?;
        Ok(TrainStep { parts: vec![("hard".into(), hard), ("hint".into(), hint)], ..TrainStep::new(loss, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.student)
    }

    fn heads(&self) -> Vec<&str> {
        let head = self.student.backbone.head();
        if self.regressor.is_some() { vec![head, REGRESSOR] } else { vec![head] }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::gpu::Gpu;
    use crate::tensor::random::{Purpose, Stream};

    fn maps(gpu: &Gpu, shape: [usize; 4]) -> Tensor {
        let mut stream = Stream::new(1, Purpose::Test);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
        Tensor::from_slice(gpu, &values, shape).unwrap()
    }

    fn away(a: &Tensor, b: &Tensor) -> f32 {
        a.sub(b).unwrap().abs().unwrap().max(&[], false).unwrap().item().unwrap()
    }

    #[test]
    fn what_is_compared_does_not_depend_on_scale() {
        let gpu = Gpu::new().unwrap();
        let x = maps(&gpu, [5, 4, 4, 6]);
        let larger = x.mul_scalar(3.0).unwrap();
        assert!(away(&attention(&x).unwrap(), &attention(&larger).unwrap()) < 1e-6);
        assert!(away(&similarity(&x).unwrap(), &similarity(&larger).unwrap()) < 1e-6);
        let features = x.global_avg_pool2d().unwrap();
        let moved = features.mul_scalar(3.0).unwrap().add_scalar(2.0).unwrap();
        let ([distances, angles], [moved, turned]) = (relations(&features).unwrap(), relations(&moved).unwrap());
        assert!(away(&distances, &moved) < 1e-4 && away(&angles, &turned) < 1e-3);
        let mean = distances.sum(&[], false).unwrap().item().unwrap() / 20.0;
        approx::assert_abs_diff_eq!(mean, 1.0, epsilon = 1e-5);
        // Cosines of a triangle: between the ways from image 0 to 1 and to 2.
        let f: Vec<f32> = features.to_vec().unwrap();
        let way = |a: usize, b: usize| -> Vec<f32> { (0..6).map(|d| f[b * 6 + d] - f[a * 6 + d]).collect() };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let (a, b) = (way(0, 1), way(0, 2));
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        approx::assert_abs_diff_eq!(angles.to_vec::<f32>().unwrap()[7], cosine, epsilon = 1e-5);
    }

    #[test]
    fn images_that_are_the_same_have_finite_gradients() {
        let gpu = Gpu::new().unwrap();
        let x = Tensor::full(&gpu, [4, 3], 1.0, DType::F32).unwrap().watch();
        let [distances, angles] = relations(&x).unwrap();
        let loss = distances.mean(&[], false).unwrap().add(&angles.mean(&[], false).unwrap()).unwrap();
        let gradient = loss.backward().unwrap().get(&x).unwrap().to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|v| v.is_finite()), "{gradient:?}");
    }

    #[test]
    fn maps_of_two_sizes_meet_at_the_smaller_one() {
        let gpu = Gpu::new().unwrap();
        let [large, small] = [maps(&gpu, [2, 6, 4, 3]), maps(&gpu, [2, 3, 2, 5])];
        let [a, b] = alike(&large, &small).unwrap();
        assert_eq!((&a.shape()[..], &b.shape()[..]), (&[2, 3, 2, 3][..], &[2, 3, 2, 5][..]));
        let [b, a] = alike(&small, &large).unwrap();
        assert_eq!((&a.shape()[..], &b.shape()[..]), (&[2, 3, 2, 3][..], &[2, 3, 2, 5][..]));
        let message = alike(&large, &maps(&gpu, [2, 4, 4, 3])).unwrap_err().to_string();
        assert!(message.contains("[6, 4]") && message.contains("relational"), "{message}");
    }
}
