//! What is kept of pictures that were read: all of them where there is room.
//!
//! Once there is none, what is kept stays and the rest is read anew each time: in a random order
//! over all pictures none is wanted sooner than another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::stored::Stored;
use crate::error::Result;

/// The decoded pictures of a data set, as far as there is room.
pub(super) struct Cache {
    /// Bytes that are left.
    left: AtomicUsize,
    images: Vec<OnceLock<Arc<[u8]>>>,
    stored: Vec<OnceLock<Arc<Stored>>>,
}

impl Cache {
    /// For `count` pictures, of `bytes` in all.
    pub fn new(count: usize, bytes: usize) -> Self {
        // Without room there is nothing to look for.
        let count = if bytes > 0 { count } else { 0 };
        Self {
            left: bytes.into(),
            images: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            stored: std::iter::repeat_with(OnceLock::new).take(count).collect(),
        }
    }

    pub fn image(&self, place: usize, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        self.kept(self.images.get(place), || read().map(Arc::from), |image| image.len())
    }

    pub fn stored(&self, place: usize, read: impl FnOnce() -> Result<Stored>) -> Result<Arc<Stored>> {
        self.kept(self.stored.get(place), || read().map(Arc::new), |picture| picture.pixels.len())
    }

    fn kept<T: Clone>(&self, slot: Option<&OnceLock<T>>, read: impl FnOnce() -> Result<T>, bytes: impl Fn(&T) -> usize) -> Result<T> {
        if let Some(known) = slot.and_then(OnceLock::get) {
            return Ok(known.clone());
        }
        let found = read()?;
        let take = |left: usize| left.checked_sub(bytes(&found));
        if let Some(slot) = slot
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            && slot.set(found.clone()).is_err()
        {
            // Another thread was first; its copy is the one that is kept.
            self.left.fetch_add(bytes(&found), Ordering::Relaxed);
        }
        Ok(found)
    }
}
