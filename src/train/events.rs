//! A run's metrics for TensorBoard: scalars in event files, beside the run's own lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::atomic::{append, make_folder};
use crate::io::lock::host_name;
use crate::report::tensorboard::Event;

/// Keys of a line that say where it lies, and are no scalars.
const PLACES: [&str; 2] = ["step", "epoch"];
const PREFIX: &str = "events.out.tfevents.";

/// A file of events under way.
#[derive(Debug, Clone)]
pub(super) struct Events(PathBuf);

impl Events {
    /// Begins a file in `folder` for what comes behind `step`. Earlier files stay as they are: what
    /// they hold of later steps, which will be written again, TensorBoard drops when it reads that
    /// the run has started there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn begin(folder: &Path, step: u64) -> Result<Self> {
        make_folder(folder)?;
        // Files are read in the order of their names, in which seconds come first.
        let last = seconds_of_files(folder)?.into_iter().max();
        let seconds = last.map_or(0, |last| last + 1).max(now() as u64);
        let host = host_name().replace(['/', '\\'], "-");
        let events = Self(folder.join(format!("{PREFIX}{seconds:010}.{host}.{}", std::process::id())));
        events.write(&Event::version(now()))?;
        events.write(&Event::start(now(), step + 1))?;
        Ok(events)
    }

    /// The numbers of a line of metrics, called `KIND/KEY`: `step/loss`, `validation/top_1`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn append(&self, line: &Value) -> Result<()> {
        let (Some(kind), Some(step)) = (line["kind"].as_str(), line["step"].as_u64()) else { return Ok(()) };
        let numbers = line.as_object().into_iter().flatten().filter(|(key, _)| !PLACES.contains(&key.as_str()));
        let mut scalars = numbers.filter_map(|(key, value)| Some((format!("{kind}/{key}"), value.as_f64()? as f32))).peekable();
        // An alarm is words alone.
        if scalars.peek().is_none() { Ok(()) } else { self.write(&Event::scalars(now(), step, scalars)) }
    }

    fn write(&self, event: &Event) -> Result<()> {
        append(&self.0, &event.to_record())
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// When the files that are there were begun, by their names.
fn seconds_of_files(folder: &Path) -> Result<Vec<u64>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io(folder, &e))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()).collect())
}
