//! Maps `y = f(x)` of any shape, a row of a table each: the WGSL of `f`, the WGSL of its
//! derivative, and `f` in float64.
//!
//! In both expressions `x` is the input; in the derivative `y` is the output, too. `a` and `b` are
//! the map's two constants.

use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::array::{maximum, minimum};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal_with, uniform};
use crate::ops::{
    Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, broadcast_rows, every_axis, exactly, require_float,
};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(MAP = "elementwise/map");

/// What overflows or loses digits in f16, as in PyTorch's autocast.
const FULL: [&str; 6] = ["exp", "log", "reciprocal", "rsqrt", "softplus", "square"];

/// A map's definition.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// PyTorch's name.
    pub name: &'static str,
    /// WGSL expression in `x`.
    pub forward: &'static str,
    /// WGSL expression in `x` and `y`.
    pub derivative: &'static str,
    /// The same map in float64, of `x`, `a` and `b`.
    pub reference: fn(f64, f64, f64) -> f64,
    /// Whether nothing of the upstream gradient passes where the derivative is 0, not even NaN, as
    /// behind PyTorch's thresholds.
    pub masked: bool,
    /// Where its samples lie.
    pub domain: (f64, f64),
    /// Names and defaults of its constants.
    pub constants: &'static [(&'static str, f32)],
}

const fn map(name: &'static str, forward: &'static str, derivative: &'static str, reference: fn(f64, f64, f64) -> f64) -> Definition {
    Definition { name, forward, derivative, reference, masked: false, domain: (-4.0, 4.0), constants: &[] }
}

const fn on(low: f64, high: f64, definition: Definition) -> Definition {
    Definition { domain: (low, high), ..definition }
}

const fn masked(definition: Definition) -> Definition {
    Definition { masked: true, ..definition }
}

const fn with(constants: &'static [(&'static str, f32)], definition: Definition) -> Definition {
    Definition { constants, ..definition }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function by its Maclaurin series and, beyond 3, the continued fraction of its
/// complement: exact to 1e-15.
fn erf(x: f64) -> f64 {
    let t = x.abs();
    let value = if t < 3.0 {
        let (mut term, mut sum) = (t, t);
        for n in 1..80 {
            term *= -t * t / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..60).rev().fold(t, |f, k| t + f64::from(k) / 2.0 / f);
        1.0 - (-t * t).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

/// All maps.
pub const MAPS: &[Definition] = &[
    map("neg", "-x", "-1.0", |x, _, _| -x),
    map("exp", "exp(x)", "y", |x, _, _| x.exp()),
    on(0.1, 5.0, map("log", "logarithm(x)", "1.0 / x", |x, _, _| x.ln())),
    on(0.1, 5.0, map("sqrt", "sqrt(x)", "0.5 / y", |x, _, _| x.sqrt())),
    on(0.1, 5.0, map("rsqrt", "inverseSqrt(x)", "-0.5 * y / x", |x, _, _| 1.0 / x.sqrt())),
    map("abs", "abs(x)", "select(sign(x), 0.0, is_nan(x))", |x, _, _| x.abs()),
    map("square", "x * x", "2.0 * x", |x, _, _| x * x),
    on(0.2, 3.0, map("reciprocal", "1.0 / x", "-y * y", |x, _, _| 1.0 / x)),
    map("sin", "sine(x)", "cosine(x)", |x, _, _| x.sin()),
    map("cos", "cosine(x)", "-sine(x)", |x, _, _| x.cos()),
    map("tanh", "hyperbolic_tangent(x)", "1.0 - y * y", |x, _, _| x.tanh()),
    map("sigmoid", "sigmoid(x)", "y * (1.0 - y)", |x, _, _| sigmoid(x)),
    map("softplus", "max(x, 0.0) + log1p_exp(-abs(x))", "sigmoid(x)", |x, _, _| maximum(x, 0.0) + (-x.abs()).exp().ln_1p()),
    masked(map("relu", "maximum(x, 0.0)", "select(0.0, 1.0, x > 0.0 || is_nan(x))", |x, _, _| maximum(x, 0.0))),
    masked(map("relu6", "limited(x, 0.0, 6.0)", "select(0.0, 1.0, (x > 0.0 && x < 6.0) || is_nan(x))", |x, _, _| x.clamp(0.0, 6.0))),
    map("silu", "x * sigmoid(x)", "sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))", |x, _, _| x * sigmoid(x)),
    masked(map(
        "hardswish",
        "x * limited(x / 6.0 + 0.5, 0.0, 1.0)",
        "select(select(x / 3.0 + 0.5, 1.0, x >= 3.0 || is_nan(x)), 0.0, x <= -3.0)",
        |x, _, _| x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
    )),
    masked(map("hardsigmoid", "limited(x / 6.0 + 0.5, 0.0, 1.0)", "select(0.0, 1.0 / 6.0, abs(x) < 3.0 && !is_nan(x))", |x, _, _| {
        (x / 6.0 + 0.5).clamp(0.0, 1.0)
    })),
    map("gelu", "x * normal_cdf(x)", "normal_cdf(x) + x * 0.3989422804 * exp(-0.5 * x * x)", |x, _, _| {
        0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
    }),
    map("gelu_tanh", "0.5 * x * (1.0 + gelu_inner(x))", "gelu_tanh_derivative(x)", |x, _, _| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
    }),
    with(
        &[("negative_slope", 0.01)],
        map("leaky_relu", "select(p.a * x, x, x > 0.0)", "select(p.a, 1.0, x > 0.0)", |x, a, _| if x > 0.0 { x } else { a * x }),
    ),
    with(
        &[("alpha", 1.0)],
        map("elu", "select(p.a * expm1(x), x, x > 0.0)", "select(p.a * exp(x), 1.0, x > 0.0 || is_nan(x))", |x, a, _| {
            if x > 0.0 { x } else { a * x.exp_m1() }
        }),
    ),
    with(
        &[("min", f32::NEG_INFINITY), ("max", f32::INFINITY)],
        masked(map("clamp", "minimum(maximum(x, p.a), p.b)", "select(0.0, 1.0, x >= p.a && x <= p.b && !is_nan(x))", |x, a, b| {
            minimum(maximum(x, a), b)
        })),
    ),
    with(&[("value", 2.0)], map("add_scalar", "x + p.a", "1.0", |x, a, _| x + a)),
    with(&[("value", 2.0)], map("mul_scalar", "x * p.a", "p.a", |x, a, _| x * a)),
];

/// A map with its constants.
#[derive(Debug, Clone)]
pub struct Map {
    definition: Definition,
    constants: [f32; 2],
}

impl Map {
    /// A map of one's own.
    pub fn new(definition: Definition) -> Self {
        let constant = |i: usize| definition.constants.get(i).map_or(0.0, |(_, v)| *v);
        Self { constants: [constant(0), constant(1)], definition }
    }

    /// The map called `name`.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none.
    pub fn named(name: &str) -> Result<Self> {
        let definition = MAPS.iter().find(|d| d.name == name);
        definition.map(|d| Self::new(*d)).ok_or_else(|| Error::argument("map", format!("there is no map called \"{name}\"")))
    }

    /// Sets the constants.
    #[must_use]
    pub fn with_constants(mut self, a: f32, b: f32) -> Self {
        self.constants = [a, b];
        self
    }

    fn launch(&self, entry: &str, inputs: &[&Tensor], y: &Tensor) -> Result<()> {
        let n4 = y.numel().div_ceil(4);
        let mut launch = Launch::new(y.gpu(), &MAP, entry)
            .storage(y.dtype().storage())
            .define("FORWARD", self.definition.forward)
            .define("DERIVATIVE", self.definition.derivative)
            .define("BACKWARD", entry == "backward")
            .define("MASKED", self.definition.masked);
        for x in inputs {
            launch = launch.read(*x);
        }
        let [a, b] = self.constants;
        launch.write(y).params(params![n4, a, b]).invocations(n4)
    }
}

impl Operator for Map {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        require_float(self.name(), "x", x)?;
        // A number that is added or multiplied may be anything, as an element may; bounds in the
        // wrong order are PyTorch's clamp, too.
        let unknown = |((name, _), value): &(&(&str, f32), f32)| *name != "value" && value.is_nan();
        if let Some(((name, _), _)) = self.definition.constants.iter().zip(self.constants).find(unknown) {
            return Err(Error::argument(self.name(), format!("{name} must be a number, found NaN")));
        }
        Ok(vec![x.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let y = Tensor::empty(x.gpu(), spec.shape.clone(), spec.dtype)?;
        self.launch("forward", &[x], &y)?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, dy) = (step.input(0)?, step.cotangent(0)?);
        let dx = Tensor::empty(x.gpu(), x.shape(), x.dtype())?;
        self.launch("backward", &[x, &dy], &dx)?;
        Ok(vec![Some(dx)])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        broadcast_rows(inputs, outputs)
    }

    fn leading(&self, _: &[Spec], outputs: &[Spec]) -> usize {
        every_axis(outputs)
    }

    fn autocast(&self) -> Autocast {
        if FULL.contains(&self.definition.name) { Autocast::Full } else { Autocast::Keep }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let [a, b] = self.constants.map(f64::from);
        Ok(vec![x.map(|x| (self.definition.reference)(x, a, b))])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 1.0)
    }
}

fn build(name: &str, attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let name = if name == "gelu" && attributes.text_or("approximate", "none")? == "tanh" { "gelu_tanh" } else { name };
    let mut map = Map::named(name)?;
    for ((key, default), constant) in map.definition.constants.iter().zip(&mut map.constants) {
        *constant = attributes.number_or(key, f64::from(*default))? as f32;
    }
    Ok(Box::new(map))
}

fn sample_input(definition: &Definition, shape: &[usize]) -> Input {
    let (low, high) = definition.domain;
    uniform(shape, low, high)
}

fn samples(definition: &Definition) -> Vec<Sample> {
    let shapes: [&[usize]; 6] = [&[], &[0], &[1], &[5], &[3, 7], &[33, 65]];
    shapes.iter().map(|shape| Sample::new(Map::new(*definition), [sample_input(definition, shape)])).collect()
}

fn bad(definition: &Definition) -> Vec<Bad> {
    let mut bad = vec![
        Bad::new(Map::new(*definition), [indices([3], 2)], "x must hold floats"),
        Bad::new(Map::new(*definition), [normal_with([3], 1.0, 2.0), normal_with([3], 1.0, 2.0)], "it takes 1 inputs, 2 were given"),
    ];
    if definition.constants.iter().any(|(name, _)| *name != "value") {
        let unknown = Map { constants: [f32::NAN; 2], ..Map::new(*definition) };
        bad.push(Bad::new(unknown, [normal_with([3], 1.0, 2.0)], "must be a number, found NaN"));
    }
    bad
}

/// The maps' lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |definition: &'static Definition| Entry {
        name: definition.name,
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(|attributes| build(definition.name, attributes)),
        samples: Box::new(|| samples(definition)),
        bad: Box::new(|| bad(definition)),
    };
    MAPS.iter().map(entry).collect()
}

macro_rules! methods {
    ($($name:ident: $doc:literal),* $(,)?) => {
        impl Tensor {
            $(#[doc = $doc]
            ///
            /// # Errors
            /// An integer tensor; out of memory.
            pub fn $name(&self) -> Result<Tensor> {
                apply_one(Map::named(stringify!($name))?, &[self])
            })*
        }
    };
}

methods! {
    neg: "-x", exp: "e^x", log: "The natural logarithm.", sqrt: "The square root.", rsqrt: "1 / sqrt(x)", abs: "|x|; the derivative at 0 is 0.",
    square: "x^2", reciprocal: "1 / x", sin: "The sine of radians.", cos: "The cosine of radians.", tanh: "The hyperbolic tangent.",
    sigmoid: "1 / (1 + e^-x)", softplus: "log(1 + e^x)", relu: "max(x, 0)", relu6: "min(max(x, 0), 6)", silu: "x sigmoid(x) (swish)",
    hardswish: "x relu6(x + 3) / 6", hardsigmoid: "relu6(x + 3) / 6", gelu: "x Phi(x), exact (Hendrycks and Gimpel 2016)",
    gelu_tanh: "GELU by its tanh approximation.",
}

impl Tensor {
    /// `x` where positive, else `negative_slope * x`.
    ///
    /// # Errors
    /// An integer tensor; out of memory.
    pub fn leaky_relu(&self, negative_slope: f32) -> Result<Tensor> {
        apply_one(Map::named("leaky_relu")?.with_constants(negative_slope, 0.0), &[self])
    }

    /// `x` where positive, else `alpha (e^x - 1)`.
    ///
    /// # Errors
    /// An integer tensor; out of memory.
    pub fn elu(&self, alpha: f32) -> Result<Tensor> {
        apply_one(Map::named("elu")?.with_constants(alpha, 0.0), &[self])
    }

    /// `x` limited to `min..=max`.
    ///
    /// # Errors
    /// An integer tensor; out of memory.
    pub fn clamp(&self, min: f32, max: f32) -> Result<Tensor> {
        apply_one(Map::named("clamp")?.with_constants(min, max), &[self])
    }

    /// `x + value`.
    ///
    /// # Errors
    /// An integer tensor; out of memory.
    pub fn add_scalar(&self, value: f32) -> Result<Tensor> {
        apply_one(Map::named("add_scalar")?.with_constants(value, 0.0), &[self])
    }

    /// `x * value`.
    ///
    /// # Errors
    /// An integer tensor; out of memory.
    pub fn mul_scalar(&self, value: f32) -> Result<Tensor> {
        apply_one(Map::named("mul_scalar")?.with_constants(value, 0.0), &[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};
    use crate::ops::elementwise::fuse::fuse;

    /// Distance in units in the last place of f32.
    fn units(found: f32, expected: f64) -> f64 {
        let nearest = (expected as f32).abs();
        (f64::from(found) - expected).abs() / f64::from(nearest.next_up() - nearest)
    }

    /// Compares the map called `name`, by itself and in an expression, with `expected`.
    fn compare(name: &str, values: &[f32], most: f64, expected: fn(f64) -> f64) {
        let gpu = Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap();
        let x = Tensor::from_slice(&gpu, values, [values.len()]).unwrap();
        let fused = fuse([&x], |[x]| x.map(name)).unwrap();
        for y in [apply_one(Map::named(name).unwrap(), &[&x]).unwrap(), fused] {
            for (x, y) in values.iter().zip(y.to_vec::<f32>().unwrap()) {
                let expected = expected(f64::from(*x));
                let off = if expected.is_finite() { units(y, expected) } else { 0.0 };
                assert!(off <= most && y.is_nan() == expected.is_nan(), "{name}({x:e}) is {y:e}, not {expected:e}: {off:.1} units off");
            }
        }
    }

    #[test]
    fn sine_and_cosine_are_right_for_every_number() {
        // Some of every magnitude, the neighbours of quarters of a turn, the one nearest to one of
        // them, and the largest.
        let mut values: Vec<f32> = (0x3000_0000..=f32::MAX.to_bits()).step_by(333_337).map(f32::from_bits).collect();
        let quarter = |k: u32| (f64::from(k) * std::f64::consts::FRAC_PI_2) as f32;
        values.extend((1..2000).map(quarter).flat_map(|v| [v.next_down(), v, v.next_up()]));
        values.extend([16_367_173.0 * 2f32.powi(72), f32::MAX, 0.0, 1e-30, f32::INFINITY, f32::NAN]);
        values.extend(values.clone().iter().map(|v| -v));
        compare("sin", &values, 2.0, f64::sin);
        compare("cos", &values, 2.0, f64::cos);
    }

    #[test]
    fn logarithms_are_right_near_1_too() {
        let mut values: Vec<f32> = (f32::MIN_POSITIVE.to_bits()..=f32::MAX.to_bits()).step_by(333_337).map(f32::from_bits).collect();
        values.extend((0..2000).flat_map(|k| [f32::from_bits(0x3f80_0000 - k), f32::from_bits(0x3f80_0000 + k)]));
        values.extend((0x3f00_0000..0x4080_0000).step_by(7919).map(f32::from_bits));
        values.extend([f32::MAX, f32::NAN, -1.0, f32::NEG_INFINITY]);
        compare("log", &values, 2.0, f64::ln);
        let edges = [0.0f32, -0.0, f32::INFINITY];
        let gpu = Gpu::new().unwrap();
        let y = Tensor::from_slice(&gpu, &edges, [3]).unwrap().log().unwrap().to_vec::<f32>().unwrap();
        assert_eq!(y, [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY]);
    }
}
