//! The launch behind all reductions. No operator itself.

use crate::error::{Error, Result};
use crate::gpu::{Launch, Schedule, rounds};
use crate::ops::elementwise::pointwise::enabling;
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::{DType, Shape, Tensor};

kernels!(REDUCE = "reduction/reduce");

/// Lanes of the workgroup that owns a result in the tree variant.
const LANES: usize = 128;
/// Loop steps that one thread makes at most before the rest becomes another partial; a step is four
/// terms where they are neighbours.
const THREAD_STEPS: usize = 128;
/// The same for a lane of the tree.
const LANE_STEPS: usize = 16;
/// The most groups of kept, or of reduced, axes.
const GROUPS: usize = 3;

/// What joins two terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    /// Their sum.
    Sum,
    /// The larger.
    Max,
    /// The smaller.
    Min,
}

impl Combine {
    fn name(self) -> &'static str {
        match self {
            Combine::Sum => "sum",
            Combine::Max => "max",
            Combine::Min => "min",
        }
    }
}

/// A reduction: `finish(combine(map(x)))`. The expressions are WGSL, typed by `V` and `F` (see the
/// shader's head).
#[derive(Clone, Copy)]
pub(crate) struct Reduce<'a> {
    /// What joins terms.
    pub combine: Combine,
    /// A term: an expression of `x`, `other` and `side`.
    pub map: &'a str,
    /// The result: an expression of `s`, `side` and `p.scale`.
    pub finish: &'a str,
    /// `p.scale`.
    pub scale: f32,
    /// The tensor to reduce.
    pub x: &'a Tensor,
    /// A second tensor of its shape and type.
    pub other: Option<&'a Tensor>,
    /// A value per result.
    pub side: Option<&'a Tensor>,
}

/// A folded axis.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    size: usize,
    step: usize,
    reduced: bool,
}

/// The axes, neighbours that are both kept or both reduced folded into one.
fn fold(shape: &Shape, reduced: &[bool]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for ((&size, step), &reduced) in shape.iter().zip(shape.strides()).zip(reduced).filter(|((size, _), _)| **size != 1) {
        match axes.last_mut() {
            Some(before) if before.reduced == reduced => *before = Axis { size: before.size * size, step, reduced },
            _ => axes.push(Axis { size, step, reduced }),
        }
    }
    axes
}

/// Sizes and steps of the kept or of the reduced axes, at the end of three.
fn side_by_side(axes: &[Axis], reduced: bool) -> Option<([usize; GROUPS], [usize; GROUPS])> {
    let (mut sizes, mut steps) = ([1; GROUPS], [0; GROUPS]);
    let mut slots = sizes.iter_mut().zip(steps.iter_mut()).rev();
    for axis in axes.iter().rev().filter(|a| a.reduced == reduced) {
        let (size, step) = slots.next()?;
        (*size, *step) = (axis.size, axis.step);
    }
    Some((sizes, steps))
}

impl<'a> Reduce<'a> {
    /// A reduction of `x` itself, without a second tensor.
    pub fn of(x: &'a Tensor, combine: Combine, map: &'a str, finish: &'a str) -> Self {
        Self { combine, map, finish, scale: 1.0, x, other: None, side: None }
    }

    /// The plain sum.
    pub fn sum(x: &'a Tensor) -> Self {
        Self::of(x, Combine::Sum, "x", "s")
    }

    /// Reduces the axes marked in `reduced`; the result has the given shape and type. `name` is the
    /// operator's, for errors.
    ///
    /// # Errors
    /// More than three separate groups of kept or reduced axes; those of launching.
    pub fn run(&self, name: &str, reduced: &[bool], shape: &Shape, dtype: DType) -> Result<Tensor> {
        let y = Tensor::empty(self.x.gpu(), shape.clone(), dtype)?;
        if y.numel() == 0 {
            return Ok(y);
        }
        let mut axes = fold(self.x.shape(), reduced);
        let too_many = || {
            Error::shape(name, format!("the axes to reduce of {} lie in more than {GROUPS} separate groups; reshape first", self.x.shape()))
        };
        let elements: usize = axes.iter().filter(|a| a.reduced).map(|a| a.size).product();
        let alone = axes.len() == 1;
        let vec = match axes.last_mut() {
            Some(last) if last.size.is_multiple_of(4) || (last.reduced && alone) => {
                let reduced = last.reduced;
                last.size = last.size.div_ceil(4);
                // Every other step is a multiple of the last size.
                axes.iter_mut().rev().skip(1).for_each(|a| a.step /= 4);
                if reduced { "rows" } else { "columns" }
            }
            _ => "none",
        };
        let (kept_sizes, kept_steps) = side_by_side(&axes, false).ok_or_else(too_many)?;
        let (sizes, steps) = side_by_side(&axes, true).ok_or_else(too_many)?;
        let (outputs, length): (usize, usize) = (kept_sizes.iter().product(), sizes.iter().product());
        let inner_reduced = axes.last().is_some_and(|a| a.reduced);
        let tree = self.x.gpu().capabilities().schedule == Schedule::Gpu && inner_reduced && length > 2 * LANES / 4;
        let longest = if tree { LANES * LANE_STEPS } else { THREAD_STEPS };
        let splits = length.div_ceil(longest).max(1);
        let block = match (vec, self.x.gpu().capabilities().schedule) {
            ("columns", Schedule::Software) if outputs.is_multiple_of(32) => 4,
            ("columns", Schedule::Software) if outputs.is_multiple_of(16) => 2,
            _ => 1,
        };
        let plan = Plan { vec, tree, block, splits, longest, length, elements, outputs, kept_sizes, kept_steps, sizes, steps };
        if splits == 1 {
            self.pass(&y, &plan)?;
            return Ok(y);
        }
        let partial = Tensor::empty(y.gpu(), [splits, y.numel()], DType::F32)?;
        Reduce { finish: "s", ..*self }.pass(&partial, &plan)?;
        Reduce { map: "x", x: &partial, other: None, ..*self }.run(name, &[true, false], shape, dtype)
    }
}

/// One launch.
struct Plan {
    vec: &'static str,
    tree: bool,
    block: usize,
    splits: usize,
    longest: usize,
    length: usize,
    elements: usize,
    outputs: usize,
    kept_sizes: [usize; GROUPS],
    kept_steps: [usize; GROUPS],
    sizes: [usize; GROUPS],
    steps: [usize; GROUPS],
}

impl Reduce<'_> {
    fn pass(&self, y: &Tensor, plan: &Plan) -> Result<()> {
        let side = self.side.filter(|_| self.map.contains("side") || self.finish.contains("side"));
        let groups = |sizes: &[usize; GROUPS]| if sizes.iter().rev().skip(1).all(|s| *s == 1) { 1 } else { GROUPS };
        let mut launch = Launch::new(y.gpu(), &REDUCE, "reduce")
            .storage(enabling([self.x.dtype(), y.dtype()].into_iter().chain(side.map(Tensor::dtype))))
            .define("X", self.x.dtype().to_string())
            .define("OUT", y.dtype().to_string())
            .define("COMBINE", self.combine.name())
            .define("MAP", self.map)
            .define("FINISH", self.finish)
            .define("OTHER", self.other.is_some())
            .define("SIDE", side.map_or(String::new(), |t| t.dtype().to_string()))
            .define("VEC", plan.vec)
            .define("TREE", plan.tree)
            .define("BLOCK", plan.block)
            .define("KEPT", groups(&plan.kept_sizes))
            .define("REDUCED", groups(&plan.sizes))
            .read(self.x);
        for tensor in self.other.iter().chain(&side) {
            launch = launch.read(*tensor);
        }
        // Balanced splits: the last is not shorter than the others by more than it must be.
        let chunk = plan.length.div_ceil(plan.splits).min(plan.longest);
        let ([_, k1, k2], [ks0, ks1, ks2]) = (plan.kept_sizes, plan.kept_steps);
        let ([_, r1, r2], [rs0, rs1, rs2]) = (plan.sizes, plan.steps);
        // Only a row on its own can end in padding.
        let elements = if plan.outputs == 1 { plan.elements } else { u32::MAX as usize };
        let count = plan.outputs / plan.block * plan.splits;
        let launch = launch.write(y).params(params![
            plan.outputs,
            plan.splits,
            chunk,
            plan.length,
            elements,
            self.scale,
            k1,
            k2,
            ks0,
            ks1,
            ks2,
            r1,
            r2,
            rs0,
            rs1,
            rs2
        ]);
        let steps = if plan.tree { chunk.div_ceil(LANES) } else { chunk };
        let launch = launch.walk(if plan.block > 1 { rounds(steps, 0) } else { rounds(steps / 4, 0) + rounds(3, 0) });
        if plan.tree { launch.groups(count) } else { launch.invocations(count) }
    }
}

/// The gradient `x` of a tensor that was broadcast from `shape`: summed over the axes that it was
/// broadcast along. `x` itself where the shapes are equal.
pub(crate) fn sum_to(x: &Tensor, shape: &Shape) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let missing = x.shape().rank().saturating_sub(shape.rank());
    let reduced: Vec<bool> = (0..x.shape().rank()).map(|axis| axis < missing || shape.dim(axis - missing) != x.shape().dim(axis)).collect();
    Reduce::sum(x).run("sum_to", &reduced, shape, x.dtype())
}

/// The sums over all axes of `x` but the last: f32, the gradient of a bias.
pub(crate) fn column_sum(x: &Tensor) -> Result<Tensor> {
    let reduced: Vec<bool> = (1..=x.shape().rank()).map(|axis| axis < x.shape().rank()).collect();
    Reduce::sum(x).run("column_sum", &reduced, &Shape::from([x.shape().last()]), DType::F32)
}
