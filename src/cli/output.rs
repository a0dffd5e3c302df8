//! What a command prints. Results go to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::io::console::clean;

/// What a shell reports of a program that wrote to a closed pipe: 128 + SIGPIPE.
const BROKEN_PIPE: i32 = 141;

/// Writes bytes to stdout. Where its reader has gone (`wgrad ops | head`), there is no one left to
/// work for: the program ends.
///
/// # Errors
/// [`Error::Io`]: a full disk.
pub(super) fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        result => result.map_err(|error| Error::io(Path::new("stdout"), &error)),
    }
}

/// Writes text and the end of the line; nothing in it is an order to a terminal.
///
/// # Errors
/// As [`write`].
pub(super) fn say(text: impl Display) -> Result<()> {
    let text = text.to_string();
    write(format!("{}\n", clean(text.strip_suffix('\n').unwrap_or(&text))).as_bytes())
}

/// Bytes as MiB.
pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
