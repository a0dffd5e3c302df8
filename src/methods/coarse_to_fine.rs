//! Coarse to fine: of all images it is known which group of classes they belong to, of a few which
//! class. The loss is the mean of -log of the summed probability of the group's classes (the
//! candidates of partial labels: Feng et al. 2020, arXiv:2007.08929, `cc`), plus the weight times
//! the mean cross entropy of those whose class is known.

use serde::{Deserialize, Serialize};

use super::aligned_teacher::known_cross_entropy;
use super::partial_labels::{among, offsets};
use super::{Batch, Build, HIDDEN, Method, MethodCard, MethodContext, MethodFactory, Supervision, TrainStep, TrainedNetwork};
use crate::error::{Error, Result, require_not_negative};
use crate::models::{Backbone, Classifier};
use crate::nn::{Mode, Module, Parameters};
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

/// How coarse labels are learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoarseToFineConfig {
    /// Groups of classes, by their numbers: `[[5, 7, 9], [0, 2]]`. All other classes are one more
    /// group.
    pub coarse: Vec<Vec<usize>>,
    /// Images of each class whose class is known, chosen as the recipe's `labels_per_class` chooses
    /// them; of all others only the group is. (That key hides labels altogether.)
    pub fine_per_class: usize,
    /// The weight of the groups' loss; 0: only the known classes are learnt from.
    pub coarse_weight: f32,
}

impl Default for CoarseToFineConfig {
    fn default() -> Self {
        Self { coarse: Vec::new(), fine_per_class: 20, coarse_weight: 1.0 }
    }
}

/// The group of each of `classes`, where [`CoarseToFineConfig::coarse`] is `named`.
///
/// # Errors
/// [`Error::Argument`] for a class that there is not, or twice.
pub fn groups(named: &[Vec<usize>], classes: usize) -> Result<Vec<usize>> {
    let mut groups = vec![named.len(); classes];
    for (number, group) in named.iter().enumerate() {
        for class in group {
            let wrong = |what: &str| Error::argument("coarse", format!("{class} {what}"));
            let found = groups.get_mut(*class);
            let found = found.ok_or_else(|| wrong(&format!("is none of the classes 0 to {}", classes.saturating_sub(1))))?;
            if *found != named.len() {
                return Err(wrong("stands there twice"));
            }
            *found = number;
        }
    }
    Ok(groups)
}

/// The labels of `per_class` images of each class, [`HIDDEN`] for all others.
fn known(labels: &[i32], classes: usize, per_class: usize, seed: u32) -> Vec<i32> {
    let mut known = vec![HIDDEN; labels.len()];
    for class in 0..classes as i32 {
        let members: Vec<usize> = (0..).zip(labels).filter(|(_, label)| **label == class).map(|(place, _)| place).collect();
        let order = Stream::keyed(seed, Purpose::Split.numbered(class as u32), 0).permutation(members.len() as u32);
        for place in order.iter().take(per_class).filter_map(|at| members.get(*at as usize)) {
            known.get_mut(*place).into_iter().for_each(|label| *label = class);
        }
    }
    known
}

/// A classifier that is told groups of classes, and of a few images the class.
pub struct CoarseToFine {
    model: Classifier<Box<dyn Backbone>>,
    coarse_weight: f32,
    /// i32 `[images]`: each image's class where it is known.
    fine: Tensor,
    /// i32 `[images]`: each image's class, the number of classes where it is hidden, by which its
    /// row of `offsets` is found.
    coarse: Tensor,
    /// `[C + 1, C]`: what is added to logits, so that only the group's classes are left.
    offsets: Tensor,
}

impl MethodFactory for CoarseToFine {
    const CARD: MethodCard = MethodCard {
        name: "coarse_to_fine",
        title: "Learning from coarse labels",
        text: "Groups of classes are known of all images, classes of a few",
        supervision: Supervision::WeaklySupervised,
        family: "weak labels",
        year: 2020,
        authors: "Feng, Lv, Han, Xu, Niu and others",
        paper: "Provably Consistent Partial-Label Learning, arXiv:2007.08929, with groups of classes as candidates",
        related: &["partial_labels", "supervised"],
    };

    type Config = CoarseToFineConfig;

    fn new(params: &Parameters, build: Build, config: CoarseToFineConfig, context: &MethodContext) -> Result<Self> {
        require_not_negative(Self::CARD.name, "coarse_weight", config.coarse_weight)?;
        let (gpu, classes, labels) = (params.gpu(), context.classes, &context.labels);
        let groups = groups(&config.coarse, classes)?;
        let model = Classifier::new(params, build(params)?, classes)?;
        let same: Vec<bool> = groups.iter().flat_map(|own| groups.iter().map(move |other| own == other)).collect();
        let everything = vec![true; classes];
        let last = classes as i32;
        let coarse: Vec<i32> = labels.iter().map(|label| if *label == HIDDEN { last } else { *label }).collect();
        let fine = known(labels, classes, config.fine_per_class, context.seed);
        Ok(Self {
            model,
            coarse_weight: config.coarse_weight,
            fine: Tensor::from_slice(gpu, &fine, [fine.len()])?.with_range(Some((HIDDEN, last - 1)))?,
            coarse: Tensor::from_slice(gpu, &coarse, [coarse.len()])?.with_range(Some((0, last)))?,
            offsets: Tensor::from_slice(gpu, &offsets(&[same, everything].concat()), [classes + 1, classes])?,
        })
    }
}

impl Method for CoarseToFine {
    fn name(&self) -> &'static str {
        Self::CARD.name
    }

    fn loss(&self, batch: &Batch) -> Result<TrainStep> {
        let [images] = batch.exactly(self.name())?;
        let logits = self.model.forward(images, Mode::Train)?;
        let offsets = self.offsets.index_select(0, &self.coarse.index_select(0, &batch.indices)?)?;
        let coarse = among(&logits, &offsets)?;
        let fine = known_cross_entropy(&logits, &self.fine.index_select(0, &batch.indices)?)?;
        let loss = fine.add(&coarse.mul_scalar(self.coarse_weight)?)?;
        let parts = vec![("fine".into(), fine.detach()), ("coarse".into(), coarse.detach())];
        Ok(TrainStep { parts, ..TrainStep::new(loss, []) })
    }

    fn network(&self) -> TrainedNetwork<'_> {
        TrainedNetwork::Classifier(&self.model)
    }
}
