//! The one table of weight layouts: PyTorch's in files, the engine's on the device.
//!
//! | kind | in files | in the engine |
//! |---|---|---|
//! | convolution, dense or grouped | O I kh kw | O kh kw I |
//! | depthwise convolution | (C m) 1 kh kw | kh kw (C m) |
//! | transposed convolution | C_in C_out kh kw | C_in kh kw C_out: the convolution whose gradient it is |
//! | everything else | as it is | as it is |

use crate::error::{Error, Result};
use crate::tensor::Shape;

/// What a tensor is, as far as its layout is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// A dense, grouped or transposed convolution's weight.
    Convolution,
    /// A depthwise convolution's weight.
    Depthwise,
    /// Linear weights, biases, norms, tokens.
    Plain,
}

impl Layout {
    /// For each engine axis, the file axis that it comes from. `None` where nothing moves.
    fn permutation(self) -> Option<[usize; 4]> {
        match self {
            Layout::Convolution => Some([0, 2, 3, 1]),
            Layout::Depthwise => Some([2, 3, 0, 1]),
            Layout::Plain => None,
        }
    }

    /// The shape in the engine of a tensor with this shape in a file.
    ///
    /// # Errors
    /// [`Error::Shape`] where the rank, or a depthwise weight's second axis, is not what the kind
    /// says.
    pub fn engine_shape(self, file: &Shape) -> Result<Shape> {
        let Some(permutation) = self.permutation() else { return Ok(file.clone()) };
        if file.rank() != 4 || (self == Layout::Depthwise && file.dim(1) != 1) {
            return Err(Error::shape("layout", format!("{file} is no {self:?} weight in PyTorch's layout")));
        }
        let sizes: Vec<usize> = permutation.iter().map(|a| file.dim(*a)).collect();
        Ok(Shape::from(sizes.get(..self.engine_rank()).unwrap_or(&sizes)))
    }

    /// The shape in a file of a tensor with this shape in the engine.
    ///
    /// # Errors
    /// [`Error::Shape`] where the rank is not what the kind says.
    pub fn file_shape(self, engine: &Shape) -> Result<Shape> {
        let Some(permutation) = self.permutation() else { return Ok(engine.clone()) };
        if engine.rank() != self.engine_rank() {
            return Err(Error::shape("layout", format!("{engine} is no {self:?} weight in the engine's layout")));
        }
        Ok(permutation.iter().enumerate().fold(Shape::from([1; 4]), |shape, (ours, theirs)| shape.with(*theirs, engine.dim(ours))))
    }

    fn engine_rank(self) -> usize {
        if self == Layout::Depthwise { 3 } else { 4 }
    }

    /// Contents in the engine's order, of contents in a file's order and shape.
    ///
    /// # Errors
    /// As [`Self::engine_shape`]; [`Error::Shape`] where `data` has another length.
    pub fn to_engine<T: Copy>(self, data: &[T], file: &Shape) -> Result<Vec<T>> {
        self.engine_shape(file)?;
        self.permute(data, file, true)
    }

    /// Contents in a file's order, of contents in the engine's order and shape.
    ///
    /// # Errors
    /// As [`Self::file_shape`]; [`Error::Shape`] where `data` has another length.
    pub fn to_file<T: Copy>(self, data: &[T], engine: &Shape) -> Result<Vec<T>> {
        self.permute(data, &self.file_shape(engine)?, false)
    }

    fn permute<T: Copy>(self, data: &[T], file: &Shape, to_engine: bool) -> Result<Vec<T>> {
        if data.len() != file.numel() {
            return Err(Error::shape("layout", format!("shape {file} has {} elements, {} were given", file.numel(), data.len())));
        }
        let Some(permutation) = self.permutation() else { return Ok(data.to_vec()) };
        // Walk the engine's order; `sources` are the file positions it visits.
        let strides = file.strides();
        let sizes = permutation.map(|a| file.dim(a));
        let steps = permutation.map(|a| strides.get(a).copied().unwrap_or(0));
        let [s0, s1, s2, s3] = sizes;
        let [t0, t1, t2, t3] = steps;
        let sources = (0..s0)
            .flat_map(move |a| (0..s1).map(move |b| a * t0 + b * t1))
            .flat_map(move |ab| (0..s2).map(move |c| ab + c * t2))
            .flat_map(move |abc| (0..s3).map(move |d| abc + d * t3));
        if to_engine {
            return Ok(sources.filter_map(|at| data.get(at).copied()).collect());
        }
        let mut result = data.to_vec();
        for (value, at) in data.iter().zip(sources) {
            if let Some(slot) = result.get_mut(at) {
                *slot = *value;
            }
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_inverse_and_follow_the_table() {
        let file = Shape::from([2, 3, 2, 2]);
        let data: Vec<i32> = (0..24).collect();
        let engine = Layout::Convolution.to_engine(&data, &file).unwrap();
        assert_eq!(Layout::Convolution.engine_shape(&file).unwrap(), Shape::from([2, 2, 2, 3]));
        assert_eq!(&engine[..6], &[0, 4, 8, 1, 5, 9]);
        assert_eq!(Layout::Convolution.to_file(&engine, &Shape::from([2, 2, 2, 3])).unwrap(), data);

        let file = Shape::from([3, 1, 2, 2]);
        let data: Vec<i32> = (0..12).collect();
        let engine = Layout::Depthwise.to_engine(&data, &file).unwrap();
        assert_eq!(Layout::Depthwise.engine_shape(&file).unwrap(), Shape::from([2, 2, 3]));
        assert_eq!(engine, [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(Layout::Depthwise.to_file(&engine, &Shape::from([2, 2, 3])).unwrap(), data);
        assert!(Layout::Depthwise.engine_shape(&Shape::from([3, 2, 2, 2])).is_err());
    }
}
