//! Rows of a table by number.

use super::index_select::{self, moved, select, select_backward};
use crate::error::{Error, Result};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, apply_one, exactly, require_float};
use crate::tensor::{Shape, Spec, Tensor};

/// `y[.., d] = weight[index[..], d]`: weight is `[V, D]`, index has any shape, y has one axis more.
#[derive(Debug, Clone)]
pub struct Embedding;

fn joined(index: &Shape, features: usize) -> Shape {
    Shape::from(index.iter().copied().chain([features]).collect::<Vec<_>>())
}

impl Operator for Embedding {
    fn name(&self) -> &str {
        "embedding"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [weight, index] = exactly("embedding", inputs)?;
        let Some([rows, features]) = weight.shape.array() else {
            return Err(Error::shape("embedding", format!("weight must be [V, D], found shape {}", weight.shape)));
        };
        require_float("embedding", "weight", weight)?;
        index.check_indices("embedding", "index", rows, None)?;
        Ok(vec![Spec::new(joined(&index.shape, features), weight.dtype)])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([weight, index], [y]) = (exactly("embedding", inputs)?, exactly("embedding", outputs)?);
        Ok(vec![select(weight, index, 0, &y.shape)?])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(select_backward(&step.cotangent(0)?, step.input(1)?, 0, step.input_spec(0)?)?), None])
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![1], outputs: vec![] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn rows(&self, inputs: &[Spec], _: &[Spec]) -> Vec<usize> {
        if inputs.get(1).is_some_and(|index| index.shape.rank() > 0) { vec![1] } else { Vec::new() }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [weight, index] = exactly("embedding", inputs)?;
        let features = weight.shape.last();
        let rows = index.data.iter().flat_map(|row| (0..features).map(|d| weight.at(&[*row as usize, d])));
        Ok(vec![Array::new(joined(&index.shape, features), rows.collect())])
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        moved(inputs, outputs)
    }
}

fn build(_: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(Embedding))
}

fn samples() -> Vec<Sample> {
    vec![
        Sample::new(Embedding, [normal([11, 6]), indices([2, 5], 11)]),
        Sample::new(Embedding, [normal([3, 8]), indices([33], 3)]),
        Sample::new(Embedding, [normal([65, 1]), indices([], 65)]),
        Sample::new(Embedding, [normal([1, 7]), indices([3, 1, 5], 1)]),
        Sample::new(Embedding, [normal([4, 4]), indices([0], 4)]),
        // Sixteen vec4s of a row for a thread.
        Sample::new(Embedding, [normal([5, 64]), indices([19], 5)]),
        Sample::new(Embedding, [normal([9, 160]), indices([7], 9)]),
    ]
}

fn bad() -> Vec<Bad> {
    let outside = |v: f64| Input::Values(Array::integers([2], vec![0.0, v]));
    vec![
        Bad::new(Embedding, [normal([11]), indices([2], 11)], "weight must be [V, D]"),
        Bad::new(Embedding, [indices([3, 2], 5), indices([2], 3)], "weight must hold floats"),
        Bad::new(Embedding, [normal([3, 2]), normal([2])], "index must be i32"),
        Bad::new(Embedding, [normal([3, 2]), outside(3.0)], "index holds 3, outside 0..3"),
        Bad::new(Embedding, [normal([3, 2]), outside(-1.0)], "index holds -1, outside 0..3"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: "embedding",
        module: module_path!(),
        inputs: &["weight", "index"],
        outputs: &["y"],
        kernels: &[index_select::KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Rows of this table `[V, D]` by number: an i32 `index` of shape `[..]` gives `[.., D]`. A
    /// number that only the device knows and that lies outside `0..V` gives a row of NaN.
    ///
    /// # Errors
    /// A table that is not `[V, D]` floats; an index that is not i32 or known to lie outside the
    /// table; out of memory.
    pub fn embedding(&self, index: &Tensor) -> Result<Tensor> {
        apply_one(Embedding, &[self, index])
    }
}
