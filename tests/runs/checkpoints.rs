//! Checkpoints and run directories: what is damaged, foreign or mixed up is refused by name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::common::files;
use crate::common::tiny::dataset;
use serde_json::Value;
use wgrad::data::Dataset;
use wgrad::error::Error;
use wgrad::gpu::{Gpu, GpuOptions, Tuning};
use wgrad::io::{Archive, HostTensor};
use wgrad::train::progress::Style;
use wgrad::train::{Checkpoint, Recipe, RunDirectory, Trainer};

/// 6 steps an epoch of `dataset(100)`, with an average of the weights.
fn recipe() -> Recipe {
    let settings = ["model=cnn_16_32_64", "augmentation=grey_simclr", "batch=16", "epochs=3", "ema=0.9"];
    Recipe::defaults("supervised").with(settings).unwrap()
}

/// A checkpoint file after 5 steps.
fn checkpoint_file(folder: &Path) -> std::path::PathBuf {
    let mut trainer = Trainer::new(&crate::common::gpu(), recipe(), dataset(100)).unwrap();
    trainer.run(None, Style::Silent, &mut |position| position.step == 5).unwrap();
    let path = folder.join("last.safetensors");
    trainer.checkpoint().unwrap().save(&path).unwrap();
    path
}

fn damaged(path: &Path, words: &str) {
    match Checkpoint::load(path) {
        Err(Error::Data { source_name, message }) => {
            assert_eq!(source_name, path.display().to_string());
            assert!(message.contains(words), "{message}");
        }
        other => panic!("expected an error with \"{words}\", found {other:?}"),
    }
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint_file(folder.path());
    let whole = fs::read(&path).unwrap();
    // The same run is the same file.
    let again = tempfile::tempdir().unwrap();
    assert_eq!(fs::read(checkpoint_file(again.path())).unwrap(), whole);
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in (0..header).step_by(61).chain((header..whole.len()).step_by(9973)).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        damaged(&path, "no complete safetensors file");
    }
    // A flipped bit is noticed wherever it is: in the header, in a text, in a number.
    for bit in (0..header * 8).step_by(97).chain((header * 8..whole.len() * 8).step_by(20_011)) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        damaged(&path, "");
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    damaged(&path, "no complete safetensors file");
    fs::write(&path, "not a checkpoint").unwrap();
    damaged(&path, "");
    let mut weights = Archive::default();
    weights.insert("conv1.bias", HostTensor::F32([1].into(), vec![0.0]));
    weights.save(&path).unwrap();
    damaged(&path, "is no checkpoint of format 2");
    let missing = Checkpoint::load(&folder.path().join("missing")).unwrap_err();
    assert!(matches!(&missing, Error::Io { path, .. } if path.ends_with("missing")), "{missing}");

    for (key, value, words) in [
        ("format", "wgrad checkpoint 999", "format is \"wgrad checkpoint 999\""),
        ("step", "five", "\"step\" is \"five\", expected a number"),
        ("recipe", "batch = 1\nbatsch = 2", "batsch"),
    ] {
        fs::write(&path, &whole).unwrap();
        let mut archive = Archive::load(&path).unwrap();
        archive.text.insert(key.into(), value.into());
        archive.save(&path).unwrap();
        damaged(&path, words);
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_names_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint_file(folder.path());
    let whole = Archive::load(&path).unwrap();
    let data = dataset(100);
    let refused = |archive: Archive, words: &[&str]| {
        archive.save(&path).unwrap();
        let error = Trainer::resume(&crate::common::gpu(), &Checkpoint::load(&path).unwrap(), data.clone()).map(|_| ()).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Data { .. }) && message.contains("last.safetensors"), "{message}");
        words.iter().for_each(|word| assert!(message.contains(word), "{message}"));
    };
    let mut other = whole.clone();
    other.text.insert("recipe".into(), recipe().with(["model=cnn_32_64_128"]).unwrap().to_toml().unwrap());
    refused(other, &["conv1.weight", "[16, 1, 3, 3]", "[32, 1, 3, 3]"]);
    for (name, named) in [
        ("model.bn2.running_var", "bn2.running_var"),
        ("ema.conv1.weight", "conv1.weight"),
        ("optimizer.momentum_buffer.0", "r.momentum_buffer.0"),
    ] {
        let mut other = whole.clone();
        let Some(HostTensor::F32(_, data)) = other.tensors.get_mut(name) else { panic!("{name}") };
        data[0] = f32::NEG_INFINITY;
        refused(other, &["1 tensor holds NaN or infinity", &format!("{named}\" (1 of ")]);
    }
    for name in ["model.bn2.running_var", "ema.conv1.weight", "optimizer.momentum_buffer.0"] {
        let mut lacking = whole.clone();
        lacking.tensors.remove(name).unwrap();
        refused(lacking, &[name]);
    }
    let mut more = whole.clone();
    more.insert("model.conv9.weight", HostTensor::F32([1].into(), vec![0.0]));
    refused(more, &["model.conv9.weight"]);
}

/// What a run kept of its recipe before recipes had a version is read in its place, beside it and
/// in its checkpoint.
#[test]
fn a_run_of_version_1_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, gpu) = (folder.path().join("run"), crate::common::gpu());
    let run = RunDirectory::create(&path, &recipe(), &gpu).unwrap();
    let mut trainer = Trainer::new(&gpu, recipe(), dataset(100)).unwrap();
    trainer.run(Some(&run), Style::Silent, &mut |position| position.step == 5).unwrap();
    drop(run);
    let old = "method = \"supervised\"\nmodel = \"cnn_16_32_64\"\naugmentation = \"grey_simclr\"\nbatch = 16\nepochs = 3\nema = 0.9\n\
               classes = \"\"\ntasks = \"\"\nteachers = \"\"\nmomentum = 0.9\nwarm_up_epochs = 0.0\n\n[options]\nlabel_smoothing = 0.1\n";
    fs::write(path.join("recipe.toml"), old).unwrap();
    let file = path.join("checkpoints/last.safetensors");
    let mut archive = Archive::load(&file).unwrap();
    archive.text.insert("recipe".into(), old.into());
    archive.save(&file).unwrap();
    let (run, found) = RunDirectory::resume(&path).unwrap();
    let mut checkpoint = run.newest_checkpoint().unwrap().0.unwrap();
    checkpoint.follow(&found, &run.recipe_path()).unwrap();
    assert_eq!((&found, &checkpoint.recipe), (&recipe(), &recipe()));
    let mut rest = Trainer::resume(&gpu, &checkpoint, dataset(100)).unwrap();
    assert!(rest.run(Some(&run), Style::Silent, &mut |_| false).unwrap().finished);
}

#[test]
fn a_damaged_checkpoint_leaves_the_one_before_it() {
    let gpu = crate::common::gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = RunDirectory::create(&path, &recipe(), &gpu).unwrap();
    assert_eq!(run.newest_checkpoint().unwrap(), (None, vec![]));
    let mut trainer = Trainer::new(&gpu, Recipe { checkpoint_every: 2, ..recipe() }, dataset(100)).unwrap();
    trainer.run(Some(&run), Style::Silent, &mut |position| position.step == 5).unwrap();
    let step = |run: &RunDirectory| {
        let (checkpoint, notes) = run.newest_checkpoint().unwrap();
        (checkpoint.unwrap().position.step, notes.join(" "))
    };
    assert_eq!(step(&run), (5, String::new()));
    let flip = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(file, bytes).unwrap();
    };
    let (last, previous) = (run.last_checkpoint(), run.previous_checkpoint());
    let good = fs::read(&previous).unwrap();
    flip(&last);
    let (found, notes) = step(&run);
    assert!(found == 4 && notes.contains("last.safetensors") && notes.contains("checksum") && notes.contains("of step 4"), "{notes}");
    // What is damaged does not take the place of what is good.
    let (checkpoint, _) = run.newest_checkpoint().unwrap();
    run.keep_checkpoint(&checkpoint.unwrap()).unwrap();
    assert_eq!((fs::read(&last).unwrap(), fs::read(&previous).unwrap()), (good.clone(), good.clone()));
    fs::remove_file(&last).unwrap();
    let (found, notes) = step(&run);
    assert!(found == 4 && notes.contains("is not there"), "{notes}");
    fs::write(&last, &good[..good.len() - 1]).unwrap();
    flip(&previous);
    let message = run.newest_checkpoint().unwrap_err().to_string();
    assert!(message.contains("last.safetensors") && message.contains("no complete safetensors file"), "{message}");

    // One of an earlier version, without a checksum, is gone on from, and that is said.
    fs::write(&last, &good).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&good).unwrap();
    let mut texts = header.metadata().clone().unwrap();
    assert!(texts.remove("wgrad_checksum").is_some());
    let tensors = safetensors::SafeTensors::deserialize(&good).unwrap();
    fs::write(&last, safetensors::serialize(tensors.tensors(), Some(texts)).unwrap()).unwrap();
    let (found, notes) = step(&run);
    assert!(found == 4 && notes.contains("no checksum"), "{notes}");
}

#[test]
fn a_run_goes_on_with_its_own_data_and_recipe_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint_file(folder.path());
    let whole = dataset(100);
    let names: Vec<String> = whole.class_names().iter().map(|name| format!("new {name}")).collect();
    let size = whole.image_size().unwrap();
    let data = |pixels: &[u8], labels: &[i32], names: &[String]| {
        Arc::new(Dataset::new("tiny", size, pixels.to_vec(), labels.to_vec(), names.to_vec()).unwrap())
    };
    let (mut pixels, mut labels) = (whole.samples().unwrap().bytes().to_vec(), whole.labels().to_vec());
    pixels[70] ^= 1;
    labels.swap(0, 1);
    for (other, words) in [
        (dataset(101), "images (100 then, 101 now)"),
        (data(whole.samples().unwrap().bytes(), whole.labels(), &names), "names of classes ("),
        (data(&pixels, whole.labels(), whole.class_names()), "pixels ("),
        (data(whole.samples().unwrap().bytes(), &labels, whole.class_names()), "labels ("),
    ] {
        let error = Trainer::resume(&crate::common::gpu(), &Checkpoint::load(&path).unwrap(), other).map(|_| ()).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Data { .. }) && message.contains(words) && message.contains("bring them back"), "{message}");
    }

    let mut checkpoint = Checkpoint::load(&path).unwrap();
    let file = Path::new("run/recipe.toml");
    let edited = recipe().with(["learning_rate=0.5", "epochs=4"]).unwrap();
    let message = checkpoint.follow(&edited, file).unwrap_err().to_string();
    for words in ["run/recipe.toml", "epochs was 3, now it is 4", "optimizer.learning_rate was 0.2", "now it is 0.5"] {
        assert!(message.contains(words), "{message}");
    }
    let mut option = recipe();
    option.set("label_smoothing=0.25").unwrap();
    assert!(checkpoint.follow(&option, file).unwrap_err().to_string().contains("method.label_smoothing"));
    // Where things lie and how often they are written may change.
    let moved = recipe().with(["data=elsewhere", "checkpoint_every=7"]).unwrap();
    checkpoint.follow(&moved, file).unwrap();
    assert_eq!(checkpoint.recipe, moved);
}

#[test]
fn run_directories_are_not_mixed_up() {
    let gpu = crate::common::gpu();
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe();
    let path = folder.path().join("run");
    let run = RunDirectory::create(&path, &recipe, &gpu).unwrap();
    assert_eq!(RunDirectory::open(&path).unwrap().1, recipe);
    let environment: Value = serde_json::from_slice(&fs::read(path.join("environment.json")).unwrap()).unwrap();
    assert_eq!(environment["adapter"], gpu.capabilities().name.as_str());
    assert_eq!(environment["driver"], gpu.capabilities().driver.as_str());
    assert_eq!(environment["wgrad"], env!("CARGO_PKG_VERSION"));
    assert!(environment["tuning_table"].as_str().unwrap_or("none") == gpu.tuning_hash() && environment["command"].is_string());

    // What a killed process leaves: a torn line, metrics of steps that will come again, a
    // half-written file.
    let lines = "{\"step\":20}\n{\"step\":40}\n{\"step\":60}\n{\"st";
    fs::write(path.join("metrics.jsonl"), lines).unwrap();
    fs::write(path.join("checkpoints/.last.safetensors.17.partial"), "x").unwrap();
    run.rewind(40).unwrap();
    assert_eq!(fs::read_to_string(path.join("metrics.jsonl")).unwrap(), "{\"step\":20}\n{\"step\":40}\n");
    assert_eq!(files(&path), [".holder.json", "environment.json", "metrics.jsonl", "recipe.toml"]);

    // Where a run goes on with another table, it says from which step its bits differ.
    let tuning = Some(Arc::new(Tuning::random(1)));
    let other = Gpu::with(GpuOptions { tuning, ..crate::common::options() }).unwrap();
    let mut trainer = Trainer::new(&gpu, recipe.clone(), dataset(100)).unwrap();
    let checkpoint = trainer.checkpoint().unwrap();
    assert_eq!(checkpoint.difference(&gpu), None);
    let difference = checkpoint.difference(&other).unwrap();
    assert!(difference.contains("tuning table") && difference.contains(&other.tuning_hash()), "{difference}");
    let web = Gpu::with(GpuOptions { webgpu_limits: true, largest_binding_bytes: Some(1 << 20), ..crate::common::options() }).unwrap();
    let difference_of_limits = checkpoint.difference(&web).unwrap();
    assert!(difference_of_limits.contains("its limits was \"") && !difference_of_limits.contains("tuning"), "{difference_of_limits}");
    run.enter_resumption(40, &other, Some(&difference)).unwrap();
    run.enter_resumption(60, &gpu, None).unwrap();
    let environment: Value = serde_json::from_slice(&fs::read(path.join("environment.json")).unwrap()).unwrap();
    let resumed = &environment["resumed"];
    assert!(resumed[0]["step"] == 40 && resumed[0]["difference"] == difference.as_str() && resumed[1]["difference"].is_null());
    assert_eq!(resumed[0]["environment"]["tuning_table"], other.tuning_hash());

    fs::write(run.last_checkpoint(), "x").unwrap();
    for error in [RunDirectory::create(&path, &recipe, &gpu).unwrap_err(), RunDirectory::resume(&path).unwrap_err()] {
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains("another process"), "{error}");
    }
    drop(run);
    assert_eq!(RunDirectory::resume(&path).unwrap().1, recipe);
    let error = RunDirectory::create(&path, &recipe, &gpu).unwrap_err();
    assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains("--resume"), "{error}");
    assert!(matches!(RunDirectory::open(&folder.path().join("none")), Err(Error::Io { .. })));
    assert!(RunDirectory::open(&path.join("checkpoints")).unwrap_err().to_string().contains("holds no run"));
    let below_a_file = path.join("recipe.toml/run");
    assert!(matches!(RunDirectory::create(&below_a_file, &recipe, &gpu), Err(Error::Io { .. })));
}
