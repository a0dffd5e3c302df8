//! A run as lines of JSON and as CSV.

use serde::Serialize;

use super::run::{Row, Run};
use crate::error::{Error, Result};

/// A row under the names that the other libraries' programs use, and all that it holds.
#[derive(Serialize)]
struct Line<'a> {
    peer: &'static str,
    workload: &'a str,
    ms: f64,
    min_ms: f64,
    spread_ms: f64,
    iterations: usize,
    #[serde(flatten)]
    row: &'a Row,
}

/// One line of JSON: `workload`, `ms`, `check`, `min_ms`, `spread_ms` (p90 - p10), `iterations`,
/// and the fields of [`Row`].
///
/// # Errors
/// Never in practice: numbers and text always are JSON.
pub fn json_line(row: &Row) -> Result<String> {
    let wall = &row.wall_ms;
    let (spread_ms, iterations) = (wall.p90 - wall.p10, wall.count);
    let line = Line { peer: "wgrad", workload: &row.name, ms: wall.median, min_ms: wall.minimum, spread_ms, iterations, row };
    serde_json::to_string(&line).map_err(|e| Error::argument("json", e.to_string()))
}

/// What a table or CSV shows of a row: names of the columns.
pub const COLUMNS: [&str; 25] = [
    "suite",
    "workload",
    "shape",
    "schedule",
    "gate",
    "clock",
    "ms",
    "p10_ms",
    "p90_ms",
    "mad_ms",
    "count",
    "wall_ms",
    "cpu_ms",
    "cold_ms",
    "gflops",
    "gbs",
    "percent_of_peak",
    "percent_of_loads",
    "intensity",
    "bound",
    "compile_ms",
    "first_ms",
    "check",
    "gain",
    "tile",
];

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |v| format!("{v:.6}"))
}

/// The cells of a row, as [`COLUMNS`] names them; empty where there is nothing.
pub fn cells(row: &Row) -> [String; 25] {
    let (time, clock) = row.time();
    let gate = match row.gate.passed {
        Some(true) => "right",
        Some(false) => "WRONG",
        None => "",
    };
    [
        row.suite.clone(),
        row.name.clone(),
        row.shape.clone(),
        row.schedule.clone(),
        gate.into(),
        clock.into(),
        number(Some(time.median)),
        number(Some(time.p10)),
        number(Some(time.p90)),
        number(Some(time.mad)),
        time.count.to_string(),
        number(Some(row.wall_ms.median)),
        number(row.cpu_ms.map(|s| s.median)),
        number(row.cold_ms.map(|s| s.median)),
        number(row.gflops),
        number(row.gbs),
        number(row.percent_of_peak),
        number(row.percent_of_loads),
        number(row.intensity),
        row.bound.to_string(),
        number(Some(row.compile_ms)),
        number(Some(row.first_ms)),
        number(row.check),
        number(row.gain),
        row.tile.clone(),
    ]
}

/// Comma-separated values with a head.
///
/// # Errors
/// Never: all rows are as long as the head.
pub fn csv(run: &Run) -> Result<String> {
    let head = COLUMNS.map(String::from);
    crate::report::csv::csv(std::iter::once(head).chain(run.rows.iter().map(cells)))
}
