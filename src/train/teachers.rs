//! The finished runs that a run learns from.

use std::path::Path;
use std::sync::Arc;

use super::loaded_run::LoadedRun;
use super::methods::find;
use super::recipe::Recipe;
use super::teacher_cache::cached;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::methods::Teacher;
use crate::tensor::InputShape;

/// The networks of the recipe's teachers, to learn from images of `dataset`: with their logits of
/// all of these where no epoch shows others.
///
/// # Errors
/// As [`networks`].
pub fn teachers(gpu: &Gpu, recipe: &Recipe, dataset: &Arc<Dataset>) -> Result<Vec<Arc<Teacher>>> {
    let logits = find(&recipe.method.name)?.teacher_logits;
    let ready = |teacher| if logits { cached(teacher, recipe, dataset) } else { Ok(teacher) };
    networks(gpu, recipe, dataset)?.into_iter().map(|teacher| ready(teacher).map(Arc::new)).collect()
}

/// The networks of the recipe's teachers, for any images like those of `dataset`, as the recipe's
/// own network sees them.
///
/// # Errors
/// A run that is not there or not finished; one for other images; a class of a teacher's that
/// `dataset` does not have.
pub fn networks(gpu: &Gpu, recipe: &Recipe, dataset: &Dataset) -> Result<Vec<Teacher>> {
    recipe.teachers.iter().map(|run| teacher(gpu, run, recipe, dataset)).collect()
}

fn teacher(gpu: &Gpu, run: &Path, recipe: &Recipe, dataset: &Dataset) -> Result<Teacher> {
    let (opened, name) = (LoadedRun::open(gpu, run, None), run.display().to_string());
    let wrong = |e: Error| Error::argument(format!("teacher {name}"), format!("{e}; set `teachers` to finished runs' directories"));
    let LoadedRun { recipe: own, network, train, params } = opened.map_err(wrong)?;
    let (sees, given) = (own.input(&train), recipe.input(dataset));
    if sees != given {
        let message = format!("it was made for {sees}, this run has {given}");
        return Err(Error::argument(format!("teacher {name}"), message));
    }
    // Statistics of a grey image are those of its colours, too; texts have none.
    let channels = if let InputShape::Image([.., channels]) = given { channels } else { 0 };
    let classes = if network.classifier().is_some() {
        train.class_names().iter().map(|class| dataset.class(class)).collect::<Result<_>>()?
    } else {
        Vec::new()
    };
    let teacher = Teacher::new(&name, params, network, classes);
    let (own, given) = (own.statistics(&train)?, recipe.statistics(dataset)?);
    if own == given {
        return Ok(teacher);
    }
    // (x * given.std + given.mean - own.mean) / own.std, where grey images have one channel, and
    // statistics of three.
    let of = |f: fn([f32; 4]) -> f32| -> Vec<f32> {
        let pairs = given.std.iter().zip(&own.std).zip(given.mean.iter().zip(&own.mean)).take(channels);
        pairs.map(|((given_std, own_std), (given_mean, own_mean))| f([*given_std, *own_std, *given_mean, *own_mean])).collect()
    };
    teacher.renormalized(&of(|[given, own, ..]| given / own), &of(|[_, own, given_mean, own_mean]| (given_mean - own_mean) / own))
}
