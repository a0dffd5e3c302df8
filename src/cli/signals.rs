//! Signals that ask for the end: the step under way is finished and a checkpoint written. A second
//! one ends the program at once.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::io::console::tell;

/// The exit code of a program that was interrupted, by whichever signal: what a shell gives for
/// Ctrl-C.
const INTERRUPTED: u8 = 130;
/// One cause may send several signals: a terminal that goes and its shell, mpirun to a process and
/// the system to its group, a service's supervisor two different ones. Those that come so soon after
/// the first are the same wish.
const ONE_CAUSE: Duration = Duration::from_secs(1);

/// Whether the end was asked for, and when.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<OnceLock<Instant>>);

impl Stop {
    /// Listens from now on: to Ctrl-C, to SIGTERM, by which services, containers and clusters end a
    /// program, and to SIGHUP, which comes when the terminal goes (not under nohup).
    pub(super) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        listen(stop.clone()).map_err(|e| Error::argument("signals", e.to_string()))?;
        Ok(stop)
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.0.get().is_some()
    }

    /// The exit code of a program that was ended so.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(INTERRUPTED)
    }

    fn ask(&self) {
        match self.0.get() {
            None => {
                let _ = self.0.set(Instant::now());
                tell("interrupted: stopping after this step (once more, a second later, to stop at once)");
            }
            Some(first) if first.elapsed() > ONE_CAUSE => at_once(),
            Some(_) => {}
        }
    }
}

/// Ends the program where it stands, without a word to the device, which may be amid a long kernel.
fn at_once() -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(INTERRUPTED.into());
    #[cfg(not(unix))]
    std::process::exit(INTERRUPTED.into());
}

#[cfg(unix)]
fn listen(stop: Stop) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut chosen = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        chosen.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(chosen)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(|_| stop.ask()))?;
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
    ctrlc::set_handler(move || stop.ask())
}
