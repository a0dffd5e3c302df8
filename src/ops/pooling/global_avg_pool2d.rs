//! The mean of each channel of an image.

use super::window::{images, vec};
use crate::error::{Error, Result};
use crate::gpu::{Kernel, Launch, kernel};
use crate::ops::registry::Entry;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

static GLOBAL_AVG_POOL: Kernel = kernel!("pooling/global_avg_pool2d");

/// Pixels that one thread sums, before an image is cut into slabs.
const CHUNK: usize = 256;

/// `y[n, c]` is the mean of x `[N, H, W, C]` over H and W.
#[derive(Debug, Clone)]
pub struct GlobalAvgPool2d;

fn launch(entry: &str, x: &Tensor, y: &Tensor, pixels: usize, slabs: usize, scale: f64) -> Result<()> {
    let c = y.shape().last();
    let v = vec(c);
    let n = y.elements() / v;
    let name = |t: &Tensor| if t.dtype() == DType::F16 { "f16" } else { "f32" };
    let half = [x, y].into_iter().find(|t| t.dtype() == DType::F16).unwrap_or(x);
    Launch::new(x.gpu(), &GLOBAL_AVG_POOL, entry)
        .storage(half.dtype().storage())
        .define("SOURCE", name(x))
        .define("TARGET", name(y))
        .define("VEC", v)
        .read(x)
        .write(y)
        .params(params![n, pixels, c / v, slabs, pixels.div_ceil(slabs), scale as f32])
        .invocations(n)
}

impl Operator for GlobalAvgPool2d {
    fn name(&self) -> &str {
        "global_avg_pool2d"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("global_avg_pool2d", inputs)?;
        let [n, h, w, c] = images("global_avg_pool2d", x)?;
        if h * w == 0 {
            return Err(Error::shape("global_avg_pool2d", format!("images of shape {} have no pixels", x.shape)));
        }
        Ok(vec![Spec::new([n, c], x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly("global_avg_pool2d", inputs)?, exactly("global_avg_pool2d", outputs)?);
        let [n, h, w, c] = images("global_avg_pool2d", x.spec())?;
        let y = Tensor::empty(x.gpu(), &spec.shape, spec.dtype)?;
        let (slabs, scale) = ((h * w).div_ceil(CHUNK), 1.0 / (h * w) as f64);
        if slabs == 1 {
            launch("forward", x, &y, h * w, 1, scale)?;
        } else {
            let partial = Tensor::empty(x.gpu(), [n, slabs, c], DType::F32)?;
            launch("forward", x, &partial, h * w, slabs, 1.0)?;
            launch("forward", &partial, &y, slabs, 1, scale)?;
        }
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, spec) = (step.cotangent(0)?, step.input_spec(0)?);
        let [_, h, w, _] = images("global_avg_pool2d", spec)?;
        let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
        launch("backward", &dy, &dx, h * w, 1, 1.0 / (h * w) as f64)?;
        Ok(vec![Some(dx)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("global_avg_pool2d", inputs)?;
        let [n, h, w, c] = images("global_avg_pool2d", &Spec::f32(&x.shape))?;
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
        let added: usize = inputs.iter().map(|s| s.shape.elements()).sum();
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
        Bad::new(GlobalAvgPool2d, [indices([1, 4, 4, 3], 5)], "it takes floats"),
        Bad::new(GlobalAvgPool2d, [normal([1, 0, 4, 3])], "have no pixels"),
        Bad::new(GlobalAvgPool2d, [], "it takes 1 inputs"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "global_avg_pool2d",
        family: "pooling",
        inputs: &["x"],
        outputs: &["y"],
        shaders: &["pooling/global_avg_pool2d"],
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
