//! Layer normalisation over the last axis: group normalisation with one group of one pixel, by the
//! same kernel.

use super::group_norm::{self, Groups, TOLERANCE, check_parameters, norm_cost};
use crate::error::{Error, Result, require_not_negative};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal, normal_with, uniform};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, Tolerance, apply_one, axes_before, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// Each row of x `[.., D]` brought to mean 0 and variance 1, then scaled by weight and shifted by
/// bias, both `[D]` (Ba et al. 2016).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Added to the variance; not negative.
    pub eps: f32,
}

impl LayerNorm {
    /// The rows' shape, and how the kernel sees them.
    fn plan(&self, x: &Shape) -> Result<(Shape, Groups)> {
        let Some((features, rows)) = x.split_last() else {
            return Err(Error::shape("layer_norm", "x must have at least one axis, found a scalar"));
        };
        Ok((Shape::from(rows), Groups { images: rows.iter().product(), pixels: 1, groups: 1, channels: *features, eps: self.eps }))
    }
}

impl Operator for LayerNorm {
    fn name(&self) -> &str {
        "layer_norm"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x, weight, bias] = exactly("layer_norm", inputs)?;
        require_not_negative("layer_norm", "eps", self.eps)?;
        let (rows, _) = self.plan(&x.shape)?;
        check_parameters("layer_norm", x, x.shape.last(), [("weight", weight), ("bias", bias)])?;
        Ok(vec![Spec::new(&x.shape, x.dtype), Spec::f32(&rows), Spec::f32(&rows)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [x, weight, bias] = exactly("layer_norm", inputs)?;
        self.plan(x.shape())?.1.forward(x, weight, bias, outputs)
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        self.plan(&step.input_spec(0)?.shape)?.1.backward(step)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![1, 2] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, _: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        // The last axis is not one of rows.
        if outputs.first().is_some_and(|y| y.shape.rank() > 1) { vec![0] } else { Vec::new() }
    }

    fn leading(&self, inputs: &[Spec], _: &[Spec]) -> usize {
        axes_before(inputs, -1)
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x, weight, bias] = exactly("layer_norm", inputs)?;
        let (rows, plan) = self.plan(&x.shape)?;
        Ok(plan.reference(x, weight, bias, &rows))
    }

    fn tolerance(&self) -> Tolerance {
        TOLERANCE
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        norm_cost(inputs, outputs)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(LayerNorm { eps: attributes.number_or("eps", 1e-5)? as f32 }))
}

const LAYER_NORM: LayerNorm = LayerNorm { eps: 1e-5 };

fn samples() -> Vec<Sample> {
    let sample = |shape: &[usize]| {
        let d = shape.last().copied().unwrap_or(1);
        Sample::new(LAYER_NORM, [normal_with(shape, 1.5, 1.0), uniform([d], 0.5, 1.5), normal([d])])
    };
    let off_centre = Sample::new(LAYER_NORM, [normal_with([3, 64], 0.5, 50.0), uniform([64], 0.5, 1.5), normal([64])]);
    let shapes: [&[usize]; 9] = [&[4, 8], &[2, 3, 192], &[3, 1001], &[7], &[5, 1], &[65, 33], &[1, 3, 5, 12], &[0, 7], &[9001, 3]];
    shapes.into_iter().map(sample).chain([off_centre]).collect()
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(LAYER_NORM, [normal([]), normal([1]), normal([1])], "at least one axis"),
        Bad::new(LayerNorm { eps: -1.0 }, [normal([2, 3]), normal([3]), normal([3])], "eps must be finite and at least 0, found -1"),
        Bad::new(LayerNorm { eps: f32::NAN }, [normal([2, 3]), normal([3]), normal([3])], "eps must be finite and at least 0, found NaN"),
        Bad::new(LAYER_NORM, [normal([2, 3]), normal([2]), normal([3])], "weight must be [3]"),
        Bad::new(LAYER_NORM, [normal([2, 3]), normal([3]), normal([3, 1])], "bias must be [3]"),
        Bad::new(LAYER_NORM, [indices([2, 3], 4), normal([3]), normal([3])], "x must hold floats"),
        Bad::new(LAYER_NORM, [normal([2, 3]), normal([3])], "it takes 3 inputs, 2 were given"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entries() -> [Entry; 1] {
    [Entry {
        name: "layer_norm",
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[group_norm::launch::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }]
}

impl Tensor {
    /// Each row of this tensor `[.., D]` brought to mean 0 and variance 1, then `* weight + bias`,
    /// both f32 `[D]` (Ba et al. 2016).
    ///
    /// # Errors
    /// A scalar; weight or bias of another shape or type; integers; out of memory.
    pub fn layer_norm(&self, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        apply_one(LayerNorm { eps }, &[self, weight, bias])
    }
}
