//! Methods and finished runs side by side, and the demo, by the built program.

use std::fs;
use std::path::Path;

use crate::common::program::{data, done, files, folder, json, refused, run, text, train, wgrad};
use serde_json::Value;

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
    refused(wgrad().args(["methods", "mocco"]), &["there is no \"mocco\"; did you mean \"moco\"? There are supervised, simclr"]);

    // Methods alone need no device; what is the same of both has no mark, and there is no colour in
    // a pipe.
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
    // Every run's curve, over its own epochs; no images were held out to be judged by.
    let mean = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().last().map(serde_json::from_str::<Value>);
    for (name, run) in [("1 · encoder", &encoder), ("2 · classifier-0", &a), ("3 · classifier-0", &a), ("3 · classifier-1", &b)] {
        let loss = mean(run).unwrap().unwrap()["loss"].as_f64().unwrap();
        let shown = if loss < 1.0 { format!("{loss:.3}") } else { format!("{loss:.2}") };
        for words in [format!("<title>{name}, epoch 2: {shown}<"), format!(">{name}</text>")] {
            assert!(page.contains(&words), "{words}");
        }
    }
    for (words, there) in [("Loss, mean of each epoch", true), ("Learning rate", true), ("Share of validation images", false)] {
        assert_eq!(page.contains(words), there, "{words}");
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
    assert_eq!(labels.collect::<Vec<_>>(), [0, 80, 0, 80, 80]);
}
