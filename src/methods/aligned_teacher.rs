//! What methods with one teacher share.

use std::sync::Arc;

use super::{Batch, HIDDEN, MethodContext, Teacher};
use crate::error::{Error, Result};
use crate::ops::loss::cross_entropy::CrossEntropyFuncOptions;
use crate::tensor::Tensor;

/// The scope of the layer that turns the student's features into the teacher's space.
pub(super) const REGRESSOR: &str = "regressor";

/// The only teacher of `method`.
///
/// # Errors
/// [`Error::Argument`] where there is none, or more.
pub(super) fn only_teacher(method: &str, context: &MethodContext) -> Result<Arc<Teacher>> {
    match context.teachers.as_slice() {
        [teacher] => Ok(teacher.clone()),
        others => {
            let message = format!("it learns from one teacher, {} were given: set `teachers` to a finished run's directory", others.len());
            Err(Error::argument(method, message))
        }
    }
}

/// A teacher that knows all of the student's classes.
pub(super) struct AlignedTeacher {
    teacher: Arc<Teacher>,
    /// The teacher's place of each of the student's classes, i32 `[C]`; none where they stand in
    /// the same order.
    order: Option<Tensor>,
}

impl AlignedTeacher {
    /// The only teacher of `method`.
    ///
    /// # Errors
    /// As [`only_teacher`]; [`Error::Argument`] where it does not know every class, or has no
    /// classifier.
    pub fn new(method: &str, context: &MethodContext) -> Result<Self> {
        let teacher = only_teacher(method, context)?;
        let place = |class| {
            teacher.classes().iter().position(|own| *own == class).map(|place| place as i32).ok_or_else(|| {
                let knows = if teacher.classes().is_empty() { "has no classifier" } else { "does not know every class" };
                Error::argument(method, format!("teacher {} {knows}: class {class} is missing", teacher.name()))
            })
        };
        let places = (0..context.classes).map(place).collect::<Result<Vec<i32>>>()?;
        let same = places.len() == teacher.classes().len() && places.iter().zip(0..).all(|(place, class)| *place == class);
        let order = if same { None } else { Some(Tensor::from_slice(teacher.parameters().gpu(), &places, [places.len()])?) };
        Ok(Self { teacher, order })
    }

    /// Its logits `[N, C]` of `images`, in the student's order of classes.
    ///
    /// # Errors
    /// Those of its operators.
    pub fn logits(&self, images: &Tensor, batch: &Batch) -> Result<Tensor> {
        let logits = self.teacher.logits(images, &batch.indices)?;
        self.order.as_ref().map_or(Ok(logits.clone()), |order| logits.index_select(1, order))
    }
}

/// Cross entropy with the labels that are known: the mean over these, 0 where there are none.
///
/// # Errors
/// Those of the operator.
pub(super) fn known_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    logits.cross_entropy_with(labels, &CrossEntropyFuncOptions { ignore_index: Some(HIDDEN), ..Default::default() })
}
