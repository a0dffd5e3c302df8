//! Opening a folder, or a file of packed pictures, without saying what is in it.

use std::path::Path;

use super::dataset::{Dataset, Split};
use super::formats::FORMATS;
use super::pictures::{PictureOptions, open_packed};
use super::tasks::read_tasks;
use crate::error::{Error, Result};

/// Reads one split of the data set in a folder, whichever of the known formats it has, or of a file of
/// packed pictures ([`pack`](super::pack)). Pictures of many sizes stay on disk and are read when they
/// are wanted, as `PictureOptions::default()` says; [`open_with`] says otherwise.
///
/// # Errors
/// When the folder holds none of the formats (the error lists them), or its files are damaged.
pub fn open(path: &Path, split: Split) -> Result<Dataset> {
    open_with(path, split, PictureOptions::default())
}

/// As [`open`], with how pictures that come in many sizes are read. The other formats have
/// a size of their own. `train_tasks.csv` and `test_tasks.csv` in the folder are what else is known
/// of the images: see [`Dataset::tasks`].
///
/// # Errors
/// As [`open`].
pub fn open_with(path: &Path, split: Split, options: impl Into<PictureOptions>) -> Result<Dataset> {
    let options = options.into();
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
    if !metadata.is_dir() {
        return open_packed(path, split, options);
    }
    let Some(format) = FORMATS.iter().find(|format| (format.recognise)(path)) else {
        let expected: Vec<&str> = FORMATS.iter().map(|format| format.expects).collect();
        let message = format!("found no data set in this folder; looked for {}", expected.join(", "));
        return Err(Error::data(path.display().to_string(), message));
    };
    let dataset = (format.read)(path, split, options)?;
    let tasks = read_tasks(path, split, dataset.len())?;
    Ok(dataset.with_tasks(tasks))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::data::{cifar, folder, idx};

    #[test]
    fn each_format_is_recognised() {
        let new = || tempfile::tempdir().unwrap();
        let (idx_folder, cifar_folder, images) = (new(), new(), new());
        idx::tests::write_folder(idx_folder.path(), 7);
        cifar::tests::write_cifar10(cifar_folder.path());
        for name in ["train/a/1.png", "test/a/1.png"] {
            folder::tests::write_image(&images.path().join(name), (5, 5), [1, 2, 3]);
        }
        for (folder, channels, height) in [(idx_folder, 1, 2), (cifar_folder, 3, 32), (images, 3, 64)] {
            for split in [Split::Train, Split::Test] {
                let dataset = open(folder.path(), split).unwrap();
                let [found, _, of] = dataset.image_size().unwrap();
                assert_eq!((of, found), (channels, height));
                assert!(dataset.name().ends_with(&format!("({split})")), "{}", dataset.name());
            }
        }
    }

    #[test]
    fn what_cannot_be_opened_says_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path(), Split::Train).unwrap_err().to_string();
        for format in ["train-images-idx3-ubyte", "data_batch_1.bin", "train.bin", "<class>"] {
            assert!(error.contains(format), "{error}");
        }
        let file = folder.path().join("file");
        assert!(open(&file, Split::Train).unwrap_err().to_string().contains("no such file or folder"));
        std::fs::write(&file, "").unwrap();
        assert!(open(&file, Split::Train).unwrap_err().to_string().contains("found a file that is neither"));
    }

    #[test]
    fn the_bundled_slice_opens() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fashion-mnist");
        // It is not part of the published package.
        if !path.is_dir() {
            return;
        }
        for (split, per_class) in [(Split::Train, 1000), (Split::Test, 200)] {
            let dataset = open(&path, split).unwrap();
            assert_eq!((dataset.len(), dataset.image_size().unwrap()), (per_class * 10, [28, 28, 1]));
            assert_eq!(dataset.class_names(), idx::FASHION_MNIST_CLASSES);
            assert_eq!(dataset.split_indices(per_class, 0).unwrap().1, [0; 0], "classes balance");
            let mean = dataset.statistics().unwrap().mean[0];
            assert!((0.25..0.32).contains(&mean), "{mean}");
        }
    }
}
