//! Batches of a data set, in a random order that can be repeated, prepared ahead on another thread.

use std::ops::Range;
use std::sync::Arc;

use super::batch::HostBatch;
use super::dataset::Dataset;
use super::epoch::Epoch;
use crate::error::{Error, Result};
use crate::ops::loss::HIDDEN;
use crate::tensor::random::{Purpose, Stream};

/// Batches that wait ready while one is being used.
const PREFETCH: usize = 2;

/// How a [`Loader`] cuts a data set into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Images in a batch.
    pub batch_size: usize,
    /// Decides the order, together with the epoch.
    pub seed: u32,
    /// A new random order each epoch; otherwise the order of the data set.
    pub shuffle: bool,
    /// Leave out the last batch of an epoch where it is not full.
    pub drop_last: bool,
    /// The first so many images of each batch are some whose labels are known, and the others are
    /// not: an epoch is then all of these, and those with labels come again and again. 0: all
    /// images alike.
    pub labelled: usize,
    /// How many shards a batch consists of: of each kind of images every one has as many.
    pub shards: usize,
}

impl LoaderOptions {
    /// Which rows of a batch, in the order of the epoch, belong to a shard: those of images with
    /// labels first.
    fn shard(&self, shard: usize) -> impl Iterator<Item = usize> {
        let run = |first: usize, rows: usize| {
            let each = rows / self.shards.max(1);
            first + shard * each..first + (shard + 1) * each
        };
        run(0, self.labelled).chain(run(self.labelled, self.batch_size.saturating_sub(self.labelled)))
    }
}

/// Cuts a data set into batches, epoch by epoch.
#[derive(Debug, Clone)]
pub struct Loader {
    dataset: Arc<Dataset>,
    options: LoaderOptions,
    /// Whether some labels are not known.
    hidden: bool,
    /// The places of images with labels and without, where batches are made of both.
    parts: Option<[Vec<u32>; 2]>,
    /// Pictures of many sizes come as they are.
    uncropped: bool,
}

impl Loader {
    /// A loader of `dataset`.
    ///
    /// # Errors
    /// When the batch size is 0, or exceeds the data set and incomplete batches are dropped: there
    /// would be no batch. When batches of images with and without labels are asked for, and there
    /// are none of one kind, or no room for the other.
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions) -> Result<Self> {
        let hidden = !dataset.is_labelled();
        let parts = (options.labelled > 0).then(|| parts(&dataset));
        let loader = Self { dataset, options, hidden, parts, uncropped: false };
        if let Some([known, others]) = &loader.parts {
            let message = format!(
                "{} of {} images have labels; {} of {} in a batch",
                known.len(),
                loader.dataset.len(),
                options.labelled,
                options.batch_size
            );
            if known.is_empty() || others.is_empty() || options.labelled >= options.batch_size {
                return Err(Error::argument("labelled_batch", message));
            }
        }
        let shards = options.shards;
        if shards == 0 || [options.batch_size, options.labelled].iter().any(|rows| !rows.is_multiple_of(shards)) {
            let (batch, labelled) = (options.batch_size, options.labelled);
            let message = format!("{shards} shards must divide the batch, {batch} images, and those of them with labels, {labelled}");
            return Err(Error::argument("parallel.shards", message));
        }
        let (size, images) = (options.batch_size, loader.dataset.len());
        if size == 0 || loader.batches() == 0 {
            let message = format!("expected a batch size of 1 to {images}, found {size}");
            return Err(Error::argument(format!("loader of {}", loader.dataset.name()), message));
        }
        Ok(loader)
    }

    /// For training: shuffled, without the incomplete batch.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn training(dataset: Arc<Dataset>, batch_size: usize, seed: u32) -> Result<Self> {
        Self::new(dataset, LoaderOptions { batch_size, seed, shuffle: true, drop_last: true, labelled: 0, shards: 1 })
    }

    /// For measuring: every image once, in the order of the data set.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn evaluation(dataset: Arc<Dataset>, batch_size: usize) -> Result<Self> {
        Self::new(dataset, LoaderOptions { batch_size, seed: 0, shuffle: false, drop_last: false, labelled: 0, shards: 1 })
    }

    /// The same loader, which gives pictures of many sizes as they are, for a random crop to choose
    /// from all of each; else, and of images of one size, the centre. What they go through then must
    /// begin with a [`RandomResizedCrop`](super::AugmentStep::RandomResizedCrop).
    #[must_use]
    pub fn uncropped(self) -> Self {
        Self { uncropped: true, ..self }
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// How it is cut into batches.
    pub fn options(&self) -> LoaderOptions {
        self.options
    }

    /// The number of batches in an epoch.
    pub fn batches(&self) -> usize {
        let (images, size) = match &self.parts {
            Some([_, others]) => (others.len(), self.options.batch_size.saturating_sub(self.options.labelled).max(1)),
            None => (self.dataset.len(), self.options.batch_size.max(1)),
        };
        if self.options.drop_last { images / size } else { images.div_ceil(size) }
    }

    /// The order of the images in an epoch: a function of the seed and the epoch alone.
    pub fn order(&self, epoch: u32) -> Vec<u32> {
        if let Some([known, others]) = &self.parts {
            return self.mixed(epoch, known, others);
        }
        // `Dataset::new` made sure that the length fits.
        let images = self.dataset.len() as u32;
        if self.options.shuffle {
            Stream::keyed(self.options.seed, Purpose::Shuffle.key(), epoch).permutation(images)
        } else {
            (0..images).collect()
        }
    }

    /// Batches that begin with images of `known` and go on with those of `others`: the latter in a
    /// new order each epoch, the former by rounds, each in a new order, that go on from epoch to
    /// epoch.
    fn mixed(&self, epoch: u32, known: &[u32], others: &[u32]) -> Vec<u32> {
        let (each, seed) = (self.options.labelled, self.options.seed);
        let rest = self.options.batch_size.saturating_sub(each).max(1);
        let shuffled = |among: &[u32], key: u32, number: u32| -> Vec<u32> {
            let order = Stream::keyed(seed, key, number).permutation(among.len() as u32);
            order.into_iter().filter_map(|place| among.get(place as usize).copied()).collect()
        };
        let first = u64::from(epoch) * (self.batches() * each) as u64;
        let (round, skip) = (first / known.len().max(1) as u64, first % known.len().max(1) as u64);
        let mut rounds = (round as u32..).flat_map(|round| shuffled(known, Purpose::Shuffle.numbered(1), round)).skip(skip as usize);
        let others = shuffled(others, Purpose::Shuffle.key(), epoch);
        let batch = |others: &[u32]| rounds.by_ref().take(each).chain(others.iter().copied()).collect::<Vec<_>>();
        others.chunks(rest).take(self.batches()).flat_map(batch).collect()
    }

    /// All batches of an epoch.
    pub fn epoch(&self, epoch: u32) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from `first_batch` on, the same as [`Loader::epoch`] gives after so
    /// many: for resuming. Past the end, the only item is an error.
    pub fn epoch_from(&self, epoch: u32, first_batch: usize) -> Epoch {
        self.epoch_of(epoch, first_batch, Self::gather)
    }

    /// As [`Self::epoch_from`], of each batch `shards` alone, one after the other; nothing else is
    /// read. Batches that are not full are not cut into shards: drop them.
    pub fn shards_from(&self, epoch: u32, first_batch: usize, shards: Range<usize>) -> Epoch<Vec<HostBatch>> {
        self.epoch_of(epoch, first_batch, move |loader, indices| {
            let rows = |shard| loader.options.shard(shard).filter_map(|row| indices.get(row).copied()).collect::<Vec<_>>();
            shards.clone().map(|shard| loader.gather(&rows(shard))).collect()
        })
    }

    /// What `gather` makes of the images of each batch.
    fn epoch_of<B: Send + 'static>(
        &self,
        epoch: u32,
        first_batch: usize,
        gather: impl Fn(&Self, &[u32]) -> Result<B> + Send + 'static,
    ) -> Epoch<B> {
        let name = format!("loader of {}", self.dataset.name());
        let batches = self.batches();
        let Some(remaining) = batches.checked_sub(first_batch) else {
            let message = format!("expected a first batch of 0 to {batches}, found {first_batch}");
            return Epoch::failed(Error::argument(name, message));
        };
        let loader = self.clone();
        Epoch::start(name, remaining, PREFETCH, move |sender| {
            // Sends batches until there are no more or no one listens.
            let order = loader.order(epoch);
            for indices in order.chunks(loader.options.batch_size.max(1)).skip(first_batch).take(remaining) {
                let batch = gather(&loader, indices);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        })
    }

    fn gather(&self, indices: &[u32]) -> Result<HostBatch> {
        // The order holds only indices of the data set, so nothing is passed over.
        let places: Vec<usize> = indices.iter().map(|index| *index as usize).collect();
        let read = if self.uncropped { Dataset::read_uncropped } else { Dataset::read };
        Ok(HostBatch { hidden: self.hidden, ..HostBatch::read(&self.dataset, &places, read)? })
    }
}

/// The places of images with labels, and of those without.
fn parts(dataset: &Dataset) -> [Vec<u32>; 2] {
    let (known, others): (Vec<_>, Vec<_>) = (0..).zip(dataset.labels()).partition(|(_, label)| **label != HIDDEN);
    [known, others].map(|part| part.into_iter().map(|(place, _)| place).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::dataset::tests::small;
    use super::*;

    fn batches(epoch: Epoch) -> Vec<HostBatch> {
        epoch.collect::<Result<_>>().unwrap()
    }

    #[test]
    fn evaluation_gives_every_image_once_in_order() {
        let loader = Loader::evaluation(Arc::new(small(10)), 4).unwrap();
        let found = batches(loader.epoch(0));
        assert_eq!(loader.batches(), 3);
        assert_eq!(found.iter().map(|b| b.labels.len()).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(found[2].indices, [8, 9]);
        assert_eq!(found[2].labels, [0, 1]);
        assert_eq!(found[2].samples.bytes(), &loader.dataset().samples().unwrap().bytes()[8 * 6..]);
    }

    #[test]
    fn training_shuffles_by_seed_and_epoch_and_drops_the_rest() {
        let dataset = Arc::new(small(50));
        let loader = Loader::training(dataset.clone(), 8, 1).unwrap();
        let first = batches(loader.epoch(0));
        assert_eq!(first.len(), 6);
        assert_eq!(first, batches(loader.epoch(0)));
        assert_ne!(first, batches(loader.epoch(1)));
        assert_ne!(first, batches(Loader::training(dataset.clone(), 8, 2).unwrap().epoch(0)));
        let mut seen = Vec::new();
        for batch in &first {
            for (i, &index) in batch.indices.iter().enumerate() {
                seen.push(index);
                assert_eq!(batch.samples.bytes()[i * 6..][..6], *dataset.image(index as usize).unwrap().unwrap());
                assert_eq!(Some(batch.labels[i]), dataset.label(index as usize));
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 48);
    }

    #[test]
    fn the_order_does_not_depend_on_the_batch_size() {
        let dataset = Arc::new(small(50));
        let all = |size| -> Vec<u32> {
            let loader = Loader::training(dataset.clone(), size, 1).unwrap();
            batches(loader.epoch(3)).into_iter().flat_map(|b| b.indices).take(40).collect()
        };
        assert_eq!(all(1), all(20));
    }

    #[test]
    fn resuming_gives_the_same_batches() {
        let loader = Loader::training(Arc::new(small(50)), 8, 1).unwrap();
        let whole = batches(loader.epoch(2));
        for first in 0..=6 {
            assert_eq!(batches(loader.epoch_from(2, first)), whole[first..]);
        }
        let mut past = loader.epoch_from(2, 7);
        assert!(past.next().unwrap().unwrap_err().to_string().contains("0 to 6, found 7"));
        assert!(past.next().is_none());
    }

    #[test]
    fn shards_are_the_batch_with_labels_spread_evenly() {
        let hidden = Arc::new(small(50).hide(&[4, 9, 30]));
        let options = LoaderOptions { batch_size: 8, seed: 1, shuffle: true, drop_last: true, labelled: 4, shards: 4 };
        let loader = Loader::new(hidden, options).unwrap();
        let (whole, shards) = (batches(loader.epoch_from(1, 2)), loader.shards_from(1, 2, 0..4).collect::<Result<Vec<_>>>().unwrap());
        assert_eq!(whole.len(), shards.len());
        for (batch, shards) in whole.iter().zip(&shards) {
            let rows = |from: usize| shards.iter().map(|shard| shard.indices[from]).collect::<Vec<_>>();
            assert_eq!([rows(0), rows(1)].concat(), batch.indices);
            assert!(shards.iter().all(|shard| shard.labels.len() == 2 && shard.labels[0] >= 0 && shard.labels[1] == HIDDEN));
        }
        let own = loader.shards_from(1, 2, 2..4).next().unwrap().unwrap();
        assert_eq!(own, shards[0][2..]);
        for (labelled, count) in [(3, 4), (4, 3), (4, 0)] {
            let error =
                Loader::new(loader.dataset().clone(), LoaderOptions { labelled, shards: count, ..options }).unwrap_err().to_string();
            assert!(error.contains("must divide the batch"), "{error}");
        }
    }

    #[test]
    fn batches_of_images_with_labels_and_without() {
        let dataset = small(50);
        let hidden = Arc::new(dataset.hide(&[4, 9, 30]));
        let options = LoaderOptions { batch_size: 8, seed: 1, shuffle: true, drop_last: true, labelled: 2, shards: 1 };
        let loader = Loader::new(hidden.clone(), options).unwrap();
        assert_eq!(loader.batches(), 47 / 6);
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for epoch in 0..3 {
            for batch in batches(loader.epoch(epoch)) {
                assert!(batch.hidden && batch.labels[..2].iter().all(|l| *l >= 0) && batch.labels[2..].iter().all(|l| *l == HIDDEN));
                known.extend_from_slice(&batch.indices[..2]);
                others.extend_from_slice(&batch.indices[2..]);
            }
            assert_eq!(batches(loader.epoch_from(epoch, 5)), batches(loader.epoch(epoch))[5..]);
        }
        // 7 batches a time 2 images a time 3 epochs: 14 rounds of the three images.
        assert_eq!([4, 9, 30].map(|place| known.iter().filter(|i| **i == place).count()), [14; 3]);
        let mut first = others[..42].to_vec();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 42);
        // What is left over is a batch, too, where it is not dropped: 7 full ones, and 5 images
        // beside their 2.
        let whole = Loader::new(hidden.clone(), LoaderOptions { drop_last: false, ..options }).unwrap();
        let found = batches(whole.epoch(1));
        assert_eq!((whole.batches(), found.len()), (8, 8));
        assert_eq!(found.iter().map(|b| b.indices.len()).collect::<Vec<_>>(), [8, 8, 8, 8, 8, 8, 8, 7]);
        assert!(found[7].labels[..2].iter().all(|l| *l >= 0) && found[7].labels[2..] == [HIDDEN; 5]);
        let mut seen: Vec<u32> = found.iter().flat_map(|b| b.indices[2..].to_vec()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq((0..50).filter(|i| ![4, 9, 30].contains(i))));
        assert_eq!(batches(whole.epoch_from(1, 6)), found[6..]);
        for (dataset, labelled) in [(hidden.clone(), 8), (Arc::new(dataset.clone()), 2), (Arc::new(dataset.hide(&[])), 2)] {
            let error = Loader::new(dataset, LoaderOptions { labelled, ..options }).unwrap_err().to_string();
            assert!(error.starts_with("labelled_batch"), "{error}");
        }
    }

    #[test]
    fn an_epoch_can_be_left_at_any_batch() {
        let loader = Loader::training(Arc::new(small(50)), 1, 1).unwrap();
        for taken in 0..6 {
            let mut epoch = loader.epoch(0);
            assert_eq!(epoch.size_hint(), (50, Some(50)));
            assert_eq!(epoch.by_ref().take(taken).filter(Result::is_ok).count(), taken);
        }
        // All threads were joined, and with them their share of the data set was given back.
        assert_eq!(Arc::strong_count(loader.dataset()), 1);
    }

    #[test]
    fn batch_sizes_without_a_batch_are_refused() {
        let dataset = Arc::new(small(10));
        assert!(Loader::training(dataset.clone(), 0, 1).is_err());
        assert!(Loader::evaluation(dataset.clone(), 0).is_err());
        let error = Loader::training(dataset.clone(), 11, 1).unwrap_err().to_string();
        assert!(error.contains("loader of small") && error.contains("1 to 10, found 11"), "{error}");
        assert_eq!(batches(Loader::evaluation(dataset, 11).unwrap().epoch(0)).len(), 1);
    }
}
