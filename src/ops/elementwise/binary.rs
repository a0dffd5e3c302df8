//! Pairs `y = f(a, b)` that broadcast by NumPy's rule, a row of a table each: the WGSL of `f`, of
//! its two partial derivatives times the upstream gradient `dy`, and `f` in float64.

use super::pointwise::{self, Pointwise};
use crate::error::{Error, Result};
use crate::ops::array::{maximum, minimum};
use crate::ops::entry::Entry;
use crate::ops::reduction::reduce;
use crate::ops::reduction::sum_to;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, uniform};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, broadcast_rows, every_axis, exactly};
use crate::tensor::{Spec, Tensor};

/// A pair's definition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Definition {
    /// PyTorch's name.
    pub name: &'static str,
    /// WGSL expression of `a` and `b`.
    pub forward: &'static str,
    /// `dy` times the derivatives by `a` and by `b`: WGSL expressions of `dy`, `a` and `b`.
    pub derivatives: [&'static str; 2],
    /// The same pair in float64.
    pub reference: fn(f64, f64) -> f64,
    /// Where samples of `a` and of `b` lie; normal values where there is no rule.
    domains: [Option<(f64, f64)>; 2],
}

const fn pair(name: &'static str, forward: &'static str, derivatives: [&'static str; 2], reference: fn(f64, f64) -> f64) -> Definition {
    Definition { name, forward, derivatives, reference, domains: [None, None] }
}

/// All pairs. Ties of `maximum` and `minimum` give half of the gradient to each side, as in
/// PyTorch.
pub(super) const PAIRS: &[Definition] = &[
    pair("add", "a + b", ["dy", "dy"], |a, b| a + b),
    pair("sub", "a - b", ["dy", "-dy"], |a, b| a - b),
    pair("mul", "a * b", ["dy * b", "dy * a"], |a, b| a * b),
    Definition { domains: [None, Some((0.5, 2.0))], ..pair("div", "a / b", ["dy / b", "-dy * (a / b) / b"], |a, b| a / b) },
    // WGSL's pow is exp2(b log2(a)): by 2^-21 |b| may it be off, relatively, where a is between 1/2
    // and 2. So the default tolerance holds for exponents up to 100.
    Definition {
        domains: [Some((0.3, 2.0)), None],
        ..pair(
            "pow",
            "power(a, b)",
            [
                "select(dy * b * power(a, b - V(1.0)), V(0.0), b == V(0.0))",
                "select(dy * power(a, b) * log(a), nothing_of(dy), (a == V(0.0)) & (b >= V(0.0)))",
            ],
            f64::powf,
        )
    },
    pair(
        "maximum",
        "maximum_v(a, b)",
        [
            "select(select(dy, V(0.5) * dy, a == b), V(0.0), (a < b) & !is_nan_v(a) & !is_nan_v(b))",
            "select(select(dy, V(0.5) * dy, a == b), V(0.0), (b < a) & !is_nan_v(a) & !is_nan_v(b))",
        ],
        maximum,
    ),
    pair(
        "minimum",
        "minimum_v(a, b)",
        [
            "select(select(dy, V(0.5) * dy, a == b), V(0.0), (a > b) & !is_nan_v(a) & !is_nan_v(b))",
            "select(select(dy, V(0.5) * dy, a == b), V(0.0), (b > a) & !is_nan_v(a) & !is_nan_v(b))",
        ],
        minimum,
    ),
];

/// Whether a WGSL expression reads the variable `name`.
pub(super) fn reads(expression: &str, name: &str) -> bool {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name)
}

/// A broadcasting pair.
#[derive(Debug, Clone)]
pub struct Binary {
    definition: Definition,
}

impl Binary {
    /// The pair called `name`.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none.
    pub fn named(name: &str) -> Result<Self> {
        let definition = PAIRS.iter().find(|d| d.name == name);
        definition.map(|d| Self { definition: *d }).ok_or_else(|| Error::argument("pair", format!("there is no pair called \"{name}\"")))
    }
}

impl Operator for Binary {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [a, b] = exactly(self.name(), inputs)?;
        if !a.dtype.is_float() || a.dtype != b.dtype {
            return Err(Error::dtype(self.name(), format!("it takes two tensors of one float type, found {a} and {b}; cast one first")));
        }
        Ok(vec![Spec::new(a.shape.broadcast(&b.shape, self.name())?, a.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([a, b], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let pair = Pointwise { expression: self.definition.forward, operands: &[("a", a), ("b", b)], constants: [0.0; 2] };
        Ok(vec![pair.run(self.name(), &spec.shape, spec.dtype)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let dy = step.cotangent(0)?;
        let gradient = |index: usize, expression: &str| -> Result<Option<Tensor>> {
            if !step.needs(index) {
                return Ok(None);
            }
            let shape = &step.input_spec(index)?.shape;
            if expression == "dy" {
                return sum_to(&dy, shape).map(Some);
            }
            let mut operands = vec![("dy", &dy)];
            for (input, name) in ["a", "b"].into_iter().enumerate().filter(|(_, name)| reads(expression, name)) {
                operands.push((name, step.input(input)?));
            }
            let full = Pointwise { expression, operands: &operands, constants: [0.0; 2] }.run(self.name(), dy.shape(), dy.dtype())?;
            sum_to(&full, shape).map(Some)
        };
        self.definition.derivatives.iter().enumerate().map(|(index, expression)| gradient(index, expression)).collect()
    }

    fn saves(&self) -> Saves {
        let read = |name: &str| self.definition.derivatives.iter().any(|d| reads(d, name));
        Saves { inputs: ["a", "b"].into_iter().enumerate().filter(|(_, n)| read(n)).map(|(i, _)| i).collect(), outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1]
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        broadcast_rows(inputs, outputs)
    }

    fn leading(&self, _: &[Spec], outputs: &[Spec]) -> usize {
        every_axis(outputs)
    }

    fn autocast(&self) -> Autocast {
        if self.definition.name == "pow" { Autocast::Full } else { Autocast::Widest }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [a, b] = exactly(self.name(), inputs)?;
        let shape = a.shape.broadcast(&b.shape, self.name())?;
        Ok(vec![Array::from_fn(shape, |index| (self.definition.reference)(broadcast_at(a, index), broadcast_at(b, index)))])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 1.0)
    }
}

/// The element that `array`, broadcast, has at `index`.
pub(super) fn broadcast_at(array: &Array, index: &[usize]) -> f64 {
    let missing = index.len().saturating_sub(array.shape.rank());
    let own: Vec<usize> = index.iter().skip(missing).zip(array.shape.iter()).map(|(i, size)| if *size == 1 { 0 } else { *i }).collect();
    array.at(&own)
}

/// Shapes that broadcast in every way: equal, a vector, a scalar, axes in the middle and on both
/// sides.
pub(super) const SHAPES: &[[&[usize]; 2]] = &[
    [&[], &[]],
    [&[0], &[1]],
    [&[7], &[7]],
    [&[3, 8], &[8]],
    [&[5, 7], &[7]],
    [&[5, 7], &[]],
    [&[1], &[6, 1]],
    [&[33, 1], &[1, 65]],
    [&[2, 3, 5, 12], &[2, 1, 1, 12]],
    [&[3, 5, 8], &[3, 5, 1]],
    [&[2, 1, 3, 1, 5, 1], &[1, 7, 1, 2, 1, 4]],
    [&[65, 33], &[65, 33]],
];

fn samples(definition: &Definition) -> Vec<Sample> {
    let input = |domain: Option<(f64, f64)>, shape: &[usize]| match domain {
        Some((low, high)) => uniform(shape, low, high),
        None => normal(shape),
    };
    let [left, right] = definition.domains;
    let operator = || Binary { definition: *definition };
    let mut samples: Vec<Sample> = SHAPES.iter().map(|[a, b]| Sample::new(operator(), [input(left, a), input(right, b)])).collect();
    // Where both inputs are one tensor it must lie in both domains; a tie has no derivative that
    // differences could find.
    if !matches!(definition.name, "maximum" | "minimum") {
        samples.push(Sample::new(operator(), [uniform([3, 5], 0.5, 2.0), Input::Same(0)]));
    }
    samples
}

fn bad(definition: &Definition) -> Vec<Bad> {
    let operator = || Binary { definition: *definition };
    vec![
        Bad::new(operator(), [normal([3])], "it takes 2 inputs, 1 were given"),
        Bad::new(operator(), [normal([3, 4]), normal([3])], "[3, 4] and [3] do not broadcast: 4 against 3"),
        Bad::new(operator(), [normal([3]), indices([3], 2)], "two tensors of one float type, found f32 [3] and i32 [3]"),
    ]
}

/// The pairs' lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |definition: &'static Definition| Entry {
        name: definition.name,
        module: module_path!(),
        inputs: &["a", "b"],
        outputs: &["y"],
        kernels: &[pointwise::KERNELS, reduce::KERNELS],
        build: Box::new(|_| Ok(Box::new(Binary { definition: *definition }))),
        samples: Box::new(|| samples(definition)),
        bad: Box::new(|| bad(definition)),
    };
    PAIRS.iter().map(entry).collect()
}

macro_rules! methods {
    ($($name:ident: $doc:literal),* $(,)?) => {
        impl Tensor {
            $(#[doc = $doc]
            /// The shapes broadcast by NumPy's rule (aligned at the last axis, sizes equal or 1).
            ///
            /// # Errors
            /// Shapes that do not broadcast; two element types; integers; out of memory.
            pub fn $name(&self, other: &Tensor) -> Result<Tensor> {
                apply_one(Binary::named(stringify!($name))?, &[self, other])
            })*
        }
    };
}

methods! {
    add: "`self + other`.", sub: "`self - other`.", mul: "`self * other`.", div: "`self / other`.",
    pow: "`self` to the power of `other`. A negative base has a real power only where the exponent is whole.",
    maximum: "The larger of the two; a tie gives half of the gradient to each.",
    minimum: "The smaller of the two; a tie gives half of the gradient to each.",
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tensor::DType;
    use crate::tensor::Shape;

    #[test]
    fn a_tie_shares_the_gradient() {
        let gpu = crate::gpu::Gpu::new().unwrap();
        let a = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0], [3]).unwrap().watch();
        let b = Tensor::from_slice(&gpu, &[1.0f32, 3.0, 2.0], [3]).unwrap().watch();
        let dy = Tensor::full(&gpu, [3], 1.0, DType::F32).unwrap();
        let gradients = a.maximum(&b).unwrap().backward_from(&dy).unwrap();
        assert_eq!(gradients.get(&a).unwrap().to_vec::<f32>().unwrap(), [0.5, 0.0, 1.0]);
        let gradients = a.minimum(&b).unwrap().backward_from(&dy).unwrap();
        assert_eq!(gradients.get(&b).unwrap().to_vec::<f32>().unwrap(), [0.5, 0.0, 1.0]);
        let same = a.maximum(&a).unwrap().backward_from(&dy).unwrap();
        assert_eq!(same.get(&a).unwrap().to_vec::<f32>().unwrap(), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn pow_takes_negative_bases() {
        let gpu = crate::gpu::Gpu::new().unwrap();
        let a = Tensor::from_slice(&gpu, &[-2.0f32, -2.0, 0.0, 0.0, -3.0], [5]).unwrap();
        let b = Tensor::from_slice(&gpu, &[2.0f32, 3.0, 0.0, 2.0, -1.0], [5]).unwrap();
        let y = a.pow(&b).unwrap().to_vec::<f32>().unwrap();
        for (found, expected) in y.iter().zip([4.0f32, -8.0, 1.0, 0.0, -1.0 / 3.0]) {
            approx::assert_abs_diff_eq!(*found, expected, epsilon = 1e-5);
        }
    }

    #[test]
    fn seven_separate_axes_are_refused() {
        let shape = |even: usize| Shape::from((0..14).map(|i| if i % 2 == even { 2 } else { 1 }).collect::<Vec<_>>());
        let gpu = crate::gpu::Gpu::new().unwrap();
        let (a, b) = (Tensor::full(&gpu, shape(0), 1.0, DType::F32).unwrap(), Tensor::full(&gpu, shape(1), 1.0, DType::F32).unwrap());
        assert!(a.add(&b).unwrap_err().to_string().contains("separate groups of axes"));
    }
}
