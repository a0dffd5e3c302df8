//! Walking the tape from a loss to the watched tensors.

use std::collections::HashMap;
use std::sync::Arc;

use super::gradients::{Gradients, sum};
use super::tape::{Backward, Edge, Node, Payload, Saved, State, edge};
use super::trace::check_finite;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// The gradients of this one-element tensor with respect to every watched tensor that it was
    /// computed from. Saved tensors are released on the way, so the tape can be walked once.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let x = Tensor::from_slice(&gpu, &[1.0f32, 2.0, 3.0], [3])?.watch();
    /// let loss = x.square()?.sum(&[0], false)?;
    /// let gradients = loss.backward()?;
    /// assert_eq!(gradients.get(&x).expect("x is watched").to_vec::<f32>()?, [2.0, 4.0, 6.0]);
    /// assert!(loss.backward().is_err()); // what it saved has been released
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Autograd`] where nothing was watched, the tape has been walked already, or a saved
    /// tensor was changed in place; [`Error::Shape`] where this tensor has more than one element.
    pub fn backward(&self) -> Result<Gradients> {
        self.gradients(None, false)
    }

    /// As [`Self::backward`], keeping the tape so that it can be walked again (several losses over
    /// one forward pass: use this for all but the last).
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_retain_graph(&self) -> Result<Gradients> {
        self.gradients(None, true)
    }

    /// As [`Self::backward`], for a tensor of any shape: the gradients of `sum(self * cotangent)`.
    ///
    /// # Errors
    /// As [`Self::backward`]; an error where `cotangent` has another shape or type, or lives on
    /// another device.
    pub fn backward_from(&self, cotangent: &Tensor) -> Result<Gradients> {
        self.gradients(Some(cotangent), false)
    }

    /// As [`Self::backward_from`], keeping what the tape saved, for another output of the same
    /// step.
    ///
    /// # Errors
    /// As [`Self::backward_from`].
    pub fn backward_from_retain_graph(&self, cotangent: &Tensor) -> Result<Gradients> {
        self.gradients(Some(cotangent), true)
    }

    fn gradients(&self, cotangent: Option<&Tensor>, retain: bool) -> Result<Gradients> {
        let mut gradients = Gradients::default();
        self.walk(cotangent, retain, &mut gradients)?;
        Ok(gradients)
    }

    /// Walks the tape, keeping it if `retain`, from `cotangent`, or from 1 at a loss. `sink` is given
    /// each gradient when it is final.
    pub(super) fn walk(&self, cotangent: Option<&Tensor>, retain: bool, sink: &mut dyn Sink) -> Result<()> {
        let Some(root) = edge(self) else {
            return Err(Error::autograd(
                "backward",
                "nothing that this tensor was computed from is watched (parameters in Eval mode are not)",
            ));
        };
        let seed = match cotangent {
            Some(given) if given.shape() != self.shape() => {
                return Err(Error::shape("backward", format!("the cotangent has shape {}, the tensor {}", given.shape(), self.shape())));
            }
            Some(given) if given.gpu() != self.gpu() => {
                return Err(Error::argument("backward", "the cotangent and the tensor live on different devices; upload it to this one"));
            }
            Some(given) if given.dtype() != self.dtype() => {
                return Err(Error::dtype(
                    "backward",
                    format!("the cotangent is {}, the tensor {}; cast it first", given.spec(), self.spec()),
                ));
            }
            // Gradients are computed without a policy, as the operators' insides are.
            Some(given) => given.detach().with_handle(&given.gpu().plain()),
            None if self.numel() != 1 => {
                return Err(Error::shape(
                    "backward",
                    format!("a loss has one element, this tensor has shape {}; reduce it or use backward_from", self.shape()),
                ));
            }
            None => Tensor::ones(&self.gpu().plain(), self.shape(), self.dtype())?,
        };
        let mut arrived: HashMap<usize, Vec<Option<Tensor>>> = HashMap::new();
        arrive(&mut arrived, &root, seed)?;
        let mut order = topological(&root.node)?;
        while let Some(node) = order.pop() {
            let Some(cotangents) = arrived.remove(&key(&node)) else { continue };
            let state = if retain { None } else { Some(std::mem::replace(&mut *node.lock(), State::Spent)) };
            match state {
                Some(State::Live(payload)) => propagate(&node, &payload, cotangents, &mut arrived)?,
                Some(State::Spent) => return Err(spent(&node)),
                Some(State::Leaf) => {
                    *node.lock() = State::Leaf;
                    give(sink, &node, cotangents)?;
                }
                None => match &*node.lock() {
                    State::Live(payload) => propagate(&node, payload, cotangents, &mut arrived)?,
                    State::Spent => return Err(spent(&node)),
                    State::Leaf => give(sink, &node, cotangents)?,
                },
            }
        }
        Ok(())
    }
}

/// Takes gradients as the walk finds them.
pub(super) trait Sink {
    fn take(&mut self, leaf: &Arc<Node>, gradient: Tensor) -> Result<()>;
}

fn give(sink: &mut dyn Sink, leaf: &Arc<Node>, cotangents: Vec<Option<Tensor>>) -> Result<()> {
    cotangents.into_iter().next().flatten().map_or(Ok(()), |gradient| sink.take(leaf, gradient))
}

fn key(node: &Arc<Node>) -> usize {
    Arc::as_ptr(node) as usize
}

fn spent(node: &Node) -> Error {
    Error::autograd(
        &node.name,
        "backward has already passed here and released what it saved; call backward_retain_graph() for all but the last loss",
    )
}

/// Adds a gradient to what has arrived at an output of a node. Terms are added in the order of the
/// walk, so sums repeat.
fn arrive(arrived: &mut HashMap<usize, Vec<Option<Tensor>>>, edge: &Edge, gradient: Tensor) -> Result<()> {
    let count = edge.node.output_specs.len();
    let slots = arrived.entry(key(&edge.node)).or_insert_with(|| vec![None; count]);
    if let Some(slot) = slots.get_mut(edge.output) {
        *slot = Some(match slot.take() {
            None => gradient,
            Some(before) => sum(&before, &gradient)?,
        });
    }
    Ok(())
}

/// Every node that the root was computed from, inputs before what uses them; popping from the end
/// walks backward. A leaf stands right before the first node that uses it, so that the walk comes to
/// it as soon as its gradient is final.
pub(super) fn topological(root: &Arc<Node>) -> Result<Vec<Arc<Node>>> {
    enum Visit {
        Enter(Arc<Node>),
        Leave(Arc<Node>),
    }
    let (mut seen, mut order) = (std::collections::HashSet::new(), Vec::new());
    let mut stack = vec![Visit::Enter(root.clone())];
    while let Some(visit) = stack.pop() {
        match visit {
            Visit::Enter(node) => {
                if seen.insert(key(&node)) {
                    stack.push(Visit::Leave(node.clone()));
                    let inner = inputs(&node)?.into_iter().filter(|input| !is_leaf(input));
                    stack.extend(inner.map(Visit::Enter));
                }
            }
            Visit::Leave(node) => {
                let leaves = inputs(&node)?.into_iter().filter(is_leaf);
                order.extend(leaves.filter(|leaf| seen.insert(key(leaf))));
                order.push(node);
            }
        }
    }
    Ok(order)
}

fn is_leaf(node: &Arc<Node>) -> bool {
    matches!(*node.lock(), State::Leaf)
}

/// The nodes whose outputs `node` was computed from.
fn inputs(node: &Arc<Node>) -> Result<Vec<Arc<Node>>> {
    match &*node.lock() {
        State::Live(payload) => Ok(payload.edges.iter().flatten().map(|edge| edge.node.clone()).collect()),
        State::Leaf => Ok(Vec::new()),
        State::Spent => Err(spent(node)),
    }
}

fn unchanged(node: &Node, saved: &[Option<Saved>], what: &str) -> Result<Vec<Option<Tensor>>> {
    let check = |(index, entry): (usize, &Option<Saved>)| match entry {
        None => Ok(None),
        Some(saved) if saved.tensor.version() == saved.version => Ok(Some(saved.tensor.clone())),
        Some(saved) => {
            let label = saved.label.as_ref().map(|l| format!(" (\"{l}\")")).unwrap_or_default();
            Err(Error::autograd(
                &node.name,
                format!(
                    "{what} {index}{label} was changed in place after the forward pass, so its gradient would be wrong; call backward before the \
                     optimizer, EMA or queue update, or compute from a copy"
                ),
            ))
        }
    };
    saved.iter().enumerate().map(check).collect()
}

fn propagate(
    node: &Arc<Node>,
    payload: &Payload,
    cotangents: Vec<Option<Tensor>>,
    arrived: &mut HashMap<usize, Vec<Option<Tensor>>>,
) -> Result<()> {
    let Some(gpu) = cotangents.iter().flatten().next().map(|t| t.gpu().clone()) else { return Ok(()) };
    let step = Backward {
        operator: node.name.clone(),
        inputs: unchanged(node, &payload.inputs, "input")?,
        outputs: unchanged(node, &payload.outputs, "output")?,
        input_specs: payload.input_specs.clone(),
        output_specs: node.output_specs.clone(),
        cotangents,
        needs: payload.edges.iter().map(Option::is_some).collect(),
        gpu,
    };
    let found = payload.function.backward(&step)?;
    for (index, (edge, gradient)) in payload.edges.iter().zip(found).enumerate() {
        let (Some(edge), Some(gradient)) = (edge, gradient) else { continue };
        let expected = payload.input_specs.get(index).map(|s| &s.shape);
        if expected != Some(gradient.shape()) {
            let expected = expected.map(ToString::to_string).unwrap_or_default();
            return Err(Error::autograd(
                &node.name,
                format!("the gradient of input {index} has shape {}, the input {expected}", gradient.shape()),
            ));
        }
        check_finite(&node.name, &format!("the gradient of input {index}"), &gradient)?;
        arrive(arrived, edge, gradient)?;
    }
    Ok(())
}
