//! How well each head of a run of several tasks does.

use std::path::Path;
use std::sync::Arc;

use super::outputs::{Evaluation, outputs};
use crate::data::{Augmentation, Dataset, Task};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::Archive;
use crate::nn::{Linear, Mode, Module, state_dict};
use crate::tensor::{DType, Tensor};
use crate::train::loaded_run::LoadedRun;
use crate::train::run::RunDirectory;

/// The heads of the tasks that the run in the directory `run`, which is `finished`, has learnt
/// beside its classes; made in its parameters.
///
/// # Errors
/// Files that do not fit.
pub fn heads(run: &Path, finished: &LoadedRun) -> Result<Vec<(Task, Linear)>> {
    let LoadedRun { recipe, network, train, params } = finished;
    let (run, _) = RunDirectory::open(run)?;
    let mut archive = Archive::load(&run.weights())?;
    let (features, mut heads) = (network.backbone().features(), Vec::new());
    for task in train.tasks(&recipe.data.tasks)? {
        if archive.tensors.contains_key(&format!("{}.weight", task.name)) {
            let linear = Linear::new(params, &task.name, features, task.classes.len())?;
            heads.push((task, linear));
        }
    }
    let own = state_dict::to_archive(params)?.tensors;
    archive.tensors.retain(|name, _| own.contains_key(name));
    state_dict::fill(params, &archive, &run.weights().display().to_string(), &[])?;
    Ok(heads)
}

/// Judges each of `heads` on the images of `test` whose label in its task is known.
///
/// # Errors
/// Those of the network and of the data.
pub fn evaluate_heads(
    gpu: &Gpu,
    (finished, heads): (&LoadedRun, &[(Task, Linear)]),
    test: &Arc<Dataset>,
    preprocessing: &Augmentation,
) -> Result<Vec<(Task, Evaluation)>> {
    let known = test.tasks(&finished.recipe.data.tasks)?;
    let heads: Vec<_> = heads.iter().filter_map(|(task, head)| Some((known.iter().find(|k| k.name == task.name)?, head))).collect();
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let backbone = finished.network.backbone();
    let features = outputs(gpu, backbone, test, preprocessing, 0)?;
    let features = Tensor::from_slice(gpu, &features, [test.len(), backbone.features()])?;
    let judge = |(task, head): (&Task, &Linear)| {
        let mut found = Evaluation::new(task.classes.len());
        found.add(&head.forward(&features, Mode::Eval)?.cast(DType::F32)?.to_vec::<f32>()?, &task.labels)?;
        Ok((task.clone(), found))
    };
    heads.into_iter().map(judge).collect()
}
