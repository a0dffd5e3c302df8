//! The largest element of each window.

use super::window::{Window, vec};
use crate::error::Result;
use crate::gpu::{Launch, Param};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, distinct, indices};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply_one, exactly};
use crate::params;
use crate::tensor::{DType, Shape, Spec, Tensor};

kernels!(MAX_POOL = "pooling/max_pool2d");

/// `y[n, i, j, c]` is the largest element of a window of x `[N, H, W, C]`; of equal ones the first
/// gets the gradient, as in PyTorch. A second output says which won: its place in the window, -1
/// where a dilated window lies beside all of the image.
#[derive(Debug, Clone)]
pub struct MaxPool2d {
    /// The windows.
    pub window: Window,
}

impl MaxPool2d {
    fn parameters(&self, n: usize, x: &Shape, y: &Shape, vec: usize) -> Vec<Param> {
        [self.window.parameters(n, x, y, vec).as_slice(), params![f32::NEG_INFINITY]].concat()
    }
}

impl Operator for MaxPool2d {
    fn name(&self) -> &str {
        "max_pool2d"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("max_pool2d", inputs)?;
        let shape = self.window.output("max_pool2d", x)?;
        Ok(vec![Spec::new(shape.clone(), x.dtype), Spec::i32(shape)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([x], [spec, _]) = (exactly("max_pool2d", inputs)?, exactly("max_pool2d", outputs)?);
        let y = Tensor::empty(x.gpu(), &spec.shape, spec.dtype)?;
        let winner = Tensor::empty(x.gpu(), &spec.shape, DType::I32)?;
        let v = vec(x.shape().last());
        let words = self.parameters(y.numel(), x.shape(), y.shape(), v);
        let (bands, walk) = self.window.bands(false, x.gpu().capabilities());
        for band in bands {
            Launch::new(x.gpu(), &MAX_POOL, "forward")
                .storage(x.dtype().storage())
                .define("PASS", "forward")
                .define("VEC", v)
                .define("DILATED", self.window.dilation != [1, 1])
                .read(*x)
                .write(&y)
                .write(&winner)
                .params(&[&words, &band.map(Param::from)[..]].concat())
                .walk(walk)
                .invocations(y.numel() / v)?;
        }
        Ok(vec![y, winner])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (dy, winner, spec) = (step.cotangent(0)?, step.output(1)?, step.input_spec(0)?);
        let dx = Tensor::empty(dy.gpu(), &spec.shape, spec.dtype)?;
        let v = vec(spec.shape.last());
        let words = self.parameters(dx.numel(), &spec.shape, dy.shape(), v);
        let (bands, walk) = self.window.bands(true, dy.gpu().capabilities());
        for band in bands {
            Launch::new(dy.gpu(), &MAX_POOL, "backward")
                .storage(spec.dtype.storage())
                .define("PASS", "backward")
                .define("VEC", v)
                .define("DILATED", self.window.dilation != [1, 1])
                .read(&dy)
                .read(winner)
                .write(&dx)
                .params(&[&words, &band.map(Param::from)[..]].concat())
                .walk(walk)
                .invocations(dx.numel() / v)?;
        }
        Ok(vec![Some(dx)])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("max_pool2d", inputs)?;
        let shape = self.window.output("max_pool2d", &Spec::f32(&x.shape))?;
        // The last NaN, else the first of the largest.
        let first = |(best, at): (f64, usize), (k, v): (usize, &Option<f64>)| match v {
            Some(v) if *v > best || v.is_nan() || at == usize::MAX => (*v, k),
            _ => (best, at),
        };
        let largest = |at: &[usize]| self.window.values(x, at).iter().enumerate().fold((f64::NEG_INFINITY, usize::MAX), first);
        let winner = Array::from_fn(&shape, |at| if largest(at).1 == usize::MAX { -1.0 } else { largest(at).1 as f64 });
        Ok(vec![Array::from_fn(&shape, |at| largest(at).0), Array { dtype: DType::I32, ..winner }])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let compared = self.window.kernel.iter().product::<usize>() * outputs.first().map_or(0, |s| s.shape.numel());
        Cost { flops: compared as f64, ..Cost::streaming(inputs, outputs, 0.0) }
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(MaxPool2d { window: Window::build(attributes)? }))
}

fn square(kernel: usize, stride: usize, padding: usize) -> MaxPool2d {
    MaxPool2d { window: Window::square(kernel, stride, padding) }
}

fn samples() -> Vec<Sample> {
    let uneven = MaxPool2d { window: Window { kernel: [1, 3], stride: [2, 1], padding: [0, 1], ..Window::square(1, 1, 0) } };
    let spread = |kernel, stride, padding, dilation, ceil_mode| MaxPool2d {
        window: Window { dilation, ceil_mode, ..Window::square(kernel, stride, padding) },
    };
    let equal = Input::Values(Array::new([1, 4, 4, 1], vec![1.0; 16]));
    vec![
        Sample::new(square(2, 2, 0), [distinct([1, 6, 6, 2])]),
        Sample::new(square(3, 2, 1), [distinct([2, 7, 9, 3])]),
        Sample::new(square(3, 2, 1), [distinct([1, 7, 5, 8])]),
        Sample::new(square(3, 1, 1), [distinct([1, 5, 5, 4])]),
        Sample::new(square(2, 3, 0), [distinct([1, 7, 7, 1])]),
        Sample::new(square(1, 1, 0), [distinct([3, 1, 1, 33])]),
        Sample::new(uneven, [distinct([2, 5, 7, 5])]),
        Sample::new(spread(3, 2, 0, [1, 1], true), [distinct([1, 6, 8, 3])]),
        Sample::new(spread(3, 2, 1, [1, 1], true), [distinct([2, 6, 7, 4])]),
        Sample::new(spread(2, 3, 1, [1, 1], true), [distinct([1, 5, 8, 2])]),
        Sample::new(spread(3, 1, 0, [2, 3], false), [distinct([1, 7, 9, 3])]),
        Sample::new(spread(3, 2, 1, [2, 2], true), [distinct([2, 6, 7, 4])]),
        Sample::new(square(5, 1, 2), [distinct([1, 3, 3, 65])]),
        Sample::new(FirstOfEqual(square(2, 2, 0)), [equal]),
        Sample::new(square(2, 2, 0), [distinct([0, 4, 4, 3])]),
    ]
}

/// The operator on equal elements, where central differences do not exist: the first of each window
/// gets the gradient.
struct FirstOfEqual(MaxPool2d);

impl Operator for FirstOfEqual {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        self.0.infer(inputs)
    }
    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        self.0.forward(inputs, outputs)
    }
    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        self.0.backward(step)
    }
    fn saves(&self) -> Saves {
        self.0.saves()
    }
    fn differentiable(&self) -> Vec<usize> {
        self.0.differentiable()
    }
    fn rows(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<usize> {
        self.0.rows(inputs, outputs)
    }
    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        self.0.reference(inputs)
    }
    fn reference_backward(&self, inputs: &[Array], cotangents: &[Array], _: usize, elements: &[usize]) -> Result<Vec<f64>> {
        let ([x], Some(dy)) = (exactly("max_pool2d", inputs)?, cotangents.first()) else { return Ok(Vec::new()) };
        let mut dx = Array::zeros(&x.shape);
        // Windows of the sample do not overlap, so window (i, j) begins at (2 i, 2 j).
        Array::from_fn(&dy.shape, |at| {
            if let [n, i, j, c] = at {
                dx.add_at(&[*n, 2 * i, 2 * j, *c], dy.at(at));
            }
            0.0
        });
        Ok(elements.iter().map(|e| dx.flat(*e)).collect())
    }
}

fn bad() -> Vec<Bad> {
    vec![
        Bad::new(square(2, 2, 0), [distinct([4, 4, 3])], "x must be images [N, H, W, C]"),
        Bad::new(square(2, 2, 0), [indices([1, 4, 4, 3], 5)], "x must hold floats"),
        Bad::new(square(5, 1, 0), [distinct([1, 4, 4, 3])], "the window is larger than the padded image"),
        Bad::new(square(2, 1, 2), [distinct([1, 4, 4, 3])], "padding must be at most half the kernel"),
        Bad::new(square(2, 0, 0), [distinct([1, 4, 4, 3])], "kernel, stride and dilation must be at least 1"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "max_pool2d",
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
    /// The largest element of each window of images `[N, H, W, C]`: `[N, (H + 2 padding - dilation
    /// (kernel - 1) - 1) / stride + 1, .., C]`, rounded down or, with `ceil_mode`, up.
    ///
    /// # Errors
    /// Other than four axes of floats; a window that does not fit; padding of more than half a
    /// window; out of memory.
    pub fn max_pool2d(&self, window: Window) -> Result<Tensor> {
        apply_one(MaxPool2d { window }, &[self])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As in PyTorch; rows -1 and 2 of an image of two are both padding.
    #[test]
    fn a_window_beside_the_image_is_less_than_everything() {
        let gpu = crate::gpu::Gpu::new().unwrap();
        let x = Tensor::full(&gpu, [1, 2, 4, 1], 1.0, DType::F32).unwrap().watch();
        let y = x.max_pool2d(Window { dilation: [3, 1], ..Window::square(2, 1, 1) }).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [f32::NEG_INFINITY; 5]);
        let dy = Tensor::full(&gpu, y.shape(), 1.0, DType::F32).unwrap();
        assert_eq!(y.backward_from(&dy).unwrap().get(&x).unwrap().to_vec::<f32>().unwrap(), [0.0; 8]);
    }
}
