//! Where a picture's bytes lie.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;

use super::super::decoder::{self, Limit};
use super::super::picture::{cut, guarded};
use super::super::resample::resample;
use super::options::PictureOptions;
use super::stored::Stored;
use crate::error::{Error, Result};

/// A file that several pictures are in.
#[derive(Debug)]
pub(in super::super) struct Container {
    pub path: PathBuf,
    pub file: File,
}

impl Container {
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        Ok(Arc::new(Self { path: path.into(), file }))
    }

    /// So many bytes from `offset` on.
    ///
    /// It is read and not mapped into memory: a mapped file that another process cuts short ends this
    /// one, without an error, and its pages count as this process's memory.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = super::zeros(&self.path.display().to_string(), length)?;
        read_at(&self.file, &mut bytes, offset).map_err(|error| Error::io(&self.path, &error))?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = bytes.get_mut(read..).unwrap_or_default();
                offset += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Where a picture's bytes lie.
#[derive(Debug, Clone)]
pub(in super::super) enum Location {
    /// A file of its own, of so many bytes.
    File { path: PathBuf, bytes: u64 },
    /// A file inside of an archive.
    Member { archive: Arc<Container>, name: String, offset: u64, bytes: u64 },
    /// Pixels, decoded before.
    Packed { pack: Arc<Container>, offset: u64, size: [i32; 2], checksum: u32 },
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { path, bytes }, Self::File { path: other, bytes: length }) => path == other && bytes == length,
            (Self::Member { archive, offset, .. }, Self::Member { archive: other, offset: place, .. }) => {
                archive.path == other.path && offset == place
            }
            (Self::Packed { pack, offset, .. }, Self::Packed { pack: other, offset: place, .. }) => {
                pack.path == other.path && offset == place
            }
            _ => false,
        }
    }
}

impl Location {
    /// A file below `root`, which must be there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn file(root: &Path, path: PathBuf) -> Result<Self> {
        let whole = root.join(&path);
        let bytes = std::fs::metadata(&whole).map_err(|error| Error::io(&whole, &error))?.len();
        Ok(Self::File { path, bytes })
    }

    /// Adds what the picture is known by.
    pub fn identify(&self, sum: &mut Hasher) {
        match self {
            Self::File { path, bytes } => {
                sum.update(path.as_os_str().as_encoded_bytes());
                sum.update(&bytes.to_le_bytes());
            }
            Self::Member { name, bytes, .. } => {
                sum.update(name.as_bytes());
                sum.update(&bytes.to_le_bytes());
            }
            Self::Packed { checksum, .. } => sum.update(&checksum.to_le_bytes()),
        }
    }

    /// The image that is cut from its centre.
    pub fn image(&self, root: &Path, options: PictureOptions, limit: Limit) -> Result<Vec<u8>> {
        match self {
            Self::Packed { size: [height, width], .. } => {
                let [horizontal, vertical] = options.image.axes(*width as usize, *height as usize);
                let pixels = self.pixels(options)?;
                let filter = options.image.interpolation;
                Ok(match options.image.channels() {
                    1 => resample::<1>(&pixels, horizontal, vertical, filter),
                    _ => resample::<3>(&pixels, horizontal, vertical, filter),
                })
            }
            _ => self.decoded(root, limit, |picture| cut(picture, options.image)),
        }
    }

    /// The picture in its own shape.
    pub fn stored(&self, root: &Path, options: PictureOptions, limit: Limit) -> Result<Stored> {
        let shrink = |pixels, size| match options.image.channels() {
            1 => Stored::shrunk::<1>(pixels, size, options),
            _ => Stored::shrunk::<3>(pixels, size, options),
        };
        match self {
            Self::Packed { size, .. } => Ok(shrink(self.pixels(options)?, size.map(|side| side as usize))),
            _ => self.decoded(root, limit, |picture| {
                let size = [picture.height() as usize, picture.width() as usize];
                let pixels = if options.image.grey { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
                shrink(pixels, size)
            }),
        }
    }

    /// What `make` makes of the decoded picture.
    fn decoded<T>(&self, root: &Path, limit: Limit, make: impl FnOnce(image::DynamicImage) -> T) -> Result<T> {
        let name = self.name(root);
        guarded(&name, || {
            let bytes = match self {
                Self::Member { archive, offset, bytes, .. } => {
                    let bytes = limit.file_length(&name, *bytes)?;
                    archive.read(*offset, bytes)?
                }
                Self::File { path, .. } => decoder::bytes(&root.join(path), limit)?,
                Self::Packed { .. } => Vec::new(),
            };
            decoder::decode(&name, &bytes, limit).map(make)
        })
    }

    /// Packed pixels, as they were written.
    fn pixels(&self, options: PictureOptions) -> Result<Vec<u8>> {
        let Self::Packed { pack, offset, size: [height, width], checksum } = self else { return Ok(Vec::new()) };
        // Sides were looked at when the file was opened.
        let pixels = pack.read(*offset, *height as usize * *width as usize * options.image.channels())?;
        if crc32fast::hash(&pixels) == *checksum {
            return Ok(pixels);
        }
        let message = format!("the picture at byte {offset} is damaged: its checksum is not {checksum:08x}; pack the pictures anew");
        Err(Error::data(pack.path.display().to_string(), message))
    }

    fn name(&self, root: &Path) -> String {
        match self {
            Self::File { path, .. } => root.join(path).display().to_string(),
            Self::Member { archive, name, .. } => format!("{name} in {}", archive.path.display()),
            Self::Packed { pack, .. } => pack.path.display().to_string(),
        }
    }
}
