//! Inspections against each other, and against figures that are kept.

use std::collections::BTreeMap;

use super::{Inspection, Loop, Pipeline};
use crate::error::{Error, Result};
use crate::report::csv::csv;

/// How much more of a figure is let pass, as a share: compilers' releases differ by less.
const SLACK: f64 = 0.1;

/// Kernels whose loads must lie behind multiply-adds: products and convolutions are the time of
/// most networks.
const MUST_HIDE: [&str; 6] = ["gemm_gpu:", "conv2d_gpu:", "conv2d_weight_gpu:", "gemm_matrix:", "conv2d_matrix:", "conv2d_weight_matrix:"];

/// A figure that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The target.
    pub target: String,
    /// Kernel and variant.
    pub pipeline: String,
    /// The figure.
    pub figure: &'static str,
    /// Before and after.
    pub values: [f64; 2],
}

impl Change {
    /// After by before; infinite where there was none before.
    pub fn ratio(&self) -> f64 {
        let [before, after] = self.values;
        after / before
    }

    /// Whether it is worse by more than a tenth; more occupancy is better, more of all else worse.
    pub fn is_worse(&self) -> bool {
        if self.figure == "occupancy" { self.ratio() < 1.0 - SLACK } else { self.ratio() > 1.0 + SLACK }
    }
}

/// What changed from `before` to `after`, in targets and pipelines that both have.
pub fn compare(before: &[Inspection], after: &[Inspection]) -> Vec<Change> {
    let mut list = Vec::new();
    for new in after {
        let Some(old) = before.iter().find(|old| old.target == new.target) else { continue };
        let old: BTreeMap<String, &Pipeline> = old.pipelines.iter().map(|p| (p.name(), p)).collect();
        for pipeline in &new.pipelines {
            let name = pipeline.name();
            let Some(was) = old.get(&name) else { continue };
            for ((figure, a), (_, b)) in was.figures.named().into_iter().zip(pipeline.figures.named()) {
                let (Some(a), Some(b)) = (a, b) else { continue };
                if a != b {
                    list.push(Change { target: new.target.clone(), pipeline: name.clone(), figure, values: [a, b] });
                }
            }
        }
    }
    list
}

/// The figures of one target as a table, to be kept.
///
/// # Errors
/// Those of writing CSV.
pub fn table(inspection: &Inspection) -> Result<String> {
    let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    let names = super::Figures::default().named().map(|(name, _)| name.to_string());
    let head = ["pipeline".to_string()].into_iter().chain(names).chain(["multiply_adds_percent", "least_hidden"].map(String::from));
    let row = |p: &Pipeline| {
        let percent = p.heaviest_loop.as_ref().map(|l| (100.0 * l.share()).round());
        let least = p.heaviest_loop.as_ref().and_then(|l| l.hidden.iter().min()).map(|n| *n as f64);
        let figures = p.figures.named().map(|(_, value)| number(value));
        [p.name()].into_iter().chain(figures).chain([number(percent), number(least)]).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> = inspection.pipelines.iter().map(row).collect();
    rows.sort();
    csv([head.collect::<Vec<_>>()].into_iter().chain(rows))
}

/// What a table that was kept says of one pipeline.
struct Kept {
    registers: Option<f64>,
    least_hidden: Option<f64>,
}

fn kept_figures(text: &str) -> Result<BTreeMap<String, Kept>> {
    let wrong = |message: String| Error::data("the figures kept", message);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let head = reader.headers().map_err(|e| wrong(e.to_string()))?.clone();
    let at = |name: &str| head.iter().position(|h| h == name).ok_or_else(|| wrong(format!("there is no column {name}")));
    let (name, registers, least_hidden) = (at("pipeline")?, at("registers")?, at("least_hidden")?);
    let mut list = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(|e| wrong(e.to_string()))?;
        let number = |column: usize| record.get(column).and_then(|text| text.parse().ok());
        let kept = Kept { registers: number(registers), least_hidden: number(least_hidden) };
        list.insert(record.get(name).unwrap_or_default().to_string(), kept);
    }
    Ok(list)
}

/// What is wrong with `inspection`: pipelines that spill, loads of products and convolutions that
/// nothing hides where `kept` does not say so, and registers more than a tenth above those of
/// `kept`, a table as [`table`] writes it.
///
/// # Errors
/// A table that cannot be read.
pub fn problems(inspection: &Inspection, kept: &str) -> Result<Vec<String>> {
    let kept = kept_figures(kept)?;
    let mut list = Vec::new();
    for pipeline in &inspection.pipelines {
        let (name, figures) = (pipeline.name(), &pipeline.figures);
        if figures.spills() {
            list.push(format!("{name}: {} spills, {} bytes of scratch memory", figures.spills, figures.scratch_bytes));
        }
        let kept = kept.get(&name);
        let waits = pipeline.heaviest_loop.as_ref().is_some_and(|l| l.waits_at_once());
        let multiplies = |l: &Loop| l.mix.contains_key("matrix");
        if pipeline.kernel.contains("_matrix:") && pipeline.heaviest_loop.as_ref().is_some_and(|l| !multiplies(l)) {
            list.push(format!("{name}: no matrix instruction in its heaviest loop"));
        }
        let must_hide = MUST_HIDE.iter().any(|kernel| pipeline.kernel.contains(kernel));
        if must_hide && waits && kept.and_then(|k| k.least_hidden) != Some(0.0) {
            list.push(format!("{name}: a load in the heaviest loop is waited for before any multiply-add"));
        }
        if let (Some(now), Some(was)) = (figures.registers, kept.and_then(|k| k.registers))
            && now > was * (1.0 + SLACK)
        {
            list.push(format!("{name}: {now} registers, {was} were kept"));
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::Figures;
    use super::*;

    fn inspection(kernel: &str, figures: Figures, heaviest_loop: Option<Loop>) -> Inspection {
        let pipeline = Pipeline {
            kernel: kernel.into(),
            variant: "TILE=64".into(),
            workload: "matmul".into(),
            workgroup: [256, 1, 1],
            subgroup_size: 32,
            figures,
            statistics: BTreeMap::new(),
            heaviest_loop,
            texts: BTreeMap::new(),
        };
        Inspection { target: "rdna3".into(), adapter: "a card".into(), driver: "radv".into(), pipelines: vec![pipeline], left_out: vec![] }
    }

    fn figures(registers: f64, spills: f64) -> Figures {
        Figures { registers: Some(registers), spills, latency: Some(1000.0), ..Default::default() }
    }

    #[test]
    fn a_spill_a_wait_and_registers_are_found() {
        let hidden = |list: &[usize]| Some(Loop { instructions: 10, multiply_adds: 8, hidden: list.into(), ..Default::default() });
        let good = inspection("linear/gemm_gpu:gemm", figures(64.0, 0.0), hidden(&[8, 8]));
        let kept = table(&good).unwrap();
        assert!(problems(&good, &kept).unwrap().is_empty());
        let only = |kernel: &str, figures: Figures, waits: &[usize]| problems(&inspection(kernel, figures, hidden(waits)), &kept).unwrap();
        assert!(only("linear/gemm_gpu:gemm", figures(64.0, 4.0), &[8])[0].contains("4 spills"));
        assert!(only("linear/gemm_gpu:gemm", figures(64.0, 0.0), &[8, 0])[0].contains("waited for before any multiply-add"));
        assert!(only("linear/gemm_gpu:gemm", figures(72.0, 0.0), &[8])[0].contains("72 registers, 64 were kept"));
        assert!(only("linear/gemm_gpu:gemm", figures(70.0, 0.0), &[8]).is_empty());
        // A wait that was kept is known.
        let known = table(&inspection("linear/gemm_gpu:gemm", figures(64.0, 0.0), hidden(&[0]))).unwrap();
        assert!(problems(&inspection("linear/gemm_gpu:gemm", figures(64.0, 0.0), hidden(&[8, 0])), &known).unwrap().is_empty());
        // A pipeline that is not in the table, and need not hide its loads.
        assert!(only("softmax/softmax_gpu:forward", figures(200.0, 0.0), &[0]).is_empty());
        assert!(problems(&good, "no,table\n").unwrap_err().to_string().contains("pipeline"));
    }

    #[test]
    fn changes_are_told_with_their_direction() {
        let before = [inspection("linear/gemm_gpu:gemm", figures(64.0, 0.0), None)];
        let mut after = before.clone();
        after[0].pipelines[0].figures = Figures { occupancy: Some(8.0), ..figures(80.0, 0.0) };
        let changes = compare(&before, &after);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].figure, changes[0].values, changes[0].is_worse()), ("registers", [64.0, 80.0], true));
        let less = Change { figure: "occupancy", values: [16.0, 8.0], ..changes[0].clone() };
        assert!(less.is_worse());
        assert!(!Change { figure: "latency", ..less }.is_worse());
    }
}
