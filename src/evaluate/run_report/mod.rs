//! A run as one HTML file that needs nothing else: its curves, what its network mistakes, what it
//! was shown, where it was trained and what that took.

mod curves;
mod pictures;

use std::path::Path;

use minijinja::{Value, context};
use serde_json::Value as Json;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::report::Environment;
use crate::report::page::{STYLE, page, safe};
use crate::train::{Recipe, RunDirectory};

/// The page of the run in the directory `run`, finished or not: what its metrics say. With a device,
/// a finished run's network is looked at, too; `data` says where its images are when they have
/// moved.
///
/// # Errors
/// [`Error::Data`](crate::error::Error::Data) where there is no run, or its files are damaged; those
/// of its network and of opening its data.
pub fn html(run: &Path, device: Option<&Gpu>, data: Option<&Path>) -> Result<String> {
    let (directory, recipe) = RunDirectory::open(run)?;
    let lines = directory.metrics()?;
    let seen = device.filter(|_| directory.weights().exists()).map(|gpu| pictures::of(gpu, &directory, &recipe, data)).transpose()?;
    let pictures::Seen { confusion, pairs, mistakes, views, judged } = seen.unwrap_or_default();
    page(
        include_str!("page.html"),
        context! {
            title => format!("{} of {}", recipe.method.name, recipe.model.name),
            style => safe(format!("{STYLE}{}", include_str!("page.css"))),
            place => place(&directory.environment()?),
            facts => facts(&directory, &recipe, &lines)?,
            figures => curves::figures(&lines),
            epochs => curves::table(&lines),
            alarms => lines.iter().filter(|line| line["kind"] == "alarm").map(|line| text(&line["message"])).collect::<Vec<_>>(),
            confusion, pairs, mistakes, views, judged,
            recipe => recipe.to_toml()?,
            wgrad => env!("CARGO_PKG_VERSION"),
            command => crate::io::console::arguments().join(" "),
        },
    )
}

/// The share of validation images that is right by the weights that a run leaves, and what it is
/// called in a line of metrics.
pub(super) fn score(line: &Json) -> Option<(&'static str, f64)> {
    ["averaged_top_1", "top_1", "averaged_knn", "knn"].into_iter().find_map(|key| Some((key, line[key].as_f64()?)))
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn place(environment: &Environment) -> String {
    let Environment { adapter, backend, driver, schedule, system, cores, date, .. } = environment;
    format!("Trained on {adapter} ({backend}, {driver}), schedule {schedule}, {system}, {cores} cores, from {date}.")
}

/// What is to be known at once.
fn facts(directory: &RunDirectory, recipe: &Recipe, lines: &[Json]) -> Result<Vec<Value>> {
    let spent = directory.usage()?.unwrap_or_default();
    let last = |kind: &str| lines.iter().rev().find(|line| line["kind"] == kind);
    let epochs = last("epoch").and_then(|line| line["epoch"].as_u64()).unwrap_or(0);
    let best = lines.iter().rev().find(|line| line["kind"] == "validation" && line["best"] == true);
    let score = |line: &Json| {
        let (key, share) = score(line)?;
        Some(format!("{:.2} % ({}), epoch {}", 100.0 * share, key.replace('_', " "), line["epoch"]))
    };
    let state = if directory.weights().exists() { "finished" } else { "under way, or stopped" };
    let facts = [
        ("state", Some(format!("{state}, {epochs} of {} epochs", recipe.epochs))),
        ("data", Some(recipe.data.path.display().to_string())),
        ("best on images that are not learnt from", best.and_then(score)),
        ("last loss", last("epoch").map(|line| line["loss"].to_string())),
        ("steps", Some(spent.steps.to_string())),
        ("images", Some(spent.images.to_string())),
        ("time", Some(format!("{:.0} s", spent.seconds))),
    ];
    Ok(facts.into_iter().filter_map(|(name, value)| Some(context! { name, value => value? })).collect())
}
