//! Contents on their way to the host: blocking, or awaited.

use super::{DType, Element, Tensor};
use crate::error::{Error, Result};
use crate::gpu::Pending;

impl Tensor {
    /// A copy of the contents on the way to the host.
    ///
    /// # Errors
    /// A lost device or an earlier driver error.
    pub fn read_later(&self) -> Result<Pending> {
        self.gpu().read_later(&self.inner.binding)
    }

    /// Whether no kernel has written behind the contents (rounded up to 16 bytes) of a tensor with
    /// a buffer of its own: in [`GpuOptions::poison`](crate::gpu::GpuOptions) mode sentinels follow
    /// each. For tests; waits for the device.
    ///
    /// # Errors
    /// [`Error::Argument`] in any other mode; as [`Self::to_vec`].
    pub fn sentinels_intact(&self) -> Result<bool> {
        self.gpu().sentinels_intact(&self.inner.binding)
    }

    /// The contents, in row-major order, on the way to the host.
    ///
    /// # Errors
    /// [`Error::Dtype`] where `E` is not the element type; as [`Self::read_later`].
    pub fn to_vec_later<E: Element>(&self) -> Result<Pending<Vec<E>>> {
        if E::DTYPE != self.dtype() {
            return Err(Error::dtype("to_vec", format!("the tensor holds {}, {} was asked for", self.dtype(), E::DTYPE)));
        }
        Ok(self.read_later()?.map(|bytes| Ok(bytemuck::pod_collect_to_vec(&bytes))))
    }

    fn to_f64_later(&self) -> Result<Pending<Vec<f64>>> {
        fn wide<E: Element>(tensor: &Tensor) -> Result<Pending<Vec<f64>>> {
            Ok(tensor.to_vec_later::<E>()?.map(|values| Ok(values.into_iter().map(Element::to_f64).collect())))
        }
        match self.dtype() {
            DType::F32 => wide::<f32>(self),
            DType::F16 => wide::<half::f16>(self),
            DType::I32 => wide::<i32>(self),
        }
    }

    fn item_later(&self) -> Result<Pending<f32>> {
        let shape = self.shape().clone();
        Ok(self.to_f64_later()?.map(move |values| match values.as_slice() {
            [value] => Ok(*value as f32),
            _ => Err(Error::shape("item", format!("one element was expected, the shape is {shape}"))),
        }))
    }

    /// The contents, in row-major order. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Dtype`] where `E` is not the element type; a lost device or an earlier driver
    /// error.
    pub fn to_vec<E: Element>(&self) -> Result<Vec<E>> {
        self.to_vec_later()?.wait()
    }

    /// [`Self::to_vec`] without blocking.
    ///
    /// # Errors
    /// As [`Self::to_vec`].
    pub async fn to_vec_async<E: Element>(&self) -> Result<Vec<E>> {
        self.to_vec_later()?.await
    }

    /// The contents as f64, whatever the element type. Waits for the device.
    ///
    /// # Errors
    /// As [`Self::to_vec`].
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        self.to_f64_later()?.wait()
    }

    /// [`Self::to_f64`] without blocking.
    ///
    /// # Errors
    /// As [`Self::to_vec`].
    pub async fn to_f64_async(&self) -> Result<Vec<f64>> {
        self.to_f64_later()?.await
    }

    /// The value of a tensor of one element. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Shape`] where there is not exactly one element; as [`Self::to_vec`].
    pub fn item(&self) -> Result<f32> {
        self.item_later()?.wait()
    }

    /// [`Self::item`] without blocking.
    ///
    /// # Errors
    /// As [`Self::item`].
    pub async fn item_async(&self) -> Result<f32> {
        self.item_later()?.await
    }
}
