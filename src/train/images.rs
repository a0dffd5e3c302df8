//! What the images of a recipe go through before its network: the same in training, evaluation and
//! prediction.

use std::sync::Arc;

use super::recipe::Recipe;
use super::recipe::tables::{DataTable, ValidationTable};
use crate::data::{AugmentStep, Augmentation, ChannelStatistics, Dataset, ImageOptions, PictureOptions, Split, open_with};
use crate::error::{Error, Result};
use crate::io::Preprocessing;
use crate::models;
use crate::tensor::InputShape;

/// Where the numbers to normalise by may come from: `auto` is `data` for a network that begins
/// anew, and what its weights expect for another. Texts are not normalised.
pub const NORMALIZATIONS: [&str; 4] = ["auto", "data", "imagenet", "inception"];

impl Recipe {
    /// One split of the recipe's data. Pictures, which come in many sizes, are cut to its resolution,
    /// but for those that random crops are taken from.
    ///
    /// # Errors
    /// As [`open_with`].
    pub fn open(&self, split: Split) -> Result<Dataset> {
        let mut image = ImageOptions::default();
        if self.data.resolution > 0 {
            image.size = self.data.resolution;
        }
        let DataTable { short_side, workers, memory_mib, skip_bad, .. } = self.data;
        let dataset = open_with(&self.data.path, split, PictureOptions { image, short_side, workers, memory_mib, skip_bad })?;
        if self.data.classes.is_empty() { Ok(dataset) } else { dataset.regrouped(&self.data.classes) }
    }

    /// The images to learn from, with their true labels: all of `dataset`, or as many of each class
    /// as the recipe says, by its seed, but those of classes to omit and those to be judged by
    /// ([`Self::held_out`]).
    ///
    /// # Errors
    /// A class with fewer images; one that does not exist.
    pub fn chosen(&self, dataset: Arc<Dataset>) -> Result<Arc<Dataset>> {
        let split = self.validation.split;
        let dataset = if split > 0.0 { Arc::new(dataset.subset(&dataset.share_indices(split, self.seed)?.1)?) } else { dataset };
        let chosen = |dataset: &Dataset| dataset.subset(&dataset.split_indices(self.data.per_class, self.seed)?.0);
        let dataset = if self.data.per_class == 0 { dataset } else { Arc::new(chosen(&dataset)?) };
        if self.data.omit.is_empty() { Ok(dataset) } else { dataset.without(&self.data.omit).map(Arc::new) }
    }

    /// The images of `dataset` that are not learnt from but judged by, with their true labels; `None`
    /// where the recipe holds none out.
    ///
    /// # Errors
    /// A class with a single image; one to omit that does not exist.
    pub fn held_out(&self, dataset: &Dataset) -> Result<Option<Arc<Dataset>>> {
        let ValidationTable { split, images, .. } = self.validation;
        if split == 0.0 {
            return Ok(None);
        }
        let held_out = dataset.subset(&dataset.share_indices(split, self.seed)?.0)?;
        let held_out = if self.data.omit.is_empty() { held_out } else { held_out.without(&self.data.omit)? };
        Ok(Some(Arc::new(if images == 0 { held_out } else { held_out.thinned(images)? })))
    }

    /// The images to learn from, with the labels that are learnt from: some may be wrong or hidden,
    /// as the recipe says.
    ///
    /// # Errors
    /// As [`Self::chosen`].
    pub fn labelled(&self, dataset: Arc<Dataset>) -> Result<Arc<Dataset>> {
        let mut dataset = self.chosen(dataset)?;
        if self.data.label_noise > 0.0 {
            dataset = Arc::new(dataset.with_noise(self.data.label_noise, self.seed)?);
        }
        if self.data.labels_per_class > 0 {
            dataset = Arc::new(dataset.hide(&dataset.split_indices(self.data.labels_per_class, self.seed)?.0));
        }
        Ok(dataset)
    }

    /// What the network is given for an image of `dataset`, or for a text, which comes as it is.
    pub fn input(&self, dataset: &Dataset) -> InputShape {
        let InputShape::Image([height, width, channels]) = dataset.input() else { return dataset.input() };
        let resolution = self.data.resolution;
        let [height, width] = if resolution > 0 { [resolution; 2] } else { [height, width] };
        InputShape::Image([height, width, if self.data.rgb { channels.max(3) } else { channels }])
    }

    /// The augmentation preset `name` for images of `dataset`, brought to the recipe's resolution,
    /// colours and normalisation; `dataset` is what was learnt from.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown preset or normalisation, or one of images where texts
    /// have none.
    pub fn preprocessing(&self, name: &str, seed: u32, dataset: &Dataset) -> Result<Augmentation> {
        let (InputShape::Image([height, width, channels]), InputShape::Image(own)) = (self.input(dataset), dataset.input()) else {
            let augmentation = Augmentation::preset(name, seed, [1; 2])?;
            if augmentation.steps.is_empty() {
                return Ok(augmentation);
            }
            return Err(Error::argument(
                "augmentation",
                format!("{} holds {}, which \"{name}\" does not take; set it to none", dataset.name(), dataset.input()),
            ));
        };
        let mut augmentation = Augmentation::preset(name, seed, [height, width])?;
        if dataset.has_many_sizes() {
            augmentation = augmentation.sized([height, width]);
        }
        if [height, width] != [own[0], own[1]] {
            resize(&mut augmentation.steps, [height, width]);
        }
        if channels != own[2] {
            augmentation.steps.push(AugmentStep::ToRgb);
        }
        Ok(augmentation.normalized(&self.statistics(dataset)?))
    }

    /// What makes each view of an image of `dataset`, by the presets that the recipe names:
    /// [`Views::names`](crate::data::Views::names); `views` are those of the method where one name
    /// serves for all.
    ///
    /// # Errors
    /// As [`Self::preprocessing`].
    pub fn views(&self, views: usize, dataset: &Dataset) -> Result<Vec<Augmentation>> {
        self.augmentation.views.names(views)?.into_iter().map(|name| self.preprocessing(name, self.seed, dataset)).collect()
    }

    pub(super) fn statistics(&self, dataset: &Dataset) -> Result<ChannelStatistics> {
        let published = models::preprocessing(&self.model.name).map(|p| (p.mean, p.std));
        let (mean, std) = match self.data.normalize.as_str() {
            "auto" if !self.finetune.weights.as_os_str().is_empty() => published?,
            "auto" | "data" => {
                let statistics = dataset.statistics()?;
                // A grey image's colours have its own statistics.
                let spread = |values: Vec<f32>| if values.len() == 1 { values.repeat(3) } else { values };
                return Ok(ChannelStatistics { mean: spread(statistics.mean), std: spread(statistics.std) });
            }
            "imagenet" => Preprocessing::IMAGENET,
            "inception" => Preprocessing::INCEPTION,
            other => return Err(Error::unknown("normalize", other, NORMALIZATIONS)),
        };
        Ok(ChannelStatistics { mean: mean.to_vec(), std: std.to_vec() })
    }
}

/// Gives results of the size `to`: by the random crop where there is one, else by a last step.
fn resize(steps: &mut Vec<AugmentStep>, to: [usize; 2]) {
    let crop = steps.iter_mut().find_map(|step| if let AugmentStep::RandomResizedCrop { size, .. } = step { Some(size) } else { None });
    match crop {
        Some(size) => *size = size.or(Some(to)),
        None => steps.push(AugmentStep::CenterResize { size: to, fraction: 1.0 }),
    }
}

/// Height and width of what `augmentation` makes of images of `size`.
pub(crate) fn result_size(augmentation: &Augmentation, size: [usize; 2]) -> [usize; 2] {
    augmentation.steps.iter().fold(size, |size, step| match step {
        AugmentStep::RandomResizedCrop { size: Some(to), .. } | AugmentStep::CenterResize { size: to, .. } => *to,
        _ => size,
    })
}
