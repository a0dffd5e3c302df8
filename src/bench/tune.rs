//! Measuring what kernels leave to measurement: each knob that some workloads ask for, with
//! everything else as it is.
//!
//! A choice must give the default's results before it is timed, and is entered only where it is
//! clearly faster: all choices are timed in turn, round by round, so that whatever else the machine
//! does hits all of them, and twice, on devices and buffers made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::workload::{Prepared, Workload};
use crate::error::Result;
use crate::gpu::{Consulted, Gpu, GpuOptions, Program, Tuning};
use crate::report::TimeSummary;
use crate::tensor::{DType, Tensor};

/// A choice must be faster by this share, beyond what noise explains.
const CLEARLY: f64 = 0.03;
/// Times that all is made anew and measured again.
const REPETITIONS: usize = 2;
/// Rounds at least and at most.
const ROUNDS: (usize, usize) = (7, 40);

/// What was found for one knob and bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The knob, its bucket and its default.
    pub consulted: Consulted,
    /// The entry before; `None` where the default held.
    pub before: Option<u32>,
    /// The entry now.
    pub now: Option<u32>,
    /// Time of each choice as a share of the default's, and the error of that share.
    pub ratios: Vec<(u32, f64, f64)>,
    /// Choices whose results differ from the default's, or that failed, and how.
    pub refused: Vec<(u32, String)>,
    /// The workloads that asked.
    pub workloads: Vec<String>,
}

/// One choice at work.
struct Candidate {
    choice: u32,
    program: Program,
    /// They belong to the program, which writes them.
    _results: Vec<Tensor>,
}

/// Measures every knob that `workloads` ask for on the adapter of `options` and enters into `table`
/// what is clearly better than the default; `seconds` is the time for one workload of one knob.
/// `report` hears of each decision.
///
/// # Errors
/// Those of making and running the workloads with the kernels' defaults.
pub fn tune(
    options: &GpuOptions,
    mut table: Tuning,
    workloads: &[Workload],
    seconds: f64,
    report: &mut dyn FnMut(&Decision) -> Result<()>,
) -> Result<Tuning> {
    let open = |table: &Tuning| Gpu::with(GpuOptions { tuning: Some(Arc::new(table.clone())), schedule: None, ..options.clone() });
    let mut knobs: BTreeMap<(bool, &'static str, u32), (Consulted, BTreeSet<usize>)> = BTreeMap::new();
    let note = |knobs: &mut BTreeMap<_, (Consulted, BTreeSet<usize>)>, found: Vec<Consulted>, workload: usize| {
        for consulted in found {
            // Schedules come first: they decide which of the others are asked for.
            let later = !consulted.knob.name.ends_with(".schedule");
            let entry = knobs.entry((later, consulted.knob.name, consulted.bucket)).or_insert((consulted, BTreeSet::new()));
            entry.1.insert(workload);
        }
    };
    let gpu = open(&table)?;
    for (index, workload) in workloads.iter().enumerate() {
        ((workload.make)(&gpu)?.step)()?;
        gpu.synchronize()?;
        note(&mut knobs, gpu.take_consulted(), index);
    }
    drop(gpu);
    let mut decided = BTreeSet::new();
    while let Some((key, (consulted, users))) = knobs.iter().find(|(key, _)| !decided.contains(*key)).map(|(k, v)| (*k, v.clone())) {
        decided.insert(key);
        let Consulted { knob, bucket, default } = consulted;
        let before = table.get(knob.name, bucket);
        let mut refused: BTreeMap<u32, String> = BTreeMap::new();
        let mut used = BTreeSet::new();
        let mut repetitions = Vec::new();
        for _ in 0..REPETITIONS {
            // Logarithms of the choices' times as shares of the default's, and their errors, of
            // each workload.
            let mut shares: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
            for index in users.iter().copied() {
                let Some(workload) = workloads.get(index) else { continue };
                let mut candidates: Vec<Candidate> = Vec::new();
                let mut expected = None;
                let others = knob.choices.iter().copied().filter(|choice| *choice != default);
                for choice in std::iter::once(default).chain(others).filter(|choice| !refused.contains_key(choice)).collect::<Vec<_>>() {
                    let mut with = table.clone();
                    with.set(knob.name, bucket, choice);
                    let gpu = open(&with)?;
                    match candidate(&gpu, workload, choice, &mut expected) {
                        Ok(candidate) => candidates.push(candidate),
                        Err(error) if choice == default => return Err(error),
                        Err(error) => {
                            refused.insert(choice, error.to_string());
                        }
                    }
                    let found = gpu.take_consulted();
                    let asked = found.iter().any(|c| (c.knob.name, c.bucket) == (knob.name, bucket));
                    note(&mut knobs, found, index);
                    if choice == default && !asked {
                        // What has been decided since keeps the workload from asking.
                        candidates.clear();
                        break;
                    }
                    used.insert(index);
                }
                for (choice, share, error) in race(&candidates, seconds)? {
                    shares.entry(choice).or_default().push((share, error));
                }
            }
            repetitions.push(shares);
        }
        if used.is_empty() {
            continue;
        }
        let ratios: Vec<(u32, f64, f64)> = knob
            .choices
            .iter()
            .filter(|choice| !refused.contains_key(choice))
            .filter_map(|choice| {
                let means = repetitions.iter().filter_map(|shares| mean(shares.get(choice)?));
                // New devices and buffers lie elsewhere in memory: what counts is the least
                // favourable repetition.
                means.max_by(|a, b| upper(*a).total_cmp(&upper(*b))).map(|(ratio, error)| (*choice, ratio, error))
            })
            .collect();
        let now = winner(&ratios);
        match now {
            Some(choice) => table.set(knob.name, bucket, choice),
            None => table.remove(knob.name, bucket),
        }
        let names = used.iter().filter_map(|i| workloads.get(*i)).map(|w| w.name.clone()).collect();
        report(&Decision { consulted, before, now, ratios, refused: refused.into_iter().collect(), workloads: names })?;
    }
    Ok(table)
}

/// The geometric mean of some workloads' shares, and its error.
fn mean(shares: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (count, squares) = (shares.len() as f64, shares.iter().map(|(_, error)| error * error).sum::<f64>());
    (!shares.is_empty()).then(|| ((shares.iter().map(|(share, _)| share).sum::<f64>() / count).exp(), squares.sqrt() / count))
}

/// What a share hardly exceeds.
fn upper((ratio, error): (f64, f64)) -> f64 {
    ratio * (1.0 + 2.0 * error)
}

/// The fastest choice that is clearly faster than the default.
fn winner(ratios: &[(u32, f64, f64)]) -> Option<u32> {
    let clear = ratios.iter().filter(|(_, ratio, error)| upper((*ratio, *error)) < 1.0 - CLEARLY);
    clear.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(choice, ..)| *choice)
}

/// The workload with one choice, its results compared with those of the first that came.
fn candidate(gpu: &Gpu, workload: &Workload, choice: u32, expected: &mut Option<Vec<Vec<f64>>>) -> Result<Candidate> {
    let Prepared { mut step, dtype, .. } = (workload.make)(gpu)?;
    let found = step()?.iter().map(Tensor::to_f64).collect::<Result<Vec<_>>>()?;
    match expected {
        Some(expected) => agree(&workload.name, expected, &found, dtype)?,
        None => *expected = Some(found),
    }
    let (results, program) = gpu.capture(step)?;
    program.replay()?;
    gpu.synchronize()?;
    Ok(Candidate { choice, program, _results: results })
}

/// Compares results, each by its largest value: choices add in different orders.
fn agree(workload: &str, expected: &[Vec<f64>], found: &[Vec<f64>], dtype: DType) -> Result<()> {
    let allowed = if dtype == DType::F16 { 1e-2 } else { 1e-4 };
    for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
        let scale = expected.iter().fold(1e-30, |scale: f64, v| scale.max(v.abs()));
        let worst = expected
            .iter()
            .zip(found)
            .map(|(e, f)| (e - f).abs() / scale)
            .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
        if expected.len() != found.len() || worst > allowed {
            let message = format!("result {at} is {worst:.1e} of the largest value away from the default's, allowed are {allowed:.0e}");
            return Err(crate::error::Error::argument(workload, message));
        }
    }
    Ok(())
}

/// Times the candidates in turn; the logarithm of each one's share of the first one's time, and its
/// error.
fn race(candidates: &[Candidate], seconds: f64) -> Result<Vec<(u32, f64, f64)>> {
    let Some((first, others)) = candidates.split_first().filter(|(_, others)| !others.is_empty()) else { return Ok(Vec::new()) };
    let mut logs = vec![Vec::new(); others.len()];
    let begun = std::time::Instant::now();
    for round in 0..ROUNDS.1 {
        if round >= ROUNDS.0 && begun.elapsed().as_secs_f64() > seconds {
            break;
        }
        let time = |candidate: &Candidate| candidate.program.time(1).map(|t| t.device_seconds.unwrap_or(t.wall_seconds).max(1e-9));
        // Every other round backwards, so that no choice always comes after the same one.
        let mut times = vec![0.0; others.len()];
        let backwards = round % 2 == 1;
        let before = if backwards { None } else { Some(time(first)?) };
        for at in 0..others.len() {
            let at = if backwards { others.len() - 1 - at } else { at };
            if let (Some(candidate), Some(slot)) = (others.get(at), times.get_mut(at)) {
                *slot = time(candidate)?;
            }
        }
        let reference = before.map_or_else(|| time(first), Ok)?;
        for (seconds, logs) in times.iter().zip(&mut logs) {
            logs.push((seconds / reference).ln());
        }
    }
    Ok(others
        .iter()
        .zip(logs)
        .map(|(candidate, logs)| {
            // A sample is in milliseconds of what is given in seconds.
            let sample = TimeSummary::of_seconds(&logs);
            (candidate.choice, sample.median * 1e-3, sample.error_of_median() * 1e-3)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::gpu::Knob;
    use crate::ops::Cost;

    #[test]
    fn only_what_is_clearly_faster_wins() {
        assert_eq!(winner(&[(1, 0.98, 0.001)]), None);
        assert_eq!(winner(&[(1, 0.95, 0.001)]), Some(1));
        assert_eq!(winner(&[(1, 0.80, 0.2)]), None);
        assert_eq!(winner(&[(1, 0.90, 0.01), (2, 0.85, 0.01), (3, 1.2, 0.01)]), Some(2));
        assert_eq!(winner(&[]), None);
    }

    #[test]
    fn results_are_compared_by_their_largest_value() {
        let expected = [vec![1000.0, 0.001]];
        assert_eq!(agree("w", &expected, &[vec![1000.01, 0.002]], DType::F32), Ok(()));
        for wrong in [vec![1001.0, 0.001], vec![1000.0, f64::NAN], vec![1000.0]] {
            assert!(agree("w", &expected, std::slice::from_ref(&wrong), DType::F32).is_err(), "{wrong:?}");
        }
        assert_eq!(agree("w", &expected, &[vec![1001.0, 0.001]], DType::F16), Ok(()));
    }

    /// A choice that is wrong, and one that does not run, are never timed; both knobs of a workload
    /// are found, the schedule first.
    #[test]
    fn wrong_choices_are_refused_and_the_table_stays() {
        const WRONG: Knob = Knob { name: "test.wrong", choices: &[3, 7, 9] };
        let workload = Workload::new("test", "fill", "test", "[4]", |gpu| {
            let gpu = gpu.clone();
            let step = move || match gpu.tuned(&WRONG, 2, 3) {
                9 => Err(Error::argument("test", "nine")),
                choice => {
                    let _ = gpu.schedule("test.schedule", 0);
                    Ok(vec![Tensor::full(&gpu, [4], choice as f32, DType::F32)?])
                }
            };
            let gate = || Ok(super::super::run::Gate::default());
            Ok(Prepared { step: Box::new(step), gate: Box::new(gate), cost: Cost { flops: 0.0, bytes: 16.0 }, dtype: DType::F32 })
        });
        let mut table = Tuning::new("a", "b");
        table.set("test.wrong", 2, 7);
        table.set("other", 0, 1);
        let mut decisions = Vec::new();
        let mut report = |decision: &Decision| {
            decisions.push(decision.clone());
            Ok(())
        };
        let table = tune(&GpuOptions::from_env().unwrap(), table, &[workload], 0.0, &mut report).unwrap();
        let [schedule, wrong] = decisions.as_slice() else { panic!("{decisions:?}") };
        assert!(schedule.consulted.knob.name == "test.schedule" && schedule.refused.is_empty() && schedule.ratios.len() == 1);
        let refused: Vec<u32> = wrong.refused.iter().map(|(choice, _)| *choice).collect();
        assert_eq!((refused, wrong.before, wrong.now, wrong.workloads.clone()), (vec![7, 9], Some(7), None, vec!["fill".to_string()]));
        assert!(wrong.refused[0].1.contains("away from the default") && wrong.refused[1].1.contains("nine"), "{wrong:?}");
        assert_eq!((table.get("test.wrong", 2), table.get("other", 0)), (None, Some(1)));
    }
}
