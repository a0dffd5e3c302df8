//! The launch behind everything that is computed element by element from tensors that broadcast:
//! pairs, `where`, `cast`, and the gradients of reductions. No operator itself.

use minijinja::Value;

use crate::error::{Error, Result};
use crate::gpu::{Launch, Param, Storage};
use crate::ops::entry::kernels;
use crate::tensor::{DType, Shape, Tensor};

kernels!(POINTWISE = "elementwise/pointwise");

/// Parameters besides `groups` that a kernel may have.
const MAX_PARAMS: usize = 31;

/// A WGSL expression of named tensors. It is typed by `V` (`f32` or `vec4<f32>`), so a constant
/// that meets `select`, `max` or a comparison is written `V(0.5)`; `p.a` and `p.b` are two numbers
/// of the host; `power(a, b)` is pow for any base.
pub(crate) struct Pointwise<'a> {
    /// The expression.
    pub expression: &'a str,
    /// Its operands: names that WGSL allows, and tensors that broadcast to the result's shape.
    pub operands: &'a [(&'a str, &'a Tensor)],
    /// `p.a` and `p.b`.
    pub constants: [f32; 2],
}

/// What a launch computes: WGSL in which operands and numbers (`p.` and the name) go by their
/// names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text {
    /// Expressions, one a result.
    pub results: Vec<String>,
    /// Statements before them.
    pub statements: Vec<String>,
    /// Maps and pairs that they call: see the shader.
    pub maps: Vec<Value>,
    /// Pairs.
    pub pairs: Vec<Value>,
}

/// What `T` must be for a kernel whose bindings all name their type: f16 where one of them is, so
/// that the text enables it.
pub(crate) fn enabling(dtypes: impl IntoIterator<Item = DType>) -> Storage {
    if dtypes.into_iter().any(|d| d == DType::F16) { Storage::F16 } else { Storage::F32 }
}

/// An axis of the result: its size, and the elements that each operand moves per step along it.
struct Axis {
    size: usize,
    steps: Vec<usize>,
}

/// The axes of `shape`, neighbours folded wherever all operands walk on through them.
fn fold(shape: &Shape, operands: &[(&str, &Tensor)]) -> Vec<Axis> {
    let strides: Vec<Vec<usize>> = operands.iter().map(|(_, t)| t.shape().strides()).collect();
    let step = |operand: usize, axis: usize| -> usize {
        let Some(((_, tensor), strides)) = operands.get(operand).zip(strides.get(operand)) else { return 0 };
        let own = (axis + tensor.shape().rank()).checked_sub(shape.rank());
        own.filter(|a| tensor.shape().dim(*a) > 1).and_then(|a| strides.get(a)).copied().unwrap_or(0)
    };
    let mut axes: Vec<Axis> = Vec::new();
    for (index, &size) in shape.iter().enumerate().filter(|(_, size)| **size != 1) {
        let steps: Vec<usize> = (0..operands.len()).map(|o| step(o, index)).collect();
        match axes.last_mut() {
            Some(before) if before.steps.iter().zip(&steps).all(|(outer, inner)| *outer == inner * size) => {
                *before = Axis { size: before.size * size, steps };
            }
            _ => axes.push(Axis { size, steps }),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, steps: vec![0; operands.len()] });
    }
    axes
}

impl Pointwise<'_> {
    /// The result, of the given shape and type. `name` is the operator's, for errors.
    ///
    /// # Errors
    /// Those of [`run`].
    pub fn run(&self, name: &str, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let [a, b] = self.constants;
        let text = Text { results: vec![self.expression.to_string()], ..Text::default() };
        let results = run(name, &text, self.operands, &[("a", a), ("b", b)], shape, dtype)?;
        results.into_iter().next().ok_or_else(|| Error::argument(name, "it has no result"))
    }
}

/// The results of `text`, all of the given shape and type. `name` is the operator's, for errors.
///
/// # Errors
/// More axes that cannot be folded than a kernel has parameters for; those of launching.
pub(crate) fn run(
    name: &str,
    text: &Text,
    operands: &[(&str, &Tensor)],
    numbers: &[(&str, f32)],
    shape: &Shape,
    dtype: DType,
) -> Result<Vec<Tensor>> {
    let Some((_, first)) = operands.first() else {
        return Err(Error::argument(name, "it has no operand"));
    };
    let gpu = first.gpu();
    let results = text.results.iter().map(|_| Tensor::empty(gpu, shape.clone(), dtype)).collect::<Result<Vec<_>>>()?;
    if shape.numel() == 0 {
        return Ok(results);
    }
    let axes = fold(shape, operands);
    let last = axes.last().map_or(1, |a| a.size);
    let vec = last.is_multiple_of(4) || axes.len() == 1;
    let (mut sets, mut values): (Vec<Vec<usize>>, Vec<Value>) = (Vec::new(), Vec::new());
    for (index, (operand, tensor)) in operands.iter().enumerate() {
        let steps: Vec<usize> = axes.iter().map(|a| a.steps.get(index).copied().unwrap_or(0)).collect();
        let vector = vec && steps.last().is_some_and(|s| *s == 1);
        // A contiguous operand that has the last axis steps by multiples of its size along the
        // others.
        let steps: Vec<usize> = match vector {
            true => steps.iter().enumerate().map(|(k, s)| if k + 1 == steps.len() { 1 } else { s / 4 }).collect(),
            false => steps,
        };
        let set = sets.iter().position(|s| *s == steps).unwrap_or_else(|| {
            sets.push(steps);
            sets.len() - 1
        });
        values.push(minijinja::context! { name => *operand, ty => tensor.dtype().to_string(), vector, set });
    }
    let n = if vec { shape.numel().div_ceil(4) } else { shape.numel() };
    let sizes = axes.iter().enumerate().map(|(k, a)| if vec && k + 1 == axes.len() { a.size.div_ceil(4) } else { a.size });
    let mut params: Vec<Param> = vec![n.into()];
    params.extend(numbers.iter().map(|(_, v)| Param::from(*v)));
    params.extend(sizes.map(Param::from));
    params.extend(sets.iter().flatten().map(|s| Param::from(*s)));
    if params.len() > MAX_PARAMS {
        let shapes: Vec<String> = operands.iter().map(|(_, t)| t.shape().to_string()).collect();
        return Err(Error::shape(
            name,
            format!("{} broadcast over {} separate groups of axes; at most 6 are supported, reshape first", shapes.join(", "), axes.len()),
        ));
    }
    let mut launch = Launch::new(gpu, &POINTWISE, "pointwise")
        .storage(enabling(operands.iter().map(|(_, t)| t.dtype()).chain([dtype])))
        .define("POWER", text.results.iter().any(|r| r.contains("power(")) || text.pairs.iter().any(|p| p.to_string().contains("power(")))
        .define("RESULTS", text.results.clone())
        .define("STATEMENTS", text.statements.clone())
        .define("MAPS", text.maps.clone())
        .define("PAIRS", text.pairs.clone())
        .define("NUMBERS", numbers.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>())
        .define("AXES", axes.len())
        .define("SETS", sets.len())
        .define("VEC", vec)
        .define("OUT", dtype.to_string())
        .define("OPERANDS", values);
    for (_, tensor) in operands {
        launch = launch.read(*tensor);
    }
    results.iter().fold(launch, |l, y| l.write(y)).params(&params).invocations(n)?;
    Ok(results)
}
