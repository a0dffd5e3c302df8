//! The one place that writes files: a file is either the old one or the new one, whatever happens
//! in between, and what is no file is not replaced by one.

use std::fs::{self, File, OpenOptions};
use std::io::{Error as IoError, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes `bytes` to `path`. A file is replaced by way of a temporary one beside it, which is
/// removed again where writing fails; its permissions stay, and other names of it (hard links) keep
/// what it held. A link is followed. A device, a pipe or a standard stream is written into.
///
/// # Errors
/// [`Error::Io`] naming the path: no such folder, a folder of that name, no permission, a full
/// disk.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes).map_err(|error| Error::io(path, &error))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let target = followed(path)?;
    // `/dev/stdout`, which may be a file: what is written goes where this process has got to in it.
    if [Path::new("/proc/self/fd/1"), Path::new("/dev/fd/1")].contains(&target.as_path()) {
        let mut stream = std::io::stdout().lock();
        return stream.write_all(bytes).and_then(|()| stream.flush());
    }
    if target.is_dir() {
        return Err(IoError::new(ErrorKind::IsADirectory, "is a folder; give the name of a file"));
    }
    // Opened before it is replaced: what may not be written may not be replaced either, and what
    // was opened cannot become another.
    match OpenOptions::new().write(true).open(&target) {
        Ok(file) if is_stream(&target, &file)? => (&file).write_all(bytes),
        Ok(file) => replace(&target, Some(&file), |new| new.write_all(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => replace(&target, None, |new| new.write_all(bytes)),
        Err(error) => Err(error),
    }
}

/// As [`write_atomically`], what `fill` writes, piece by piece: for what does not fit into memory.
///
/// # Errors
/// As [`write_atomically`]; those of `fill`, and then nothing of it is left.
pub fn write_in_pieces(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let mut failure = None;
    let fill = |file: &mut File| {
        fill(file).map_err(|error| {
            failure = Some(error);
            IoError::other("what was to be written could not be made")
        })
    };
    let written = followed(path).and_then(|target| {
        let old = File::open(&target).ok();
        replace(&target, old.as_ref(), fill)
    });
    written.map_err(|error| failure.unwrap_or_else(|| Error::io(path, &error)))
}

/// Whether it is written into: no file, or one that another process has open for us.
fn is_stream(path: &Path, file: &File) -> std::io::Result<bool> {
    Ok(!file.metadata()?.is_file() || path.starts_with("/proc") || path.starts_with("/dev/fd"))
}

/// Links that may lead to one another.
const LINKS: usize = 40;

/// What `path` leads to, be it there or not.
fn followed(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        // Below these lie links by which a process reaches what it has open, which need not have a
        // name any more.
        let open = path.starts_with("/proc") || path.starts_with("/dev/fd");
        if open || !fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Ok(path);
        }
        let link = fs::read_link(&path)?;
        path = path.parent().map_or(link.clone(), |folder| folder.join(&link));
    }
    Err(IoError::other("leads through too many links"))
}

/// Puts a file that `fill` fills in the place of `old`.
fn replace(path: &Path, old: Option<&File>, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.file_name().is_none() {
        return Err(IoError::new(ErrorKind::InvalidInput, "is not the name of a file"));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wgrad-").suffix(".partial");
    // As a file that anyone makes: what is kept from others is the user's umask's to say.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // Removed again where anything fails.
    let mut file = builder.tempfile_in(folder)?;
    fill(file.as_file_mut())?;
    if let Some(old) = old {
        keep_owner(file.as_file(), &old.metadata()?);
        file.as_file().set_permissions(old.metadata()?.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Where it may be done; who may not, has a file of their own now.
fn keep_owner(file: &File, old: &fs::Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
    let _ = (file, old);
}

/// A renamed file is lost with the power while its folder is only in memory.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    // Where folders cannot be opened or synced, they need not be.
    let Ok(folder) = (if cfg!(unix) { File::open(folder) } else { Err(ErrorKind::Unsupported.into()) }) else { return Ok(()) };
    match folder.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// Adds bytes to the end of a file, in one piece.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| Error::io(path, &error))
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`Error::Io`] naming the path.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, &error))
}

/// Whether `path` is a temporary file of [`write_atomically`], which only a killed process leaves
/// behind.
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

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_atomically(&path, b"old").unwrap();
        let occupied = folder.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        let message = write_atomically(&occupied, b"new").unwrap_err().to_string();
        assert!(message.contains("occupied: is a folder"), "{message}");
        assert_eq!(names(folder.path()), ["occupied", "weights"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(matches!(write_atomically(&folder.path().join("missing/weights"), b""), Err(Error::Io { .. })));
        assert!(matches!(write_atomically(Path::new(".."), b""), Err(Error::Io { .. })));
    }

    #[test]
    fn threads_that_write_one_file_leave_one_of_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for byte in 0..8u8 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| write_atomically(path, &[byte; 5000]).unwrap()));
            }
        });
        let left = fs::read(&path).unwrap();
        assert!(left.len() == 5000 && left.iter().all(|byte| *byte == left[0]));
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        use std::os::unix::net::UnixListener;
        use std::process::Command;

        use super::*;

        #[test]
        fn links_are_followed_and_permissions_kept() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("inner")).unwrap();
            fs::write(at("inner/file"), "old").unwrap();
            fs::set_permissions(at("inner/file"), fs::Permissions::from_mode(0o640)).unwrap();
            fs::hard_link(at("inner/file"), at("hard")).unwrap();
            symlink("inner/file", at("near")).unwrap();
            symlink(at("near"), at("far")).unwrap();
            symlink("inner/new", at("dangling")).unwrap();
            symlink("loop", at("loop")).unwrap();
            write_atomically(&at("far"), b"new").unwrap();
            write_atomically(&at("dangling"), b"made").unwrap();
            assert!(write_atomically(&at("loop"), b"").unwrap_err().to_string().contains("too many links"));
            assert_eq!(fs::read(at("inner/file")).unwrap(), b"new");
            assert_eq!(fs::read(at("inner/new")).unwrap(), b"made");
            assert_eq!(fs::read(at("hard")).unwrap(), b"old");
            assert_eq!(fs::metadata(at("inner/file")).unwrap().permissions().mode() & 0o777, 0o640);
            for link in ["near", "far", "dangling", "loop"] {
                assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            }
            assert_eq!(names(&at("inner")), ["file", "new"]);
        }

        #[test]
        fn devices_and_pipes_are_written_into_and_sockets_refused() {
            let folder = tempfile::tempdir().unwrap();
            let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let reader = std::thread::spawn({
                let pipe = pipe.clone();
                move || fs::read(pipe).unwrap()
            });
            write_atomically(&pipe, b"through").unwrap();
            assert_eq!(reader.join().unwrap(), b"through");
            let _listener = UnixListener::bind(&socket).unwrap();
            assert!(matches!(write_atomically(&socket, b""), Err(Error::Io { .. })));
            let kind = |path: &Path| fs::symlink_metadata(path).unwrap().file_type();
            assert!(kind(&pipe).is_fifo() && kind(&socket).is_socket());
            assert_eq!(names(folder.path()), ["pipe", "socket"]);
            write_atomically(Path::new("/dev/null"), b"gone").unwrap();
            let full = folder.path().join("full");
            symlink("/dev/full", &full).unwrap();
            if Path::new("/dev/full").exists() {
                assert!(write_atomically(&full, b"x").unwrap_err().to_string().contains("no space left"));
            }
        }
    }
}
