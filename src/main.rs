//! The command line: parses and calls.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use wgrad::io::console::{clean, tell};

fn main() -> ExitCode {
    let mut log = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,naga=off"));
    log.format(|out, record| {
        writeln!(out, "[{} {} {}] {}", out.timestamp(), record.level(), record.target(), clean(&record.args().to_string()))
    });
    log.init();
    let arguments = match wgrad::cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and the version are results: where they cannot be written, that is a failure.
        Err(words) => match words.print().and_then(|()| std::io::stdout().flush()) {
            Err(error) if !words.use_stderr() => {
                tell(format!("error: stdout: {error}"));
                return ExitCode::FAILURE;
            }
            _ => return ExitCode::from(u8::try_from(words.exit_code()).unwrap_or(2)),
        },
    };
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            tell(format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
