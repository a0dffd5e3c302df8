//! Curves of the runs that are compared, over their epochs: one figure for all of them.

use minijinja::{Value, context};
use serde_json::Value as Json;

use super::Comparison;
use super::page::{label, numbered};
use crate::error::Result;
use crate::evaluate::run_report::score;
use crate::report::chart::{Series, chart};
use crate::report::page::safe;
use crate::train::RunDirectory;

/// What of a line is drawn, if anything.
type Drawn = fn(&Json) -> Option<f64>;

/// A caption, and what is drawn.
const FIGURES: [(&str, Drawn); 3] = [
    ("Loss, mean of each epoch", |line| line["loss"].as_f64().filter(|_| line["kind"] == "epoch")),
    ("Share of validation images that is right", |line| Some(score(line).filter(|_| line["kind"] == "validation")?.1)),
    ("Learning rate", |line| line["learning_rate"].as_f64()),
];

/// All figures that the runs of `comparison` have written values for.
///
/// # Errors
/// [`Error::Io`](crate::error::Error::Io), [`Error::Data`](crate::error::Error::Data) where a run's
/// files cannot be read.
pub(super) fn figures(comparison: &Comparison) -> Result<Vec<Value>> {
    let mut runs = Vec::new();
    for (index, column) in comparison.columns.iter().enumerate() {
        for run in &column.subject.runs {
            let name = numbered(index, &label(&run.display().to_string()));
            runs.push((name, RunDirectory::open(run)?.0.metrics()?));
        }
    }
    Ok(FIGURES.iter().filter_map(|(caption, drawn)| figure(caption, *drawn, &runs)).collect())
}

fn figure(caption: &str, drawn: Drawn, runs: &[(String, Vec<Json>)]) -> Option<Value> {
    // A run without a value has no colour either, so that colours are the same in all figures.
    let series: Vec<Series> = runs.iter().map(|(name, lines)| Series { name: name.clone(), points: points(lines, drawn) }).collect();
    let any = series.iter().any(|series| !series.points.is_empty());
    any.then(|| context! { caption, picture => safe(chart(caption, "epoch", &series)) })
}

/// Epochs, also parts of one, and values.
fn points(lines: &[Json], drawn: Drawn) -> Vec<(f64, f64)> {
    let place = |line: &Json| line["step"].as_f64().zip(line["epoch"].as_f64());
    let Some((steps, epochs)) = lines.iter().rev().find(|line| line["kind"] == "epoch").and_then(place) else { return Vec::new() };
    lines.iter().filter_map(|line| Some((line["step"].as_f64()? * epochs / steps, drawn(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_of_other_batches_are_drawn_over_their_epochs() {
        let lines = |per_epoch: u64, score: &str| {
            let epoch = |epoch: u64| {
                let step = epoch * per_epoch;
                vec![
                    json!({ "kind": "step", "step": step - 1, "epoch": epoch, "loss": 9.0, "learning_rate": 0.5 }),
                    json!({ "kind": "epoch", "step": step, "epoch": epoch, "loss": 1.0 / epoch as f64, "learning_rate": 0.25 }),
                    json!({ "kind": "validation", "step": step, "epoch": epoch, "loss": 7.0, score: 0.5 }),
                ]
            };
            (1..=2).flat_map(epoch).collect::<Vec<_>>()
        };
        for per_epoch in [4, 10] {
            let lines = lines(per_epoch, "top_1");
            let [loss, share, rate] = FIGURES.map(|(_, drawn)| points(&lines, drawn));
            assert_eq!(loss, [(1.0, 1.0), (2.0, 0.5)]);
            assert_eq!(share, [(1.0, 0.5), (2.0, 0.5)]);
            assert_eq!(rate.len(), 4);
            assert_eq!(rate[0], (1.0 - 1.0 / per_epoch as f64, 0.5));
        }
        // Names and values of both; what only one has leaves the other its colour.
        let runs = [("1 · a".into(), lines(4, "none")), ("2 · b".into(), lines(10, "knn"))];
        let picture = |(caption, drawn): &(&str, Drawn)| {
            figure(caption, *drawn, &runs).and_then(|figure| figure.get_attr("picture").ok()).map(|picture| picture.to_string())
        };
        let share = FIGURES.get(1).and_then(picture).unwrap();
        assert!(share.contains("<title>2 · b, epoch 2: 0.500") && !share.contains("<title>1 · a") && share.contains("curve c1"));
        assert!(FIGURES.iter().filter_map(picture).all(|picture| picture.contains(">1 · a<") && picture.contains(">2 · b<")));
        assert_eq!(FIGURES.iter().filter_map(|(caption, drawn)| figure(caption, *drawn, &[])).count(), 0);
    }
}
