//! What a run's numbers depend on beside the step it has come to: where it runs, its images, its
//! recipe. It is written down with every checkpoint, and compared when the run goes on.

use std::fmt::Write;

use toml::{Table, Value};

use super::recipe::Recipe;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Schedule, fnv};
use crate::parallel::Group;

/// Between the parts of a line.
const BAR: &str = " | ";
/// What the parts of [`adapter_line`] are.
const ADAPTER: [&str; 4] = ["adapter", "driver", "schedule", "version"];
/// Keys of a recipe that do not decide what is computed, or whose contents are compared by
/// themselves: where things lie, how often they are written, and who looks on.
const FREE: [&str; 12] = [
    "data.path",
    "data.workers",
    "data.memory_mib",
    "data.skip_bad",
    "teachers",
    "finetune.weights",
    "checkpoint_every",
    "stop_on_collapse",
    "validation.every",
    "validation.images",
    "validation.patience",
    "validation.min_delta",
];

/// Adapter, driver, schedule and version in one line.
pub(super) fn adapter_line(gpu: &Gpu) -> String {
    let caps = gpu.capabilities();
    [&caps.name, &caps.driver, &caps.schedule.to_string(), concat!("wgrad ", env!("CARGO_PKG_VERSION"))].map(|part| part as &str).join(BAR)
}

/// The limits by which work is laid out in pieces.
pub(super) fn limits_line(gpu: &Gpu) -> String {
    let caps = gpu.capabilities();
    let web = if caps.webgpu_limits { ", WebGPU's defaults" } else { "" };
    format!("{} B a binding, {} B a buffer, {} invocations{web}", caps.max_binding_bytes, caps.max_buffer_bytes, caps.max_invocations)
}

/// What lines of what [`adapter_line`] and others have said say differently:
/// `the run's driver was "a", here it is "b"`.
pub(super) fn difference(adapter: [&str; 2], others: &[(&str, [&str; 2])]) -> Option<String> {
    let [then, now] = adapter.map(|line| line.split(BAR));
    let parts = ADAPTER.into_iter().zip(then.zip(now)).map(|(what, (then, now))| (what, [then, now]));
    // Older runs spell schedules otherwise.
    let schedule = |text: &str| text.parse::<Schedule>().ok();
    let same = |what, then, now| then == now || (what == "schedule" && schedule(then).is_some() && schedule(then) == schedule(now));
    let changed = parts.chain(others.iter().copied()).filter(|(what, [then, now])| !same(*what, *then, *now));
    let words = changed.map(|(what, [then, now])| format!("its {what} was \"{then}\", here it is \"{now}\"")).collect::<Vec<_>>();
    (!words.is_empty())
        .then(|| format!("the run goes on elsewhere: {}; its bits will differ from an uninterrupted run's", words.join(", ")))
}

/// The images that are learnt from: how many, of what size, and hashes of all that they are and of
/// what is known of them.
pub(super) fn data_line(recipe: &Recipe, dataset: &Dataset) -> String {
    let mut tasks = String::new();
    for task in dataset.tasks(&recipe.data.tasks).unwrap_or_default() {
        let _ = write!(tasks, "{} {:?} {:08x} ", task.name, task.classes, crc32fast::hash(bytemuck::cast_slice(&task.labels)));
    }
    [
        format!("images={}", dataset.len()),
        format!("size={}", dataset.input()),
        format!("pixels={:08x}", dataset.fingerprint()),
        format!("labels={:08x}", crc32fast::hash(bytemuck::cast_slice(dataset.labels()))),
        format!("classes={}", dataset.classes()),
        format!("names of classes={:016x}", fnv(format!("{:?}", dataset.class_names()).as_bytes())),
        format!("tasks={:016x}", fnv(tasks.as_bytes())),
    ]
    .join(BAR)
}

/// Refuses images that are not those of a [`data_line`].
///
/// # Errors
/// [`Error::Data`] of `source`, naming what has changed.
pub(super) fn check_data(source: &str, then: &str, now: &str) -> Result<()> {
    let parts = then.split(BAR).zip(now.split(BAR)).filter(|(then, now)| then != now);
    let changed = parts.filter_map(|(then, now)| {
        let ((what, then), (_, now)) = (then.split_once('=')?, now.split_once('=')?);
        Some(format!("{what} ({then} then, {now} now)"))
    });
    let changed = changed.collect::<Vec<_>>();
    if changed.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the data have changed since the run began: {}; bring them back as they were, or begin a new run with another --out",
        changed.join(", ")
    );
    Err(Error::data(source, message))
}

/// Refuses a recipe that was edited since the run began, but for what does not decide what is
/// computed.
///
/// # Errors
/// [`Error::Data`] of `source`, naming the keys.
pub(super) fn check_recipe(source: &str, then: &Recipe, now: &Recipe) -> Result<()> {
    let (then, now) = (decisive(then)?, decisive(now)?);
    let value = |values: &[(String, String)], key: &str| values.iter().find(|(k, _)| k == key).map_or("nothing".into(), |(_, v)| v.clone());
    let mut keys = then.iter().chain(&now).map(|(key, _)| key.as_str()).collect::<Vec<_>>();
    keys.sort_unstable();
    keys.dedup();
    let changes = keys.into_iter().map(|key| (key, value(&then, key), value(&now, key))).filter(|(_, then, now)| then != now);
    let changes = changes.map(|(key, then, now)| format!("{key} was {then}, now it is {now}")).collect::<Vec<_>>();
    if changes.is_empty() {
        return Ok(());
    }
    let message = format!(
        "was edited since the run began: {}; a run goes on by the recipe that it began with: put that back, or begin a new run with --recipe and another --out",
        changes.join(", ")
    );
    Err(Error::data(source, message))
}

/// The keys of a recipe that decide what is computed, with their values.
fn decisive(recipe: &Recipe) -> Result<Vec<(String, String)>> {
    let table: Table = toml::from_str(&recipe.to_toml()?).map_err(|e| Error::data("recipe", e.to_string()))?;
    let mut values = Vec::new();
    flatten(&table, "", &mut values);
    values.retain(|(key, _)| !FREE.contains(&key.as_str()));
    Ok(values)
}

/// Refuses processes of one run that would not compute the same: what decides their numbers, each
/// by its name, is compared with process 0's.
///
/// # Errors
/// [`Error::Parallel`] naming the first process that differs, and in what.
pub(super) fn check_agreement(group: &dyn Group, gpu: &Gpu, recipe: &Recipe, data: &str, step: u64) -> Result<()> {
    let adapter = ADAPTER.into_iter().map(String::from).zip(adapter_line(gpu).split(BAR).map(String::from).collect::<Vec<_>>());
    let rest = [("limits", limits_line(gpu)), ("tuning table", gpu.tuning_hash()), ("data", data.into()), ("step", step.to_string())];
    let own: Vec<(String, String)> = adapter
        .chain(rest.map(|(what, is)| (what.into(), is)))
        .chain(decisive(recipe)?.into_iter().map(|(k, v)| (format!("recipe's {k}"), v)))
        .collect();
    let text = serde_json::to_vec(&own).map_err(|e| Error::data("recipe", e.to_string()))?;
    let all = group.all_gather(&text)?;
    let read = |bytes: &Vec<u8>| serde_json::from_slice::<Vec<(String, String)>>(bytes).unwrap_or_default();
    let first = all.first().map(read).unwrap_or_default();
    for (rank, other) in all.iter().map(read).enumerate() {
        let known = |key: &str| first.iter().find(|(k, _)| k == key).map_or("nothing", |(_, v)| v.as_str());
        if let Some((what, is)) = other.iter().find(|(key, value)| known(key) != value) {
            let message = format!("its {what} is {is}, that of process 0 is {}; start all of them with the same", known(what));
            return Err(Error::Parallel { rank, message });
        }
    }
    Ok(())
}

fn flatten(table: &Table, prefix: &str, values: &mut Vec<(String, String)>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => flatten(inner, &format!("{prefix}{key}."), values),
            value => values.push((format!("{prefix}{key}"), value.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_schedule_s_older_name_is_no_difference() {
        assert_eq!(difference(["a | d | cpu | wgrad 0.1.0", "a | d | software | wgrad 0.1.0"], &[]), None);
        let changed = difference(["a | d | simd | wgrad 0.1.0", "a | d | software | wgrad 0.1.0"], &[]).unwrap();
        assert!(changed.contains("its schedule was \"simd\", here it is \"software\""), "{changed}");
    }
}
