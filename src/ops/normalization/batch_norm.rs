//! Batch normalisation with an optional residual and activation behind it (Ioffe and Szegedy 2015).
//!
//! The mask of the activation is never stored: backward recomputes it from `x`.

use super::columns::{self, Plan, Walk};
use super::passes::{self, Upstream};
use super::statistics;
use crate::error::{Error, Result, require_not_negative, require_share};
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, normal, normal_with, uniform};
use crate::ops::{Activation, Array, Attributes, Backward, Cost, Edges, Operator, Saves, apply_one, require_f32};
use crate::tensor::{DType, Shape, Spec, Tensor};

/// What [`Tensor::batch_norm`] can be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormOptions {
    /// Weight of the batch in the running statistics.
    pub momentum: f32,
    /// Added to the variance.
    pub eps: f32,
    /// Applied to the result.
    pub activation: Activation,
    /// Normalise by the statistics of the batch and update the running ones, rather than normalise by these.
    pub training: bool,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        Self { momentum: 0.1, eps: 1e-5, activation: Activation::None, training: true }
    }
}

/// The operators `batch_norm_train` and `batch_norm_eval`: x, weight, bias, running_mean, running_var and, perhaps, partial statistics of x
/// and residual to y and what backward needs of each channel (`affine`, see the shader).
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    pub(super) options: BatchNormOptions,
    statistics: bool,
}

/// The inputs of the operator: x and what it has of each channel, partial statistics, residual.
pub(super) type Inputs<'a, T> = ([&'a T; 5], Option<&'a T>, Option<&'a T>);

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
    pub fn new(options: BatchNormOptions) -> Self {
        Self { options, statistics: false }
    }

    /// The same with one more input behind `running_var`: what [`Conv2d::with_statistics`] wrote of x.
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

    pub(super) fn active(&self) -> bool {
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
        let inputs: Vec<&Array> = inputs.iter().collect();
        let ([x, weight, bias, running_mean, running_var], _, residual) = self.split(&inputs)?;
        let (c, momentum, eps) = (x.shape.last(), f64::from(self.options.momentum), f64::from(self.options.eps));
        let n = (x.shape.numel() / c.max(1)) as f64;
        let (mut y, mut affine) = (Array::zeros(&x.shape), Array::zeros([5, c]));
        let (mut new_mean, mut new_var) = (running_mean.clone(), running_var.clone());
        for channel in 0..c {
            let values = || x.rows().map(|row| row.get(channel).copied().unwrap_or(f64::NAN));
            let (mut mean, mut var) = (running_mean.flat(channel), running_var.flat(channel));
            if self.options.training {
                mean = values().sum::<f64>() / n;
                let squares: f64 = values().map(|v| (v - mean) * (v - mean)).sum();
                var = squares / n;
                new_mean.set(channel, (1.0 - momentum) * running_mean.flat(channel) + momentum * mean);
                new_var.set(channel, (1.0 - momentum) * running_var.flat(channel) + momentum * squares / (n - 1.0));
            }
            let inverse = 1.0 / (var + eps).sqrt();
            for (row, value) in [mean, 0.0, inverse, weight.flat(channel) * inverse, bias.flat(channel)].into_iter().enumerate() {
                affine.set(row * c + channel, value);
            }
            for (row, value) in values().enumerate() {
                let position = row * c + channel;
                let shortcut: f64 = residual.iter().map(|r| r.flat(position)).sum();
                let z = (value - mean) * inverse * weight.flat(channel) + bias.flat(channel) + shortcut;
                y.set(position, self.options.activation.reference(z));
            }
        }
        Ok(if self.options.training { vec![y, affine, new_mean, new_var] } else { vec![y, affine] })
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        // dx is a (g - mean(g) - xhat mean(g xhat)), a the third row of affine.
        let largest = |affine: &Array| affine.rows().nth(3).map_or(0.0, |a| a.iter().fold(0.0, |m: f64, a| m.max(a.abs())));
        let affine = || self.reference(inputs).ok()?.get(1).map(largest);
        if gradient_of == Some(0) && self.options.training { 2.0 * affine().unwrap_or(0.0) } else { 0.0 }
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        let x = inputs.first();
        let (bytes, elements) = (x.map_or(0, Spec::bytes), x.map_or(0, |s| s.shape.numel()));
        let streaming = Cost::streaming(inputs, outputs, 0.0);
        // Statistics read x once more: 4 operations an element, and 3 to normalise.
        let (flops, again) = if self.options.training && !self.statistics { (7.0, bytes as f64) } else { (3.0, 0.0) };
        Cost { flops: flops * elements as f64, bytes: streaming.bytes + again }
    }
}

fn build(attributes: &Attributes, training: bool) -> Result<Box<dyn Operator>> {
    let name = if training { "batch_norm_train" } else { "batch_norm_eval" };
    let defaults = BatchNormOptions::default();
    Ok(Box::new(BatchNorm::new(BatchNormOptions {
        momentum: attributes.number_or("momentum", f64::from(defaults.momentum))? as f32,
        eps: attributes.number_or("eps", f64::from(defaults.eps))? as f32,
        activation: Activation::named(name, attributes.text_or("activation", "none")?)?,
        training,
    })))
}

/// The inputs for x of `shape` around `shift`.
fn sample_inputs(shape: &[usize], scale: f64, shift: f64) -> Vec<Input> {
    let c = shape.last().copied().unwrap_or(1);
    vec![normal_with(shape, scale, shift), uniform([c], 0.5, 1.5), normal([c]), normal_with([c], scale, shift), uniform([c], 0.5, 1.5)]
}

fn samples(training: bool) -> Vec<Sample> {
    let with = |activation| BatchNorm::new(BatchNormOptions { activation, training, ..Default::default() });
    let plain = [&[2, 1][..], &[33, 7], &[3, 5, 7, 12], &[5, 65], &[2, 9, 9, 33], &[7, 3, 3, 72], &[1, 5, 7, 132], &[1500, 4], &[700, 3]];
    let mut samples: Vec<Sample> = plain.iter().map(|shape| Sample::new(with(Activation::None), sample_inputs(shape, 2.0, 1.5))).collect();
    for activation in Activation::ALL {
        samples.push(Sample::new(with(activation), sample_inputs(&[33, 3], 3.0, 0.5)));
        let mut inputs = sample_inputs(&[3, 5, 5, 8], 3.0, 0.5);
        inputs.push(normal([3, 5, 5, 8]));
        samples.push(Sample::new(with(activation), inputs));
    }
    let mut same = sample_inputs(&[65, 5], 1.0, 0.0);
    same.push(Input::Same(0));
    samples.push(Sample::new(with(Activation::Relu), same));
    if training {
        // A mean a thousand deviations away.
        samples.push(Sample::new(with(Activation::None), sample_inputs(&[400, 8], 1.0, 1000.0)));
        // Large enough to be walked in slabs everywhere.
        samples.push(Sample::new(with(Activation::Silu), sample_inputs(&[3990, 33], 1.0, 100.0)));
        samples.push(Sample::new(with(Activation::Silu), sample_inputs(&[8200, 68], 2.0, 0.5)));
        // Squares overflow.
        samples.push(Sample::new(with(Activation::None), sample_inputs(&[8200, 4], 1e19, 0.0)));
        // With statistics that were brought along; a mean a hundred deviations away, and a residual.
        for (shape, residual) in [
            (&[64, 4][..], false),
            (&[5, 13, 3], true),
            (&[3, 9, 9, 40], true),
            (&[4200, 3], false),
            (&[17_000, 8], false),
            (&[16_450, 3], true),
        ] {
            let mut inputs = sample_inputs(shape, 1.0, 0.0);
            let x = Array::from_fn(shape, |at| at.iter().fold(100.0, |sum, i| sum + f64::from((*i as f32 * 1.7 + sum as f32).sin())));
            let x = x.map(|v| f64::from(v as f32));
            inputs.push(Input::Values(statistics::reference(&x)));
            inputs.splice(..1, [Input::Values(x)]);
            inputs.extend(residual.then(|| normal(shape)));
            samples.push(Sample::new(with(Activation::Silu).with_statistics(), inputs));
        }
    } else {
        samples.push(Sample::new(with(Activation::Relu), sample_inputs(&[0, 8], 1.0, 0.0)));
    }
    samples
}

fn bad(training: bool) -> Vec<Bad> {
    let operator = || BatchNorm::new(BatchNormOptions { training, ..Default::default() });
    let replaced = |index: usize, input: Input| {
        let mut inputs = sample_inputs(&[4, 3], 1.0, 0.0);
        if let Some(slot) = inputs.get_mut(index) {
            *slot = input;
        }
        inputs
    };
    let mut residual = sample_inputs(&[4, 3], 1.0, 0.0);
    residual.push(normal([3, 4]));
    let mut statistics = sample_inputs(&[4, 3], 1.0, 0.0);
    statistics.push(normal([4, 3]));
    let set = |eps: f32, momentum: f32| BatchNorm::new(BatchNormOptions { training, eps, momentum, ..Default::default() });
    let mut bad = vec![
        Bad::new(set(-1.0, 0.1), sample_inputs(&[4, 3], 1.0, 0.0), "eps must be finite and at least 0, found -1"),
        Bad::new(set(f32::INFINITY, 0.1), sample_inputs(&[4, 3], 1.0, 0.0), "eps must be finite and at least 0, found inf"),
        Bad::new(set(1e-5, 2.0), sample_inputs(&[4, 3], 1.0, 0.0), "momentum must lie in 0..=1, found 2"),
        Bad::new(set(1e-5, f32::NAN), sample_inputs(&[4, 3], 1.0, 0.0), "momentum must lie in 0..=1, found NaN"),
        Bad::new(operator(), [normal([4, 3])], "1 inputs were given"),
        Bad::new(operator(), replaced(0, normal([3])), "rank 2 or more"),
        Bad::new(operator(), replaced(1, normal([4])), "weight must have shape [3]"),
        Bad::new(operator(), replaced(4, crate::ops::sample::indices([3], 2)), "running_var must be f32"),
        Bad::new(operator(), residual, "residual must be like x"),
        Bad::new(operator().with_statistics(), sample_inputs(&[4, 3], 1.0, 0.0), "5 inputs were given"),
        Bad::new(operator().with_statistics(), statistics, "statistics of x of shape [4, 3] must be f32 [1, 2, 3]"),
    ];
    if training {
        bad.push(Bad::new(operator(), sample_inputs(&[1, 1, 1, 3], 1.0, 0.0), "expected more than 1 value per channel"));
    }
    bad
}

/// The family's lines of the registry for batch norm.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name, training| Entry {
        name,
        module: module_path!(),
        inputs: &["x", "weight", "bias", "running_mean", "running_var", "residual"],
        outputs: &["y"],
        kernels: &[columns::KERNELS, passes::KERNELS],
        build: Box::new(move |attributes| build(attributes, training)),
        samples: Box::new(move || samples(training)),
        bad: Box::new(move || bad(training)),
    };
    vec![entry("batch_norm_train", true), entry("batch_norm_eval", false)]
}

impl Tensor {
    /// `f((x - mean) / sqrt(var + eps) * weight + bias + residual)` over `[..., C]`, statistics over all axes but the last
    /// (Ioffe and Szegedy 2015), in one pass behind the statistics. `weight`, `bias`, `running_mean`, `running_var` are f32 `[C]`;
    /// `residual` is like `self`. With `training` the statistics are the batch's and the running ones are moved in place (the
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
        options: &BatchNormOptions,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [self, weight, bias, running_mean, running_var].into_iter().chain(residual).collect();
        apply_one(BatchNorm::new(*options), &inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, GpuOptions};
    use half::f16;

    /// x, y and their gradients stored as f16 differ from f32 by rounding alone; parameters' gradients hardly at all.
    #[test]
    fn f16_storage_only_rounds() {
        let gpu = Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap();
        if !gpu.capabilities().f16 {
            let refused = crate::tensor::Tensor::zeros(&gpu, [1], crate::tensor::DType::F16);
            assert!(matches!(refused, Err(crate::error::Error::Limit { .. })));
            return;
        }
        for c in [5, 72] {
            let halves = |k: usize| -> Vec<f16> { (0..33 * c).map(|i| f16::from_f32(((i * k) % 101) as f32 / 25.0 - 2.0)).collect() };
            let vector = |from: f32| Tensor::from_slice(&gpu, &(0..c).map(|i| from + i as f32 * 0.01).collect::<Vec<_>>(), [c]).unwrap();
            let run = |storage: DType| -> Vec<Vec<f64>> {
                let upload = |values: Vec<f16>| match storage {
                    DType::F16 => Tensor::from_slice(&gpu, &values, [33, c]).unwrap(),
                    _ => Tensor::from_slice(&gpu, &values.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), [33, c]).unwrap(),
                };
                let (x, residual) = (upload(halves(37)).watch(), upload(halves(53)).watch());
                let (weight, bias) = (vector(0.5).watch(), vector(-0.3).watch());
                let options = BatchNormOptions { activation: Activation::Hardswish, ..Default::default() };
                let y = x.batch_norm(&weight, &bias, &vector(0.0), &vector(1.0), &options, Some(&residual)).unwrap();
                let gradients = y.backward_from(&upload(halves(29))).unwrap();
                let found = [&x, &residual, &weight, &bias].map(|t| gradients.get(t).unwrap().to_f64().unwrap());
                [y.to_f64().unwrap()].into_iter().chain(found).collect()
            };
            for (half, full) in run(DType::F16).iter().zip(&run(DType::F32)) {
                let largest = full.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                assert!(half.iter().zip(full).all(|(h, f)| (h - f).abs() <= 1e-3 * largest));
            }
        }
    }
}
