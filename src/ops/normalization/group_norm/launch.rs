//! How group and layer norm are run: a group is a thread's or a workgroup's.

use crate::error::Result;
use crate::gpu::{Capabilities, Launch, Schedule, rounds};
use crate::ops::entry::kernels;
use crate::ops::{Backward, exactly};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

kernels!(GROUP_NORM = "normalization/group_norm");

/// Pixels of a slab of the parameters' gradients, and the most slabs.
const SLAB: usize = 32;
const SLABS: usize = 256;

/// How x is cut into what is normalised together: `images` of `pixels` of `groups` of `channels`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
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
}
