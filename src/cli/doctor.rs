//! `wgrad doctor`: is this adapter's driver right?

use std::process::ExitCode;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, GpuOptions, Schedule};
use crate::ops::gradcheck::gradcheck_sample;
use crate::ops::registry::{Entry, registry};
use crate::ops::sample::Sample;
use crate::ops::{Operator, apply_shared};

/// Check every operator on the chosen adapter against its float64 reference, and that bits repeat
#[derive(clap::Args)]
pub(super) struct Doctor {
    /// Only operators whose name starts with this
    #[arg(long, default_value = "")]
    only: String,
    /// Print every operator, not only the wrong ones
    #[arg(long)]
    verbose: bool,
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut wrong = 0;
        let mut checked = 0;
        for schedule in Schedule::ALL {
            let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), ..GpuOptions::from_env()? })?;
            println!("{} ({}), schedule {schedule}", gpu.capabilities().name, gpu.capabilities().backend);
            for entry in registry().iter().filter(|e| e.name.starts_with(&self.only)) {
                checked += 1;
                match examine(&gpu, entry) {
                    Ok(worst) if self.verbose => println!("  {:<32} ok, worst error {:.0} % of what is allowed", entry.name, 100.0 * worst),
                    Ok(_) => {}
                    Err(problem) => {
                        wrong += 1;
                        println!("  {:<32} WRONG: {problem}", entry.name);
                    }
                }
            }
        }
        if wrong == 0 {
            println!("verdict: healthy; {checked} checks of {} operators passed, and every result repeated bit for bit", registry().len());
            return Ok(ExitCode::SUCCESS);
        }
        println!("verdict: NOT healthy; {wrong} of {checked} checks failed. Please report them with the output of `wgrad info`.");
        Ok(ExitCode::FAILURE)
    }
}

/// The worst error of an operator's samples as a fraction of what is allowed.
fn examine(gpu: &Gpu, entry: &Entry) -> Result<f64> {
    let mut worst = 0.0f64;
    for sample in (entry.samples)() {
        bits_repeat(gpu, sample)?;
    }
    for sample in (entry.samples)() {
        worst = worst.max(gradcheck_sample(gpu, sample, 1)?.worst);
    }
    Ok(worst)
}

fn bits_repeat(gpu: &Gpu, sample: Sample) -> Result<()> {
    let arrays = sample.arrays(2);
    let operator: Arc<dyn Operator> = Arc::from(sample.operator);
    let run = || -> Result<Vec<Vec<u64>>> {
        let tensors = arrays.iter().map(|a| a.upload(gpu)).collect::<Result<Vec<_>>>()?;
        let outputs = apply_shared(operator.clone(), &tensors.iter().collect::<Vec<_>>())?;
        outputs.iter().map(|t| Ok(t.to_f64()?.into_iter().map(f64::to_bits).collect())).collect()
    };
    if run()? == run()? { Ok(()) } else { Err(crate::error::Error::argument(operator.name(), "two runs on the same inputs gave different bits")) }
}
