//! Curves of all that a run has written down.

use std::collections::BTreeMap;

use minijinja::{Value, context};
use serde_json::Value as Json;

use crate::report::chart::{Series, chart};
use crate::report::page::safe;
use crate::report::svg::digits;

/// A curve or column: its name, the kind of lines that it is of, and its key in them.
type Curve = (&'static str, &'static str, &'static str);

/// What is drawn together: a caption, and the curves.
const FIGURES: [(&str, &[Curve]); 9] = [
    (
        "Loss",
        &[
            ("step", "step", "loss"),
            ("mean of epoch", "epoch", "loss"),
            ("validation", "validation", "loss"),
            ("validation, averaged weights", "validation", "averaged_loss"),
        ],
    ),
    (
        "Share of validation images that is right",
        &[
            ("top-1", "validation", "top_1"),
            ("top-1, averaged weights", "validation", "averaged_top_1"),
            ("top-5", "validation", "top_5"),
            ("top-5, averaged weights", "validation", "averaged_top_5"),
            ("nearest neighbours", "validation", "knn"),
            ("nearest neighbours, averaged weights", "validation", "averaged_knn"),
        ],
    ),
    ("Learning rate", &[("learning rate", "step", "learning_rate")]),
    ("Norm of the gradient", &[("norm", "step", "gradient_norm")]),
    ("Images a second", &[("epoch", "epoch", "images_per_second")]),
    ("Spread of embeddings (1: even)", &[("standard deviation", "step", "std")]),
    ("Effective rank of embeddings", &[("rank", "step", "effective_rank")]),
    (
        "Cosines of embeddings",
        &[
            ("one image", "step", "positive_similarity"),
            ("other images", "step", "negative_similarity"),
            ("queue", "step", "queue_similarity"),
        ],
    ),
    ("Entropy of the teacher, as part of the largest", &[("row", "step", "teacher_entropy_share"), ("mean row", "step", "teacher_usage")]),
];

/// Keys of a step that are no curve, or lie in another one.
const NO_CURVE: [&str; 6] = ["kind", "step", "epoch", "full_rank", "teacher_entropy", "queue_age"];

fn points(lines: &[Json], kind: &str, key: &str) -> Vec<(f64, f64)> {
    let of_kind = lines.iter().filter(|line| line["kind"] == kind);
    of_kind.filter_map(|line| Some((line["step"].as_f64()?, line[key].as_f64()?))).collect()
}

fn figure(caption: &str, series: &[Series]) -> Option<Value> {
    (!series.is_empty()).then(|| context! { caption, picture => safe(chart(caption, "step", series)) })
}

/// All figures that `lines` have values for. What only some methods count has a figure of its own,
/// after the others.
pub(super) fn figures(lines: &[Json]) -> Vec<Value> {
    let series = |(name, kind, key): &Curve| {
        let points = points(lines, kind, key);
        (!points.is_empty()).then(|| Series { name: (*name).into(), points })
    };
    let known = FIGURES.iter().filter_map(|(caption, curves)| figure(caption, &curves.iter().filter_map(series).collect::<Vec<_>>()));
    let drawn = |key: &str| NO_CURVE.contains(&key) || FIGURES.iter().any(|(_, curves)| curves.iter().any(|(.., known)| *known == key));
    let mut others: BTreeMap<&String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["kind"] == "step") {
        let numbers = line.as_object().into_iter().flatten().filter(|(key, _)| !drawn(key));
        for (key, value) in numbers {
            others.entry(key).or_default().extend(line["step"].as_f64().zip(value.as_f64()));
        }
    }
    let others = others.into_iter().filter(|(_, points)| !points.is_empty());
    let own = others.filter_map(|(key, points)| figure(&key.replace('_', " "), &[Series { name: key.clone(), points }]));
    known.chain(own).collect()
}

/// A line for each epoch: its own figures, and those of the look behind it.
pub(super) fn table(lines: &[Json]) -> Value {
    const COLUMNS: [Curve; 8] = [
        ("loss", "epoch", "loss"),
        ("learning rate", "epoch", "learning_rate"),
        ("images/s", "epoch", "images_per_second"),
        ("validation loss", "validation", "loss"),
        ("top-1", "validation", "top_1"),
        ("top-5", "validation", "top_5"),
        ("averaged top-1", "validation", "averaged_top_1"),
        ("neighbours", "validation", "knn"),
    ];
    let used: Vec<_> = COLUMNS.iter().filter(|(_, kind, key)| !points(lines, kind, key).is_empty()).collect();
    let epochs = lines.iter().filter(|line| line["kind"] == "epoch");
    let rows: Vec<Value> = epochs
        .map(|epoch| {
            let look = lines.iter().rev().find(|line| line["kind"] == "validation" && line["epoch"] == epoch["epoch"]);
            let cell = |(_, kind, key): &&Curve| {
                let line = if *kind == "epoch" { Some(epoch) } else { look };
                line.and_then(|line| line[*key].as_f64()).map_or("–".into(), digits)
            };
            let best = look.is_some_and(|look| look["best"] == true);
            context! { epoch => epoch["epoch"].as_u64(), best, cells => used.iter().map(cell).collect::<Vec<_>>() }
        })
        .collect();
    context! { columns => used.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_run_counts_is_drawn_once() {
        let lines = [
            json!({ "kind": "step", "step": 20, "epoch": 1, "loss": 2.0, "learning_rate": 0.1, "temperature": 0.5 }),
            json!({ "kind": "step", "step": 40, "epoch": 2, "loss": 1.0, "learning_rate": 0.1, "temperature": 0.25 }),
            json!({ "kind": "epoch", "step": 30, "epoch": 1, "loss": 1.5, "learning_rate": 0.1, "images_per_second": 9.0 }),
            json!({ "kind": "validation", "step": 30, "epoch": 1, "top_1": 0.5, "loss": 1.25, "best": true }),
            json!({ "kind": "epoch", "step": 60, "epoch": 2, "loss": 0.75, "learning_rate": 0.1, "images_per_second": 9.0 }),
        ];
        let captions: Vec<String> =
            figures(&lines).iter().map(|f| f.get_attr("caption").map(|c| c.to_string()).unwrap_or_default()).collect();
        let expected = ["Loss", "Share of validation images that is right", "Learning rate", "Images a second", "temperature"];
        assert_eq!(captions, expected);
        let table = table(&lines);
        let of = |value: &Value, key: &str| value.get_attr(key).map(|found| found.to_string()).unwrap_or_default();
        assert_eq!(of(&table, "columns"), "['loss', 'learning rate', 'images/s', 'validation loss', 'top-1']");
        let rows: Vec<Value> = table.get_attr("rows").and_then(|rows| rows.try_iter()).map(Iterator::collect).unwrap_or_default();
        let cells: Vec<String> = rows.iter().map(|row| of(row, "cells")).collect();
        assert_eq!(cells, ["['1.50', '0.100', '9.00', '1.25', '0.500']", "['0.750', '0.100', '9.00', '–', '–']"]);
        assert_eq!(rows.iter().map(|row| of(row, "best")).collect::<Vec<_>>(), ["True", "False"]);
    }
}
