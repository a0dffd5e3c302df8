//! Text tables: the first column to the left, the others to the right, or all to the left.

use crate::io::console::clean;

/// A table with a head.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    words: bool,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()], words: false }
    }

    /// A table of words, all to the left.
    pub(super) fn of_words(head: &[&str]) -> Self {
        Self { words: true, ..Self::new(head) }
    }

    /// A row of cells, each of one line whatever a name in it holds.
    pub(super) fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.iter().map(|cell| clean(cell).replace('\n', "\\u000a")).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(c, (text, width))| if c == 0 || self.words { format!("{text:<width$}") } else { format!("{text:>width$}") })
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
            if index == 0 {
                writeln!(f, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)))?;
            }
        }
        Ok(())
    }
}
