//! Reading back. Each read is a copy into a mappable buffer, recorded in order; what waits for it
//! waits for the submission that carries it, and for nothing recorded later.

use std::pin::Pin;

use super::Gpu;
use super::binding::Binding;
use super::command::Command;
use super::health;
use super::waiting::{Answer, Polled, block_on, unmapped};
use crate::error::{Error, Result};

/// A copy that has been recorded.
struct Copied {
    buffer: wgpu::Buffer,
    bytes: u64,
    /// The submission that carries it.
    serial: u64,
}

type Decode<T> = Box<dyn FnOnce(Vec<u8>) -> Result<T> + Send>;

/// A value on its way to the host: copied when this was made, and waited for by
/// [`wait`](Self::wait), which blocks, or by `.await`, which does not. It may be dropped at any
/// time.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::tensor::Tensor;
///
/// let gpu = wgrad::gpu::Gpu::new()?;
/// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2])?;
/// let squares = x.square()?.to_vec_later::<f32>()?; // the device works on
/// assert_eq!(squares.wait()?, [1.0, 4.0]);
///
/// // The same in an async function, of any executor or of a browser's event loop.
/// async fn largest(x: &Tensor) -> wgrad::error::Result<f32> {
///     x.max(&[], false)?.item_async().await
/// }
/// assert_eq!(pollster::block_on(largest(&x))?, 2.0);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read before `wait` or `.await`"]
pub struct Pending<T = Vec<u8>> {
    gpu: Gpu,
    /// `None` where there is nothing to copy.
    copied: Option<Copied>,
    decode: Decode<T>,
}

impl Gpu {
    /// Records a copy of `binding` to the host; later commands do not change what it reads.
    ///
    /// # Errors
    /// A lost device or an earlier driver error.
    pub fn read_later(&self, binding: &Binding) -> Result<Pending> {
        self.check()?;
        self.not_capturing("a host read", "read what it returns after a run")?;
        if !self.owns(binding) {
            return Err(Error::argument("read_later", "the binding lives on another device; read it by that one"));
        }
        let pending = |copied| Pending { gpu: self.clone(), copied, decode: Box::new(Ok) };
        if binding.bytes == 0 {
            return Ok(pending(None));
        }
        if self.is_dry() {
            let buffer = binding.buffer.raw.clone();
            return Ok(pending(Some(Copied { buffer, bytes: 0, serial: 0 })));
        }
        let bytes = binding.bytes.next_multiple_of(4);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let buffer = health::buffer(self.device(), Some("readback"), bytes, usage)?;
        let mut recorder = self.recorder();
        recorder.push(Command::Copy {
            source: binding.buffer.raw.clone(),
            source_offset: binding.offset,
            target: buffer.clone(),
            target_offset: 0,
            bytes,
        });
        let serial = recorder.serial();
        drop(recorder);
        Ok(pending(Some(Copied { buffer, bytes: binding.bytes, serial })))
    }
}

impl<T: 'static> Pending<T> {
    /// What `f` makes of the value, once it is there.
    pub fn map<U: 'static>(self, f: impl FnOnce(T) -> Result<U> + Send + 'static) -> Pending<U> {
        let Self { gpu, copied, decode } = self;
        Pending { gpu, copied, decode: Box::new(move |bytes| f(decode(bytes)?)) }
    }

    /// The value, waiting for the device where it is not there yet.
    ///
    /// # Errors
    /// A lost device; a kernel that did not end within the time limit; an earlier driver error; a
    /// dry device.
    pub fn wait(self) -> Result<T> {
        block_on(self.read(Polled::Here))
    }

    async fn read(self, polled: Polled) -> Result<T> {
        let Self { gpu, copied, decode } = self;
        let Some(Copied { buffer, bytes, serial }) = copied else { return decode(Vec::new()) };
        gpu.not_dry("a host read")?;
        gpu.check()?;
        if gpu.recorder().serial() == serial {
            gpu.flush()?;
        }
        let answer = Answer::to_mapping(&buffer);
        let submission = gpu.recorder().submission(serial);
        gpu.answered(&answer, submission, polled).await?;
        gpu.check_walks(polled).await?;
        let range = buffer.get_mapped_range(..).map_err(unmapped)?;
        let mut data = range.to_vec();
        data.truncate(bytes as usize);
        drop(range);
        buffer.unmap();
        decode(data)
    }
}

impl<T: 'static> IntoFuture for Pending<T> {
    type Output = Result<T>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read(Polled::Elsewhere))
    }
}
