//! `softmax(x / temperature)` and its logarithm along any axis.

mod launch;
mod spec;

use crate::error::{Result, require_positive};
use crate::gpu::Scalar;
use crate::ops::entry::Entry;
use crate::ops::{
    Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, axes_before, exactly, require_float, rows_beside,
};
use crate::tensor::{Spec, Tensor};

/// Softmax or its logarithm.
#[derive(Debug, Clone)]
pub struct Softmax {
    dim: isize,
    temperature: Scalar,
    log: bool,
}

impl Softmax {
    /// Softmax along `dim` (-1 is the last) of the input divided by `temperature`.
    pub fn new(dim: isize, temperature: impl Into<Scalar>) -> Self {
        Self { dim, temperature: temperature.into(), log: false }
    }

    /// The logarithm of the same.
    pub fn log(dim: isize, temperature: impl Into<Scalar>) -> Self {
        Self { log: true, ..Self::new(dim, temperature) }
    }
}

impl Operator for Softmax {
    fn name(&self) -> &str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        require_float(self.name(), "x", x)?;
        require_positive(self.name(), "temperature", self.temperature.get())?;
        x.shape.axis(self.name(), self.dim)?;
        Ok(vec![x.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let y = Tensor::empty(x.gpu(), spec.shape.clone(), spec.dtype)?;
        launch::softmax(self, false, &[x], &y)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (y, dy) = (step.output(0)?, step.cotangent(0)?);
        let dx = Tensor::empty(y.gpu(), y.shape(), y.dtype())?;
        launch::softmax(self, true, &[y, &dy], &dx)?;
        Ok(vec![Some(dx)])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![0] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        rows_beside(inputs, inputs.first().and_then(|x| x.shape.axis(self.name(), self.dim).ok()))
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, self.dim)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn reference_backward(&self, inputs: &[Array], cotangents: &[Array], _: usize, elements: &[usize]) -> Result<Vec<f64>> {
        spec::reference_backward(self, inputs, cotangents, elements)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        // Comparing, subtracting, scaling, exp, adding, multiplying.
        Cost::streaming(inputs, outputs, 6.0)
    }
}

/// The lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name: &'static str, log: bool| Entry {
        name,
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[launch::KERNELS],
        build: Box::new(move |attributes: &Attributes| {
            let dim = attributes.integer_or("dim", -1)?;
            Ok(Box::new(Softmax { dim, temperature: (attributes.number_or("temperature", 1.0)? as f32).into(), log }))
        }),
        samples: Box::new(move || spec::samples(log)),
        bad: Box::new(move || spec::bad(log)),
    };
    vec![entry("softmax", false), entry("log_softmax", true)]
}

impl Tensor {
    /// `exp(x)` divided by its sum along `dim` (-1 is the last). The shape stays; nothing
    /// overflows.
    ///
    /// # Errors
    /// An axis that does not exist; integers; out of memory.
    pub fn softmax(&self, dim: isize) -> Result<Tensor> {
        self.softmax_with_temperature(dim, 1.0)
    }

    /// [`Self::softmax`] of `x / temperature`.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let x = Tensor::from_slice(&gpu, &[0.0f32, 4.0 * 3f32.ln()], [1, 2])?;
    /// let y = x.softmax_with_temperature(-1, 4.0)?.to_vec::<f32>()?; // along the last axis
    /// assert!((y[0] - 0.25).abs() < 1e-6 && (y[1] - 0.75).abs() < 1e-6);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A temperature not above 0; as [`Self::softmax`].
    pub fn softmax_with_temperature(&self, dim: isize, temperature: impl Into<Scalar>) -> Result<Tensor> {
        apply_one(Softmax::new(dim, temperature), &[self])
    }

    /// The logarithm of [`Self::softmax`], computed as `x - log(sum(exp(x)))`.
    ///
    /// # Errors
    /// As [`Self::softmax`].
    pub fn log_softmax(&self, dim: isize) -> Result<Tensor> {
        self.log_softmax_with_temperature(dim, 1.0)
    }

    /// [`Self::log_softmax`] of `x / temperature`.
    ///
    /// # Errors
    /// As [`Self::softmax_with_temperature`].
    pub fn log_softmax_with_temperature(&self, dim: isize, temperature: impl Into<Scalar>) -> Result<Tensor> {
        apply_one(Softmax::log(dim, temperature), &[self])
    }
}
