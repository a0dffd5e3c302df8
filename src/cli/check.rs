//! `wgrad check`: looks for what WGSL forbids in a kernel, without a GPU.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::kernel::KernelArguments;
use super::output::say;
use crate::check::Options;
use crate::error::Result;

/// Run a kernel on an interpreter that looks for races, accesses out of bounds, barriers that not all
/// come to, and numbers without a meaning; needs no GPU
///
///   wgrad check scale.wgsl --bind x=f32[256]:random --bind y=f32[256]:zero --params 256,0.5 --grid 4
///
/// Exit code 1 where anything was found.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Check {
    /// A file of WGSL, or a template as wgrad's own are
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    kernel: KernelArguments,
    /// Invocations of a subgroup: a power of two from 4 to 128
    #[arg(long, value_name = "N", default_value_t = Options::default().subgroup_size)]
    subgroup: u32,
    /// Rounds of loops after which an invocation counts as endless
    #[arg(long, value_name = "N", default_value_t = Options::default().most_rounds)]
    rounds: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode> {
        let user = self.kernel.user(&self.file)?;
        let report = user.check(Options { subgroup_size: self.subgroup, most_rounds: self.rounds })?;
        let (found, rounds, invocations) = (report.findings.len(), report.rounds, report.invocations);
        if self.json {
            let finding = |f: &crate::check::Finding| json!({ "kind": f.kind.to_string(), "message": f.message, "places": f.places, "count": f.count });
            let findings: Vec<_> = report.findings.iter().map(finding).collect();
            say(format!("{:#}", json!({ "kernel": user.name, "invocations": invocations, "rounds": rounds, "findings": findings })))?;
        } else {
            report.findings.iter().try_for_each(|finding| say(format!("{finding}\n")))?;
            let verdict = if found == 0 { "nothing found".into() } else { format!("{found} found") };
            say(format!("{}: {verdict} in {invocations} invocations, of which the longest walked {rounds} rounds of loops", user.name))?;
        }
        Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
