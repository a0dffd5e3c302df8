//! Features on the host, from where they are uploaded in pieces that fit any device.

use crate::error::{Result, require_finite_rows};
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// Elements of a piece: 64 MiB.
const PIECE: usize = 1 << 24;

/// Rows of features, one an image or a view of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    values: Vec<f32>,
    width: usize,
}

impl Features {
    /// `rows` rows of equal width.
    pub fn new(values: Vec<f32>, rows: usize) -> Self {
        let width = (values.len() / rows.max(1)).max(1);
        Self { values, width }
    }

    /// All rows of several, which have one width.
    pub fn concat(parts: Vec<Self>) -> Self {
        let width = parts.first().map_or(1, |part| part.width);
        Self { values: parts.into_iter().flat_map(|part| part.values).collect(), width }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    /// The rows at `places`; a place that does not exist is passed over.
    #[must_use]
    pub fn pick(&self, places: &[usize]) -> Self {
        let row = |place: &usize| self.values.get(place * self.width..(place + 1) * self.width);
        Self { values: places.iter().filter_map(row).flatten().copied().collect(), width: self.width }
    }

    /// All rows on the device: `[N, D]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn upload(&self, gpu: &Gpu) -> Result<Tensor> {
        Tensor::from_slice(gpu, &self.values, [self.len(), self.width])
    }

    /// The rows on the device, at most `rows` at once.
    fn pieces(&self, gpu: &Gpu, rows: usize) -> impl Iterator<Item = Result<Tensor>> {
        let piece = |values: &[f32]| Tensor::from_slice(gpu, values, [values.len() / self.width, self.width]);
        self.values.chunks(rows.max(1) * self.width).map(piece)
    }

    /// What `network` makes of the rows, one row after the other.
    ///
    /// # Errors
    /// Those of `network`; out of memory; an output that is not finite.
    pub fn map(&self, gpu: &Gpu, network: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<f32>> {
        let pieces = self.pieces(gpu, PIECE / self.width).map(|piece| network(&piece?)?.to_vec());
        let outputs = pieces.collect::<Result<Vec<Vec<f32>>>>()?.concat();
        require_finite_rows("a network on features", &outputs, outputs.len() / self.len().max(1))?;
        Ok(outputs)
    }

    /// Calls `each` with the place of every row and its cosines to all rows of `others`, in their
    /// order.
    ///
    /// # Errors
    /// Rows of another width; out of memory; a cosine that is not finite.
    pub fn cosines(&self, gpu: &Gpu, others: &Self, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let columns = others.pieces(gpu, PIECE / others.width).collect::<Result<Vec<_>>>()?;
        let mut place = 0;
        for piece in self.pieces(gpu, PIECE / self.width.max(others.len())) {
            let piece = piece?;
            let blocks = columns.iter().map(|c| piece.similarity_matrix(c, 1.0)?.to_vec()).collect::<Result<Vec<Vec<f32>>>>()?;
            let mut blocks: Vec<_> = blocks.iter().zip(&columns).map(|(block, c)| block.chunks(c.shape().dim(0).max(1))).collect();
            for _ in 0..piece.shape().dim(0) {
                let cosines: Vec<f32> = blocks.iter_mut().filter_map(Iterator::next).flatten().copied().collect();
                require_finite_rows("cosines of features", &cosines, 1)?;
                each(place, &cosines);
                place += 1;
            }
        }
        Ok(())
    }
}

/// Brings features to mean 0 and deviation 1 on the labelled images: those of an untrained network
/// point nearly all in one direction.
pub struct Standardizer {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Standardizer {
    /// By the statistics of `features`.
    pub fn fit(features: &Features) -> Self {
        let rows = features.len().max(1) as f64;
        let mut mean = vec![0.0f64; features.width];
        let mut square = vec![0.0f64; features.width];
        for row in features.rows() {
            for ((m, s), v) in mean.iter_mut().zip(&mut square).zip(row) {
                *m += f64::from(*v) / rows;
                *s += f64::from(*v).powi(2) / rows;
            }
        }
        let scale = mean.iter().zip(&square).map(|(m, s)| (1.0 / ((s - m * m).max(0.0).sqrt() + 1e-5)) as f32).collect();
        Self { mean: mean.into_iter().map(|m| m as f32).collect(), scale }
    }

    /// The same of other features.
    pub fn apply(&self, features: &Features) -> Features {
        let row = |row: &[f32]| row.iter().zip(&self.mean).zip(&self.scale).map(|((v, m), s)| (v - m) * s).collect::<Vec<_>>();
        Features { values: features.rows().flat_map(row).collect(), width: features.width }
    }
}
