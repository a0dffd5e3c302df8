//! Runs in mixed precision: every method, a forced overflow, and the same bits after a resume.

use super::training::{bits, data_of, methods, metrics, recipe, resumed, to_the_end, trainer};
use wgrad::gpu::Gpu;
use wgrad::train::progress::Style;
use wgrad::train::{Recipe, RunDirectory};

fn mixed(method: &str) -> Recipe {
    // A scale that grows within the run, too.
    recipe(method).with(["precision=mixed", "learning_rate=0.01", "growth_interval=4"]).unwrap()
}

/// A device that stores f16, if there is one.
fn device() -> Option<Gpu> {
    let gpu = crate::common::gpu();
    let may = gpu.capabilities().f16;
    if !may {
        println!("{} stores no f16 here, so nothing was run", gpu.capabilities().name);
    }
    may.then_some(gpu)
}

#[test]
fn every_method_trains_in_mixed_precision() {
    let Some(gpu) = device() else { return };
    for method in methods() {
        let data = data_of(method, 100);
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe { epochs: 4, ..mixed(method) };
        let run = RunDirectory::create(&folder.path().join("run"), &recipe, &gpu).unwrap();
        let mut trainer = trainer(&gpu, recipe, &data);
        assert!(to_the_end(&mut trainer, Some(&run)).unwrap().finished, "{method}");
        let lines = metrics(&run);
        let scale = lines.iter().find_map(|line| line["loss_scale"].as_f64());
        assert!(scale.is_some_and(|scale| (1.0..1e9).contains(&scale)), "{method}: {scale:?}");
        let skipped = lines.iter().filter(|line| line["kind"] == "epoch").filter_map(|line| line["skipped"].as_u64()).max();
        assert!(skipped.unwrap_or(0) < trainer.steps() / 2, "{method}: {skipped:?} of {} steps skipped", trainer.steps());
        for parameter in trainer.params.all() {
            let values = parameter.detach().unwrap().to_vec::<f32>().unwrap();
            assert!(values.iter().all(|v| v.is_finite()), "{method}: {}", parameter.slot().unwrap().name);
        }
    }
}

#[test]
fn a_run_in_mixed_precision_repeats_its_bits_and_goes_on_to_them() {
    let Some(gpu) = device() else { return };
    // Adam counts the steps that were taken, which a resumption must know.
    for (method, optimizer) in [("supervised", "adamw"), ("dino", "sgd"), ("multitask", "adam")] {
        let data = data_of(method, 100);
        let folder = tempfile::tempdir().unwrap();
        // So large that the first steps overflow.
        let recipe = mixed(method).with(["init_scale=4194304", &format!("optimizer={optimizer}")]).unwrap();
        let whole = |gpu: &Gpu| {
            let mut trainer = trainer(gpu, Recipe { epochs: 3, ..recipe.clone() }, &data);
            to_the_end(&mut trainer, None).unwrap();
            bits(&mut trainer)
        };
        let first = whole(&gpu);
        assert!(first == whole(&gpu), "{method}");
        let run = RunDirectory::create(&folder.path().join("run"), &recipe, &gpu).unwrap();
        let mut stopped = trainer(&gpu, recipe, &data);
        stopped.run(Some(&run), Style::Silent, &mut |position| position.step == 7).unwrap();
        drop(stopped);
        let rest = bits(&mut resumed(&run, &data));
        let different: Vec<&String> = first.keys().filter(|name| rest.get(*name) != first.get(*name)).collect();
        assert!(different.is_empty() && rest.len() == first.len(), "{method}: {different:?} differ");
    }
}
