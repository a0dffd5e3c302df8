//! Looking at features: what clusters they have, and where they lie on a plane.
//!
//! | | |
//! |---|---|
//! | `kmeans` | clusters |
//! | `nmi` | how far clusters agree with labels |
//! | `pca` | the directions in which features vary most |
//! | `tsne` | a plane on which neighbours are neighbours |
//! | `picture` | points on a plane as a picture |
//!
//! Features are rows of f32 [N, D]. All of it runs on the device, but for counting labels and
//! drawing.

pub mod kmeans;
pub mod nmi;
pub mod pca;
pub mod picture;
pub mod tsne;

pub use kmeans::{KMeans, KMeansOptions, kmeans};
pub use nmi::normalized_mutual_information;
pub use pca::{Pca, pca};
pub use picture::scatter;
pub use tsne::{Tsne, TsneOptions, tsne};

use crate::error::{Error, Result};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;

/// Features around their mean: distances are the same, and lose fewer digits.
struct Rows {
    /// [N, D]
    rows: Tensor,
    /// [1, D]
    mean: Tensor,
    /// The squared length of each row [N].
    squares: Tensor,
}

impl Rows {
    /// Features that can be worked on by `what`.
    fn new(what: &str, x: &Tensor) -> Result<Self> {
        if !x.shape().array::<2>().is_some_and(|[n, d]| n > 1 && d > 0) {
            return Err(Error::shape(what, format!("features {} must be [N, D] of at least 2 rows", x.shape())));
        }
        if let Some(row) = x.square()?.sum(&[1], false)?.to_vec::<f32>()?.iter().position(|square| !square.is_finite()) {
            let message =
                format!("row {row} of the features holds NaN or infinity, or is too long; leave it out, or see why the encoder gave it");
            return Err(Error::argument(what, message));
        }
        let mean = x.mean(&[0], true)?;
        let rows = x.sub(&mean)?;
        let squares = rows.square()?.sum(&[1], false)?;
        Ok(Self { rows, mean, squares })
    }

    fn count(&self) -> usize {
        self.rows.shape().dim(0)
    }

    /// Squared distances [N, M] to `others` [M, D], whose squared lengths are `squares` [M].
    fn distances(&self, others: &Tensor, squares: &Tensor) -> Result<Tensor> {
        let products = self.rows.matmul_nt(others)?;
        let (down, along) = (self.squares.reshape(&[-1, 1])?, squares.reshape(&[1, -1])?);
        fuse([&products, &down, &along], |[xy, x, y]| (x + y - xy * 2.0).relu())
    }
}
