//! Rows brought to length 1: `y = x / max(|x|, eps)` along one axis (PyTorch's `normalize`).

use super::dims::{Dims, gather};
use super::reduce::{self, Reduce};
use crate::error::{Result, require_positive};
use crate::ops::array::maximum;
use crate::ops::elementwise::pointwise::{self, Pointwise};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Autocast, Backward, Cost, Operator, Saves, apply_one, axes_before, exactly, rows_beside};
use crate::tensor::{DType, Spec, Tensor};

/// The length of what is reduced, but `p.scale` (eps) at least.
pub(super) fn length<'a>(x: &'a Tensor, eps: f32) -> Reduce<'a> {
    Reduce { map: "x * x", finish: "maximum_f(sqrt(s), F(p.scale))", scale: eps, ..Reduce::sum(x) }
}

/// Normalisation to length 1; its second output is the length divided by, f32, with `dim` left as 1.
#[derive(Debug, Clone)]
pub struct L2Normalize {
    dim: isize,
    eps: f32,
}

impl L2Normalize {
    /// Along `dim` (-1 is the last); `eps` is the least length divided by.
    pub fn new(dim: isize, eps: f32) -> Self {
        Self { dim, eps }
    }

    fn dims(&self) -> Dims {
        Dims::new(&[self.dim], true)
    }
}

impl Operator for L2Normalize {
    fn name(&self) -> &str {
        "l2_normalize"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly(self.name(), inputs)?;
        require_positive(self.name(), "eps", self.eps)?;
        let length = self.dims().infer(self.name(), x, true)?;
        Ok(vec![x.clone(), Spec::f32(length.shape)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [y, norm]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let norm = length(x, self.eps).run(self.name(), &self.dims().mask(self.name(), x.shape())?, &norm.shape, DType::F32)?;
        let operands: &[(&str, &Tensor)] = &[("x", x), ("norm", &norm)];
        let y = Pointwise { expression: "x / norm", operands, constants: [0.0; 2] }.run(self.name(), &y.shape, y.dtype)?;
        Ok(vec![y, norm])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (y, norm, dy) = (step.output(0)?, step.output(1)?, step.cotangent(0)?);
        let along = Reduce { map: "x * other", other: Some(y), ..Reduce::sum(&dy) };
        let along = along.run(self.name(), &self.dims().mask(self.name(), y.shape())?, norm.shape(), DType::F32)?;
        // A length that was raised to eps is a constant.
        let expression = "(dy - select(y * along, V(0.0), norm <= V(p.a))) / norm";
        let operands: &[(&str, &Tensor)] = &[("dy", &dy), ("y", y), ("along", &along), ("norm", norm)];
        let dx = Pointwise { expression, operands, constants: [self.eps, 0.0] }.run(self.name(), y.shape(), y.dtype())?;
        Ok(vec![Some(dx)])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![0, 1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        rows_beside(inputs, inputs.first().and_then(|x| x.shape.axis(self.name(), self.dim).ok()))
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, self.dim)
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly(self.name(), inputs)?;
        let axis = x.shape.axis(self.name(), self.dim)?;
        let mask: Vec<bool> = (0..x.shape.rank()).map(|a| a == axis).collect();
        let norms =
            gather(x, &mask).iter().map(|t| t.iter().map(|v| v * v).sum::<f64>().sqrt()).map(|n| maximum(n, f64::from(self.eps))).collect();
        let norms = Array::new(x.shape.with(axis, 1), norms);
        let y = Array::from_fn(&x.shape, |index| {
            let row: Vec<usize> = index.iter().enumerate().map(|(a, i)| if a == axis { 0 } else { *i }).collect();
            x.at(index) / norms.at(&row)
        });
        Ok(vec![y, norms])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let elements: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        Cost { flops: 3.0 * elements as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn samples() -> Vec<Sample> {
    let shapes: [(&[usize], isize); 9] = [
        (&[0, 3], 1),
        (&[1], 0),
        (&[5, 7], -1),
        (&[5, 8], 1),
        (&[33, 65], 0),
        (&[2, 3, 7], 1),
        (&[2, 5, 12], 1),
        (&[3, 515], -1),
        (&[2, 2052], 1),
    ];
    let mut samples: Vec<Sample> = shapes.iter().map(|(shape, dim)| Sample::new(L2Normalize::new(*dim, 1e-12), [normal(*shape)])).collect();
    // Rows shorter than eps are divided by eps.
    samples.push(Sample::new(L2Normalize::new(-1, 3.0), [normal([65, 7])]));
    samples.push(Sample::new(L2Normalize::new(-1, 1e-3), [Input::Values(Array::zeros([2, 3]))]));
    samples
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(L2Normalize::new(2, 1e-12), [normal([3, 4])], "axis 2 is out of range for shape [3, 4]"),
        Bad::new(L2Normalize::new(-1, 0.0), [normal([3, 4])], "eps must be positive and finite, found 0"),
        Bad::new(L2Normalize::new(-1, f32::NAN), [normal([3, 4])], "eps must be positive and finite, found NaN"),
        Bad::new(L2Normalize::new(-1, 1e-12), [indices([3, 4], 2)], "x must hold floats, found i32 [3, 4]"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "l2_normalize",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[reduce::KERNELS, pointwise::KERNELS],
        build: Box::new(|attributes: &Attributes| {
            Ok(Box::new(L2Normalize::new(attributes.integer_or("dim", -1)?, attributes.number_or("eps", 1e-12)? as f32)))
        }),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Divided by its length along `dim` (-1 is the last), or by `eps` where that is longer
    /// (PyTorch's default is 1e-12). The shape stays.
    ///
    /// # Errors
    /// An axis that does not exist; `eps` not above 0; integers; out of memory.
    pub fn l2_normalize(&self, dim: isize, eps: f32) -> Result<Tensor> {
        apply_one(L2Normalize::new(dim, eps), &[self])
    }
}
