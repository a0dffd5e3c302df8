//! Batch normalisation with an optional residual and activation behind it (Ioffe and Szegedy 2015).
//!
//! The mask of the activation is never stored: backward recomputes it from `x`.

mod launch;
pub(crate) mod plan;
mod spec;
pub(crate) mod statistics;

use crate::error::{Error, Result, require_not_negative, require_share};
use crate::ops::entry::Entry;
use crate::ops::{Activation, Array, Attributes, Backward, Cost, Edges, Operator, Saves, apply_one, require_f32};
use crate::tensor::{DType, Shape, Spec, Tensor};
use launch::Upstream;
use plan::{Plan, Walk};

/// What [`Tensor::batch_norm`] can be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormFuncOptions {
    /// Weight of the batch in the running statistics.
    pub momentum: f32,
    /// Added to the variance.
    pub eps: f32,
    /// Applied to the result.
    pub activation: Activation,
    /// Normalise by the statistics of the batch and update the running ones, rather than normalise
    /// by these.
    pub training: bool,
}

impl Default for BatchNormFuncOptions {
    fn default() -> Self {
        Self { momentum: 0.1, eps: 1e-5, activation: Activation::None, training: true }
    }
}

/// The operators `batch_norm_train` and `batch_norm_eval`: x, weight, bias, running_mean,
/// running_var and, perhaps, partial statistics of x and residual to y and what backward needs of
/// each channel (`affine`, see the shader).
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    options: BatchNormFuncOptions,
    statistics: bool,
}

/// The inputs of the operator: x and what it has of each channel, partial statistics, residual.
type Inputs<'a, T> = ([&'a T; 5], Option<&'a T>, Option<&'a T>);

fn set(gradients: &mut [Option<Tensor>], input: usize, gradient: Option<Tensor>) {
    if let Some(slot) = gradients.get_mut(input) {
        *slot = gradient;
    }
}

fn wrong_count(name: &str, found: usize) -> Error {
    Error::shape(
        name,
        format!("it takes x, weight, bias, running_mean, running_var and perhaps statistics and residual, {found} inputs were given"),
    )
}

impl BatchNorm {
    /// The operator with these options.
    pub fn new(options: BatchNormFuncOptions) -> Self {
        Self { options, statistics: false }
    }

    /// The same with one more input behind `running_var`: what [`Conv2d::with_statistics`] wrote of
    /// x.
    ///
    /// [`Conv2d::with_statistics`]: crate::ops::convolution::conv2d::Conv2d::with_statistics
    #[must_use]
    pub fn with_statistics(self) -> Self {
        Self { statistics: true, ..self }
    }

    /// The inputs by their names.
    fn split<'a, T>(&self, inputs: &[&'a T]) -> Result<Inputs<'a, T>> {
        let wrong = || wrong_count(self.name(), inputs.len());
        let (constants, rest) = inputs.split_at_checked(5).ok_or_else(wrong)?;
        let constants = constants.try_into().map_err(|_| wrong())?;
        match (self.statistics, rest) {
            (false, []) => Ok((constants, None, None)),
            (false, [residual]) => Ok((constants, None, Some(*residual))),
            (true, [statistics]) => Ok((constants, Some(*statistics), None)),
            (true, [statistics, residual]) => Ok((constants, Some(*statistics), Some(*residual))),
            _ => Err(wrong()),
        }
    }

    /// Which input is the residual.
    fn residual(&self) -> usize {
        5 + usize::from(self.statistics)
    }

    fn active(&self) -> bool {
        self.options.activation != Activation::None
    }
}

impl Operator for BatchNorm {
    fn name(&self) -> &str {
        if self.options.training { "batch_norm_train" } else { "batch_norm_eval" }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let name = self.name();
        let ([x, channels @ ..], statistics, residual) = self.split(&inputs.iter().collect::<Vec<_>>())?;
        require_not_negative(name, "eps", self.options.eps)?;
        require_share(name, "momentum", self.options.momentum)?;
        if !x.dtype.is_float() || x.shape.rank() < 2 {
            return Err(Error::shape(name, format!("x must be floats [..., C] of rank 2 or more, found {x}")));
        }
        let c = x.shape.last();
        for (what, spec) in ["weight", "bias", "running_mean", "running_var"].into_iter().zip(channels) {
            require_f32(name, what, spec)?;
            if spec.shape != Shape::from([c]) {
                return Err(Error::shape(name, format!("{what} must have shape [{c}] for x of shape {}, found {}", x.shape, spec.shape)));
            }
        }
        if let Some(residual) = residual.filter(|residual| residual.dtype != x.dtype) {
            return Err(Error::dtype(name, format!("residual must be stored as x is, {x}, found {residual}; cast it first")));
        }
        if let Some(residual) = residual.filter(|residual| residual.shape != x.shape) {
            return Err(Error::shape(name, format!("residual must be like x, {x}, found {residual}")));
        }
        statistics.map_or(Ok(()), |found| require_f32(name, "statistics", found))?;
        let partials = Spec::f32(statistics::shape(&x.shape));
        if let Some(found) = statistics.filter(|found| **found != partials) {
            return Err(Error::shape(name, format!("statistics of x of shape {} must be {partials}, found {found}", x.shape)));
        }
        let rows = x.shape.numel() / c.max(1);
        if self.options.training && rows < 2 {
            return Err(Error::shape(name, format!("expected more than 1 value per channel when training, x has shape {}", x.shape)));
        }
        Ok(vec![Spec::new(x.shape.clone(), x.dtype), Spec::f32([5, c])])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let inputs = self.split(inputs)?;
        let (constants @ [x, ..], _, residual) = inputs;
        let plan = Plan::new(x.gpu(), x.shape());
        let y = Tensor::empty(x.gpu(), outputs.first().map_or(x.shape(), |s| &s.shape), x.dtype())?;
        if self.options.training {
            let affine = self.train(&plan, inputs, &y)?;
            return Ok(vec![y, affine]);
        }
        let affine = self.frozen(constants)?;
        self.normalize(&plan, x, &affine, residual, &y)?;
        Ok(vec![y, affine])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, affine, dy) = (step.input(0)?, step.output(1)?, step.cotangent(0)?);
        let (gpu, plan) = (step.gpu(), Plan::new(step.gpu(), x.shape()));
        let residual = if step.input_count() > self.residual() && self.active() { Some(step.input(self.residual())?) } else { None };
        let channels = || Tensor::empty(gpu, [plan.channels()], DType::F32);
        let like_x = || Tensor::empty(gpu, x.shape(), x.dtype());
        let mut gradients: Vec<Option<Tensor>> = vec![None; step.input_count()];
        let sums = self.options.training || step.needs(1) || step.needs(2);
        let through = step.needs(0) || residual.is_some();
        let (dweight, dbias) = (channels()?, channels()?);
        let wanted = |wanted: bool| if wanted { like_x().map(Some) } else { Ok(None) };
        let (dx, dresidual) = (wanted(through)?, wanted(residual.is_some())?);
        let (from, rows) = (Upstream { x, affine, dy: &dy, residual }, dx.iter().chain(&dresidual).collect::<Vec<_>>());
        if self.options.training && through && plan.small() {
            let to: Vec<&Tensor> = [&dweight, &dbias].into_iter().chain(rows).collect();
            self.upstream(&plan, &from, ("gradient", Walk::Columns), None, &to)?;
        } else {
            let coefficients = Tensor::empty(gpu, [2, plan.channels()], DType::F32)?;
            if sums {
                let partials = Tensor::empty(gpu, plan.partials(), DType::F32)?;
                self.upstream(&plan, &from, ("sums", Walk::Slabs), None, &[&partials])?;
                let (launch, params, groups) = plan.launch(gpu, "coefficients", Walk::Partials);
                let launch = launch.read(&partials).read(affine).write(&dweight).write(&dbias).write(&coefficients);
                launch.params(&params).groups(groups)?;
            }
            if through {
                let terms = self.options.training.then_some(&coefficients);
                self.upstream(&plan, &from, ("input_gradient", Walk::Rows), terms, &rows)?;
            }
        }
        if sums {
            set(&mut gradients, 1, Some(dweight));
            set(&mut gradients, 2, Some(dbias));
        }
        set(&mut gradients, 0, dx);
        set(&mut gradients, self.residual(), Some(dresidual.unwrap_or(dy)));
        Ok(gradients)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: if self.active() { vec![0, self.residual()] } else { vec![0] }, outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1, 2, self.residual()]
    }

    fn mutates(&self) -> Vec<usize> {
        if self.options.training { vec![3, 4] } else { Vec::new() }
    }

    fn edges(&self, input: usize) -> Edges {
        if self.statistics && (input == 0 || input == 5) { Edges::None } else { Edges::All }
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        spec::reference(self, inputs)
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        spec::summed(self, inputs, gradient_of)
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        spec::cost(self, inputs, outputs)
    }
}

fn build(attributes: &Attributes, training: bool) -> Result<Box<dyn Operator>> {
    let name = if training { "batch_norm_train" } else { "batch_norm_eval" };
    let defaults = BatchNormFuncOptions::default();
    Ok(Box::new(BatchNorm::new(BatchNormFuncOptions {
        momentum: attributes.number_or("momentum", f64::from(defaults.momentum))? as f32,
        eps: attributes.number_or("eps", f64::from(defaults.eps))? as f32,
        activation: Activation::named(name, attributes.text_or("activation", "none")?)?,
        training,
    })))
}

/// The family's lines of the registry for batch norm.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name, training| Entry {
        name,
        module: module_path!(),
        inputs: &["x", "weight", "bias", "running_mean", "running_var", "residual"],
        outputs: &["y"],
        kernels: &[plan::KERNELS, launch::KERNELS],
        build: Box::new(move |attributes| build(attributes, training)),
        samples: Box::new(move || spec::samples(training)),
        bad: Box::new(move || spec::bad(training)),
    };
    vec![entry("batch_norm_train", true), entry("batch_norm_eval", false)]
}

impl Tensor {
    /// `f((x - mean) / sqrt(var + eps) * weight + bias + residual)` over `[..., C]`, statistics
    /// over all axes but the last (Ioffe and Szegedy 2015), in one pass behind the statistics.
    /// `weight`, `bias`, `running_mean`, `running_var` are f32 `[C]`; `residual` is like `self`.
    /// With `training` the statistics are the batch's and the running ones are moved in place (the
    /// unbiased variance, as in PyTorch); without, they are the running ones.
    ///
    /// # Errors
    /// Shapes or types that do not fit; in training fewer than two values a channel; out of memory.
    pub fn batch_norm(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        running_mean: &Tensor,
        running_var: &Tensor,
        options: &BatchNormFuncOptions,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [self, weight, bias, running_mean, running_var].into_iter().chain(residual).collect();
        apply_one(BatchNorm::new(*options), &inputs)
    }
}
