//! Folders of pictures, one folder a class, as photographs usually come.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::dataset::{Dataset, Split};
use super::formats::Format;
use super::pictures::{Location, PictureOptions, dataset};
use super::split::held_out;
use crate::error::{Error, Result};

/// Names of the folder of each split, in the order they are looked for.
pub(super) const TRAIN_FOLDERS: [&str; 2] = ["train", "training"];
pub(super) const TEST_FOLDERS: [&str; 5] = ["test", "testing", "val", "validation", "valid"];

/// What files of pictures end with.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

/// An image file and the place of its class.
pub type LabelledFile = (PathBuf, i32);

/// A class: its name, and its image files in order.
type Class = (String, Vec<PathBuf>);

/// All pictures of `folder/<class>/*.{png,jpg,jpeg,webp,gif,bmp,tif,tiff}`, and of folders inside of
/// a class. Classes and files are taken in the order of their names; hidden and other files are
/// passed over. Pictures are read when they are wanted.
///
/// # Errors
/// When there is no class folder, or one holds no picture; they name the folder.
pub fn read_image_folder(folder: &Path, options: impl Into<PictureOptions>) -> Result<Dataset> {
    dataset_of(folder.display().to_string(), folder, list_classes(folder)?, all, options.into())
}

/// Every picture is in the split.
fn all(labels: &[i32], _: usize) -> Vec<bool> {
    vec![true; labels.len()]
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
    expects: "pictures in a folder for each class (<class>/*.png, or train/<class>/*.png and test/<class>/*.png)",
    recognise,
    read: read_image_split,
};

/// Whether a folder looks like images by class, with or without a folder for each split.
fn recognise(folder: &Path) -> bool {
    split_folder(folder, Split::Train).is_some()
        || list(folder, Path::is_dir).is_ok_and(|classes| classes.iter().any(|class| has_picture(class)))
}

/// Reads one split: `folder/train/<class>/*` and `folder/test/<class>/*` (or `val`, ...), which
/// must have the same classes.
///
/// Where there are only class folders, one image in five of each class is held out for
/// [`Split::Test`]; which ones depends on the class's place and number of images alone.
///
/// # Errors
/// As [`read_image_folder`], and when the splits have different classes.
pub fn read_image_split(folder: &Path, split: Split, options: impl Into<PictureOptions>) -> Result<Dataset> {
    let (name, options) = (format!("{} ({split})", folder.display()), options.into());
    match split_folder(folder, Split::Train) {
        Some(train) => {
            let train_classes = list_classes(&train)?;
            let classes = match split {
                Split::Train => train_classes,
                Split::Test => test_classes(folder, &train_classes)?,
            };
            dataset_of(name, folder, classes, all, options)
        }
        None => {
            log::info!("{}: a part of the images is held out for testing", folder.display());
            dataset_of(name, folder, list_classes(folder)?, |labels, classes| held_out(labels, classes, split), options)
        }
    }
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

/// The class folders of `folder` by name, each with its images.
fn list_classes(folder: &Path) -> Result<Vec<Class>> {
    let mut classes = Vec::new();
    for path in list(folder, Path::is_dir)? {
        let files = list_pictures(&path)?;
        if files.is_empty() {
            let message = format!("expected pictures ({}) in this class folder, found none", EXTENSIONS.join(", "));
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
    has_picture_name(path) && path.is_file()
}

/// Whether a file is called as a picture of a format that is read.
pub(super) fn has_picture_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.iter().any(|e| e.eq_ignore_ascii_case(extension))
}

/// Whether there is a picture in a folder, or in one inside of it.
fn has_picture(folder: &Path) -> bool {
    list(folder, is_image).is_ok_and(|files| !files.is_empty())
        || list(folder, |path| path.is_dir() && !path.is_symlink()).is_ok_and(|inner| inner.iter().any(|inner| has_picture(inner)))
}

/// The pictures of classes below `root`, with the places of their classes.
fn dataset_of(
    name: String,
    root: &Path,
    classes: Vec<Class>,
    kept: impl Fn(&[i32], usize) -> Vec<bool>,
    options: PictureOptions,
) -> Result<Dataset> {
    let (class_names, files): (Vec<String>, Vec<Vec<PathBuf>>) = classes.into_iter().unzip();
    let labels: Vec<i32> = (0..).zip(&files).flat_map(|(label, files)| std::iter::repeat_n(label, files.len())).collect();
    let kept = kept(&labels, class_names.len());
    let chosen = files.into_iter().flatten().zip(labels).zip(kept).filter(|(_, kept)| *kept);
    let located = chosen.map(|((file, label), _)| {
        let inner = file.strip_prefix(root).map(Path::to_path_buf);
        Ok((Location::file(root, inner.unwrap_or(file))?, label))
    });
    dataset(name, root, located.collect::<Result<_>>()?, class_names, options)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::data::ImageOptions;
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
        let colours: Vec<Vec<u8>> = (0..3).map(|i| dataset.image(i).unwrap().unwrap()[..3].to_vec()).collect();
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
        assert_eq!(test.image(0).unwrap().unwrap()[0], 4);
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
            of_class.map(|i| d.image(i).unwrap().unwrap()[0]).collect()
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
                let error = read_image_folder(root, SMALL).unwrap().read(&[0]).unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
            }
            std::fs::remove_file(&path).unwrap();
        }
        write_image(&root.join("a/x.png"), (4, 4), [1; 3]);
        assert!(read_image_folder(root, ImageOptions { size: 0, grey: true, ..SMALL }).is_err());
        assert!(read_image_folder(root, ImageOptions { size: 5000, grey: true, ..SMALL }).is_err());
    }
}
