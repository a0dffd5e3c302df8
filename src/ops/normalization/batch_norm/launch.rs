//! How batch norm is run: launches, each over x or, where x is larger than a binding, over pieces
//! of it one after another.

use super::plan::{Plan, Walk};
use super::{BatchNorm, Inputs, statistics};
use crate::error::Result;
use crate::gpu::{Launch, Param};
use crate::ops::entry::kernels;
use crate::params;
use crate::tensor::rows::write_rows;
use crate::tensor::{DType, Tensor};

kernels!(FROZEN = "normalization/frozen");

/// What the steps of backward read.
pub(super) struct Upstream<'a> {
    pub x: &'a Tensor,
    pub affine: &'a Tensor,
    pub dy: &'a Tensor,
    pub residual: Option<&'a Tensor>,
}

/// The launch that writes `to`, too.
fn bound<'a>(launch: Launch<'a>, to: &[Tensor]) -> Launch<'a> {
    to.iter().fold(launch, |launch, tensor| launch.write(tensor))
}

impl BatchNorm {
    /// A launch of one step of a walk over x, which is bound first.
    fn walk<'a>(&self, plan: &Plan, x: &'a Tensor, step: &'a str, walk: Walk) -> (Launch<'a>, Vec<Param>, usize) {
        let (launch, params, groups) = plan.launch(x.gpu(), step, walk);
        (launch.storage(x.dtype().storage()).read(x), params, groups)
    }

    /// Normalises by the statistics of the batch, which also move the running ones: y and `affine`.
    pub(super) fn train(&self, plan: &Plan, inputs: Inputs<Tensor>, y: &Tensor) -> Result<Tensor> {
        let ([x, weight, bias, mean, var], given, residual) = inputs;
        let gpu = x.gpu();
        let affine = Tensor::empty(gpu, [5, plan.channels()], DType::F32)?;
        let numbers = |plan: &Plan, mut params: Vec<Param>| {
            params.extend_from_slice(params![plan.slab_rows(), self.options.momentum, self.options.eps]);
            params
        };
        if plan.small() && given.is_none() {
            let (launch, params, groups) = self.walk(plan, x, "normalize", Walk::Columns);
            let launch = launch.read(weight).read(bias).write(mean).write(var).write(&affine).write(y);
            self.activate(launch, residual).params(&numbers(plan, params)).groups(groups)?;
            return Ok(affine);
        }
        let (partials, firsts, slabs) = match given {
            Some(given) => {
                let (partials, slabs) = statistics::merged(plan, x, given)?;
                (partials, x.clone(), slabs)
            }
            None => {
                let partials = Tensor::empty(gpu, plan.partials(), DType::F32)?;
                // The first row of each slab, where x cannot be bound whole.
                let firsts = if plan.in_pieces() { Some(Tensor::empty(gpu, plan.firsts(), x.dtype())?) } else { None };
                let written: Vec<&Tensor> = [&partials].into_iter().chain(&firsts).collect();
                for piece in plan.pieces() {
                    let x = x.rows(&piece.rows, plan.rows())?;
                    let (launch, params, groups) = self.walk(&piece.plan, &x, "statistics", Walk::Slabs);
                    let launch = launch.params(&numbers(&piece.plan, params));
                    write_rows(&written, &piece.slabs, plan.firsts()[0], |to| bound(launch, to).groups(groups))?;
                }
                (partials, firsts.unwrap_or_else(|| x.clone()), *plan)
            }
        };
        let (launch, params, groups) = slabs.launch(gpu, "combine", Walk::Partials);
        let launch = launch.storage(x.dtype().storage()).read(&partials).read(&firsts).read(weight).read(bias);
        launch.write(mean).write(var).write(&affine).params(&numbers(&slabs, params)).groups(groups)?;
        self.normalize(plan, x, &affine, residual, y)?;
        Ok(affine)
    }

    /// `affine` of the running statistics.
    pub(super) fn frozen(&self, inputs: [&Tensor; 5]) -> Result<Tensor> {
        let [x, weight, bias, mean, var] = inputs;
        let c = x.shape().last();
        let affine = Tensor::empty(x.gpu(), [5, c], DType::F32)?;
        let launch = Launch::new(x.gpu(), &FROZEN, "frozen").read(weight).read(bias).read(mean).read(var).write(&affine);
        launch.params(params![c, self.options.eps]).invocations(c)?;
        Ok(affine)
    }

    /// y of x and `affine`.
    pub(super) fn normalize(&self, plan: &Plan, x: &Tensor, affine: &Tensor, residual: Option<&Tensor>, y: &Tensor) -> Result<()> {
        for piece in plan.pieces() {
            let part = |tensor: &Tensor| tensor.rows(&piece.rows, plan.rows());
            let (x, residual) = (part(x)?, residual.map(part).transpose()?);
            let (launch, mut params, groups) = self.walk(&piece.plan, &x, "apply", Walk::Rows);
            params.extend_from_slice(params![0usize, 0.0f32, 0.0f32]);
            let launch = launch.read(affine).params(&params);
            write_rows(&[y], &piece.rows, plan.rows(), |y| self.activate(bound(launch, y), residual.as_ref()).groups(groups))?;
        }
        Ok(())
    }

    /// Tells a kernel of forward what lies behind the normalisation.
    fn activate<'a>(&self, launch: Launch<'a>, residual: Option<&Tensor>) -> Launch<'a> {
        let launch = launch.define("FORWARD", self.options.activation.forward()).define("RESIDUAL", residual.is_some());
        residual.into_iter().fold(launch, |launch, tensor| launch.read(tensor))
    }

    /// One step of backward, which recomputes what activation and residual did. Bound are x,
    /// `affine`, dy, `terms` and `to`, whose last is the residual's gradient and stands behind the
    /// residual.
    pub(super) fn upstream(&self, plan: &Plan, from: &Upstream, step: (&str, Walk), terms: Option<&Tensor>, to: &[&Tensor]) -> Result<()> {
        for piece in plan.pieces() {
            let part = |tensor: &Tensor| tensor.rows(&piece.rows, plan.rows());
            let (x, dy, residual) = (part(from.x)?, part(from.dy)?, from.residual.map(part).transpose()?);
            let (launch, params, groups) = self.walk(&piece.plan, &x, step.0, step.1);
            let launch = launch
                .define("ACTIVE", self.active())
                .define("RESIDUAL", residual.is_some())
                .define("GRADIENT", self.options.activation.gradient())
                .define("FROZEN", !self.options.training)
                .params(&params);
            let launch = terms.into_iter().fold(launch.read(from.affine).read(&dy), |launch, tensor| launch.read(tensor));
            let sums = matches!(step.1, Walk::Slabs);
            let (rows, of) = if sums { (&piece.slabs, plan.firsts()[0]) } else { (&piece.rows, plan.rows()) };
            write_rows(to, rows, of, |to| {
                let (before, behind) = to.split_at(to.len() - usize::from(residual.is_some() && !sums));
                bound(residual.iter().fold(bound(launch, before), |launch, tensor| launch.read(tensor)), behind).groups(groups)
            })?;
        }
        Ok(())
    }
}
