//! More elements around a tensor: a constant, or its own reflection.

use super::strided::{self, Axis, axes, check_rank, copy, width};
use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor, check_sizes};

kernels!(REFLECT = "layout/reflect");

/// What is written around a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PadMode {
    /// A number.
    Constant(f32),
    /// The mirror image about the first and last element, which are not repeated.
    Reflect,
}

/// `pad` elements around x.
#[derive(Debug, Clone)]
pub struct Pad {
    /// Before and behind each axis, last axis first (PyTorch's order). Negative numbers cut off,
    /// with a constant only.
    pub pad: Vec<isize>,
    /// What is written there.
    pub mode: PadMode,
}

impl Pad {
    /// How many go before and behind each axis, in the order of the axes.
    fn sides(&self, shape: &Shape) -> Result<Vec<(isize, isize)>> {
        let wrong = |rule: String| Error::shape("pad", format!("{shape} cannot be padded by {:?}: {rule}", self.pad));
        if !self.pad.len().is_multiple_of(2) || self.pad.len() > 2 * shape.rank() {
            return Err(wrong("two numbers an axis are needed, last axis first".into()));
        }
        check_sizes("pad", "padding", self.pad.iter().map(|side| side.unsigned_abs()))?;
        check_sizes("pad", "an axis", shape.iter().copied())?;
        let given = self.pad.chunks_exact(2).filter_map(|c| Some((*c.first()?, *c.last()?)));
        let mut sides: Vec<(isize, isize)> = given.chain(std::iter::repeat((0, 0))).take(shape.rank()).collect();
        sides.reverse();
        for (axis, ((low, high), size)) in sides.iter().zip(shape.iter()).enumerate() {
            let inside = |side: isize| side == 0 || (0..*size as isize).contains(&side);
            if self.mode == PadMode::Reflect && !(inside(*low) && inside(*high)) {
                return Err(wrong(format!("a reflection of axis {axis} takes from 0 to {} elements", size.saturating_sub(1))));
            }
            if *size as isize + low + high < 0 {
                return Err(wrong(format!("more would be cut off axis {axis} than it has")));
            }
        }
        Ok(sides)
    }

    fn padded(&self, shape: &Shape) -> Result<Shape> {
        let sizes = shape.iter().zip(self.sides(shape)?).map(|(size, (low, high))| (*size as isize + low + high).unsigned_abs());
        Ok(Shape::from(sizes.collect::<Vec<_>>()))
    }

    /// The axes of `to`, whose elements before `sides` and behind lie outside of `x`.
    fn around(x: &Tensor, to: &Shape, sides: impl Iterator<Item = isize>) -> Vec<Axis> {
        axes(x.shape()).into_iter().zip(to.iter()).zip(sides).map(|((a, size), low)| Axis { size: *size, low: low as i64, ..a }).collect()
    }
}

/// One axis reflected, or (`backward`) the gradient of that: `shape` is the one without padding.
fn reflect(x: &Tensor, entry: &str, shape: &Shape, axis: usize, (low, high): (usize, usize)) -> Result<Tensor> {
    let size = shape.dim(axis);
    let padded = low + size + high;
    let y = Tensor::empty(x.gpu(), shape.with(axis, if entry == "forward" { padded } else { size }), x.dtype())?;
    let inner: usize = shape.iter().skip(axis + 1).product();
    let w = width([inner].into_iter());
    let n = y.numel() / w;
    Launch::new(x.gpu(), &REFLECT, entry)
        .define("T", x.dtype().to_string())
        .define("W", w)
        .read(x)
        .write(&y)
        .params(params![n, size, low, padded, inner / w])
        .invocations(n)?;
    Ok(y)
}

/// The axes to reflect, with both sides.
fn reflected(sides: &[(isize, isize)]) -> Vec<(usize, (usize, usize))> {
    let counted = sides.iter().enumerate().map(|(axis, (low, high))| (axis, (low.unsigned_abs(), high.unsigned_abs())));
    counted.filter(|(_, both)| *both != (0, 0)).collect()
}

impl Operator for Pad {
    fn name(&self) -> &str {
        "pad"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("pad", inputs)?;
        check_rank("pad", &x.shape)?;
        Ok(vec![Spec::new(self.padded(&x.shape)?, x.dtype)])
    }

    // A reflection goes axis by axis: of the result along the axes before.
    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly("pad", inputs)?, exactly("pad", outputs)?);
        let sides = self.sides(x.shape())?;
        let value = match self.mode {
            PadMode::Constant(value) => value,
            PadMode::Reflect => 0.0,
        };
        let todo = if self.mode == PadMode::Reflect { reflected(&sides) } else { Vec::new() };
        let Some(((axis, both), rest)) = todo.split_first() else {
            return Ok(vec![copy(x, &Self::around(x, &spec.shape, sides.iter().map(|s| s.0)), 0, value)?]);
        };
        let mut y = reflect(x, "forward", x.shape(), *axis, *both)?;
        for (axis, both) in rest {
            y = reflect(&y, "forward", y.shape(), *axis, *both)?;
        }
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (mut dy, shape) = (step.cotangent(0)?, &step.input_spec(0)?.shape);
        let sides = self.sides(shape)?;
        if self.mode != PadMode::Reflect {
            return Ok(vec![Some(copy(&dy, &Self::around(&dy, shape, sides.iter().map(|s| -s.0)), 0, 0.0)?)]);
        }
        for (axis, both) in reflected(&sides).into_iter().rev() {
            dy = reflect(&dy, "backward", &dy.shape().with(axis, shape.dim(axis)), axis, both)?;
        }
        Ok(vec![Some(dy)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        let kept = inputs.first().and_then(|x| self.sides(&x.shape).ok()).is_some_and(|sides| sides.first() == Some(&(0, 0)));
        if kept { vec![0] } else { Vec::new() }
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        let sides = inputs.first().and_then(|x| self.sides(&x.shape).ok()).unwrap_or_default();
        sides.iter().take_while(|both| **both == (0, 0)).count()
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("pad", inputs)?;
        let sides = self.sides(&x.shape)?;
        let y = Array::from_fn(self.padded(&x.shape)?, |at| {
            let mut source = Vec::with_capacity(at.len());
            for ((i, size), (low, _)) in at.iter().zip(x.shape.iter()).zip(&sides) {
                let (mut i, size) = (*i as isize - low, *size as isize);
                match self.mode {
                    PadMode::Constant(value) if i < 0 || i >= size => return f64::from(value),
                    PadMode::Reflect if i < 0 => i = -i,
                    PadMode::Reflect if i >= size => i = 2 * (size - 1) - i,
                    _ => {}
                }
                source.push(i.unsigned_abs());
            }
            x.at(&source)
        });
        Ok(vec![Array { dtype: x.dtype, ..y }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 0.0)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let mode = match attributes.text_or("mode", "constant")? {
        "constant" => PadMode::Constant(attributes.number_or("value", 0.0)? as f32),
        "reflect" => PadMode::Reflect,
        other => return Err(Error::argument("pad", format!("mode is constant or reflect, found \"{other}\""))),
    };
    Ok(Box::new(Pad { pad: attributes.integers("pad")?, mode }))
}

fn constant(pad: &[isize], value: f32) -> Pad {
    Pad { pad: pad.to_vec(), mode: PadMode::Constant(value) }
}

fn mirrored(pad: &[isize]) -> Pad {
    Pad { pad: pad.to_vec(), mode: PadMode::Reflect }
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(constant(&[1, 2, 0, 3], 0.5), [normal([2, 3, 4, 5])]),
        Sample::new(constant(&[0, 0, 1, 2, 3, 0], -1.5), [normal([2, 3, 5, 8])]),
        Sample::new(constant(&[0, 0, 1, 1], 0.0), [normal([7, 3, 5])]),
        Sample::new(constant(&[33, 65], 2.0), [normal([1])]),
        Sample::new(constant(&[-1, 2, 1, -2], 1.0), [normal([5, 7])]),
        Sample::new(constant(&[-1, -1], 1.0), [normal([3, 3])]),
        Sample::new(constant(&[1, 3], 4.0), [normal([0])]),
        Sample::new(constant(&[2, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1], 4.0), [normal([1, 2, 1, 2, 1, 3])]),
        Sample::new(constant(&[], 0.0), [normal([])]),
        Sample::new(constant(&[1, 1], -3.0), [indices([3, 4], 9)]),
        Sample::new(mirrored(&[2, 1, 1, 3]), [normal([2, 3, 5, 6])]),
        Sample::new(mirrored(&[0, 0, 2, 2, 3, 1]), [normal([2, 5, 3, 4])]),
        Sample::new(mirrored(&[6, 6]), [normal([3, 7])]),
        Sample::new(mirrored(&[0, 0]), [normal([1])]),
        Sample::new(mirrored(&[2, 1]), [indices([3], 40)]),
    ]
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(constant(&[1], 0.0), [normal([3])], "two numbers an axis"),
        Bad::new(constant(&[1, 1, 1, 1], 0.0), [normal([3])], "two numbers an axis"),
        Bad::new(constant(&[-2, -2], 0.0), [normal([3])], "more would be cut off"),
        Bad::new(mirrored(&[3, 0]), [normal([3])], "a reflection of axis 0 takes from 0 to 2"),
        Bad::new(mirrored(&[-1, 0]), [normal([3])], "a reflection of axis 0"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "pad",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[strided::KERNELS, KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// `pad` elements before and behind each axis, last axis first: `[left, right, top, bottom]`
    /// for `[.., H, W]`, `[0, 0, left, right, top, bottom]` for `[N, H, W, C]`.
    ///
    /// # Errors
    /// An odd number of sides, or more than two an axis; a reflection longer than its axis; out of
    /// memory.
    pub fn pad(&self, pad: &[isize], mode: PadMode) -> Result<Tensor> {
        apply_one(Pad { pad: pad.to_vec(), mode }, &[self])
    }

    /// As [`Self::pad`] with zeros.
    ///
    /// # Errors
    /// As [`Self::pad`].
    pub fn pad_zeros(&self, pad: &[isize]) -> Result<Tensor> {
        self.pad(pad, PadMode::Constant(0.0))
    }
}
