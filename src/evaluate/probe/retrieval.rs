//! Retrieval@1: which image is closest to a view, by cosine of the features as they are?

use super::features::Features;
use crate::error::Result;
use crate::evaluate::argmax;
use crate::gpu::Gpu;

/// Parts of the queries for which the closest row is a right one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieval {
    /// The other view of the same image.
    pub instance: f64,
    /// Among views of other images, one of the same class.
    pub class: f64,
}

/// Looks for each row of `first` among all of `second`, which holds the other view of the same
/// images, of these classes. Of equally close rows the first counts as found.
///
/// # Errors
/// Rows of different widths; out of memory.
pub fn at_1(gpu: &Gpu, first: &Features, second: &Features, classes: &[i32]) -> Result<Retrieval> {
    let (mut instances, mut same_class) = (0, 0);
    first.cosines(gpu, second, |image, cosines| {
        instances += usize::from(argmax(cosines) == image);
        let mut others = cosines.to_vec();
        if let Some(own) = others.get_mut(image) {
            *own = f32::NEG_INFINITY;
        }
        let found = argmax(&others);
        same_class += usize::from(found != image && classes.get(found) == classes.get(image));
    })?;
    let part = |count: usize| count as f64 / first.len().max(1) as f64;
    Ok(Retrieval { instance: part(instances), class: part(same_class) })
}
