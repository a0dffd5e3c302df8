//! Pictures of many sizes that lie on disk and are read when they are wanted, by several threads:
//! a data set of them need not fit into memory.
//!
//! A picture is wanted in one of two forms. In its own shape, [`Stored`], no larger than what random
//! crops need: for training. And as an image of one size, cut from its centre: for what looks at all
//! pictures alike. What has been read is kept as long as there is room, so a small data set is
//! decoded once. Neither the number of threads nor what is kept changes a bit.
//!
//! | file | what it does |
//! |---|---|
//! | `options` | how pictures are read |
//! | `location` | where a picture's bytes lie: a file, or a part of one |
//! | `stored` | a picture in its own shape, no larger than need be |
//! | `cache` | what is kept of it |
//! | `labelled` | pictures with a label each, as a data set |
//! | `shards` | tar archives of pictures with labels |
//! | `list` | tables of files with labels |
//! | `packed` | one file of decoded pictures |

mod cache;
mod labelled;
mod list;
mod location;
mod options;
mod packed;
mod shards;
mod stored;

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

pub use self::options::PictureOptions;
pub use self::packed::{Packed, pack};

pub(super) use self::list::FORMAT as LIST_FORMAT;
pub(super) use self::location::Location;
pub(super) use self::packed::open as open_packed;
pub(super) use self::shards::FORMAT as SHARDS_FORMAT;

use self::cache::Cache;
use self::stored::Stored;
use super::dataset::Dataset;
use super::decoder::Limit;
use super::samples::Samples;
use super::statistics::{ChannelStatistics, ChannelSums};
use crate::error::{Error, Result};

/// Statistics are those of so many pictures at equal distances, or of all where there are fewer.
const MEASURED: usize = 10_000;
/// Pictures that are read at a time where all of them are.
const CHUNK: usize = 256;

/// What all parts of a data set share.
struct Shared {
    name: String,
    /// What paths are relative to.
    root: PathBuf,
    locations: Vec<Location>,
    options: PictureOptions,
    limit: Limit,
    pool: ThreadPool,
    cache: Cache,
}

/// Pictures on disk.
#[derive(Clone)]
pub(super) struct Pictures {
    shared: Arc<Shared>,
    /// Which of them, in which order.
    places: Arc<[u32]>,
    statistics: Arc<OnceLock<ChannelStatistics>>,
}

impl fmt::Debug for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pictures of {}", self.places.len(), self.shared.name)
    }
}

impl PartialEq for Pictures {
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places && self.shared.options == other.shared.options && self.shared.locations == other.shared.locations
    }
}

impl Pictures {
    /// Those at `locations`, below `root`.
    ///
    /// # Errors
    /// Options that mean nothing; threads that cannot be started; 2^32 pictures or more.
    pub fn new(name: &str, root: PathBuf, locations: Vec<Location>, options: PictureOptions) -> Result<Self> {
        options.check()?;
        let pool = ThreadPoolBuilder::new().num_threads(options.workers).thread_name(|i| format!("wgrad-pictures-{i}")).build();
        let pool = pool.map_err(|error| Error::data(name, format!("could not start threads that read pictures: {error}")))?;
        let last = u32::try_from(locations.len());
        let last = last.map_err(|_| Error::data(name, format!("expected fewer than 2^32 pictures, found {}", locations.len())))?;
        let cache = Cache::new(locations.len(), options.memory_mib << 20);
        let shared = Shared { name: name.into(), root, locations, options, limit: Limit::from_env()?, pool, cache };
        Ok(Self { shared: Arc::new(shared), places: (0..last).collect(), statistics: Arc::default() })
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Height, width and channels of a picture that is cut to one size.
    pub fn size(&self) -> [usize; 3] {
        let image = self.shared.options.image;
        [image.size, image.size, image.channels()]
    }

    /// Those at `indices` of these, in that order; one that does not exist is passed over.
    pub fn pick(&self, indices: &[usize]) -> Self {
        let places = indices.iter().filter_map(|index| self.places.get(*index).copied()).collect();
        Self { shared: self.shared.clone(), places, statistics: Arc::default() }
    }

    /// What they are known by: names, and lengths of files or checksums of pixels.
    pub fn fingerprint(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for location in self.locations() {
            location.identify(&mut sum);
        }
        sum.finalize()
    }

    fn locations(&self) -> impl Iterator<Item = &Location> {
        self.places.iter().filter_map(|place| self.shared.locations.get(*place as usize))
    }

    /// The images at `indices`, cut to one size.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`] naming the first picture, in this order, that cannot be read.
    pub fn images(&self, indices: &[usize]) -> Result<Samples> {
        let pixels = self.cut(indices, |shared, place| shared.cache.image(place, || shared.image(place)))?;
        Ok(Samples::Images { size: self.size(), pixels })
    }

    /// The bytes of images, each as `read` gives it.
    fn cut<B: Deref<Target = [u8]>>(&self, indices: &[usize], read: impl Fn(&Shared, usize) -> Result<B> + Sync) -> Result<Vec<u8>> {
        let bytes = self.size().iter().product();
        let mut pixels = zeros(&self.shared.name, indices.len().saturating_mul(bytes))?;
        self.each(indices, pixels.chunks_exact_mut(bytes), |shared, place, to| {
            to.copy_from_slice(&read(shared, place)?);
            Ok(())
        })?;
        Ok(pixels)
    }

    /// The pictures at `indices` in their own shapes.
    ///
    /// # Errors
    /// As [`Self::images`].
    pub fn stored(&self, indices: &[usize]) -> Result<Samples> {
        let options = self.shared.options;
        let slot = options.slot_bytes();
        let mut pixels = zeros(&self.shared.name, indices.len().saturating_mul(slot))?;
        let mut sizes = vec![[0; 2]; indices.len()];
        self.each(indices, pixels.chunks_exact_mut(slot).zip(&mut sizes).collect::<Vec<_>>(), |shared, place, (to, size)| {
            let picture = shared.stored(place)?;
            *size = picture.size;
            // No picture is larger than its slot: that is how slots are made.
            to.iter_mut().zip(picture.pixels.iter()).for_each(|(to, from)| *to = *from);
            Ok(())
        })?;
        Ok(Samples::Pictures { channels: options.image.channels(), slot, sizes, pixels })
    }

    /// The pictures at `indices`, as they are.
    fn read_stored(&self, indices: &[usize]) -> Result<Vec<Arc<Stored>>> {
        let mut found = vec![None; indices.len()];
        self.each(indices, &mut found, |shared, place, to| {
            *to = Some(shared.stored(place)?);
            Ok(())
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Does `read` with each of the pictures at `indices` and what belongs to it, on all threads.
    fn each<T: Send>(
        &self,
        indices: &[usize],
        with: impl IntoIterator<Item = T>,
        read: impl Fn(&Shared, usize, T) -> Result<()> + Sync,
    ) -> Result<()> {
        let places = indices.iter().map(|index| self.places.get(*index).map(|place| *place as usize));
        let work: Vec<_> = places.zip(with).collect();
        let done = |(place, with): (Option<usize>, T)| place.map_or(Ok(()), |place| read(&self.shared, place, with));
        let results: Vec<Result<()>> = self.shared.pool.install(|| work.into_par_iter().with_max_len(1).map(done).collect());
        results.into_iter().collect()
    }

    /// Mean and deviation of each channel of [`MEASURED`] images, exact sums as those of
    /// [`Dataset::statistics`](super::Dataset::statistics).
    ///
    /// # Errors
    /// As [`Self::images`].
    pub fn statistics(&self) -> Result<ChannelStatistics> {
        if let Some(known) = self.statistics.get() {
            return Ok(known.clone());
        }
        let count = self.len().min(MEASURED);
        let chosen: Vec<usize> = (0..count).map(|i| i * self.len() / count.max(1)).collect();
        let [.., channels] = self.size();
        let mut sums = ChannelSums::new(channels);
        for chunk in chosen.chunks(CHUNK) {
            // They are seen once, so there is no use in keeping them.
            sums.add(&self.cut(chunk, Shared::image)?);
        }
        Ok(self.statistics.get_or_init(|| sums.statistics()).clone())
    }

    /// Reads every picture once; those that cannot be read, and why.
    pub fn damaged(&self) -> Vec<(usize, Error)> {
        let try_each = || (0..self.len()).into_par_iter().filter_map(|index| self.damage(index).map(|error| (index, error))).collect();
        self.shared.pool.install(try_each)
    }

    fn damage(&self, index: usize) -> Option<Error> {
        let place = *self.places.get(index)? as usize;
        self.shared.stored(place).err()
    }
}

impl Shared {
    fn image(&self, place: usize) -> Result<Vec<u8>> {
        self.location(place)?.image(&self.root, self.options, self.limit)
    }

    fn stored(&self, place: usize) -> Result<Arc<Stored>> {
        let location = self.location(place)?;
        self.cache.stored(place, || location.stored(&self.root, self.options, self.limit))
    }

    fn location(&self, place: usize) -> Result<&Location> {
        let unknown = || Error::argument(&self.name, format!("expected a picture below {}, found {place}", self.locations.len()));
        self.locations.get(place).ok_or_else(unknown)
    }
}

/// A data set of pictures below `root`, with the class of each.
///
/// # Errors
/// As [`Pictures::new`] and [`Dataset::new`]; where bad ones are to be left out, when none is good.
pub(super) fn dataset(
    name: String,
    root: &Path,
    pictures: Vec<(Location, i32)>,
    class_names: Vec<String>,
    options: PictureOptions,
) -> Result<Dataset> {
    let (locations, labels): (Vec<_>, Vec<_>) = pictures.into_iter().unzip();
    let pictures = Pictures::new(&name, root.into(), locations, options)?;
    let dataset = Dataset::of_pictures(name, pictures.clone(), labels, class_names)?;
    let damaged = if options.skip_bad { pictures.damaged() } else { Vec::new() };
    if damaged.is_empty() {
        return Ok(dataset);
    }
    for (_, error) in &damaged {
        log::warn!("left out: {error}");
    }
    log::warn!("{}: {} of {} pictures cannot be read and are left out", dataset.name(), damaged.len(), dataset.len());
    let mut good = vec![true; dataset.len()];
    damaged.iter().filter_map(|(index, _)| good.get_mut(*index).map(|good| *good = false)).for_each(drop);
    dataset.subset(&(0..).zip(good).filter(|(_, good)| *good).map(|(index, _)| index).collect::<Vec<_>>())
}

fn zeros(name: &str, bytes: usize) -> Result<Vec<u8>> {
    let mut zeros = Vec::new();
    let none = |_| Error::data(name, format!("a batch of pictures needs {bytes} bytes of memory, and there are not; use a smaller one"));
    zeros.try_reserve_exact(bytes).map_err(none)?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}

#[cfg(test)]
mod tests;
