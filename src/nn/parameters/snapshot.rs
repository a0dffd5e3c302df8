//! Copies of a whole home, and what kernels that write all of it must tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::chunk::{Chunk, resized};
use super::{Entry, Home, Parameters, Role, State, lock};
use crate::autograd::leaf;
use crate::error::Result;
use crate::tensor::{DType, Spec, Tensor};

impl Parameters {
    /// Gives back the memory that is kept for parameters to come, which is up to as much again.
    /// Optimizers and snapshots do this when they are made: what they keep has this layout.
    ///
    /// # Errors
    /// Out of memory.
    pub fn compact(&self) -> Result<()> {
        let mut state = lock(&self.home);
        let State { values, statistics, revision, .. } = &mut *state;
        let before = *revision;
        for chunk in values.iter_mut().chain(statistics).filter(|c| c.used < c.tensor.numel()) {
            chunk.tensor = resized(&self.home.gpu, &chunk.tensor, chunk.used)?;
            *revision += 1;
        }
        if *revision != before {
            self.home.gpu.invalidate_programs();
            self.home.gpu.empty_cache();
        }
        Ok(())
    }

    /// A copy whose values cannot be watched: build the same model from it for a teacher or a
    /// target network. Its layout is this one's, so an average moves it in one dispatch.
    ///
    /// # Errors
    /// Out of memory.
    pub fn snapshot(&self) -> Result<Parameters> {
        self.compact()?;
        let copy = Self::home(&self.home.gpu, self.home.seed, false);
        let state = lock(&self.home);
        let mut target = lock(&copy.home);
        let duplicate = |chunks: &[Chunk]| -> Result<Vec<Chunk>> {
            let copy = |chunk: &Chunk| {
                let tensor = Tensor::empty(&self.home.gpu, chunk.tensor.shape(), DType::F32)?;
                tensor.copy_from(&chunk.tensor)?;
                Ok(Chunk { tensor, used: chunk.used })
            };
            chunks.iter().map(copy).collect()
        };
        target.values = duplicate(&state.values)?;
        target.statistics = duplicate(&state.statistics)?;
        for entry in &state.entries {
            let slot = entry.slot.clone();
            let origin = leaf(&slot.name, &Spec::f32(slot.shape.clone()));
            target.entries.push(Entry { slot, version: Arc::default(), origin });
        }
        target.by_name = state.by_name.clone();
        for (at, name, counter) in &state.counters {
            target.counters.push((*at, name.clone(), Arc::new(AtomicU64::new(counter.load(Ordering::Relaxed)))));
        }
        drop(target);
        Ok(copy)
    }

    /// Takes all values and statistics of the home that this is a snapshot of.
    pub(crate) fn copy_from(&self, source: &Parameters) -> Result<()> {
        let chunks = |home: &Parameters| home.values().into_iter().chain(home.statistics());
        chunks(self).zip(chunks(source)).try_for_each(|(to, from)| to.copy_from(&from))?;
        self.take_counters(source);
        self.bump_versions(true);
        Ok(())
    }

    /// Takes the counters of the home that this is a snapshot of.
    pub(crate) fn take_counters(&self, source: &Parameters) {
        let of = |home: &Home| lock(home).counters.iter().map(|(_, _, counter)| counter.clone()).collect::<Vec<_>>();
        let pairs: Vec<_> = of(&self.home).into_iter().zip(of(&source.home)).collect();
        self.home.gpu.each_run(move || {
            for (to, from) in &pairs {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        });
    }

    /// Says that a kernel has written all values in place, and the `statistics` as well.
    pub(crate) fn bump_versions(&self, statistics: bool) {
        let written = |e: &&Entry| statistics || e.slot.role != Role::Statistic;
        let versions: Vec<_> = lock(&self.home).entries.iter().filter(written).map(|e| e.version.clone()).collect();
        self.home.gpu.each_run(move || {
            for version in &versions {
                version.fetch_add(1, Ordering::AcqRel);
            }
        });
    }

    /// One more optimizer step was taken.
    pub(crate) fn advance(&self) {
        let step = self.home.step.clone();
        self.home.gpu.each_run(move || {
            step.fetch_add(1, Ordering::Relaxed);
        });
    }
}
