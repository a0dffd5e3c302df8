//! Activation checkpointing: a part of a network keeps its input alone, and is run again on the way
//! back (Chen et al. 2016, "Training deep nets with sublinear memory cost").

use std::any::Any;
use std::sync::{Arc, Mutex};

use super::backward::topological;
use super::tape::{Backward, Edge, Function, Node, Payload, Saved, State, edge};
use crate::error::Result;
use crate::tensor::{Origin, Tensor};

/// Which of its two runs a part is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The forward pass.
    First,
    /// The run on the way back. It must compute the same, and leave no other trace: running
    /// statistics have moved already.
    Again,
}

struct Checkpoint<F> {
    run: F,
    /// The watched tensors that it was computed from, beside its input.
    leaves: Vec<usize>,
}

impl<F: Fn(&Tensor, Pass) -> Result<Tensor> + Send + Sync> Function for Checkpoint<F> {
    fn name(&self) -> &str {
        "checkpoint"
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let x = step.input(0)?;
        let x = if step.needs(0) { x.watch_as("the input of a checkpoint") } else { x.clone() };
        let gradients = (self.run)(&x, Pass::Again)?.backward_from(&step.cotangent(0)?)?;
        let of_leaves = self.leaves.iter().map(|key| gradients.by_key(*key).cloned());
        Ok(std::iter::once(gradients.get(&x).cloned()).chain(of_leaves).collect())
    }
}

/// `run` of `x`, of which the tape keeps `x` alone: what it computes on the way is computed again by
/// the backward pass, to the same bits, and freed in between. What `run` reads beside `x` must not
/// change until then; of weights that products read the versions are compared.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::autograd::checkpoint;
/// use wgrad::tensor::Tensor;
///
/// let gpu = wgrad::gpu::Gpu::new()?;
/// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0], [3])?.watch();
/// let y = checkpoint(&x, |x, _| x.exp()?.square()?.sigmoid())?;
/// let kept = y.sum(&[], false)?.backward()?;
/// let plain = x.exp()?.square()?.sigmoid()?.sum(&[], false)?.backward()?;
/// let of = |gradients: &wgrad::autograd::Gradients| gradients.get(&x).expect("x is watched").to_vec::<f32>();
/// assert_eq!(of(&kept)?, of(&plain)?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of `run`.
pub fn checkpoint(x: &Tensor, run: impl Fn(&Tensor, Pass) -> Result<Tensor> + Send + Sync + 'static) -> Result<Tensor> {
    let inside = if x.is_watched() { x.detach().watch() } else { x.clone() };
    let y = run(&inside, Pass::First)?;
    let Some(root) = edge(&y) else { return Ok(y) };
    let own = edge(&inside).map(|e| Arc::as_ptr(&e.node));
    let (mut input_specs, mut edges, mut leaves, mut kept) = (vec![x.spec().clone()], vec![edge(x)], Vec::new(), Vec::new());
    for node in topological(&root.node)? {
        match &*node.lock() {
            State::Leaf if own != Some(Arc::as_ptr(&node)) => {
                leaves.push(Arc::as_ptr(&node) as usize);
                edges.push(Some(Edge { node: node.clone(), output: 0 }));
                input_specs.extend(node.output_specs.first().cloned());
            }
            // What was saved of parameters must keep its version: another would give other numbers.
            State::Live(payload) => kept.extend(payload.inputs.iter().flatten().filter(|saved| saved.label.is_some()).cloned()),
            _ => {}
        }
    }
    let mut inputs = vec![Some(Saved { tensor: x.detach(), version: x.version(), label: None })];
    inputs.resize_with(edges.len(), || None);
    inputs.extend(kept.into_iter().map(Some));
    let output_specs = vec![y.spec().clone()];
    let function = Box::new(Checkpoint { run, leaves });
    let payload = Payload { function, inputs, outputs: vec![None], input_specs, edges };
    let node = Node { name: "checkpoint".into(), output_specs, state: Mutex::new(State::Live(Box::new(payload))) };
    let node: Arc<dyn Any + Send + Sync> = Arc::new(node);
    Ok(y.detach().with_origin(Origin { node, output: 0 }))
}
