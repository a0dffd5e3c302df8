//! Inputs that an operator is tested, checked and timed on, made from a seed.

use super::{Array, Operator};
use crate::tensor::Shape;
use crate::tensor::random::{Purpose, Stream};

/// How one input of a sample is made.
#[derive(Debug, Clone)]
pub enum Input {
    /// Normal values.
    Normal {
        /// Shape.
        shape: Shape,
        /// Standard deviation.
        scale: f64,
        /// Mean.
        shift: f64,
    },
    /// Uniform values in `low..high`.
    Uniform {
        /// Shape.
        shape: Shape,
        /// Least value.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// Values in -2..2 without ties, so that max and sort have one gradient.
    Distinct(Shape),
    /// Whole numbers in `0..below`.
    Indices {
        /// Shape.
        shape: Shape,
        /// Upper bound.
        below: usize,
    },
    /// Given values.
    Values(Array),
    /// The same tensor as another input of the sample.
    Same(usize),
}

/// Standard normal values.
pub fn normal(shape: impl Into<Shape>) -> Input {
    Input::Normal { shape: shape.into(), scale: 1.0, shift: 0.0 }
}

/// Normal values with standard deviation `scale` around `shift`.
pub fn normal_with(shape: impl Into<Shape>, scale: f64, shift: f64) -> Input {
    Input::Normal { shape: shape.into(), scale, shift }
}

/// Uniform values in `low..high`.
pub fn uniform(shape: impl Into<Shape>, low: f64, high: f64) -> Input {
    Input::Uniform { shape: shape.into(), low, high }
}

/// Values without ties.
pub fn distinct(shape: impl Into<Shape>) -> Input {
    Input::Distinct(shape.into())
}

/// Whole numbers in `0..below`.
pub fn indices(shape: impl Into<Shape>, below: usize) -> Input {
    Input::Indices { shape: shape.into(), below }
}

/// An operator with the inputs to try it on.
pub struct Sample {
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// Its inputs.
    pub inputs: Vec<Input>,
}

impl Sample {
    /// `operator` on `inputs`.
    pub fn new(operator: impl Operator, inputs: impl Into<Vec<Input>>) -> Self {
        Self { operator: Box::new(operator), inputs: inputs.into() }
    }

    /// The inputs' values, always the same for the same seed, rounded to what the device will hold.
    pub fn arrays(&self, seed: u32) -> Vec<Array> {
        let mut arrays: Vec<Array> = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let mut stream = Stream::keyed(seed, Purpose::Test.key(), index as u32);
            let array = input.array(&mut stream, &arrays);
            arrays.push(array);
        }
        arrays
    }

    /// A cotangent for an output of this shape: normal values, never all ones.
    pub fn cotangent(shape: &Shape, seed: u32) -> Array {
        let mut stream = Stream::new(seed ^ 0x5bd1_e995, Purpose::Test);
        normal(shape).array(&mut stream, &[])
    }
}

impl Input {
    fn array(&self, stream: &mut Stream, before: &[Array]) -> Array {
        let fill = |shape: &Shape, f: &mut dyn FnMut() -> f64| {
            let data = (0..shape.numel()).map(|_| f64::from(f() as f32)).collect();
            Array::new(shape.clone(), data)
        };
        match self {
            Input::Normal { shape, scale, shift } => fill(shape, &mut || f64::from(stream.normal()) * scale + shift),
            Input::Uniform { shape, low, high } => fill(shape, &mut || f64::from(stream.uniform()) * (high - low) + low),
            Input::Distinct(shape) => {
                let n = shape.numel().max(1) as f64;
                let mut order = stream.permutation(u32::try_from(shape.numel()).unwrap_or(u32::MAX)).into_iter();
                fill(shape, &mut || f64::from(order.next().unwrap_or(0)) / n * 4.0 - 2.0)
            }
            Input::Indices { shape, below } => {
                let below = u32::try_from(*below).unwrap_or(u32::MAX);
                let array = fill(shape, &mut || f64::from(stream.below(below)));
                Array::integers(array.shape, array.data)
            }
            Input::Values(array) => array.clone(),
            Input::Same(index) => before.get(*index).cloned().unwrap_or_else(|| Array::zeros([])),
        }
    }
}

/// More than any size may be; on the way to 64 bits, and beyond what 32 and 31 hold.
pub const HOSTILE_SIZES: [usize; 6] =
    [usize::MAX, usize::MAX / 2, usize::MAX / 2 + 1, (u32::MAX as usize).saturating_add(1), 1 << 31, u32::MAX as usize];

/// Inputs that an operator must refuse, and words that the error must contain.
pub struct Bad {
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// The inputs to refuse.
    pub inputs: Vec<Input>,
    /// Part of the error's message.
    pub expect: &'static str,
}

impl Bad {
    /// `operator` must refuse `inputs` with a message that contains `expect`.
    pub fn new(operator: impl Operator, inputs: impl Into<Vec<Input>>, expect: &'static str) -> Self {
        Self { operator: Box::new(operator), inputs: inputs.into(), expect }
    }

    /// What `make` makes of each of [`HOSTILE_SIZES`] must refuse `inputs` with a message that
    /// contains `expect`.
    pub fn sizes<O: Operator>(make: impl Fn(usize) -> O, inputs: impl Into<Vec<Input>>, expect: &'static str) -> Vec<Self> {
        let inputs = inputs.into();
        HOSTILE_SIZES.iter().map(|size| Self::new(make(*size), inputs.clone(), expect)).collect()
    }
}
