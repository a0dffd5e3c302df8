//! What sharing a step among processes costs: measured here is what happens on this machine; the
//! network between machines is a model.

use std::time::Instant;

use crate::autograd::Gradients;
use crate::capture::Capture;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::models::{ModelOptions, model};
use crate::nn::{Mode, Module, Parameters};
use crate::optim::{Optimizer, Sgd, SgdOptions};
use crate::parallel::turn_around;
use crate::tensor::{DType, Tensor};

/// The networks that are measured.
pub const NETWORKS: [&str; 3] = ["mobilenetv1_100", "efficientnet_b0", "resnet18"];
/// Images of a shard, and their pixels a side.
pub const SHARD: [usize; 2] = [8, 64];
const CLASSES: usize = 1000;
/// Steps and rounds that are measured, after two of each.
const TIMES: usize = 5;

/// A network between machines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Seconds before the first byte of a message arrives.
    pub latency: f64,
    /// Bytes a second, each way.
    pub bandwidth: f64,
}

/// What was measured of a network's step.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The network's name.
    pub network: String,
    /// Bytes of gradients and running statistics that a process sends, and receives, in a round.
    pub bytes: u64,
    /// Seconds of a shard's step, with its update.
    pub step: f64,
    /// Seconds of a round on this machine: to the host, from it, and the sum.
    pub round: f64,
}

impl Exchange {
    /// The share of its time that each of `processes` computes in, with a shard each: rounds of
    /// recursive doubling, none of which hides behind the backward pass.
    pub fn efficiency(&self, processes: usize, network: Network) -> f64 {
        let rounds = f64::from(processes.next_power_of_two().ilog2());
        let round = self.round + network.latency + self.bytes as f64 / network.bandwidth;
        self.step / (self.step + rounds * round)
    }
}

/// The median of what `work` takes, the device waited for.
fn median(gpu: &Gpu, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..2 + TIMES {
        let begun = Instant::now();
        work()?;
        gpu.synchronize()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    let mut times = times.split_off(2);
    times.sort_by(f64::total_cmp);
    times.get(TIMES / 2).copied().ok_or_else(|| Error::argument("exchange", "nothing was measured"))
}

/// Measures a supervised step of `name` and a round of its exchange.
///
/// # Errors
/// Those of the network and of its step.
pub fn measure(gpu: &Gpu, name: &str) -> Result<Exchange> {
    let params = Parameters::new(gpu, 0);
    let [images, pixels] = SHARD;
    let network = model(name, ModelOptions::default())?.classifier(&params, CLASSES)?;
    let mut optimizer = Sgd::new(&params, SgdOptions::default())?;
    let labels = Tensor::from_slice(gpu, &vec![0i32; images], [images])?;
    let batch = (Tensor::full(gpu, [images, pixels, pixels, 3], 0.5, DType::F32)?, labels);
    let (mut step, mut gradients) = (Capture::new(gpu), Gradients::default());
    let seconds = median(gpu, || {
        step.run(&batch, |(x, labels)| {
            gradients = network.forward(x, Mode::Train)?.cross_entropy(labels, 0.0)?.backward()?;
            optimizer.step(&gradients, 1e-3)
        })
    })?;
    let watched = params.all().iter().map(|p| p.tensor(Mode::Train)).collect::<Result<Vec<_>>>()?;
    let sums: Vec<Tensor> = std::iter::once(gradients.pack(&watched)?.values).chain(params.statistics()).collect();
    let round = median(gpu, || turn_around(&sums).map(drop))?;
    let bytes = sums.iter().map(|sum| 4 * sum.numel() as u64).sum();
    Ok(Exchange { network: name.into(), bytes, step: seconds, round })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efficiency_falls_with_the_rounds() {
        let exchange = Exchange { network: "a".into(), bytes: 1000, step: 6.0, round: 1.0 };
        let network = Network { latency: 0.5, bandwidth: 2000.0 };
        // Rounds of 1 s here, 0.5 s until the message comes and 0.5 s of its bytes.
        assert_eq!([1, 2, 8].map(|processes| exchange.efficiency(processes, network)), [1.0, 0.75, 0.5]);
    }
}
