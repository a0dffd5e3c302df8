//! Probes: known features give known figures, an encoder is not touched by being judged, and what
//! cannot be judged is named.

use crate::common::tiny;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::tiny::dataset;
use serde_json::Value;
use wgrad::data::Dataset;
use wgrad::evaluate::probe::{
    Features, Neighbours, ProbeOptions, ProbeSubject, Protocol, Report, Source, features, finetune, geometry, linear, mean_and_spread,
    probe, retrieval,
};
use wgrad::gpu::Gpu;
use wgrad::nn::{Parameters, state_dict};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::train::Recipe;
use wgrad::train::methods::METHODS;

/// `count` rows of `width` normal numbers.
fn noise(count: usize, width: usize, seed: u32) -> Features {
    let mut stream = Stream::keyed(seed, Purpose::Test.key(), 0);
    Features::new((0..count * width).map(|_| stream.normal()).collect(), count)
}

/// `count` rows, each near the axis of its class, and the classes by turns.
fn clusters(count: usize, classes: usize, away: f32, seed: u32) -> (Features, Vec<i32>) {
    let labels: Vec<i32> = (0..count).map(|i| (i % classes) as i32).collect();
    let mut stream = Stream::keyed(seed, Purpose::Test.key(), 1);
    let rows = labels.iter().flat_map(|label| (0..classes as i32).map(|axis| f32::from(u8::from(axis == *label))).collect::<Vec<_>>());
    (Features::new(rows.map(|v| v + away * stream.normal()).collect(), count), labels)
}

/// The images of `quarters` as a data set.
#[test]
fn features_come_back_as_they_were_put_in() {
    let gpu = crate::common::gpu();
    let features = Features::new((0..6).map(|i| i as f32).collect(), 3);
    assert_eq!((features.len(), features.width(), features.is_empty()), (3, 2, false));
    assert_eq!(features.pick(&[2, 0, 9]), Features::new(vec![4.0, 5.0, 0.0, 1.0], 2));
    assert_eq!(Features::concat(vec![features.pick(&[0]), features.pick(&[1, 2])]), features);
    assert_eq!(features.map(&gpu, |x| x.mul(x)).unwrap(), [0.0, 1.0, 4.0, 9.0, 16.0, 25.0]);
    let mut found = Vec::new();
    let axes = Features::new(vec![1.0, 0.0, 0.0, 3.0, -2.0, 0.0], 3);
    axes.cosines(&gpu, &axes.pick(&[0, 1]), |row, cosines| found.push((row, cosines.to_vec()))).unwrap();
    assert_eq!(found, [(0, vec![1.0, 0.0]), (1, vec![0.0, 1.0]), (2, vec![-1.0, 0.0])]);
    let scaled = features::Standardizer::fit(&features).apply(&features);
    let column: Vec<f32> = scaled.rows().map(|row| row[1]).collect();
    assert!(column.iter().zip([-1.224_745, 0.0, 1.224_745]).all(|(a, b)| (a - b).abs() < 1e-4), "{column:?}");
}

#[test]
fn neighbours_of_clusters_are_of_their_class() {
    for (schedule, gpu) in crate::common::gpus() {
        let ((known, labels), (asked, truth)) = (clusters(60, 6, 0.0, 1), clusters(36, 6, 0.05, 2));
        for neighbours in [Neighbours::DINO, Neighbours::MOCO, Neighbours { k: 1, temperature: 1e-3 }] {
            let found = neighbours.accuracy(&gpu, (&known, &labels), (&asked, &truth), 6).unwrap();
            assert_eq!(found, 1.0, "{schedule} {neighbours:?}");
        }
        // All rows alike: the first of them vote, the first class of those with equal votes wins.
        let (same, both) = (Features::new(vec![1.0; 24], 8), [2, 2, 1, 1, 0, 0, 0, 0]);
        let winner = |k: usize, class: i32| {
            Neighbours { k, temperature: 0.1 }.accuracy(&gpu, (&same, &both), (&same.pick(&[0]), &[class]), 3).unwrap()
        };
        assert_eq!([winner(1, 2), winner(3, 2), winner(4, 1), winner(100, 0)], [1.0; 4], "{schedule}");
    }
}

#[test]
fn weights_of_neighbours_fall_with_the_angle() {
    let gpu = crate::common::gpu();
    // Two far ones against a close one: by number they win, by weight they lose.
    let (known, labels) = (Features::new(vec![1.0, 0.1, 0.5, 1.0, 0.5, 1.0], 3), [0, 1, 1]);
    let vote = |temperature| {
        let asked = Features::new(vec![1.0, 0.0], 1);
        Neighbours { k: 3, temperature }.accuracy(&gpu, (&known, &labels), (&asked, &[0]), 2).unwrap()
    };
    assert_eq!((vote(0.07), vote(10.0)), (1.0, 0.0));
}

#[test]
fn retrieval_finds_identical_views_and_guesses_among_equal_ones() {
    let gpu = crate::common::gpu();
    let (views, classes) = (noise(200, 16, 3), [0; 200]);
    let found = retrieval::at_1(&gpu, &views, &views, &classes).unwrap();
    assert_eq!((found.instance, found.class), (1.0, 1.0));
    // Of constant rows the first is found, whoever looks.
    let constant = Features::new(vec![0.5; 200 * 16], 200);
    let own: Vec<i32> = (0..200).collect();
    let found = retrieval::at_1(&gpu, &constant, &constant, &own).unwrap();
    assert_eq!((found.instance, found.class), (1.0 / 200.0, 0.0));
    // Views that have nothing to do with each other.
    let found = retrieval::at_1(&gpu, &views, &noise(200, 16, 4), &own).unwrap();
    assert!(found.instance < 0.03, "{found:?}");
    // Of its class is what is found among the others: the own view does not count.
    let (views, classes) = clusters(40, 4, 0.05, 5);
    assert_eq!(retrieval::at_1(&gpu, &views, &views, &classes).unwrap().class, 1.0);
    assert_eq!(retrieval::at_1(&gpu, &views, &views, &(0..40).collect::<Vec<_>>()).unwrap().class, 0.0);
    let alone = views.pick(&[0]);
    assert_eq!(retrieval::at_1(&gpu, &alone, &alone, &[0]).unwrap().class, 0.0);
}

#[test]
fn alignment_and_uniformity_have_their_closed_forms() {
    let gpu = crate::common::gpu();
    let views = noise(50, 8, 1);
    assert_eq!(geometry::alignment(&gpu, &views, &views).unwrap(), 0.0);
    let near = |found: f64, expected: f64| approx::assert_abs_diff_eq!(found, expected, epsilon = 1e-5);
    // Length does not count; opposite, square, equal.
    let first = Features::new(vec![2.0, 0.0, 0.0, 3.0, 1.0, 1.0], 3);
    let second = Features::new(vec![-1.0, 0.0, 5.0, 0.0, 0.5, 0.5], 3);
    near(geometry::alignment(&gpu, &first, &second).unwrap(), (4.0 + 2.0 + 0.0) / 3.0);
    let uniformity = |values: &[f32], rows| geometry::uniformity(&gpu, &Features::new(values.to_vec(), rows)).unwrap();
    near(uniformity(&[1.0, 0.0, -3.0, 0.0], 2), -8.0);
    near(uniformity(&[1.0, 0.0, 0.0, 1.0, 7.0, 0.0], 3), ((2.0 * (-4.0f64).exp() + 1.0) / 3.0).ln());
    near(uniformity(&[0.3; 20], 5), 0.0);
    // Even on a sphere of many dimensions: all pairs are nearly square, exp(-4) of each.
    let spread = geometry::uniformity(&gpu, &noise(300, 512, 2)).unwrap();
    assert!((spread + 4.0).abs() < 0.05, "{spread}");
}

#[test]
fn a_linear_probe_separates_what_can_be_separated() {
    let gpu = crate::common::gpu();
    // At once, and more rows than are learnt at once.
    for rows in [80, 9000] {
        let ((known, labels), (asked, truth)) = (clusters(rows, 4, 0.1, 1), clusters(100, 4, 0.1, 2));
        let scale = features::Standardizer::fit(&known);
        let classifier = linear::fit(&gpu, &scale.apply(&known), &labels, 4, 0).unwrap();
        let found = linear::accuracy(&gpu, &classifier, &scale.apply(&asked), &truth).unwrap();
        assert_eq!(found, 1.0, "{rows}");
    }
}

/// A recipe of a small network on the small images.
fn recipe(method: &str) -> Recipe {
    let own = Recipe::defaults(method);
    let model = if own.model.name.starts_with("vit_") { "vit_mini_patch4_28" } else { "cnn_16_32_64" };
    let tasks = if own.data.tasks.is_empty() { "tasks=" } else { "tasks=side: 0+2, 1+3" };
    own.with([&format!("model={model}"), "batch=16", "augmentation=grey_simclr", "seed=3", tasks]).unwrap()
}

/// Every parameter, statistic and counter.
fn state(params: &Parameters) -> wgrad::io::Archive {
    state_dict::to_archive(params).unwrap()
}

fn probed(gpu: &Gpu, recipe: &Recipe, data: &[Arc<Dataset>; 2], options: &ProbeOptions) -> wgrad::error::Result<Report> {
    let [train, test] = data;
    let params = Parameters::new(gpu, recipe.seed);
    let encoder = recipe.encoder(&params, train)?;
    let before = state(&params);
    let subject = ProbeSubject { encoder: &encoder, params: &params, recipe, train, test };
    let found = probe(gpu, &subject, options, &mut |_| ())?;
    assert_eq!(state(&params), before, "{} is changed by being probed", recipe.method.name);
    Ok(found)
}

#[test]
fn probing_changes_no_bit_of_an_encoder_and_its_statistics() {
    let (gpu, data) = (crate::common::gpu(), [dataset(80), dataset(40)]);
    let options = ProbeOptions { labels: vec![2, 0], draws: 2, views: 2, ..Default::default() };
    let found = probed(&gpu, &recipe("simclr"), &data, &options).unwrap();
    assert_eq!(found, probed(&gpu, &recipe("simclr"), &data, &options).unwrap(), "the same bits each time");
    assert_eq!(found.gallery, 40);
    for (protocol, labels) in found.protocols() {
        for source in Source::ALL {
            let draws = found.draws(protocol, labels, source).unwrap();
            assert_eq!(draws.len(), if labels == Some(0) { 1 } else { 2 }, "{protocol} of {source}");
            let sound = |v: &f64| v.is_finite() && (!protocol.is_accuracy() || (0.0..=1.0).contains(v));
            assert!(draws.iter().all(sound), "{protocol} of {source}: {draws:?}");
        }
    }
    assert_eq!(found.protocols().len(), 3 * 2 + 4);
}

#[test]
fn fine_tuning_learns_and_leaves_the_run_as_it_was() {
    let (gpu, data) = (crate::common::gpu(), [dataset(80), dataset(40)]);
    let options = ProbeOptions { labels: vec![0], draws: 1, views: 1, finetune: Some(finetune::RATE), ..Default::default() };
    let found = probed(&gpu, &recipe("simclr"), &data, &options).unwrap();
    assert_eq!(found.draws(Protocol::Finetune, Some(0), Source::Pixels), None);
    // A quarter that is brighter is learnt from 20 images each by any network.
    let tuned = |source| mean_and_spread(found.draws(Protocol::Finetune, Some(0), source).unwrap()).0;
    assert!(tuned(Source::Trained) > 0.5 && tuned(Source::Random) > 0.5, "{found:?}");
}

#[test]
fn a_row_does_not_depend_on_the_others_that_are_asked_for() {
    let (gpu, data) = (crate::common::gpu(), [dataset(80), dataset(40)]);
    let options = |labels: &[usize]| ProbeOptions { labels: labels.to_vec(), draws: 2, views: 1, ..Default::default() };
    let [alone, beside] = [&[3][..], &[1, 3, 7]].map(|labels| probed(&gpu, &recipe("simclr"), &data, &options(labels)).unwrap());
    for (protocol, labels) in alone.protocols() {
        for source in Source::ALL {
            assert_eq!(alone.draws(protocol, labels, source), beside.draws(protocol, labels, source), "{protocol} of {source}");
        }
    }
}

#[test]
fn runs_of_every_method_can_be_probed() {
    let (gpu, data) = (crate::common::gpu(), [dataset(24), dataset(12)]);
    let options = ProbeOptions { labels: vec![1], draws: 1, views: 1, ..Default::default() };
    for entry in METHODS {
        probed(&gpu, &recipe(entry.name), &data, &options).unwrap();
    }
}

#[test]
fn what_cannot_be_judged_is_named() {
    let (gpu, data) = (crate::common::gpu(), [dataset(80), dataset(40)]);
    let refused = |options: ProbeOptions, words: &[&str]| {
        let message = probed(&gpu, &recipe("simclr"), &data, &options).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(message.contains(word), "{message} should say {word}"));
    };
    refused(ProbeOptions { labels: vec![1, 21], ..Default::default() }, &["21 images", "class quarter 0", "found 20"]);
    refused(ProbeOptions { augmentation: "simclr3".into(), ..Default::default() }, &["simclr3", "grey_simclr"]);
    // All that there are may be drawn.
    let all = ProbeOptions { labels: vec![20], draws: 1, views: 1, ..Default::default() };
    probed(&gpu, &recipe("simclr"), &data, &all).unwrap();
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).env("WGRAD_TUNING", "off").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), out, err)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// A data set in `folder` and a run of one epoch of SimCLR on it.
fn trained(folder: &Path, more: &[&str]) -> (String, String) {
    let (data, out) = (text(&tiny::data_called(folder, "data")), text(&folder.join("run")));
    let small = ["--set", "batch=16", "--set", "epochs=1", "--set", "augmentation=grey_simclr, supervised"];
    let (code, _, err) = run(&[&["train", "simclr", "--data", &data, "--out", &out], &small[..], more].concat());
    assert_eq!(code, Some(0), "{err}");
    (data, out)
}

#[test]
fn a_run_is_asked_of_classes_and_images_that_it_has_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = trained(folder.path(), &["--set", "classes=0, 1"]);
    let probed = |more: &[&str]| {
        let (code, found, err) = run(&[&["probe", &out, "--labels", "2", "--draws", "2", "--views", "1", "--json"], more].concat());
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<Value>(&found).unwrap()["rows"].clone()
    };
    let own = probed(&[]);
    assert_eq!((probed(&["--classes", "0, 1"]), probed(&["--on", &data, "--classes", "0, 1"])), (own.clone(), own.clone()));
    let (others, all) = (probed(&["--classes", "2, 3"]), probed(&["--classes", "*"]));
    assert!(others != own && all != own && all != others && probed(&["--on", &data]) == all);
    // Of each class 24 images are there, and the message names the first one that is asked for.
    for (more, words) in [
        (&["--classes", "2, 3", "--labels", "25"][..], "25 images of class 2,"),
        (&["--classes", "*", "--labels", "25"], "25 images of class 0,"),
        (&["--classes", "2, 9"], "9"),
        (&["--on", "nowhere"], "nowhere"),
    ] {
        let (code, _, err) = run(&[&["probe", &out], more].concat());
        assert!(code == Some(1) && err.contains(words), "{more:?}: {err}");
    }
}

#[test]
fn the_program_prints_one_table_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = trained(folder.path(), &[]);
    let (code, table, err) = run(&["probe", &out, "--labels", "1,2", "--draws", "2", "--views", "1"]);
    assert_eq!(code, Some(0), "{err}");
    for word in
        ["trained encoder", "random encoder", "raw pixels", "over random", "class retrieval@1", "uniformity", "views of grey_simclr"]
    {
        assert!(table.contains(word), "{table}");
    }
    assert_eq!(table.lines().filter(|line| line.starts_with("linear")).count(), 4, "{table}");
    let asked = ["probe", &out, "--labels", "all", "--neighbours", "3:0.5", "--finetune", "--augmentation", "none", "--json"];
    let (code, json, err) = run(&asked);
    assert!(code == Some(0) && err.contains("fine-tuned all labels a class, random encoder"), "{err}");
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&found["options"]["neighbours"], &found["options"]["augmentation"]), (&Value::from(3), &Value::from("none")));
    // Views without augmentation are identical.
    let row = found["rows"].as_array().unwrap().iter().find(|row| row["protocol"] == "instance retrieval@1").unwrap();
    assert_eq!(row["mean"], 1.0);
    assert!(found["differences"].as_array().unwrap().iter().any(|d| d["over"] == "random encoder" && d["protocol"] == "fine-tuned"));
    let nowhere = text(&folder.path().join("nowhere"));
    for (bad, words) in [
        (&["probe", &nowhere][..], "nowhere"),
        (&["probe", &data], "holds no run"),
        (&["probe", &out, "--labels", "10,25"], "expected 25 images of class"),
        (&["probe", &out, "--labels", "0"], "or all"),
        (&["probe", &out, "--neighbours", "x"], "K:T"),
        (&["probe", &out, "--finetune=2"], "between 0 and 1"),
    ] {
        let (code, _, err) = run(bad);
        assert!(code != Some(0) && err.contains(words), "{bad:?}: {err}");
    }
}
