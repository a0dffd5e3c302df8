//! The built program, as its users run it: results on stdout, words on stderr, exit codes, bad
//! input.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::program::{data, done, files, folder, json, refused, run, text, train, wgrad};
use crate::common::tiny::{data_called, idx};
use serde_json::Value;
use tempfile::TempDir;
use wgrad::data::{Split, open};
use wgrad::io::{Archive, HostTensor};

#[test]
fn help_names_every_command_and_misuse_is_code_2() {
    let help = done(&["--help"]).out;
    for command in ["info", "methods", "recipe", "doctor", "ops", "train", "probe", "embed", "eval", "predict", "report", "compare", "demo"]
    {
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
        assert_eq!(listed["shaders"].as_array().unwrap().len(), entry.shaders().len(), "{}", entry.name);
    }
    let matmul = json(&["ops", "matmul", "--json"]);
    assert_eq!(matmul[0]["schedules"], serde_json::json!(["software", "gpu", "matrix"]));
    assert!(done(&["ops", "matmul"]).out.contains("linear/gemm_gpu"));
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
    let found = done(&["doctor", "--only", "relu", "--both"]).out;
    assert!(found.contains("verdict: HEALTHY") && found.contains("schedule software") && found.contains("schedule gpu"), "{found}");
    let found = json(&["doctor", "--only", "softmax", "--both", "--json"]);
    assert_eq!(found["healthy"], true);
    let checks = found["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["worst"].as_f64().unwrap() <= 1.0));
    for schedule in ["software", "gpu"] {
        assert!(checks.iter().any(|check| check["schedule"] == schedule && check["storage"] == "f16"), "{found}");
    }
    let run = |name: &str, value: &str| {
        let output = wgrad().args(["doctor", "--only", "relu"]).env(name, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let found = run("WGRAD_SCHEDULE", "gpu");
    assert!(found.contains("schedule gpu (WGRAD_SCHEDULE asks for it)") && !found.contains("schedule software"), "{found}");
    assert!(found.contains("only schedule gpu was checked") && found.contains("HEALTHY"), "{found}");
    let found = run("WGRAD_LIMITS", "webgpu");
    assert!(found.contains("f16 storage was not checked") && found.contains("HEALTHY"), "{found}");
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
    assert_eq!(
        files(&out),
        ["checkpoints", "environment.json", "metrics.jsonl", "outcome.json", "recipe.toml", "report.html", "weights.safetensors"]
    );
    assert_eq!(files(&out.join("checkpoints")), ["last.safetensors", "previous.safetensors"]);
    assert!(found.err.contains("finished in"), "{}", found.err);
    let environment: Value = serde_json::from_slice(&fs::read(out.join("environment.json")).unwrap()).unwrap();
    assert!(environment["command"].as_str().unwrap().contains(" train simclr "));

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

    // Features that are not finite are no features: of finite weights that overflow, and of weights
    // that are none.
    let (weights, words) = (out.join("weights.safetensors"), &["NaN or infinity"]);
    for (value, words) in
        [(3e38, &["the network's outputs", "NaN or infinity"][..]), (f32::NAN, &["weights.safetensors", "\"bn3.weight\" (64 of 64"])]
    {
        set_all(&weights, "bn3.weight", value);
        refused(wgrad().args(["probe", text(&out), "--labels", "2", "--draws", "1"]), words);
        refused(wgrad().args(["similarity", text(&out), "--per-class", "3", "--out", text(&picture)]), words);
        refused(wgrad().args(["embed", text(&out), "--out", text(&drawn)]), words);
    }
    let tuned = folder.path().join("tuned");
    refused(train("supervised", &data, &tuned, 2).args(["--weights", text(&weights), "--freeze", "backbone"]), words);
    assert!(!tuned.exists());
    let checkpoint = out.join("checkpoints/last.safetensors");
    set_all(&checkpoint, "model.bn3.weight", f32::INFINITY);
    refused(wgrad().args(["train", "simclr", "--resume", "--out", text(&out)]), words);
}

/// A PNG file of one row of zeros, with a header of `side` pixels a side, one bit each, and these
/// parts after it.
#[cfg(target_os = "linux")]
fn png(side: u32, parts: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let rows = deflated((1 + side.div_ceil(8) as usize) * side.min(64) as usize);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, contents) in [(b"IHDR", header)].iter().chain(parts).chain(&[(b"IDAT", rows), (b"IEND", vec![])]) {
        let checked = [&kind[..], contents].concat();
        file.extend([&(contents.len() as u32).to_be_bytes()[..], &checked, &crc32fast::hash(&checked).to_be_bytes()].concat());
    }
    file
}

#[cfg(target_os = "linux")]
fn deflated(zeros: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), zeros as u64), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// Small files that unpack to much: they are refused, or read without what they promise, by a
/// program that may have 600 MB.
#[cfg(target_os = "linux")]
#[test]
fn picture_bombs_need_no_memory() {
    let folder = folder();
    let ran = |bytes: &[u8], name: &str, most: &str| {
        let class = folder.path().join(name).join("class");
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(name), bytes).unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -v 600000; exec \"$0\" data \"$1\"", env!("CARGO_BIN_EXE_wgrad")]).arg(folder.path().join(name));
        run(shell.env("MALLOC_ARENA_MAX", "1").env("WGRAD_PICTURE_MPIXELS", most))
    };
    let text = deflated(512 << 20);
    let chunks = [
        (b"iCCP", [b"a\0\0", &text[..]].concat()),
        (b"zTXt", [b"a\0\0", &text[..]].concat()),
        (b"iTXt", [b"a\0\x01\0\0\0", &text[..]].concat()),
    ];
    let found = ran(&png(64, &chunks), "texts.png", "");
    assert_eq!((found.code, found.out.contains("1 images")), (Some(0), true), "{}", found.err);
    let jpeg = include_bytes!("../pictures/bomb.jpg");
    for (name, bytes, size) in [("wide.png", png(32_767, &[]), "32767x32767"), ("bomb.jpg", jpeg.to_vec(), "27756x28277")] {
        let found = ran(&bytes, name, "");
        assert_eq!((found.code, found.out.as_str()), (Some(1), ""), "{}", found.err);
        for word in [name, size, "the limit is 64 million", "WGRAD_PICTURE_MPIXELS"] {
            assert!(found.err.contains(word), "{word}: {}", found.err);
        }
    }
    let found = ran(&png(1010, &[]), "smaller.png", "1");
    assert!(found.code == Some(1) && found.err.contains("the limit is 1 million"), "{}", found.err);
    let found = ran(&png(64, &[]), "setting.png", "many");
    assert!(found.code == Some(1) && found.err.contains("expected 1 to 1000 million pixels, found \"many\""), "{}", found.err);
}

/// Writes `value` over a tensor of a file.
fn set_all(file: &Path, name: &str, value: f32) {
    let mut archive = Archive::load(file).unwrap();
    let Some(HostTensor::F32(_, data)) = archive.tensors.get_mut(name) else { panic!("{name}") };
    data.fill(value);
    archive.save(file).unwrap();
}

#[test]
fn recipes_are_printed_in_their_present_form() {
    let folder = folder();
    let all = done(&["recipe", "dino", "--set", "optimizer=rmsprop", "--set", "alpha=0.9"]).out;
    for line in ["version = 2", "name = \"dino\"", "prototypes = ", "name = \"rmsprop\"", "alpha = 0.9", "warm_up_epochs = 0.5"] {
        assert!(all.contains(&format!("\n{line}")) || all.starts_with(line), "{line}\n{all}");
    }
    let old = folder.path().join("old.toml");
    fs::write(&old, "# Two tasks.\nmethod = \"multitask\"\ntasks = \"kind: 5+7, 0\"\nlearning_rate = 0.05\n[options]\nalpha = 2.0\n")
        .unwrap();
    let printed = done(&["recipe", text(&old)]).out;
    let expected = "# Two tasks.\nversion = 2\n\n[method]\nname = \"multitask\"\nalpha = 2.0\n\n[data]\n\
                    tasks = [{ classes = [[5, 7], 0], name = \"kind\" }]\n\n[optimizer]\nlearning_rate = 0.05\n";
    assert_eq!(printed, expected);
    let new = folder.path().join("new.toml");
    fs::write(&new, &printed).unwrap();
    assert_eq!(done(&["recipe", text(&new)]).out, printed);
    assert_eq!(done(&["recipe", text(&new), "--full"]).out, done(&["recipe", text(&old), "--full"]).out);
    refused(wgrad().args(["recipe", "simclear"]), &["there is no \"simclear\"; did you mean \"simclr\"?"]);
    refused(wgrad().args(["recipe", "none.toml"]), &["none.toml: no such file"]);
}

#[test]
fn pictures_made_from_the_bundled_data_are_classified() {
    let folder = folder();
    let out = folder.path().join("run");
    let recipe = folder.path().join("pixels.toml");
    fs::write(&recipe, "model = \"pixels\"\nbatch = 128\nepochs = 4\nlearning_rate = 0.05\n[options]\nlabel_smoothing = 0.0\n").unwrap();
    // A recipe of version 1.
    let words = done(&["train", "supervised", "--recipe", text(&recipe), "--out", text(&out)]).err;
    assert!(words.contains("pixels.toml is a recipe of version 1; `wgrad recipe "), "{words}");
    let found = json(&["eval", text(&out), "--json"]);
    assert_eq!(found["images"], 2000);
    assert!(found["accuracy"].as_f64().unwrap() > 0.78, "{found}");
    assert!(done(&["eval", text(&out)]).out.contains("Ankle boot"));

    let test = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fashion-mnist"), Split::Test).unwrap();
    let names: Vec<PathBuf> = (0..30).map(|i| folder.path().join(format!("picture {i}.png"))).collect();
    for (i, name) in names.iter().enumerate() {
        image::GrayImage::from_raw(28, 28, test.image(i).unwrap().unwrap().to_vec()).unwrap().save(name).unwrap();
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
    refused(wgrad().args(["predict", "--run", text(&out), text(&broken)]), &["broken.png", "PNG, JPEG, WebP"]);
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
    // As many as a batch takes: they are read when it is.
    for i in 100..200 {
        fs::write(by_class.join(format!("a/{i}.png")), b"\x89PNG\r\n\x1a\n and no more").unwrap();
    }
    try_data(&by_class, &["1", ".png", "expected a PNG"]);

    for (value, words) in [
        ("epoch=3", &["epoch=3", "there is no key \"epoch\"; did you mean epochs?"][..]),
        ("epochs=many", &["epochs=many", "expected a whole number like 5, found \"many\""]),
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
    refused(wgrad().args(["train", "supervised", "--recipe", text(&recipe)]), &["recipe.toml", "line 2", "did you mean \"batch\"?"]);

    refused(wgrad().args(["ops", "relu9"]), &["relu9", "wgrad ops"]);
    refused(wgrad().arg("info").env("WGRAD_ADAPTER", "voodoo 2"), &["voodoo 2", "0: "]);
    refused(wgrad().arg("info").env("WGRAD_LIMITS", "none"), &["WGRAD_LIMITS", "webgpu"]);
    refused(wgrad().arg("info").env("WGRAD_TUNING", "random:x"), &["WGRAD_TUNING", "random:SEED"]);
    refused(wgrad().arg("info").env("WGRAD_TUNING", empty.join("table")), &["empty/table", "no such file"]);
    refused(wgrad().args(["tune", "no such workload"]), &["no such workload", "wgrad bench --list"]);
    let trace = folder.path().join("trace.json");
    refused(train("supervised", &good, &out, 1).arg("--profile").arg(&trace).env("WGRAD_TRACE_NON_FINITE", "1"), &["not recorded"]);
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
    refused(wgrad().args(["data", data, "--preview", "simclr3"]), &["there is no \"simclr3\"", "did you mean \"simclr\"?", "grey_simclr"]);
}

/// The error comes first, and then the end, although the driver goes on.
#[test]
fn a_kernel_that_does_not_end_ends_the_command() {
    let (kernel, dir) = (
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn run() { loop { y[0] += 1.0; if (y[0] < 0.0) { break; } } }",
        folder(),
    );
    let path = dir.path().join("endless.wgsl");
    fs::write(&path, kernel).unwrap();
    let mut command = wgrad();
    command.args(["bench", text(&path), "--bind", "y=f32[64]:zero", "--grid", "65535"]).env("WGRAD_TIMEOUT_SECONDS", "1");
    refused(&mut command, &["the GPU device was lost"]);
}
