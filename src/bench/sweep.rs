//! Sweeps: a workload with parameters on every combination of their values, and the schedule that
//! wins.

use std::collections::BTreeMap;

use super::peers::{Convolution, batch_norm, matmul, nt_xent, softmax};
use super::run::Row;
use super::workload::{Workload, wanted};
use crate::error::{Error, Result};
use crate::gpu::Schedule;
use crate::ops::Activation;

const SUITE: &str = "sweep";

/// Sizes by name.
type Sizes = BTreeMap<&'static str, usize>;

/// A workload whose sizes can be chosen.
struct Family {
    name: &'static str,
    defaults: &'static [(&'static str, usize)],
    make: fn(&Sizes) -> Vec<Workload>,
}

fn size(sizes: &Sizes, name: &str) -> usize {
    sizes.get(name).copied().unwrap_or(1)
}

fn convolution(s: &Sizes, depthwise: bool) -> Vec<Workload> {
    let k = if depthwise { size(s, "c") } else { size(s, "k") };
    let convolution = Convolution {
        n: size(s, "n"),
        size: size(s, "size"),
        c: size(s, "c"),
        k,
        kernel: size(s, "kernel"),
        stride: size(s, "stride"),
        depthwise,
    };
    convolution.workloads(SUITE, if depthwise { "depthwise" } else { "conv" }, "convolutions").into()
}

const FAMILIES: [Family; 6] = [
    Family {
        name: "matmul",
        defaults: &[("m", 512), ("k", 512), ("n", 512)],
        make: |s| vec![matmul(SUITE, "matmul".into(), [size(s, "m"), size(s, "k"), size(s, "n")])],
    },
    Family {
        name: "conv",
        defaults: &[("n", 16), ("size", 32), ("c", 64), ("k", 64), ("kernel", 3), ("stride", 1)],
        make: |s| convolution(s, false),
    },
    Family {
        name: "depthwise",
        defaults: &[("n", 16), ("size", 32), ("c", 128), ("kernel", 3), ("stride", 1)],
        make: |s| convolution(s, true),
    },
    Family {
        name: "softmax",
        defaults: &[("rows", 4096), ("columns", 1000)],
        make: |s| softmax(SUITE, "softmax", [size(s, "rows"), size(s, "columns")]).into(),
    },
    Family {
        name: "batchnorm",
        defaults: &[("n", 16), ("size", 32), ("c", 128)],
        make: |s| {
            let shape = [size(s, "n"), size(s, "c"), size(s, "size"), size(s, "size")];
            [("batchnorm_fwd", false), ("batchnorm_fwdbwd", true)]
                .map(|(name, both)| batch_norm(SUITE, name.into(), shape, Activation::None, both))
                .into()
        },
    },
    Family {
        name: "ntxent",
        defaults: &[("rows", 512), ("d", 128)],
        make: |s| vec![nt_xent(SUITE, "ntxent_fwdbwd", [size(s, "rows"), size(s, "d")])],
    },
];

/// What is swept: schedules, and values of sizes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sweep {
    /// The schedules to try; the device's own where there are none.
    pub schedules: Vec<Schedule>,
    /// The values of each size.
    pub sizes: Vec<(String, Vec<usize>)>,
}

impl Sweep {
    /// Reads `schedule=software,gpu` and `n=128,256`.
    ///
    /// # Errors
    /// [`Error::Argument`] with the form.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut sweep = Self::default();
        for text in texts {
            let wrong = || Error::argument("--sweep", format!("expected schedule=software,gpu or SIZE=NUMBER,.., found \"{text}\""));
            let (name, values) = text.split_once('=').ok_or_else(wrong)?;
            let values = values.split(',').map(str::trim);
            if name == "schedule" {
                sweep.schedules = values.map(|value| value.parse().map_err(|_| wrong())).collect::<Result<_>>()?;
            } else {
                let values = values.map(|value| value.parse().ok().filter(|v| *v > 0).ok_or_else(wrong)).collect::<Result<_>>()?;
                sweep.sizes.push((name.to_string(), values));
            }
        }
        Ok(sweep)
    }

    /// Every combination of sizes, of the families that `filters` name.
    ///
    /// # Errors
    /// [`Error::Argument`]: no such family, or one without such a size.
    pub fn workloads(&self, filters: &[String]) -> Result<Vec<Workload>> {
        let chosen: Vec<&Family> = FAMILIES.iter().filter(|family| wanted(family.name, filters)).collect();
        if chosen.is_empty() || filters.is_empty() {
            let names: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
            return Err(Error::argument("--sweep", format!("name what is to be swept: {}", names.join(", "))));
        }
        let mut list = Vec::new();
        for family in chosen {
            let mut combinations = vec![Sizes::from_iter(family.defaults.iter().copied())];
            for (name, values) in &self.sizes {
                let known = family.defaults.iter().find(|(own, _)| own == name).ok_or_else(|| {
                    let own: Vec<&str> = family.defaults.iter().map(|(own, _)| *own).collect();
                    Error::argument("--sweep", format!("{} has no size \"{name}\"; it has {}", family.name, own.join(", ")))
                })?;
                let with = |sizes: &Sizes, value: usize| sizes.iter().map(|(k, v)| (*k, if *k == known.0 { value } else { *v })).collect();
                combinations = combinations.iter().flat_map(|sizes| values.iter().map(move |value| with(sizes, *value))).collect();
            }
            for sizes in combinations {
                // Only what is swept distinguishes the rows.
                let swept: Vec<String> = self.sizes.iter().map(|(name, _)| format!("{name}={}", size(&sizes, name))).collect();
                list.extend(
                    (family.make)(&sizes)
                        .into_iter()
                        .map(|workload| Workload { name: format!("{}[{}]", workload.name, swept.join(",")), ..workload }),
                );
            }
        }
        Ok(list)
    }
}

/// What rows compete for: the same work's shortest time between schedules, the highest rate between
/// sizes.
pub fn mark_winners(rows: &mut [Row], between_schedules: bool) {
    let key = |row: &Row| if between_schedules { row.name.clone() } else { row.name.split('[').next().unwrap_or_default().to_string() };
    let score = |row: &Row| if between_schedules { -row.time().0.median } else { row.gflops.or(row.gbs).unwrap_or(0.0) };
    let marks: Vec<bool> = rows
        .iter()
        .map(|row| {
            let mut others = rows.iter().filter(|other| key(other) == key(row));
            let right = !row.is_wrong();
            right && others.clone().count() > 1 && others.all(|other| other.is_wrong() || score(other) <= score(row))
        })
        .collect();
    for (row, winner) in rows.iter_mut().zip(marks) {
        row.winner = winner;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::run::Gate;
    use super::*;
    use crate::report::TimeSummary;

    #[test]
    fn sweeps_are_every_combination() {
        let sweep = Sweep::parse(&["n=128,256".into(), "k=32,64,128".into(), "schedule=software,gpu".into()]).unwrap();
        assert_eq!(sweep.schedules, [Schedule::Software, Schedule::Gpu]);
        let list = sweep.workloads(&["matmul".into()]).unwrap();
        assert_eq!(list.len(), 6);
        assert_eq!((list[0].name.as_str(), list[5].name.as_str()), ("matmul[n=128,k=32]", "matmul[n=256,k=128]"));
        assert_eq!(list[5].shape, "[512, 128] x [128, 256]");
        for (texts, filter, words) in [
            ("n", "matmul", "expected schedule"),
            ("n=0", "matmul", "expected schedule"),
            ("rows=3", "matmul", "it has m, k, n"),
            ("n=3", "nothing", "matmul, conv"),
        ] {
            let error = Sweep::parse(&[texts.into()]).and_then(|s| s.workloads(&[filter.into()]).map(drop)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_fastest_right_result_wins() {
        let row = |name: &str, ms: f64, gflops: f64, passed: bool| Row {
            name: name.into(),
            wall_ms: TimeSummary::of_seconds(&[ms * 1e-3]),
            gflops: Some(gflops),
            gate: Gate { passed: Some(passed), ..Default::default() },
            ..Default::default()
        };
        let mut rows = [row("a", 2.0, 1.0, true), row("a", 1.0, 2.0, false), row("a", 3.0, 0.5, true), row("b", 1.0, 1.0, true)];
        mark_winners(&mut rows, true);
        assert_eq!(rows.each_ref().map(|r| r.winner), [true, false, false, false]);
        let mut rows = [row("a[n=1]", 1.0, 1.0, true), row("a[n=2]", 2.0, 3.0, true)];
        mark_winners(&mut rows, false);
        assert_eq!(rows.each_ref().map(|r| r.winner), [false, true]);
    }
}
