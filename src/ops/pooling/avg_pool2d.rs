//! The mean of each window.

use super::window::{Window, vec};
use crate::error::{Error, Result};
use crate::gpu::{Launch, Param};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, apply_one, exactly};
use crate::params;
use crate::tensor::{Shape, Spec, Tensor};

kernels!(AVG_POOL = "pooling/avg_pool2d");

/// `y[n, i, j, c]` is the mean of a window of x `[N, H, W, C]`.
#[derive(Debug, Clone)]
pub struct AvgPool2d {
    /// The windows.
    pub window: Window,
    /// Whether padding counts as elements of value 0 (PyTorch's default) or not at all.
    pub count_include_pad: bool,
}

impl AvgPool2d {
    fn launch(&self, entry: &str, from: &Tensor, to: &Tensor, x: &Shape, y: &Shape) -> Result<()> {
        let v = vec(x.last());
        let mut words = self.window.parameters(to.numel(), x, y, v);
        words.extend_from_slice(params![self.count_include_pad]);
        let (bands, walk) = self.window.bands(entry == "backward", from.gpu().capabilities());
        for band in bands {
            Launch::new(from.gpu(), &AVG_POOL, entry)
                .storage(from.dtype().storage())
                .define("VEC", v)
                .read(from)
                .write(to)
                .params(&[&words, &band.map(Param::from)[..]].concat())
                .walk(walk)
                .invocations(to.numel() / v)?;
        }
        Ok(())
    }
}

impl Operator for AvgPool2d {
    fn name(&self) -> &str {
        "avg_pool2d"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("avg_pool2d", inputs)?;
        if self.window.dilation != [1; 2] {
            return Err(Error::argument("avg_pool2d", format!("dilation must be 1, found {:?}", self.window.dilation)));
        }
        Ok(vec![Spec::new(self.window.output("avg_pool2d", x)?, x.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec]) = (exactly("avg_pool2d", inputs)?, exactly("avg_pool2d", outputs)?);
        let y = Tensor::empty(x.gpu(), &spec.shape, spec.dtype)?;
        self.launch("forward", x, &y, x.shape(), y.shape())?;
        Ok(vec![y])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, spec) = (step.cotangent(0)?, step.input_spec(0)?);
        let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
        self.launch("backward", &dy, &dx, dx.shape(), dy.shape())?;
        Ok(vec![Some(dx)])
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("avg_pool2d", inputs)?;
        let shape = self.window.output("avg_pool2d", &Spec::f32(&x.shape))?;
        Ok(vec![Array::from_fn(shape, |at| {
            let inside: Vec<f64> = self.window.values(x, at).into_iter().flatten().collect();
            let all = self.window.covered(&x.shape, at);
            inside.iter().sum::<f64>() / if self.count_include_pad { all } else { inside.len() } as f64
        })])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, self.window.kernel.iter().product::<usize>() as f64)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let count_include_pad = attributes.number_or("count_include_pad", 1.0)? != 0.0;
    Ok(Box::new(AvgPool2d { window: Window::build(attributes)?, count_include_pad }))
}

fn square(kernel: usize, stride: usize, padding: usize, count_include_pad: bool) -> AvgPool2d {
    AvgPool2d { window: Window::square(kernel, stride, padding), count_include_pad }
}

fn ceiled(kernel: usize, stride: usize, padding: usize, count_include_pad: bool) -> AvgPool2d {
    AvgPool2d { window: Window { ceil_mode: true, ..Window::square(kernel, stride, padding) }, count_include_pad }
}

fn samples() -> Vec<Sample> {
    let uneven = AvgPool2d {
        window: Window { kernel: [3, 1], stride: [1, 2], padding: [1, 0], ..Window::square(1, 1, 0) },
        count_include_pad: true,
    };
    vec![
        Sample::new(square(2, 2, 0, true), [normal([1, 6, 6, 2])]),
        Sample::new(square(3, 2, 1, true), [normal([2, 7, 9, 3])]),
        Sample::new(square(3, 2, 1, false), [normal([1, 7, 5, 8])]),
        Sample::new(square(3, 1, 1, true), [normal([1, 5, 5, 4])]),
        Sample::new(square(2, 3, 0, false), [normal([1, 7, 7, 1])]),
        Sample::new(square(1, 1, 0, true), [normal([3, 1, 1, 33])]),
        Sample::new(square(5, 1, 2, false), [normal([1, 3, 3, 65])]),
        Sample::new(uneven, [normal([2, 5, 7, 5])]),
        Sample::new(ceiled(3, 2, 0, true), [normal([1, 6, 8, 3])]),
        Sample::new(ceiled(3, 2, 1, true), [normal([2, 6, 7, 4])]),
        Sample::new(ceiled(3, 3, 1, false), [normal([1, 7, 6, 5])]),
        Sample::new(ceiled(2, 3, 1, true), [normal([1, 5, 8, 2])]),
        Sample::new(square(2, 2, 0, true), [normal([0, 4, 4, 3])]),
    ]
}

fn bad() -> Vec<Bad> {
    let image = || [normal([1, 4, 4, 3])];
    let sizes = [
        Bad::sizes(|kernel| square(kernel, 1, 0, true), image(), "a window's side may be at most"),
        Bad::sizes(|stride| square(2, stride, 0, true), image(), "a stride may be at most"),
        Bad::sizes(|padding| square(2, 1, padding, true), image(), "padding may be at most"),
    ];
    let rules = vec![
        Bad::new(square(2, 2, 0, true), [normal([4, 4])], "x must be images [N, H, W, C]"),
        Bad::new(square(2, 2, 0, true), [indices([1, 4, 4, 3], 5)], "x must hold floats"),
        Bad::new(square(5, 1, 0, true), [normal([1, 4, 4, 3])], "the window is larger than the padded image"),
        Bad::new(square(3, 1, 2, true), [normal([1, 4, 4, 3])], "padding must be at most half the kernel"),
        Bad::new(square(0, 1, 0, true), [normal([1, 4, 4, 3])], "kernel, stride and dilation must be at least 1"),
        Bad::new(
            AvgPool2d { window: Window { dilation: [2, 1], ..Window::square(2, 1, 0) }, count_include_pad: true },
            [normal([1, 4, 4, 3])],
            "dilation must be 1",
        ),
    ];
    sizes.into_iter().flatten().chain(rules).collect()
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "avg_pool2d",
        module: module_path!(),
        inputs: &["x"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The mean of each window of images `[N, H, W, C]`:
    /// `[N, (H + 2 padding - kernel) / stride + 1, .., C]`, rounded down or, with `ceil_mode`, up;
    /// `count_include_pad` counts padding as elements of value 0.
    ///
    /// # Errors
    /// Other than four axes of floats; a window that does not fit; padding of more than half a
    /// window; out of memory.
    pub fn avg_pool2d(&self, window: Window, count_include_pad: bool) -> Result<Tensor> {
        apply_one(AvgPool2d { window, count_include_pad }, &[self])
    }
}
