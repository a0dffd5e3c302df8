//! What a run shows while it goes: a bar with rate and remaining time on a terminal, plain lines otherwise, JSON on request.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A bar on a terminal, plain lines otherwise.
    Auto,
    /// One JSON object a line on stdout.
    Json,
    /// Nothing.
    Silent,
}

/// Plain lines come at most this often.
const LINES: Duration = Duration::from_secs(5);

/// The progress of one run.
pub struct Progress {
    style: Style,
    bar: Option<ProgressBar>,
    label: String,
    steps: u64,
    batch: usize,
    begun: Instant,
    first_step: u64,
    shown: Option<Instant>,
}

impl Progress {
    /// Progress over `steps` steps of `batch` images, of which `done` are behind.
    pub fn new(style: Style, label: &str, steps: u64, done: u64, batch: usize) -> Self {
        let bar = (style == Style::Auto && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(steps).with_position(done);
            // The template is constant; should it ever be wrong, the default bar is shown.
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg} eta {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_prefix(label.to_string());
            bar
        });
        Self { style, bar, label: label.into(), steps, batch, begun: Instant::now(), first_step: done, shown: None }
    }

    /// Shows a step's figures; `step` counts from 1.
    pub fn step(&mut self, step: u64, loss: f32, learning_rate: f32) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = (step - self.first_step.min(step)) as f64 * self.batch as f64 / seconds.max(1e-9);
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(format!("loss {loss:.4}  {rate:.0} images/s"));
            return;
        }
        let last = step == self.steps;
        if self.style != Style::Auto || (!last && self.shown.is_some_and(|t| t.elapsed() < LINES)) {
            return;
        }
        self.shown = Some(Instant::now());
        let left = (self.steps.saturating_sub(step)) as f64 * self.batch as f64 / rate.max(1e-9);
        eprintln!("{} step {step}/{} loss {loss:.4} learning rate {learning_rate:.4} {rate:.0} images/s, {left:.0} s left", self.label, self.steps);
    }

    /// Shows a line of metrics.
    pub fn metrics(&self, metrics: &Value) {
        match self.style {
            Style::Json => println!("{metrics}"),
            Style::Silent => {}
            Style::Auto => {
                let line = format!("{} {}", self.label, line(metrics));
                match &self.bar {
                    Some(bar) => bar.println(line),
                    None => eprintln!("{line}"),
                }
            }
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `{"a": 1, "b": 2}` as `a 1  b 2`.
fn line(metrics: &Value) -> String {
    let empty = serde_json::Map::new();
    let fields = metrics.as_object().unwrap_or(&empty);
    let show = |v: &Value| v.as_f64().filter(|f| f.fract() != 0.0).map_or_else(|| v.to_string(), |f| format!("{f:.4}"));
    fields.iter().map(|(k, v)| format!("{k} {}", show(v))).collect::<Vec<_>>().join("  ")
}

/// One line of metrics.
pub fn record(step: u64, epoch: u32, loss: f32, learning_rate: f32, images_per_second: f64) -> Value {
    json!({ "step": step, "epoch": epoch, "loss": loss, "learning_rate": learning_rate, "images_per_second": images_per_second.round() })
}
