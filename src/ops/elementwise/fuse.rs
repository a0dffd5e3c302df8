//! A chain of elementwise operators as one kernel, and all its gradients as one.

use super::binary::{broadcast_at, reads};
use super::expression::Expression;
use super::pointwise::{self, Text, run};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::reduction::reduce;
use crate::ops::reduction::sum_to;
use crate::ops::sample::{Bad, Input, Sample, indices, normal, uniform};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, broadcast_rows, every_axis};
use crate::tensor::{DType, Shape, Spec, Tensor};

const NAME: &str = "fuse";
/// Storage buffers that a kernel may have everywhere.
const BUFFERS: usize = 8;

/// An [`Expression`] of up to six tensors that broadcast.
#[derive(Debug, Clone)]
pub struct Fused {
    expression: Expression,
    inputs: usize,
}

impl Fused {
    /// The operator of `inputs` tensors.
    ///
    /// # Errors
    /// [`Error::Argument`] where the expression names maps or pairs that do not exist, or has more
    /// or fewer inputs.
    pub fn new(expression: Expression, inputs: usize) -> Result<Self> {
        expression.check()?;
        if inputs == 0 || inputs > BUFFERS - 2 {
            return Err(Error::argument(NAME, format!("it takes 1 to {} tensors, {inputs} were given", BUFFERS - 2)));
        }
        match expression.inputs().into_iter().max() {
            Some(last) if last < inputs => Ok(Self { expression, inputs }),
            Some(last) => Err(Error::argument(NAME, format!("the expression reads x{last}, {inputs} tensors were given"))),
            None => Err(Error::argument(NAME, "the expression reads no input")),
        }
    }

    fn launch(&self, text: &Text, tensors: &[(String, &Tensor)], shape: &Shape, dtype: DType) -> Result<Vec<Tensor>> {
        let read = |name: &str| text.statements.iter().chain(&text.results).any(|s| reads(s, name));
        let numbers = self.expression.numbers();
        let numbers: Vec<(&str, f32)> = numbers.iter().map(|(name, v)| (name.as_str(), *v)).collect();
        let operands: Vec<(&str, &Tensor)> = tensors.iter().filter(|(name, _)| read(name)).map(|(name, t)| (name.as_str(), *t)).collect();
        run(NAME, text, &operands, &numbers, shape, dtype)
    }
}

impl Operator for Fused {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let Some((first, rest)) = inputs.split_first().filter(|_| inputs.len() == self.inputs) else {
            return Err(Error::shape(NAME, format!("it takes {} inputs, {} were given", self.inputs, inputs.len())));
        };
        if let Some(other) = inputs.iter().find(|x| !x.dtype.is_float() || x.dtype != first.dtype) {
            return Err(Error::dtype(NAME, format!("it takes tensors of one float type, found {first} and {other}; cast one first")));
        }
        let shape = rest.iter().try_fold(first.shape.clone(), |shape, x| shape.broadcast(&x.shape, NAME))?;
        Ok(vec![Spec::new(shape, first.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let Some(y) = outputs.first() else { return Ok(Vec::new()) };
        let tensors: Vec<(String, &Tensor)> = inputs.iter().enumerate().map(|(i, x)| (format!("x{i}"), *x)).collect();
        self.launch(&self.expression.forward(), &tensors, &y.shape, y.dtype)
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let dy = step.cotangent(0)?;
        let mut tensors = vec![("dy".to_string(), &dy)];
        for input in self.saves().inputs {
            tensors.push((format!("x{input}"), step.input(input)?));
        }
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.inputs];
        let wanted: Vec<usize> = self.differentiable().into_iter().filter(|i| step.needs(*i)).collect();
        for some in wanted.chunks((BUFFERS - tensors.len()).max(1)) {
            let found = self.launch(&self.expression.backward(some), &tensors, dy.shape(), dy.dtype())?;
            for (input, gradient) in some.iter().zip(found) {
                if let Some(slot) = gradients.get_mut(*input) {
                    *slot = Some(sum_to(&gradient, &step.input_spec(*input)?.shape)?);
                }
            }
        }
        Ok(gradients)
    }

    fn saves(&self) -> Saves {
        let text = self.expression.backward(&self.differentiable());
        let read = |input: &usize| text.statements.iter().chain(&text.results).any(|s| reads(s, &format!("x{input}")));
        Saves { inputs: (0..self.inputs).filter(read).collect(), outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        let mut inputs = self.expression.inputs();
        inputs.sort_unstable();
        inputs
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
        let first = inputs.first().map_or_else(|| Shape::from([]), |x| x.shape.clone());
        let shape = inputs.iter().try_fold(first, |shape, x| shape.broadcast(&x.shape, NAME))?;
        let value = |index: &[usize], input: usize| inputs.get(input).map_or(f64::NAN, |x| broadcast_at(x, index));
        Ok(vec![Array::from_fn(shape, |index| self.expression.evaluate(&|input| value(index, input)))])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, self.expression.operations() as f64)
    }
}

/// `f` of tensors that broadcast by NumPy's rule, as one kernel; all gradients are one, too.
/// Numbers are parameters, so that another number needs no other kernel.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::ops::elementwise::fuse::fuse;
/// use wgrad::tensor::{DType, Tensor};
///
/// let gpu = wgrad::gpu::Gpu::new()?;
/// let a = Tensor::from_slice(&gpu, &[1.0f32, -2.0], [2])?.watch();
/// let b = Tensor::from_slice(&gpu, &[3.0f32], [1])?;
/// let y = fuse([&a, &b], |[a, b]| (a * b + 1.0).relu())?;
/// assert_eq!(y.to_vec::<f32>()?, [4.0, 0.0]);
/// let gradients = y.backward_from(&Tensor::full(&gpu, [2], 1.0, DType::F32)?)?;
/// assert_eq!(gradients.get(&a).unwrap().to_vec::<f32>()?, [3.0, 0.0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Shapes that do not broadcast; two element types; integers; more than six tensors; a map or pair
/// that does not exist; out of memory.
pub fn fuse<const N: usize>(tensors: [&Tensor; N], f: impl FnOnce([Expression; N]) -> Expression) -> Result<Tensor> {
    apply_one(Fused::new(f(std::array::from_fn(Expression::input)), N)?, &tensors)
}

fn sample(text: &str, inputs: Vec<Input>) -> Option<Sample> {
    let operator = Fused::new(Expression::parse(text).ok()?, inputs.len()).ok()?;
    Some(Sample::new(operator, inputs))
}

fn samples() -> Vec<Sample> {
    let shapes = |shapes: &[&[usize]]| shapes.iter().map(|s| normal(*s)).collect::<Vec<_>>();
    let mut samples = vec![
        sample("x0 silu 2 mul x0 sub", shapes(&[&[]])),
        sample("x0 silu 2 mul x0 sub", shapes(&[&[0]])),
        sample("x0 silu 2 mul x0 sub", shapes(&[&[33, 65]])),
        sample("x0 x1 mul 1 add tanh", shapes(&[&[3, 8], &[8]])),
        sample("x0 x1 sub x2 sigmoid mul", shapes(&[&[5, 7], &[7], &[]])),
        sample("x0 x1 add", shapes(&[&[2, 3, 5, 12], &[2, 1, 1, 12]])),
        sample("x0 x1 mul x1 gelu mul x0 add", shapes(&[&[3, 5, 8], &[3, 5, 1]])),
        sample("x0 x1 mul x2 mul x3 sin mul x4 mul", shapes(&[&[5, 4], &[4], &[5, 1], &[], &[5, 4]])),
        sample("x0 x1 mul x2 add x3 mul x4 add x5 mul", shapes(&[&[7][..]; 6])),
        sample("x0 sqrt x1 div log 0.5 pow", vec![uniform([33, 5], 4.0, 9.0), uniform([5], 0.1, 0.5)]),
    ];
    samples.push(sample("x0 x1 mul x0 sub", vec![normal([3, 5]), Input::Same(0)]));
    samples.into_iter().flatten().collect()
}

fn bad() -> Vec<Bad> {
    let add = || Fused { expression: Expression::input(0) + Expression::input(1), inputs: 2 };
    vec![
        Bad::new(add(), [normal([3])], "it takes 2 inputs, 1 were given"),
        Bad::new(add(), [normal([3, 4]), normal([3])], "[3, 4] and [3] do not broadcast: 4 against 3"),
        Bad::new(add(), [normal([3]), indices([3], 2)], "tensors of one float type, found f32 [3] and i32 [3]"),
    ]
}

/// The line of the registry. The attribute `expression` is what [`Expression::parse`] reads.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["x0", "x1", "x2", "x3", "x4", "x5"],
        outputs: &["y"],
        kernels: &[pointwise::KERNELS, reduce::KERNELS],
        build: Box::new(|attributes| {
            let expression = Expression::parse(attributes.text_or("expression", "x0 x1 mul 1 add relu")?)?;
            let inputs = expression.inputs().into_iter().max().map_or(0, |last| last + 1);
            Ok(Box::new(Fused::new(expression, inputs)?))
        }),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;

    #[test]
    fn another_number_needs_no_other_kernel() {
        let gpu = Gpu::new().unwrap();
        let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0], [3]).unwrap().watch();
        let run = |low: f32, high: f32| {
            let y = fuse([&x], |[x]| (x * 2.0).maximum(low).minimum(high)).unwrap();
            (y.to_vec::<f32>().unwrap(), y.backward_from(&x.detach()).unwrap().get(&x).unwrap().to_vec::<f32>().unwrap())
        };
        assert_eq!(run(3.0, 5.0), (vec![3.0, 4.0, 5.0], vec![0.0, 4.0, 0.0]));
        let built = gpu.built_shaders().len();
        assert_eq!(run(5.0, 5.5), (vec![5.0, 5.0, 5.5], vec![0.0, 0.0, 0.0]));
        assert_eq!(gpu.built_shaders().len(), built);
    }

    #[test]
    fn expressions_are_checked() {
        let words = |text: &str| Expression::parse(text).unwrap_err().to_string();
        assert!(words("x0 add").contains("an operand of \"add\" is missing"));
        assert!(words("x0 x1").contains("operands are left"));
        assert!(words("x0 squash").contains("\"squash\" is neither"));
        assert!(words("").contains("there is nothing"));
        let refused = |expression: Expression, inputs| Fused::new(expression, inputs).unwrap_err().to_string();
        assert!(refused(Expression::input(2), 2).contains("reads x2, 2 tensors were given"));
        assert!(refused(Expression::from(1.0), 1).contains("reads no input"));
        assert!(refused(Expression::input(0).map("clamp"), 1).contains("no map \"clamp\" without constants"));
        assert!(refused(Expression::input(0), 7).contains("it takes 1 to 6 tensors"));
    }
}
