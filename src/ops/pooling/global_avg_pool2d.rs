//! The mean of each channel of an image.

use super::window::float_images;
use crate::error::{Error, Result};
use crate::ops::elementwise::pointwise::{self, Pointwise};
use crate::ops::entry::Entry;
use crate::ops::reduction::reduce::{self, Reduce};
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::tensor::{Shape, Spec, Tensor};

/// `y[n, c]` is the mean of x `[N, H, W, C]` over H and W.
#[derive(Debug, Clone)]
pub struct GlobalAvgPool2d;

/// What a pixel counts in the mean.
fn share(x: &Shape) -> f32 {
    1.0 / (x.dim(1) * x.dim(2)) as f32
}

impl Operator for GlobalAvgPool2d {
    fn name(&self) -> &str {
        "global_avg_pool2d"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("global_avg_pool2d", inputs)?;
        let [n, h, w, c] = float_images("global_avg_pool2d", x)?;
        if h * w == 0 {
            return Err(Error::shape("global_avg_pool2d", format!("images of shape {} have no pixels", x.shape)));
        }
        Ok(vec![Spec::new([n, c], x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [y]) = (exactly("global_avg_pool2d", inputs)?, exactly("global_avg_pool2d", outputs)?);
        let mean = Reduce { finish: "s * p.scale", scale: share(x.shape()), ..Reduce::sum(x) };
        Ok(vec![mean.run("global_avg_pool2d", &[false, true, true, false], &y.shape, y.dtype)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let spec = step.input_spec(0)?;
        let dy = step.cotangent(0)?.view([spec.shape.dim(0), 1, 1, spec.shape.last()])?;
        let dx = Pointwise { expression: "dy * p.a", operands: &[("dy", &dy)], constants: [share(&spec.shape), 0.0] };
        Ok(vec![Some(dx.run("global_avg_pool2d", &spec.shape, spec.dtype)?)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("global_avg_pool2d", inputs)?;
        let [n, h, w, c] = float_images("global_avg_pool2d", &Spec::f32(&x.shape))?;
        let mut y = Array::zeros([n, c]);
        Array::from_fn(&x.shape, |at| {
            if let [n, _, _, c] = at {
                y.add_at(&[*n, *c], x.at(at) / (h * w) as f64);
            }
            0.0
        });
        Ok(vec![y])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let added: usize = inputs.iter().map(|s| s.shape.numel()).sum();
        Cost { flops: added as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn build(_: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(GlobalAvgPool2d))
}

fn samples() -> Vec<Sample> {
    let shapes = [[2, 1, 1, 3], [2, 7, 7, 5], [1, 4, 6, 130], [3, 5, 7, 8], [1, 33, 65, 4], [2, 33, 9, 3], [1, 1, 1, 1], [0, 3, 3, 4]];
    shapes.into_iter().map(|shape| Sample::new(GlobalAvgPool2d, [normal(shape)])).collect()
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(GlobalAvgPool2d, [normal([4, 4, 3])], "x must be images [N, H, W, C]"),
        Bad::new(GlobalAvgPool2d, [indices([1, 4, 4, 3], 5)], "x must hold floats"),
        Bad::new(GlobalAvgPool2d, [normal([1, 0, 4, 3])], "have no pixels"),
        Bad::new(GlobalAvgPool2d, [], "it takes 1 inputs"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "global_avg_pool2d",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[reduce::KERNELS, pointwise::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The mean of each channel: images `[N, H, W, C]` to `[N, C]`.
    ///
    /// # Errors
    /// Other than four axes of floats; images without pixels; out of memory.
    pub fn global_avg_pool2d(&self) -> Result<Tensor> {
        apply_one(GlobalAvgPool2d, &[self])
    }
}
