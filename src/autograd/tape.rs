//! Nodes of the tape, and what an operator's backward step is given.

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::tensor::{Origin, Spec, Tensor};

/// Which tensors a backward step will ask for. The others are not kept alive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saves {
    /// Indices of inputs.
    pub inputs: Vec<usize>,
    /// Indices of outputs.
    pub outputs: Vec<usize>,
}

/// One recorded step of the tape.
pub(crate) trait Function: Send + Sync {
    fn name(&self) -> &str;
    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>>;
}

/// What an operator's backward step is given: saved tensors, upstream gradients, and which
/// gradients are wanted.
pub struct Backward {
    pub(super) operator: String,
    pub(super) inputs: Vec<Option<Tensor>>,
    pub(super) outputs: Vec<Option<Tensor>>,
    pub(super) input_specs: Vec<Spec>,
    pub(super) output_specs: Vec<Spec>,
    pub(super) cotangents: Vec<Option<Tensor>>,
    pub(super) needs: Vec<bool>,
    pub(super) gpu: crate::gpu::Gpu,
}

impl Backward {
    fn missing(&self, what: &str, index: usize) -> Error {
        Error::autograd(&self.operator, format!("its backward asks for {what} {index}, which its `saves` does not name"))
    }

    /// The device.
    pub fn gpu(&self) -> &crate::gpu::Gpu {
        &self.gpu
    }

    /// Input `index`, which [`Saves`] must name.
    ///
    /// # Errors
    /// [`Error::Autograd`] where it was not saved.
    pub fn input(&self, index: usize) -> Result<&Tensor> {
        self.inputs.get(index).and_then(Option::as_ref).ok_or_else(|| self.missing("input", index))
    }

    /// Output `index`, which [`Saves`] must name.
    ///
    /// # Errors
    /// [`Error::Autograd`] where it was not saved.
    pub fn output(&self, index: usize) -> Result<&Tensor> {
        self.outputs.get(index).and_then(Option::as_ref).ok_or_else(|| self.missing("output", index))
    }

    /// How many inputs the operator was given.
    pub fn input_count(&self) -> usize {
        self.input_specs.len()
    }

    /// The shape and type of input `index`.
    ///
    /// # Errors
    /// [`Error::Autograd`] where there is no such input.
    pub fn input_spec(&self, index: usize) -> Result<&Spec> {
        self.input_specs.get(index).ok_or_else(|| self.missing("input", index))
    }

    /// The shape and type of output `index`.
    ///
    /// # Errors
    /// [`Error::Autograd`] where there is no such output.
    pub fn output_spec(&self, index: usize) -> Result<&Spec> {
        self.output_specs.get(index).ok_or_else(|| self.missing("output", index))
    }

    /// The gradient that arrived at output `index`; zeros where none did.
    ///
    /// # Errors
    /// Out of memory; [`Error::Autograd`] where there is no such output.
    pub fn cotangent(&self, index: usize) -> Result<Tensor> {
        match self.cotangents.get(index) {
            Some(Some(tensor)) => Ok(tensor.clone()),
            _ => {
                let spec = self.output_spec(index)?;
                Tensor::zeros(&self.gpu, spec.shape.clone(), spec.dtype)
            }
        }
    }

    /// Whether a gradient arrived at output `index` at all.
    pub fn has_cotangent(&self, index: usize) -> bool {
        matches!(self.cotangents.get(index), Some(Some(_)))
    }

    /// The shapes and types of inputs and outputs.
    pub(crate) fn specs(&self) -> (&[Spec], &[Spec]) {
        (&self.input_specs, &self.output_specs)
    }

    /// The same step for some of the `of` rows of every output and of the inputs that `carried`
    /// names; the other inputs stay whole.
    pub(crate) fn rows(&self, carried: &[usize], rows: &Range<usize>, of: usize) -> Result<Backward> {
        let part = |tensor: &Option<Tensor>| tensor.as_ref().map(|t| t.rows(rows, of)).transpose();
        let all = |tensors: &[Option<Tensor>]| tensors.iter().map(part).collect::<Result<Vec<_>>>();
        let some = |(index, tensor): (usize, &Option<Tensor>)| if carried.contains(&index) { part(tensor) } else { Ok(tensor.clone()) };
        let spec = |(index, spec): (usize, &Spec)| if carried.contains(&index) { spec.rows(rows.len(), of) } else { spec.clone() };
        Ok(Backward {
            operator: self.operator.clone(),
            inputs: self.inputs.iter().enumerate().map(some).collect::<Result<_>>()?,
            outputs: all(&self.outputs)?,
            input_specs: self.input_specs.iter().enumerate().map(spec).collect(),
            output_specs: self.output_specs.iter().map(|s| s.rows(rows.len(), of)).collect(),
            cotangents: all(&self.cotangents)?,
            needs: self.needs.clone(),
            gpu: self.gpu.clone(),
        })
    }

    /// The same step with its tensors under other shapes of as many elements.
    pub(crate) fn viewed(&self, inputs: &[Spec], outputs: &[Spec]) -> Result<Backward> {
        let view = |(tensor, spec): (&Option<Tensor>, &Spec)| tensor.as_ref().map(|t| t.view(&spec.shape)).transpose();
        let all = |tensors: &[Option<Tensor>], specs: &[Spec]| tensors.iter().zip(specs).map(view).collect::<Result<Vec<_>>>();
        Ok(Backward {
            operator: self.operator.clone(),
            inputs: all(&self.inputs, inputs)?,
            outputs: all(&self.outputs, outputs)?,
            input_specs: inputs.to_vec(),
            output_specs: outputs.to_vec(),
            cotangents: all(&self.cotangents, outputs)?,
            needs: self.needs.clone(),
            gpu: self.gpu.clone(),
        })
    }

    /// Whether input `index` wants a gradient.
    pub fn needs(&self, index: usize) -> bool {
        self.needs.get(index).copied().unwrap_or(false)
    }
}

/// A tensor kept for the backward pass, and the version that it must still have.
#[derive(Clone)]
pub(super) struct Saved {
    pub tensor: Tensor,
    pub version: u64,
    /// The parameter's name, where it is one.
    pub label: Option<String>,
}

/// What a node holds until the backward pass has come by.
pub(super) struct Payload {
    pub function: Box<dyn Function>,
    pub inputs: Vec<Option<Saved>>,
    pub outputs: Vec<Option<Saved>>,
    pub input_specs: Vec<Spec>,
    pub edges: Vec<Option<Edge>>,
}

#[derive(Clone)]
pub(super) struct Edge {
    pub node: Arc<Node>,
    pub output: usize,
}

pub(super) enum State {
    /// A watched tensor.
    Leaf,
    /// A recorded step.
    Live(Box<Payload>),
    /// A step whose backward has run.
    Spent,
}

pub(crate) struct Node {
    pub(super) name: String,
    pub(super) output_specs: Vec<Spec>,
    pub(super) state: Mutex<State>,
}

impl Node {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    // A long chain of nodes would otherwise be dropped recursively and overflow the stack.
    fn drop(&mut self) {
        let mut edges = take_edges(&mut self.state);
        while let Some(edge) = edges.pop() {
            if let Some(mut node) = Arc::into_inner(edge.node) {
                edges.append(&mut take_edges(&mut node.state));
            }
        }
    }
}

fn take_edges(state: &mut Mutex<State>) -> Vec<Edge> {
    match std::mem::replace(state.get_mut().unwrap_or_else(PoisonError::into_inner), State::Spent) {
        State::Live(mut payload) => std::mem::take(&mut payload.edges).into_iter().flatten().collect(),
        _ => Vec::new(),
    }
}

pub(super) fn edge(tensor: &Tensor) -> Option<Edge> {
    let origin = tensor.origin()?;
    let node = Arc::downcast::<Node>(origin.node.clone()).ok()?;
    Some(Edge { node, output: origin.output })
}

/// The identity of a watched tensor: the same for every handle of it, as long as one lives.
pub(crate) fn leaf_key(tensor: &Tensor) -> Option<usize> {
    let edge = edge(tensor)?;
    let is_leaf = matches!(*edge.node.lock(), State::Leaf);
    is_leaf.then_some(Arc::as_ptr(&edge.node) as usize)
}

/// The origin of a watched tensor called `name`.
pub(crate) fn leaf(name: &str, spec: &Spec) -> Origin {
    let node = Node { name: name.to_string(), output_specs: vec![spec.clone()], state: Mutex::new(State::Leaf) };
    Origin { node: Arc::new(node) as Arc<dyn Any + Send + Sync>, output: 0 }
}

impl Tensor {
    /// The same contents, watched: gradients of what is computed from it can be asked for.
    #[must_use]
    #[doc(alias = "requires_grad_")]
    pub fn watch(&self) -> Tensor {
        self.watch_as("a watched tensor")
    }

    /// As [`Self::watch`], with a name for error messages.
    #[must_use]
    pub fn watch_as(&self, name: &str) -> Tensor {
        self.with_origin(leaf(name, self.spec()))
    }

    /// Whether gradients flow to it.
    pub fn is_watched(&self) -> bool {
        self.origin().is_some()
    }
}

/// Puts a step on the tape and ties `outputs` to it, where an input is watched.
pub(crate) fn record(function: Box<dyn Function>, saves: &Saves, inputs: &[&Tensor], outputs: Vec<Tensor>) -> Vec<Tensor> {
    let edges: Vec<Option<Edge>> = inputs.iter().map(|t| if t.dtype().is_float() { edge(t) } else { None }).collect();
    if edges.iter().all(Option::is_none) {
        return outputs;
    }
    let save = |tensor: &Tensor| Saved {
        tensor: tensor.detach(),
        version: tensor.version(),
        label: leaf_key(tensor).and_then(|_| edge(tensor)).map(|e| e.node.name.clone()),
    };
    let keep = |tensors: &[&Tensor], wanted: &[usize]| -> Vec<Option<Saved>> {
        tensors.iter().enumerate().map(|(i, t)| wanted.contains(&i).then(|| save(t))).collect()
    };
    let output_refs: Vec<&Tensor> = outputs.iter().collect();
    let name = function.name().to_string();
    let payload = Payload {
        function,
        inputs: keep(inputs, &saves.inputs),
        outputs: keep(&output_refs, &saves.outputs),
        input_specs: inputs.iter().map(|t| t.spec().clone()).collect(),
        edges,
    };
    let output_specs = outputs.iter().map(|t| t.spec().clone()).collect();
    let node: Arc<dyn Any + Send + Sync> = Arc::new(Node { name, output_specs, state: Mutex::new(State::Live(Box::new(payload))) });
    outputs
        .into_iter()
        .enumerate()
        .map(|(output, t)| if t.dtype().is_float() { t.with_origin(Origin { node: node.clone(), output }) } else { t })
        .collect()
}
