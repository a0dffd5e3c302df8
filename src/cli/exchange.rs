//! `wgrad bench --suite exchange`: what sharing a step among processes costs.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::bench::Bench;
use super::output::say;
use super::table::Table;
use crate::bench::SUITES;
use crate::bench::exchange::{self, NETWORKS, Network, SHARD};
use crate::bench::workload::wanted;
use crate::error::{Error, Result, require_not_negative, require_positive};
use crate::gpu::Gpu;

pub(super) const SUITE: &str = "exchange";

/// The suites of kernels, and this one.
pub(super) fn suites() -> PossibleValuesParser {
    PossibleValuesParser::new(SUITES.into_iter().chain([SUITE]))
}

impl Bench {
    /// Measures, and prints a table or lines of JSON.
    pub(super) fn exchange(&self, gpu: &Gpu) -> Result<ExitCode> {
        let network = Network { latency: self.latency * 1e-6, bandwidth: self.bandwidth * 1e9 / 8.0 };
        require_not_negative(SUITE, "latency", self.latency as f32)?;
        require_positive(SUITE, "bandwidth", self.bandwidth as f32)?;
        if self.csv || self.html.is_some() || self.save.is_some() || self.compare.is_some() || !self.sweep.is_empty() {
            return Err(Error::argument(
                "exchange",
                "this suite prints a table or, by --json, lines; it has no --csv, --html, --save, --compare or --sweep",
            ));
        }
        let processes = [2, 8, 32, 128, 512];
        let columns: Vec<String> = processes.iter().map(|p| format!("{p} processes")).collect();
        let head: Vec<&str> = ["network", "MiB a round", "buckets", "step ms", "exchange here ms", "hidden"]
            .into_iter()
            .chain(columns.iter().map(String::as_str))
            .collect();
        let mut table = Table::new(&head);
        for name in NETWORKS.into_iter().filter(|name| wanted(name, &self.filters)) {
            if self.list {
                say(name)?;
                continue;
            }
            let found = exchange::measure(gpu, name)?;
            let shares: Vec<f64> = processes.iter().map(|p| found.efficiency(*p, network)).collect();
            let hidden = found.hidden(2, network);
            if self.json {
                let model: serde_json::Map<_, _> = processes.iter().zip(&shares).map(|(p, share)| (p.to_string(), json!(share))).collect();
                let [read, add, write] = found.handling;
                say(
                    json!({ "network": found.network, "bytes": found.bytes(), "buckets": found.buckets.len(), "step_seconds": found.step(),
                    "read_seconds": read, "add_seconds": add, "write_seconds": write, "latency_seconds": network.latency,
                    "bandwidth_bytes": network.bandwidth, "modelled_hidden": hidden, "modelled_efficiency": model }),
                )?;
                continue;
            }
            let (mib, here) = (found.bytes() as f64 / f64::from(1 << 20), found.handling.iter().sum::<f64>());
            let figures =
                [format!("{mib:.1}"), found.buckets.len().to_string(), format!("{:.1}", found.step() * 1e3), format!("{:.1}", here * 1e3)];
            let shares = [hidden].into_iter().chain(shares).map(|share| format!("{:.0} %", share * 100.0));
            table.row(&[found.network.clone()].into_iter().chain(figures).chain(shares).collect::<Vec<_>>());
        }
        if self.list || self.json {
            return Ok(ExitCode::SUCCESS);
        }
        let [images, pixels] = SHARD;
        say(format!(
            "{table}\nmeasured on {}: a step of {images} images of {pixels} x {pixels} a process, when each bucket of gradients is there, and what an exchange costs\n\
             without the network. The rest is a model, of log2 of the processes rounds of {} us and {} Gbit/s: how much of the exchange between two\n\
             hides behind the backward pass, and shares of time that is computed in.",
            gpu.capabilities().name,
            self.latency,
            self.bandwidth
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
