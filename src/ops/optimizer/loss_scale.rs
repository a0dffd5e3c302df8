//! The loss scale of mixed precision, on the device: gradients are freed of it, and it follows what
//! became of the step (Micikevicius et al. 2018; PyTorch's `GradScaler`).

use super::slab::{CONTROL, Scalars, check};
use crate::error::{Error, Result};
use crate::gpu::Launch;
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, normal};
use crate::ops::{Array, Attributes, Edges, Operator, exactly};
use crate::params;
use crate::tensor::{Spec, Tensor};

kernels!(KERNEL = "optimizer/loss_scale");

/// Numbers of a scale's state: the scale, and the steps taken since it last changed.
pub const STATE: usize = 2;

/// Divides the gradients' factor in `scalars` by the scale in `state`, f32 `[2]`, in place.
#[derive(Debug, Clone)]
pub struct Unscale;

impl Operator for Unscale {
    fn name(&self) -> &str {
        "unscale"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [scalars, state] = exactly(self.name(), inputs)?;
        check(self.name(), "scalars", scalars, [Scalars::LENGTH])?;
        check(self.name(), "state", state, [STATE])?;
        Ok(vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [scalars, state] = *exactly(self.name(), inputs)?;
        Launch::new(state.gpu(), &KERNEL, "unscale").define("ENTRY", "unscale").write(scalars).read(state).groups(1)?;
        Ok(vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [scalars, state] = exactly(self.name(), inputs)?;
        let mut freed = scalars.clone();
        freed.set(5, scalars.flat(5) / state.flat(0));
        Ok(vec![freed])
    }
}

/// Moves the scale in `state`, f32 `[2]`, in place, by what `control` (see
/// [`clip_norm`](super::clip_norm)) says of the step.
#[derive(Debug, Clone)]
pub struct UpdateScale {
    /// The factor after `interval` steps that were taken, above 1.
    pub growth: f32,
    /// The factor after one that was not, 0 to 1.
    pub backoff: f32,
    /// Steps.
    pub interval: u32,
}

impl UpdateScale {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the setting.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::argument("loss scale", message));
        if !(self.growth >= 1.0 && self.growth.is_finite()) {
            return wrong(format!("growth_factor must be at least 1, found {}", self.growth));
        }
        if !(self.backoff > 0.0 && self.backoff < 1.0) {
            return wrong(format!("backoff_factor must lie between 0 and 1, found {}", self.backoff));
        }
        // Beyond 2^24, f32 does not count on.
        if !(1..=1 << 24).contains(&self.interval) {
            return wrong(format!("growth_interval must be 1 to 16777216 steps, found {}", self.interval));
        }
        Ok(())
    }
}

impl Operator for UpdateScale {
    fn name(&self) -> &str {
        "update_scale"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [state, control] = exactly(self.name(), inputs)?;
        check(self.name(), "state", state, [STATE])?;
        check(self.name(), "control", control, [CONTROL])?;
        self.check()?;
        Ok(vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [state, control] = *exactly(self.name(), inputs)?;
        let launch = Launch::new(state.gpu(), &KERNEL, "update").define("ENTRY", "update").write(state).read(control);
        launch.params(params![self.growth, self.backoff, self.interval as f32]).groups(1)?;
        Ok(vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0]
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::None
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [state, control] = exactly(self.name(), inputs)?;
        let (scale, good) = (state.flat(0), state.flat(1) + 1.0);
        let grown = scale * f64::from(self.growth);
        let next = match control.flat(2) {
            0.0 => vec![scale * f64::from(self.backoff), 0.0],
            _ if good < f64::from(self.interval) => vec![scale, good],
            _ => vec![if grown <= f64::from(f32::MAX) { grown } else { scale }, 0.0],
        };
        Ok(vec![Array::new([STATE], next)])
    }
}

fn values(values: &[f64]) -> Input {
    Input::Values(Array::new([values.len()], values.to_vec()))
}

fn unscale_samples() -> Vec<Sample> {
    let on = |scale: f64| Sample::new(Unscale, [normal([Scalars::LENGTH]), values(&[scale, 3.0])]);
    vec![on(65536.0), on(1.0), on(0.25)]
}

fn update_samples() -> Vec<Sample> {
    let on = |state: [f64; STATE], taken: bool| {
        let control = values(&[1.0, 1.0, f64::from(u8::from(taken)), 1.0, 1.0, 1.0, 1.0]);
        Sample::new(UpdateScale { growth: 2.0, backoff: 0.5, interval: 2000 }, [values(&state), control])
    };
    vec![
        on([65536.0, 0.0], true),
        on([65536.0, 1998.0], true),
        on([65536.0, 1999.0], true),
        on([65536.0, 1999.0], false),
        on([f64::from(f32::MAX), 1999.0], true),
    ]
}

fn unscale_bad() -> Vec<Bad> {
    vec![
        Bad::new(Unscale, [normal([Scalars::LENGTH])], "takes 2 inputs, 1 were given"),
        Bad::new(Unscale, [normal([3]), normal([STATE])], "scalars must have shape [8]"),
        Bad::new(Unscale, [normal([Scalars::LENGTH]), normal([3])], "state must have shape [2]"),
    ]
}

fn update_bad() -> Vec<Bad> {
    let good = UpdateScale { growth: 2.0, backoff: 0.5, interval: 2000 };
    let with = |update: UpdateScale, message| Bad::new(update, [normal([STATE]), normal([CONTROL])], message);
    vec![
        Bad::new(good.clone(), [normal([STATE])], "takes 2 inputs, 1 were given"),
        Bad::new(good.clone(), [normal([3]), normal([CONTROL])], "state must have shape [2]"),
        with(UpdateScale { growth: 0.5, ..good.clone() }, "growth_factor must be at least 1"),
        with(UpdateScale { backoff: 1.0, ..good.clone() }, "backoff_factor must lie between"),
        with(UpdateScale { interval: 0, ..good }, "growth_interval must be"),
    ]
}

fn build_update(attributes: &Attributes) -> Result<Box<dyn Operator>> {
    let number = |name: &str, value: f64| attributes.number_or(name, value);
    let (growth, backoff) = (number("growth", 2.0)? as f32, number("backoff", 0.5)? as f32);
    Ok(Box::new(UpdateScale { growth, backoff, interval: number("interval", 2000.0)? as u32 }))
}

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry {
            name: "unscale",
            module: module_path!(),
            inputs: &["scalars", "state"],
            outputs: &[],
            kernels: &[KERNELS],
            build: Box::new(|_| Ok(Box::new(Unscale))),
            samples: Box::new(unscale_samples),
            bad: Box::new(unscale_bad),
        },
        Entry {
            name: "update_scale",
            module: module_path!(),
            inputs: &["state", "control"],
            outputs: &[],
            kernels: &[KERNELS],
            build: Box::new(build_update),
            samples: Box::new(update_samples),
            bad: Box::new(update_bad),
        },
    ]
}
