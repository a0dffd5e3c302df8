//! The built program, as its users run it: results on stdout, words on stderr, exit codes, interruptions, bad input.

#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tiny::{data_called, idx};
use wgrad::data::{Split, open};

fn wgrad() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    // A table of the user's would make the bits differ.
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).env("WGRAD_TUNING", "off");
    command
}

/// What a command left behind; it did not panic.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked") && !ran.out.contains("panicked"), "{}\n{}", ran.out, ran.err);
    ran
}

fn run(command: &mut Command) -> Ran {
    ran(command.output().unwrap())
}

/// A command that does what it is asked.
fn done(arguments: &[&str]) -> Ran {
    let ran = run(wgrad().args(arguments));
    assert_eq!(ran.code, Some(0), "{arguments:?}\n{}\n{}", ran.out, ran.err);
    ran
}

fn json(arguments: &[&str]) -> Value {
    let ran = done(arguments);
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{}", ran.out))
}

/// A command that fails, and says why in one message that holds all the words.
fn refused(command: &mut Command, words: &[&str]) {
    let ran = run(command);
    assert_eq!(ran.code, Some(1), "{command:?}\n{}\n{}", ran.out, ran.err);
    assert_eq!(ran.out, "", "{command:?}");
    let message = ran.err.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
    words.iter().for_each(|word| assert!(message.contains(word), "{command:?} should say \"{word}\":\n{}", ran.err));
}

/// A data set in MNIST's files: 96 images to learn from, 40 to test on.
fn data(folder: &Path) -> PathBuf {
    data_called(folder, "data")
}

/// `wgrad train METHOD` with a small model; 6 steps an epoch.
fn train(method: &str, data: &Path, out: &Path, epochs: usize) -> Command {
    let mut command = wgrad();
    command.args(["train", method, "--set", "model=cnn_16_32_64", "--set", "batch=16", "--set", "checkpoint_every=3"]);
    command.args(["--set", &format!("epochs={epochs}")]).arg("--data").arg(data).arg("--out").arg(out);
    command
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_names_every_command_and_misuse_is_code_2() {
    let help = done(&["--help"]).out;
    for command in ["info", "methods", "doctor", "ops", "train", "probe", "embed", "eval", "predict", "compare", "demo"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(done(&[command, "--help"]).out.contains("Usage: wgrad"));
    }
    assert!(done(&["--version"]).out.contains(env!("CARGO_PKG_VERSION")));
    for misuse in [&["--nope"][..], &["train"], &["ops", "--emit", "cuda", "relu"], &["train", "simclr", "--resume", "--set", "epochs=2"]] {
        let ran = run(wgrad().args(misuse));
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{misuse:?}: {}", ran.err);
    }
}

#[test]
fn info_and_ops_describe_what_there_is() {
    let info = json(&["info", "--json"]);
    assert!(info["adapters"].as_array().unwrap().contains(&info["chosen"]));
    let name = info["chosen"]["name"].as_str().unwrap();
    let plain = done(&["info"]);
    assert!(plain.out.contains(name), "{}", plain.out);
    assert_eq!(plain.err, "", "nothing is said that was not asked for");

    let listed = json(&["ops", "--json"]);
    let registry = wgrad::ops::registry::registry();
    assert_eq!(listed.as_array().unwrap().len(), registry.len());
    let table = done(&["ops"]).out;
    for (entry, listed) in registry.iter().zip(listed.as_array().unwrap()) {
        assert_eq!(listed["name"], entry.name);
        assert!(table.contains(entry.name), "{}", entry.name);
        assert_eq!(listed["shaders"].as_array().unwrap().len(), entry.shaders.len(), "{}", entry.name);
    }
    let matmul = json(&["ops", "matmul", "--json"]);
    assert_eq!(matmul[0]["schedules"], serde_json::json!(["cpu", "simd"]));
    assert!(done(&["ops", "matmul"]).out.contains("linear/gemm_simd"));
}

#[test]
fn methods_are_listed_and_laid_side_by_side() {
    let listed = json(&["methods", "--json"]);
    let (names, table) = (wgrad::train::methods::METHODS.iter().map(|entry| entry.name), done(&["methods"]).out);
    for (name, card) in names.zip(listed.as_array().unwrap()) {
        assert_eq!(card["name"], name);
        assert!(table.contains(&format!("\n{name} ")) && card["options"].is_object(), "{name}");
    }
    assert_eq!(json(&["methods", "simclr", "--json"])["options"]["temperature"], 0.5);
    let card = done(&["methods", "moco"]).out;
    for words in ["He, Fan, Wu", "arXiv:1911.05722", "MoCo v3 (moco_v3)", "recipes/gpu/moco.toml", "  queue = ", "  [teacher]"] {
        assert!(card.contains(words), "{words}: {card}");
    }
    refused(wgrad().args(["methods", "mocco"]), &["mocco", "there are supervised, simclr"]);

    // Methods alone need no device; what is the same of both has no mark, and there is no colour in a pipe.
    let both = run(wgrad().args(["compare", "simclr", "moco"]).env("WGRAD_ADAPTER", "voodoo 2"));
    assert_eq!((both.code, both.err.as_str()), (Some(0), ""));
    for words in ["* method", "  family ", "* paper", "arXiv:2002.05709"] {
        assert!(both.out.contains(words), "{words}: {}", both.out);
    }
    assert!(!both.out.contains('\x1b') && !both.out.contains("accuracy"), "{}", both.out);
    let compared = json(&["compare", "simclr", "moco", "--json"]);
    assert_eq!(compared["differing"], serde_json::json!(["method", "year", "originators", "paper", "related"]));
    assert_eq!(
        (&compared["columns"][0]["measured"], &compared["columns"][1]["method"]["family"]),
        (&Value::Null, &Value::from("contrastive"))
    );
    refused(wgrad().args(["compare", "simclr", "runs/nowhere"]), &["runs/nowhere", "is no run's directory", "no method", "moco"]);
    assert_eq!(run(wgrad().args(["compare", "simclr"])).code, Some(2));
}

#[test]
fn runs_are_measured_side_by_side() {
    let folder = folder();
    let data = data(folder.path());
    let trained = |name: &str, method: &str, seed: usize| {
        let out = folder.path().join(name);
        let made = run(train(method, &data, &out, 2).args(["--set", &format!("seed={seed}"), "--set", "per_class=20"]));
        assert_eq!(made.code, Some(0), "{}", made.err);
        out
    };
    let (encoder, [a, b]) =
        (trained("encoder", "simclr", 0), [0, 1].map(|seed| trained(&format!("classifier-{seed}"), "supervised", seed)));
    let (group, page) = (format!("{},{}", text(&a), text(&b)), folder.path().join("page.html"));
    let found = json(&["compare", text(&encoder), text(&a), &group, "moco", "--html", text(&page), "--json"]);
    let measured = |column: usize| &found["columns"][column]["measured"];
    let number = |column: usize, key: &str| measured(column)[key].as_f64().unwrap_or_else(|| panic!("{key}: {found}"));
    assert_eq!([0, 1, 2].map(|c| measured(c)["labels"].as_i64().unwrap()), [0, 80, 80]);
    assert_eq!((&measured(0)["judged"]["probe"]["draws"], &measured(1)["judged"]), (&Value::from(5), &Value::from("classifier")));
    assert_eq!((measured(2)["runs"].as_i64(), measured(3)), (Some(2), &Value::Null));
    // A share of 40 images, and the standard deviation of two.
    let evaluated = |out: &Path| json(&["eval", text(out), "--json"])["accuracy"].as_f64().unwrap();
    let (one, other) = (evaluated(&a), evaluated(&b));
    assert_eq!(number(1, "accuracy"), one);
    assert!((number(1, "spread") - (one * (1.0 - one) / 40.0).sqrt()).abs() < 1e-12, "{found}");
    assert!((number(2, "accuracy") - (one + other) / 2.0).abs() < 1e-12, "{found}");
    assert!((number(2, "spread") - (one - other).abs() / 2f64.sqrt()).abs() < 1e-12, "{found}");
    // The probe's own figure.
    let probed = json(&["probe", text(&encoder), "--labels", "20", "--json"]);
    let clean = probed["rows"].as_array().unwrap().iter().find(|row| row["protocol"] == "linear, clean images").unwrap();
    assert_eq!((number(0, "accuracy"), number(0, "spread")), (clean["mean"].as_f64().unwrap(), clean["spread"].as_f64().unwrap()));
    assert_eq!(number(1, "parameters") - number(0, "parameters"), 64.0 * 4.0 + 4.0);
    assert_eq!(number(1, "multiply_adds") - number(0, "multiply_adds"), 64.0 * 4.0);
    assert_eq!(number(1, "model_bytes"), fs::metadata(a.join("weights.safetensors")).unwrap().len() as f64);
    assert!((0..3).all(|column| number(column, "images_per_second") > 0.0), "{found}");
    let kept: Value = serde_json::from_slice(&fs::read(a.join("outcome.json")).unwrap()).unwrap();
    assert_eq!((&measured(1)["training"], kept["steps"].as_i64(), kept["images"].as_i64()), (&kept, Some(10), Some(160)));
    let page = fs::read_to_string(page).unwrap();
    for words in ["classifier-0", "MoCo v2", "<svg", "linear probe, 20 labels a class", "2 runs: 40 test images"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("<script") && !page.contains("NaN"));

    let mixed = format!("{},{}", text(&a), text(&encoder));
    refused(wgrad().args(["compare", "simclr", &mixed]), &[text(&encoder), "does not have the recipe of", "side by side"]);
    fs::remove_file(b.join("weights.safetensors")).unwrap();
    refused(wgrad().args(["compare", "simclr", text(&b)]), &["classifier-1", "not finished"]);
}

#[test]
fn the_demo_tells_the_whole_story() {
    let folder = folder();
    let (data, out) = (data(folder.path()), folder.path().join("demo"));
    let told = run(wgrad().args(["demo", "--pretrain-epochs", "1", "--epochs", "1", "--data", text(&data), "--out", text(&out)]));
    assert_eq!(told.code, Some(0), "{}\n{}", told.out, told.err);
    for words in ["student: distilled", "* labels used", "teacher (80 labels)", "* accuracy", "report.html"] {
        assert!(told.out.contains(words), "{words}: {}", told.out);
    }
    assert_eq!(files(&out), ["labels-alone", "pixels", "report.html", "simclr", "student", "summary.json", "teacher"]);
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let labels = summary["comparison"]["columns"].as_array().unwrap().iter().map(|column| column["measured"]["labels"].as_i64().unwrap());
    assert_eq!(labels.collect::<Vec<_>>(), [0, 80, 80, 80, 80]);
}

#[test]
fn shaders_are_emitted_in_every_language() {
    for (language, mark) in [("wgsl", "@compute"), ("msl", "kernel void"), ("hlsl", "[numthreads"), ("glsl", "#version")] {
        let text = done(&["ops", "relu", "--emit", language]).out;
        assert!(text.contains(mark) && text.contains("// elementwise/map"), "{language}: {text}");
    }
    let spirv = wgrad().args(["ops", "relu", "--emit", "spirv"]).output().unwrap().stdout;
    assert_eq!(spirv[..4], [3, 2, 0x23, 7], "SPIR-V's magic number");
    let folder = folder();
    done(&["ops", "matmul", "--emit", "spirv", "--out", text(folder.path())]);
    assert!(files(folder.path()).len() > 1);
    for file in files(folder.path()) {
        assert_eq!(fs::read(folder.path().join(&file)).unwrap()[..4], [3, 2, 0x23, 7], "{file}");
    }
}

#[test]
fn doctor_gives_a_verdict() {
    let found = done(&["doctor", "--only", "relu"]).out;
    assert!(found.contains("verdict: HEALTHY") && found.contains("schedule cpu") && found.contains("schedule simd"), "{found}");
    let found = json(&["doctor", "--only", "matmul", "--json"]);
    assert_eq!(found["healthy"], true);
    assert!(found["checks"].as_array().unwrap().iter().all(|check| check["worst"].as_f64().unwrap() <= 1.0));
    refused(wgrad().args(["doctor", "--only", "nope"]), &["doctor", "nope"]);
}

#[test]
fn a_dry_run_tells_what_a_run_costs_and_leaves_nothing() {
    let folder = folder();
    let (data, out) = (data(folder.path()), folder.path().join("run"));
    let plain = run(train("simclr", &data, &out, 5).arg("--dry-run"));
    assert_eq!(plain.code, Some(0), "{}", plain.err);
    for word in ["conv3", "parameters", "device memory", "MiB", "expected time", "30 steps"] {
        assert!(plain.out.contains(word), "{}", plain.out);
    }
    let found: Value = serde_json::from_str(&run(train("supervised", &data, &out, 5).args(["--dry-run", "--json"])).out).unwrap();
    assert_eq!(found["steps"], 30);
    // Three convolutions, three norms, the classifier of 4 classes.
    assert_eq!(found["parameters"], 9 * (16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + 64 * 4 + 4);
    for key in ["device_memory_bytes", "expected_seconds", "multiply_adds_per_image"] {
        assert!(found[key].as_f64().unwrap() > 0.0, "{found}");
    }
    assert!(!out.exists());
}

#[test]
fn json_metrics_go_to_stdout_and_everything_else_to_stderr() {
    let folder = folder();
    let (data, out) = (data(folder.path()), folder.path().join("run"));
    let found = run(train("simclr", &data, &out, 4).arg("--json"));
    assert_eq!(found.code, Some(0), "{}", found.err);
    let kinds: Vec<Value> = found.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["epoch", "epoch", "epoch", "step", "epoch"]);
    assert_eq!(found.out, fs::read_to_string(out.join("metrics.jsonl")).unwrap());
    assert_eq!(files(&out), ["checkpoints", "environment.json", "metrics.jsonl", "outcome.json", "recipe.toml", "weights.safetensors"]);
    assert_eq!(files(&out.join("checkpoints")), ["last.safetensors"]);
    assert!(found.err.contains("finished in"), "{}", found.err);
    let environment: Value = serde_json::from_slice(&fs::read(out.join("environment.json")).unwrap()).unwrap();
    assert!(environment["arguments"].as_array().unwrap().contains(&Value::from("simclr")));

    // The encoder is probed beside a random one and pixels; a classifier it is not.
    let probed = json(&["probe", text(&out), "--labels", "2", "--draws", "2", "--views", "1", "--json"]);
    let linear: Vec<&Value> = probed["rows"].as_array().unwrap().iter().filter(|row| row["protocol"] == "linear").collect();
    let sources: Vec<&str> = linear.iter().map(|row| row["features"].as_str().unwrap()).collect();
    assert_eq!(sources, ["trained encoder", "random encoder", "raw pixels"]);
    assert!(linear.iter().all(|row| row["draws"].as_array().unwrap().len() == 2));
    refused(wgrad().args(["eval", text(&out)]), &[text(&out), "wgrad probe"]);
    let picture = folder.path().join("similarity.png");
    let said = done(&["similarity", text(&out), "--per-class", "3", "--out", text(&picture)]).out;
    assert!(said.contains("two views of one image") && fs::read(&picture).unwrap().starts_with(b"\x89PNG"), "{said}");
    // Its features are drawn, beside the same two.
    let drawn = folder.path().join("drawn");
    let embedded = json(&["embed", text(&out), "--method", "pca", "--images", "20", "--thumbnails", "--out", text(&drawn), "--json"]);
    assert_eq!((embedded["images"].as_i64(), embedded["kmeans"].as_array().unwrap().len()), (Some(20), 3), "{embedded}");
    done(&["embed", text(&out), "--perplexity", "5", "--iterations", "20", "--out", text(&drawn)]);
    assert_eq!(files(&drawn), ["pca.csv", "pca.png", "tsne.csv", "tsne.png"]);
    let table = fs::read_to_string(drawn.join("tsne.csv")).unwrap();
    assert!(table.starts_with("index,label,class,cluster,x,y\n") && table.lines().count() == 41, "{table}");
    refused(wgrad().args(["embed", text(&out), "--perplexity", "90", "--out", text(&drawn)]), &["t-SNE", "perplexity of 90", "found 40"]);
    refused(&mut train("simclr", &data, &out, 4), &[text(&out), "holds a run already"]);
    refused(wgrad().args(["train", "supervised", "--resume", "--out", text(&out)]), &["simclr"]);
    // A finished run has nothing left to do.
    done(&["train", "simclr", "--resume", "--out", text(&out)]);
}

#[test]
fn pictures_made_from_the_bundled_data_are_classified() {
    let folder = folder();
    let out = folder.path().join("run");
    let recipe = folder.path().join("pixels.toml");
    fs::write(&recipe, "model = \"pixels\"\nbatch = 128\nepochs = 4\nlearning_rate = 0.05\n[options]\nlabel_smoothing = 0.0\n").unwrap();
    done(&["train", "supervised", "--recipe", text(&recipe), "--out", text(&out)]);
    let found = json(&["eval", text(&out), "--json"]);
    assert_eq!(found["images"], 2000);
    assert!(found["accuracy"].as_f64().unwrap() > 0.78, "{found}");
    assert!(done(&["eval", text(&out)]).out.contains("Ankle boot"));

    let test = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fashion-mnist"), Split::Test).unwrap();
    let names: Vec<PathBuf> = (0..30).map(|i| folder.path().join(format!("picture {i}.png"))).collect();
    for (i, name) in names.iter().enumerate() {
        image::GrayImage::from_raw(28, 28, test.image(i).unwrap().to_vec()).unwrap().save(name).unwrap();
    }
    let mut arguments = vec!["predict", "--run", text(&out), "--top", "10", "--json"];
    arguments.extend(names.iter().map(|n| text(n)));
    let predicted = json(&arguments);
    let mut right = 0;
    for (i, picture) in predicted.as_array().unwrap().iter().enumerate() {
        assert_eq!(picture["picture"], text(&names[i]));
        let classes = picture["classes"].as_array().unwrap();
        let sum: f64 = classes.iter().map(|c| c["probability"].as_f64().unwrap()).sum();
        assert!(classes.len() == 10 && (sum - 1.0).abs() < 1e-6);
        right += usize::from(classes[0]["class"] == test.class_names()[test.label(i).unwrap() as usize].as_str());
    }
    assert!(predicted.as_array().unwrap().len() == 30 && right > 20, "{right} of 30");
    let plain = done(&["predict", "--run", text(&out), text(&names[0])]).out;
    assert!(plain.contains("picture 0.png") && plain.lines().count() == 7, "{plain}");

    let whole = fs::read(&names[0]).unwrap();
    let broken = folder.path().join("broken.png");
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    refused(wgrad().args(["predict", "--run", text(&out), text(&broken)]), &["broken.png"]);
    fs::write(&broken, "no picture").unwrap();
    refused(wgrad().args(["predict", "--run", text(&out), text(&broken)]), &["broken.png", "PNG or JPEG"]);
    refused(wgrad().args(["predict", "--run", text(&out), "nowhere.png"]), &["nowhere.png", "no such file"]);

    let weights = out.join("weights.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 5]).unwrap();
    refused(wgrad().args(["eval", text(&out)]), &["weights.safetensors", "no complete safetensors file"]);
    fs::remove_file(&weights).unwrap();
    refused(wgrad().args(["eval", text(&out)]), &["not finished", "--resume"]);
}

#[test]
fn bad_input_is_named_and_leaves_nothing() {
    let folder = folder();
    // The name gives it the ten classes of Fashion-MNIST.
    let good = data_called(folder.path(), "fashion-data");
    let out = folder.path().join("run");
    let try_data = |path: &Path, words: &[&str]| {
        refused(&mut train("supervised", path, &out, 1), words);
        assert!(!out.exists());
    };
    try_data(&folder.path().join("missing"), &["missing", "no such file or folder"]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    try_data(&empty, &["empty", "found no data set", "train-images-idx3-ubyte"]);

    let labels = good.join("train-labels-idx1-ubyte");
    let images = good.join("train-images-idx3-ubyte");
    let (whole_labels, whole_images) = (fs::read(&labels).unwrap(), fs::read(&images).unwrap());
    let mut wrong = whole_labels.clone();
    wrong[8 + 5] = 200;
    fs::write(&labels, wrong).unwrap();
    try_data(&good, &["data", "200", "5"]);
    fs::write(&labels, idx(&[0], &[])).unwrap();
    try_data(&good, &["data"]);
    fs::write(&labels, &whole_labels).unwrap();
    for length in [0, 3, 10, whole_images.len() - 1] {
        fs::write(&images, &whole_images[..length]).unwrap();
        try_data(&good, &["train-images-idx3-ubyte"]);
    }
    fs::remove_file(&images).unwrap();
    fs::write(good.join("train-images-idx3-ubyte.gz"), [0x1f, 0x8b, 8, 0, 1, 2, 3]).unwrap();
    try_data(&good, &["train-images-idx3-ubyte.gz"]);
    fs::remove_file(good.join("train-images-idx3-ubyte.gz")).unwrap();
    fs::write(&images, &whole_images).unwrap();

    let by_class = folder.path().join("by class");
    fs::create_dir_all(by_class.join("a")).unwrap();
    fs::write(by_class.join("a/x.png"), b"\x89PNG\r\n\x1a\n and no more").unwrap();
    try_data(&by_class, &["x.png"]);

    for (value, words) in [
        ("epoch=3", &["epoch=3", "there is no such key"][..]),
        ("epochs=many", &["epochs=many", "expected a value like"]),
        ("epochs=0", &["epochs", "found 0"]),
        ("model=resnet9000", &["resnet9000", "mobilenetv1_100"]),
        ("batch=97", &["1 to 96, found 97"]),
        ("method=simclr", &["wgrad train simclr"]),
    ] {
        refused(train("supervised", &good, &out, 1).args(["--set", value]), words);
        assert!(!out.exists(), "{value}");
    }
    let recipe = folder.path().join("recipe.toml");
    refused(wgrad().args(["train", "simclr", "--recipe", text(&recipe)]), &["recipe.toml", "no such file"]);
    fs::write(&recipe, "epochs = 2\nbatsch = 16\n").unwrap();
    refused(wgrad().args(["train", "supervised", "--recipe", text(&recipe)]), &["recipe.toml", "line 2", "batsch"]);

    refused(wgrad().args(["ops", "relu9"]), &["relu9", "wgrad ops"]);
    refused(wgrad().arg("info").env("WGRAD_ADAPTER", "voodoo 2"), &["voodoo 2", "0: "]);
    refused(wgrad().arg("info").env("WGRAD_LIMITS", "none"), &["WGRAD_LIMITS", "webgpu"]);
    refused(wgrad().arg("info").env("WGRAD_TUNING", "random:x"), &["WGRAD_TUNING", "random:SEED"]);
    refused(wgrad().arg("info").env("WGRAD_TUNING", empty.join("table")), &["empty/table", "no such file"]);
    refused(wgrad().args(["tune", "no such workload"]), &["no such workload", "wgrad bench --list"]);
    let trace = folder.path().join("trace.json");
    refused(train("supervised", &good, &out, 1).arg("--profile").arg(&trace).env("WGRAD_LIMITS", "webgpu"), &["time stamps"]);
    assert!(!out.exists() && !trace.exists());
    refused(wgrad().args(["eval", text(&empty)]), &["empty", "holds no run"]);
    refused(wgrad().args(["train", "simclr", "--resume", "--out", text(&empty)]), &["empty", "holds no run"]);
    refused(wgrad().args(["demo", "--out", text(&good)]), &["data", "holds no demo"]);
    refused(train("simclr", &good, &out, 1).env("WGRAD_MEMORY_MIB", "0"), &["out of device memory", "WGRAD_MEMORY_MIB"]);
    assert!(!out.exists());
}

#[test]
fn commands_use_the_table_of_their_adapter_unless_told_otherwise() {
    let folder = folder();
    let info = |tuning: Option<&str>| -> Value {
        let mut command = wgrad();
        command.args(["info", "--json"]).env_remove("WGRAD_TUNING").env_remove("WGRAD_LIMITS");
        for cache in ["XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"] {
            command.env(cache, folder.path());
        }
        tuning.map(|tuning| command.env("WGRAD_TUNING", tuning));
        serde_json::from_str(&run(&mut command).out).unwrap()
    };
    let before = info(None);
    assert_eq!(before["tuning_table"], "none");
    let (chosen, file) = (&before["chosen"], Path::new(before["tuning_file"].as_str().unwrap()));
    assert!(file.starts_with(folder.path()), "{}", file.display());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let table = |driver: &str| format!("wgrad tuning 1 | {} | {driver}\nlinear/gemm.schedule 0 1\n", chosen["name"].as_str().unwrap());
    fs::write(file, table(chosen["driver"].as_str().unwrap())).unwrap();
    let hash = info(None)["tuning_table"].clone();
    assert_eq!(hash.as_str().map(str::len), Some(16), "{hash}");
    assert_eq!(info(Some("off"))["tuning_table"], "none");
    assert_eq!(info(file.to_str())["tuning_table"], hash);
    assert!(![&hash, &Value::from("none")].contains(&&info(Some("random:1"))["tuning_table"]));
    // After an update of the driver it may be wrong.
    fs::write(file, table("another")).unwrap();
    assert_eq!(info(None)["tuning_table"], "none");
}

#[test]
fn a_run_that_cannot_be_written_says_so_and_leaves_no_part_of_a_file() {
    let folder = folder();
    let data = data(folder.path());
    let below_a_file = data.join("train-labels-idx1-ubyte/run");
    refused(&mut train("supervised", &data, &below_a_file, 1), &["train-labels-idx1-ubyte/run"]);
}

/// Ends the program for certain, whatever becomes of the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
mod unix {
    use super::*;

    fn spawn(command: &mut Command) -> Guard {
        Guard(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits until the checkpoint in `run` has gone beyond step `beyond`.
    fn checkpoint_beyond(run: &Path, beyond: u64, child: &mut Guard) -> u64 {
        let begun = Instant::now();
        let path = run.join("checkpoints/last.safetensors");
        loop {
            if let Some(step) = wgrad::train::Checkpoint::load(&path).ok().map(|c| c.position.step).filter(|step| *step > beyond) {
                return step;
            }
            assert!(child.0.try_wait().unwrap().is_none(), "the run ended before it could be interrupted");
            assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint came");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(child: &Guard, name: &str) {
        assert!(Command::new("kill").args([name, &child.0.id().to_string()]).status().unwrap().success());
    }

    #[test]
    fn a_killed_and_an_interrupted_run_go_on_to_the_same_weights() {
        let folder = folder();
        let data = data(folder.path());
        let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
        let epochs = 50;
        assert_eq!(run(&mut train("supervised", &data, &whole, epochs)).code, Some(0));

        let mut killed = spawn(&mut train("supervised", &data, &out, epochs));
        let step = checkpoint_beyond(&out, 0, &mut killed);
        killed.0.kill().unwrap();
        assert_eq!(killed.0.wait().unwrap().code(), None);
        assert!(!out.join("weights.safetensors").exists());

        let resume = || {
            let mut command = wgrad();
            command.args(["train", "supervised", "--resume", "--out"]).arg(&out);
            command
        };
        let mut interrupted = spawn(&mut resume());
        checkpoint_beyond(&out, step, &mut interrupted);
        signal(&interrupted, "-INT");
        let status = interrupted.0.wait().unwrap();
        assert_eq!(status.code(), Some(130));
        let mut words = String::new();
        std::io::Read::read_to_string(interrupted.0.stderr.as_mut().unwrap(), &mut words).unwrap();
        assert!(words.contains("--resume --out") && !words.contains("panicked"), "{words}");
        assert!(!out.join("weights.safetensors").exists());

        let spent = |run: &Path| -> Value { serde_json::from_slice(&fs::read(run.join("outcome.json")).unwrap()).unwrap() };
        // As if it had taken a million seconds so far: what a run has taken is summed over its resumptions.
        let mut before = spent(&out);
        assert!(before["steps"].as_u64() > Some(step), "{before}");
        before["seconds"] = 1e6.into();
        fs::write(out.join("outcome.json"), before.to_string()).unwrap();
        let rest = run(&mut resume());
        assert_eq!(rest.code, Some(0), "{}", rest.err);
        let (after, at_once) = (spent(&out), spent(&whole));
        assert_eq!([&after["steps"], &after["images"]], [&at_once["steps"], &at_once["images"]]);
        assert!(after["seconds"].as_f64() > Some(1e6), "{after}");
        assert!(rest.err.contains("resuming after step"), "{}", rest.err);
        assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), fs::read(whole.join("weights.safetensors")).unwrap());
        let lines = |run: &Path| {
            let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
            let parse = |line: &str| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                line.as_object_mut().unwrap().remove("images_per_second");
                line
            };
            text.lines().map(parse).collect::<Vec<_>>()
        };
        assert_eq!(lines(&out), lines(&whole));
    }

    /// A limit on the size of files, with its signal ignored, stops writing amid a file as a full disk does.
    #[test]
    fn a_full_disk_is_a_typed_error_and_leaves_no_part_of_a_file() {
        let folder = folder();
        let (data, out) = (data(folder.path()), folder.path().join("run"));
        let mut full = Command::new("sh");
        full.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$@\"", "sh"]);
        let inner = train("supervised", &data, &out, 2);
        full.arg(inner.get_program()).args(inner.get_args()).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        full.env("MESA_SHADER_CACHE_DISABLE", "true");
        refused(&mut full, &["last.safetensors"]);
        assert_eq!(files(&out.join("checkpoints")), [""; 0]);
        assert_eq!(files(&out), ["checkpoints", "environment.json", "recipe.toml"]);
        // With room again the same command does its work.
        assert_eq!(run(&mut train("supervised", &data, &out, 1)).code, Some(0));

        if Path::new("/dev/full").exists() {
            let mut command = wgrad();
            command.arg("info").stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
            refused(&mut command, &["stdout", "no space left"]);
        }
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_program_quietly() {
        let mut child =
            Guard(wgrad().args(["ops", "conv2d", "--emit", "wgsl"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        drop(child.0.stdout.take());
        let status = child.0.wait().unwrap();
        let mut words = String::new();
        std::io::Read::read_to_string(child.0.stderr.as_mut().unwrap(), &mut words).unwrap();
        assert_eq!((status.code(), words.as_str()), (Some(141), ""));
    }
}

#[test]
fn data_says_what_it_holds_and_previews_repeat() {
    let folder = TempDir::new().unwrap();
    let data = data_called(folder.path(), "data");
    let data = data.to_str().unwrap();
    let train = json(&["data", data, "--json"]);
    assert_eq!((&train["images"], &train["size"], &train["split"]), (&96.into(), &serde_json::json!([16, 16, 1]), &"train".into()));
    assert!(train["classes"].as_array().unwrap().iter().take(4).all(|class| class["images"] == 24), "{train}");
    assert!((0.1..0.6).contains(&train["mean"][0].as_f64().unwrap()));
    assert!(done(&["data", data, "--test"]).out.contains("40 images of 16x16x1"));
    let sheet = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        done(&[&["data", data, "--images", "3", "--out", out.to_str().unwrap(), "--preview"], more].concat());
        fs::read(out).unwrap()
    };
    let views = ["grey_dino_global_1, 2 grey_dino_local", "--seed", "4"];
    let first = sheet("a.png", &views);
    assert!(first.starts_with(b"\x89PNG") && first == sheet("b.png", &views));
    assert_ne!(first, sheet("c.png", &[views[0], "--seed", "5"]));
    assert_ne!(first, sheet("d.png", &[&views[..], &["--epoch", "1"]].concat()));
    assert_ne!(sheet("e.png", &["grey_simclr", "--epochs", "2"]), sheet("f.png", &["grey_simclr", "--epochs", "3"]));
    refused(wgrad().args(["data", data, "--preview", "simclr3"]), &["no preset called \"simclr3\"", "grey_simclr"]);
}
