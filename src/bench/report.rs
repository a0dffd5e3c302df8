//! A run as one HTML file that needs nothing else: environment, roofline, bars, table. For a screen, a picture and paper.

use super::roofline::roofline;
use super::run::{Row, Run};
use crate::report::svg::{Axis, Svg, digits, escape, tick};
use crate::report::{Bound, Peaks, Sample};

const STYLE: &str = include_str!("report.css");

/// Colours of groups, told apart by those who see few colours, too (after Okabe and Ito 2008); the last is for all others.
const PALETTE: [&str; 9] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56a0d3", "#7b4ab3", "#3f4a5a", "#9aa3af"];

/// The page of `run`.
pub fn html(run: &Run) -> String {
    let environment = &run.environment;
    let mut style = STYLE.to_string();
    for (i, colour) in PALETTE.iter().enumerate() {
        style += &format!(
            ".c{i} {{ fill: {colour}; }} .b{i} {{ background: {colour}; }} svg .t{i} {{ fill: {}; }}\n",
            if i + 1 < PALETTE.len() { colour } else { "#5b6675" }
        );
        style += &format!(".c{i}.hollow {{ fill: #fff; stroke: {colour}; stroke-width: 2; }}\n");
    }
    let title = escape(&format!("wgrad bench: {}", environment.adapter));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    page += &headline(run);
    page += &about(run);
    let numbered: Vec<(usize, &Row)> = run.rows.iter().enumerate().map(|(i, row)| (i + 1, row)).collect();
    let mut suites: Vec<&str> = Vec::new();
    run.rows.iter().for_each(|row| {
        if !suites.contains(&row.suite.as_str()) {
            suites.push(&row.suite)
        }
    });
    for suite in suites {
        let rows: Vec<(usize, &Row)> = numbered.iter().filter(|(_, row)| row.suite == suite).copied().collect();
        page += &format!("<section>\n<h2>Suite: {}</h2>\n", escape(suite));
        if let Some(plot) = roofline(&rows, &run.peaks) {
            page += &format!("<h3>Roofline</h3>\n{plot}");
        }
        page += &format!("<h3>Time, share of the measured peak, rate</h3>\n{}</section>\n", bars(&rows));
    }
    page += &table(&numbered);
    page += &format!(
        "<footer>Made by wgrad {} on {}: <code>{}</code></footer>\n</body>\n</html>\n",
        escape(&environment.wgrad),
        escape(&environment.date),
        escape(&environment.command)
    );
    page
}

fn headline(run: &Run) -> String {
    let (wrong, checked) = (run.rows.iter().filter(|r| r.is_wrong()).count(), run.rows.iter().filter(|r| r.gate.passed.is_some()).count());
    let wrong = match wrong {
        0 => String::new(),
        n => format!(" <span class=\"bad\">{n} wrong.</span>"),
    };
    format!("<p>{} rows, {checked} of them checked before they were timed.{wrong}</p>\n", run.rows.len())
}

/// The environment and the peaks.
fn about(run: &Run) -> String {
    let (e, p) = (&run.environment, &run.peaks);
    let lanes = match e.subgroup_size {
        [0, _] => "none".into(),
        [least, most] if least == most => format!("{least} lanes"),
        [least, most] => format!("{least} to {most} lanes"),
    };
    let load = e.load_average.map_or("unknown".into(), |l| l.map(|v| format!("{v:.2}")).join(" "));
    let machine = [
        ("Adapter", format!("{} ({}, {})", e.adapter, e.kind, e.backend)),
        ("Driver", e.driver.clone()),
        ("Schedule", e.schedule.clone()),
        ("Tuning table", e.tuning_table.clone().unwrap_or_else(|| "none".into())),
        ("Subgroups", lanes),
        ("Features", e.features.join(", ")),
        ("System", format!("{}, {} cores", e.system, e.cores)),
        ("Load before", load),
        ("wgrad, wgpu", format!("{}, {}", e.wgrad, e.wgpu)),
        ("Date", e.date.clone()),
    ];
    let pairs = |pairs: &[(&str, String)]| -> String {
        pairs.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value))).collect()
    };
    let limits = e.limits.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
    let wide: String = [("Limits", limits), ("Command", e.command.clone())]
        .iter()
        .map(|(name, value)| format!("<dt>{name}</dt><dd class=\"wide\">{}</dd>\n", escape(value)))
        .collect();
    format!(
        "<h3>Where it was measured</h3>\n<dl>\n{}{wide}</dl>\n<h3>Measured peaks</h3>\n<dl>\n{}</dl>\n",
        pairs(&machine),
        pairs(&peaks(p))
    )
}

fn peaks(p: &Peaks) -> Vec<(&'static str, String)> {
    let with = |value: Option<f64>, unit: &str| value.map_or("not measured".into(), |v| format!("{} {unit}", digits(v)));
    let mut list = vec![
        ("Multiply-adds in registers", with(p.fma_gflops, "GFLOP/s")),
        ("Copy", with(p.copy_gbs, "GB/s")),
        ("Multiply-adds from the nearest memory", with(p.loads_gflops, "GFLOP/s")),
        ("Copy within the caches", with(p.cached_copy_gbs, "GB/s")),
        ("One more dispatch", with(p.dispatch_microseconds, "µs")),
        ("Submitting and waiting", with(p.submit_microseconds, "µs")),
        ("Smallest step of time stamps", with(p.tick_nanoseconds, "ns")),
    ];
    list.extend(p.matrix_absent.clone().map(|why| ("Cooperative matrices", why)));
    list
}

/// What a row's rate is counted in: bytes where memory bounds it or it has no arithmetic, else operations.
fn rate(row: &Row) -> Option<(f64, &'static str)> {
    let (flops, bytes) = (row.gflops.filter(|g| *g > 0.0).map(|g| (g, "GFLOP/s")), row.gbs.map(|g| (g, "GB/s")));
    if row.bound == Bound::Memory { bytes.or(flops) } else { flops.or(bytes) }
}

/// One line a row, three bars a line.
fn bars(rows: &[(usize, &Row)]) -> String {
    const LINE: f64 = 19.0;
    const TOP: f64 = 44.0;
    /// First and last pixel of the three columns.
    const COLUMNS: [(f64, f64); 3] = [(400.0, 640.0), (740.0, 940.0), (1010.0, 1210.0)];
    let bottom = TOP + LINE * rows.len() as f64;
    let mut svg = Svg::new(1340.0, bottom + 8.0, "Time, share of the peak and rate of every row");
    let [time, share, speed] = COLUMNS;
    let times = || rows.iter().map(|(_, r)| r.time().0.median).filter(|t| *t > 0.0);
    let (least, most) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let (low, high) = (10f64.powf(least.min(most).max(1e-6).log10().floor()), 10f64.powf(most.max(1e-5).log10().ceil()));
    let axis = Axis { low, high: high.max(10.0 * low), from: time.0, to: time.1 };
    let best = |unit: &str| rows.iter().filter_map(|(_, r)| rate(r)).filter(|(_, u)| *u == unit).map(|(v, _)| v).fold(0.0, f64::max);
    for (i, _) in rows.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
        svg.rect("stripe", (0.0, TOP + LINE * i as f64), 1340.0, LINE);
    }
    svg.text("column", (time.0, 16.0), "ms (logarithmic)");
    svg.text("column", (share.0, 16.0), "% of the measured peak");
    svg.text("column", (speed.0, 16.0), "GFLOP/s or GB/s (of the best here)");
    for value in axis.decades() {
        svg.line("grid", (axis.at(value), TOP - 4.0), (axis.at(value), bottom));
        svg.text("tick middle", (axis.at(value), TOP - 9.0), &tick(value));
    }
    for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
        let x = share.0 + (share.1 - share.0) * percent / 100.0;
        svg.line("grid", (x, TOP - 4.0), (x, bottom));
        svg.text("tick middle", (x, TOP - 9.0), &tick(percent));
    }
    let several = rows.iter().any(|(_, r)| Some(&r.schedule) != rows.first().map(|(_, f)| &f.schedule));
    for (i, (number, row)) in rows.iter().enumerate() {
        let y = TOP + LINE * i as f64;
        let name = if several { format!("{} ({})", row.name, row.schedule) } else { row.name.clone() };
        let name = if name.chars().count() > 50 { name.chars().take(49).chain(['…']).collect() } else { name };
        svg.text("tick end", (32.0, y + 14.0), &number.to_string());
        svg.text("", (42.0, y + 14.0), &name);
        let class = match row.bound {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
            Bound::Unknown => "unknown",
        };
        let mut bar = |class: &str, from: f64, to: f64, text: &str| {
            svg.rect(class, (from, y + 4.0), (to - from).max(1.0), LINE - 8.0);
            svg.text("value", (to.max(from) + 5.0, y + 14.0), text);
        };
        let (sample, by) = row.time();
        if sample.median > 0.0 {
            bar("time", time.0, axis.at(sample.median), &format!("{}{}", digits(sample.median), if by == "wall" { " w" } else { "" }));
        }
        if let Some(percent) = row.percent_of_peak {
            bar(class, share.0, share.0 + (share.1 - share.0) * (percent / 100.0).clamp(0.0, 1.0), &digits(percent));
        }
        if let Some((value, unit)) = rate(row) {
            bar(class, speed.0, speed.0 + (speed.1 - speed.0) * value / best(unit).max(1e-9), &format!("{} {unit}", digits(value)));
        }
    }
    let wall = if rows.iter().any(|(_, r)| r.device_ms.is_none()) { " w: wall time, where the device's is not known." } else { "" };
    svg.finish()
        + &format!(
            "<p class=\"legend\"><span><i class=\"compute\" style=\"background:#2b6cb0\"></i>bound by compute</span>\
             <span><i style=\"background:#2f8558\"></i>by memory</span><span><i style=\"background:#b7791f\"></i>by launching</span>\
             <span><i style=\"background:#9aa3af\"></i>unknown</span></p>\n<p class=\"note\">The peak is what the measured peaks allow at a row's \
             operations a byte.{wall}</p>\n"
        )
}

/// The kernels of a row; many of them fold away.
fn kernels(tile: &str) -> String {
    const LETTERS: usize = 200;
    match tile.split("; ").count() {
        many if tile.chars().count() > LETTERS => format!("<details><summary>{many} kernel variants</summary>{}</details>", escape(tile)),
        _ => escape(tile),
    }
}

fn table(rows: &[(usize, &Row)]) -> String {
    let heads = [
        "#",
        "Workload",
        "Schedule",
        "Right?",
        "Device ms",
        "Wall ms",
        "CPU ms",
        "p10–p90",
        "n",
        "Cold ms",
        "GFLOP/s",
        "GB/s",
        "FLOP/B",
        "% peak",
        "Bound",
        "Compile ms",
        "First ms",
        "Disp.",
        "MiB",
        "Note",
    ];
    let words = ["Workload", "Schedule", "Right?", "Bound", "Note"];
    let class = |head: &str| if words.contains(&head) { " class=\"words\"" } else { "" };
    let head: String = heads.iter().map(|h| format!("<th{}>{h}</th>", class(h))).collect();
    let number = |value: Option<f64>| value.map_or("–".into(), digits);
    let median = |sample: &Option<Sample>| number(sample.map(|s| s.median));
    let body: String = rows
        .iter()
        .map(|(at, row)| {
            let sample = row.time().0;
            let gate = match row.gate.passed {
                Some(true) => "yes".to_string(),
                Some(false) => "<span class=\"bad\">no</span>".into(),
                None => "–".into(),
            };
            let error = row.gate.max_error.map_or(String::new(), |e| format!("<small>{e:.1e}</small>"));
            let mib = |bytes: Option<u64>| bytes.map(|b| b as f64 / f64::from(1 << 20));
            let memory = mib(row.memory_bytes).map_or("–".into(), digits)
                + &mib(row.memory_bound_bytes).map_or(String::new(), |least| format!("<small>least {}</small>", digits(least)));
            let cells = [
                at.to_string(),
                format!(
                    "{}<small>{}</small><small>{}</small>",
                    escape(&row.name),
                    escape(&format!("{}: {} {}", row.suite, row.shape, row.dtype)),
                    kernels(&row.tile)
                ),
                escape(&row.schedule),
                gate + &error,
                median(&row.device_ms),
                digits(row.wall_ms.median),
                median(&row.cpu_ms),
                format!("{}–{}", digits(sample.p10), digits(sample.p90)),
                sample.count.to_string(),
                median(&row.cold_ms),
                number(row.gflops),
                number(row.gbs),
                number(row.intensity),
                number(row.percent_of_peak) + &row.percent_of_loads.map_or(String::new(), |p| format!("<small>tile {}</small>", digits(p))),
                row.bound.to_string(),
                digits(row.compile_ms),
                digits(row.first_ms),
                row.dispatches.to_string(),
                memory,
                escape(&row.note),
            ];
            let cells: String = cells.iter().zip(heads).map(|(cell, head)| format!("<td{}>{cell}</td>", class(head))).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<h2>All rows</h2>\n<p class=\"note\">Right?: yes where the result was compared, with its error as a share of what is allowed. Tile: of the multiply-adds from the nearest memory.</p>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_row_and_needs_nothing_else() {
        let sample = Sample { median: 2.0, p10: 1.9, p90: 2.2, mad: 0.1, minimum: 1.8, count: 9 };
        let row = |name: &str, passed: bool| Row {
            suite: "peers".into(),
            name: name.into(),
            gate: super::super::run::Gate { passed: Some(passed), ..Default::default() },
            wall_ms: sample,
            gflops: Some(40.0),
            intensity: Some(8.0),
            percent_of_peak: Some(40.0),
            ..Row::default()
        };
        let environment = crate::report::Environment { adapter: "<b>".into(), command: "a & b".into(), ..Default::default() };
        let rows = vec![row("conv<3>", true), row("softmax", false)];
        let page = html(&Run { environment, peaks: Peaks { fma_gflops: Some(100.0), ..Peaks::default() }, rows });
        for words in ["&lt;b&gt;", "a &amp; b", "conv&lt;3&gt;", "softmax", "1 wrong.", "2.00 w", "1.90–2.20"] {
            assert!(page.contains(words), "{words}");
        }
        assert!(!page.contains("conv<3>") && !page.contains("NaN") && !page.contains("inf"));
        // Nothing is fetched: the only address is the name of SVG.
        assert_eq!(page.matches("http").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
        assert!(!page.contains("src=") && !page.contains("url(") && !page.contains("<script"));
    }

    #[test]
    fn an_empty_run_is_a_page_too() {
        let run = Run { environment: Default::default(), peaks: Peaks::default(), rows: Vec::new() };
        assert!(html(&run).contains("0 rows"));
    }
}
