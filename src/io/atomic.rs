//! Writing a file so that it is either the old one or the new one, whatever happens in between.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `bytes` to `path` by way of a temporary file beside it, which is removed again where writing fails.
///
/// # Errors
/// [`Error::Io`] naming the path: no such folder, no permission, a full disk.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::argument(path.display().to_string(), "is not the name of a file"))?;
    let temporary = path.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
    let attempt = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, &error)
    })
}

/// Whether `path` is a temporary file of [`write_atomically`], which only a killed process leaves behind.
pub fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) && path.extension().is_some_and(|e| e == "partial")
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::io(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_atomically(&path, b"old").unwrap();
        // A folder cannot be replaced by a file: the rename fails after the bytes were written.
        let occupied = folder.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        fs::write(occupied.join("x"), b"").unwrap();
        assert!(matches!(write_atomically(&occupied, b"new"), Err(Error::Io { .. })));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(matches!(write_atomically(&folder.path().join("missing/weights"), b""), Err(Error::Io { .. })));
    }
}
