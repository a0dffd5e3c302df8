//! What a comparison shows, row by row, and which rows differ.

use super::measure::{BATCH, Judged, Measured};
use super::{Column, Comparison};
use crate::methods::Supervision;

/// What is said of a run that has no teacher or no weights to begin from.
const NONE: &str = "none";

/// One property of all that is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The property.
    pub name: &'static str,
    /// Whether it is measured, not known of the method.
    pub measured: bool,
    /// One a column; `None` where there is nothing to say.
    pub cells: Vec<Option<Cell>>,
}

/// What is said of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// From where to where it may be, where it is a number.
    pub range: Option<[f64; 2]>,
}

impl Cell {
    fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), range: None }
    }

    fn number(text: String, range: [f64; 2]) -> Self {
        Self { text, range: Some(range) }
    }

    /// Numbers differ where they cannot be the same.
    fn differs(&self, other: &Self) -> bool {
        match (self.range, other.range) {
            (Some([low, high]), Some([from, to])) => low > to || from > high,
            _ => self.text != other.text,
        }
    }
}

impl Row {
    /// Whether any two of its cells differ by more than their spread.
    pub fn differs(&self) -> bool {
        let cells: Vec<&Cell> = self.cells.iter().flatten().collect();
        cells.iter().enumerate().any(|(i, a)| cells.iter().skip(i + 1).any(|b| a.differs(b)))
    }
}

impl Comparison {
    /// Everything that is known, then what was measured.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |name, measured, cell: &dyn Fn(&Column) -> Option<Cell>| {
            let cells: Vec<Option<Cell>> = self.columns.iter().map(cell).collect();
            if cells.iter().flatten().any(|cell| cell.text != NONE) {
                rows.push(Row { name, measured, cells });
            }
        };
        let known = |of: fn(&Column) -> String| move |column: &Column| Some(Cell::words(of(column)));
        add("method", false, &known(|c| format!("{} ({})", c.subject.entry.card.title, c.subject.entry.name)));
        add("learns from", false, &known(|c| c.subject.entry.card.supervision.to_string()));
        add("family", false, &known(|c| c.subject.entry.card.family.into()));
        add("year", false, &known(|c| c.subject.entry.card.year.to_string()));
        add("originators", false, &known(|c| c.subject.entry.card.authors.into()));
        add("paper", false, &known(|c| c.subject.entry.card.paper.into()));
        add("related", false, &known(|c| c.subject.entry.related().join(", ")));
        let measured = |of: fn(&Measured) -> Option<Cell>| move |column: &Column| column.measured.as_ref().and_then(of);
        add("network", true, &measured(|m| Some(Cell::words(&m.network))));
        add("images", true, &measured(|m| Some(Cell::words(&m.data))));
        let labels = |c: &Column| {
            let weak = c.subject.entry.card.supervision == Supervision::WeaklySupervised;
            c.measured.as_ref().map(|m| exactly(m.labels as u64, if weak { ", weak ones" } else { "" }))
        };
        add("labels used", true, &labels);
        add("teachers", true, &measured(teachers));
        add("begins from", true, &measured(|m| Some(Cell::words(m.weights.as_deref().unwrap_or(NONE)))));
        add("accuracy", true, &measured(accuracy));
        add("of", true, &measured(|m| Some(Cell::words(judged(m)))));
        add("parameters", true, &measured(|m| Some(exactly(m.parameters as u64, ""))));
        add("multiply-adds an image", true, &measured(|m| Some(exactly(m.multiply_adds, ""))));
        add("model's file", true, &measured(|m| Some(exactly(m.bytes, " bytes"))));
        let latency = |m: &Measured| {
            let sample = m.latency;
            Some(Cell::number(format!("{:.2} ms", sample.median), [sample.p10, sample.p90]))
        };
        add("latency of one image", true, &measured(latency));
        let throughput = |m: &Measured| {
            let rate = |ms: f64| BATCH as f64 / (ms * 1e-3);
            Some(Cell::number(grouped(m.throughput().round() as u64) + " images/s", [rate(m.batch.p90), rate(m.batch.p10)]))
        };
        add("throughput in batches", true, &measured(throughput));
        let training = |m: &Measured| {
            let spent = m.spent?;
            Some(Cell::number(format!("{:.0} s", spent.seconds), [spent.seconds; 2]))
        };
        add("training", true, &measured(training));
        add("images trained on", true, &measured(|m| m.spent.map(|spent| exactly(spent.images, ""))));
        rows
    }
}

fn exactly(count: u64, unit: &str) -> Cell {
    Cell::number(grouped(count) + unit, [count as f64; 2])
}

/// Digits with commas between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let comma = |(at, digit): (usize, char)| if at >= first && (at - first).is_multiple_of(3) { vec![',', digit] } else { vec![digit] };
    digits.chars().enumerate().flat_map(comma).collect()
}

/// Accuracies differ where they are two spreads apart each.
fn accuracy(m: &Measured) -> Option<Cell> {
    let (mean, spread) = m.accuracy;
    Some(Cell::number(format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * spread), [mean - 2.0 * spread, mean + 2.0 * spread]))
}

/// What the accuracy is one of.
fn judged(m: &Measured) -> String {
    let runs = if m.runs > 1 { format!("{} runs: ", m.runs) } else { String::new() };
    let images = grouped(m.test_images as u64);
    match m.judged {
        Judged::Classifier => format!("{runs}{images} test images"),
        Judged::Probe { labels, draws } => format!("{runs}a linear probe, {labels} labels a class, {draws} draws, {images} test images"),
    }
}

fn teachers(m: &Measured) -> Option<Cell> {
    let one = |(name, labels): &(String, Option<usize>)| match labels {
        Some(labels) => format!("{name} ({} labels)", grouped(*labels as u64)),
        None => name.clone(),
    };
    Some(Cell::words(if m.teachers.is_empty() { NONE.into() } else { m.teachers.iter().map(one).collect::<Vec<_>>().join(", ") }))
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;
    use crate::report::TimeSummary;

    #[test]
    fn thousands_have_commas() {
        let texts = [0, 12, 999, 1000, 24_058, 123_456, 1_157_824].map(grouped);
        assert_eq!(texts, ["0", "12", "999", "1,000", "24,058", "123,456", "1,157,824"]);
    }

    #[test]
    fn rows_differ_by_more_than_their_spread() {
        let sample = |median| TimeSummary { median, p10: median - 0.1, p90: median + 0.1, ..Default::default() };
        let one = Measured {
            network: "cnn".into(),
            data: "d".into(),
            accuracy: (0.70, 0.01),
            judged: Judged::Classifier,
            test_images: 2000,
            runs: 1,
            parameters: 1000,
            multiply_adds: 5,
            bytes: 4096,
            latency: sample(2.0),
            batch: sample(64.0),
            spent: None,
            labels: 200,
            teachers: vec![("t".into(), Some(200))],
            weights: None,
        };
        let other = Measured { accuracy: (0.73, 0.01), latency: sample(2.15), batch: sample(32.0), parameters: 1001, ..one.clone() };
        let column = |name: &str, measured| Column { subject: Subject::find(name).unwrap(), measured };
        let columns = vec![column("simclr", Some(one)), column("simclr", Some(other)), column("moco", None)];
        let rows = Comparison { environment: None, columns }.rows();
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        let differing: Vec<&str> = rows.iter().filter(|row| row.differs()).map(|row| row.name).collect();
        assert_eq!(differing, ["method", "year", "originators", "paper", "related", "parameters", "throughput in batches"]);
        assert_eq!(row("accuracy").cells[0].as_ref().unwrap().text, "70.0 ± 1.0 %");
        assert_eq!(row("throughput in batches").cells[1].as_ref().unwrap().text, "2,000 images/s");
        assert_eq!(row("teachers").cells[0].as_ref().unwrap().text, "t (200 labels)");
        assert_eq!(row("accuracy").cells[2], None);
        assert!(rows.iter().all(|row| row.name != "training" && row.name != "begins from"), "nothing is known of it");
    }
}
