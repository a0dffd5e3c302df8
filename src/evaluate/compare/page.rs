//! A comparison as one HTML file that needs nothing else: pictures and the table. For a screen,
//! light or dark, and paper.

use minijinja::{Value, context};

use super::measure::{BATCH, Measured};
use super::rows::Row;
use super::{Comparison, curves, short};
use crate::error::Result;
use crate::report::page::{STYLE, page, safe};
use crate::report::svg::{Area, Axis, Svg, tick, width};

/// The page.
///
/// # Errors
/// Those of reading the runs' metrics.
pub(super) fn html(comparison: &Comparison, title: Option<&str>) -> Result<String> {
    let names: Vec<String> = comparison.columns.iter().map(|column| label(&column.subject.name)).collect();
    let place = comparison.environment.as_ref().map(|e| {
        let load = e.load_average.map_or(String::new(), |[minute, ..]| format!(", load {minute:.1} before"));
        format!("Measured on {} ({}), {}, {} cores{load}, {}.", e.adapter, e.backend, e.system, e.cores, e.date)
    });
    let found: Vec<(String, &Measured)> =
        comparison.columns.iter().filter_map(|c| Some((label(&c.subject.name), c.measured.as_ref()?))).collect();
    let figure = |caption: &str, picture: String| context! { caption, picture => safe(picture) };
    let figures = if found.is_empty() {
        Vec::new()
    } else {
        vec![
            figure("Accuracy on test images", bars(&found)),
            figure("Accuracy and speed", plane(&found, "latency of one image, ms", |m| m.latency.median)),
            figure("Accuracy and size", plane(&found, "model's file, KiB", |m| m.bytes as f64 / 1024.0)),
        ]
    };
    let line = |row: &Row| {
        let cells: Vec<String> = row.cells.iter().map(|cell| cell.as_ref().map_or("–".into(), |cell| cell.text.clone())).collect();
        context! { name => row.name, differs => row.differs(), cells }
    };
    let rows = comparison.rows();
    let group = |name: &str, measured: bool| {
        let rows: Vec<Value> = rows.iter().filter(|row| row.measured == measured).map(line).collect();
        context! { name, rows }
    };
    page(
        include_str!("page.html"),
        context! {
            title => title.map_or_else(|| names.join(", "), String::from),
            style => safe(STYLE),
            place,
            figures,
            curves => curves::figures(comparison)?,
            columns => comparison.columns.iter().map(|column| column.subject.name.clone()).collect::<Vec<_>>(),
            groups => [group("Measured", true), group("The method", false)],
            notes => notes(),
            wgrad => env!("CARGO_PKG_VERSION"),
            command => crate::io::console::arguments().join(" "),
        },
    )
}

/// What must be known to read the measured rows.
fn notes() -> String {
    format!(
        "±: of one classifier the standard error of its share of test images, of an encoder the standard deviation over draws of the probe's labels, of several runs that over \
         runs. Latency and throughput: medians, warm, from images on the device to results on the host, in batches of {BATCH} for throughput. Training: this run's own \
         seconds, without those of a teacher or of weights that it began from. The file holds also the heads that only training needs."
    )
}

/// What a column is called in pictures.
pub(super) fn label(name: &str) -> String {
    let name = if name.contains('/') { short(std::path::Path::new(name.split(',').next().unwrap_or(name))) } else { name.into() };
    if name.chars().count() > 30 { name.chars().take(29).chain(['…']).collect() } else { name }
}

/// A column's name behind its number from 1.
pub(super) fn numbered(index: usize, name: &str) -> String {
    format!("{} · {name}", index + 1)
}

/// From where to where accuracies are drawn, in tens of per cent.
fn limits(found: &[(String, &Measured)]) -> (f64, f64) {
    let ends = || found.iter().flat_map(|(_, m)| [m.accuracy.0 - m.accuracy.1, m.accuracy.0 + m.accuracy.1]);
    let least = (ends().fold(1.0, f64::min) * 10.0 - 0.2).floor() / 10.0;
    let most = (ends().fold(0.0, f64::max) * 10.0 + 0.2).ceil() / 10.0;
    (least.max(0.0), most.min(1.0))
}

/// A line each, from 0: the length is what counts. The numbers are those of the other pictures'
/// points.
fn bars(found: &[(String, &Measured)]) -> String {
    const LINE: f64 = 30.0;
    let left = 12.0 + found.iter().map(|(name, _)| width(&numbered(0, name), 12.0)).fold(0.0, f64::max);
    let (right, bottom) = (left + 220.0, 8.0 + LINE * found.len() as f64);
    let mut svg = Svg::new(right + 100.0, bottom + 22.0, "Accuracy of each");
    let at = |share: f64| left + (right - left) * share.clamp(0.0, 1.0);
    for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
        svg.line("grid", (at(percent / 100.0), 4.0), (at(percent / 100.0), bottom));
        svg.text("tick middle", (at(percent / 100.0), bottom + 16.0), &tick(percent));
    }
    for (i, (name, m)) in found.iter().enumerate() {
        let (y, (mean, spread)) = (8.0 + LINE * i as f64, m.accuracy);
        svg.text("end", (left - 8.0, y + 17.0), &numbered(i, name));
        svg.rect("bar", (left, y + 4.0), at(mean) - left, LINE - 12.0);
        svg.line("spread", (at(mean - spread), y + LINE / 2.0 - 2.0), (at(mean + spread), y + LINE / 2.0 - 2.0));
        svg.text("", (right + 8.0, y + 17.0), &format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * spread));
    }
    svg.finish()
}

/// Accuracy against what it costs, on a logarithmic axis; the upper left is best.
fn plane(found: &[(String, &Measured)], name: &str, cost: fn(&Measured) -> f64) -> String {
    const FRAME: Area = Area { x: 48.0, y: 8.0, w: 290.0, h: 220.0 };
    const SIZE: f64 = 12.0;
    let costs = || found.iter().map(|(_, m)| cost(m)).filter(|c| *c > 0.0);
    let (least, most) = (costs().fold(f64::INFINITY, f64::min), costs().fold(0.0, f64::max));
    // Room for the points' numbers.
    let axis = Axis { low: least.min(most) / 1.6, high: most.max(1e-9) * 1.6, from: FRAME.x, to: FRAME.x + FRAME.w };
    let (low, high) = limits(found);
    let up = |share: f64| FRAME.y + FRAME.h * (1.0 - (share - low) / (high - low).max(1e-9));
    let mut svg = Svg::new(FRAME.x + FRAME.w + 12.0, FRAME.y + FRAME.h + 44.0, &format!("Accuracy against {name}"));
    let steps = ((high - low) * 10.0).round() as usize;
    for step in 0..=steps {
        let share = low + step as f64 / 10.0;
        svg.line("grid", (FRAME.x, up(share)), (FRAME.x + FRAME.w, up(share)));
        svg.text("tick end", (FRAME.x - 6.0, up(share) + 4.0), &format!("{:.0} %", 100.0 * share));
    }
    let marks = (-6..9).flat_map(|power| [1.0, 2.0, 5.0].map(|first| first * 10f64.powi(power)));
    for value in marks.filter(|value| (axis.low..=axis.high).contains(value)) {
        svg.line("grid", (axis.at(value), FRAME.y), (axis.at(value), FRAME.y + FRAME.h));
        svg.text("tick middle", (axis.at(value), FRAME.y + FRAME.h + 16.0), &tick(value));
    }
    svg.text("axis-name middle", (FRAME.x + FRAME.w / 2.0, FRAME.y + FRAME.h + 36.0), name);
    let places: Vec<(f64, f64)> = found.iter().map(|(_, m)| (axis.at(cost(m)), up(m.accuracy.0))).collect();
    let mut taken: Vec<Area> = places.iter().map(|(x, y)| Area { x: x - 6.0, y: y - 6.0, w: 12.0, h: 12.0 }).collect();
    let whisker = |((_, m), (x, _)): (&(String, &Measured), &(f64, f64))| {
        let top = up(m.accuracy.0 + m.accuracy.1);
        Area { x: x - 2.0, y: top, w: 4.0, h: up(m.accuracy.0 - m.accuracy.1) - top }
    };
    taken.extend(found.iter().zip(&places).map(whisker));
    for (i, ((name, m), (x, y))) in found.iter().zip(&places).enumerate() {
        let (mean, spread) = m.accuracy;
        svg.line("spread", (*x, up(mean - spread)), (*x, up(mean + spread)));
        let title = format!("{}: {:.1} ± {:.1} %, {:.3}", numbered(i, name), 100.0 * mean, 100.0 * spread, cost(m));
        svg.point("dot", (*x, *y), true, &title);
        let number = (i + 1).to_string();
        let w = width(&number, SIZE);
        let right = [(9.0, 0.0), (9.0, 13.0), (9.0, -13.0)].map(|(dx, dy)| (x + dx, y + dy));
        let left = [0.0, 13.0, -13.0].map(|dy| (x - 9.0 - w, y + dy));
        let spots = || right.into_iter().chain(left).chain([(x - w / 2.0, y - 17.0), (x - w / 2.0, y + 17.0)]);
        let area = |(x, y): (f64, f64)| Area { x, y: y - 6.5, w, h: SIZE + 1.0 };
        let free = |spot: &(f64, f64)| FRAME.holds(&area(*spot)) && !taken.iter().any(|other| other.touches(&area(*spot)));
        // Among very many points a number may lie on another; it is in the point's title, too.
        let spot = spots().find(free).or_else(|| spots().next()).unwrap_or((*x, *y));
        svg.text("label", (spot.0, spot.1 + 4.0), &number);
        taken.push(area(spot));
    }
    svg.finish()
}
