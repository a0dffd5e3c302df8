//! DINO's loss: the cross entropy of a sharpened, centred teacher and a student (Caron et al.
//! 2021).

use super::pairs::{check_batch, check_rows, check_temperature, dot, log_sum_exp, row_lanes, scalar, specs};
use crate::error::{Error, Result};
use crate::gpu::{Launch, Scalar};
use crate::ops::entry::{Entry, kernels};
use crate::ops::loss::mean::{self, mean};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, apply_one, exactly, require_f32};
use crate::params;
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "dino_loss";
kernels!(KERNEL = "contrastive/dino_loss");

/// The mean over rows of -sum softmax((`teacher` - `center`) / teacher_temperature) log
/// softmax(`student` / student_temperature), for `student` and `teacher` [N, D] and `center` `[D]`.
/// The gradient is the student's alone.
#[derive(Debug, Clone)]
pub struct DinoLoss {
    /// Divides the student's logits.
    pub student_temperature: Scalar,
    /// Divides the teacher's centred logits.
    pub teacher_temperature: Scalar,
}

fn with(student: impl Into<Scalar>, teacher: impl Into<Scalar>) -> DinoLoss {
    DinoLoss { student_temperature: student.into(), teacher_temperature: teacher.into() }
}

fn inverse(temperature: &Scalar) -> Scalar {
    temperature.map(|t| 1.0 / t)
}

impl DinoLoss {
    fn launch<'a>(&self, student: &'a Tensor, teacher: &Tensor, center: &Tensor, entry: &'a str) -> Launch<'a> {
        Launch::new(student.gpu(), &KERNEL, entry)
            .storage(student.dtype().storage())
            .define("TEACHER", teacher.dtype().to_string())
            .define("BACKWARD", entry == "backward")
            .read(student)
            .read(teacher)
            .read(center)
    }
}

impl Operator for DinoLoss {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [student, teacher, center] = specs(NAME, inputs)?;
        check_temperature(NAME, &self.student_temperature)?;
        check_temperature(NAME, &self.teacher_temperature)?;
        check_rows(NAME, ["student", "teacher"], [student, teacher])?;
        check_batch(NAME, ["student", "teacher"], [student, teacher])?;
        require_f32(NAME, "center", center)?;
        if center.shape.array() != Some([student.shape.last()]) {
            return Err(Error::shape(NAME, format!("center {} must be [D] for student {}", center.shape, student.shape)));
        }
        Ok(vec![Spec::f32([]), Spec::f32([student.shape.dim(0), 8])])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [student, teacher, center] = *exactly(NAME, inputs)?;
        let (gpu, n) = (student.gpu(), student.shape().dim(0));
        let stats = Tensor::empty(gpu, [n, 8], DType::F32)?;
        let (lanes, walk) = row_lanes(gpu, student.shape().last(), 1);
        self.launch(student, teacher, center, "forward")
            .define("LANES", lanes)
            .walk(walk)
            .write(&stats)
            .params(params![student.shape().last(), inverse(&self.student_temperature), inverse(&self.teacher_temperature)])
            .groups(n)?;
        let (loss, _) = mean(&stats, n, [4, 8], None, n)?;
        Ok(vec![loss, stats])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let (student, teacher, center) = (step.input(0)?, step.input(1)?, step.input(2)?);
        let dx = Tensor::empty(step.gpu(), student.shape(), student.dtype())?;
        let [s, t] = [&self.student_temperature, &self.teacher_temperature].map(inverse);
        let rows = student.shape().dim(0) as f32;
        self.launch(student, teacher, center, "backward")
            .read(step.output(1)?)
            .read(&step.cotangent(0)?)
            .write(&dx)
            .params(params![student.shape().last(), dx.numel(), &s, t, s.map(move |s| s / rows)])
            .invocations(dx.numel())?;
        Ok(vec![Some(dx), None, None])
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![0, 1, 2], outputs: vec![1] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [student, teacher, center] = exactly(NAME, inputs)?;
        let [ts, tt] = [&self.student_temperature, &self.teacher_temperature].map(|t| f64::from(t.get()));
        let row = |(s, t): (&[f64], &[f64])| {
            let s: Vec<f64> = s.iter().map(|v| v / ts).collect();
            let t: Vec<f64> = t.iter().zip(&center.data).map(|(v, c)| (v - c) / tt).collect();
            let (of_s, of_t) = (log_sum_exp(&s), log_sum_exp(&t));
            let p: Vec<f64> = t.iter().map(|v| (v - of_t).exp()).collect();
            let log_q: Vec<f64> = s.iter().map(|v| v - of_s).collect();
            -dot(&p, &log_q)
        };
        let loss: f64 = student.rows().zip(teacher.rows()).map(row).sum();
        Ok(scalar(loss / student.shape.dim(0) as f64))
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        let elements = inputs.first().map_or(0, |x| x.shape.numel());
        Cost { flops: 12.0 * elements as f64, bytes: bytes as f64 + 4.0 }
    }
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, d: usize, student_temperature: f32, teacher_temperature: f32| {
        Sample::new(with(student_temperature, teacher_temperature), [normal([n, d]), normal([n, d]), normal([d])])
    };
    vec![
        on(1, 1, 0.1, 0.04),
        on(3, 5, 0.1, 0.04),
        on(5, 7, 1.0, 0.5),
        on(33, 65, 0.1, 0.07),
        on(3, 1030, 0.2, 0.04),
        Sample::new(with(0.1, 0.04), [normal([7, 9]), Input::Same(0), normal([9])]),
    ]
}

fn bad() -> Vec<Bad> {
    let loss = || with(0.1, 0.04);
    vec![
        Bad::new(loss(), [normal([3, 4]), normal([3, 4])], "takes 3 inputs, 2 were given"),
        Bad::new(loss(), [normal([3, 4]), normal([2, 4]), normal([4])], "must have as many rows"),
        Bad::new(loss(), [normal([3, 4]), normal([3, 4]), normal([3])], "center [3] must be [D]"),
        Bad::new(loss(), [normal([3, 4]), indices([3, 4], 3), normal([4])], "must hold floats"),
        Bad::new(with(0.1, 0.0), [normal([3, 4]), normal([3, 4]), normal([4])], "temperature must be positive"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["student", "teacher", "center"],
        outputs: &["loss"],
        kernels: &[KERNELS, mean::KERNELS],
        build: Box::new(|a| {
            let student_temperature = a.number_or("student_temperature", 0.1)? as f32;
            Ok(Box::new(with(student_temperature, a.number_or("teacher_temperature", 0.04)? as f32)))
        }),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// DINO's loss of these student logits [N, D] against `teacher` [N, D] with `center` `[D]`
    /// (Caron et al. 2021): the mean over rows of `-sum softmax((teacher - center) /
    /// teacher_temperature) log softmax(student / student_temperature)`. Only the student gets a
    /// gradient.
    ///
    /// # Errors
    /// Shapes that do not fit, no rows, temperatures that are not positive; out of memory.
    pub fn dino_loss(
        &self,
        teacher: &Tensor,
        center: &Tensor,
        student_temperature: impl Into<Scalar>,
        teacher_temperature: impl Into<Scalar>,
    ) -> Result<Tensor> {
        apply_one(with(student_temperature, teacher_temperature), &[self, teacher, center])
    }
}
