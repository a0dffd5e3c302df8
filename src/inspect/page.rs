//! Inspections as one HTML file that needs nothing else.

use minijinja::context;

use super::{Inspection, Pipeline};
use crate::error::Result;
use crate::io::console::arguments;
use crate::report::page::{page as fill, safe};

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2733; margin: 2rem auto; max-width: 82rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #d8dee6; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; max-width: 34rem; overflow-wrap: anywhere; }
.bad { color: #b3261e; font-weight: 600; }
footer { color: #5b6675; margin-top: 2rem; }
";

/// The page of `inspections`, a table for each target.
///
/// # Errors
/// Never, of templates that are tested.
pub fn page(inspections: &[Inspection]) -> Result<String> {
    let row = |p: &Pipeline| {
        let number = |value: Option<f64>| value.map_or("–".to_string(), |v| format!("{v:.0}"));
        let (f, hot) = (&p.figures, p.heaviest_loop.as_ref());
        let percent = hot.map_or("–".to_string(), |l| format!("{:.0} %", 100.0 * l.share()));
        let hidden = hot.and_then(|l| l.hidden.iter().min()).map_or("–".to_string(), ToString::to_string);
        let figures = [f.registers, f.workgroup_bytes, f.occupancy, f.instructions, f.latency, f.throughput].map(number);
        context! { name => p.name(), spills => number(Some(f.spills)), bad => f.spills(), figures, percent, hidden }
    };
    let target = |i: &Inspection| {
        let spilling = i.pipelines.iter().filter(|p| p.figures.spills()).count();
        let rows: Vec<_> = i.pipelines.iter().map(row).collect();
        context! { name => &i.target, adapter => &i.adapter, driver => &i.driver, spilling, rows }
    };
    fill(
        include_str!("page.html"),
        context! {
            title => "wgrad inspect",
            style => safe(STYLE),
            targets => inspections.iter().map(target).collect::<Vec<_>>(),
            heads => ["Registers", "Workgroup B", "Occupancy", "Instructions", "Latency", "Throughput"],
            wgrad => env!("CARGO_PKG_VERSION"),
            command => arguments().join(" "),
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Figures, Inspection, Pipeline};
    use super::*;

    #[test]
    fn a_spill_stands_out_and_names_are_escaped() {
        let pipeline = Pipeline {
            kernel: "a<b:main".into(),
            variant: String::new(),
            workload: "x".into(),
            workgroup: [64, 1, 1],
            subgroup_size: 32,
            figures: Figures { registers: Some(40.0), spills: 3.0, ..Default::default() },
            statistics: Default::default(),
            heaviest_loop: None,
            texts: Default::default(),
        };
        let inspection = Inspection {
            target: "rdna3".into(),
            adapter: "a card".into(),
            driver: "radv".into(),
            pipelines: vec![pipeline],
            left_out: vec![],
        };
        let html = page(&[inspection]).unwrap();
        assert!(html.contains("a&lt;b:main") && html.contains("<td class=\"bad\">3</td>") && html.contains("<td>40</td>"), "{html}");
    }
}
