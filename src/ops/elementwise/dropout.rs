//! Dropout (Srivastava et al. 2014) and stochastic depth (`drop_path`; Huang et al. 2016). Masks
//! are recomputed from the counter in backward, never stored.

use std::ops::Range;

use crate::error::{Error, Result, require_share};
use crate::gpu::{Launch, Scalar};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, every_axis, exactly, require_float};
use crate::params;
use crate::tensor::random::{Purpose, threefry2x32};
use crate::tensor::{Spec, Tensor};

kernels!(DROPOUT = "elementwise/dropout");

/// Draws have this many values: 24 bits.
const DRAWS: f32 = 16_777_216.0;

/// What one draw decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// One element.
    Element,
    /// All elements of one index of axis 0.
    Row,
}

/// Random zeros, the rest scaled by 1 / (1 - p).
#[derive(Debug, Clone)]
pub struct Dropout {
    unit: Unit,
    p: f32,
    seed: u32,
    layer: u32,
    step: Scalar<u32>,
    /// The row that x begins with, where it is a piece of a larger tensor.
    first: usize,
}

impl Dropout {
    /// Drops each element with probability `p`. The mask follows from `seed`, the layer's number
    /// and the training step.
    pub fn elements(p: f32, seed: u32, layer: u32, step: impl Into<Scalar<u32>>) -> Self {
        Self { unit: Unit::Element, p, seed, layer, step: step.into(), first: 0 }
    }

    /// Drops each row (index of axis 0) as a whole.
    pub fn rows(p: f32, seed: u32, layer: u32, step: impl Into<Scalar<u32>>) -> Self {
        Self { unit: Unit::Row, ..Self::elements(p, seed, layer, step) }
    }

    fn key(&self) -> [u32; 2] {
        [self.seed, Purpose::Dropout.numbered(self.layer)]
    }

    /// Draws below this are dropped.
    fn threshold(&self) -> u32 {
        (self.p * DRAWS).round() as u32
    }

    fn scale(&self) -> f32 {
        if self.p < 1.0 { 1.0 / (1.0 - self.p) } else { 0.0 }
    }

    fn row(spec: &Spec) -> usize {
        spec.shape.iter().skip(1).product::<usize>().max(1)
    }

    fn launch(&self, x: &Tensor) -> Result<Tensor> {
        let y = Tensor::empty(x.gpu(), x.shape(), x.dtype())?;
        let (n4, row) = (y.numel().div_ceil(4), Self::row(x.spec()));
        let [seed, layer] = self.key();
        let first = if self.unit == Unit::Element { self.first * row / 2 } else { self.first };
        Launch::new(x.gpu(), &DROPOUT, "dropout")
            .storage(x.dtype().storage())
            .define("ELEMENTS", self.unit == Unit::Element)
            .define("ALIGNED", self.unit == Unit::Row && row.is_multiple_of(4))
            .read(x)
            .write(&y)
            .params(params![n4, row, seed, layer, &self.step, self.threshold(), self.scale(), first])
            .invocations(n4)?;
        Ok(y)
    }
}

impl Operator for Dropout {
    fn name(&self) -> &str {
        if self.unit == Unit::Element { "dropout" } else { "drop_path" }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        require_float(self.name(), "x", x)?;
        require_share(self.name(), "p", self.p)?;
        if self.layer >= 1 << 24 {
            return Err(Error::argument(self.name(), format!("layer must be below 2^24, found {}", self.layer)));
        }
        if self.unit == Unit::Row && x.shape.rank() == 0 {
            return Err(Error::shape(self.name(), "a scalar has no rows"));
        }
        Ok(vec![x.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x] = exactly(self.name(), inputs)?;
        Ok(vec![self.launch(x)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.launch(&step.cotangent(0)?)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, _: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        // One draw decides about two elements.
        let whole = self.unit == Unit::Row || outputs.first().is_some_and(|y| Self::row(y).is_multiple_of(2));
        if whole { vec![0] } else { Vec::new() }
    }

    fn leading(&self, _: &[Spec], outputs: &[Spec]) -> usize {
        if self.unit == Unit::Row { 1 } else { every_axis(outputs) }
    }

    fn piece(&self, rows: &Range<usize>) -> Option<Box<dyn Operator>> {
        Some(Box::new(Dropout { first: rows.start, ..self.clone() }))
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let row = Self::row(&Spec::f32(&x.shape));
        let kept = |element: usize| {
            let [first, second] = match self.unit {
                Unit::Element => threefry2x32(self.key(), [self.step.get(), (element / 2) as u32]),
                Unit::Row => threefry2x32(self.key(), [self.step.get(), (element / row) as u32]),
            };
            let bits = if self.unit == Unit::Element && element % 2 == 1 { second } else { first };
            bits >> 8 >= self.threshold()
        };
        let scale = f64::from(self.scale());
        let data = x.data.iter().enumerate().map(|(i, v)| if kept(i) { v * scale } else { v * 0.0 }).collect();
        Ok(vec![Array::new(&x.shape, data)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 1.0)
    }
}

fn samples(unit: Unit) -> Vec<Sample> {
    let shapes: [&[usize]; 7] = [&[1], &[0], &[5], &[7, 3], &[33, 65], &[9, 2, 8], &[130, 4]];
    let operator = |p, layer, step: u32| Dropout { unit, p, seed: 7, layer, step: step.into(), first: 0 };
    let mut samples: Vec<Sample> =
        shapes.iter().enumerate().map(|(i, shape)| Sample::new(operator(0.3, i as u32, 11), [normal(*shape)])).collect();
    samples.extend([0.0, 0.9, 1.0].map(|p| Sample::new(operator(p, 0, u32::MAX), [normal([65, 7])])));
    samples
}

fn bad(unit: Unit) -> Vec<Bad> {
    let operator = |p, layer| Dropout { unit, p, seed: 7, layer, step: 0.into(), first: 0 };
    let mut bad = vec![
        Bad::new(operator(1.5, 0), [normal([3])], "p must lie in 0..=1, found 1.5"),
        Bad::new(operator(f32::NAN, 0), [normal([3])], "found NaN"),
        Bad::new(operator(0.5, 1 << 24), [normal([3])], "layer must be below 2^24"),
        Bad::new(operator(0.5, 0), [indices([3], 2)], "x must hold floats, found i32 [3]"),
    ];
    if unit == Unit::Row {
        bad.push(Bad::new(operator(0.5, 0), [normal([])], "a scalar has no rows"));
    }
    bad
}

/// The lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name: &'static str, unit: Unit| Entry {
        name,
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(move |attributes: &Attributes| {
            let word = |name: &str| attributes.size_or(name, 0).map(|v| v as u32);
            let (seed, layer, step) = (word("seed")?, word("layer")?, word("step")?);
            Ok(Box::new(Dropout { unit, p: attributes.number_or("p", 0.5)? as f32, seed, layer, step: step.into(), first: 0 }))
        }),
        samples: Box::new(move || samples(unit)),
        bad: Box::new(move || bad(unit)),
    };
    vec![entry("dropout", Unit::Element), entry("drop_path", Unit::Row)]
}

impl Tensor {
    /// Each element is 0 with probability `p`, else divided by `1 - p`. The mask follows from the
    /// run's `seed`, the number of the layer and the training step, on every adapter alike.
    ///
    /// # Errors
    /// `p` outside 0..=1; a layer of 2^24 or more; integers; out of memory.
    pub fn dropout(&self, p: f32, seed: u32, layer: u32, step: impl Into<Scalar<u32>>) -> Result<Tensor> {
        // The backward pass must see the same step, whatever has been counted until then.
        apply_one(Dropout::elements(p, seed, layer, self.gpu().pin(&step.into())), &[self])
    }

    /// Stochastic depth: each row (index of axis 0) is 0 as a whole with probability `p`, else
    /// divided by `1 - p`.
    ///
    /// # Errors
    /// As [`Self::dropout`]; a scalar.
    pub fn drop_path(&self, p: f32, seed: u32, layer: u32, step: impl Into<Scalar<u32>>) -> Result<Tensor> {
        apply_one(Dropout::rows(p, seed, layer, self.gpu().pin(&step.into())), &[self])
    }
}
