//! Steps over shards: the same bits whatever number of processes shares them, and the numbers of a
//! step that sees the whole batch at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::training::{bits, data_of, methods, metrics, recipe, to_the_end, trainer};
use crate::common::group::threads;
use crate::common::teachers::teachers;
use serde_json::Value;
use wgrad::data::Dataset;
use wgrad::error::Error;
use wgrad::parallel::{Group, Shards, Sums};
use wgrad::tensor::{DType, Tensor};
use wgrad::train::estimate::run_memory;
use wgrad::train::progress::Style;
use wgrad::train::{Checkpoint, Recipe, RunDirectory, Trainer};

type Bits = BTreeMap<String, Vec<u8>>;

/// Four shards of four images.
fn sharded(method: &str) -> Recipe {
    let mut recipe = recipe(method).with(["shards=4"]).unwrap();
    recipe.data.labelled_batch *= 4;
    if method == "moco" {
        recipe.set("batch_norm_splits=2").unwrap();
    }
    recipe
}

/// What process 0 of `processes` has at the end, or at step `stop`, and has written into `folder`.
/// All have the same bits.
fn run(recipe: &Recipe, data: &Arc<Dataset>, processes: usize, folder: &Path, from: Option<&Checkpoint>, stop: Option<u64>) -> Bits {
    let mut all = std::thread::scope(|scope| {
        let one = |group: Arc<crate::common::group::Threads>| {
            scope.spawn(move || {
                let gpu = crate::common::gpu();
                let first = group.rank() == 0;
                let directory = (first && from.is_none()).then(|| RunDirectory::create(folder, recipe, &gpu).unwrap());
                let directory = directory.or_else(|| first.then(|| RunDirectory::resume(folder).unwrap().0));
                let trainer = match from {
                    None => trainer(&gpu, recipe.clone(), data),
                    Some(checkpoint) => {
                        Trainer::resume_with_teachers(&gpu, checkpoint, data.clone(), teachers(&gpu, recipe, data)).unwrap()
                    }
                };
                let mut trainer = trainer.shared_by(group).unwrap();
                // One process that stops ends all of them.
                trainer.run(directory.as_ref(), Style::Silent, &mut |position| first && stop == Some(position.step)).unwrap();
                bits(&mut trainer)
            })
        };
        let running: Vec<_> = threads(processes).into_iter().map(one).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let first = all.remove(0);
    all.iter().for_each(|other| assert_same(&format!("{} among the processes", recipe.method.name), other, &first));
    first
}

fn lines(folder: &Path) -> Vec<Value> {
    metrics(&RunDirectory::open(folder).unwrap().0)
}

fn assert_same(what: &str, found: &Bits, expected: &Bits) {
    let different: Vec<&String> = expected.keys().filter(|name| found.get(*name) != expected.get(*name)).collect();
    assert!(different.is_empty() && found.len() == expected.len(), "{what}: {different:?} differ");
}

/// Runs `recipe` alone and shared by each number of processes, to the same bits and metrics.
fn assert_shared(what: &str, recipe: &Recipe, processes: &[usize]) {
    let data = data_of(&recipe.method.name, 100);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: usize| folder.path().join(name.to_string());
    let alone = run(recipe, &data, 1, &at(1), None, None);
    for count in processes.iter().copied() {
        let found = run(recipe, &data, count, &at(count), None, None);
        assert_same(&format!("{what}, {count} processes"), &found, &alone);
        assert_eq!(lines(&at(count)), lines(&at(1)), "{what}, {count} processes");
    }
}

#[test]
fn a_runs_bits_do_not_depend_on_how_many_processes_share_it() {
    // Of each way of sharing one at length, of all methods an epoch.
    let long = ["supervised", "simclr", "moco", "dino", "supcon", "distillation", "multitask"];
    for method in methods() {
        let (epochs, shared): (u32, &[usize]) = if long.contains(&method) { (5, &[2, 4]) } else { (1, &[4]) };
        assert_shared(method, &Recipe { epochs, ..sharded(method) }, shared);
    }
}

/// Batch norm over the whole batch, also where blocks run again; f16, whose loss scale every process
/// moves; losses that are combined; masks.
#[test]
fn what_a_recipe_asks_for_is_shared_to_the_same_bits() {
    let f16 = crate::common::gpu().capabilities().f16;
    let blocks = ["sync_batch_norm=true", "checkpoint_blocks=true", "model=resnet18", "width=0.0625", "stem_stride=1", "epochs=1"];
    let cases: [(&str, &[&str]); 11] = [
        ("supervised", &["sync_batch_norm=true"]),
        ("supervised", &["mixup=0.2", "cutmix=1.0", "augmentation=torchvision_randaugment_erasing"]),
        ("simclr", &["sync_batch_norm=true"]),
        ("byol", &["sync_batch_norm=true"]),
        ("supervised", &blocks),
        ("supervised", &["precision=mixed", "init_scale=4194304"]),
        ("simclr", &["precision=mixed", "sync_batch_norm=true"]),
        ("multitask", &["weighting=gradnorm"]),
        ("multitask", &["weighting=pcgrad"]),
        ("multitask", &["weighting=dwa"]),
        ("supervised", &["model=vit_mini_patch4_28", "stem_stride=0", "drop_rate=0.3", "drop_path=0.2"]),
    ];
    for (method, settings) in cases.into_iter().filter(|(name, _)| crate::common::wanted(name)) {
        if settings.contains(&"precision=mixed") && !f16 {
            println!("{settings:?} was not run: this adapter stores no f16");
            continue;
        }
        let recipe = sharded(method).with(settings.iter().copied()).unwrap();
        assert_shared(&format!("{method} {settings:?}"), &recipe, &[2, 4]);
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_processes_to_the_same_bits() {
    let ways = [("supervised", [4, 1]), ("simclr", [1, 4]), ("moco", [2, 4]), ("swav", [4, 2]), ("nnclr", [1, 2]), ("multitask", [4, 2])];
    for (method, [before, after]) in ways {
        if !crate::common::wanted(method) {
            continue;
        }
        let data = data_of(method, 100);
        let recipe = sharded(method);
        let folder = tempfile::tempdir().unwrap();
        let (whole, path) = (folder.path().join("whole"), folder.path().join("stopped"));
        let expected = run(&recipe, &data, 1, &whole, None, None);
        run(&recipe, &data, before, &path, None, Some(7));
        let checkpoint = Checkpoint::load(&RunDirectory::open(&path).unwrap().0.last_checkpoint()).unwrap();
        assert_eq!(checkpoint.position.step, 7);
        let found = run(&recipe, &data, after, &path, Some(&checkpoint), None);
        assert_same(&format!("{method}, {before} then {after} processes"), &found, &expected);
        assert_eq!(lines(&path), lines(&whole), "{method}");
    }
}

/// Without batch norm, or with one over all shards, a shard sees nothing less than the whole batch
/// does.
#[test]
fn shards_learn_what_the_whole_batch_does() {
    let without_norm =
        ["supervised", "simclr", "supcon", "moco_v3", "dino", "barlow_twins", "vicreg", "swav", "nnclr", "distillation", "multitask"];
    let joint = ["supervised", "simclr", "moco_v3", "byol", "swav"].map(|method| (method, true));
    for (method, sync) in without_norm.map(|method| (method, false)).into_iter().chain(joint) {
        if !crate::common::wanted(method) {
            continue;
        }
        let data = data_of(method, 100);
        let sync_batch_norm = format!("sync_batch_norm={sync}");
        let model = if sync { "model=cnn_16_32_64" } else { "model=vit_mini_patch4_28" };
        let settings = [model, "stem_stride=0", "learning_rate=0.01", "optimizer=sgd", "momentum=0", "epochs=1", &sync_batch_norm];
        let heads: &[&str] = match method {
            _ if sync => &[],
            "moco_v3" => &["projector.norm=false", "projector.last_norm=none", "predictor.norm=false", "predictor.last_norm=none"],
            "dino" | "swav" => &["projector.norm=false"],
            // At first this network's embeddings of all images are nearly alike, so that a feature
            // of deviation 1 is a quotient of small numbers: the others' rate is too large for it.
            "barlow_twins" => &["projector.norm=false", "learning_rate=1e-5"],
            "vicreg" => &["projector.norm=false", "learning_rate=1e-4"],
            "nnclr" => &["projector.norm=false", "predictor.norm=false"],
            _ => &[],
        };
        let losses = |shards: &str| {
            let recipe = sharded(method).with(settings.iter().chain(heads).copied().chain([shards])).unwrap();
            let mut trainer = trainer(&crate::common::gpu(), recipe, &data);
            let folder = tempfile::tempdir().unwrap();
            let run = RunDirectory::create(&folder.path().join("run"), &trainer.recipe, &crate::common::gpu()).unwrap();
            assert!(to_the_end(&mut trainer, Some(&run)).unwrap().finished);
            metrics(&run).iter().filter_map(|line| line["loss"].as_f64()).collect::<Vec<_>>()
        };
        let (whole, shards) = (losses("shards=1"), losses("shards=4"));
        println!("{method}: {whole:?} {shards:?}");
        assert!(whole.len() == shards.len() && !whole.is_empty());
        for (a, b) in whole.iter().zip(&shards) {
            assert!((a - b).abs() < 1e-3 * a.abs(), "{method}: {whole:?} at once, {shards:?} over shards");
        }
    }
}

#[test]
fn a_step_of_eight_shards_needs_the_memory_of_one_and_gradients() {
    for method in ["supervised", "simclr"].into_iter().filter(|name| crate::common::wanted(name)) {
        let data = data_of(method, 100);
        let settings = ["model=mobilenetv1_025", "stem_stride=0", "resolution=96", "augmentation=none"];
        let needed = |batch: &str, shards: &str| {
            let recipe = recipe(method).with(settings.into_iter().chain([batch, shards])).unwrap();
            let made = |gpu: &_| Trainer::new(gpu, recipe.clone(), data.clone());
            let parameters = made(&crate::common::gpu().dry().unwrap()).unwrap().params.count();
            (run_memory(&crate::common::gpu(), made).unwrap(), 4 * parameters as u64)
        };
        let ((one, gradients), (eight, _)) = (needed("batch=8", "shards=1"), needed("batch=64", "shards=8"));
        println!("{method}: {} of one shard, {gradients} of gradients, {} of eight shards", one.peak, eight.peak);
        assert!(eight.peak as f64 <= 1.1 * (one.peak + gradients) as f64, "{method}: {one:?}, {gradients}, {eight:?}");
    }
}

#[test]
fn a_sum_travels_while_the_step_goes_on() {
    let mut group = threads(2);
    let (theirs, own) = (group.pop().unwrap(), group.pop().unwrap());
    let gpu = crate::common::gpu();
    let on = |values: &[f32]| Tensor::from_slice(&gpu, values, [values.len()]).unwrap();
    let bytes = |values: &[f32]| bytemuck::cast_slice::<f32, u8>(values).to_vec();
    let shards = Shards::new(4, own).unwrap();
    let mut sums = Sums::new(&shards);
    sums.push(&on(&[1.0, 2.0])).unwrap();
    sums.push(&on(&[8.0])).unwrap();
    sums.end_shard();
    sums.push(&on(&[10.0, 20.0])).unwrap();
    // The last shard has not given its second tensor yet.
    assert_eq!(theirs.exchange(0, &bytes(&[100.0, 200.0])).unwrap(), bytes(&[11.0, 22.0]));
    sums.push(&on(&[1.0])).unwrap();
    assert_eq!((sums.given(), theirs.exchange(0, &bytes(&[0.5])).unwrap()), (2, bytes(&[9.0])));
    let all: Vec<Vec<f32>> = sums.finish().unwrap().iter().map(|sum| sum.to_vec().unwrap()).collect();
    assert_eq!(all, [vec![111.0, 222.0], vec![9.5]]);

    // What a process cannot have sent, and one that is gone, are errors.
    let mut sums = Sums::new(&shards);
    for _ in 0..2 {
        sums.push(&on(&[1.0])).unwrap();
        sums.end_shard();
    }
    assert!(sums.push(&on(&[1.0])).is_err());
    theirs.exchange(0, &bytes(&[1.0, 2.0])).unwrap();
    assert!(sums.finish().unwrap_err().to_string().contains("8 bytes came, 4 were expected"));
    drop(theirs);
    let mut sums = Sums::new(&shards);
    for _ in 0..2 {
        sums.push(&on(&[1.0])).unwrap();
        sums.end_shard();
    }
    assert!(matches!(sums.finish().unwrap_err(), Error::Parallel { rank: 1, .. }));
    assert!(Sums::new(&shards).push(&Tensor::full(&gpu, [1], 1.0, DType::I32).unwrap()).is_err());
}
