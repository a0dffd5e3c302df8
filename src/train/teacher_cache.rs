//! What a teacher says of a whole data set, said once: where every epoch shows the same images, its
//! logits are computed before the first and kept beside it, so that an epoch of distillation costs
//! no more than a plain one.

use std::path::Path;
use std::sync::Arc;

use super::recipe::Recipe;
use crate::data::{Dataset, Loader, PackedBatch};
use crate::error::{Result, require_finite_rows};
use crate::gpu::{Precision, fnv};
use crate::io::{Archive, HostTensor};
use crate::methods::Teacher;
use crate::tensor::{DType, Tensor};

/// Images at once.
const BATCH: usize = 250;

/// `teacher` with its logits for all of `dataset`, where it has a classifier and the recipe shows
/// every image as it is. They are read from `TEACHER/cache` where they are there, else computed and
/// written; a folder that cannot be written is only logged.
///
/// # Errors
/// Those of its operators; out of memory; logits that are not finite.
pub(super) fn cached(teacher: Teacher, recipe: &Recipe, dataset: &Arc<Dataset>) -> Result<Teacher> {
    let gpu = teacher.parameters().gpu();
    let same = recipe.augmentation.views.names(1)?.iter().all(|name| *name == "none");
    if !same || gpu.is_dry() || teacher.classes().is_empty() {
        return Ok(teacher);
    }
    let shape = [dataset.len(), teacher.classes().len()];
    let preprocessing = recipe.preprocessing("none", recipe.seed, dataset)?;
    let mut text =
        format!("{} {:08x} {shape:?} {preprocessing:?} {:?}", teacher.hash()?, dataset.fingerprint(), teacher.renormalization()?);
    if gpu.precision() != Precision::F32 {
        text += &format!(" {}", gpu.precision());
    }
    let path = Path::new(teacher.name()).join("cache").join(format!("{:016x}.safetensors", fnv(text.as_bytes())));
    let kept = Archive::load(&path).ok().and_then(|mut archive| archive.tensors.remove("logits"));
    if let Some(HostTensor::F32(found, logits)) = kept
        && *found == shape
        && logits.iter().all(|v| v.is_finite())
    {
        log::info!("teacher {}: its logits are read from {}", teacher.name(), path.display());
        let logits = Tensor::from_slice(gpu, &logits, shape)?;
        return teacher.cached(logits);
    }
    let mut pending = Vec::new();
    for batch in Loader::evaluation(dataset.clone(), BATCH)?.epoch(0) {
        let batch = PackedBatch::upload(gpu, &batch?)?.unpack()?;
        pending.push(teacher.logits(&preprocessing.apply(&batch, 0, 0)?, &batch.indices)?.cast(DType::F32)?.read_later()?);
    }
    let mut logits: Vec<f32> = Vec::with_capacity(shape.iter().product());
    for read in pending {
        logits.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&read.wait()?));
    }
    require_finite_rows(&format!("logits of teacher {}", teacher.name()), &logits, teacher.classes().len())?;
    let on_device = Tensor::from_slice(gpu, &logits, shape)?;
    let mut archive = Archive::default();
    archive.insert("logits", HostTensor::F32(shape.into(), logits));
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = written.map_err(|e| crate::error::Error::io(&path, &e)).and_then(|()| archive.save(&path)) {
        log::warn!("teacher {}: its logits are computed again next time: {error}", teacher.name());
    }
    teacher.cached(on_device)
}
