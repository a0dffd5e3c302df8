//! The centre of images, resized to one size.

use super::crop::{KERNELS, resize, resize_reference};
use super::{Interpolation, check_images, check_side};
use crate::error::{Result, require_within};
use crate::gpu::Scalar;
use crate::ops::entry::Entry;
use crate::ops::layout::strided;
use crate::ops::sample::{Bad, Sample, indices, uniform};
use crate::ops::{Array, Attributes, Cost, Edges, Operator, apply_one, exactly};
use crate::tensor::{DType, Spec, Tensor};

/// The square of side `fraction * min(H, W)` in the centre, resized to `size`: for measuring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CenterResize {
    /// Height and width of the result.
    pub size: [usize; 2],
    /// The square's side as a part of the image's shorter side, above 0 and at most 1.
    pub fraction: f32,
}

impl CenterResize {
    fn square(&self, [h, w]: [usize; 2]) -> [f32; 4] {
        let side = (h.min(w) as f32 * self.fraction).round().max(1.0) as usize;
        [(w - side) / 2, (h - side) / 2, side, side].map(|v| v as f32)
    }
}

impl Operator for CenterResize {
    fn name(&self) -> &str {
        "center_resize"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [images] = exactly(self.name(), inputs)?;
        let ([n, _, _, c], [h, w]) = (check_images(self.name(), images)?, self.size);
        check_side(self.name(), "the result", h)?;
        check_side(self.name(), "the result", w)?;
        require_within(self.name(), "fraction", self.fraction, [1e-3, 1.0])?;
        Ok(vec![Spec::f32([n, h, w, c])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([images], [spec]) = (exactly(self.name(), inputs)?, exactly(self.name(), outputs)?);
        let [n, h, w, _] = [0, 1, 2, 3].map(|axis| images.shape().dim(axis));
        let square = Tensor::empty(images.gpu(), [1, 4], DType::F32)?;
        square.write_scalars(&self.square([h, w]).map(Scalar::from))?;
        Ok(vec![resize(images, &square.expand(&[n, 4])?, spec, Interpolation::Bilinear)?])
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [images] = exactly(self.name(), inputs)?;
        let [n, h, w, _] = [0, 1, 2, 3].map(|axis| images.shape.dim(axis));
        let boxes = Array::new([n, 4], self.square([h, w]).repeat(n).into_iter().map(f64::from).collect());
        Ok(vec![resize_reference(images, &boxes, self.size, Interpolation::Bilinear)])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 8.0)
    }
}

pub(super) fn entry() -> Entry {
    Entry {
        name: "center_resize",
        module: module_path!(),
        inputs: &["images"],
        outputs: &["y"],
        kernels: &[KERNELS, strided::KERNELS],
        build: Box::new(|attributes: &Attributes| {
            let size = [attributes.size("height")?, attributes.size("width")?];
            Ok(Box::new(CenterResize { size, fraction: attributes.number_or("fraction", 1.0)? as f32 }))
        }),
        samples: Box::new(|| {
            let sample = |shape: [usize; 4], size, fraction| Sample::new(CenterResize { size, fraction }, [uniform(shape, 0.0, 1.0)]);
            vec![
                sample([3, 33, 65, 3], [7, 5], 0.875),
                sample([3, 7, 5, 1], [33, 3], 1.0),
                sample([5, 7, 7, 4], [7, 7], 1.0),
                sample([0, 7, 7, 4], [7, 7], 1.0),
            ]
        }),
        bad: Box::new(|| {
            let image = || uniform([2, 5, 5, 3], 0.0, 1.0);
            vec![
                Bad::new(CenterResize { size: [5, 5], fraction: 1.5 }, [image()], "fraction must lie in"),
                Bad::new(CenterResize { size: [5, 0], fraction: 1.0 }, [image()], "the result must have sides"),
                Bad::new(CenterResize { size: [5, 5], fraction: 1.0 }, [indices([2, 5, 5, 3], 9)], "images must be f32"),
            ]
        }),
    }
}

impl Tensor {
    /// The square of side `fraction * min(H, W)` in the centre of images `[N, H, W, C]`, resized to
    /// `[N, size, C]`.
    ///
    /// # Errors
    /// Anything but f32 images of 1, 3 or 4 channels; a fraction outside 0..=1; an empty size.
    pub fn center_resize(&self, size: [usize; 2], fraction: f32) -> Result<Tensor> {
        apply_one(CenterResize { size, fraction }, &[self])
    }
}
