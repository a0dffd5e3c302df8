//! What a run shows while it goes: a bar with rate and remaining time on a terminal, plain lines
//! otherwise, JSON on request.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::alarm::Event;
use super::validation::Look;
use super::watch::Diagnostics;
use crate::error::{Error, Result};
use crate::io::console::{clean, tell};

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
/// The rate is that of the last so many steps: the first ones compile kernels, and would be held
/// against all that follow.
const RATE_STEPS: usize = 50;

/// The progress of one run.
pub struct Progress {
    style: Style,
    bar: Option<ProgressBar>,
    label: String,
    steps: u64,
    batch: usize,
    recent: VecDeque<(u64, Instant)>,
    shown: Option<Instant>,
    figures: String,
    /// What the last look at images that are not learnt from has found.
    seen: String,
    /// Why JSON is no longer printed.
    unheard: Option<std::io::Error>,
}

impl Progress {
    /// Progress over `steps` steps of `batch` images, of which `done` are behind.
    pub fn new(style: Style, label: &str, steps: u64, done: u64, batch: usize) -> Self {
        let bar = if style == Style::Auto { bar(label, steps).map(|bar| bar.with_position(done)) } else { None };
        Self {
            style,
            bar,
            label: label.into(),
            steps,
            batch,
            recent: VecDeque::new(),
            shown: None,
            figures: String::new(),
            seen: String::new(),
            unheard: None,
        }
    }

    /// Shows a step's figures; `step` counts from 1.
    pub fn step(&mut self, step: u64, loss: f32, learning_rate: f32) {
        self.recent.push_back((step, Instant::now()));
        if self.recent.len() > RATE_STEPS {
            self.recent.pop_front();
        }
        let speed = steps_per_second(&self.recent).map_or(String::new(), |rate| {
            let left = Duration::from_secs_f64((self.steps.saturating_sub(step) as f64 / rate).min(1e9));
            format!("  {:.0} images/s, {} left", rate * self.batch as f64, clock(left))
        });
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(self.message(loss, &speed));
            return;
        }
        let last = step == self.steps;
        if self.style != Style::Auto || (!last && self.shown.is_some_and(|t| t.elapsed() < LINES)) {
            return;
        }
        self.shown = Some(Instant::now());
        let Self { label, steps, figures, .. } = self;
        tell(format!("{label} step {step}/{steps}  loss {loss:.4}{figures}  learning rate {learning_rate:.4}{speed}"));
    }

    /// What stands beside the bar. A narrow terminal cuts its end off: first what matters least.
    fn message(&self, loss: f32, speed: &str) -> String {
        format!("loss {loss:.4}{speed}{}{}", self.seen, self.figures)
    }

    /// Shows these figures from now on.
    pub fn watch(&mut self, figures: &Diagnostics) {
        self.figures = figures.to_line();
    }

    /// Says that a run has collapsed, and hands it on as JSON.
    pub fn alarm(&mut self, event: &Event) {
        let Event { step, message, .. } = event;
        if self.style != Style::Silent {
            self.say(&format!("{} step {step}: ALARM: {message}", self.label));
        }
        self.print(&event.to_json());
    }

    /// Hands on a line of metrics: every one as JSON, those of whole epochs as text.
    pub fn metrics(&mut self, metrics: &Metrics) {
        self.print(&metrics.to_json());
        let Some(Epoch { images_per_second: rate, skipped }) = metrics.whole.filter(|_| self.style == Style::Auto) else { return };
        let skipped =
            if skipped > 0 { format!(", {skipped} steps skipped because their gradients were not finite") } else { String::new() };
        let Metrics { epoch, loss, .. } = metrics;
        self.say(&format!("{} epoch {epoch} done: mean loss {loss:.4}, {rate:.0} images/s{skipped}", self.label));
    }

    /// Shows what a look has found, and whether it is the best so far, and hands it on as JSON.
    pub fn look(&mut self, look: &Look, best: bool) {
        self.print(&look.to_json(best));
        let Look { epoch, now, averaged, .. } = look;
        self.seen = format!("  validation: {}", averaged.as_ref().unwrap_or(now).to_text());
        let averaged = averaged.as_ref().map_or(String::new(), |averaged| format!("; averaged weights: {}", averaged.to_text()));
        let best = if best { " (the best so far)" } else { "" };
        self.note(&format!("epoch {epoch} validation: {}{averaged}{best}", now.to_text()));
    }

    /// Says something of the run.
    pub fn note(&self, text: &str) {
        if self.style == Style::Auto {
            self.say(&format!("{} {text}", self.label));
        }
    }

    fn say(&self, line: &str) {
        say(self.bar.as_ref(), line);
    }

    /// Prints JSON where it is asked for. Training is worth more than its reader: where stdout can
    /// no longer be written, it goes on.
    fn print(&mut self, line: &Value) {
        if self.style != Style::Json || self.unheard.is_some() {
            return;
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(format!("{}\n", clean(&line.to_string())).as_bytes()).and_then(|()| out.flush()) {
            tell(format!("stdout: {error}: metrics are no longer printed; training goes on, and writes them to the run's directory"));
            self.unheard = Some(error);
        }
    }

    /// Whether all that should be printed was, or its reader chose to go away.
    ///
    /// # Errors
    /// [`Error::Io`] naming stdout.
    pub fn heard(&self) -> Result<()> {
        match &self.unheard {
            Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io(Path::new("stdout"), error)),
            _ => Ok(()),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows a line, above the bar where there is one.
fn say(bar: Option<&ProgressBar>, line: &str) {
    match bar {
        Some(bar) => bar.println(clean(line)),
        None => tell(line),
    }
}

/// A bar of `length`, where stderr is a terminal.
fn bar(label: &str, length: u64) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(length);
        // The template is constant; should it ever be wrong, the default bar is shown.
        bar.set_style(ProgressStyle::with_template("{prefix} {bar:16} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(clean(label));
        bar.set_message("compiling kernels");
        bar
    })
}

/// How much of a known amount of work is done: a bar on a terminal, a plain line now and then
/// otherwise.
pub struct Count {
    bar: Option<ProgressBar>,
    label: String,
    total: u64,
    done: u64,
    begun: Instant,
    shown: Instant,
}

impl Count {
    /// Nothing of `total` pieces is done.
    pub fn new(label: &str, total: usize) -> Self {
        let (total, now) = (total as u64, Instant::now());
        Self { bar: bar(label, total), label: label.into(), total, done: 0, begun: now, shown: now }
    }

    /// So many more are done.
    pub fn advance(&mut self, pieces: usize) {
        self.done += pieces as u64;
        let rate = self.done as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        let left = Duration::from_secs_f64((self.total.saturating_sub(self.done) as f64 / rate.max(1e-9)).min(1e9));
        let speed = format!("{rate:.1} images/s, {} left", clock(left));
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(speed);
        } else if self.shown.elapsed() >= LINES {
            self.shown = Instant::now();
            tell(format!("{} {}/{}  {speed}", self.label, self.done, self.total));
        }
    }

    /// Shows a line of its own.
    pub fn say(&self, line: &str) {
        say(self.bar.as_ref(), line);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn steps_per_second(recent: &VecDeque<(u64, Instant)>) -> Option<f64> {
    let ((first, begun), (last, now)) = (recent.front()?, recent.back()?);
    let seconds = now.duration_since(*begun).as_secs_f64();
    (last > first && seconds > 0.0).then(|| (last - first) as f64 / seconds)
}

/// `9 s`, `2:05` or `1:00:00`.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// One line of metrics: of a step, or of a whole epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Steps taken so far.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: u32,
    /// The step's loss, or the epoch's mean.
    pub loss: f32,
    /// The last step's.
    pub learning_rate: f32,
    /// Only with a step.
    pub figures: Diagnostics,
    /// Only with a whole epoch.
    pub whole: Option<Epoch>,
}

/// What is known of a whole epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Since the epoch began, or was resumed.
    pub images_per_second: f64,
    /// Steps that changed nothing because their gradients were not finite, since the run began.
    pub skipped: u64,
}

impl Metrics {
    /// As an object whose `kind` is `step` or `epoch`.
    pub fn to_json(&self) -> Value {
        let Self { step, epoch, loss, learning_rate, whole, .. } = *self;
        // The shortest decimal that is this f32, not the float64 beside it.
        let short = |v: f32| v.to_string().parse::<f64>().unwrap_or(f64::from(v));
        let mut line = json!({ "kind": "step", "step": step, "epoch": epoch, "loss": short(loss), "learning_rate": short(learning_rate) });
        let Some(fields) = line.as_object_mut() else { return line };
        fields.extend(self.figures.to_json());
        if let Some(Epoch { images_per_second, skipped }) = whole {
            fields.insert("kind".into(), json!("epoch"));
            fields.insert("images_per_second".into(), json!((images_per_second * 10.0).round() / 10.0));
            fields.insert("skipped".into(), json!(skipped));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::validation::Verdict;

    #[test]
    fn the_rate_is_that_of_the_latest_steps() {
        let begun = Instant::now();
        let at = |step, seconds| (step, begun + Duration::from_secs_f64(seconds));
        assert_eq!(steps_per_second(&VecDeque::from([at(1, 0.0)])), None);
        assert_eq!(steps_per_second(&VecDeque::from([at(7, 3.0), at(8, 3.5), at(9, 4.0)])), Some(2.0));
    }

    #[test]
    fn rate_and_the_last_look_come_before_what_may_be_cut_off() {
        let mut progress = Progress::new(Style::Silent, "moco", 100, 0, 16);
        progress.watch(&Diagnostics { std: Some(0.5), ..Default::default() });
        assert_eq!(progress.message(1.5, "  9 images/s, 9 s left"), "loss 1.5000  9 images/s, 9 s left  std 0.500");
        let verdict = |score| Verdict { score, figures: vec![("top_1", score), ("loss", 0.5)] };
        let look = Look { step: 7, epoch: 1, now: verdict(0.25), averaged: None };
        for (look, words) in [(look.clone(), "25.00"), (Look { averaged: Some(verdict(0.75)), ..look }, "75.00")] {
            progress.look(&look, true);
            let expected = format!("loss 1.5000  9 images/s, 9 s left  validation: top-1 {words} %, loss 0.5000  std 0.500");
            assert_eq!(progress.message(1.5, "  9 images/s, 9 s left"), expected);
        }
    }

    #[test]
    fn remaining_time_reads_like_a_clock() {
        let shown = [0.4, 59.4, 59.6, 3599.0, 3600.0].map(|s| clock(Duration::from_secs_f64(s)));
        assert_eq!(shown, ["0 s", "59 s", "1:00", "59:59", "1:00:00"]);
    }

    #[test]
    fn metrics_are_short_numbers() {
        let step = Metrics { step: 20, epoch: 1, loss: 0.1, learning_rate: 1.2e-6, figures: Diagnostics::default(), whole: None };
        assert_eq!(step.to_json().to_string(), r#"{"epoch":1,"kind":"step","learning_rate":1.2e-6,"loss":0.1,"step":20}"#);
        let figures =
            Diagnostics { std: Some(0.123_456), metrics: vec![("teacher_momentum", 0.5)], queue_age: Some(8.0), ..Default::default() };
        let watched = Metrics { figures, ..step.clone() }.to_json();
        assert_eq!((&watched["embedding_std"], &watched["queue_age"]), (&json!(0.1235), &json!(8.0)));
        assert_eq!(watched["teacher_momentum"], 0.5);
        let epoch = Metrics { whole: Some(Epoch { images_per_second: 99.96, skipped: 0 }), ..step };
        assert_eq!(epoch.to_json()["images_per_second"], 100.0);
        assert_eq!(epoch.to_json()["kind"], "epoch");
    }
}
