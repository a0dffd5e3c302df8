//! `wgrad report`: a run as a page.

use std::path::PathBuf;
use std::process::ExitCode;

use super::device;
use super::output::say;
use crate::error::Result;
use crate::evaluate::run_report::html;
use crate::io::atomic::write_atomically;
use crate::train::RunDirectory;

/// Write a run's page: curves, confusion, mistakes, views, environment and cost, in one HTML file.
/// `wgrad train` does it after every epoch
#[derive(clap::Args)]
pub(super) struct Report {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The file [default: RUN/report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (run, _) = RunDirectory::open(&self.run)?;
        let page = html(run.path(), Some(&device::open()?), self.data.as_deref())?;
        let out = self.out.unwrap_or_else(|| run.report());
        write_atomically(&out, page.as_bytes())?;
        say(out.display())?;
        Ok(ExitCode::SUCCESS)
    }
}
