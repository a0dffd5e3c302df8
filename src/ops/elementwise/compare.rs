//! Conditions for `where`: comparisons of pairs that broadcast, or of a tensor with a number, and
//! questions about each element; a row of a table each. They follow IEEE 754 by the bits, because
//! WGSL lets a compiler assume that there is no NaN.

use super::binary::{SHAPES, broadcast_at};
use super::pointwise::{self, Pointwise};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Autocast, Cost, Operator, apply_one, broadcast_rows, every_axis, exactly, require_float};
use crate::tensor::{DType, Spec, Tensor};

/// A condition's definition.
#[derive(Debug, Clone, Copy)]
struct Definition {
    /// PyTorch's name.
    name: &'static str,
    /// WGSL of `a` and, in a comparison, `b`.
    condition: &'static str,
    /// Its answer where `a` or `b` is NaN.
    unordered: bool,
    /// How many elements it is about.
    operands: usize,
    /// The same in float64.
    reference: fn(f64, f64) -> bool,
}

const fn comparison(name: &'static str, condition: &'static str, reference: fn(f64, f64) -> bool) -> Definition {
    Definition { name, condition, unordered: false, operands: 2, reference }
}

const fn question(name: &'static str, condition: &'static str, unordered: bool, reference: fn(f64, f64) -> bool) -> Definition {
    Definition { name, condition, unordered, operands: 1, reference }
}

#[allow(clippy::float_cmp)]
const CONDITIONS: &[Definition] = &[
    comparison("eq", "a == b", |a, b| a == b),
    Definition { unordered: true, ..comparison("ne", "a != b", |a, b| a != b) },
    comparison("lt", "a < b", |a, b| a < b),
    comparison("le", "a <= b", |a, b| a <= b),
    comparison("gt", "a > b", |a, b| a > b),
    comparison("ge", "a >= b", |a, b| a >= b),
    question("isnan", "a != a", true, |a, _| a.is_nan()),
    question("isinf", "(bitcast<I>(a) & I(0x7fffffff)) == I(0x7f800000)", false, |a, _| a.is_infinite()),
    question("isfinite", "(bitcast<I>(a) & I(0x7fffffff)) < I(0x7f800000)", false, |a, _| a.is_finite()),
];

/// 1 where a condition holds, else 0, as i32: of two tensors of one type, or of one and a number.
#[derive(Debug, Clone)]
pub struct Compare {
    definition: Definition,
    /// What the elements of the only tensor are compared with.
    other: Option<f32>,
}

impl Compare {
    /// The condition called `name`, of as many tensors as it is about.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none.
    pub fn named(name: &str) -> Result<Self> {
        let definition = CONDITIONS.iter().find(|d| d.name == name);
        let wrong = || Error::argument("condition", format!("there is no condition called \"{name}\""));
        Ok(Self { definition: *definition.ok_or_else(wrong)?, other: None })
    }

    /// The same, where it is a comparison, with a number in the place of the second tensor.
    #[must_use]
    pub fn with(self, other: f32) -> Self {
        Self { other: (self.definition.operands == 2).then_some(other), ..self }
    }

    /// The tensors that it takes.
    fn inputs(&self) -> usize {
        if self.other.is_some() { 1 } else { self.definition.operands }
    }
}

impl Operator for Compare {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        if self.inputs() == 1 {
            let [a] = exactly(self.name(), inputs)?;
            if self.definition.operands == 1 {
                require_float(self.name(), "x", a)?;
            }
            return Ok(vec![Spec::i32(&a.shape)]);
        }
        let [a, b] = exactly(self.name(), inputs)?;
        if a.dtype != b.dtype {
            return Err(Error::dtype(self.name(), format!("it takes two tensors of one type, found {a} and {b}; cast one first")));
        }
        Ok(vec![Spec::i32(a.shape.broadcast(&b.shape, self.name())?)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([a, rest @ ..], [spec]) = (inputs, outputs) else { return Ok(Vec::new()) };
        let mut operands = vec![("a", *a)];
        operands.extend(rest.iter().map(|b| ("b", *b)));
        // A number is a float, and so are integers beside it.
        let condition = if self.other.is_some() {
            self.definition.condition.replace('b', "V(p.a)").replacen('a', "V(a)", 1)
        } else {
            self.definition.condition.to_string()
        };
        let ordered = |name: &str| format!("((bitcast<I>({name}) & I(0x7fffffff)) <= I(0x7f800000))");
        let mut floats: Vec<String> =
            if a.dtype().is_float() { operands.iter().map(|(name, _)| ordered(name)).collect() } else { Vec::new() };
        if self.other.is_some_and(f32::is_nan) {
            floats.push("(I(0) != I(0))".into());
        }
        let answer = |holds: bool| format!("I({})", i32::from(holds));
        let expression = match floats.is_empty() {
            true => format!("select(I(0), I(1), {condition})"),
            false => format!("select({}, select(I(0), I(1), {condition}), {})", answer(self.definition.unordered), floats.join(" & ")),
        };
        let constants = [self.other.unwrap_or(0.0), 0.0];
        let pointwise = Pointwise { expression: &expression, operands: &operands, constants };
        Ok(vec![pointwise.run(self.name(), &spec.shape, spec.dtype)?])
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        broadcast_rows(inputs, outputs)
    }

    fn leading(&self, _: &[Spec], outputs: &[Spec]) -> usize {
        every_axis(outputs)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [a, rest @ ..] = inputs else { return exactly::<1, _>(self.name(), inputs).map(|_| Vec::new()) };
        let shape = rest.first().map_or(Ok(a.shape.clone()), |b| a.shape.broadcast(&b.shape, self.name()))?;
        let other = self.other.map_or(0.0, f64::from);
        let y = Array::from_fn(shape, |i| {
            let b = rest.first().map_or(other, |b| broadcast_at(b, i));
            f64::from(u8::from((self.definition.reference)(broadcast_at(a, i), b)))
        });
        Ok(vec![Array { dtype: DType::I32, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 1.0)
    }
}

/// Every kind of number, and those that lie beside each other.
fn edges() -> Vec<f64> {
    let (least, most) = (f64::from(f32::from_bits(0x0080_0000)), f64::from(f32::MAX));
    vec![f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, f64::from(1.0f32.next_up()), least, most, -most]
}

fn samples(definition: &Definition) -> Vec<Sample> {
    let operator = || Compare { definition: *definition, other: None };
    let column = || Input::Values(Array::new([12, 1], edges()));
    if definition.operands == 1 {
        let shapes: [&[usize]; 5] = [&[], &[0], &[7], &[3, 8], &[33, 65]];
        let mut samples: Vec<Sample> = shapes.iter().map(|shape| Sample::new(operator(), [normal(*shape)])).collect();
        samples.push(Sample::new(operator(), [column()]));
        return samples;
    }
    let mut samples: Vec<Sample> = SHAPES.iter().map(|[a, b]| Sample::new(operator(), [normal(*a), normal(*b)])).collect();
    samples.push(Sample::new(operator(), [column(), Input::Values(Array::new([1, 12], edges()))]));
    samples.push(Sample::new(operator(), [indices([5, 7], 3), indices([7], 3)]));
    samples.push(Sample::new(operator(), [normal([3, 5]), Input::Same(0)]));
    for other in [0.0, 1.0, f32::NAN, f32::INFINITY] {
        samples.push(Sample::new(operator().with(other), [column()]));
        samples.push(Sample::new(operator().with(other), [indices([3, 5], 3)]));
    }
    samples
}

fn bad(definition: &Definition) -> Vec<Bad> {
    let operator = || Compare { definition: *definition, other: None };
    if definition.operands == 1 {
        return vec![
            Bad::new(operator(), [indices([3], 2)], "x must hold floats"),
            Bad::new(operator(), [normal([3]), normal([3])], "it takes 1 inputs, 2 were given"),
        ];
    }
    vec![
        Bad::new(operator(), [normal([3])], "it takes 2 inputs, 1 were given"),
        Bad::new(operator().with(1.0), [normal([3]), normal([3])], "it takes 1 inputs, 2 were given"),
        Bad::new(operator(), [normal([3, 4]), normal([3])], "[3, 4] and [3] do not broadcast: 4 against 3"),
        Bad::new(operator(), [normal([3]), indices([3], 2)], "two tensors of one type, found f32 [3] and i32 [3]"),
    ]
}

fn build(definition: &Definition, attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let other = attributes.has("other").then(|| attributes.number("other")).transpose()?;
    let compare = Compare { definition: *definition, other: None };
    Ok(Box::new(other.map_or(compare.clone(), |other| compare.with(other as f32))))
}

/// The conditions' lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |definition: &'static Definition| Entry {
        name: definition.name,
        module: module_path!(),
        inputs: if definition.operands == 2 { &["a", "b"] } else { &["a"] },
        outputs: &["y"],
        kernels: &[pointwise::KERNELS],
        build: Box::new(|attributes| build(definition, attributes)),
        samples: Box::new(|| samples(definition)),
        bad: Box::new(|| bad(definition)),
    };
    CONDITIONS.iter().map(entry).collect()
}

macro_rules! comparisons {
    ($($name:ident, $scalar:ident: $doc:literal),* $(,)?) => {
        impl Tensor {
            $(#[doc = $doc]
            /// 1 where it holds, else 0, as i32: a condition of [`Self::where_`]. Nothing is equal
            /// to NaN, or less or greater. The shapes broadcast by NumPy's rule.
            ///
            /// # Errors
            /// Shapes that do not broadcast; two element types; out of memory.
            pub fn $name(&self, other: &Tensor) -> Result<Tensor> {
                apply_one(Compare::named(stringify!($name))?, &[self, other])
            }

            #[doc = $doc]
            /// As with a tensor; integers are compared as floats.
            ///
            /// # Errors
            /// Out of memory.
            pub fn $scalar(&self, other: f32) -> Result<Tensor> {
                apply_one(Compare::named(stringify!($name))?.with(other), &[self])
            })*
        }
    };
}

comparisons! {
    eq, eq_scalar: "`self == other`", ne, ne_scalar: "`self != other`", lt, lt_scalar: "`self < other`", le, le_scalar: "`self <= other`",
    gt, gt_scalar: "`self > other`", ge, ge_scalar: "`self >= other`",
}

macro_rules! questions {
    ($($name:ident: $doc:literal),* $(,)?) => {
        impl Tensor {
            $(#[doc = $doc]
            ///
            /// # Errors
            /// An integer tensor; out of memory.
            pub fn $name(&self) -> Result<Tensor> {
                apply_one(Compare::named(stringify!($name))?, &[self])
            })*
        }
    };
}

questions! {
    isnan: "1 where an element is NaN, else 0, as i32.", isinf: "1 where an element is infinite, else 0, as i32.",
    isfinite: "1 where an element is neither infinite nor NaN, else 0, as i32.",
}
