//! A run as one HTML file that needs nothing else: environment, roofline, bars, table. For a
//! screen, a picture and paper.

use minijinja::{Value, context};

use super::roofline::roofline;
use super::run::{Row, Run};
use crate::error::Result;
use crate::report::page::{page, safe};
use crate::report::svg::{Axis, Svg, digits, tick};
use crate::report::{Bound, Environment, Peaks, TimeSummary};

const STYLE: &str = include_str!("report.css");

/// Colours of groups, told apart by those who see few colours, too (after Okabe and Ito 2008); the
/// last is for all others.
const PALETTE: [&str; 9] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56a0d3", "#7b4ab3", "#3f4a5a", "#9aa3af"];

/// The page of `run`.
///
/// # Errors
/// Never, of templates that are tested.
pub fn html(run: &Run) -> Result<String> {
    let environment = &run.environment;
    let mut style = STYLE.to_string();
    for (i, colour) in PALETTE.iter().enumerate() {
        style += &format!(
            ".c{i} {{ fill: {colour}; }} .b{i} {{ background: {colour}; }} svg .t{i} {{ fill: {}; }}\n",
            if i + 1 < PALETTE.len() { colour } else { "#5b6675" }
        );
        style += &format!(".c{i}.hollow {{ fill: #fff; stroke: {colour}; stroke-width: 2; }}\n");
    }
    let numbered: Vec<(usize, &Row)> = run.rows.iter().enumerate().map(|(i, row)| (i + 1, row)).collect();
    let mut suites: Vec<&str> = Vec::new();
    run.rows.iter().for_each(|row| {
        if !suites.contains(&row.suite.as_str()) {
            suites.push(&row.suite)
        }
    });
    let suite = |&name: &&str| {
        let rows: Vec<(usize, &Row)> = numbered.iter().filter(|(_, row)| row.suite == name).copied().collect();
        let wall = rows.iter().any(|(_, row)| row.device_ms.is_none());
        context! { name, roofline => roofline(&rows, &run.peaks).map(safe), bars => safe(bars(&rows)), wall }
    };
    let limits = environment.limits.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
    page(
        include_str!("report.html"),
        context! {
            title => format!("wgrad bench: {}", environment.adapter),
            style => safe(style),
            checked => run.rows.iter().filter(|row| row.gate.passed.is_some()).count(),
            wrong => run.rows.iter().filter(|row| row.is_wrong()).count(),
            machine => machine(environment),
            wide => [("Limits", limits), ("Command", environment.command.clone())],
            peaks => peaks(&run.peaks),
            suites => suites.iter().map(suite).collect::<Vec<_>>(),
            heads => ["Device ms", "Wall ms", "CPU ms", "p10–p90", "n", "Cold ms", "GFLOP/s", "GB/s", "FLOP/B", "% peak"],
            rows => run.rows.iter().map(table_row).collect::<Vec<_>>(),
            wgrad => &environment.wgrad,
            date => &environment.date,
            command => &environment.command,
        },
    )
}

/// Where it was measured, as names and values.
fn machine(e: &Environment) -> Vec<(&'static str, String)> {
    let lanes = match e.subgroup_size {
        [0, _] => "none".into(),
        [least, most] if least == most => format!("{least} lanes"),
        [least, most] => format!("{least} to {most} lanes"),
    };
    let load = e.load_average.map_or("unknown".into(), |l| l.map(|v| format!("{v:.2}")).join(" "));
    vec![
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
    ]
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

/// What a row's rate is counted in: bytes where memory bounds it or it has no arithmetic, else
/// operations.
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
    svg.finish()
}

/// A row of the table. The list of its kernels folds away where it is long.
fn table_row(row: &Row) -> Value {
    const LETTERS: usize = 200;
    let number = |value: Option<f64>| value.map_or("–".into(), digits);
    let median = |sample: &Option<TimeSummary>| number(sample.map(|s| s.median));
    let mib = |bytes: Option<u64>| bytes.map(|b| b as f64 / f64::from(1 << 20));
    let sample = row.time().0;
    context! {
        name => &row.name,
        shape => format!("{}: {} {}", row.suite, row.shape, row.dtype),
        kernels => (row.tile.chars().count() > LETTERS).then(|| row.tile.split("; ").count()),
        tile => &row.tile,
        schedule => &row.schedule,
        passed => row.gate.passed,
        error => row.gate.max_error.map(|error| format!("{error:.1e}")),
        cells => [
            median(&row.device_ms),
            digits(row.wall_ms.median),
            median(&row.cpu_ms),
            format!("{}–{}", digits(sample.p10), digits(sample.p90)),
            sample.count.to_string(),
            median(&row.cold_ms),
            number(row.gflops),
            number(row.gbs),
            number(row.intensity),
        ],
        share => number(row.percent_of_peak),
        of_tile => row.percent_of_loads.map(digits),
        bound => row.bound.to_string(),
        counts => [digits(row.compile_ms), digits(row.first_ms), row.dispatches.to_string()],
        memory => number(mib(row.memory_bytes)),
        least => mib(row.memory_bound_bytes).map(digits),
        note => &row.note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_row_and_needs_nothing_else() {
        let sample = TimeSummary { median: 2.0, p10: 1.9, p90: 2.2, mad: 0.1, minimum: 1.8, count: 9 };
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
        let page = html(&Run { environment, peaks: Peaks { fma_gflops: Some(100.0), ..Peaks::default() }, rows }).unwrap();
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
        assert!(html(&run).unwrap().contains("0 rows"));
    }
}
