//! IDX, the format of MNIST, Fashion-MNIST, KMNIST and EMNIST (LeCun, Cortes, Burges, "The MNIST
//! database").
//!
//! Two zero bytes, the element type (8: unsigned byte), the rank, then one big-endian u32 a
//! dimension, then the elements. Images have rank 3 (count, rows, columns), labels have rank 1.
//! Files may be compressed with gzip.

use std::path::Path;

use super::dataset::{Dataset, Split};
use super::formats::Format;
use super::gzip::{DataFile, find, require};
use crate::error::{Error, Result};

/// The classes of Fashion-MNIST, by label.
pub const FASHION_MNIST_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// The largest file that is read, uncompressed: many times the images of EMNIST, the largest of the
/// family.
const LARGEST_FILE: u64 = 4 << 30;

/// The images of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxImages {
    /// The number of images.
    pub count: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// `count * height * width` grey values.
    pub pixels: Vec<u8>,
}

/// Reads a file of images: unsigned bytes of rank 3.
pub fn read_idx_images(path: &Path) -> Result<IdxImages> {
    let ([count, height, width], pixels) = read_idx(path, "images")?;
    Ok(IdxImages { count, height, width, pixels })
}

/// Reads a file of labels: unsigned bytes of rank 1.
pub fn read_idx_labels(path: &Path) -> Result<Vec<u8>> {
    let ([_], labels) = read_idx(path, "labels")?;
    Ok(labels)
}

/// The dimensions and elements of an IDX file of unsigned bytes of rank `RANK`.
fn read_idx<const RANK: usize>(path: &Path, what: &str) -> Result<([usize; RANK], Vec<u8>)> {
    let mut file = DataFile::open(path)?;
    let magic: [u8; 4] = file.header("IDX magic")?;
    let expected = [0, 0, 8, RANK as u8];
    if magic != expected {
        return Err(file.error(format!("expected IDX {what} (magic {expected:02x?}: bytes of rank {RANK}), found {magic:02x?}")));
    }
    let mut sizes = [0usize; RANK];
    let mut bytes = 1u64;
    for size in &mut sizes {
        let dimension = u32::from_be_bytes(file.header("IDX dimensions")?);
        bytes = bytes.saturating_mul(u64::from(dimension));
        *size = dimension as usize;
    }
    if bytes > LARGEST_FILE {
        return Err(file.error(format!("expected at most {LARGEST_FILE} bytes of {what}, found a header of {sizes:?}")));
    }
    let elements = file.exactly(bytes, &format!("{what} of {sizes:?}"))?;
    Ok((sizes, elements))
}

/// The names that a file goes by: as published, and with the dot that some mirrors have.
fn file_names(split: Split, part: &str) -> [String; 2] {
    let stem = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    [format!("{stem}-{part}-ubyte"), format!("{stem}-{}-ubyte", part.replace("-idx", ".idx"))]
}

/// Images and labels in idx files.
pub(super) const FORMAT: Format = Format {
    expects: "MNIST or Fashion-MNIST (train-images-idx3-ubyte[.gz], train-labels-..., t10k-...)",
    recognise,
    read: |folder, split, _| read_idx_folder(folder, split),
};

/// Whether a folder holds the images of either split.
fn recognise(folder: &Path) -> bool {
    [Split::Train, Split::Test].into_iter().any(|split| find(folder, &file_names(split, "images-idx3")).is_some())
}

/// Reads a folder of `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.
///
/// A folder whose name contains `fashion` gets Fashion-MNIST's class names. In any other, classes
/// are called by their numbers, up to the largest label of both splits.
///
/// # Errors
/// When a file is missing, damaged, or does not match the other; they name the file.
pub fn read_idx_folder(folder: &Path, split: Split) -> Result<Dataset> {
    let images_path = require(folder, &file_names(split, "images-idx3"))?;
    let labels_path = require(folder, &file_names(split, "labels-idx1"))?;
    let images = read_idx_images(&images_path)?;
    let labels = read_idx_labels(&labels_path)?;
    if images.count != labels.len() {
        return Err(Error::data(
            labels_path.display().to_string(),
            format!("expected {} labels, as many as {} has images, found {}", images.count, images_path.display(), labels.len()),
        ));
    }
    let name = folder_name(folder);
    let class_names = if name.to_lowercase().contains("fashion") {
        FASHION_MNIST_CLASSES.map(String::from).to_vec()
    } else {
        let other = match split {
            Split::Train => Split::Test,
            Split::Test => Split::Train,
        };
        let other_labels = match find(folder, &file_names(other, "labels-idx1")) {
            Some(path) => read_idx_labels(&path)?,
            None => Vec::new(),
        };
        let largest = labels.iter().chain(&other_labels).max().copied().unwrap_or(0);
        (0..=largest).map(|label| label.to_string()).collect()
    };
    let labels = labels.into_iter().map(i32::from).collect();
    let size = [images.height, images.width, 1];
    Dataset::new(format!("{name} ({split})"), size, images.pixels, labels, class_names)
}

/// What a folder is called, even where the path is `.`; the parent's name where it is `raw`, as in
/// torchvision's layout.
fn folder_name(folder: &Path) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match named(&full) {
        Some(name) if name == "raw" => full.parent().and_then(named).unwrap_or(name),
        Some(name) => name,
        None => folder.display().to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::gzip::tests::compress;
    use super::*;
    use crate::tensor::random::{Purpose, Stream};
    use std::path::PathBuf;

    fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(elements);
        bytes
    }

    /// `count` images of 2x3 pixels and labels of 0 to 4, as a folder of both splits.
    pub(crate) fn write_folder(folder: &Path, count: u32) {
        let pixels: Vec<u8> = (0..count * 6).map(|i| i as u8).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 5) as u8).collect();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write("train-images-idx3-ubyte.gz", &compress(&idx(&[count, 2, 3], &pixels)));
        write("train-labels-idx1-ubyte.gz", &compress(&idx(&[count], &labels)));
        write("t10k-images-idx3-ubyte", &idx(&[1, 2, 3], &[9; 6]));
        write("t10k-labels.idx1-ubyte", &idx(&[1], &[1]));
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn reads_both_splits_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my-fashion");
        std::fs::create_dir(&path).unwrap();
        write_folder(&path, 7);
        assert!(recognise(&path));
        let train = read_idx_folder(&path, Split::Train).unwrap();
        assert_eq!(train.name(), "my-fashion (train)");
        assert_eq!((train.len(), train.image_size().unwrap()), (7, [2, 3, 1]));
        assert_eq!(*train.image(1).unwrap().unwrap(), [6, 7, 8, 9, 10, 11]);
        assert_eq!(train.labels(), [0, 1, 2, 3, 4, 0, 1]);
        assert_eq!(train.class_names(), FASHION_MNIST_CLASSES);
        let test = read_idx_folder(&path, Split::Test).unwrap();
        assert_eq!((test.len(), test.labels()), (1, &[1][..]));
    }

    #[test]
    fn unnamed_classes_are_counted_over_both_splits() {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), 7);
        let test = read_idx_folder(folder.path(), Split::Test).unwrap();
        assert_eq!(test.class_names(), ["0", "1", "2", "3", "4"]);
    }

    #[test]
    fn labels_beyond_the_classes_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fashion");
        std::fs::create_dir(&path).unwrap();
        write_folder(&path, 2);
        std::fs::write(path.join("train-labels-idx1-ubyte.gz"), idx(&[2], &[0, 10])).unwrap();
        let error = read_idx_folder(&path, Split::Train).unwrap_err().to_string();
        assert!(error.contains("found 10 at image 1"), "{error}");
    }

    #[test]
    fn mismatched_counts_and_missing_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), 7);
        let labels = folder.path().join("train-labels-idx1-ubyte.gz");
        std::fs::write(&labels, idx(&[6], &[0; 6])).unwrap();
        let error = read_idx_folder(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("expected 7 labels") && error.contains("found 6"), "{error}");
        std::fs::remove_file(&labels).unwrap();
        let error = read_idx_folder(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("train-labels-idx1-ubyte[.gz]"), "{error}");
    }

    #[test]
    fn headers_that_promise_too_much_are_errors() {
        let cases: [(Vec<u8>, &str); 6] = [
            (idx(&[u32::MAX; 3], &[]), "at most"),
            (idx(&[60_000, 200, 200], &[1; 50]), "found 50"),
            (idx(&[2, 2, 2], &[1; 9]), "found more"),
            (idx(&[8], &[1; 8]), "rank 3"),
            (vec![0, 0, 13, 3, 0, 0, 0, 1], "found [00, 00, 0d, 03]"),
            (vec![], "found 0"),
        ];
        for (bytes, expected) in cases {
            for bytes in [bytes.clone(), compress(&bytes)] {
                let (_folder, path) = file(&bytes);
                let error = read_idx_images(&path).unwrap_err().to_string();
                assert!(error.contains("file") && error.contains(expected), "{error}");
            }
        }
        // No images: well formed as a file, but not a data set.
        let (_folder, path) = file(&idx(&[0, 28, 28], &[]));
        assert_eq!(read_idx_images(&path).unwrap().count, 0);
    }

    #[test]
    fn truncated_files_are_errors_and_garbage_never_panics() {
        let mut stream = Stream::new(0, Purpose::Test);
        let plain = idx(&[5, 4, 3], &[77; 60]);
        for whole in [plain.clone(), compress(&plain)] {
            for _ in 0..100 {
                let length = stream.below(whole.len() as u32) as usize;
                let (_folder, path) = file(&whole[..length]);
                assert!(read_idx_images(&path).is_err(), "{length} of {} bytes", whole.len());
                let mut damaged = whole.clone();
                damaged[length] ^= 1 << stream.below(8);
                let (_folder, path) = file(&damaged);
                let _ = read_idx_images(&path);
            }
        }
        for _ in 0..200 {
            let garbage: Vec<u8> = (0..stream.below(80)).map(|_| stream.next_u32() as u8).collect();
            let (_folder, path) = file(&garbage);
            assert!(read_idx_images(&path).is_err());
            assert!(read_idx_labels(&path).is_err());
        }
    }
}
