//! Reading a data file that may be compressed, without trusting it.
//!
//! A header or a gzip stream can promise more than there is, or than fits in memory. Nothing here
//! allocates for a promise: buffers grow with the bytes that really arrive, and stop at the size
//! that the caller expects.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// The first two bytes of a gzip stream. No IDX or CIFAR file starts with them.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file being read from front to back. Compression is recognised by content, not by name:
/// browsers and archive tools unpack `.gz` files and keep the name.
pub(super) struct DataFile {
    path: PathBuf,
    reader: Box<dyn Read>,
}

impl DataFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Error::io(path, &error);
        let mut file = File::open(path).map_err(failed)?;
        let mut start = Vec::new();
        file.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut start).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let reader: Box<dyn Read> = if start == GZIP_MAGIC { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
        Ok(Self { path: path.to_path_buf(), reader })
    }

    /// An error about the contents of this file.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::data(self.path.display().to_string(), message)
    }

    /// The next `N` bytes, which must be there; `what` names them.
    pub(super) fn header<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.at_most(N as u64)?;
        let found = bytes.len();
        bytes.try_into().map_err(|_| self.error(format!("truncated: expected {N} bytes of {what}, found {found}")))
    }

    /// All that is left, which must be exactly `expected` bytes; `what` says where that number
    /// comes from.
    pub(super) fn exactly(&mut self, expected: u64, what: &str) -> Result<Vec<u8>> {
        // One byte more than expected is enough to know that there is too much.
        let bytes = self.at_most(expected.saturating_add(1))?;
        match (bytes.len() as u64).cmp(&expected) {
            std::cmp::Ordering::Equal => Ok(bytes),
            std::cmp::Ordering::Less => Err(self.error(format!("truncated: expected {expected} bytes for {what}, found {}", bytes.len()))),
            std::cmp::Ordering::Greater => Err(self.error(format!("expected {expected} bytes for {what}, found more"))),
        }
    }

    /// All that is left, or an error when it exceeds `most` bytes; `what` says what could be that
    /// large.
    pub(super) fn up_to(&mut self, most: u64, what: &str) -> Result<Vec<u8>> {
        let bytes = self.at_most(most.saturating_add(1))?;
        if bytes.len() as u64 > most {
            return Err(self.error(format!("expected at most {most} bytes ({what}), found more")));
        }
        Ok(bytes)
    }

    /// The next bytes, `most` of them or as many as there are.
    fn at_most(&mut self, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.reader.by_ref().take(most).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            // What the decompressor says about the contents; the rest comes from the operating
            // system.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof) => {
                Err(self.error(format!("expected a whole gzip file, found a damaged one: {error}")))
            }
            Err(error) => Err(Error::io(&self.path, &error)),
        }
    }
}

/// The first of `names` that is a file in `folder`, each plain or with `.gz` added.
pub(super) fn find(folder: &Path, names: &[impl AsRef<str>]) -> Option<PathBuf> {
    names.iter().map(AsRef::as_ref).flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]).find(|path| path.is_file())
}

/// As [`find`], with an error that lists what was looked for.
pub(super) fn require(folder: &Path, names: &[impl AsRef<str>]) -> Result<PathBuf> {
    find(folder, names).ok_or_else(|| {
        let wanted: Vec<String> = names.iter().map(|name| format!("{}[.gz]", name.as_ref())).collect();
        Error::data(folder.display().to_string(), format!("expected a file {} in this folder, found none", wanted.join(" or ")))
    })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use std::io::Write;

    /// `bytes` as a gzip file.
    pub(crate) fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn plain_and_compressed_read_the_same() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        for contents in [bytes.clone(), compress(&bytes)] {
            let (_folder, path) = written(&contents);
            let mut file = DataFile::open(&path).unwrap();
            assert_eq!(file.header::<4>("header").unwrap(), bytes[..4]);
            assert_eq!(file.exactly(996, "the rest").unwrap(), bytes[4..]);
        }
    }

    #[test]
    fn too_little_and_too_much_are_errors() {
        for contents in [vec![5; 100], compress(&[5; 100])] {
            let (_folder, path) = written(&contents);
            let open = || DataFile::open(&path).unwrap();
            let error = open().exactly(101, "images").unwrap_err().to_string();
            assert!(error.contains("expected 101 bytes for images, found 100"), "{error}");
            assert!(open().exactly(99, "images").unwrap_err().to_string().contains("found more"));
            assert!(open().up_to(99, "images").is_err());
            assert_eq!(open().up_to(100, "images").unwrap().len(), 100);
            assert!(open().header::<101>("header").is_err());
            // A promise of 16 EiB allocates nothing.
            assert!(open().exactly(u64::MAX, "images").is_err());
        }
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_limit() {
        let bomb = compress(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        let (_folder, path) = written(&bomb);
        let error = DataFile::open(&path).unwrap().up_to(1000, "records").unwrap_err();
        assert!(error.to_string().contains("at most 1000 bytes"), "{error}");
    }

    #[test]
    fn damaged_compression_is_an_error() {
        let whole = compress(&(0..5000u32).map(|i| (i * i) as u8).collect::<Vec<u8>>());
        for length in 2..whole.len() {
            let (_folder, path) = written(&whole[..length]);
            let error = DataFile::open(&path).unwrap().up_to(1 << 20, "").unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{length}: {error}");
        }
        let mut damaged = whole;
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        let (_folder, path) = written(&damaged);
        assert!(DataFile::open(&path).unwrap().up_to(1 << 20, "").is_err());
    }

    #[test]
    fn missing_files_and_folders_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let missing = DataFile::open(&folder.path().join("no")).err().unwrap();
        assert!(missing.to_string().contains("no such file"), "{missing}");
        assert!(DataFile::open(folder.path()).and_then(|mut f| f.up_to(10, "")).is_err());
        let error = require(folder.path(), &["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("a[.gz] or b[.gz]"), "{error}");
    }
}
