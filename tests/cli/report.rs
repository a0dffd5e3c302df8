//! A run's page, and the looks that it shows, by the built program.

use std::fs;

use crate::common::program::{data, done, folder, json, refused, run, text, train, wgrad};
use serde_json::Value;

#[test]
fn a_run_shows_what_it_has_written_down() {
    let folder = folder();
    let (data, out) = (data(folder.path()), folder.path().join("run"));
    let settings = ["split=0.25", "ema=0.5", "tasks="];
    let trained = run(train("supervised", &data, &out, 6).args(settings.iter().flat_map(|setting| ["--set", setting])));
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    assert!(
        trained.err.contains("supervised epoch 6 validation: top-1 ") && trained.err.contains("; averaged weights: top-1 "),
        "{}",
        trained.err
    );
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for words in [
        "supervised of ",
        "6 of 6 epochs",
        "What it mistakes",
        "<th>0</th>",
        "What it was shown",
        "data:image/png;base64,",
        "split = 0.25",
        "Learning rate",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // One file: nothing is fetched, no script is run.
    assert!(!page.contains("src=\"http") && !page.contains("<script") && !page.contains("<link"));
    let lines: Vec<Value> =
        fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let looks: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "validation").collect();
    assert_eq!(looks.len(), 6);
    // Every point of a curve says its step, and its value as three digits.
    for look in &looks {
        let loss = look["loss"].as_f64().unwrap();
        let shown = if loss < 1.0 { format!("{loss:.3}") } else { format!("{loss:.2}") };
        let point = format!("validation, step {}: {shown}<", look["step"]);
        assert!(page.contains(&point), "{point}");
    }
    let best = looks.iter().rev().find(|look| look["best"] == true).unwrap();
    let fact = format!("{:.2} % (averaged top 1), epoch {}", 100.0 * best["averaged_top_1"].as_f64().unwrap(), best["epoch"]);
    assert!(page.contains(&fact), "{fact}");

    // The best weights stand for the run, and the page can be made anew.
    let best = out.join("best.safetensors");
    for command in [&["eval", text(&best)][..], &["probe", text(&best), "--labels", "5"], &["compare", text(&best), text(&out)]] {
        json(&[command, &["--json"]].concat());
    }
    let other = folder.path().join("page.html");
    assert_eq!(done(&["report", text(&out), "--out", text(&other)]).out.trim(), text(&other));
    let title = |page: &str| page.lines().filter(|line| !line.starts_with("<footer>")).map(String::from).collect::<Vec<_>>();
    assert_eq!(title(&fs::read_to_string(&other).unwrap()), title(&page));
    refused(wgrad().args(["report", text(folder.path())]), &["holds no run"]);
}

#[test]
fn a_run_without_labels_is_judged_by_neighbours_and_drawn() {
    let folder = folder();
    let (data, out) = (data(folder.path()), folder.path().join("run"));
    let trained = run(train("simclr", &data, &out, 6).args(["--set", "split=0.25", "--set", "validation.every=6", "--json"]));
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    let looks: Vec<Value> =
        trained.out.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["kind"] == "validation").collect();
    assert_eq!(looks.len(), 1, "{}", trained.out);
    assert!(looks[0]["knn"].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)) && looks[0]["epoch"] == 6);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for words in ["nearest neighbours", "Effective rank", "What it was shown"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("What it mistakes"));
}

#[test]
fn a_finished_run_goes_on_for_more_epochs() {
    let folder = folder();
    let data = data(folder.path());
    let [short, long] = ["short", "long"].map(|name| folder.path().join(name));
    let constant = ["--set", "schedule=constant"];
    for (out, epochs) in [(&short, 2), (&long, 4)] {
        assert_eq!(run(train("supervised", &data, out, epochs).args(constant)).code, Some(0));
    }
    let resume = |epochs: &str| {
        let mut command = wgrad();
        command.args(["train", "supervised", "--resume", "--epochs", epochs, "--out", text(&short)]);
        command
    };
    refused(&mut resume("1"), &["in epoch 2 already"]);
    let went_on = run(&mut resume("4"));
    assert_eq!(went_on.code, Some(0), "{}", went_on.err);
    assert!(went_on.err.contains("goes on to epoch 4; it began with 2"), "{}", went_on.err);
    // A rate that does not depend on the length: as if it had been so long from the start.
    let [a, b] = [&short, &long].map(|out| fs::read(out.join("weights.safetensors")).unwrap());
    assert!(a == b, "weights differ");
    let [a, b] = [&short, &long].map(|out| fs::read_to_string(out.join("recipe.toml")).unwrap());
    assert_eq!(a, b);
}
