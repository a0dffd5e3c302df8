//! Position embeddings of one grid of patches, for another: images of another size, or the smaller
//! crops of a multi-crop method.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::tensor::Tensor;

/// The weights `[to, from]` of bicubic interpolation along one axis, as PyTorch's
/// `interpolate(mode="bicubic", align_corners=False)` without antialiasing computes it: Keys'
/// kernel with a = -0.75 around the output's centre, the outermost values repeated.
fn bicubic(from: usize, to: usize) -> Vec<Vec<f64>> {
    const A: f64 = -0.75;
    let kernel = |x: f64| match x.abs() {
        x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((x - 5.0) * x + 8.0) * x * A - 4.0 * A,
        _ => 0.0,
    };
    let row = |at: usize| {
        let center = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let mut weights = vec![0.0; from];
        for step in -1..3 {
            let place = center.floor() + f64::from(step);
            let inside = place.clamp(0.0, from.saturating_sub(1) as f64) as usize;
            weights.iter_mut().skip(inside).take(1).for_each(|w| *w += kernel(center - place));
        }
        weights
    };
    (0..to).map(row).collect()
}

/// Matrices that turn the embeddings of one grid into another's, made once each: a captured step
/// must not upload.
pub(super) struct Positions {
    grid: [usize; 2],
    matrices: Mutex<HashMap<[usize; 2], Tensor>>,
}

impl Positions {
    /// For embeddings of `[rows, columns]` of patches.
    pub fn of(grid: [usize; 2]) -> Self {
        Self { grid, matrices: Mutex::default() }
    }

    /// `learnt` `[1, 1 + rows * columns, D]`, whose first is the class token's and stays, for
    /// another `grid`.
    pub fn resized(&self, learnt: &Tensor, grid: [usize; 2]) -> Result<Tensor> {
        if grid == self.grid {
            return Ok(learnt.clone());
        }
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        let matrix = matrices.get(&grid).cloned().map_or_else(|| self.matrix(learnt, grid), Ok)?;
        matrices.insert(grid, matrix.clone());
        drop(matrices);
        let [tokens, d] = [1, 2].map(|axis| learnt.shape().dim(axis));
        let resized = matrix.matmul(&learnt.reshape(&[tokens, d])?)?;
        resized.reshape(&[1, resized.shape().dim(0), d])
    }

    fn matrix(&self, learnt: &Tensor, grid: [usize; 2]) -> Result<Tensor> {
        let ([rows, columns], [from_rows, from_columns]) = (grid, self.grid);
        let (down, across) = (bicubic(from_rows, rows), bicubic(from_columns, columns));
        let width = 1 + from_rows * from_columns;
        let class = std::iter::once(1.0).chain(std::iter::repeat_n(0.0, width - 1));
        let patch = |(d, a): (&Vec<f64>, &Vec<f64>)| {
            std::iter::once(0.0).chain(d.iter().flat_map(|d| a.iter().map(move |a| (d * a) as f32)).collect::<Vec<_>>())
        };
        let patches = down.iter().flat_map(|d| across.iter().map(move |a| (d, a))).flat_map(patch);
        let values: Vec<f32> = class.chain(patches).collect();
        Tensor::from_slice(learnt.gpu(), &values, [1 + rows * columns, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;

    /// What PyTorch 2.15 makes of `arange(12).reshape(1, 1, 3, 4) ** 2` at 2 x 5, and of 2 x 2
    /// values at 3 x 1, in float64.
    #[test]
    fn embeddings_are_resized_as_pytorch_does() {
        let gpu = Gpu::new().unwrap();
        let check = |grid: [usize; 2], values: &[f32], to: [usize; 2], expected: &[f32]| {
            let learnt = Tensor::from_slice(&gpu, &[&[7.0], values].concat(), [1, 1 + values.len(), 1]).unwrap();
            let found = Positions::of(grid).resized(&learnt, to).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(found[0], 7.0);
            assert!(found[1..].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}, expected {expected:?}");
            assert_eq!(found.len(), 1 + expected.len());
        };
        let squares: Vec<f32> = (0..12).map(|v| (v * v) as f32).collect();
        check(
            [3, 4],
            &squares,
            [2, 5],
            &[1.783_727, 3.262_961, 6.359_375, 11.321_789, 15.928_023, 52.747_773, 62.914_54, 77.515_625, 93.982_71, 107.276_48],
        );
        check([2, 2], &[1.0, 2.0, 4.0, 8.0], [3, 1], &[1.109_375, 3.75, 6.390_625]);
        check([3, 4], &squares, [3, 4], &squares);
    }
}
