//! Curves over the steps or epochs of runs.

use super::svg::{Svg, digits, tick, width};

/// One curve: a name and (x, y) from left to right.
pub(crate) struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Points of a curve that are drawn at most: more than the picture's pixels say nothing.
const MOST: usize = 500;
/// Up to so many points are marked, and say their values under the pointer.
const MARKED: usize = 60;
/// Curves have so many colours; those that have one again are dashed.
const COLOURS: usize = 6;
/// Of the frame: left, top, width, height.
const LEFT: f64 = 58.0;
const WIDTH: f64 = 350.0;
const HEIGHT: f64 = 190.0;
const SIZE: f64 = 12.0;
const LINE: f64 = 18.0;

/// Marks at round distances from `low` to `high`, four to eight of them.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let distance = [1.0, 2.0, 5.0, 10.0].map(|first| first * power).into_iter().find(|d| *d >= raw).unwrap_or(raw);
    let (first, last) = ((low / distance - 1e-9).ceil() as i64, (high / distance + 1e-9).floor() as i64);
    // By whole numbers, so that a mark at 0.3 is no 0.30000000000000004.
    let places = (-distance.log10().floor()).max(0.0) as i32;
    (first..=last).map(|i| (i as f64 * distance * 10f64.powi(places)).round() / 10f64.powi(places)).collect()
}

/// From the least to the largest of `values`, with some room where they are all alike.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match high - low {
        spread if spread.is_nan() || spread < 0.0 => (0.0, 1.0),
        spread if spread <= 1e-12 * high.abs().max(1e-12) => (low - 0.5 * low.abs().max(1e-3), high + 0.5 * high.abs().max(1e-3)),
        spread => (low - 0.04 * spread, high + 0.04 * spread),
    }
}

/// Every so many points that [`MOST`] are left, the last one among them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(MOST).max(1);
    points.iter().rev().step_by(each).rev().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
}

/// A picture of `series`, with their names above it where there are several. `x_name` stands below.
pub(crate) fn chart(title: &str, x_name: &str, series: &[Series]) -> String {
    let drawn: Vec<(&str, Vec<(f64, f64)>)> = series.iter().map(|s| (s.name.as_str(), thinned(&s.points))).collect();
    let all = || drawn.iter().flat_map(|(_, points)| points.iter().copied());
    let (left, right) = range(all().map(|(x, _)| x));
    let (low, high) = range(all().map(|(_, y)| y));
    // The legend's names, one behind the other, in as many lines as they need.
    let (mut places, mut x, mut line) = (Vec::new(), LEFT, 0.0);
    for (name, _) in drawn.iter().filter(|_| drawn.len() > 1) {
        let w = 22.0 + width(name, SIZE) + 10.0;
        if x > LEFT && x + w > LEFT + WIDTH {
            (x, line) = (LEFT, line + LINE);
        }
        places.push((x, line + 12.0));
        x += w;
    }
    let top = if places.is_empty() { 8.0 } else { line + LINE + 8.0 };
    let at = |(x, y): (f64, f64)| (LEFT + WIDTH * (x - left) / (right - left), top + HEIGHT * (high - y) / (high - low));
    let mut svg = Svg::new(LEFT + WIDTH + 16.0, top + HEIGHT + 44.0, title);
    for value in marks(low, high) {
        let (_, y) = at((left, value));
        svg.line("grid", (LEFT, y), (LEFT + WIDTH, y));
        svg.text("tick end", (LEFT - 6.0, y + 4.0), &tick(value));
    }
    for value in marks(left, right).into_iter().filter(|value| *value >= 0.0) {
        let (x, _) = at((value, low));
        svg.line("grid", (x, top), (x, top + HEIGHT));
        svg.text("tick middle", (x, top + HEIGHT + 16.0), &tick(value));
    }
    svg.text("axis-name middle", (LEFT + WIDTH / 2.0, top + HEIGHT + 36.0), x_name);
    for (i, (name, points)) in drawn.iter().enumerate() {
        let colour = i % COLOURS;
        let class = if i < COLOURS { format!("curve c{colour}") } else { format!("curve c{colour} again") };
        svg.path(&class, points.iter().map(|point| at(*point)));
        if points.len() <= MARKED {
            for (x, y) in points {
                svg.spot(&format!("c{colour}"), at((*x, *y)), &format!("{name}, {x_name} {}: {}", tick(*x), digits(*y)));
            }
        }
        if let Some((x, y)) = places.get(i) {
            svg.path(&class, [(*x, y - 4.0), (x + 16.0, y - 4.0)].into_iter());
            svg.text("", (x + 22.0, *y), name);
        }
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_few() {
        assert_eq!(marks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(marks(-0.01, 0.34), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(marks(3.0, 4100.0), [1000.0, 2000.0, 3000.0, 4000.0]);
        for (low, high) in [range([2.0, 2.0].into_iter()), range([0.0].into_iter()), range(std::iter::empty()), (1e-7, 3e-7)] {
            assert!((2..=9).contains(&marks(low, high).len()), "{low} {high}: {:?}", marks(low, high));
        }
    }

    #[test]
    fn a_curve_keeps_its_last_point_and_loses_what_is_no_number() {
        let points: Vec<(f64, f64)> = (0..2001).map(|i| (f64::from(i), if i == 4 { f64::NAN } else { f64::from(i) })).collect();
        let drawn = thinned(&points);
        assert!(drawn.len() <= MOST && drawn.last() == Some(&(2000.0, 2000.0)));
        let picture = chart("a < b", "step", &[Series { name: "x & y".into(), points }, Series { name: "none".into(), points: vec![] }]);
        assert!(picture.contains("a &lt; b") && picture.contains("x &amp; y") && !picture.contains("NaN"));
    }
}
