//! Folders that one process works in. What keeps the others out is the system's lock, which ends
//! with its process; a note beside it says who that is, and means nothing without the lock.

use std::fs::{self, File, OpenOptions};
use std::io::Error as IoError;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic::{read, write_atomically};
use crate::error::{Error, Result};

/// The note's name in the folder.
pub const HOLDER: &str = ".holder.json";

/// Who holds a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    process: u32,
    host: String,
    /// UTC, as in RFC 3339.
    since: String,
}

/// A folder that is this process's alone, until this is dropped or the process ends, however it
/// does.
#[derive(Debug)]
pub struct FolderLock {
    note: PathBuf,
    _file: File,
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is still held, so that it is no one else's note.
        let _ = fs::remove_file(&self.note);
    }
}

/// Holds `folder` for this process alone; `None` where someone else holds it, and then [`holder()`]
/// says who. What is locked is the folder itself, or where the system or the disk does not do that,
/// a file `.lock` in it.
///
/// # Errors
/// [`Error::Io`] naming the folder.
pub fn lock_folder(folder: &Path) -> Result<Option<FolderLock>> {
    let itself = File::open(folder).and_then(|file| held(file, folder));
    let beside = |_| {
        let path = folder.join(".lock");
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).and_then(|file| held(file, &path))
    };
    let Some(file) = itself.or_else(beside).map_err(|error| Error::io(folder, &error))? else { return Ok(None) };
    let lock = FolderLock { note: folder.join(HOLDER), _file: file };
    let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let own = Holder { process: std::process::id(), host: host_name(), since };
    // What it is there for is the lock; who cannot be told more is kept out all the same.
    let _ = serde_json::to_vec(&own).map(|text| write_atomically(&lock.note, &text));
    Ok(Some(lock))
}

fn held(file: File, path: &Path) -> std::io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(IoError::new(error.kind(), format!("{} cannot be locked: {error}", path.display()))),
    }
}

/// Who holds `folder`, which [`lock_folder`] has found to be held: ` (process 17 on host b, since
/// 2026-11-30T18:31:36Z)`, to stand behind a word. Empty where that is not known: the note cannot be
/// read, or is that of a process that has ended, because its successor has not written its own yet.
pub fn holder(folder: &Path) -> String {
    let found: Option<Holder> = read(&folder.join(HOLDER)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let found = found.filter(|holder| holder.host != host_name() || is_running(holder.process));
    found.map_or(String::new(), |Holder { process, host, since }| format!(" (process {process} on host {host}, since {since})"))
}

/// This machine's name among others.
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    if name.is_empty() { "unknown".into() } else { name }
}

/// Whether there is such a process here; where the system is not asked, it may be.
fn is_running(process: u32) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        use rustix::process::{Pid, test_kill_process};
        let id = i32::try_from(process).ok().and_then(Pid::from_raw);
        // Another user's may not be signalled, and is there.
        id.is_some_and(|id| test_kill_process(id) != Err(Errno::SRCH))
    }
    #[cfg(not(unix))]
    {
        let _ = process;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_folder(folder.path()).unwrap().unwrap();
        assert!(lock_folder(folder.path()).unwrap().is_none());
        let words = holder(folder.path());
        assert!(words.contains(&format!("(process {} on host {}, since 2", std::process::id(), host_name())), "{words}");
        drop(held);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(lock_folder(folder.path()).unwrap().is_some());
        assert!(matches!(lock_folder(&folder.path().join("missing")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_note_without_a_lock_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let note = |process: u32, host: &str| {
            let text = format!(r#"{{"process":{process},"host":"{host}","since":"2001-01-01T00:00:00Z"}}"#);
            fs::write(folder.path().join(HOLDER), text).unwrap();
        };
        // Left by a process that was killed: no lock, so the next one gets it and signs.
        note(std::process::id(), "elsewhere");
        let held = lock_folder(folder.path()).unwrap().unwrap();
        assert!(!holder(folder.path()).contains("elsewhere"));
        // Of another machine's processes nothing is known here.
        note(17, "elsewhere");
        assert_eq!(holder(folder.path()), " (process 17 on host elsewhere, since 2001-01-01T00:00:00Z)");
        // One of this machine that is gone, and what is no note.
        #[cfg(unix)]
        {
            note(i32::MAX as u32, &host_name());
            assert_eq!(holder(folder.path()), "");
        }
        fs::write(folder.path().join(HOLDER), "{").unwrap();
        assert_eq!(holder(folder.path()), "");
        drop(held);
    }
}
