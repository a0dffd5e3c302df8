//! One value from many: sum, mean, max, min and logsumexp over any set of axes, a row of a table
//! each.

use super::dims::{CASES, Dims, gather, kept, terms};
use super::reduce::{self, Combine, Reduce};
use crate::error::{Error, Result};
use crate::ops::array::{maximum, minimum};
use crate::ops::elementwise::pointwise::{self, Pointwise};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, distinct, indices, normal, normal_with};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::tensor::{DType, Spec, Tensor};

/// An aggregate's definition.
#[derive(Debug, Clone, Copy)]
struct Definition {
    /// PyTorch's name (max and min are its amax and amin).
    name: &'static str,
    /// The gradient: a WGSL expression of `dy`, `x`, `y`, `ties` (how many terms equal `y`) and
    /// `p.a` (1 / the number of terms).
    gradient: &'static str,
    /// The aggregate of some terms in float64.
    reference: fn(&[f64]) -> f64,
    /// Whether it is defined for no term at all.
    empty: bool,
}

/// The term's share of the gradient. A NaN is no tie of itself: `ties` is then 0 and the gradient
/// NaN, as in PyTorch.
const TIES: &str = "select(select(nothing_of(dy), dy / ties, x == y), constant(0x7fc00000u), ties == V(0.0))";

const AGGREGATES: &[Definition] = &[
    Definition { name: "sum", gradient: "dy", reference: |t| t.iter().sum(), empty: true },
    Definition { name: "mean", gradient: "dy * p.a", reference: |t| t.iter().sum::<f64>() / t.len() as f64, empty: true },
    Definition { name: "max", gradient: TIES, reference: |t| t.iter().copied().fold(f64::NEG_INFINITY, maximum), empty: false },
    Definition { name: "min", gradient: TIES, reference: |t| t.iter().copied().fold(f64::INFINITY, minimum), empty: false },
    Definition {
        name: "logsumexp",
        gradient: "dy * exp(x - y)",
        reference: |t| {
            let largest = t.iter().copied().fold(f64::NEG_INFINITY, maximum);
            let largest = if largest.is_infinite() { 0.0 } else { largest };
            largest + t.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
        },
        empty: false,
    },
];

/// An aggregate over axes.
#[derive(Debug, Clone)]
pub struct Aggregate {
    definition: Definition,
    dims: Dims,
}

impl Aggregate {
    /// The aggregate called `name` over `dims`.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none.
    pub fn named(name: &str, dims: Dims) -> Result<Self> {
        let definition = AGGREGATES.iter().find(|d| d.name == name).copied();
        let definition = definition.ok_or_else(|| Error::argument("aggregate", format!("there is no aggregate called \"{name}\"")))?;
        Ok(Self { definition, dims })
    }

    fn extremum(&self) -> bool {
        matches!(self.definition.name, "max" | "min")
    }
}

impl Operator for Aggregate {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        Ok(vec![self.dims.infer(self.name(), x, self.definition.empty)?])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let mask = self.dims.mask(self.name(), x.shape())?;
        let run = |reduce: Reduce, dtype: DType| reduce.run(self.name(), &mask, &spec.shape, dtype);
        let y = match self.definition.name {
            "max" => run(Reduce::of(x, Combine::Max, "x", "s"), spec.dtype)?,
            "min" => run(Reduce::of(x, Combine::Min, "x", "s"), spec.dtype)?,
            "mean" => {
                let scale = 1.0 / terms(x.shape(), &mask) as f32;
                run(Reduce { finish: "s * p.scale", scale, ..Reduce::sum(x) }, spec.dtype)?
            }
            // Shifted by the largest term, so that no exponential overflows and one of them is 1;
            // by 0, where it is infinite.
            "logsumexp" => {
                let finite = "select(s, F(0.0), abs(s) > F(3.4028234e38))";
                let largest = run(Reduce::of(x, Combine::Max, "x", finite), DType::F32)?;
                let sum = Reduce { map: "exp(x - side)", finish: "side + log(s)", side: Some(&largest), ..Reduce::sum(x) };
                run(sum, spec.dtype)?
            }
            _ => run(Reduce::sum(x), spec.dtype)?,
        };
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let spec = step.input_spec(0)?;
        let mask = self.dims.mask(self.name(), &spec.shape)?;
        let small = kept(&spec.shape, &mask);
        let dy = step.cotangent(0)?.view(&small)?;
        let scale = 1.0 / terms(&spec.shape, &mask) as f32;
        let run = |operands: &[(&str, &Tensor)]| {
            let gradient = Pointwise { expression: self.definition.gradient, operands, constants: [scale, 0.0] };
            Ok(vec![Some(gradient.run(self.name(), &spec.shape, spec.dtype)?)])
        };
        if matches!(self.definition.name, "sum" | "mean") {
            return run(&[("dy", &dy)]);
        }
        let (x, y) = (step.input(0)?, step.output(0)?.view(&small)?);
        if !self.extremum() {
            return run(&[("dy", &dy), ("x", x), ("y", &y)]);
        }
        let count = Reduce { map: "select(V(0.0), V(1.0), x == side)", side: Some(&y), ..Reduce::sum(x) };
        let ties = count.run(self.name(), &mask, &small, DType::F32)?;
        run(&[("dy", &dy), ("x", x), ("y", &y), ("ties", &ties)])
    }

    fn saves(&self) -> Saves {
        match self.definition.name {
            "sum" | "mean" => Saves::default(),
            _ => Saves { inputs: vec![0], outputs: vec![0] },
        }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        self.dims.rows(inputs)
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        self.dims.leading(inputs)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let groups = gather(x, &self.dims.mask(self.name(), &x.shape)?);
        let data = groups.iter().map(|terms| (self.definition.reference)(terms)).collect();
        Ok(vec![Array::new(self.dims.result(self.name(), &x.shape)?, data)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let terms: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        // The exponentials of logsumexp count as one operation each.
        let each = if self.definition.name == "logsumexp" { 4.0 } else { 1.0 };
        Cost { flops: each * terms as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples(definition: &Definition) -> Vec<Sample> {
    let cases = CASES.iter().enumerate().filter(|(_, (shape, _))| definition.empty || !shape.contains(&0));
    cases
        .map(|(index, (shape, dims))| {
            let operator = Aggregate { definition: *definition, dims: Dims::new(dims, index % 2 == 1) };
            let input = match definition.name {
                "max" | "min" => distinct(*shape),
                "logsumexp" => normal_with(*shape, 5.0, 0.0),
                _ => normal(*shape),
            };
            Sample::new(operator, [input])
        })
        .collect()
}

fn bad(definition: &Definition) -> Vec<Bad> {
    let operator = |dims: &[isize]| Aggregate { definition: *definition, dims: Dims::new(dims, false) };
    let mut bad = vec![
        Bad::new(operator(&[2]), [normal([3, 4])], "axis 2 is out of range for shape [3, 4]"),
        Bad::new(operator(&[1, -1]), [normal([3, 4])], "axis -1 is named twice"),
        Bad::new(operator(&[0]), [indices([3], 2)], "x must hold floats, found i32 [3]"),
        Bad::new(operator(&[0]), [], "it takes 1 inputs, 0 were given"),
        Bad::new(operator(&[0, 2, 4, 6]), [normal([2, 3, 2, 3, 2, 3, 2])], "lie in more than 3 separate groups"),
    ];
    if !definition.empty {
        bad.push(Bad::new(operator(&[1]), [normal([3, 0])], "nothing to reduce in [3, 0]"));
    }
    bad
}

/// The aggregates' lines of the registry.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |definition: &'static Definition| Entry {
        name: definition.name,
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[reduce::KERNELS, pointwise::KERNELS],
        build: Box::new(|attributes: &Attributes| Ok(Box::new(Aggregate::named(definition.name, Dims::from_attributes(attributes)?)?))),
        samples: Box::new(|| samples(definition)),
        bad: Box::new(|| bad(definition)),
    };
    AGGREGATES.iter().map(entry).collect()
}

macro_rules! methods {
    ($($name:ident: $doc:literal),* $(,)?) => {
        impl Tensor {
            $(#[doc = $doc]
            /// It goes over the axes `dims` (-1 is the last; an empty list means all), which
            /// `keepdim` leaves with size 1.
            ///
            /// # Errors
            /// An axis that does not exist or is named twice; integers; more than three separate
            /// groups of reduced or of kept axes; max, min and logsumexp of nothing; out of memory.
            pub fn $name(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
                apply_one(Aggregate::named(stringify!($name), Dims::new(dims, keepdim))?, &[self])
            })*
        }
    };
}

methods! {
    sum: "The sum; 0 of nothing.",
    mean: "The mean; NaN of nothing.",
    max: "The largest value (PyTorch's amax). Values that tie share the gradient equally.",
    min: "The smallest value (PyTorch's amin). Values that tie share the gradient equally.",
    logsumexp: "`log(sum(exp(x)))`, shifted by the largest value so that nothing overflows.",
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::{column_sum, sum_to};
    use super::*;
    use crate::gpu::{Gpu, GpuOptions, Schedule};
    use crate::tensor::Shape;

    #[test]
    fn ties_share_the_gradient() {
        let gpu = Gpu::new().unwrap();
        let x = Tensor::from_slice(&gpu, &[1.0f32, 3.0, 3.0, -2.0, -2.0, -2.0], [2, 3]).unwrap().watch();
        let dy = Tensor::from_slice(&gpu, &[1.0f32, 3.0], [2]).unwrap();
        let gradients = x.max(&[1], false).unwrap().backward_from(&dy).unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>().unwrap(), [0.0, 0.5, 0.5, 1.0, 1.0, 1.0]);
        let gradients = x.min(&[1], false).unwrap().backward_from(&dy).unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>().unwrap(), [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn long_sums_are_as_exact_as_pairwise_ones() {
        for schedule in Schedule::ALL {
            let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), ..GpuOptions::from_env().unwrap() }).unwrap();
            // Values of one sign, the worst for a running sum: after 2^21 of them an f32 sum of one
            // thread is off by 1e-4 or more.
            let n = (1 << 21) + 3;
            let data: Vec<f32> = (0..n).map(|i| 0.1 + (i % 7) as f32 * 0.01).collect();
            let exact: f64 = data.iter().map(|v| f64::from(*v)).sum();
            let x = Tensor::from_slice(&gpu, &data, [n]).unwrap();
            let found = f64::from(x.sum(&[], false).unwrap().item().unwrap());
            assert!((found - exact).abs() / exact < 2e-7, "{schedule}: {found} {exact}");
            assert_eq!(x.max(&[0], false).unwrap().item().unwrap(), data.iter().copied().fold(0.0, f32::max));
        }
    }

    #[test]
    fn gradients_come_back_to_the_shape_they_were_broadcast_from() {
        let gpu = Gpu::new().unwrap();
        let x = Tensor::from_slice(&gpu, &(0..24).map(|i| i as f32).collect::<Vec<_>>(), [2, 3, 4]).unwrap();
        let sums = |shape: &[usize]| sum_to(&x, &Shape::from(shape)).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(sums(&[]), [276.0]);
        assert_eq!(sums(&[3, 1]), [60.0, 92.0, 124.0]);
        assert_eq!(sums(&[2, 1, 4]), [12.0, 15.0, 18.0, 21.0, 48.0, 51.0, 54.0, 57.0]);
        assert_eq!(column_sum(&x).unwrap().to_vec::<f32>().unwrap(), [60.0, 66.0, 72.0, 78.0]);
    }
}
