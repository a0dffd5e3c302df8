//! What sharing a step among processes costs: measured here is what happens on this machine; the
//! network between machines is a model.

use std::time::Instant;

use crate::autograd::PackedGradients;
use crate::capture::Capture;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::models::{ModelOptions, model};
use crate::nn::{Mode, Module, Parameters};
use crate::optim::{Optimizer, Sgd, SgdOptions};
use crate::parallel::handling;
use crate::tensor::{DType, Tensor};

/// The networks that are measured.
pub const NETWORKS: [&str; 3] = ["mobilenetv1_100", "efficientnet_b0", "resnet18"];
/// Images of a shard, and their pixels a side.
pub const SHARD: [usize; 2] = [8, 64];
const CLASSES: usize = 1000;
/// Steps that are measured, after two.
const TIMES: usize = 5;

/// A network between machines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Seconds before the first byte of a message arrives.
    pub latency: f64,
    /// Bytes a second, each way.
    pub bandwidth: f64,
}

/// Gradients that a process sends together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// How many bytes they have.
    pub bytes: u64,
    /// Seconds after the step's begin at which the last of them is there.
    pub ready: f64,
}

/// What was measured of a network's step.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The network's name.
    pub network: String,
    /// Gradients, in the order in which they are sent, and last the running statistics.
    pub buckets: Vec<Bucket>,
    /// Seconds of a shard, forward and backward.
    pub shard: f64,
    /// Seconds of the update.
    pub update: f64,
    /// Seconds that all buckets take to the host, in one addition there, and to the device.
    pub handling: [f64; 3],
}

impl Exchange {
    /// Bytes that a process sends, and receives, in a round.
    pub fn bytes(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.bytes).sum()
    }

    /// Seconds of a step that nobody shares.
    pub fn step(&self) -> f64 {
        self.shard + self.update
    }

    /// Seconds of a bucket's exchange by recursive doubling, and back to the device.
    fn journey(&self, bucket: &Bucket, processes: usize, network: Network) -> [f64; 2] {
        let [read, add, write] = self.handling.map(|seconds| seconds * bucket.bytes as f64 / self.bytes().max(1) as f64);
        let rounds = f64::from(processes.next_power_of_two().ilog2());
        [read + rounds * (network.latency + bucket.bytes as f64 / network.bandwidth + add), write]
    }

    /// Seconds by which the exchange prolongs the step of each of `processes`, with a shard each.
    /// Buckets travel one after the other, each from when it is there, while the device computes.
    pub fn exposed(&self, processes: usize, network: Network) -> f64 {
        let (arrived, written) = self.buckets.iter().fold((0f64, 0.0), |(free, written), bucket| {
            let [journey, write] = self.journey(bucket, processes, network);
            (free.max(bucket.ready) + journey, written + write)
        });
        (arrived - self.shard).max(0.0) + written
    }

    /// The share of its time that each of `processes` computes in.
    pub fn efficiency(&self, processes: usize, network: Network) -> f64 {
        if processes < 2 { 1.0 } else { self.step() / (self.step() + self.exposed(processes, network)) }
    }

    /// The share of the exchange that hides behind the backward pass.
    pub fn hidden(&self, processes: usize, network: Network) -> f64 {
        let all: f64 = self.buckets.iter().flat_map(|bucket| self.journey(bucket, processes, network)).sum();
        1.0 - self.exposed(processes, network) / all
    }
}

/// The medians of each number that `work` gives, in [`TIMES`] runs after two.
fn medians(mut work: impl FnMut() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let runs = (0..2 + TIMES).map(|_| work()).collect::<Result<Vec<_>>>()?;
    let numbers = runs.last().map_or(0, Vec::len);
    let median = |at: usize| {
        // Before the step is recorded there are no times of its parts.
        let mut found: Vec<f64> = runs.iter().skip(2).filter_map(|run| run.get(at).copied()).collect();
        found.sort_by(f64::total_cmp);
        found.get(found.len() / 2).copied().ok_or_else(|| Error::argument("exchange", "nothing was measured"))
    };
    (0..numbers).map(median).collect()
}

/// Measures a supervised step of `name` and what its exchange costs on this machine.
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
    let (mut shard, mut update) = (Capture::new(gpu), Capture::new(gpu));
    let mut sums = Vec::new();
    let times = medians(|| {
        gpu.synchronize()?;
        let (begun, mut times) = (Instant::now(), Vec::new());
        let now = || -> Result<f64> {
            gpu.synchronize()?;
            Ok(begun.elapsed().as_secs_f64())
        };
        let packed = shard.run_in_parts(
            &batch,
            |(x, labels)| {
                let watched = params.all().iter().map(|p| p.tensor(Mode::Train)).collect::<Result<Vec<_>>>()?;
                network.forward(x, Mode::Train)?.cross_entropy(labels, 0.0)?.backward_in_buckets(None, false, &watched)
            },
            |_, _| {
                times.push(now()?);
                Ok(())
            },
        )?;
        times.push(now()?);
        let values: Vec<Tensor> = packed.iter().map(|bucket| bucket.values.clone()).collect();
        update.run(&values, |values| optimizer.step(&PackedGradients::unpack(&packed, values), 1e-3))?;
        times.push(now()?);
        sums = values.into_iter().chain(params.statistics()).collect();
        times.extend(handling(&sums)?.map(|time| time.as_secs_f64()));
        Ok(times)
    })?;
    let [ready @ .., shard, end, read, add, write] = times.as_slice() else {
        return Err(Error::argument("exchange", "the step was not recorded"));
    };
    let ready = ready.iter().chain(std::iter::repeat(shard));
    let buckets = sums.iter().zip(ready).map(|(sum, ready)| Bucket { bytes: sum.spec().bytes(), ready: *ready }).collect();
    Ok(Exchange { network: name.into(), buckets, shard: *shard, update: end - shard, handling: [*read, *add, *write] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_early_hides_behind_the_rest() {
        let bucket = |bytes, ready| Bucket { bytes, ready };
        let exchange = Exchange {
            network: "a".into(),
            buckets: vec![bucket(500, 2.0), bucket(500, 4.0)],
            shard: 4.0,
            update: 1.0,
            handling: [0.5, 0.25, 1.0],
        };
        let network = Network { latency: 0.125, bandwidth: 2000.0 };
        // A bucket: 0.25 s to the host, in a round 0.125 until the message comes, 0.25 of its bytes and
        // 0.125 in the addition, and 0.5 back to the device. The first has arrived before 4 s.
        assert_eq!([2, 4].map(|processes| exchange.exposed(processes, network)), [0.75 + 1.0, 1.25 + 1.0]);
        assert_eq!(exchange.hidden(2, network), 1.0 - 1.75 / 2.5);
        assert_eq!([1, 2].map(|processes| exchange.efficiency(processes, network)), [1.0, 5.0 / 6.75]);
        // After 64 processes' six rounds of 0.5 s the second one has to wait for the first.
        assert_eq!(exchange.exposed(64, network), 2.0 + 2.0 * 3.25 - 4.0 + 1.0);
    }
}
