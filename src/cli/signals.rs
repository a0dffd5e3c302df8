//! Signals that ask for the end: the step under way is finished and a checkpoint written.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::error::{Error, Result};
use crate::io::console::tell;

/// What Ctrl-C sends.
const INTERRUPT: i32 = 2;
/// What a shell adds to the signal that ended a program.
const ENDED: i32 = 128;

/// Whether the end was asked for, and by which signal.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicI32>);

impl Stop {
    /// Listens from now on: to Ctrl-C, to SIGTERM, by which services, containers and clusters end a
    /// program, and to SIGHUP, which comes when the terminal goes (not under nohup).
    pub(super) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        listen(stop.clone()).map_err(|e| Error::argument("signals", e.to_string()))?;
        Ok(stop)
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The exit code of a program that was ended so.
    pub(super) fn code(&self) -> ExitCode {
        u8::try_from(ENDED + self.0.load(Ordering::Relaxed)).map_or(ExitCode::FAILURE, ExitCode::from)
    }

    fn ask(&self, signal: i32) {
        if self.0.swap(signal, Ordering::Relaxed) == 0 {
            tell("interrupted: stopping after this step (Ctrl-C once more to stop at once)");
        } else if signal == INTERRUPT {
            std::process::exit(ENDED + signal);
        }
        // The others come twice for one cause: from the terminal and from its shell, or to a
        // process and to its group.
    }
}

#[cfg(unix)]
fn listen(stop: Stop) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    let mut chosen = vec![INTERRUPT, SIGTERM];
    if !is_ignored(SIGHUP) {
        chosen.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(chosen)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(|signal| stop.ask(signal)))?;
    Ok(())
}

/// Whether the program was started with this signal ignored, as nohup does; only Linux says so.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn listen(stop: Stop) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || stop.ask(INTERRUPT))
}
