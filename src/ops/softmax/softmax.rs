//! `softmax(x / temperature)` and its logarithm along any axis.

use crate::error::{Result, require_positive};
use crate::gpu::{Knob, Launch, Scalar, Schedule, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply_one, axes_before, exactly, require_float, rows_beside};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(SOFTWARE = "softmax/softmax_software", GPU = "softmax/softmax_gpu");

/// Lanes of the workgroup that owns a row on GPUs.
const LANES: usize = 128;
/// The longest row that such a workgroup keeps in registers.
const IN_REGISTERS: usize = 1024;
/// Rows up to this length are a thread's on GPUs, too.
const SHORT: usize = 32;

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

    /// Forward: `tensors` is x, the result y. Backward: y and dy, the result dx.
    fn launch(&self, backward: bool, tensors: &[&Tensor], result: &Tensor) -> Result<()> {
        if result.numel() == 0 {
            return Ok(());
        }
        let shape = result.shape();
        let axis = shape.axis(self.name(), self.dim)?;
        let n = shape.dim(axis);
        let inner = shape.iter().skip(axis + 1).product::<usize>();
        let rows = result.numel() / n;
        let rate = self.temperature.map(|t| 1.0 / t);
        let capabilities = result.gpu().capabilities();
        // Two walks over a row; one too long for an invocation is shared by a workgroup on every schedule.
        let schedule = result.gpu().schedule("softmax/softmax.schedule", Knob::bucket(n));
        let shared = if schedule == Schedule::Gpu { n > SHORT } else { !capabilities.may_walk(2 * n) };
        let shared_rows = inner == 1 && shared;
        capabilities.check_walk(self.name(), if shared_rows { 3 * n.div_ceil(LANES) } else { 2 * n })?;
        let mut launch =
            Launch::new(result.gpu(), if shared_rows { &GPU } else { &SOFTWARE }, if backward { "backward" } else { "forward" })
                .storage(result.dtype().storage())
                .define("BACKWARD", backward)
                .define("LOG", self.log);
        for tensor in tensors {
            launch = launch.read(*tensor);
        }
        let launch = launch.write(result);
        if shared_rows {
            let width = if n.is_multiple_of(4) { 4 } else { 1 };
            let items = if n <= IN_REGISTERS { IN_REGISTERS / LANES / width } else { 0 };
            let walk = if items == 0 { 3 * rounds((n / width).div_ceil(LANES), 0) } else { 0 };
            return launch.define("WIDE", width == 4).define("ITEMS", items).params(params![n / width, rate]).walk(walk).groups(rows);
        }
        let (vec, rows, n, inner) = match (inner, n) {
            (1, n) if n.is_multiple_of(4) => ("rows", rows, n / 4, 1),
            (inner, n) if inner.is_multiple_of(4) => ("columns", rows / 4, n, inner / 4),
            (inner, n) => ("none", rows, n, inner),
        };
        let walk = rounds(n / 4, 0) + rounds(n.min(3), 0) + rounds(n, 0);
        launch.define("VEC", vec).params(params![rows, n, inner, rate]).walk(walk).invocations(rows)
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
        self.launch(false, &[x], &y)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (y, dy) = (step.output(0)?, step.cotangent(0)?);
        let dx = Tensor::empty(y.gpu(), y.shape(), y.dtype())?;
        self.launch(true, &[y, &dy], &dx)?;
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

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let axis = x.shape.axis(self.name(), self.dim)?;
        let t = f64::from(self.temperature.get());
        Ok(vec![Array::from_fn(&x.shape, |index| {
            let mut other = index.to_vec();
            let mut row = (0..x.shape.dim(axis)).map(|i| {
                if let Some(o) = other.get_mut(axis) {
                    *o = i;
                }
                x.at(&other) / t
            });
            let row: Vec<f64> = row.by_ref().collect();
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|v| (v - largest).exp()).sum();
            let z = x.at(index) / t - largest;
            if self.log { z - sum.ln() } else { z.exp() / sum }
        })])
    }

    fn reference_backward(&self, inputs: &[Array], cotangents: &[Array], _: usize, elements: &[usize]) -> Result<Vec<f64>> {
        let ([x], [dy]) = (exactly(self.name(), inputs)?, exactly(self.name(), cotangents)?);
        let p = Softmax { log: false, ..self.clone() }.reference(inputs)?;
        let [p] = exactly(self.name(), &p)?;
        let axis = x.shape.axis(self.name(), self.dim)?;
        let (n, inner) = (x.shape.dim(axis), x.shape.iter().skip(axis + 1).product::<usize>());
        let gradient = |&element: &usize| {
            let first = element / (n * inner) * n * inner + element % inner;
            let row = || (0..n).map(|i| first + i * inner);
            // The Jacobian: dp_j/dz_i = p_j ([i = j] - p_i), and d(log p_j)/dz_i = [i = j] - p_i.
            let terms = row().map(|j| {
                let same = f64::from(u8::from(j == element));
                dy.flat(j) * (same - p.flat(element)) * if self.log { 1.0 } else { p.flat(j) }
            });
            terms.sum::<f64>() / f64::from(self.temperature.get())
        };
        Ok(elements.iter().map(gradient).collect())
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        // Comparing, subtracting, scaling, exp, adding, multiplying.
        Cost::streaming(inputs, outputs, 6.0)
    }
}

fn samples(log: bool) -> Vec<Sample> {
    let cases: [(&[usize], isize, f32); 16] = [
        (&[1], 0, 1.0),
        (&[0, 5], 1, 1.0),
        (&[5], -1, 4.0),
        (&[3, 7], 1, 0.07),
        (&[3, 7], 0, 1.0),
        (&[7, 8], -1, 2.0),
        (&[33, 65], -1, 1.0),
        (&[65, 33], 0, 0.5),
        (&[3, 36], -1, 1.0),
        (&[2, 5, 3], 1, 1.0),
        (&[2, 5, 12], 1, 2.0),
        (&[3, 33, 8], -2, 1.0),
        (&[3, 516], -1, 0.1),
        (&[2, 1021], -1, 1.0),
        (&[2, 1025], -1, 1.0),
        (&[2, 2052], -1, 3.0),
    ];
    let operator = |dim, temperature: f32| Softmax { dim, temperature: temperature.into(), log };
    let mut samples: Vec<Sample> =
        cases.iter().map(|(shape, dim, t)| Sample::new(operator(*dim, *t), [normal_with(*shape, 3.0, 0.0)])).collect();
    for shape in [[4, 50], [3, 1300], [5, 7]] {
        samples.push(Sample::new(operator(-1, 1.0), [normal_with(shape, 200.0, 0.0)]));
        samples.push(Sample::new(operator(-1, 1.0), [normal_with(shape, 1.0, 1e4)]));
    }
    samples
}

fn bad(log: bool) -> Vec<Bad> {
    let operator = |dim, temperature: f32| Softmax { dim, temperature: temperature.into(), log };
    vec![
        Bad::new(operator(2, 1.0), [normal([3, 4])], "axis 2 is out of range for shape [3, 4]"),
        Bad::new(operator(-1, 1.0), [normal([])], "axis -1 is out of range for shape []"),
        Bad::new(operator(-1, f32::INFINITY), [normal([3, 4])], "temperature must be positive and finite, found inf"),
        Bad::new(operator(-1, 0.0), [normal([3, 4])], "temperature must be positive and finite, found 0"),
        Bad::new(operator(-1, f32::NAN), [normal([3, 4])], "temperature must be positive and finite, found NaN"),
        Bad::new(operator(-1, 1.0), [indices([3, 4], 2)], "x must hold floats, found i32 [3, 4]"),
    ]
}

/// The lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name: &'static str, log: bool| Entry {
        name,
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(move |attributes: &Attributes| {
            let dim = attributes.integer_or("dim", -1)?;
            Ok(Box::new(Softmax { dim, temperature: (attributes.number_or("temperature", 1.0)? as f32).into(), log }))
        }),
        samples: Box::new(move || samples(log)),
        bad: Box::new(move || bad(log)),
    };
    vec![entry("softmax", false), entry("log_softmax", true)]
}

impl Tensor {
    /// `exp(x)` divided by its sum along `dim` (-1 is the last). The shape stays; nothing overflows.
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
