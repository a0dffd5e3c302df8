//! The moving average of DINO's teacher outputs, in place (Caron et al. 2021).

use super::pairs::{check_rows, not_empty, specs};
use crate::error::{Error, Result, require_share};
use crate::gpu::{Launch, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::reduction::column_sum;
use crate::ops::sample::{Bad, Sample, indices, normal};
use crate::ops::{Array, Autocast, Cost, Operator, apply, exactly, require_f32};
use crate::params;
use crate::tensor::{Spec, Tensor};

const NAME: &str = "center_update";
kernels!(KERNEL = "contrastive/center_update");

/// `center` `[D]` becomes momentum * center + (1 - momentum) * mean over the rows of `teacher`
/// [N, D].
#[derive(Debug, Clone)]
pub struct CenterUpdate {
    /// What is kept of the old centre, 0 to 1.
    pub momentum: f32,
}

impl Operator for CenterUpdate {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [center, teacher] = specs(NAME, inputs)?;
        require_f32(NAME, "center", center)?;
        check_rows(NAME, ["teacher"], [teacher])?;
        not_empty(NAME, "teacher", teacher)?;
        if center.shape.array() != Some([teacher.shape.last()]) {
            return Err(Error::shape(NAME, format!("center {} must be [D] for teacher {}", center.shape, teacher.shape)));
        }
        require_share(NAME, "momentum", self.momentum)?;
        Ok(vec![])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [center, teacher] = *exactly(NAME, inputs)?;
        let (rows, d) = (teacher.shape().dim(0), center.numel());
        let share = (1.0 - self.momentum) / rows as f32;
        // A thread adds the rows of a column, unless they are too many for one: then their sum is
        // the only row.
        let sums = if center.gpu().capabilities().may_walk_exactly(rounds(rows, 0)) { None } else { Some(column_sum(teacher)?) };
        let (teacher, n) = sums.as_ref().map_or((teacher, rows), |sums| (sums, 1));
        Launch::new(center.gpu(), &KERNEL, "center_update")
            .storage(teacher.dtype().storage())
            .write(center)
            .read(teacher)
            .params(params![n, d, self.momentum, share])
            .walk(rounds(n, 0))
            .invocations(d)?;
        Ok(vec![])
    }

    fn mutates(&self) -> Vec<usize> {
        vec![0]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [center, teacher] = exactly(NAME, inputs)?;
        let momentum = f64::from(self.momentum);
        let n = teacher.shape.dim(0);
        let mean = |c: usize| (0..n).map(|i| teacher.at(&[i, c])).sum::<f64>() / n as f64;
        Ok(vec![Array::from_fn(&center.shape, |index| {
            let c = index.first().copied().unwrap_or(0);
            momentum * center.flat(c) + (1.0 - momentum) * mean(c)
        })])
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        let [center, teacher] = [0, 1].map(|i| inputs.get(i).map_or(0, |s| s.shape.numel()));
        Cost { flops: (teacher + 2 * center) as f64, bytes: bytes as f64 + 4.0 * center as f64 }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, d: usize, momentum: f32| Sample::new(CenterUpdate { momentum }, [normal([d]), normal([n, d])]);
    vec![on(1, 1, 0.9), on(3, 5, 0.9), on(33, 65, 0.5), on(7, 300, 0.0), on(5, 3, 1.0)]
}

fn bad() -> Vec<Bad> {
    let update = || CenterUpdate { momentum: 0.9 };
    vec![
        Bad::new(update(), [normal([4])], "takes 2 inputs, 1 were given"),
        Bad::new(update(), [normal([3]), normal([5, 4])], "center [3] must be [D]"),
        Bad::new(update(), [normal([4]), indices([5, 4], 2)], "must hold floats"),
        Bad::new(update(), [normal([4]), normal([0, 4])], "is empty"),
        Bad::new(CenterUpdate { momentum: 1.5 }, [normal([4]), normal([5, 4])], "momentum must lie in"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["center", "teacher"],
        outputs: &[],
        kernels: &[KERNELS],
        build: Box::new(|a| Ok(Box::new(CenterUpdate { momentum: a.number_or("momentum", 0.9)? as f32 }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// Moves this centre `[D]` towards the mean row of `teacher` [N, D] in place: momentum * center + (1 - momentum) * mean.
    ///
    /// # Errors
    /// Shapes that do not fit, no rows, a momentum outside 0..=1.
    pub fn center_update(&self, teacher: &Tensor, momentum: f32) -> Result<()> {
        apply(CenterUpdate { momentum }, &[self, teacher]).map(drop)
    }
}
