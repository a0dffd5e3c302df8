//! Choices that a kernel leaves to measurement, and the table of what was measured on an adapter.
//!
//! A table decides bits, so it is an option of the device
//! ([`GpuOptions::tuning`](super::GpuOptions)): it does not change while the device lives, and the
//! library never looks for one by itself. `wgrad tune` writes tables.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;

use super::{Gpu, Schedule, lock};
use crate::error::{Error, Result};

/// What the first line of a table's file begins with; the number is raised when older files can no
/// longer be read.
const HEAD: &str = "wgrad tuning 1";

/// A choice that a kernel leaves to measurement. Every choice gives right results, whatever the
/// shape: a kernel that cannot take one there falls back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knob {
    /// Kernel and what is chosen: `linear/gemm.rows`. Without spaces.
    pub name: &'static str,
    /// What there is to choose from.
    pub choices: &'static [u32],
}

impl Knob {
    /// The choice of a schedule: 0 is [`Schedule::Software`], 1 is [`Schedule::Gpu`].
    pub const fn schedule(name: &'static str) -> Self {
        Self { name, choices: &[0, 1] }
    }

    /// The bucket of a size: its base-2 logarithm, rounded down, so that a table has an entry for
    /// each doubling.
    pub fn bucket(size: usize) -> u32 {
        size.checked_ilog2().unwrap_or(0)
    }
}

/// A knob that kernels asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consulted {
    /// The knob.
    pub knob: Knob,
    /// For which size, as [`Knob::bucket`] counts; 0 where size plays no part.
    pub bucket: u32,
    /// What is chosen where no table says otherwise.
    pub default: u32,
}

/// Which knobs were asked for, by name and bucket.
#[derive(Default)]
pub(super) struct Consultations(Mutex<BTreeMap<(&'static str, u32), Consulted>>);

/// Choices by knob and bucket. As text: a head line that names adapter and driver, then a line an
/// entry: knob, bucket, choice.
///
/// ```
/// # fn main() -> wgrad::error::Result<()> {
/// use wgrad::gpu::Tuning;
///
/// let mut table = Tuning::new("NVIDIA H200", "580.95");
/// table.set("linear/gemm.rows", 10, 32);
/// assert_eq!(table.to_string(), "wgrad tuning 1 | NVIDIA H200 | 580.95\nlinear/gemm.rows 10 32\n");
/// let read: Tuning = table.to_string().parse()?;
/// assert_eq!(read.hash(), table.hash());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tuning {
    adapter: String,
    driver: String,
    entries: BTreeMap<String, BTreeMap<u32, u32>>,
    random: Option<u64>,
}

impl Tuning {
    /// An empty table for measurements of an adapter.
    pub fn new(adapter: &str, driver: &str) -> Self {
        // The head is one line, whose fields a bar divides.
        let field = |text: &str| text.replace(['|', '\n', '\r'], " ").trim().to_string();
        Self { adapter: field(adapter), driver: field(driver), ..Self::default() }
    }

    /// A table that chooses by chance, always in the same way for a seed: tests show with it that
    /// every choice is right.
    pub fn random(seed: u64) -> Self {
        Self { random: Some(seed), ..Self::new("random", &seed.to_string()) }
    }

    /// The table that `WGRAD_TUNING` asks for: `off`, `random:SEED` or a file.
    ///
    /// # Errors
    /// [`Error::Argument`] where SEED is no number; those of [`Self::load`].
    pub fn named(name: &str) -> Result<Option<Self>> {
        match name.strip_prefix("random:") {
            Some(seed) => {
                let wrong = || Error::argument("WGRAD_TUNING", format!("expected random:SEED with a number, found \"{name}\""));
                Ok(Some(Self::random(seed.parse().map_err(|_| wrong())?)))
            }
            None if name == "off" => Ok(None),
            None => Self::load(Path::new(name)).map(Some),
        }
    }

    /// Reads a table's file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] naming the file and the line that is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, source: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let head: Vec<&str> = lines.next().unwrap_or_default().1.split('|').map(str::trim).collect();
        let [HEAD, adapter, driver] = head.as_slice() else {
            return Err(Error::data(source, format!("is no tuning table: its first line is not \"{HEAD} | ADAPTER | DRIVER\"")));
        };
        let mut table = Self::new(adapter, driver);
        for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let entry = match words.as_slice() {
                [knob, bucket, choice] => bucket.parse().ok().zip(choice.parse().ok()).map(|(b, c)| (*knob, b, c)),
                _ => None,
            };
            let (knob, bucket, choice) =
                entry.ok_or_else(|| Error::data(source, format!("line {} is no entry \"KNOB BUCKET CHOICE\": \"{line}\"", at + 1)))?;
            table.set(knob, bucket, choice);
        }
        Ok(table)
    }

    /// The adapter that it was measured on.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Whether it was measured on this adapter with this driver, or on none.
    pub fn is_of(&self, adapter: &str, driver: &str) -> bool {
        let own = Self::new(adapter, driver);
        self.random.is_some() || (self.adapter == own.adapter && self.driver == own.driver)
    }

    /// The entry of a knob and bucket.
    pub fn get(&self, knob: &str, bucket: u32) -> Option<u32> {
        self.entries.get(knob)?.get(&bucket).copied()
    }

    /// Enters a choice.
    pub fn set(&mut self, knob: &str, bucket: u32, choice: u32) {
        self.entries.entry(knob.to_string()).or_default().insert(bucket, choice);
    }

    /// Takes an entry out, so that the kernel's default holds.
    pub fn remove(&mut self, knob: &str, bucket: u32) {
        if let Some(buckets) = self.entries.get_mut(knob) {
            buckets.remove(&bucket);
        }
        self.entries.retain(|_, buckets| !buckets.is_empty());
    }

    /// All entries as (knob, bucket, choice), sorted.
    pub fn entries(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        self.entries.iter().flat_map(|(knob, buckets)| buckets.iter().map(move |(bucket, choice)| (knob.as_str(), *bucket, *choice)))
    }

    fn choose(&self, knob: &Knob, bucket: u32) -> Option<u32> {
        let choice = match self.random {
            Some(seed) => {
                let hash = fnv(format!("{seed} {} {bucket}", knob.name).as_bytes());
                // The low bits of FNV depend on the last characters alone.
                knob.choices.get(((hash ^ (hash >> 32)) % knob.choices.len().max(1) as u64) as usize).copied()
            }
            None => self.get(knob.name, bucket),
        };
        choice.filter(|choice| knob.choices.contains(choice))
    }

    /// What stands for the choices where bits are compared: 16 hexadecimal digits, or `none`
    /// without any. Tables of other adapters that choose the same have the same.
    pub fn hash(&self) -> String {
        let mut text = self.random.map_or(String::new(), |seed| format!("random {seed}\n"));
        text.extend(self.entries().map(|(knob, bucket, choice)| format!("{knob} {bucket} {choice}\n")));
        if text.is_empty() { "none".into() } else { format!("{:016x}", fnv(text.as_bytes())) }
    }
}

/// FNV-1a with 64 bits: the same everywhere and for ever, which the standard library's hash does
/// not promise.
pub(crate) const fn fnv(bytes: &[u8]) -> u64 {
    const_fnv1a_hash::fnv1a_hash_64(bytes, None)
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD} | {} | {}", self.adapter, self.driver)?;
        self.entries().try_for_each(|(knob, bucket, choice)| writeln!(f, "{knob} {bucket} {choice}"))
    }
}

impl FromStr for Tuning {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, "tuning table")
    }
}

impl Gpu {
    /// What the tuning table chooses for `knob` and sizes of `bucket`; `default`, which depends on
    /// shapes and capabilities alone, where it says nothing.
    pub fn tuned(&self, knob: &Knob, bucket: u32, default: u32) -> u32 {
        lock(&self.inner.consulted.0).entry((knob.name, bucket)).or_insert(Consulted { knob: *knob, bucket, default });
        self.options().tuning.as_ref().and_then(|table| table.choose(knob, bucket)).unwrap_or(default)
    }

    /// The schedule of a family of kernels: the one that
    /// [`GpuOptions::schedule`](super::GpuOptions) forces; else the tuning table's entry of the
    /// knob `name` (`linear/gemm.schedule`); else the adapter's own.
    pub fn schedule(&self, name: &'static str, bucket: u32) -> Schedule {
        let own = self.capabilities().schedule;
        if self.options().schedule.is_some() {
            return own;
        }
        match self.tuned(&Knob::schedule(name), bucket, u32::from(own == Schedule::Gpu)) {
            0 => Schedule::Software,
            _ => Schedule::Gpu,
        }
    }

    /// Every knob that kernels asked for on this device since the last call, sorted by name and
    /// bucket.
    pub fn take_consulted(&self) -> Vec<Consulted> {
        std::mem::take(&mut *lock(&self.inner.consulted.0)).into_values().collect()
    }

    /// The hash of the tuning table in use, `none` without one: with adapter, driver and options it
    /// decides the bits.
    pub fn tuning_hash(&self) -> String {
        self.options().tuning.as_ref().map_or("none".into(), |table| table.hash())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpu::GpuOptions;

    const ROWS: Knob = Knob { name: "linear/gemm.rows", choices: &[16, 32] };

    fn gpu(tuning: Option<Tuning>, schedule: Option<Schedule>) -> Gpu {
        Gpu::with(GpuOptions { tuning: tuning.map(Arc::new), schedule, ..GpuOptions::from_env().unwrap() }).unwrap()
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let mut table = Tuning::new("an | adapter", "a\ndriver");
        assert_eq!(table.hash(), "none");
        for (knob, bucket, choice) in [("b", 0, 1), ("a", 12, 32), ("a", 3, 16)] {
            table.set(knob, bucket, choice);
        }
        let text = table.to_string();
        assert_eq!(text, "wgrad tuning 1 | an   adapter | a driver\na 3 16\na 12 32\nb 0 1\n");
        let read: Tuning = text.parse().unwrap();
        assert_eq!(read, table);
        assert!(read.is_of("an | adapter", "a\ndriver") && !read.is_of("another", "a\ndriver"));
        // The hash is of the choices, not of where they were measured.
        let elsewhere: Tuning = text.replace("an   adapter", "another").parse().unwrap();
        assert_eq!(elsewhere.hash(), table.hash());
        table.set("a", 3, 32);
        assert_ne!(elsewhere.hash(), table.hash());
        table.remove("a", 3);
        assert_eq!(table.get("a", 3), None);
    }

    #[test]
    fn a_damaged_table_is_refused_with_its_line() {
        let head = "wgrad tuning 1 | a | b\n";
        for (text, words) in [
            ("", "first line"),
            ("wgrad tuning 2 | a | b\n", "first line"),
            (&format!("{head}a 1 2\na 1\n"), "line 3"),
            (&format!("{head}a 1 x\n"), "line 2"),
            (&format!("{head}a 1 2 3\n"), "line 2"),
        ] {
            let error = text.parse::<Tuning>().unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        assert!(Tuning::named("random:x").is_err() && Tuning::named("/nowhere/at/all").is_err());
        assert_eq!(Tuning::named("off"), Ok(None));
    }

    #[test]
    fn a_device_takes_the_table_s_choice_where_there_is_one() {
        let mut table = Tuning::default();
        table.set(ROWS.name, 10, 16);
        table.set(ROWS.name, 11, 64);
        table.set("gemm.schedule", 0, 0);
        let tuned = gpu(Some(table), None);
        // Chosen; not among the choices; not in the table.
        assert_eq!([10, 11, 12].map(|bucket| tuned.tuned(&ROWS, bucket, 32)), [16, 32, 32]);
        assert_eq!(tuned.schedule("gemm.schedule", 0), Schedule::Software);
        let consulted: Vec<_> = tuned.take_consulted().iter().map(|c| (c.knob.name, c.bucket)).collect();
        assert_eq!(consulted, [("gemm.schedule", 0), (ROWS.name, 10), (ROWS.name, 11), (ROWS.name, 12)]);
        assert_eq!(tuned.take_consulted(), []);
        assert_ne!(tuned.tuning_hash(), "none");
        // A schedule that is asked for outright stands above the table.
        let forced = gpu(Some(Tuning::random(1)), Some(Schedule::Gpu));
        assert!((0..32).all(|bucket| forced.schedule("gemm.schedule", bucket) == Schedule::Gpu));
    }

    #[test]
    fn random_tables_use_every_choice_and_repeat() {
        let wide = Knob { name: "wide", choices: &[1, 2, 3, 4, 5] };
        let draw = |seed: u64| (0..64).map(|bucket| Tuning::random(seed).choose(&wide, bucket).unwrap()).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(wide.choices.iter().all(|choice| draw(1).contains(choice)), "{:?}", draw(1));
        assert_ne!(Tuning::random(1).hash(), Tuning::random(2).hash());
    }
}
