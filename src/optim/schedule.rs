//! Schedules of learning rates, and of whatever else varies over a run: a number for each step,
//! counted from 0.

use crate::error::{Error, Result, require_positive, require_share, require_within};

/// A learning rate over the steps of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Always `rate`.
    Constant {
        /// The rate.
        rate: f32,
    },
    /// PyTorch's `StepLR`: `rate * gamma^(step / step_size)`, whole steps of the staircase.
    Step {
        /// The first rate.
        rate: f32,
        /// Times this at each stair.
        gamma: f32,
        /// Steps of a stair.
        step_size: u64,
    },
    /// From `rate` to `end` along half a cosine (Loshchilov and Hutter 2017) over `steps`.
    Cosine {
        /// The first rate.
        rate: f32,
        /// The last rate.
        end: f32,
        /// Steps of the run.
        steps: u64,
    },
    /// DINO's (Caron et al. 2021): a straight line from 0 to `rate` over the first `warm_up` steps,
    /// both ends included, then half a cosine from `rate` to `end` over the other steps. (BYOL's
    /// authors rise by `step / warm_up`, lightly by `(step + 1) / warm_up`.)
    WarmUpCosine {
        /// The peak.
        rate: f32,
        /// The last rate.
        end: f32,
        /// Steps before the peak.
        warm_up: u64,
        /// Steps of the run.
        steps: u64,
    },
    /// PyTorch's `CosineAnnealingWarmRestarts` (SGDR, Loshchilov and Hutter 2017): half a cosine from
    /// `rate` to `end` over `first` steps, then again over `factor` times as many, and so on.
    WarmRestarts {
        /// The rate that each cycle begins with.
        rate: f32,
        /// What it falls to.
        end: f32,
        /// Steps of the first cycle.
        first: u64,
        /// A cycle's steps over those of the one before it.
        factor: u32,
    },
    /// PyTorch's `OneCycleLR` with cosine annealing (Smith and Topin 2018): from `rate /
    /// div_factor` up to `rate`, which it reaches at step `pct_start * steps - 1`, then down to
    /// `rate / div_factor / final_div_factor` at the last. Where the peak would lie before the
    /// first step, a run begins on the way down; at the first step, where PyTorch divides by zero,
    /// it begins with the peak.
    OneCycle {
        /// The peak.
        rate: f32,
        /// Steps of the run.
        steps: u64,
        /// Part of the steps before the peak.
        pct_start: f32,
        /// The peak over the first rate.
        div_factor: f32,
        /// The first rate over the last.
        final_div_factor: f32,
    },
}

fn half_cosine(from: f64, to: f64, part: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * part).cos())
}

impl Schedule {
    /// A one-cycle schedule with PyTorch's defaults: `pct_start` 0.3, `div_factor` 25,
    /// `final_div_factor` 10^4.
    pub fn one_cycle(rate: f32, steps: u64) -> Self {
        Schedule::OneCycle { rate, steps, pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 }
    }

    /// Half a cosine from `rate` to `end`, behind a straight rise over the first `warm_up` of all
    /// `steps` where there are any.
    pub fn cosine([rate, end]: [f32; 2], warm_up: u64, steps: u64) -> Self {
        match warm_up {
            0 => Schedule::Cosine { rate, end, steps },
            _ => Schedule::WarmUpCosine { rate, end, warm_up, steps },
        }
    }

    /// A one-cycle schedule with another part of the steps before the peak; any other schedule as
    /// it is.
    #[must_use]
    pub fn with_pct_start(mut self, part: f32) -> Self {
        if let Schedule::OneCycle { pct_start, .. } = &mut self {
            *pct_start = part;
        }
        self
    }

    /// Refuses settings without a meaning; the rate of such a schedule is NaN.
    ///
    /// # Errors
    /// [`Error::Argument`] for rates or factors that are not finite, stairs of no steps, a warm-up
    /// that is longer than the run.
    pub fn check(&self) -> Result<()> {
        let finite = |setting: &str, value: f32| require_within("schedule", setting, value, [f32::MIN, f32::MAX]).map(drop);
        match *self {
            Schedule::Constant { rate } => finite("rate", rate),
            Schedule::Step { step_size: 0, .. } => Err(Error::argument("schedule", "step_size must be at least 1 step")),
            Schedule::Step { rate, gamma, .. } => finite("rate", rate).and(finite("gamma", gamma)),
            Schedule::WarmUpCosine { warm_up, steps, .. } if warm_up > steps => {
                Err(Error::argument("warm_up", format!("{warm_up} steps of warm-up are more than the run's {steps}")))
            }
            Schedule::WarmRestarts { first: 0, .. } | Schedule::WarmRestarts { factor: 0, .. } => {
                Err(Error::argument("schedule", "a cycle has at least 1 step, and a factor of at least 1"))
            }
            Schedule::Cosine { rate, end, .. } | Schedule::WarmUpCosine { rate, end, .. } | Schedule::WarmRestarts { rate, end, .. } => {
                finite("rate", rate).and(finite("end", end))
            }
            Schedule::OneCycle { rate, pct_start, div_factor, final_div_factor, .. } => {
                require_share("schedule", "pct_start", pct_start)?;
                require_positive("schedule", "div_factor", div_factor)?;
                require_positive("schedule", "final_div_factor", final_div_factor)?;
                finite("rate", rate)
            }
        }
    }

    /// The learning rate of `step`; beyond the last step, the last rate. NaN, which optimizers
    /// refuse, where [`Self::check`] does.
    pub fn rate(&self, step: u64) -> f32 {
        if self.check().is_err() {
            return f32::NAN;
        }
        match *self {
            Schedule::Constant { rate } => rate,
            Schedule::Step { rate, gamma, step_size } => {
                let stairs = i32::try_from(step / step_size).unwrap_or(i32::MAX);
                (f64::from(rate) * f64::from(gamma).powi(stairs)) as f32
            }
            Schedule::Cosine { rate, end, steps } => {
                let part = step.min(steps) as f64 / steps.max(1) as f64;
                half_cosine(f64::from(rate), f64::from(end), part) as f32
            }
            Schedule::WarmRestarts { rate, end, first, factor } => {
                let (mut at, mut cycle) = (step, first);
                match factor {
                    // All cycles are alike, however many there are.
                    1 => at %= first,
                    _ => {
                        while at >= cycle {
                            at -= cycle;
                            cycle = cycle.saturating_mul(factor.into());
                        }
                    }
                }
                half_cosine(f64::from(rate), f64::from(end), at as f64 / cycle as f64) as f32
            }
            Schedule::WarmUpCosine { rate, warm_up, .. } if step < warm_up => rate * step as f32 / warm_up.saturating_sub(1).max(1) as f32,
            Schedule::WarmUpCosine { rate, end, warm_up, steps } => {
                let steps = steps.saturating_sub(warm_up);
                Schedule::Cosine { rate, end, steps }.rate(step - warm_up)
            }
            Schedule::OneCycle { rate, steps, pct_start, div_factor, final_div_factor } => {
                let rate = f64::from(rate);
                let start = rate / f64::from(div_factor);
                let last = start / f64::from(final_div_factor);
                let end = steps.max(1) as f64 - 1.0;
                // The share as it is written: 0.1, where f32 has a little more.
                let peak = (f64::from(pct_start) * 1e7).round() / 1e7 * (end + 1.0) - 1.0;
                let at = (step as f64).min(end);
                let value = if at <= peak {
                    half_cosine(start, rate, if peak > 0.0 { at / peak } else { 1.0 })
                } else {
                    half_cosine(rate, last, (at - peak) / (end - peak))
                };
                value as f32
            }
        }
    }

    /// The rate of `step` with a linear rise over the first `warm_up` steps: `(step + 1) / warm_up`
    /// of it.
    pub fn rate_with_warm_up(&self, step: u64, warm_up: u64) -> f32 {
        let part = if warm_up == 0 { 1.0 } else { ((step + 1) as f32 / warm_up as f32).min(1.0) };
        self.rate(step) * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `torch.optim.lr_scheduler.OneCycleLR(max_lr=0.3, total_steps=10)` computes, in float64.
    #[test]
    fn one_cycle_is_pytorchs() {
        let schedule = Schedule::one_cycle(0.3, 10);
        let expected = [0.012, 0.156, 0.3, 0.285_145_4, 0.243_523_7, 0.183_378_6, 0.116_622_6, 0.056_477_5, 0.014_855_8, 0.000_001_2];
        for (step, want) in expected.iter().enumerate() {
            let got = schedule.rate(step as u64);
            assert!((got - want).abs() < 1e-6, "step {step}: {got}, expected {want}");
        }
        assert_eq!(schedule.rate(500), schedule.rate(9));
    }

    /// `OneCycleLR(max_lr=0.3, total_steps, pct_start)` for runs of a few steps, in float64.
    #[test]
    fn one_cycle_is_pytorchs_for_short_runs() {
        let peak = 0.3;
        let table: &[(f32, &[f32])] = &[
            (0.3, &[1.2e-6]),
            (0.0, &[0.150_000_6, 1.2e-6]),
            (0.1, &[0.176_047_72, 1.2e-6]),
            (0.3, &[0.243_523_7, 1.2e-6]),
            (0.9, &[0.012, 1.2e-6]),
            (1.0, &[0.012, 0.3]),
            (0.1, &[0.252_936_43, 0.090_588_87, 1.2e-6]),
            (0.3, &[0.298_324_63, 0.138_791_13, 1.2e-6]),
            (0.5, &[0.012, 0.225_000_3, 1.2e-6]),
            (0.3, &[0.012, 0.243_523_7, 0.084_918_3, 1.2e-6]),
            (0.0, &[0.271_352_66, 0.196_352_96, 0.103_648_24, 0.028_648_537, 1.2e-6]),
            (0.3, &[0.012, 0.285_145_4, 0.183_378_6, 0.056_477_5, 1.2e-6]),
            (0.9, &[0.012, 0.066_217_47, 0.188_043, 0.285_739_5, 1.2e-6]),
            // Where PyTorch divides 0 by 0 the peak is where the run begins.
            (1.0, &[0.3]),
            (0.5, &[0.3, 1.2e-6]),
        ];
        for (pct_start, rates) in table {
            let schedule = Schedule::one_cycle(peak, rates.len() as u64).with_pct_start(*pct_start);
            for (step, want) in rates.iter().enumerate() {
                let got = schedule.rate(step as u64);
                assert!((got - want).abs() < 1e-7, "{schedule:?}, step {step}: {got}, expected {want}");
            }
        }
    }

    /// `CosineAnnealingWarmRestarts(T_0, T_mult, eta_min=0.1)` from 0.5: T_0 4 and T_mult 2, and 3
    /// and 1; its formula in float64.
    #[test]
    fn warm_restarts_are_pytorchs() {
        let rates = |first, factor, steps: u64| -> Vec<f32> {
            let schedule = Schedule::WarmRestarts { rate: 0.5, end: 0.1, first, factor };
            (0..steps).map(|step| schedule.rate(step)).collect()
        };
        let doubled = [
            0.5,
            0.441_421_36,
            0.3,
            0.158_578_64,
            0.5,
            0.484_775_9,
            0.441_421_36,
            0.376_536_7,
            0.3,
            0.223_463_3,
            0.158_578_64,
            0.115_224_1,
            0.5,
        ];
        let alike = [0.5, 0.4, 0.2, 0.5, 0.4, 0.2, 0.5];
        for (found, expected) in [(rates(4, 2, 13), doubled.to_vec()), (rates(3, 1, 7), alike.to_vec())] {
            assert!(found.iter().zip(&expected).all(|(a, b): (&f32, &f32)| (a - b).abs() < 1e-6), "{found:?}, expected {expected:?}");
        }
        assert_eq!(Schedule::WarmRestarts { rate: 0.5, end: 0.1, first: 3, factor: 1 }.rate(3_000_000_000_000), 0.5);
        let late = Schedule::WarmRestarts { rate: 0.5, end: 0.1, first: 1, factor: u32::MAX };
        assert!(late.rate(u64::MAX).is_finite());
    }

    /// `StepLR` and `CosineAnnealingLR` at their ends and for runs of a step or two.
    #[test]
    fn the_ends_of_short_runs_are_pytorchs() {
        for (schedule, rates) in [
            (Schedule::Cosine { rate: 0.5, end: 0.1, steps: 1 }, vec![0.5, 0.1, 0.1]),
            (Schedule::Cosine { rate: 0.5, end: 0.1, steps: 2 }, vec![0.5, 0.3, 0.1]),
            (Schedule::Step { rate: 0.5, gamma: 0.1, step_size: 1 }, vec![0.5, 0.05, 0.005]),
            (Schedule::WarmUpCosine { rate: 0.5, end: 0.1, warm_up: 1, steps: 3 }, vec![0.0, 0.5, 0.3, 0.1]),
            (Schedule::WarmUpCosine { rate: 0.5, end: 0.1, warm_up: 2, steps: 2 }, vec![0.0, 0.5, 0.5]),
        ] {
            let found: Vec<f32> = (0..rates.len() as u64).map(|step| schedule.rate(step)).collect();
            assert!(found.iter().zip(&rates).all(|(a, b)| (a - b).abs() < 1e-7), "{schedule:?}: {found:?}, expected {rates:?}");
        }
        let long = Schedule::Step { rate: 0.5, gamma: 0.999, step_size: 1 };
        approx::assert_abs_diff_eq!(long.rate(5000), 0.003_360_772_5, epsilon = 1e-8);
    }

    #[test]
    fn settings_without_a_meaning_are_refused() {
        let wrong = [
            Schedule::Constant { rate: f32::NAN },
            Schedule::Constant { rate: f32::INFINITY },
            Schedule::Step { rate: 0.1, gamma: f32::NAN, step_size: 3 },
            Schedule::Step { rate: 0.1, gamma: 0.5, step_size: 0 },
            Schedule::Cosine { rate: 0.1, end: f32::NAN, steps: 3 },
            Schedule::WarmUpCosine { rate: 0.1, end: 0.0, warm_up: 4, steps: 3 },
            Schedule::WarmRestarts { rate: 0.1, end: 0.0, first: 0, factor: 1 },
            Schedule::WarmRestarts { rate: 0.1, end: 0.0, first: 3, factor: 0 },
            Schedule::WarmRestarts { rate: 0.1, end: f32::NAN, first: 3, factor: 1 },
            Schedule::one_cycle(0.1, 3).with_pct_start(1.5),
            Schedule::one_cycle(0.1, 3).with_pct_start(f32::NAN),
            Schedule::OneCycle { rate: 0.1, steps: 3, pct_start: 0.3, div_factor: 0.0, final_div_factor: 1.0 },
            Schedule::OneCycle { rate: 0.1, steps: 3, pct_start: 0.3, div_factor: 25.0, final_div_factor: f32::NAN },
            Schedule::cosine([f32::NAN, 0.0], 0, 3),
        ];
        for schedule in wrong {
            assert!(schedule.check().is_err() && schedule.rate(1).is_nan(), "{schedule:?}");
        }
    }

    /// `cosine_scheduler(0.5, 1e-6, epochs, 25, warmup_epochs)` of DINO's `utils.py`, in float64,
    /// for 4 epochs and 1 of warm-up, 2 and none, at steps 0, W - 1, W, K / 2 and K - 1.
    #[test]
    fn warm_up_and_cosine_are_dinos() {
        let table = |schedule: Schedule, steps: [u64; 5]| steps.map(|step| schedule.rate(step));
        let close =
            |found: [f32; 5], expected: [f32; 5]| assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-7), "{found:?}");
        let cosine = |warm_up, steps| Schedule::cosine([0.5, 1e-6], warm_up, steps);
        close(table(cosine(25, 100), [0, 24, 25, 50, 99]), [0.0, 0.5, 0.5, 0.375_000_25, 0.000_220_292]);
        close(table(cosine(0, 50), [0, 1, 2, 25, 49]), [0.5, 0.499_506_7, 0.498_028_7, 0.250_000_5, 0.000_494_317]);
        // Its weight decay, and its teacher's momentum: np.linspace has one point where the warm-up
        // is a single step.
        close(
            table(Schedule::Cosine { rate: 0.04, end: 0.4, steps: 100 }, [0, 24, 25, 50, 99]),
            [0.04, 0.088_785_65, 0.092_720_78, 0.22, 0.399_911_18],
        );
        assert_eq!([0, 1].map(|step| Schedule::cosine([0.5, 0.0], 1, 10).rate(step)), [0.0, 0.5]);
        assert!(cosine(11, 10).check().unwrap_err().to_string().contains("11 steps of warm-up"));
        // Other factors than PyTorch's defaults.
        let flat = Schedule::OneCycle { rate: 0.5, steps: 10, pct_start: 0.3, div_factor: 5.0, final_div_factor: 2.0 };
        assert_eq!([0, 2, 9].map(|step| flat.rate(step)), [0.1, 0.5, 0.05]);
    }

    #[test]
    fn the_other_schedules_pass_through_their_ends() {
        let cosine = Schedule::Cosine { rate: 0.5, end: 0.1, steps: 10 };
        assert_eq!((cosine.rate(0), cosine.rate(10)), (0.5, 0.1));
        approx::assert_abs_diff_eq!(cosine.rate(5), 0.3, epsilon = 1e-7);
        let stairs = Schedule::Step { rate: 1.0, gamma: 0.5, step_size: 3 };
        assert_eq!([0, 2, 3, 6].map(|s| stairs.rate(s)), [1.0, 1.0, 0.5, 0.25]);
        let constant = Schedule::Constant { rate: 2.0 };
        assert_eq!([0, 1, 3, 9].map(|s| constant.rate_with_warm_up(s, 4)), [0.5, 1.0, 2.0, 2.0]);
    }
}
