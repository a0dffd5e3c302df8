//! The recipes that come with wgrad: each is read, names what exists, and fits the device that it
//! is for.

use crate::common::program::text;
use crate::common::{black::black, teachers};
use std::fs;
use std::path::{Path, PathBuf};

use wgrad::gpu::{Gpu, GpuOptions};
use wgrad::train::estimate::run_memory;
use wgrad::train::methods::METHODS;
use wgrad::train::recipe::present_form;
use wgrad::train::{Recipe, Trainer};

fn recipes(folder: &str) -> Vec<(PathBuf, Recipe)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), Recipe::read(&path).unwrap_or_else(|e| panic!("{e}")))).collect()
}

/// Every method has a recipe of each size.
fn fit(folder: &str, size: [usize; 3], gibibytes: f64) {
    let found = recipes(folder);
    for method in METHODS.iter().filter(|entry| !entry.recipe.is_empty()).map(|entry| entry.name) {
        assert!(found.iter().any(|(_, recipe)| recipe.method.name == method), "recipes/{folder} has none of {method}");
    }
    each_fits(found, size, gibibytes);
}

/// A step of each, with teachers as large as itself, takes no more memory than its device has.
fn each_fits(found: Vec<(PathBuf, Recipe)>, size: [usize; 3], gibibytes: f64) {
    let gpu = Gpu::with(GpuOptions { memory_budget_bytes: None, ..crate::common::options() }).unwrap();
    for (path, recipe) in found {
        recipe.check().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // Half of a batch have labels, where not all have, and no class is cut short: what the
        // recipe says of either would take many images, and no more memory of the device.
        let mut recipe = recipe;
        recipe.data.labels_per_class = recipe.data.labels_per_class.min(recipe.batch / 20);
        recipe.data.per_class = 0;
        let data = black(&recipe, size, 2 * recipe.batch);
        let memory =
            run_memory(&gpu, |gpu| Trainer::with_teachers(gpu, recipe.clone(), data.clone(), teachers::teachers(gpu, &recipe, &data)));
        let held = memory.unwrap_or_else(|e| panic!("{}: {e}", path.display())).held as f64 / (1u64 << 30) as f64;
        println!("{}: {held:.1} GiB", path.display());
        assert!(held < gibibytes, "{}: {held:.1} GiB", path.display());
    }
}

/// The recipes as they were before they had a version, of which none is lost.
#[test]
fn recipes_of_version_1_are_what_they_are_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let old: toml::Table = fs::read_to_string(folder.join("tests/runs/version1.toml")).unwrap().parse().unwrap();
    assert!(old.len() > 90, "{}", old.len());
    for (file, text) in old {
        let text = text.as_str().unwrap();
        let was = Recipe::parse(text, &file).unwrap_or_else(|e| panic!("{e}"));
        // What a run kept has every key.
        let new = match file.strip_prefix("runs/") {
            Some(method) => Recipe::defaults(method),
            None => Recipe::read(&folder.join(&file)).unwrap_or_else(|e| panic!("{e}")),
        };
        assert_eq!(was.to_toml().unwrap(), new.to_toml().unwrap(), "{file}");
        assert_eq!(was, new, "{file}");
        let printed = present_form(text, &file).unwrap();
        assert_eq!(Recipe::parse(&printed, &file).unwrap(), new, "{printed}");
    }
}

#[test]
fn recipes_for_two_cores_fit() {
    fit("", [28, 28, 1], 1.0);
}

#[test]
fn recipes_for_a_consumer_gpu_fit() {
    fit("gpu", [32, 32, 3], 11.0);
}

#[test]
fn recipes_for_a_data_centre_gpu_fit() {
    fit("datacentre", [224, 224, 3], 79.0);
}

#[test]
fn recipes_with_published_figures_fit_a_consumer_gpu() {
    let (cifar, imagenette) = recipes("published").into_iter().partition(|(path, _)| text(path).contains("cifar10_"));
    each_fits(cifar, [32, 32, 3], 11.0);
    each_fits(imagenette, [160, 160, 3], 11.0);
}
