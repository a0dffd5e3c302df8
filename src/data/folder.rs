//! Folders of PNG, JPEG and WebP images, one folder a class, as photographs usually come.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::dataset::{Dataset, Split};
use super::decoder::Limit;
use super::formats::Format;
use super::picture::{ImageOptions, decode};
use crate::error::{Error, Result};
use crate::tensor::random::{Purpose, Stream};

/// Names of the folder of each split, in the order they are looked for.
const TRAIN_FOLDERS: [&str; 2] = ["train", "training"];
const TEST_FOLDERS: [&str; 5] = ["test", "testing", "val", "validation", "valid"];

/// Where there is no folder for each split, one image in so many is held out for testing.
const HOLD_OUT: usize = 5;

/// An image file and the place of its class.
pub type LabelledFile = (PathBuf, i32);

/// A class: its name, and its image files in order.
type Class = (String, Vec<PathBuf>);

/// Reads all images of `folder/<class>/*.{png,jpg,jpeg,webp}`. Classes and files are taken in the
/// order of their names; hidden and other files are passed over.
///
/// # Errors
/// When there is no class folder, one holds no image, or an image cannot be read; they name the
/// folder or file.
pub fn read_image_folder(folder: &Path, options: ImageOptions) -> Result<Dataset> {
    decode_all(folder.display().to_string(), list_classes(folder)?, options)
}

/// The classes of an image folder by name, and its images with the place of their class: those of
/// `folder/test/<class>/*` (or `val`, ...) where there is such a folder, else of
/// `folder/<class>/*`.
///
/// # Errors
/// As [`read_image_folder`], of what can be seen without opening an image.
pub fn list_image_folder(folder: &Path) -> Result<(Vec<String>, Vec<LabelledFile>)> {
    let root = split_folder(folder, Split::Test).unwrap_or_else(|| folder.to_path_buf());
    let (names, files): (Vec<String>, Vec<Vec<PathBuf>>) = list_classes(&root)?.into_iter().unzip();
    let labelled = (0..).zip(files).flat_map(|(label, files)| files.into_iter().map(move |file| (file, label)));
    Ok((names, labelled.collect()))
}

/// All images of a folder and the folders in it, by name; hidden ones, and folders that are links,
/// are passed over.
///
/// # Errors
/// [`Error::Io`] where a folder cannot be read.
pub fn list_pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut pictures = list(folder, is_image)?;
    for inner in list(folder, |path| path.is_dir() && !path.is_symlink())? {
        pictures.extend(list_pictures(&inner)?);
    }
    Ok(pictures)
}

/// Pictures, for folders whose format is not said.
pub(super) const FORMAT: Format = Format {
    expects: "PNG, JPEG or WebP images in a folder for each class (<class>/*.png, or train/<class>/*.png and test/<class>/*.png)",
    recognise,
    read: read_image_split,
};

/// Whether a folder looks like images by class, with or without a folder for each split.
fn recognise(folder: &Path) -> bool {
    split_folder(folder, Split::Train).is_some()
        || list(folder, Path::is_dir)
            .is_ok_and(|classes| classes.iter().any(|class| list(class, is_image).is_ok_and(|files| !files.is_empty())))
}

/// Reads one split: `folder/train/<class>/*` and `folder/test/<class>/*` (or `val`, ...), which
/// must have the same classes.
///
/// Where there are only class folders, one image in five of each class is held out for
/// [`Split::Test`]; which ones depends on the class's place and number of images alone.
///
/// # Errors
/// As [`read_image_folder`], and when the splits have different classes.
pub fn read_image_split(folder: &Path, split: Split, options: ImageOptions) -> Result<Dataset> {
    let classes = match split_folder(folder, Split::Train) {
        Some(train) => {
            let train_classes = list_classes(&train)?;
            match split {
                Split::Train => train_classes,
                Split::Test => test_classes(folder, &train_classes)?,
            }
        }
        None => {
            log::info!("{}: one image in {HOLD_OUT} is held out for testing", folder.display());
            hold_out(list_classes(folder)?, split)
        }
    };
    decode_all(format!("{} ({split})", folder.display()), classes, options)
}

fn split_folder(folder: &Path, split: Split) -> Option<PathBuf> {
    let names: &[&str] = match split {
        Split::Train => &TRAIN_FOLDERS,
        Split::Test => &TEST_FOLDERS,
    };
    // A folder `train` that holds images is a class: locomotives.
    let has_classes = |path: &PathBuf| list(path, Path::is_dir).is_ok_and(|list| !list.is_empty());
    names.iter().map(|name| folder.join(name)).find(has_classes)
}

/// The classes of the test folder, whose labels must mean what those of the training folder mean.
fn test_classes(folder: &Path, train_classes: &[Class]) -> Result<Vec<Class>> {
    let test = split_folder(folder, Split::Test).ok_or_else(|| {
        Error::data(folder.display().to_string(), format!("expected a folder {} beside the training folder", TEST_FOLDERS.join(" or ")))
    })?;
    let classes = list_classes(&test)?;
    let names = |classes: &[Class]| -> Vec<String> { classes.iter().map(|(name, _)| name.clone()).collect() };
    let (expected, found) = (names(train_classes), names(&classes));
    if let Some(name) = expected.iter().find(|name| !found.contains(name)) {
        let message = format!("expected a folder of class {name}, as in training, found none");
        return Err(Error::data(test.display().to_string(), message));
    }
    if let Some(name) = found.iter().find(|name| !expected.contains(name)) {
        let message = format!("expected the classes of training, found {name} as well");
        return Err(Error::data(test.display().to_string(), message));
    }
    Ok(classes)
}

/// Keeps one split's files of each class.
fn hold_out(classes: Vec<Class>, split: Split) -> Vec<Class> {
    (0..)
        .zip(classes)
        .map(|(label, (name, files))| {
            let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
            let order = Stream::keyed(0, Purpose::Split.numbered(label), 1).permutation(count);
            let held = files.len() / HOLD_OUT;
            let kept = files
                .into_iter()
                .zip(order)
                .filter(|(_, place)| ((*place as usize) < held) == (split == Split::Test))
                .map(|(file, _)| file);
            (name, kept.collect())
        })
        .collect()
}

/// The class folders of `folder` by name, each with its images.
fn list_classes(folder: &Path) -> Result<Vec<Class>> {
    let mut classes = Vec::new();
    for path in list(folder, Path::is_dir)? {
        let files = list(&path, is_image)?;
        if files.is_empty() {
            let message = "expected PNG, JPEG or WebP images in this class folder, found none";
            return Err(Error::data(path.display().to_string(), message));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        classes.push((name, files));
    }
    if classes.is_empty() {
        let message = "expected a folder of images for each class, found no folder";
        return Err(Error::data(folder.display().to_string(), message));
    }
    Ok(classes)
}

/// What `folder` holds of one kind, sorted by name; hidden names (`.DS_Store`, `._photo.jpg`) are
/// left out.
fn list(folder: &Path, kind: fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| Error::io(folder, &error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if !name.starts_with(b".") && kind(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    path.is_file() && ["png", "jpg", "jpeg", "webp"].iter().any(|e| e.eq_ignore_ascii_case(extension))
}

/// Decodes all files, on all cores.
fn decode_all(name: String, classes: Vec<Class>, options: ImageOptions) -> Result<Dataset> {
    let (image_bytes, limit) = (options.image_bytes()?, Limit::from_env()?);
    let mut class_names = Vec::new();
    let (mut labels, mut files) = (Vec::new(), Vec::new());
    for (label, (class_name, class_files)) in (0..).zip(classes) {
        class_names.push(class_name);
        labels.extend(std::iter::repeat_n(label, class_files.len()));
        files.extend(class_files);
    }

    let bytes = files.len().saturating_mul(image_bytes);
    let mut pixels = Vec::new();
    if pixels.try_reserve_exact(bytes).is_err() {
        let message = format!("{} images need {bytes} bytes of memory; there are not", files.len());
        return Err(Error::data(name, message));
    }
    pixels.resize(bytes, 0);

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = files
            .chunks(share)
            .zip(pixels.chunks_mut(share * image_bytes))
            .map(|(files, pixels)| {
                scope.spawn(move || {
                    files.iter().zip(pixels.chunks_exact_mut(image_bytes)).try_for_each(|(file, pixels)| {
                        pixels.copy_from_slice(&decode(file, options, limit)?);
                        Ok(())
                    })
                })
            })
            .collect();
        // The first error in the order of the files, whichever thread was faster.
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(Error::data(name.clone(), "an image made its decoder crash"))))
    })?;
    let size = [options.size, options.size, options.channels()];
    Dataset::new(name, size, pixels, labels, class_names)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::io::Interpolation;
    use image::{Rgb, RgbImage};

    const SMALL: ImageOptions = ImageOptions { size: 4, grey: false, crop: 1.0, squash: false, interpolation: Interpolation::Bilinear };

    /// A file of one colour.
    pub(crate) fn write_image(path: &Path, size: (u32, u32), colour: [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(size.0, size.1, Rgb(colour)).save(path).unwrap();
    }

    #[test]
    fn classes_and_files_are_sorted_and_others_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write_image(&root.join("dog/2.png"), (9, 5), [10, 20, 30]);
        write_image(&root.join("dog/1.PNG"), (3, 8), [40, 50, 60]);
        write_image(&root.join("cat/x.png"), (4, 4), [70, 80, 90]);
        write_image(&root.join(".hidden/x.png"), (4, 4), [1, 1, 1]);
        std::fs::write(root.join("dog/._1.png"), "not an image").unwrap();
        std::fs::write(root.join("dog/notes.txt"), "not an image").unwrap();
        let dataset = read_image_folder(root, SMALL).unwrap();
        assert_eq!(dataset.class_names(), ["cat", "dog"]);
        assert_eq!(dataset.labels(), [0, 1, 1]);
        assert_eq!(dataset.image_size().unwrap(), [4, 4, 3]);
        let colours: Vec<&[u8]> = (0..3).map(|i| &dataset.image(i).unwrap()[..3]).collect();
        assert_eq!(colours, [[70, 80, 90], [40, 50, 60], [10, 20, 30]]);
    }

    #[test]
    fn splits_must_have_the_same_classes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write_image(&root.join("train/a/1.png"), (4, 4), [1; 3]);
        write_image(&root.join("train/b/1.png"), (4, 4), [2; 3]);
        assert!(read_image_split(root, Split::Test, SMALL).unwrap_err().to_string().contains("val"));
        write_image(&root.join("val/b/1.png"), (4, 4), [3; 3]);
        let error = read_image_split(root, Split::Test, SMALL).unwrap_err().to_string();
        assert!(error.contains("class a"), "{error}");
        write_image(&root.join("val/a/1.png"), (4, 4), [4; 3]);
        assert_eq!(read_image_split(root, Split::Train, SMALL).unwrap().labels(), [0, 1]);
        let test = read_image_split(root, Split::Test, SMALL).unwrap();
        assert_eq!(test.image(0).unwrap()[0], 4);
        assert!(recognise(root));
        write_image(&root.join("val/c/1.png"), (4, 4), [4; 3]);
        let error = read_image_split(root, Split::Test, SMALL).unwrap_err().to_string();
        assert!(error.contains("found c as well"), "{error}");
    }

    #[test]
    fn a_fifth_is_held_out_where_there_is_no_split() {
        let folder = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            for i in 0..10u8 {
                write_image(&folder.path().join(format!("{class}/{i}.png")), (4, 4), [i; 3]);
            }
        }
        let read = |split| read_image_split(folder.path(), split, SMALL).unwrap();
        let (train, test) = (read(Split::Train), read(Split::Test));
        assert_eq!((train.len(), test.len()), (16, 4));
        assert_eq!(test.labels(), [0, 0, 1, 1]);
        let values = |d: &Dataset, label| -> Vec<u8> {
            let of_class = (0..d.len()).filter(|&i| d.label(i) == Some(label));
            of_class.map(|i| d.image(i).unwrap()[0]).collect()
        };
        let mut all = [values(&train, 0), values(&test, 0)].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10), "each image is in one split");
        assert_eq!(read(Split::Test), test);
    }

    #[test]
    fn a_class_may_be_called_train() {
        let folder = tempfile::tempdir().unwrap();
        for class in ["plane", "train"] {
            write_image(&folder.path().join(class).join("1.png"), (4, 4), [1; 3]);
        }
        assert!(recognise(folder.path()));
        let dataset = read_image_split(folder.path(), Split::Train, SMALL).unwrap();
        assert_eq!(dataset.class_names(), ["plane", "train"]);
    }

    #[test]
    fn damaged_images_and_empty_folders_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(!recognise(root));
        assert!(read_image_folder(root, SMALL).unwrap_err().to_string().contains("no folder"));
        assert!(read_image_folder(&root.join("no"), SMALL).is_err());
        std::fs::create_dir(root.join("empty")).unwrap();
        let error = read_image_folder(root, SMALL).unwrap_err().to_string();
        assert!(error.contains("empty") && error.contains("found none"), "{error}");
        std::fs::remove_dir(root.join("empty")).unwrap();
        for name in ["x.png", "x.jpg", "x.webp"] {
            let path = root.join("a").join(name);
            write_image(&path, (40, 30), [9, 99, 199]);
            assert!(recognise(root));
            let whole = std::fs::read(&path).unwrap();
            for length in (0..whole.len()).step_by(whole.len() / 40 + 1) {
                std::fs::write(&path, &whole[..length]).unwrap();
                let error = read_image_folder(root, SMALL).unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
            }
            std::fs::remove_file(&path).unwrap();
        }
        write_image(&root.join("a/x.png"), (4, 4), [1; 3]);
        assert!(read_image_folder(root, ImageOptions { size: 0, grey: true, ..SMALL }).is_err());
        assert!(read_image_folder(root, ImageOptions { size: 5000, grey: true, ..SMALL }).is_err());
    }
}
