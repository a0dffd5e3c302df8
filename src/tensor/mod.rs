//! Tensors: contiguous, row-major, on the device. One type for everything; a parameter is a watched
//! tensor.

mod dtype;
mod input;
mod print;
pub mod random;
mod read;
pub(crate) mod rows;
mod shape;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use dtype::{DType, Element};
pub use input::InputShape;
pub(crate) use shape::check_sizes;
pub use shape::{Shape, Spec};

use crate::error::{Error, Result};
use crate::gpu::{Bind, Binding, Gpu, Kernel, Launch, Param, Scalar, kernel};
use crate::params;

static NUMBERS: Kernel = kernel!("gpu/numbers");

/// Where on the tape a tensor comes from; only `autograd` looks inside.
#[derive(Clone)]
pub(crate) struct Origin {
    pub node: Arc<dyn Any + Send + Sync>,
    pub output: usize,
}

struct Inner {
    gpu: Gpu,
    binding: Binding,
    spec: Spec,
    /// Raised by every kernel that writes the contents in place; shared by all views of them.
    version: Arc<AtomicU64>,
    origin: Option<Origin>,
}

/// A tensor on a device. Cloning copies the handle, not the contents.
#[derive(Clone)]
pub struct Tensor {
    inner: Arc<Inner>,
}

impl Bind for Tensor {
    fn binding(&self) -> Binding {
        self.inner.binding.clone()
    }

    fn rows(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }
}

/// The smallest and largest of integers; `None` for floats and for none.
fn integer_range<E: Element>(data: &[E]) -> Option<(i32, i32)> {
    let values = || data.iter().filter(|_| E::DTYPE == DType::I32).map(|v| v.to_f64() as i32);
    values().min().zip(values().max())
}

impl Tensor {
    /// A tensor whose contents are undefined: for a kernel that writes every element.
    ///
    /// # Errors
    /// Out of memory; a lost device; 2^32 elements or more; f16 on an adapter that cannot store it.
    pub fn empty(gpu: &Gpu, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let spec = Spec::new(shape, dtype);
        spec.check_room("tensor", gpu)?;
        let caps = gpu.capabilities();
        if dtype == DType::F16 && !caps.f16 {
            let message = "the adapter cannot store f16; keep the tensor in f32".to_string();
            return Err(Error::Limit { operator: "tensor".into(), message, adapter: caps.name.clone() });
        }
        let buffer = gpu.allocate(spec.bytes())?;
        let binding = Binding { buffer, offset: 0, bytes: spec.bytes(), storage: dtype.storage() };
        Ok(Self::assemble(gpu, binding, spec, Arc::default()))
    }

    fn assemble(gpu: &Gpu, binding: Binding, spec: Spec, version: Arc<AtomicU64>) -> Self {
        Self { inner: Arc::new(Inner { gpu: gpu.clone(), binding, spec, version, origin: None }) }
    }

    /// A tensor with the contents of `data`, in row-major order.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?;
    /// assert_eq!(x.sum(&[0], false)?.to_vec::<f32>()?, [5.0, 7.0, 9.0]);
    /// assert!(Tensor::from_slice(&gpu, &[1.0f32, 2.0], [2, 3]).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where `data` has not exactly the shape's number of elements; as
    /// [`Self::empty`].
    pub fn from_slice<E: Element>(gpu: &Gpu, data: &[E], shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.numel() != data.len() {
            return Err(Error::shape("tensor", format!("shape {shape} has {} elements, {} were given", shape.numel(), data.len())));
        }
        let tensor = Self::empty(gpu, shape, E::DTYPE)?;
        gpu.upload(&tensor.inner.binding, bytemuck::cast_slice(data))?;
        if E::DTYPE != DType::I32 {
            return Ok(tensor);
        }
        let range = integer_range(data);
        Ok(Self::assemble(gpu, tensor.inner.binding.clone(), Spec { range, ..tensor.spec().clone() }, tensor.inner.version.clone()))
    }

    /// A tensor with `value` everywhere, of any type.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::{DType, Tensor};
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// assert_eq!(Tensor::full(&gpu, [2, 2], 0.5, DType::F32)?.to_vec::<f32>()?, [0.5; 4]);
    /// assert_eq!(Tensor::full(&gpu, [3], -1, DType::I32)?.to_vec::<i32>()?, [-1; 3]);
    /// assert!(Tensor::full(&gpu, [3], 0.5, DType::I32).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for integers that are to hold another number; as [`Self::empty`].
    pub fn full(gpu: &Gpu, shape: impl Into<Shape>, value: impl Into<f64>, dtype: DType) -> Result<Self> {
        let value = value.into();
        let word = match dtype {
            DType::F32 => (value as f32).to_bits(),
            DType::F16 => u32::from(half::f16::from_f64(value).to_bits()) * 0x1_0001,
            DType::I32 if f64::from(value as i32) == value => (value as i32).cast_unsigned(),
            DType::I32 => return Err(Error::argument("full", format!("an i32 cannot hold {value}; give a whole number, or take f32"))),
        };
        let tensor = Self::empty(gpu, shape, dtype)?;
        gpu.fill(&tensor.inner.binding, word)?;
        Ok(tensor)
    }

    /// A tensor of zeros, of any type.
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn zeros(gpu: &Gpu, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        Self::full(gpu, shape, 0, dtype)
    }

    /// A tensor of ones, of any type.
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn ones(gpu: &Gpu, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        Self::full(gpu, shape, 1, dtype)
    }

    /// A scalar, shape `[]`.
    ///
    /// # Errors
    /// As [`Self::empty`].
    pub fn scalar(gpu: &Gpu, value: f32) -> Result<Self> {
        Self::full(gpu, [], value, DType::F32)
    }

    /// The device that holds it.
    pub fn gpu(&self) -> &Gpu {
        &self.inner.gpu
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.inner.spec.shape
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.inner.spec.dtype
    }

    /// Its shape, element type, and known range.
    pub fn spec(&self) -> &Spec {
        &self.inner.spec
    }

    /// How many elements it has.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// The same contents under another shape of as many elements, without a tape. The operator is
    /// `reshape`.
    pub(crate) fn view(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.numel() != self.numel() {
            return Err(Error::shape("reshape", format!("{} has {} elements, {shape} has {}", self.shape(), self.numel(), shape.numel())));
        }
        let spec = Spec { shape, ..self.spec().clone() };
        Ok(Self::assemble(self.gpu(), self.inner.binding.clone(), spec, self.inner.version.clone()))
    }

    /// `elements` of the contents from element `start` as a tensor of their own that shares memory
    /// (and version `version`). `start * 4` must be a multiple of 256.
    pub(crate) fn slot(&self, start: usize, shape: impl Into<Shape>, version: Arc<AtomicU64>) -> Tensor {
        let spec = Spec::new(shape, self.dtype());
        let whole = &self.inner.binding;
        let offset = whole.offset + start as u64 * self.dtype().bytes();
        let binding = Binding { buffer: whole.buffer.clone(), offset, bytes: spec.bytes(), storage: whole.storage };
        Self::assemble(self.gpu(), binding, spec, version)
    }

    /// The same contents, cut off from the tape: no gradient flows through the result.
    #[must_use]
    pub fn detach(&self) -> Tensor {
        if self.inner.origin.is_none() {
            return self.clone();
        }
        Self::assemble(self.gpu(), self.inner.binding.clone(), self.spec().clone(), self.inner.version.clone())
    }

    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.inner.origin.as_ref()
    }

    pub(crate) fn with_origin(&self, origin: Origin) -> Tensor {
        self.as_seen_by(self.gpu().clone(), Some(origin))
    }

    /// The same contents, at the same place of the tape, under another handle of their device.
    pub(crate) fn with_handle(&self, gpu: &Gpu) -> Tensor {
        self.as_seen_by(gpu.clone(), self.inner.origin.clone())
    }

    fn as_seen_by(&self, gpu: Gpu, origin: Option<Origin>) -> Tensor {
        let Inner { binding, spec, version, .. } = &*self.inner;
        let (binding, spec, version) = (binding.clone(), spec.clone(), version.clone());
        Tensor { inner: Arc::new(Inner { gpu, binding, spec, version, origin }) }
    }

    /// How often the contents have been changed in place.
    pub fn version(&self) -> u64 {
        self.inner.version.load(Ordering::Acquire)
    }

    /// Says that a kernel has written the contents in place.
    pub fn bump_version(&self) {
        let version = self.inner.version.clone();
        self.gpu().each_run(move || {
            version.fetch_add(1, Ordering::AcqRel);
        });
    }

    /// Replaces the contents by `data`, in recording order.
    ///
    /// # Errors
    /// [`Error::Shape`] where `data` does not fit; [`Error::Argument`] where integers leave the
    /// range that operators were told when the tensor was made (make a new one).
    pub fn write<E: Element>(&self, data: &[E]) -> Result<()> {
        if E::DTYPE != self.dtype() || data.len() != self.numel() {
            return Err(Error::shape("write", format!("{} {} elements do not fit into {}", data.len(), E::DTYPE, self.spec())));
        }
        self.check_range("write", integer_range(data))?;
        self.bump_version();
        self.gpu().upload(&self.inner.binding, bytemuck::cast_slice(data))
    }

    /// Replaces the contents, up to 8 numbers, by `values` as they are at each run of a captured
    /// program.
    ///
    /// # Errors
    /// [`Error::Shape`] where `values` do not fit; [`Error::Dtype`] where the tensor is not f32.
    pub fn write_scalars(&self, values: &[Scalar]) -> Result<()> {
        const MOST: usize = 8;
        if values.len() > MOST || values.len() != self.numel() {
            return Err(Error::shape("write_scalars", format!("{} numbers do not fit into {}; 8 are the most", values.len(), self.spec())));
        }
        self.bump_version();
        let rest = MOST - values.len();
        let numbers: Vec<Param> = values.iter().map(Param::from).chain(vec![Param::from(0.0); rest]).collect();
        Launch::new(self.gpu(), &NUMBERS, "numbers").write(self).params(&[params![values.len()], numbers.as_slice()].concat()).groups(1)
    }

    /// The same contents, of which operators are told that they lie in `range`, or, by `None`,
    /// nothing: a wider range than that of the numbers at hand, where others will be written over
    /// them.
    ///
    /// # Errors
    /// [`Error::Argument`] where the known range does not lie in it.
    pub fn with_range(&self, range: Option<(i32, i32)>) -> Result<Tensor> {
        let spec = Spec { range, ..self.spec().clone() };
        let wider = Self::assemble(self.gpu(), self.inner.binding.clone(), spec, self.inner.version.clone());
        wider.check_range("with_range", self.spec().range)?;
        Ok(wider)
    }

    /// Refuses integers outside the known range: shape rules rely on it.
    fn check_range(&self, call: &str, new: Option<(i32, i32)>) -> Result<()> {
        match (self.spec().range, new) {
            (None, _) => Ok(()),
            (Some((low, high)), Some((least, most))) if least >= low && most <= high => Ok(()),
            (Some((low, high)), _) => Err(Error::argument(
                call,
                format!("the new integers are not known to lie in {low}..={high}, as the old ones did; make a new tensor"),
            )),
        }
    }

    /// Replaces the contents by those of `source`, which has the same shape and type; nothing
    /// happens where it is this very tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] where the two differ; [`Error::Argument`] where they live on two devices.
    #[doc(alias = "copy_")]
    pub fn copy_from(&self, source: &Tensor) -> Result<()> {
        if source.gpu() != self.gpu() {
            return Err(Error::argument(
                "copy_from",
                "the two tensors live on different devices; read one back and upload it to the other",
            ));
        }
        if source.shape() != self.shape() || source.dtype() != self.dtype() {
            return Err(Error::shape("copy_from", format!("{} does not fit into {}", source.spec(), self.spec())));
        }
        self.check_range("copy_from", source.spec().range)?;
        let (from, to) = (&source.inner.binding, &self.inner.binding);
        if from.buffer.id() == to.buffer.id() {
            // No device copies within a buffer; two parameters of one slab go through a third
            // place.
            return if from.offset == to.offset { Ok(()) } else { self.copy_from(&source.copy()?) };
        }
        self.bump_version();
        self.gpu().copy(&source.inner.binding, &self.inner.binding, self.spec().bytes())
    }

    /// The same contents in memory of their own, off the tape.
    ///
    /// # Errors
    /// As [`Self::empty`].
    #[doc(alias = "clone")]
    pub fn copy(&self) -> Result<Tensor> {
        let memory = Self::empty(self.gpu(), self.shape(), self.dtype())?;
        self.gpu().copy(&self.inner.binding, &memory.inner.binding, self.spec().bytes())?;
        Ok(Self::assemble(self.gpu(), memory.inner.binding.clone(), self.spec().clone(), Arc::default()))
    }
}
