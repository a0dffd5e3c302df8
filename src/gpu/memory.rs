//! Buffers of a device: made, filled, written, copied, in recording order.

use std::sync::Arc;

use super::command::Command;
use super::pool::{self, Buffer};
use super::{Bind, Binding, FILL, Gpu, Launch, POISON, Storage};
use crate::error::{Error, Result};

impl Gpu {
    /// A buffer of at least `bytes`, whose contents are undefined (NaN in poison mode).
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Arc<Buffer>> {
        self.check()?;
        if !self.inner.options.poison {
            return Ok(Arc::new(self.inner.pool.allocate(bytes)?));
        }
        let buffer = Arc::new(self.inner.pool.allocate(bytes.next_multiple_of(16) + pool::SENTINEL_BYTES)?);
        self.fill_words(&buffer, POISON)?;
        Ok(buffer)
    }

    fn fill_words(&self, buffer: &Arc<Buffer>, word: u32) -> Result<()> {
        let binding = Binding { buffer: buffer.clone(), offset: 0, bytes: buffer.bytes(), storage: Storage::I32 };
        self.fill(&binding, word)
    }

    /// Writes `word` to every 4 bytes of `binding` (f16 tensors: the word holds two elements).
    pub(crate) fn fill(&self, binding: &Binding, word: u32) -> Result<()> {
        struct Words(Binding);
        impl Bind for Words {
            fn binding(&self) -> Binding {
                self.0.clone()
            }
        }
        // In parts, so that a tensor may be larger than a binding.
        let most = (self.inner.capabilities.max_binding_bytes / pool::ALIGNMENT).max(1) * pool::ALIGNMENT;
        let bytes = binding.bytes.next_multiple_of(4);
        let mut start = 0;
        loop {
            let part = most.min(bytes - start);
            let words = Words(Binding { offset: binding.offset + start, bytes: part, storage: Storage::I32, ..binding.clone() });
            let count = part / 4;
            Launch::new(self, &FILL, "fill").write(&words).params(crate::params![count as u32, word]).invocations(count as usize)?;
            start += part;
            if start >= bytes {
                return Ok(());
            }
        }
    }

    /// Whether everything behind `binding`, rounded up to 16 bytes, still holds [`POISON`].
    pub(crate) fn sentinels_intact(&self, binding: &Binding) -> Result<bool> {
        if !self.inner.options.poison {
            return Err(Error::argument("sentinels", "there are none, because the device was made without GpuOptions::poison"));
        }
        let end = binding.offset + binding.bytes.next_multiple_of(16);
        let tail = Binding { offset: end, bytes: binding.buffer.bytes().saturating_sub(end), ..binding.clone() };
        let words = self.read_later(&tail)?.wait()?;
        Ok(words.len() as u64 >= pool::SENTINEL_BYTES && words.chunks_exact(4).all(|w| w == POISON.to_le_bytes()))
    }

    /// Copies `data` into `binding`, in recording order.
    pub(crate) fn upload(&self, binding: &Binding, data: &[u8]) -> Result<()> {
        self.check()?;
        if data.is_empty() {
            return Ok(());
        }
        let mut padded;
        let data = if data.len().is_multiple_of(4) {
            data
        } else {
            padded = data.to_vec();
            padded.resize(data.len().next_multiple_of(4), 0);
            &padded
        };
        self.not_capturing("an upload", "upload before it, or make the number a Scalar")?;
        if self.is_dry() {
            return Ok(());
        }
        self.recorder().upload(&self.inner.device, &self.inner.queue, &binding.buffer.raw, binding.offset, data)
    }

    /// Copies bytes between two different buffers, in recording order. Offsets and `bytes` are
    /// rounded to 4 by the caller.
    pub(crate) fn copy(&self, source: &Binding, target: &Binding, bytes: u64) -> Result<()> {
        self.check()?;
        if bytes > 0 {
            let command = Command::Copy {
                source: source.buffer.raw.clone(),
                source_offset: source.offset,
                target: target.buffer.raw.clone(),
                target_offset: target.offset,
                bytes: bytes.next_multiple_of(4),
            };
            let mut recorder = self.recorder();
            if let Some(recording) = recorder.recording() {
                recording.push(command.clone(), [source, target].into_iter().map(Binding::used));
            }
            if !self.is_dry() {
                recorder.push(command);
            }
        }
        Ok(())
    }
}
