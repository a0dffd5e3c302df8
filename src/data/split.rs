//! Parts of a data set, chosen by a seed.

use super::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::tensor::random::{Purpose, Stream};

/// Where there is no split of its own, one image in so many of each class is held out for testing.
const HOLD_OUT: usize = 5;

/// Whether each of the images with `labels` is in the split: one in [`HOLD_OUT`] of each class is in
/// [`Split::Test`]. Which ones depends on the class's place and number of images alone.
pub(super) fn held_out(labels: &[i32], classes: usize, split: Split) -> Vec<bool> {
    let mut counts = vec![0; classes];
    let place = |label: i32| usize::try_from(label).unwrap_or(usize::MAX);
    labels.iter().filter_map(|label| counts.get_mut(place(*label)).map(|count: &mut u32| *count += 1)).for_each(drop);
    let orders = counts.iter().zip(0..).map(|(count, label)| {
        let order = Stream::keyed(0, Purpose::Split.numbered(label), 1).permutation(*count);
        order.into_iter().map(|place| (place as usize) < *count as usize / HOLD_OUT).collect::<Vec<_>>().into_iter()
    });
    let mut orders: Vec<_> = orders.collect();
    labels.iter().map(|label| orders.get_mut(place(*label)).and_then(Iterator::next).unwrap_or(false) == (split == Split::Test)).collect()
}

impl Dataset {
    /// The indices of `per_class` random images of every class, and those of all others, both
    /// ascending.
    ///
    /// With the same seed, a larger `per_class` only adds images: so runs with 10 and 100 labels a
    /// class are nested.
    ///
    /// # Errors
    /// When `per_class` is 0, or a class has fewer images.
    pub fn split_indices(&self, per_class: usize, seed: u32) -> Result<(Vec<usize>, Vec<usize>)> {
        if per_class == 0 {
            let message = "expected at least 1 image a class, found 0";
            return Err(Error::argument(format!("a split of {}", self.name()), message));
        }
        let enough = |class: &[usize], name: &str| match class.len() {
            found if found < per_class => {
                Err(Error::data(self.name(), format!("expected {per_class} images of class {name}, found {found}")))
            }
            _ => Ok(per_class),
        };
        self.parted(seed, enough)
    }

    /// As [`Self::split_indices`], a `share` of each class's images, at least one of them. Images whose
    /// class is not known are among the others.
    ///
    /// # Errors
    /// [`Error::Data`] where a class has a single image.
    pub fn share_indices(&self, share: f32, seed: u32) -> Result<(Vec<usize>, Vec<usize>)> {
        self.parted(seed, |class, name| match class.len() {
            1 => Err(Error::data(self.name(), format!("class {name} has a single image, of which no part can be held out"))),
            images => Ok(((images as f64 * f64::from(share)).round() as usize).clamp(1.min(images), images.saturating_sub(1))),
        })
    }

    /// So many random images of every class as `count` says of them and its name, and all others.
    fn parted(&self, seed: u32, count: impl Fn(&[usize], &str) -> Result<usize>) -> Result<(Vec<usize>, Vec<usize>)> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.classes()];
        for (index, &label) in self.labels().iter().enumerate() {
            if let Some(class) = usize::try_from(label).ok().and_then(|l| members.get_mut(l)) {
                class.push(index);
            }
        }
        let mut chosen = vec![false; self.len()];
        for ((label, class), name) in (0..).zip(&members).zip(self.class_names()) {
            let count = count(class, name)?;
            // `new` made sure that all lengths fit in a u32.
            let mut stream = Stream::keyed(seed, Purpose::Split.numbered(label), 0);
            let order = stream.permutation(class.len() as u32);
            for index in order.iter().take(count).filter_map(|&i| class.get(i as usize)) {
                if let Some(flag) = chosen.get_mut(*index) {
                    *flag = true;
                }
            }
        }
        let (first, rest): (Vec<_>, Vec<_>) = chosen.into_iter().enumerate().partition(|&(_, flag)| flag);
        let indices = |part: Vec<(usize, bool)>| part.into_iter().map(|(index, _)| index).collect();
        Ok((indices(first), indices(rest)))
    }

    /// `count` images at equal distances, or all where there are fewer.
    ///
    /// # Errors
    /// As [`Self::subset`].
    pub fn thinned(&self, count: usize) -> Result<Self> {
        let count = count.min(self.len());
        self.subset(&(0..count).map(|i| i * self.len() / count.max(1)).collect::<Vec<_>>())
    }

    /// `per_class` random images of every class, and all others: see [`Dataset::split_indices`].
    ///
    /// # Errors
    /// When `per_class` is 0, a class has fewer images, or no image would be left for the second
    /// part.
    pub fn split(&self, per_class: usize, seed: u32) -> Result<(Self, Self)> {
        let (first, rest) = self.split_indices(per_class, seed)?;
        if rest.is_empty() {
            return Err(Error::data(self.name(), format!("expected more than {per_class} images a class to split, found no more")));
        }
        Ok((self.subset(&first)?, self.subset(&rest)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::dataset::tests::small;

    #[test]
    fn splits_are_balanced_nested_and_repeatable() {
        let dataset = small(40);
        let (few, rest) = dataset.split_indices(2, 1).unwrap();
        let (more, _) = dataset.split_indices(5, 1).unwrap();
        assert_eq!((few.len(), rest.len(), more.len()), (8, 32, 20));
        assert!(few.iter().all(|i| more.contains(i) && !rest.contains(i)));
        assert!(few.is_sorted() && rest.is_sorted());
        assert_eq!(dataset.split_indices(2, 1).unwrap().0, few);
        assert_ne!(dataset.split_indices(2, 2).unwrap().0, few);
        let (labelled, others) = dataset.split(2, 1).unwrap();
        assert!((0..4).all(|c| labelled.labels().iter().filter(|&&l| l == c).count() == 2));
        assert_eq!(others.len(), 32);
        assert!(dataset.split(0, 1).is_err());
        assert!(dataset.split(10, 1).is_err());
        let error = dataset.split(11, 1).unwrap_err().to_string();
        assert!(error.contains("expected 11 images of class a, found 10"), "{error}");
    }
}
