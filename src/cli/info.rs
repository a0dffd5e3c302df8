//! `wgrad info`: adapters, capabilities, which would be chosen.

use std::process::ExitCode;

use serde_json::json;

use super::device;
use super::output::say;
use crate::error::Result;
use crate::gpu::{Capabilities, adapters};
use crate::parallel::world;

/// List the adapters and what the chosen one can do
#[derive(clap::Args)]
pub(super) struct Info {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) fn run(self) -> Result<ExitCode> {
        let all = adapters()?;
        let gpu = device::open()?;
        let chosen = gpu.capabilities();
        // Started by mpirun, every process says what it would work on.
        let group = world()?;
        let line = format!("{} ({}, {}), process {}", chosen.name, chosen.backend, chosen.driver, std::process::id());
        let members = group.all_gather(line.as_bytes())?;
        let members: Vec<_> = members.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
        if group.rank() > 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let file = device::tuning_file(chosen);
        if self.json {
            let list: Vec<_> = all.iter().map(json_of).collect();
            say(format!(
                "{:#}",
                json!({ "adapters": list, "chosen": json_of(chosen), "tuning_table": gpu.tuning_hash(), "tuning_file": file, "processes": members })
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        for (index, caps) in all.iter().enumerate() {
            let mark = if caps.name == chosen.name && caps.backend == chosen.backend { "*" } else { " " };
            say(format!("{mark} {index}: {} ({:?}, {})", caps.name, caps.kind, caps.backend))?;
        }
        let place = file.map_or(String::new(), |file| format!(" (its own would be {})", file.display()));
        say(format!("\n{chosen}\ntuning table     {}{place}", gpu.tuning_hash()))?;
        if group.size() > 1 {
            say(format!("\nprocesses that share a run: {}", group.size()))?;
            members.iter().zip(0..).try_for_each(|(member, rank): (_, usize)| say(format!("  {rank}: {member}")))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn json_of(caps: &Capabilities) -> serde_json::Value {
    json!({
        "name": caps.name, "backend": caps.backend, "driver": caps.driver, "kind": format!("{:?}", caps.kind), "vendor": format!("{:?}", caps.vendor), "schedule": caps.schedule.to_string(),
        "immediates": caps.immediates, "subgroups": caps.subgroups, "subgroup_size": [caps.subgroup_size.0, caps.subgroup_size.1], "f16": caps.f16,
        "timestamps": caps.timestamps, "max_binding_bytes": caps.max_binding_bytes, "max_buffer_bytes": caps.max_buffer_bytes,
        "max_storage_buffers": caps.max_storage_buffers, "max_workgroup_bytes": caps.max_workgroup_bytes, "max_invocations": caps.max_invocations,
        "max_grid": caps.max_grid, "webgpu_limits": caps.webgpu_limits,
    })
}
