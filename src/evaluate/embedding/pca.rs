//! Principal components by orthogonal iteration (Golub and Van Loan, "Matrix Computations", 8.2.4).

use super::Rows;
use crate::error::{Error, Result};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

/// Most steps of the iteration; where two variances are within a per cent of each other, so many
/// leave a mix of their components.
const STEPS: usize = 1000;
/// Directions stand when a step turns them by less, in radians, squared.
const TURN: f32 = 1e-12;

/// Principal components, the largest variance first; scikit-learn's names.
#[derive(Debug, Clone)]
pub struct Pca {
    /// Unit rows [K, D], orthogonal to each other; the largest entry of each is positive.
    pub components: Tensor,
    /// The features' mean [1, D].
    pub mean: Tensor,
    /// The variance along each, of a sample (N - 1).
    pub explained_variance: Vec<f64>,
    /// Their parts of the whole variance.
    pub explained_variance_ratio: Vec<f64>,
}

/// The `n_components` first principal components of the rows of `x` [N, D]. The covariance is never
/// made: a step is two products with the rows.
///
/// # Errors
/// Other than f32 [N, D] with N > 1, what is not finite, no components or more than N or D.
pub fn pca(x: &Tensor, n_components: usize) -> Result<Pca> {
    let Rows { rows, mean, squares } = Rows::new("PCA", x)?;
    let (gpu, n, d) = (rows.gpu(), rows.shape().dim(0), rows.shape().last());
    if !(1..=n.min(d)).contains(&n_components) {
        let message = format!("expected 1 to {} components of {n} rows of {d} features, found {n_components}", n.min(d));
        return Err(Error::argument("PCA", message));
    }
    let mut stream = Stream::new(0, Purpose::Initialise);
    let start: Vec<f32> = (0..n_components * d).map(|_| stream.normal()).collect();
    let mut components = orthonormal(&Tensor::from_slice(gpu, &start, [n_components, d])?)?;
    for step in 1..=STEPS {
        let next = orthonormal(&rows.matmul_nt(&components)?.matmul_tn(&rows)?)?;
        let still = step % 10 == 0 && next.sub(&components)?.square()?.sum(&[], false)?.item()? < TURN;
        components = next;
        if still {
            break;
        }
    }
    let largest = components.gather(1, &components.abs()?.argmax(1)?.reshape(&[-1, 1])?)?;
    let components = fuse([&components, &largest], |[row, v]| row * v.clone() / v.map("abs").maximum(1e-30))?;
    let along = rows.matmul_nt(&components)?.square()?.sum(&[0], false)?.to_f64()?;
    let total: f64 = squares.to_f64()?.iter().sum();
    Ok(Pca {
        components,
        mean,
        explained_variance: along.iter().map(|v| v / (n - 1) as f64).collect(),
        explained_variance_ratio: along.iter().map(|v| if total > 0.0 { v / total } else { 0.0 }).collect(),
    })
}

/// Rows [K, D] made unit and orthogonal, one after another (Gram and Schmidt, twice, which is
/// enough in floating point).
fn orthonormal(rows: &Tensor) -> Result<Tensor> {
    let mut done = rows.slice(0, 0, 1)?.l2_normalize(1, 1e-30)?;
    for i in 1..rows.shape().dim(0) {
        let mut row = rows.slice(0, i, i + 1)?;
        for _ in 0..2 {
            row = row.sub(&row.matmul_nt(&done)?.matmul(&done)?)?.l2_normalize(1, 1e-30)?;
        }
        done = Tensor::concat(&[&done, &row], 0)?;
    }
    Ok(done)
}

impl Pca {
    /// Coordinates [N, K] of the rows of `x` [N, D] along the components.
    ///
    /// # Errors
    /// Another number of features.
    pub fn transform(&self, x: &Tensor) -> Result<Tensor> {
        x.sub(&self.mean)?.matmul_nt(&self.components)
    }
}
