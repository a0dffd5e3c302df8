//! What a network costs, layer by layer, without running it.

use std::fmt;

use crate::tensor::Shape;

/// One layer of a summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The layer's name: its parameters' scope.
    pub name: String,
    /// Its output's shape.
    pub output: Shape,
    /// Its trained values.
    pub parameters: usize,
    /// Multiply-adds of its convolution or linear part, for the whole batch.
    pub macs: u64,
}

impl Row {
    /// Bytes of its output in f32, for the whole batch.
    pub fn activation_bytes(&self) -> u64 {
        4 * self.output.numel() as u64
    }
}

/// The layers of a network in the order they run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// The layers.
    pub rows: Vec<Row>,
}

impl Summary {
    /// Adds a layer.
    pub fn push(&mut self, name: &str, output: &Shape, parameters: usize, macs: u64) {
        self.rows.push(Row { name: name.into(), output: output.clone(), parameters, macs });
    }

    /// All trained values.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|r| r.parameters).sum()
    }

    /// Multiply-adds of convolutions and linear layers.
    pub fn macs(&self) -> u64 {
        self.rows.iter().map(|r| r.macs).sum()
    }

    /// Bytes of all layers' outputs in f32: what a training step keeps for its backward pass,
    /// about.
    pub fn activation_bytes(&self) -> u64 {
        self.rows.iter().map(Row::activation_bytes).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>20} {:>12} {:>14}", "layer", "output", "parameters", "MACs")?;
        for row in &self.rows {
            writeln!(f, "{:<28} {:>20} {:>12} {:>14}", row.name, row.output.to_string(), row.parameters, row.macs)?;
        }
        write!(f, "{:<28} {:>20} {:>12} {:>14}", "total", "", self.parameters(), self.macs())
    }
}
