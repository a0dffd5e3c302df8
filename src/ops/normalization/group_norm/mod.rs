//! Group normalisation, and what layer normalisation shares with it.

pub(super) mod launch;
mod spec;

use crate::error::{Error, Result, require_not_negative};
use crate::ops::entry::Entry;
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, Tolerance, apply_one, exactly, require_f32, require_float};
use crate::tensor::{Shape, Spec, Tensor};
pub(super) use launch::Groups;
pub(super) use spec::{TOLERANCE, norm_cost};

/// Checks x, and that weight and bias are f32 `[size]`.
pub(super) fn check_parameters(operator: &str, x: &Spec, size: usize, parameters: [(&str, &Spec); 2]) -> Result<()> {
    require_float(operator, "x", x)?;
    for (what, spec) in parameters {
        require_f32(operator, what, spec)?;
        if spec.shape != Shape::from([size]) {
            return Err(Error::shape(operator, format!("{what} must be [{size}] for x {}, found {}", x.shape, spec.shape)));
        }
    }
    Ok(())
}

/// x `[N, .., C]` with the channels of each image in `groups` groups, each brought to mean 0 and
/// variance 1 over its channels and pixels, then scaled by weight and shifted by bias, both `[C]`
/// (Wu and He 2018).
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// Groups of neighbouring channels; divides C.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

impl GroupNorm {
    fn plan(&self, x: &Shape) -> Result<Groups> {
        require_not_negative("group_norm", "eps", self.eps)?;
        let ([images, .., c], groups) = (&x[..], self.groups) else {
            return Err(Error::shape("group_norm", format!("x must be [N, .., C], found shape {x}")));
        };
        if groups == 0 || !c.is_multiple_of(groups) {
            return Err(Error::shape("group_norm", format!("the {c} channels of {x} do not form {groups} groups of one size")));
        }
        let pixels = x.iter().skip(1).take(x.rank() - 2).product();
        Ok(Groups { images: *images, pixels, groups, channels: c / groups, eps: self.eps })
    }
}

impl Operator for GroupNorm {
    fn name(&self) -> &str {
        "group_norm"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x, weight, bias] = exactly("group_norm", inputs)?;
        let plan = self.plan(&x.shape)?;
        check_parameters("group_norm", x, x.shape.last(), [("weight", weight), ("bias", bias)])?;
        let statistics = Spec::f32([plan.images, plan.groups]);
        Ok(vec![Spec::new(&x.shape, x.dtype), statistics.clone(), statistics])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [x, weight, bias] = exactly("group_norm", inputs)?;
        self.plan(x.shape())?.forward(x, weight, bias, outputs)
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        self.plan(&step.input_spec(0)?.shape)?.backward(step)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1], outputs: vec![1, 2] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn rows(&self, _: &[Spec], _: &[Spec]) -> Vec<usize> {
        vec![0]
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x, weight, bias] = exactly("group_norm", inputs)?;
        let plan = self.plan(&x.shape)?;
        Ok(plan.reference(x, weight, bias, &Shape::from([plan.images, plan.groups])))
    }

    fn tolerance(&self) -> Tolerance {
        TOLERANCE
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        norm_cost(inputs, outputs)
    }
}

fn build(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    Ok(Box::new(GroupNorm { groups: attributes.size("groups")?, eps: attributes.number_or("eps", 1e-5)? as f32 }))
}

/// The operator's line of the registry.
pub(super) fn entries() -> [Entry; 1] {
    [Entry {
        name: "group_norm",
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[launch::KERNELS],
        build: Box::new(build),
        samples: Box::new(spec::samples),
        bad: Box::new(spec::bad),
    }]
}

impl Tensor {
    /// `[N, .., C]` with each image's channels, in `groups` groups, brought to mean 0 and variance
    /// 1 over channels and pixels, then `* weight + bias`, both f32 `[C]` (Wu and He 2018).
    ///
    /// # Errors
    /// Channels that do not form the groups; weight or bias of another shape or type; integers; out
    /// of memory.
    pub fn group_norm(&self, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        apply_one(GroupNorm { groups, eps }, &[self, weight, bias])
    }
}
