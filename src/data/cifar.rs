//! CIFAR-10 and CIFAR-100, the binary version (Krizhevsky, "Learning multiple layers of features
//! from tiny images", 2009).
//!
//! A file is a row of records. A record of CIFAR-10 is a label and 1,024 red, 1,024 green and 1,024
//! blue values, row by row; one of CIFAR-100 has a coarse and a fine label first. Files may be
//! compressed with gzip.

use std::path::Path;

use super::dataset::{Dataset, Split};
use super::formats::Format;
use super::gzip::{DataFile, find, require};
use crate::error::Result;

/// The classes of CIFAR-10, by label.
pub const CIFAR10_CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The fine classes of CIFAR-100, by label.
#[rustfmt::skip]
pub const CIFAR100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// The most records that one file of either data set has.
const MOST_RECORDS: u64 = 50_000;

/// What differs between the two data sets.
struct Cifar {
    name: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// Bytes before the pixels; the last of them is the label.
    labels: usize,
    classes: &'static [&'static str],
}

const CIFAR10: Cifar = Cifar {
    name: "cifar10",
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: &["test_batch.bin"],
    labels: 1,
    classes: &CIFAR10_CLASSES,
};

const CIFAR100: Cifar = Cifar { name: "cifar100", train: &["train.bin"], test: &["test.bin"], labels: 2, classes: &CIFAR100_CLASSES };

/// Reads CIFAR-10: `data_batch_{1..5}.bin[.gz]` or `test_batch.bin[.gz]`.
///
/// # Errors
/// When a file is missing, is no whole number of records, or holds a label of 10 or more; they name
/// the file.
pub fn read_cifar10(folder: &Path, split: Split) -> Result<Dataset> {
    CIFAR10.read(folder, split)
}

/// Reads CIFAR-100 with its fine labels: `train.bin[.gz]` or `test.bin[.gz]`.
///
/// # Errors
/// When the file is missing, is no whole number of records, or holds a label of 100 or more; they
/// name the file.
pub fn read_cifar100(folder: &Path, split: Split) -> Result<Dataset> {
    CIFAR100.read(folder, split)
}

/// CIFAR-10, for folders whose format is not said.
pub(super) const CIFAR10_FORMAT: Format = Format {
    expects: "CIFAR-10 in the binary version (data_batch_1.bin[.gz] to data_batch_5.bin, test_batch.bin)",
    recognise: |folder| CIFAR10.recognise(folder),
    read: |folder, split, _| read_cifar10(folder, split),
};

/// CIFAR-100, for the same.
pub(super) const CIFAR100_FORMAT: Format = Format {
    expects: "CIFAR-100 in the binary version (train.bin[.gz], test.bin)",
    recognise: |folder| CIFAR100.recognise(folder),
    read: |folder, split, _| read_cifar100(folder, split),
};

impl Cifar {
    fn recognise(&self, folder: &Path) -> bool {
        find(folder, self.train).is_some() || find(folder, self.test).is_some()
    }

    fn read(&self, folder: &Path, split: Split) -> Result<Dataset> {
        let names = match split {
            Split::Train => self.train,
            Split::Test => self.test,
        };
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for name in names {
            let path = require(folder, &[name])?;
            self.read_records(&path, &mut pixels, &mut labels)?;
        }
        let class_names = self.classes.iter().map(ToString::to_string).collect();
        let name = format!("{} ({split})", self.name);
        Dataset::new(name, [SIDE, SIDE, 3], pixels, labels, class_names)
    }

    /// Adds the records of one file.
    fn read_records(&self, path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<i32>) -> Result<()> {
        let record_bytes = self.labels + 3 * PLANE;
        let mut file = DataFile::open(path)?;
        let what = format!("{MOST_RECORDS} records of {record_bytes}");
        let bytes = file.up_to(MOST_RECORDS * record_bytes as u64, &what)?;
        if bytes.is_empty() || bytes.len() % record_bytes != 0 {
            return Err(file.error(format!("expected whole {} records of {record_bytes} bytes, found {} bytes", self.name, bytes.len())));
        }
        pixels.reserve(bytes.len() / record_bytes * 3 * PLANE);
        for (index, record) in bytes.chunks_exact(record_bytes).enumerate() {
            let (head, planes) = record.split_at_checked(self.labels).unwrap_or((&[], record));
            let label = head.last().copied().unwrap_or(u8::MAX);
            if usize::from(label) >= self.classes.len() {
                return Err(file.error(format!("expected labels of 0 to {}, found {label} in record {index}", self.classes.len() - 1)));
            }
            labels.push(i32::from(label));
            let (red, others) = planes.split_at_checked(PLANE).unwrap_or((planes, &[]));
            let (green, blue) = others.split_at_checked(PLANE).unwrap_or((others, &[]));
            let interleaved = red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| [r, g, b]);
            pixels.extend(interleaved.flatten());
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::gzip::tests::compress;
    use super::*;
    use crate::tensor::random::{Purpose, Stream};

    /// A record whose red, green and blue values are `r`, `g` and `b` but for the first pixel,
    /// which is 1, 2, 3.
    fn record(labels: &[u8], [r, g, b]: [u8; 3]) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for (first, value) in [(1, r), (2, g), (3, b)] {
            bytes.push(first);
            bytes.extend([value; PLANE - 1]);
        }
        bytes
    }

    /// A folder with two records a file.
    pub(crate) fn write_cifar10(folder: &Path) {
        for (label, name) in (0..).zip(CIFAR10.train.iter().chain(CIFAR10.test)) {
            let bytes = [record(&[label], [7, 8, 9]), record(&[9], [label; 3])].concat();
            let (name, bytes) = match label {
                3 => (format!("{name}.gz"), compress(&bytes)),
                _ => (name.to_string(), bytes),
            };
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }

    #[test]
    fn cifar10_in_five_files() {
        let folder = tempfile::tempdir().unwrap();
        write_cifar10(folder.path());
        assert!(CIFAR10.recognise(folder.path()) && !CIFAR100.recognise(folder.path()));
        let train = read_cifar10(folder.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.image_size().unwrap()), (10, [32, 32, 3]));
        assert_eq!(train.labels(), [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]);
        assert_eq!(train.image(0).unwrap().unwrap()[..9], [1, 2, 3, 7, 8, 9, 7, 8, 9]);
        assert_eq!(train.image(7).unwrap().unwrap()[3..], [3; 3069]);
        let test = read_cifar10(folder.path(), Split::Test).unwrap();
        assert_eq!((test.name(), test.labels()), ("cifar10 (test)", &[5, 9][..]));
    }

    #[test]
    fn a_missing_batch_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write_cifar10(folder.path());
        std::fs::remove_file(folder.path().join("data_batch_3.bin")).unwrap();
        let error = read_cifar10(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("data_batch_3.bin[.gz]"), "{error}");
    }

    #[test]
    fn cifar100_uses_fine_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        std::fs::write(&path, record(&[19, 99], [4, 5, 6])).unwrap();
        assert!(CIFAR100.recognise(folder.path()));
        let train = read_cifar100(folder.path(), Split::Train).unwrap();
        assert_eq!((train.labels(), train.classes()), (&[99][..], 100));
        assert_eq!(train.image(0).unwrap().unwrap()[..6], [1, 2, 3, 4, 5, 6]);
        std::fs::write(&path, record(&[0, 100], [4, 5, 6])).unwrap();
        let error = read_cifar100(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("0 to 99, found 100 in record 0"), "{error}");
        assert!(read_cifar100(folder.path(), Split::Test).is_err());
        assert!(CIFAR100_CLASSES.is_sorted());
    }

    #[test]
    fn damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test_batch.bin");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_cifar10(folder.path(), Split::Test)
        };
        let whole = record(&[1], [7, 8, 9]);
        assert!(read(&whole).is_ok());
        assert!(read(&[]).is_err());
        let error = read(&record(&[10], [0; 3])).unwrap_err().to_string();
        assert!(error.contains("test_batch.bin") && error.contains("found 10"), "{error}");
        // A record of the other data set.
        assert!(read(&record(&[1, 1], [0; 3])).is_err());
        let mut stream = Stream::new(1, Purpose::Test);
        for whole in [whole.clone(), compress(&whole)] {
            for _ in 0..100 {
                let length = stream.below(whole.len() as u32) as usize;
                assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
            }
        }
        for _ in 0..50 {
            let mut garbage: Vec<u8> = (0..stream.below(7000)).map(|_| stream.next_u32() as u8).collect();
            garbage.truncate(garbage.len() / 3073 * 3073);
            let _ = read(&garbage);
        }
    }
}
