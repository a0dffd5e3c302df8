//! How alike an encoder finds images: the cosines between two views of each of some test images, in
//! the order of their classes.

use std::sync::Arc;

use super::outputs::outputs;
use super::probe::TEST_VIEW;
use crate::data::Dataset;
use crate::error::{Error, Result, require_finite_rows};
use crate::gpu::Gpu;
use crate::models::Backbone;
use crate::tensor::Tensor;
use crate::train::recipe::Recipe;

/// Cosines of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Similarities {
    /// `[N, N]`: rows are the images' first views, columns their second ones.
    pub cosines: Vec<f32>,
    /// Each image's class, ascending.
    pub labels: Vec<i32>,
    /// The mean cosine of the two views of one image.
    pub same_image: f64,
    /// That of two images of one class.
    pub same_class: f64,
    /// That of images of two classes.
    pub other_class: f64,
}

/// Compares `per_class` images of each class of `test`, drawn by the recipe's seed and made into
/// views as in training; `train` is what the encoder was trained on.
///
/// # Errors
/// A class with fewer images; an augmentation that makes a single view; features that are not
/// finite; those of the device.
pub fn similarities(
    gpu: &Gpu,
    encoder: &dyn Backbone,
    recipe: &Recipe,
    [train, test]: [&Dataset; 2],
    per_class: usize,
) -> Result<Similarities> {
    let (mut chosen, _) = test.split_indices(per_class, recipe.seed)?;
    chosen.sort_by_key(|index| test.label(*index));
    let images = Arc::new(test.subset(&chosen)?);
    let n = images.len();
    let matrix =
        |augmentation, view| Tensor::from_slice(gpu, &outputs(gpu, encoder, &images, augmentation, view)?, [n, encoder.features()]);
    let augmentations = recipe.views(2, train)?;
    let [first, second, ..] = augmentations.as_slice() else {
        return Err(Error::argument(
            "augmentation",
            format!("\"{}\" makes a single view, and two are compared", recipe.augmentation.views),
        ));
    };
    let (first, second) = (matrix(first, TEST_VIEW)?, matrix(second, TEST_VIEW + 1)?);
    let cosines: Vec<f32> = first.similarity_matrix(&second, 1.0)?.to_vec()?;
    require_finite_rows("cosines of features", &cosines, n)?;
    let labels = images.labels().to_vec();
    let mut sums = [(0.0, 0usize); 3];
    let rows = cosines.chunks_exact(n.max(1)).zip(&labels).enumerate();
    for (i, (row, label)) in rows {
        for (j, (cosine, other)) in row.iter().zip(&labels).enumerate() {
            let kind = if i == j { 0 } else { 1 + usize::from(label != other) };
            if let Some((sum, count)) = sums.get_mut(kind) {
                *sum += f64::from(*cosine);
                *count += 1;
            }
        }
    }
    let [same_image, same_class, other_class] = sums.map(|(sum, count)| sum / count as f64);
    Ok(Similarities { cosines, labels, same_image, same_class, other_class })
}
