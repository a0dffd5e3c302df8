//! The roofline plot (Williams, Waterman and Patterson 2009): operations a second over operations a
//! byte, under the measured peaks.

use super::run::Row;
use crate::report::Peaks;
use crate::report::svg::{Area, Axis, Svg, digits, tick, width};

const WIDTH: f64 = 1340.0;
const HEIGHT: f64 = 720.0;
const LETTERS: f64 = 12.0;
/// Groups with a colour of their own; the rest share the last.
const COLOURS: usize = 9;
/// More points than this are labelled with their numbers.
const NAMED: usize = 26;

struct Point<'a> {
    x: f64,
    y: f64,
    number: usize,
    row: &'a Row,
    /// Drawn at the left edge by its GB/s, because it has no arithmetic.
    moves: bool,
}

/// Operations a byte and GFLOP/s of a row; of one without arithmetic its GB/s alone.
fn place(row: &Row) -> Option<(Option<f64>, f64)> {
    let intensity = row.intensity.or_else(|| Some(row.flops? / row.bytes?)).filter(|i| i.is_finite() && *i > 0.0);
    match (intensity, row.gflops.filter(|g| *g > 0.0), row.gbs.filter(|g| *g > 0.0)) {
        (Some(intensity), Some(gflops), _) => Some((Some(intensity), gflops)),
        (_, _, Some(gbs)) => Some((None, gbs)),
        _ => None,
    }
}

/// The plot of numbered `rows`; `None` where none has a place.
pub(super) fn roofline(rows: &[(usize, &Row)], peaks: &Peaks) -> Option<String> {
    let placed: Vec<(usize, &Row, Option<f64>, f64)> =
        rows.iter().filter_map(|(number, row)| place(row).map(|(x, y)| (*number, *row, x, y))).collect();
    if placed.is_empty() {
        return None;
    }
    let flops_roofs: Vec<(&str, &str, f64)> = [
        ("roof", "multiply-adds in registers", peaks.fma_gflops),
        ("roof dashed", "multiply-adds from the nearest memory", peaks.loads_gflops),
    ]
    .into_iter()
    .filter_map(|(class, name, peak)| Some((class, name, peak?)))
    .collect();
    let bytes_roofs: Vec<(&str, &str, f64)> =
        [("roof", "copy", peaks.copy_gbs), ("roof dashed", "copy within the caches", peaks.cached_copy_gbs)]
            .into_iter()
            .filter_map(|(class, name, peak)| Some((class, name, peak?)))
            .collect();
    let top = flops_roofs.iter().map(|r| r.2).fold(0.0, f64::max);
    let intensities: Vec<f64> =
        placed.iter().filter_map(|p| p.2).chain(bytes_roofs.iter().map(|r| top / r.2).filter(|x| *x > 0.0)).collect();
    let low = intensities.iter().copied().fold(f64::INFINITY, f64::min).min(1.0);
    let high = intensities.iter().copied().fold(0.0, f64::max).max(10.0 * low);
    let x = Axis { low: low / 2.0, high: high * 3.0, from: 70.0, to: WIDTH - 20.0 };
    // A row that only moves data stands at the left edge, as far below the slanted roof there as
    // its GB/s are below the copy's.
    let height = |intensity: Option<f64>, rate: f64| if intensity.is_some() { rate } else { rate * x.low };
    let least = placed.iter().map(|p| height(p.2, p.3)).fold(f64::INFINITY, f64::min);
    let most = placed.iter().map(|p| height(p.2, p.3)).fold(top, f64::max);
    let y = Axis { low: least.max(most * 1e-6) / 2.0, high: most * 2.0, from: HEIGHT - 56.0, to: 14.0 };
    let points: Vec<Point> = placed
        .iter()
        .map(|(number, row, intensity, rate)| Point {
            x: x.at(intensity.unwrap_or(x.low)),
            y: y.at(height(*intensity, *rate)),
            number: *number,
            row,
            moves: intensity.is_none(),
        })
        .collect();

    let mut svg = Svg::new(WIDTH, HEIGHT + 4.0, "Roofline");
    grid(&mut svg, &x, &y);
    let mut taken: Vec<Area> = points.iter().map(|p| Area { x: p.x - 5.0, y: p.y - 5.0, w: 10.0, h: 10.0 }).collect();
    let names = roofs(&mut svg, (&x, &y), &flops_roofs, &bytes_roofs, &mut taken);

    let groups = groups(rows);
    let colour = |row: &Row| groups.iter().position(|g| *g == row.group).unwrap_or(COLOURS).min(COLOURS - 1);
    let labels = labels(&mut svg, &points, &mut taken);
    for (point, _) in points.iter().zip(&labels) {
        let (sample, by) = point.row.time();
        let title = format!(
            "{}: {} ({}), {} ms {by}, {} % of the peak",
            point.number,
            point.row.name,
            point.row.schedule,
            digits(sample.median),
            point.row.percent_of_peak.map_or("?".into(), digits)
        );
        let class = format!("point c{}{}", colour(point.row), if point.moves { " hollow" } else { "" });
        svg.point(&class, (point.x, point.y), point.row.schedule != "gpu", &title);
    }
    for (point, label) in points.iter().zip(&labels) {
        if let Some((area, text)) = label {
            svg.text(&format!("label t{}", colour(point.row)), (area.x + 2.0, area.y + LETTERS - 1.0), text);
        }
    }
    for (anchor, degrees, name) in names {
        svg.turned("roof-name", anchor, degrees, &name);
    }
    let mut notes = vec![legend(&groups, &points)];
    let numbered = points.len() > NAMED;
    if numbered {
        notes.push("<p class=\"note\">The numbers are those of the rows below.</p>".into());
    }
    let hidden = labels.iter().filter(|l| l.is_none()).count();
    if hidden > 0 {
        notes.push(format!("<p class=\"note\">Points without room for a label, named under the pointer: {hidden}.</p>"));
    }
    let unplaced = rows.len() - points.len();
    if unplaced > 0 {
        notes.push(format!("<p class=\"note\">Without a known cost, and so in the table alone: {unplaced}.</p>"));
    }
    Some(svg.finish() + &notes.concat())
}

fn grid(svg: &mut Svg, x: &Axis, y: &Axis) {
    for value in x.decades() {
        svg.line("grid", (x.at(value), y.from), (x.at(value), y.to));
        svg.text("tick middle", (x.at(value), y.from + 18.0), &tick(value));
    }
    for value in y.decades() {
        svg.line("grid", (x.from, y.at(value)), (x.to, y.at(value)));
        svg.text("tick end", (x.from - 8.0, y.at(value) + 4.0), &tick(value));
    }
    svg.line("axis", (x.from, y.from), (x.to, y.from));
    svg.line("axis", (x.from, y.from), (x.from, y.to));
    svg.text("axis-name middle", ((x.from + x.to) / 2.0, y.from + 42.0), "operations a byte (FLOP/B)");
    svg.turned("axis-name middle", (18.0, (y.from + y.to) / 2.0), -90.0, "GFLOP/s");
}

/// Draws the roofs and finds places for their names where there are fewest points: (anchor,
/// degrees, name).
fn roofs(
    svg: &mut Svg,
    (x, y): (&Axis, &Axis),
    flops: &[(&str, &str, f64)],
    bytes: &[(&str, &str, f64)],
    taken: &mut Vec<Area>,
) -> Vec<((f64, f64), f64, String)> {
    let greatest = |roofs: &[(&str, &str, f64)]| roofs.iter().map(|r| r.2).fold(0.0, f64::max);
    let (top, slope) = (greatest(flops), greatest(bytes));
    let top = if top > 0.0 { top } else { y.high };
    let mut lines = Vec::new();
    for (class, name, peak) in flops {
        let begin = if slope > 0.0 { (peak / slope).clamp(x.low, x.high) } else { x.low };
        lines.push((class, format!("{name}: {} GFLOP/s", digits(*peak)), (x.at(begin), y.at(*peak)), (x.to, y.at(*peak))));
    }
    for (class, name, peak) in bytes {
        let (begin, end) = (x.low.max(y.low / peak), (top / peak).min(x.high));
        lines.push((class, format!("{name}: {} GB/s", digits(*peak)), (x.at(begin), y.at(begin * peak)), (x.at(end), y.at(end * peak))));
    }
    for (class, _, from, to) in &lines {
        svg.line(class, *from, *to);
    }
    let trace = |a: (f64, f64), b: (f64, f64)| -> Vec<Area> {
        let along = |i: i32| (a.0 + (b.0 - a.0) * f64::from(i) / 300.0, a.1 + (b.1 - a.1) * f64::from(i) / 300.0);
        (0..=300).map(along).map(|(x, y)| Area { x, y, w: 0.1, h: 0.1 }).collect()
    };
    let traces: Vec<(&String, Vec<Area>)> = lines.iter().map(|(_, text, from, to)| (text, trace(*from, *to))).collect();
    let mut names = Vec::new();
    for (_, text, from, to) in &lines {
        let length = (to.0 - from.0).hypot(to.1 - from.1).max(1.0);
        let (ux, uy) = ((to.0 - from.0) / length, (to.1 - from.1) / length);
        let w = width(text, LETTERS);
        // Above the line or below it, at one of some distances from its end: (anchor, areas that
        // the name covers).
        let places = (0..14).map(|i| {
            let side = if i % 2 == 0 { -6.0 } else { 15.0 };
            let along = (length - w - 8.0) * (1.0 - f64::from(i / 2) / 7.0);
            let anchor = (from.0 + ux * along - uy * side, from.1 + uy * along + ux * side);
            let areas: Vec<Area> = (0..=16)
                .map(|part| {
                    let at = w * f64::from(part) / 16.0;
                    Area { x: anchor.0 + ux * at - 7.0 + uy * 4.0, y: anchor.1 + uy * at - 11.0 + ux, w: 14.0, h: 14.0 }
                })
                .collect();
            (anchor, areas)
        });
        // Another roof's line is as bad as a point.
        let others = || traces.iter().filter(|(other, _)| *other != text).flat_map(|(_, trace)| trace);
        let cost = |areas: &[Area]| areas.iter().filter(|a| taken.iter().chain(others()).any(|t| t.touches(a))).count();
        if let Some((anchor, areas)) = places.min_by_key(|(_, areas)| cost(areas)) {
            names.push((anchor, uy.atan2(ux).to_degrees(), text.clone()));
            taken.extend(areas);
        }
    }
    taken.extend(traces.into_iter().flat_map(|(_, trace)| trace));
    names
}

/// Finds a free place near each point for its label and draws the lines that lead there; the
/// crowded points choose first.
fn labels(svg: &mut Svg, points: &[Point], taken: &mut Vec<Area>) -> Vec<Option<(Area, String)>> {
    let frame = Area { x: 74.0, y: 4.0, w: WIDTH - 78.0, h: HEIGHT - 66.0 };
    let both = |p: &Point| points.iter().any(|q| q.row.name == p.row.name && q.row.schedule != p.row.schedule);
    let text = |p: &Point| match (points.len() > NAMED, both(p)) {
        (true, _) => p.number.to_string(),
        (false, true) => format!("{} ({})", p.row.name, p.row.schedule),
        (false, false) => p.row.name.clone(),
    };
    let crowd = |p: &Point| points.iter().filter(|q| (p.x - q.x).hypot(p.y - q.y) < 60.0).count();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|i| points.get(*i).map(|p| std::cmp::Reverse(crowd(p))));
    let mut found = vec![None; points.len()];
    for index in order {
        let Some(point) = points.get(index) else { continue };
        let text = text(point);
        let (w, h) = (width(&text, LETTERS) + 4.0, LETTERS + 3.0);
        let around = [10.0, 18.0, 30.0, 46.0, 66.0, 90.0, 120.0, 160.0, 210.0].into_iter().flat_map(|distance| {
            (0..16).map(move |turn| {
                // To the right, then up and down in turn.
                let angle = f64::from((turn + 1) / 2) * std::f64::consts::PI / 8.0 * if turn % 2 == 0 { 1.0 } else { -1.0 };
                (distance, angle)
            })
        });
        let area = around
            .map(|(distance, angle)| {
                let (cx, cy) = (point.x + distance * angle.cos(), point.y + distance * angle.sin());
                // The side of the label that faces the point lies at the distance.
                Area { x: cx - w * (1.0 - angle.cos()) / 2.0, y: cy - h / 2.0, w, h }
            })
            .find(|area| frame.holds(area) && !taken.iter().any(|t| t.touches(area)));
        if let Some(area) = area {
            taken.push(area);
            let near = (point.x.clamp(area.x, area.x + area.w), point.y.clamp(area.y, area.y + area.h));
            if (near.0 - point.x).hypot(near.1 - point.y) > 14.0 {
                svg.line("leader", (point.x, point.y), near);
            }
            if let Some(slot) = found.get_mut(index) {
                *slot = Some((area, text));
            }
        }
    }
    found
}

/// The groups in the order of their number of rows, so that the largest have colours of their own.
fn groups(rows: &[(usize, &Row)]) -> Vec<String> {
    let mut groups: Vec<(usize, String)> = Vec::new();
    for (_, row) in rows {
        match groups.iter_mut().find(|(_, name)| *name == row.group) {
            Some((count, _)) => *count += 1,
            None => groups.push((1, row.group.clone())),
        }
    }
    groups.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    groups.into_iter().map(|(_, name)| name).collect()
}

fn legend(groups: &[String], points: &[Point]) -> String {
    let mut items: Vec<String> = groups
        .iter()
        .take(if groups.len() > COLOURS { COLOURS - 1 } else { COLOURS })
        .enumerate()
        .map(|(i, name)| format!("<span><i class=\"b{i}\"></i>{}</span>", crate::report::svg::escape(name)))
        .collect();
    if groups.len() > COLOURS {
        items.push(format!("<span><i class=\"b{}\"></i>others</span>", COLOURS - 1));
    }
    if points.iter().any(|p| p.row.schedule == "gpu") && points.iter().any(|p| p.row.schedule != "gpu") {
        items.push("<span>&#9679; schedule software &nbsp; &#9632; schedule gpu</span>".into());
    }
    if points.iter().any(|p| p.moves) {
        items.push("<span>&#9675; no arithmetic: at the left edge, by its GB/s</span>".into());
    }
    format!("<p class=\"legend\">{}</p>", items.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_labels_find_room_and_none_lies_on_another() {
        let rows: Vec<Row> = (0..120)
            .map(|i| {
                let gflops = 3.0 + f64::from(i % 11);
                Row { name: format!("row {i}"), intensity: Some(0.5 + f64::from(i % 13)), gflops: Some(gflops), ..Row::default() }
            })
            .collect();
        let points: Vec<Point> = rows
            .iter()
            .enumerate()
            .map(|(i, row)| Point {
                x: 200.0 + 60.0 * (i % 13) as f64,
                y: 100.0 + 30.0 * (i % 11) as f64,
                number: i + 1,
                row,
                moves: false,
            })
            .collect();
        let marks: Vec<Area> = points.iter().map(|p| Area { x: p.x - 5.0, y: p.y - 5.0, w: 10.0, h: 10.0 }).collect();
        let found: Vec<Area> =
            labels(&mut Svg::new(1.0, 1.0, ""), &points, &mut marks.clone()).into_iter().flatten().map(|l| l.0).collect();
        assert_eq!(found.len(), 120);
        for (i, a) in found.iter().enumerate() {
            assert!(found.iter().skip(i + 1).chain(&marks).all(|b| !a.touches(b)), "label {i}");
        }
    }

    #[test]
    fn roofs_stand_without_points_beyond_them_and_rows_without_cost_are_counted() {
        let peaks = Peaks { fma_gflops: Some(100.0), copy_gbs: Some(10.0), ..Peaks::default() };
        let fast = Row { name: "product".into(), intensity: Some(40.0), gflops: Some(60.0), gbs: Some(1.5), ..Row::default() };
        let copy = Row { name: "transpose".into(), gbs: Some(8.0), ..Row::default() };
        let unknown = Row { name: "unknown".into(), ..Row::default() };
        let plot = roofline(&[(1, &fast), (2, &copy), (3, &unknown)], &peaks).unwrap();
        for words in ["product", "transpose", "hollow", "multiply-adds in registers: 100 GFLOP/s", "copy: 10.0 GB/s", "table alone: 1."] {
            assert!(plot.contains(words), "{words}");
        }
        assert_eq!(roofline(&[(3, &unknown)], &peaks), None);
    }
}
