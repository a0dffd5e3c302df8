//! `wgrad predict` and `wgrad eval` with a model by name and weights from a file, as their users
//! run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::gpu;
use serde_json::Value;
use tempfile::TempDir;
use wgrad::gpu::Gpu;
use wgrad::io::{Archive, HostTensor};
use wgrad::models::{ModelOptions, model};
use wgrad::nn::{Mode, Module, Parameters, state_dict};
use wgrad::tensor::Tensor;

const SIDE: usize = 32;
const MODEL: &str = "cnn_16_32_64";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    let output = command.args(arguments).stdin(Stdio::null()).env("WGRAD_TUNING", "off").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran
}

fn json(arguments: &[&str], code: i32) -> Value {
    let ran = run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments:?}\n{}\n{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{}", ran.out))
}

/// It fails, prints nothing, and its message holds all the words.
fn refused(arguments: &[&str], words: &[&str]) {
    let ran = run(arguments);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}\n{}", ran.err);
    words.iter().for_each(|word| assert!(ran.err.contains(word), "{arguments:?} should say \"{word}\":\n{}", ran.err));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with random weights of `name`, and the network.
struct World {
    gpu: Gpu,
    folder: TempDir,
    weights: PathBuf,
    network: Box<dyn Module>,
}

fn world(name: &str, classes: usize) -> World {
    let (gpu, folder) = (gpu(), tempfile::tempdir().unwrap());
    let weights = folder.path().join("weights.safetensors");
    let params = Parameters::new(&gpu, 3);
    let network = model(name, ModelOptions { size: Some([SIDE; 2]), ..Default::default() }).unwrap().classifier(&params, classes).unwrap();
    // Statistics that do something, and logits that differ.
    for parameter in params.all() {
        let slot = parameter.slot().unwrap();
        let wave = |i: usize| (i as f32 * 0.7).sin();
        let values: Vec<f32> = match slot.name.rsplit('.').next().unwrap() {
            "running_mean" => (0..slot.shape.numel()).map(|i| 0.1 * wave(i)).collect(),
            "running_var" => (0..slot.shape.numel()).map(|i| 1.0 + 0.5 * wave(i)).collect(),
            _ if slot.name.starts_with("classifier") => (0..slot.shape.numel()).map(|i| wave(i * i % 8191)).collect(),
            _ => continue,
        };
        parameter.detach().unwrap().write(&values).unwrap();
    }
    state_dict::save(&params, &weights).unwrap();
    World { gpu, folder, weights, network: Box::new(network) }
}

/// Pixels of a picture that is like no other.
fn pixels(number: usize) -> Vec<u8> {
    (0..SIDE * SIDE * 3).map(|i| (i * (3 + 2 * number) / 7 + i / 96 * number * 5) as u8).collect()
}

fn write_picture(path: &Path, number: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels(number)).unwrap().save(path).unwrap();
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the library answers for a picture, with these means and deviations.
    fn probabilities(&self, number: usize, mean: [f32; 3], std: [f32; 3]) -> Vec<f64> {
        let input: Vec<f32> = pixels(number).iter().enumerate().map(|(i, v)| (f32::from(*v) / 255.0 - mean[i % 3]) / std[i % 3]).collect();
        let x = Tensor::from_slice(&self.gpu, &input, [1, SIDE, SIDE, 3]).unwrap();
        let logits = self.network.forward(&x, Mode::Eval).unwrap().to_vec::<f32>().unwrap();
        let top = logits.iter().fold(f32::MIN, |m, v| m.max(*v));
        let weights: Vec<f64> = logits.iter().map(|v| f64::from(v - top).exp()).collect();
        weights.iter().map(|w| w / weights.iter().sum::<f64>()).collect()
    }

    /// `command` with the model, at its size and without a margin.
    fn arguments<'a>(&'a self, command: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&[command, "--model", name, "--weights", text(&self.weights), "--resolution", "32", "--crop", "1"], more].concat()
    }
}

#[test]
fn pictures_and_folders_are_classified_and_damaged_ones_named() {
    let world = world(MODEL, 4);
    let (folder, single) = (world.path("photos"), world.path("single.png"));
    let names = ["a.png", "b.png", "inner/c.png", "inner/deep/d.png"].map(|name| folder.join(name));
    names.iter().enumerate().for_each(|(number, name)| write_picture(name, number));
    write_picture(&single, 4);
    fs::write(folder.join("b2.jpg"), "no picture").unwrap();
    fs::write(folder.join("notes.txt"), "no picture").unwrap();
    let labels = world.path("labels.txt");
    fs::write(&labels, "ant\nbee\na very long name, with a comma\nowl\n").unwrap();
    let more = ["--labels", text(&labels), "--batch", "2", "--top", "4", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.4"];
    let inputs = [text(&single), text(&folder)];
    let arguments = world.arguments("predict", MODEL, &[&more[..], &inputs, &["--json"]].concat());

    let found = json(&arguments, 1);
    let expected: Vec<(&Path, usize)> = [(single.as_path(), 4)].into_iter().chain(names.iter().map(PathBuf::as_path).zip(0..)).collect();
    assert_eq!(found.as_array().unwrap().len(), expected.len(), "{found}");
    let classes = ["ant", "bee", "a very long name, with a comma", "owl"];
    for (picture, (path, number)) in found.as_array().unwrap().iter().zip(expected) {
        assert_eq!(picture["picture"], text(path));
        let probabilities = world.probabilities(number, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]);
        let listed = picture["classes"].as_array().unwrap();
        assert_eq!(listed.len(), 4);
        let mut last = 1.0;
        for class in listed {
            let (index, probability) = (class["index"].as_u64().unwrap() as usize, class["probability"].as_f64().unwrap());
            assert_eq!(class["class"], classes[index]);
            assert!((probability - probabilities[index]).abs() < 1e-5, "{path:?} {index}: {probability} {probabilities:?}");
            assert!(probability <= last);
            last = probability;
        }
    }

    let plain = run(&world.arguments("predict", MODEL, &[&more[..], &inputs].concat()));
    assert_eq!(plain.code, Some(1));
    assert!(plain.err.contains("b2.jpg") && plain.err.contains("PNG, JPEG, WebP"), "{}", plain.err);
    assert!(plain.out.contains("a very long name, with a comma  ") && plain.out.lines().count() == 2 + 5 * 4, "{}", plain.out);
    // Alone it is an error.
    refused(&world.arguments("predict", MODEL, &["--labels", text(&labels), text(&folder.join("b2.jpg"))]), &["b2.jpg", "PNG, JPEG, WebP"]);
    let empty = world.path("empty");
    fs::create_dir(&empty).unwrap();
    refused(&world.arguments("predict", MODEL, &[text(&empty)]), &["empty", "found none"]);
    refused(&world.arguments("predict", MODEL, &[text(&world.path("nowhere"))]), &["nowhere", "no such file"]);
}

#[test]
fn what_does_not_fit_is_said_with_both_numbers() {
    let world = world(MODEL, 1000);
    let picture = world.path("a.png");
    write_picture(&picture, 1);
    let imagenet: Vec<&str> = include_str!("../../data/imagenet_classes.txt").lines().collect();
    let found = json(&world.arguments("predict", MODEL, &["--json", text(&picture)]), 0);
    let best = &found[0]["classes"][0];
    assert_eq!(best["class"], imagenet[best["index"].as_u64().unwrap() as usize]);

    let labels = world.path("three.json");
    fs::write(&labels, "[\"a\", \"b\", \"c\"]").unwrap();
    let labelled = |more: &[&str]| {
        let more = [&["--labels", text(&labels)], more, &[text(&picture)]].concat();
        world.arguments("predict", MODEL, &more).into_iter().map(str::to_string).collect::<Vec<_>>()
    };
    let refused_labels = |more: &[&str], words: &[&str]| {
        let arguments = labelled(more);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    refused_labels(&[], &["three.json", "1000 names", "found 3"]);
    refused_labels(&["--num-classes", "4"], &["three.json", "4 names", "found 3"]);
    // As many classes as labels: now the weights do not fit.
    refused_labels(&["--num-classes", "3"], &["classifier", "weights.safetensors", "[3, ", "[1000, "]);

    for (bad, words) in [
        (vec!["--crop", "2", text(&picture)], ["crop", "found 2"]),
        (vec!["--resolution", "0", text(&picture)], ["resolution", "found 0"]),
        (vec!["--std", "0,1,1", text(&picture)], ["std", "above 0"]),
    ] {
        refused(&[&["predict", "--model", MODEL, "--weights", text(&world.weights)], &bad[..]].concat(), &words);
    }
    refused(&["predict", "--model", "efficientnet_b0.nobody", "--weights", "x", text(&picture)], &["nobody", "ra_in1k"]);
    let weights = text(&world.weights);
    for misuse in [
        vec!["predict", "--model", MODEL, text(&picture)],
        vec!["predict", "--weights", weights, text(&picture)],
        vec!["predict", "--run", "x", "--model", MODEL, "--weights", weights, text(&picture)],
        vec!["predict", "--labels", "x", text(&picture)],
        vec!["predict", "--model", MODEL, "--weights", weights, "--mean", "1,2", text(&picture)],
        vec!["predict", "--model", MODEL, "--weights", weights, "--interpolation", "nearest", text(&picture)],
        vec!["eval", "--model", MODEL, "--weights", weights],
    ] {
        assert_eq!(run(&misuse).code, Some(2), "{misuse:?}");
    }
}

#[test]
fn folders_of_classes_are_judged_as_their_pictures_are() {
    let world = world(MODEL, 30);
    let labels = world.path("labels.txt");
    let names: Vec<String> = (0..30).map(|i| format!("kind {i}")).collect();
    fs::write(&labels, names.join("\n")).unwrap();
    let data = world.path("data");
    let pictures: Vec<(usize, PathBuf)> =
        (0..9).map(|i| ([3, 7, 20][i % 3], data.join(format!("val/Kind_{}/{i}.png", [3, 7, 20][i % 3])))).collect();
    pictures.iter().enumerate().for_each(|(number, (_, path))| write_picture(path, number));
    // What lies beside val is not looked at.
    fs::create_dir_all(data.join("train/other")).unwrap();
    let csv = world.path("confusion.csv");
    let data_arguments = ["--labels", text(&labels), "--data", text(&data), "--batch", "4"];
    let found = json(&world.arguments("eval", MODEL, &[&data_arguments[..], &["--json", "--confusion", text(&csv)]].concat()), 0);

    let (mut right, mut five, mut loss, mut confusion) = (0, 0, 0.0, vec![vec![0; 30]; 30]);
    for (number, (class, _)) in pictures.iter().enumerate() {
        let probabilities = world.probabilities(number, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let before = probabilities.iter().filter(|p| **p > probabilities[*class]).count();
        let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        right += usize::from(best == *class);
        five += usize::from(before < 5);
        loss -= probabilities[*class].ln() / 9.0;
        confusion[*class][best] += 1;
    }
    assert_eq!(found["images"], 9);
    approx::assert_abs_diff_eq!(found["accuracy"].as_f64().unwrap(), right as f64 / 9.0, epsilon = 1e-12);
    approx::assert_abs_diff_eq!(found["top_5"].as_f64().unwrap(), five as f64 / 9.0, epsilon = 1e-12);
    approx::assert_abs_diff_eq!(found["loss"].as_f64().unwrap(), loss, epsilon = 1e-4);
    assert_eq!(found["confusion"], serde_json::json!(confusion));
    assert!(found["matched"].as_str().unwrap().contains("3 folders matched with 30 classes by name"));
    let csv = fs::read_to_string(csv).unwrap();
    assert_eq!(csv.lines().count(), 31);
    let row: Vec<String> = confusion[7].iter().map(ToString::to_string).collect();
    assert_eq!(csv.lines().nth(8).unwrap(), format!("kind 7,{}", row.join(",")));

    // A damaged picture is passed over, and the code tells.
    fs::write(data.join("val/Kind_3/broken.png"), "no picture").unwrap();
    let plain = run(&world.arguments("eval", MODEL, &data_arguments));
    assert_eq!(plain.code, Some(1), "{}", plain.err);
    assert!(plain.err.contains("broken.png"), "{}", plain.err);
    assert!(
        plain.out.contains("top-5") && plain.out.contains("of 9 images") && plain.out.contains("pictures that could not be read: 1"),
        "{}",
        plain.out
    );
    // 30 classes are too many for a matrix: mistakes are listed.
    assert!(plain.out.contains("predicted") && plain.out.contains("kind 3"), "{}", plain.out);

    fs::rename(data.join("val/Kind_20"), data.join("val/wombat")).unwrap();
    refused(&world.arguments("eval", MODEL, &data_arguments), &["wombat", "30 classes", "3 folders"]);
}

#[test]
fn folding_batch_norm_gives_the_same_answers() {
    let name = "mobilenetv1_025";
    let world = world(name, 10);
    let pictures: Vec<PathBuf> = (0..3).map(|i| world.path(&format!("{i}.png"))).collect();
    pictures.iter().enumerate().for_each(|(number, path)| write_picture(path, number));
    let files: Vec<&str> = pictures.iter().map(|path| text(path)).collect();
    let predict = |more: &[&str]| json(&world.arguments("predict", name, &[&["--top", "10", "--json"], more, &files].concat()), 0);
    let (plain, folded) = (predict(&[]), predict(&["--fold-bn"]));
    for (number, (a, b)) in plain.as_array().unwrap().iter().zip(folded.as_array().unwrap()).enumerate() {
        let of = |list: &Value| {
            let mut values = [f64::NAN; 10];
            for class in list["classes"].as_array().unwrap() {
                values[class["index"].as_u64().unwrap() as usize] = class["probability"].as_f64().unwrap();
            }
            values
        };
        let (a, b) = (of(a), of(b));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?}\n{b:?}");
        assert!(a.iter().fold(0.0f64, |m, v| m.max(*v)) > 0.12, "picture {number}: these answers say nothing: {a:?}");
    }
    assert_ne!(plain, folded, "something was folded");
}

/// Gives `change` the values of a tensor of the weights file.
fn change(world: &World, name: &str, change: impl Fn(&mut f32)) {
    let mut archive = Archive::load(&world.weights).unwrap();
    let Some(HostTensor::F32(_, data)) = archive.tensors.get_mut(name) else { panic!("{name}") };
    data.iter_mut().for_each(change);
    archive.save(&world.weights).unwrap();
}

#[test]
fn weights_and_answers_that_are_not_finite_are_no_prediction() {
    let data = |world: &World| {
        let data = world.path("data");
        (0..4).for_each(|number| write_picture(&data.join(format!("{}/{number}.png", number % 2)), number));
        data
    };
    let damaged = world(MODEL, 4);
    change(&damaged, "conv1.weight", |v| *v = f32::NAN);
    let folder = data(&damaged);
    let words = ["weights.safetensors", "1 tensor holds NaN or infinity", "\"conv1.weight\" (432 of 432 values)"];
    refused(&damaged.arguments("predict", MODEL, &[text(&folder)]), &words);
    refused(&damaged.arguments("eval", MODEL, &["--data", text(&folder)]), &words);
    refused(&damaged.arguments("eval", MODEL, &["--data", text(&folder), "--fold-bn"]), &words);

    // Every weight is finite, and the answer is not.
    let overflowing = world(MODEL, 4);
    change(&overflowing, "classifier.weight", |v| *v = if *v < 0.0 { -3e38 } else { 3e38 });
    let folder = data(&overflowing);
    let words = ["0.png: the network's outputs", "NaN or infinity"];
    refused(&overflowing.arguments("predict", MODEL, &[text(&folder)]), &words);
    refused(&overflowing.arguments("eval", MODEL, &["--data", text(&folder), "--json"]), &words);
}
