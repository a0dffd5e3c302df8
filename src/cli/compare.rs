//! `wgrad compare`: methods and finished runs side by side.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use super::device;
use super::output::{say, write};
use crate::error::Result;
use crate::evaluate::compare::{BATCH, Column, Comparison, Row, Subject, measure};
use crate::io::atomic::write_atomically;
use crate::io::console::{clean, tell};

/// Columns of characters that a table fills, those of the properties' names, and of a cell at
/// least.
const WIDTH: usize = 132;
const NAMES: usize = 24;
const NARROWEST: usize = 16;

/// Lay methods or finished runs side by side: what is known of each, and what is measured of runs
/// (docs/compare.md)
#[derive(clap::Args)]
pub(super) struct Compare {
    /// Methods by name and runs by directory; several seeds of one recipe are one column with
    /// commas between: runs/a-0,runs/a-1
    #[arg(value_name = "METHOD|RUN", required = true, num_args = 2..)]
    subjects: Vec<String>,
    /// The runs' data set where it is not where they found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write a page with pictures and the table to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(self) -> Result<ExitCode> {
        let subjects = self.subjects.iter().map(|text| Subject::find(text)).collect::<Result<Vec<_>>>()?;
        let comparison = if subjects.iter().all(|subject| subject.runs.is_empty()) {
            // What is known of methods needs no device.
            let columns = subjects.into_iter().map(|subject| Column { subject, measured: None }).collect();
            Comparison { environment: None, columns }
        } else {
            measure(&device::open()?, subjects, self.data.as_ref(), &mut |name| tell(format!("measuring {name}")))?
        };
        if let Some(path) = &self.html {
            write_atomically(path, comparison.html(None)?.as_bytes())?;
        }
        if self.json { say(format!("{:#}", comparison.to_json())) } else { write(text(&comparison).as_bytes()) }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The table: a column each, a property a row. Rows that differ have a mark, and are bold on a
/// terminal.
pub(super) fn text(comparison: &Comparison) -> String {
    let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let most = ((WIDTH - NAMES) / comparison.columns.len().max(1)).saturating_sub(2).max(NARROWEST);
    let rows = comparison.rows();
    let mut lines =
        vec![(false, vec![String::new()], comparison.columns.iter().map(|c| wrapped(&c.subject.name, most)).collect::<Vec<_>>())];
    for row in &rows {
        let cells = row.cells.iter().map(|cell| cell.as_ref().map_or(vec!["-".into()], |cell| wrapped(&cell.text, most)));
        let mark = if row.differs() { "* " } else { "  " };
        lines.push((row.differs(), vec![format!("{mark}{}", row.name)], cells.collect()));
    }
    let width =
        |column: usize| lines.iter().filter_map(|(.., cells)| cells.get(column)).flatten().map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..comparison.columns.len()).map(width).collect();
    let mut text = String::new();
    for (index, (differs, name, cells)) in lines.iter().enumerate() {
        for line in 0..cells.iter().map(Vec::len).max().unwrap_or(1) {
            let part = |parts: &[String], width: usize| format!("{:<width$}", parts.get(line).map_or("", String::as_str));
            let whole = [part(name, NAMES)].into_iter().chain(cells.iter().zip(&widths).map(|(cell, width)| part(cell, *width)));
            let whole = whole.collect::<Vec<_>>().join("  ");
            let whole = clean(whole.trim_end());
            text += &if bold && *differs { format!("\x1b[1m{whole}\x1b[0m\n") } else { format!("{whole}\n") };
        }
        if index == 0 {
            text += &format!("{}\n", "-".repeat(NAMES + widths.iter().map(|w| w + 2).sum::<usize>()));
        }
    }
    text += "* differs, a number by more than its spread\n";
    if rows.iter().any(|row: &Row| row.measured) {
        text += &format!("speed: medians, warm, from images on the device to results on the host; throughput in batches of {BATCH}\n");
    }
    text
}

/// Lines of at most `most` characters, broken between words, or else within one, best behind a
/// slash or comma.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        for (first, part) in pieces(word, most).into_iter().enumerate() {
            let gap = usize::from(first == 0);
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(&part),
                Some(line) if line.chars().count() + gap + part.chars().count() <= most => {
                    line.push_str(if gap == 1 { " " } else { "" });
                    line.push_str(&part);
                }
                _ => lines.push(part),
            }
        }
    }
    lines
}

/// A word that is longer than a line in parts that are not.
fn pieces(word: &str, most: usize) -> Vec<String> {
    if word.chars().count() <= most {
        return vec![word.into()];
    }
    let parts = word.split_inclusive(['/', ',', '-', '_']);
    parts.flat_map(|part| part.chars().collect::<Vec<_>>().chunks(most).map(|c| c.iter().collect::<String>()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_long_words_within() {
        assert_eq!(wrapped("a simple framework for", 10), ["a simple", "framework", "for"]);
        assert_eq!(wrapped("runs/studies/a-0,runs/b", 12), ["runs/", "studies/a-0,", "runs/b"]);
        assert_eq!(wrapped("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
