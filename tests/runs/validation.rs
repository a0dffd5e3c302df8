//! Looks at images that are not learnt from: they change nothing, and say what the network that is
//! left is worth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::training::{bits, data_of, metrics, recipe, trainer};
use crate::common::{gpu, wanted};
use serde_json::Value;
use wgrad::data::Dataset;
use wgrad::evaluate::{Validation, evaluate};
use wgrad::io::Archive;
use wgrad::train::progress::Style;
use wgrad::train::validation::Validator;
use wgrad::train::{Checkpoint, Outcome, Recipe, RunDirectory, Trainer};

fn judged(trainer: Trainer, data: &Arc<Dataset>) -> Trainer {
    let validation = Validation::new(&trainer.recipe, data).unwrap();
    trainer.judged_by(validation.map(|validation| Box::new(validation) as Box<dyn Validator>))
}

/// A run into `folder`, to its end or to step `stop`, with and without looks.
fn run(recipe: &Recipe, data: &Arc<Dataset>, folder: &Path, looks: bool, stop: Option<u64>) -> (RunDirectory, Trainer, Outcome) {
    let directory = RunDirectory::create(folder, recipe, &gpu()).unwrap();
    let trainer = trainer(&gpu(), recipe.clone(), data);
    let mut trainer = if looks { judged(trainer, data) } else { trainer };
    let outcome = trainer.run(Some(&directory), Style::Silent, &mut |position| stop == Some(position.step)).unwrap();
    (directory, trainer, outcome)
}

fn of_kind(lines: &[Value], kind: &str) -> Vec<Value> {
    lines.iter().filter(|line| line["kind"] == kind).cloned().collect()
}

#[test]
fn looks_change_no_bit_and_resume_to_the_same() {
    for (method, settings) in [("supervised", "precision=f32"), ("simclr", "precision=f32"), ("supervised", "precision=mixed")] {
        if !wanted(method) || settings.ends_with("mixed") && !gpu().capabilities().f16 {
            continue;
        }
        let data = data_of(method, 100);
        let recipe = recipe(method).with(["split=0.3", "epochs=4", "validation.every=2", settings]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (with, mut seen, _) = run(&recipe, &data, &at("with"), true, None);
        let (without, mut blind, _) = run(&recipe, &data, &at("without"), false, None);
        let (all, plain) = (metrics(&with), metrics(&without));
        let looks = of_kind(&all, "validation");
        assert_eq!(looks.iter().map(|look| look["epoch"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 4], "{method}");
        assert!(of_kind(&plain, "validation").is_empty());
        let others: Vec<Value> = all.iter().filter(|line| line["kind"] != "validation").cloned().collect();
        assert_eq!(others, plain, "{method}");
        let (mut expected, mut found) = (bits(&mut blind), bits(&mut seen));
        let kept = |bits: &mut BTreeMap<String, Vec<u8>>, key| bits.remove(key).unwrap();
        for key in ["text validation", "text wgrad_checksum"] {
            assert_ne!(kept(&mut expected, key), kept(&mut found, key), "what was seen is kept");
        }
        let differ: Vec<&String> = expected.keys().filter(|key| found.get(*key) != expected.get(*key)).collect();
        assert!(differ.is_empty() && expected.len() == found.len(), "{method} {settings}: {differ:?}");

        // Stopped between two looks.
        let (stopped, _, outcome) = run(&recipe, &data, &at("stopped"), true, Some(13));
        assert!(!outcome.finished);
        let checkpoint = Checkpoint::load(&stopped.last_checkpoint()).unwrap();
        assert_eq!(checkpoint.position.step, 13);
        stopped.rewind(13).unwrap();
        let mut resumed = judged(Trainer::resume(&gpu(), &checkpoint, data.clone()).unwrap(), &data);
        resumed.run(Some(&stopped), Style::Silent, &mut |_| false).unwrap();
        assert_eq!(metrics(&stopped), all, "{method}");
        assert!(bits(&mut resumed) == bits(&mut seen), "{method} {settings}");
    }
}

#[test]
fn a_look_says_what_the_weights_that_are_left_are_worth() {
    if !wanted("supervised") {
        return;
    }
    let data = data_of("supervised", 100);
    let recipe = recipe("supervised").with(["split=0.3", "epochs=5"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (directory, trainer, _) = run(&recipe, &data, &folder.path().join("run"), true, None);
    let looks = of_kind(&metrics(&directory), "validation");
    let gpu = gpu();
    let (held_out, train) = (recipe.held_out(&data).unwrap().unwrap(), recipe.chosen(data.clone()).unwrap());
    assert_eq!((held_out.len(), train.len()), (32, 68));
    let worth = |file: &Path| {
        let (_, network) = recipe.network_with(&gpu, &train, Archive::load(file).unwrap(), "weights").unwrap();
        evaluate(&gpu, &network, &held_out, &recipe.preprocessing("none", 0, &train).unwrap()).unwrap()
    };
    let last = worth(&directory.weights());
    assert_eq!(looks.last().unwrap()["averaged_top_1"].as_f64().unwrap(), last.accuracy());
    approx::assert_relative_eq!(looks.last().unwrap()["averaged_loss"].as_f64().unwrap(), last.loss(), max_relative = 1e-12);
    let scores: Vec<f64> = looks.iter().map(|look| look["averaged_top_1"].as_f64().unwrap()).collect();
    let best = scores.iter().copied().fold(0.0, f64::max);
    assert_eq!(worth(&directory.best_weights()).accuracy(), best);
    assert_eq!(trainer.looks().score, best);
    assert_eq!(trainer.looks().epoch as usize, 1 + scores.iter().position(|score| *score == best).unwrap());
    assert_eq!(looks.iter().filter(|look| look["best"] == true).count(), {
        let mut most = f64::NEG_INFINITY;
        scores
            .iter()
            .filter(|score| {
                **score > most && {
                    most = **score;
                    true
                }
            })
            .count()
    });
}

#[test]
fn a_run_that_learns_nothing_more_ends_early() {
    if !wanted("supervised") {
        return;
    }
    let data = data_of("supervised", 100);
    let settings = ["split=0.3", "epochs=9", "patience=2", "learning_rate=0", "ema=0"];
    let recipe = recipe("supervised").with(settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (directory, mut trainer, outcome) = run(&recipe, &data, &folder.path().join("run"), true, None);
    // The first look is the best; two more are none.
    assert!(outcome.finished && outcome.position.epoch == 3 && directory.weights().exists(), "{outcome:?}");
    assert_eq!(of_kind(&metrics(&directory), "validation").len(), 3);
    // Going on with it takes no step more.
    let checkpoint = Checkpoint::load(&directory.last_checkpoint()).unwrap();
    let mut resumed = judged(Trainer::resume(&gpu(), &checkpoint, data.clone()).unwrap(), &data);
    let again = resumed.run(Some(&directory), Style::Silent, &mut |_| false).unwrap();
    assert!(again.finished && again.images == 0);
    assert!(bits(&mut resumed) == bits(&mut trainer));
}

#[test]
fn what_is_judged_by_is_a_share_of_each_class_and_never_learnt_from() {
    let data = data_of("supervised", 103);
    let images = |dataset: &Dataset| (0..dataset.len()).map(|i| dataset.image(i).unwrap().unwrap().to_vec()).collect::<Vec<_>>();
    let recipe = recipe("supervised").with(["split=0.2"]).unwrap();
    let (held_out, rest) = (recipe.held_out(&data).unwrap().unwrap(), recipe.chosen(data.clone()).unwrap());
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (images(&held_out).into_iter().collect(), images(&rest).into_iter().collect());
    assert!(a.is_disjoint(&b) && a.len() + b.len() == images(&data).into_iter().collect::<BTreeSet<_>>().len());
    let count = |dataset: &Dataset, class: i32| dataset.labels().iter().filter(|label| **label == class).count();
    for class in 0..data.classes() as i32 {
        assert_eq!(count(&held_out, class), (count(&data, class) as f64 * 0.2).round() as usize, "class {class}");
    }
    let other = Recipe { seed: recipe.seed + 1, ..recipe.clone() };
    assert_ne!(images(&other.held_out(&data).unwrap().unwrap()), images(&held_out));
    let few = recipe.clone().with(["validation.images=7", "per_class=5"]).unwrap();
    assert_eq!((few.held_out(&data).unwrap().unwrap().len(), few.chosen(data.clone()).unwrap().len()), (7, 5 * data.classes()));
    assert!(Recipe::defaults("supervised").held_out(&data).unwrap().is_none());
    for (bad, said) in [("split=1", "expected 0 to 0.9"), ("patience=3", "set validation.split"), ("validation.every=0", "expected 1 to")] {
        let refused = Recipe::defaults("supervised").with([bad]).unwrap().check().unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
    let single = data.subset(&[0]).unwrap();
    assert!(recipe.held_out(&single).unwrap_err().to_string().contains("has a single image"));
}
