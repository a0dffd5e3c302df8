//! What a run writes down: losses and metrics, read some steps late, and checkpoints.

use std::time::Instant;

use super::{Trainer, remedy};
use crate::error::{Error, Result};
use crate::gpu::Pending;
use crate::train::checkpoint::Position;
use crate::train::progress::{Epoch, Metrics, Progress};
use crate::train::run::{RunDirectory, Usage};
use crate::train::watch::{Diagnostics, PendingDiagnostics};

/// A step's loss on its way to the host.
pub(super) struct Read {
    pub step: u64,
    pub epoch: u32,
    pub learning_rate: f32,
    pub loss: Pending,
    /// With what the method counts.
    pub look: Option<(PendingDiagnostics, Vec<(&'static str, f64)>)>,
}

impl Trainer {
    /// Reads losses until `behind` are still on their way.
    pub(super) fn collect(&mut self, behind: usize, progress: &mut Progress, directory: Option<&RunDirectory>) -> Result<()> {
        while self.reads.len() > behind {
            let Some(Read { step, epoch, learning_rate, loss, look }) = self.reads.pop_front() else { break };
            let loss = bytemuck::pod_collect_to_vec::<u8, f32>(&loss.wait()?).first().copied().unwrap_or(f32::NAN);
            if !loss.is_finite() {
                return Err(Error::NonFinite {
                    operator: self.recipe.method.name.clone(),
                    message: format!("the loss of step {step} is {loss}; {}", remedy(learning_rate)),
                });
            }
            self.epoch_loss.add(loss);
            if let Some((look, metrics)) = look {
                let figures = Diagnostics { metrics, ..look.figures(loss.into())? };
                progress.watch(&figures);
                let events = self.alarm.judge(step, &figures, self.method.collapse_hint());
                report(Metrics { step, epoch: epoch + 1, loss, learning_rate, figures, whole: None }, progress, directory)?;
                for event in events {
                    progress.alarm(&event);
                    directory.map_or(Ok(()), |d| d.append(&event.to_json()))?;
                    if self.recipe.stop_on_collapse {
                        return Err(Error::Collapse { method: self.recipe.method.name.clone(), message: event.message });
                    }
                }
            }
            progress.step(step, loss, learning_rate);
        }
        Ok(())
    }

    pub(super) fn report_epoch(
        &self,
        (begun, first): (Instant, u64),
        skipped: u64,
        progress: &mut Progress,
        directory: Option<&RunDirectory>,
    ) -> Result<()> {
        let Position { step, epoch, .. } = self.position;
        let images = (step - first) as f64 * self.recipe.batch as f64;
        let learning_rate = self.schedule.rate(step.saturating_sub(1));
        let whole = Some(Epoch { images_per_second: images / begun.elapsed().as_secs_f64().max(1e-9), skipped });
        report(
            Metrics { step, epoch, loss: self.epoch_loss.mean() as f32, learning_rate, figures: Diagnostics::default(), whole },
            progress,
            directory,
        )
    }

    /// Writes a checkpoint. The losses up to it are read and recorded first, so that what it holds
    /// is finite and no metrics are missing when it is gone on from.
    pub(super) fn save(&mut self, progress: &mut Progress, directory: Option<&RunDirectory>) -> Result<()> {
        // Every process of a run, so that all of them end where a loss is not finite.
        self.collect(0, progress, directory)?;
        let Some(directory) = directory else { return Ok(()) };
        directory.keep_checkpoint(&self.checkpoint()?)?;
        let ((begun, before), steps) = (self.since, self.position.step);
        let spent = Usage { steps, images: steps * self.recipe.batch as u64, seconds: before + begun.elapsed().as_secs_f64() };
        directory.keep_usage(spent)
    }
}

fn report(metrics: Metrics, progress: &mut Progress, directory: Option<&RunDirectory>) -> Result<()> {
    progress.metrics(&metrics);
    directory.map_or(Ok(()), |d| d.append(&metrics.to_json()))
}
