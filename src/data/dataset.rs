//! Labelled images or texts: in memory, or pictures on disk.

use std::borrow::Cow;

use super::pictures::Pictures;
use super::samples::Samples;
use super::statistics::{ChannelStatistics, ChannelSums};
use super::tasks::Task;
use crate::error::{Error, Result};
use crate::ops::loss::HIDDEN;
use crate::tensor::InputShape;

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// The part to learn from.
    Train,
    /// The part to measure on.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}

/// Where images or texts are.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// In memory.
    Held(Samples),
    /// On disk, to be read when they are wanted.
    Pictures(Pictures),
}

/// Labelled images of one size, or texts of one length: at least one, and every label has a class
/// ([`Dataset::new`] checks that) or is [hidden](Self::hide). What is said of images holds of
/// texts, too, where it is not of pixels.
///
/// Pictures of many sizes stay on disk: where they are looked at, each is cut to the one size, and a
/// picture that cannot be read is an error then.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    name: String,
    source: Source,
    labels: Vec<i32>,
    class_names: Vec<String>,
    tasks: Vec<Task>,
    /// Takes the place of its own.
    statistics: Option<ChannelStatistics>,
}

impl Dataset {
    /// A data set of `labels.len()` images of `size`, height, width and channels; `pixels` in NHWC
    /// order.
    ///
    /// # Errors
    /// Naming the data set: when it is empty, when sizes and counts do not match, or when a label
    /// has no class name.
    pub fn new(name: impl Into<String>, size: [usize; 3], pixels: Vec<u8>, labels: Vec<i32>, class_names: Vec<String>) -> Result<Self> {
        Self::of(name, Samples::Images { size, pixels }, labels, class_names)
    }

    /// A data set of `labels.len()` images or texts.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(name: impl Into<String>, samples: Samples, labels: Vec<i32>, class_names: Vec<String>) -> Result<Self> {
        let name = name.into();
        let wrong = |message: String| Err(Error::data(name.clone(), message));
        let shape = samples.shape();
        if shape.numel() == 0 {
            return wrong(format!("expected at least 1 pixel of 1 channel, or 1 token, found {shape}"));
        }
        if labels.len().checked_mul(shape.numel()) != Some(samples.numel()) {
            return wrong(format!("expected {} {shape}, found {} values", labels.len(), samples.numel()));
        }
        Self::checked(name, Source::Held(samples), labels, class_names)
    }

    /// A data set of pictures on disk.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn of_pictures(name: String, pictures: Pictures, labels: Vec<i32>, class_names: Vec<String>) -> Result<Self> {
        if pictures.len() != labels.len() {
            return Err(Error::data(name, format!("expected a label for each of {} pictures, found {}", pictures.len(), labels.len())));
        }
        Self::checked(name, Source::Pictures(pictures), labels, class_names)
    }

    fn checked(name: String, source: Source, labels: Vec<i32>, class_names: Vec<String>) -> Result<Self> {
        let wrong = |message: String| Err(Error::data(name.clone(), message));
        if labels.is_empty() {
            return wrong("expected at least one image, found none".to_string());
        }
        // Indices of images are u32, in batches and in random draws.
        if u32::try_from(labels.len()).is_err() {
            return wrong(format!("expected fewer than 2^32 images, found {}", labels.len()));
        }
        let classes = class_names.len();
        let has_class = |&label: &i32| usize::try_from(label).is_ok_and(|label| label < classes);
        if let Some((index, label)) = labels.iter().enumerate().find(|(_, label)| !has_class(label)) {
            return wrong(format!("expected labels of 0 to {} for {classes} classes, found {label} at image {index}", classes as i64 - 1));
        }
        Ok(Self { name, source, labels, class_names, tasks: Vec::new(), statistics: None })
    }

    /// What the data set is called in messages and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What one of them is.
    pub fn input(&self) -> InputShape {
        match &self.source {
            Source::Held(samples) => samples.shape(),
            Source::Pictures(pictures) => InputShape::Image(pictures.size()),
        }
    }

    /// Height, width and channels of the images; 1 channel is grey, 3 are red, green, blue.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the data set, where it is of texts.
    pub fn image_size(&self) -> Result<[usize; 3]> {
        self.input().image(&self.name)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never true; it is here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The images or texts, where they are in memory: pictures of many sizes are not.
    pub fn samples(&self) -> Option<&Samples> {
        match &self.source {
            Source::Held(samples) => Some(samples),
            Source::Pictures(_) => None,
        }
    }

    /// The pictures on disk, where it is of such.
    pub(super) fn pictures(&self) -> Option<&Pictures> {
        match &self.source {
            Source::Held(_) => None,
            Source::Pictures(pictures) => Some(pictures),
        }
    }

    /// Whether it is of pictures that each have a size of their own, which random crops are taken
    /// from: [`Loader::uncropped`](super::Loader::uncropped).
    pub fn has_many_sizes(&self) -> bool {
        self.pictures().is_some()
    }

    /// The images or texts at `indices`, in that order, all of one size; an index that does not exist
    /// is passed over.
    ///
    /// # Errors
    /// Of pictures on disk: [`Error::Io`], [`Error::Data`] naming one that cannot be read.
    pub fn read(&self, indices: &[usize]) -> Result<Samples> {
        match &self.source {
            Source::Held(samples) => Ok(samples.pick(indices.iter().copied())),
            Source::Pictures(pictures) => pictures.images(indices),
        }
    }

    /// As [`Self::read`], of pictures of many sizes each in its own.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_uncropped(&self, indices: &[usize]) -> Result<Samples> {
        match &self.source {
            Source::Held(samples) => Ok(samples.pick(indices.iter().copied())),
            Source::Pictures(pictures) => pictures.stored(indices),
        }
    }

    /// What the images or texts are known by: a checksum of them, or of the names and lengths of files
    /// on disk.
    pub fn fingerprint(&self) -> u32 {
        match &self.source {
            Source::Held(samples) => crc32fast::hash(samples.bytes()),
            Source::Pictures(pictures) => pictures.fingerprint(),
        }
    }

    /// One label an image.
    pub fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// The name of each label.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The number of classes; labels lie below it. A class may have no image.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// The pixels of one image, HWC; texts have none.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn image(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>> {
        match &self.source {
            Source::Held(Samples::Images { size, pixels }) => {
                let size = size.iter().product();
                let range = index.checked_mul(size).and_then(|start| Some(start..start.checked_add(size)?));
                Ok(range.and_then(|range| pixels.get(range)).map(Cow::Borrowed))
            }
            Source::Held(_) => Ok(None),
            Source::Pictures(_) if index >= self.len() => Ok(None),
            Source::Pictures(pictures) => match pictures.images(&[index])? {
                Samples::Images { pixels, .. } => Ok(Some(Cow::Owned(pixels))),
                _ => Ok(None),
            },
        }
    }

    /// The label of one image.
    pub fn label(&self, index: usize) -> Option<i32> {
        self.labels.get(index).copied()
    }

    /// What is known of the images beyond their class, by the file beside them.
    pub(super) fn own_tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The same images, of which `tasks` are known, too; each has a label for every image.
    pub(super) fn with_tasks(self, tasks: Vec<Task>) -> Self {
        Self { tasks, ..self }
    }

    /// Whether every label is known.
    pub fn is_labelled(&self) -> bool {
        !self.labels.contains(&HIDDEN)
    }

    /// The same images with these classes and labels. A label is that of a class, or [`HIDDEN`].
    ///
    /// # Errors
    /// When labels are not as many as images, or one has no class.
    pub fn relabelled(&self, class_names: Vec<String>, labels: Vec<i32>) -> Result<Self> {
        let wrong = |message: String| Err(Error::data(self.name.clone(), message));
        if labels.len() != self.len() {
            return wrong(format!("expected {} labels, one an image, found {}", self.len(), labels.len()));
        }
        let known = |label: &i32| *label == HIDDEN || usize::try_from(*label).is_ok_and(|label| label < class_names.len());
        if let Some(label) = labels.iter().find(|label| !known(label)) {
            return wrong(format!("expected labels of 0 to {}, found {label}", class_names.len() as i64 - 1));
        }
        Ok(Self { labels, class_names, ..self.clone() })
    }

    /// The same images, of which only those at `known` keep their labels.
    #[must_use]
    pub fn hide(&self, known: &[usize]) -> Self {
        let mut labels = vec![HIDDEN; self.len()];
        for &index in known {
            if let (Some(to), Some(label)) = (labels.get_mut(index), self.label(index)) {
                *to = label;
            }
        }
        Self { labels, ..self.clone() }
    }

    /// The images at `indices`, in that order; the classes stay.
    ///
    /// # Errors
    /// When `indices` is empty, or one is not below the length.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::data(self.name.clone(), "expected at least one image, found none"));
        }
        let label = |&index: &usize| {
            let unknown =
                || Error::argument(format!("a subset of {}", self.name), format!("expected indices below {}, found {index}", self.len()));
            self.label(index).ok_or_else(unknown)
        };
        let labels = indices.iter().map(label).collect::<Result<_>>()?;
        let source = match &self.source {
            Source::Held(samples) => Source::Held(samples.pick(indices.iter().copied())),
            Source::Pictures(pictures) => Source::Pictures(pictures.pick(indices)),
        };
        let (name, class_names) = (self.name.clone(), self.class_names.clone());
        let tasks = self.tasks.iter().map(|task| task.pick(indices)).collect();
        Ok(Self { name, source, labels, class_names, tasks, statistics: self.statistics.clone() })
    }

    /// The same images, to be normalised by the statistics of `other`: for a network that has
    /// learnt from those.
    ///
    /// # Errors
    /// As [`Self::statistics`].
    pub fn normalized_as(self, other: &Self) -> Result<Self> {
        Ok(Self { statistics: Some(other.statistics()?), ..self })
    }

    /// Mean and standard deviation of each channel over all images, in exact integer sums, or what
    /// [`Self::normalized_as`] says. Texts have no channels. Of pictures on disk it is those of 10,000
    /// at equal distances, or of all where there are fewer, each cut to the one size.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn statistics(&self) -> Result<ChannelStatistics> {
        match (&self.statistics, &self.source) {
            (Some(statistics), _) => Ok(statistics.clone()),
            (None, Source::Pictures(pictures)) => pictures.statistics(),
            (None, Source::Held(Samples::Images { size: [.., channels], pixels })) => {
                let mut sums = ChannelSums::new(*channels);
                sums.add(pixels);
                Ok(sums.statistics())
            }
            (None, Source::Held(_)) => Ok(ChannelStatistics { mean: Vec::new(), std: Vec::new() }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// `count` images of 2x1 pixels and 3 channels, in 4 classes by turns.
    pub(crate) fn small(count: usize) -> Dataset {
        let pixels = (0..count * 6).map(|i| i as u8).collect();
        let labels = (0..count as i32).map(|i| i % 4).collect();
        let names = ["a", "b", "c", "d"].map(String::from).to_vec();
        Dataset::new("small", [2, 1, 3], pixels, labels, names).unwrap()
    }

    #[test]
    fn images_and_labels() {
        let dataset = small(5);
        assert_eq!((dataset.len(), dataset.classes(), dataset.image_size().unwrap()), (5, 4, [2, 1, 3]));
        assert_eq!(*dataset.image(1).unwrap().unwrap(), [6, 7, 8, 9, 10, 11]);
        assert_eq!(dataset.label(4), Some(0));
        assert_eq!((dataset.image(5), dataset.label(5)), (Ok(None), None));
        assert_eq!(dataset.image(usize::MAX), Ok(None));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let names = || vec!["a".to_string(), "b".to_string()];
        let cases = [
            (Dataset::new("x", [1, 1, 1], vec![], vec![], names()), "at least one image"),
            (Dataset::new("x", [1, 0, 1], vec![], vec![0], names()), "1x0x1"),
            (Dataset::new("x", [2, 2, 1], vec![0; 7], vec![0; 2], names()), "found 7 values"),
            (Dataset::new("x", [usize::MAX, 2, 1], vec![0], vec![0], names()), "found 1 values"),
            (Dataset::new("x", [1, 1, 1], vec![0; 2], vec![0, 2], names()), "found 2 at image 1"),
            (Dataset::new("x", [1, 1, 1], vec![0], vec![-1], names()), "found -1"),
            (Dataset::new("x", [1, 1, 1], vec![0], vec![0], vec![]), "0 classes"),
        ];
        for (result, expected) in cases {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("x: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn subset_keeps_the_order_asked_for() {
        let dataset = small(5);
        let part = dataset.subset(&[3, 0, 3]).unwrap();
        assert_eq!(part.labels(), [3, 0, 3]);
        assert_eq!(part.image(0), dataset.image(3));
        assert_eq!(part.classes(), 4);
        assert!(dataset.subset(&[]).is_err());
        assert!(dataset.subset(&[5]).unwrap_err().to_string().contains("below 5, found 5"));
    }
}
