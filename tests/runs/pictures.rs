//! Runs on pictures of many sizes that stay on disk: how they are read decides nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::training::{bits, recipe, trainer};
use crate::common::gpu;
use image::{Rgb, RgbImage};
use wgrad::data::{Dataset, Split, pack};
use wgrad::train::progress::Style;
use wgrad::train::{Checkpoint, Recipe, RunDirectory, Trainer};

/// 24 pictures of 3 classes to learn from and 6 to measure on; their short sides are not longer than
/// what is kept at a resolution of 12 pixels.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (split, count) in [("train", 8), ("test", 2)] {
        for (class, name) in ["a", "b", "c"].into_iter().enumerate() {
            for i in 0..count {
                let (width, height) = (8 + (i * 5 + class as u32) % 11, 18 - (i * 3) % 9);
                let path = folder.path().join(split).join(name).join(format!("{i}.png"));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let pixel = |x: u32, y: u32| Rgb([(x * 9) as u8, (y * 7 + i) as u8, 80 * class as u8]);
                RgbImage::from_fn(width, height, pixel).save(path).unwrap();
            }
        }
    }
    folder
}

/// A recipe whose crops are random boxes of whole pictures, or squares from their centres.
fn of_pictures(path: &Path, augmentation: &str, settings: &[&str]) -> Recipe {
    let all = ["data.resolution=12", "batch=8", "epochs=3", "precision=f32"].into_iter().chain(settings.iter().copied());
    let mut recipe = recipe("supervised").with(all.chain([format!("augmentation={augmentation}").as_str()])).unwrap();
    recipe.data.path = path.into();
    recipe
}

fn opened(recipe: &Recipe) -> Arc<Dataset> {
    Arc::new(recipe.open(Split::Train).unwrap())
}

/// What a run leaves, but for what it was told of where and how its pictures lie.
fn trained(recipe: &Recipe) -> BTreeMap<String, Vec<u8>> {
    let mut trainer = trainer(&gpu(), recipe.clone(), &opened(recipe));
    trainer.run(None, Style::Silent, &mut |_| false).unwrap();
    let mut bits = bits(&mut trainer);
    for key in ["text recipe", "text data", "text wgrad_checksum"] {
        bits.remove(key);
    }
    bits
}

#[test]
fn threads_memory_and_packing_change_no_bit() {
    let folder = folder();
    for augmentation in ["moco_cifar", "supervised"] {
        let expected = trained(&of_pictures(folder.path(), augmentation, &["data.workers=1", "data.memory_mib=0"]));
        for settings in [["data.workers=2", "data.memory_mib=0"], ["data.workers=8", "data.memory_mib=64"]] {
            assert!(trained(&of_pictures(folder.path(), augmentation, &settings)) == expected, "{augmentation} {settings:?}");
        }
        let packed = folder.path().join("packed.safetensors");
        let recipe = of_pictures(folder.path(), augmentation, &[]);
        let splits = [Split::Train, Split::Test].map(|split| recipe.open(split).unwrap());
        pack([&splits[0], &splits[1]], &packed, |_| ()).unwrap();
        assert!(trained(&of_pictures(&packed, augmentation, &["data.workers=2"])) == expected, "{augmentation}, packed");
    }
    let [crops, squares] = ["moco_cifar", "supervised"].map(|name| trained(&of_pictures(folder.path(), name, &[])));
    assert!(crops != squares);
}

#[test]
fn a_stopped_run_goes_on_with_other_threads_to_the_same_bits() {
    let (folder, runs) = (folder(), tempfile::tempdir().unwrap());
    let recipe = of_pictures(folder.path(), "moco_cifar", &["data.workers=2"]);
    let expected = trained(&recipe);
    let directory = RunDirectory::create(&runs.path().join("stopped"), &recipe, &gpu()).unwrap();
    let mut stopped = trainer(&gpu(), recipe.clone(), &opened(&recipe));
    assert!(!stopped.run(Some(&directory), Style::Silent, &mut |position| position.step == 4).unwrap().finished);
    let checkpoint = Checkpoint::load(&directory.last_checkpoint()).unwrap();
    let other = opened(&of_pictures(folder.path(), "moco_cifar", &["data.workers=1", "data.memory_mib=0"]));
    let mut resumed = Trainer::resume(&gpu(), &checkpoint, other).unwrap();
    resumed.run(None, Style::Silent, &mut |_| false).unwrap();
    let mut found = bits(&mut resumed);
    found.retain(|key, _| expected.contains_key(key));
    assert!(found == expected);
    // Another picture is another data set.
    std::fs::copy(folder.path().join("train/a/0.png"), folder.path().join("train/a/1.png")).unwrap();
    let error = Trainer::resume(&gpu(), &checkpoint, opened(&recipe)).map(drop).unwrap_err().to_string();
    assert!(error.contains("pixels ("), "{error}");
}

#[test]
fn a_picture_that_cannot_be_read_ends_the_run_with_its_name() {
    let folder = folder();
    std::fs::write(folder.path().join("train/b/3.png"), "no picture").unwrap();
    for augmentation in ["moco_cifar", "supervised"] {
        let recipe = of_pictures(folder.path(), augmentation, &["data.normalize=imagenet"]);
        let mut run = trainer(&gpu(), recipe.clone(), &opened(&recipe));
        let error = run.run(None, Style::Silent, &mut |_| false).map(drop).unwrap_err().to_string();
        assert!(error.contains("3.png"), "{error}");
        let skipped = recipe.with(["data.skip_bad=true"]).unwrap();
        assert_eq!(opened(&skipped).len(), 23);
        assert!(trainer(&gpu(), skipped.clone(), &opened(&skipped)).run(None, Style::Silent, &mut |_| false).unwrap().finished);
    }
}
