//! Group normalisation, and what layer normalisation shares with it.

use crate::error::{Error, Result, require_not_negative};
use crate::gpu::{Capabilities, Launch, Schedule, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal, normal_with, uniform};
use crate::ops::{Array, Attributes, Backward, Cost, Operator, Saves, Tolerance, apply_one, exactly, require_f32, require_float};
use crate::params;
use crate::tensor::{DType, Shape, Spec, Tensor};

kernels!(GROUP_NORM = "normalization/group_norm");

/// Pixels of a slab of the parameters' gradients, and the most slabs.
const SLAB: usize = 32;
const SLABS: usize = 256;

/// How x is cut into what is normalised together: `images` of `pixels` of `groups` of `channels`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub images: usize,
    pub pixels: usize,
    pub groups: usize,
    pub channels: usize,
    pub eps: f32,
}

impl Groups {
    fn vec(&self) -> usize {
        if self.channels.is_multiple_of(4) { 4 } else { 1 }
    }

    /// The passes with a group a thread or a workgroup.
    fn launch<'a>(&self, x: &'a Tensor, pass: &'a str) -> (Launch<'a>, usize) {
        let capabilities = x.gpu().capabilities();
        // A group a thread on software drivers, unless three walks over it are too long for one.
        let rough = 3 * self.pixels * self.channels / self.vec();
        let schedule = x.gpu().schedule("normalization/group_norm.schedule", 0);
        let lanes = if schedule == Schedule::Software && capabilities.may_walk(rough) && capabilities.may_walk_exactly(self.walk(1)) {
            1
        } else {
            self.shared(capabilities)
        };
        (self.variant(x, pass).define("LANES", lanes).walk(self.walk(lanes)), lanes)
    }

    /// Lanes of a workgroup that shares a group: more where the walk is too long for fewer.
    fn shared(&self, capabilities: &Capabilities) -> usize {
        if capabilities.may_walk_exactly(self.walk(64)) { 64 } else { 256 }
    }

    /// Rounds of a pass: three walks over a group, shared by so many lanes.
    fn walk(&self, lanes: usize) -> usize {
        let channels = self.channels / self.vec();
        let across = self.across(lanes);
        let pixels = self.pixels.div_ceil(lanes / across);
        // Pixels may be taken in blocks of 16.
        3 * (rounds(pixels, rounds(channels.div_ceil(across), 0)) + rounds(2 * pixels.div_ceil(16), 0))
    }

    /// The lanes that lie along a group's channels.
    fn across(&self, lanes: usize) -> usize {
        (self.channels / self.vec()).max(1).next_power_of_two().min(lanes)
    }

    fn variant<'a>(&self, x: &'a Tensor, pass: &'a str) -> Launch<'a> {
        Launch::new(x.gpu(), &GROUP_NORM, pass).storage(x.dtype().storage()).define("PASS", pass).define("VEC", self.vec())
    }

    fn run(&self, launch: Launch, lanes: usize) -> Result<()> {
        let (n, v) = (self.images * self.groups, self.vec());
        let (cg, count) = (self.channels / v, self.pixels * self.channels);
        let across = self.across(lanes);
        let scale = (1.0 / count as f64) as f32;
        let launch = launch.params(params![n, self.pixels, cg * self.groups, cg, self.groups, across, scale, self.eps]);
        if lanes == 1 { launch.invocations(n) } else { launch.groups(n) }
    }

    /// y, the means and the inverse deviations.
    pub fn forward(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let outputs = outputs.iter().map(|s| Tensor::empty(x.gpu(), &s.shape, s.dtype)).collect::<Result<Vec<Tensor>>>()?;
        let [y, mean, inverse] = exactly("normalization", &outputs)?;
        let (launch, lanes) = self.launch(x, "forward");
        self.run(launch.read(x).read(weight).read(bias).write(y).write(mean).write(inverse), lanes)?;
        Ok(outputs)
    }

    /// The gradients of x, weight and bias.
    pub fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, dy) = (step.input(0)?, step.input(1)?, step.cotangent(0)?);
        let (mean, inverse) = (step.output(1)?, step.output(2)?);
        let mut gradients = vec![None; 3];
        let [dx, dweight, dbias] = gradients.as_mut_slice() else { return Ok(gradients) };
        if step.needs(0) {
            let gradient = Tensor::empty(x.gpu(), x.shape(), x.dtype())?;
            let (launch, lanes) = self.launch(x, "backward");
            self.run(launch.read(x).read(&dy).read(weight).read(mean).read(inverse).write(&gradient), lanes)?;
            *dx = Some(gradient);
        }
        if step.needs(1) || step.needs(2) {
            let (rows, c, v) = (self.images * self.pixels, self.groups * self.channels, self.vec());
            let chunk = SLAB.max(rows.div_ceil(SLABS));
            let slabs = rows.div_ceil(chunk);
            let partial = Tensor::empty(x.gpu(), [slabs, 2, c], DType::F32)?;
            let n = slabs * c / v;
            self.variant(x, "weights")
                .read(x)
                .read(&dy)
                .read(mean)
                .read(inverse)
                .write(&partial)
                .params(params![n, self.pixels, c / v, self.channels / v, self.groups, rows, chunk])
                .walk(rounds(chunk, 0))
                .invocations(n)?;
            let sums = [Tensor::empty(x.gpu(), [c], DType::F32)?, Tensor::empty(x.gpu(), [c], DType::F32)?];
            let [of_weight, of_bias] = &sums;
            self.variant(x, "finish")
                .read(&partial)
                .write(of_weight)
                .write(of_bias)
                .params(params![c / v, slabs])
                .walk(rounds(slabs, 0))
                .invocations(c / v)?;
            (*dweight, *dbias) = (Some(of_weight.clone()), Some(of_bias.clone()));
        }
        Ok(gradients)
    }

    /// y, means and inverse deviations by plain loops.
    pub fn reference(&self, x: &Array, weight: &Array, bias: &Array, statistics: &Shape) -> Vec<Array> {
        let (c, eps) = (self.groups * self.channels, f64::from(self.eps));
        let mut y = Array::zeros(&x.shape);
        let (mut means, mut inverses) = (Array::zeros(statistics), Array::zeros(statistics));
        for image in 0..self.images {
            for group in 0..self.groups {
                let places: Vec<(usize, usize)> = (0..self.pixels)
                    .flat_map(|pixel| (group * self.channels..(group + 1) * self.channels).map(move |channel| (pixel, channel)))
                    .map(|(pixel, channel)| ((image * self.pixels + pixel) * c + channel, channel))
                    .collect();
                let count = places.len() as f64;
                let mean = places.iter().map(|(at, _)| x.flat(*at)).sum::<f64>() / count;
                let variance = places.iter().map(|(at, _)| (x.flat(*at) - mean).powi(2)).sum::<f64>() / count;
                let inverse = 1.0 / (variance + eps).sqrt();
                for (at, channel) in places {
                    y.set(at, (x.flat(at) - mean) * inverse * weight.flat(channel) + bias.flat(channel));
                }
                means.set(image * self.groups + group, mean);
                inverses.set(image * self.groups + group, inverse);
            }
        }
        vec![y, means, inverses]
    }
}

/// What both tolerate.
pub(super) const TOLERANCE: Tolerance =
    Tolerance { absolute: 1e-5, relative: 1e-4, reason: "sums of a whole group in f32, in one thread on the software schedule" };

/// Reads x twice more than the streaming cost says, from a cache.
pub(super) fn norm_cost(inputs: &[Spec], outputs: &[Spec]) -> Cost {
    Cost { flops: 8.0 * outputs.first().map_or(0, |s| s.shape.numel()) as f64, ..Cost::streaming(inputs, outputs, 0.0) }
}

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

/// x `[N, .., C]` with the channels of each image in `groups` groups, each brought to mean 0 and variance 1 over its channels and pixels, then
/// scaled by weight and shifted by bias, both `[C]` (Wu and He 2018).
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

fn group_norm(groups: usize) -> GroupNorm {
    GroupNorm { groups, eps: 1e-5 }
}

fn samples() -> Vec<Sample> {
    let sample = |groups: usize, shape: &[usize]| {
        let c = shape.last().copied().unwrap_or(1);
        Sample::new(group_norm(groups), [normal_with(shape, 2.0, 1.5), uniform([c], 0.5, 1.5), normal([c])])
    };
    vec![
        sample(3, &[2, 4, 4, 6]),
        sample(8, &[1, 3, 5, 8]),
        sample(2, &[3, 5, 7, 8]),
        sample(1, &[2, 3, 3, 5]),
        sample(4, &[2, 9, 33, 16]),
        sample(5, &[1, 1, 65, 5]),
        sample(2, &[7, 6]),
        sample(1, &[1, 3, 1, 65]),
        sample(2, &[0, 3, 3, 4]),
        Sample::new(group_norm(2), [normal_with([2, 3, 3, 8], 0.5, 50.0), uniform([8], 0.5, 1.5), normal([8])]),
    ]
}

fn bad() -> Vec<Bad> {
    let with = |groups: usize, x: &[usize], w: usize, b: usize| (group_norm(groups), [normal(x), normal([w]), normal([b])]);
    let bad = |(operator, inputs): (GroupNorm, [Input; 3]), expect: &'static str| Bad::new(operator, inputs, expect);
    vec![
        bad(with(1, &[3], 3, 3), "x must be [N, .., C]"),
        bad(with(4, &[1, 2, 2, 6], 6, 6), "do not form 4 groups"),
        bad(with(0, &[1, 2, 2, 6], 6, 6), "do not form 0 groups"),
        bad(with(2, &[1, 2, 2, 6], 4, 6), "weight must be [6]"),
        bad(with(2, &[1, 2, 2, 6], 6, 1), "bias must be [6]"),
        Bad::new(
            GroupNorm { groups: 1, eps: -1.0 },
            [normal([2, 3]), normal([3]), normal([3])],
            "eps must be finite and at least 0, found -1",
        ),
        Bad::new(group_norm(1), [indices([2, 3], 4), normal([3]), normal([3])], "x must hold floats"),
        Bad::new(group_norm(1), [normal([2, 3]), indices([3], 4), normal([3])], "weight must be f32"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entries() -> [Entry; 1] {
    [Entry {
        name: "group_norm",
        module: module_path!(),
        inputs: &["x", "weight", "bias"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(build),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }]
}

impl Tensor {
    /// `[N, .., C]` with each image's channels, in `groups` groups, brought to mean 0 and variance 1 over channels and pixels, then
    /// `* weight + bias`, both f32 `[C]` (Wu and He 2018).
    ///
    /// # Errors
    /// Channels that do not form the groups; weight or bias of another shape or type; integers; out of memory.
    pub fn group_norm(&self, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        apply_one(GroupNorm { groups, eps }, &[self, weight, bias])
    }
}
