//! Tar archives of pictures with labels, WebDataset's convention: files that are called alike up to
//! the first dot are one sample, such as `000017.jpg` and `000017.cls`.

use std::path::{Path, PathBuf};

use super::super::dataset::{Dataset, Split};
use super::super::folder::{TEST_FOLDERS, TRAIN_FOLDERS, has_picture_name};
use super::super::formats::Format;
use super::labelled::{self, Labelled};
use super::location::Container;
use super::{Location, PictureOptions};
use crate::error::{Error, Result};

/// The longest label in bytes.
const LABEL: u64 = 1 << 16;

/// Archives, for folders whose format is not said.
pub(in super::super) const FORMAT: Format = Format {
    expects: "tar archives of pictures with .cls or .json labels (train-000.tar, ..., and perhaps test-000.tar, ...)",
    recognise,
    read: read_shards,
};

/// The archives of a folder by name.
fn archives(folder: &Path) -> Vec<PathBuf> {
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar")) && path.is_file();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut archives: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_archive).collect();
    archives.sort();
    archives
}

/// Those of a split: in a folder of its name, or with its name as a word of theirs.
fn of_split(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
    let inside = names.iter().map(|name| archives(&folder.join(name))).find(|found| !found.is_empty());
    let named = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        stem.split(|c: char| !c.is_alphanumeric()).any(|word| names.contains(&word))
    };
    inside.unwrap_or_else(|| archives(folder).into_iter().filter(named).collect())
}

fn recognise(folder: &Path) -> bool {
    !archives(folder).is_empty() || !of_split(folder, &TRAIN_FOLDERS).is_empty()
}

/// Reads what the archives hold, without the pictures themselves. Archives whose names tell no split
/// are all of training.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] naming the archive for one that is damaged, or a picture without a
/// label; as [`labelled::open`].
fn read_shards(folder: &Path, split: Split, options: PictureOptions) -> Result<Dataset> {
    let [mut train, test] = [&TRAIN_FOLDERS[..], &TEST_FOLDERS].map(|names| of_split(folder, names));
    if train.is_empty() {
        train = archives(folder).into_iter().filter(|path| !test.contains(path)).collect();
    }
    let all = |paths: Vec<PathBuf>| Ok(paths.iter().map(|path| samples(path)).collect::<Result<Vec<_>>>()?.concat());
    let test = if test.is_empty() { None } else { Some(all(test)?) };
    labelled::open(folder, split, all(train)?, test, options)
}

/// What an archive holds of one sample.
#[derive(Default)]
struct Sample {
    name: String,
    picture: Option<Location>,
    label: Option<String>,
}

fn samples(path: &Path) -> Result<Vec<Labelled>> {
    let wrong = |message: String| Error::data(path.display().to_string(), message);
    let damaged = |error: std::io::Error| wrong(format!("is no tar archive, or a damaged one: {error}"));
    let container = Container::open(path)?;
    let length = container.file.metadata().map_err(|error| Error::io(path, &error))?.len();
    let mut archive = tar::Archive::new(&container.file);
    let (mut samples, mut current) = (Vec::new(), Sample::default());
    let mut finish = |sample: Sample| match (sample.picture, sample.label) {
        (Some(picture), Some(label)) => {
            samples.push((picture, label));
            Ok(())
        }
        (Some(_), None) => Err(wrong(format!("{0} has no label: expected {0}.cls or {0}.json beside it", sample.name))),
        _ => Ok(()),
    };
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let whole = entry.path().map_err(damaged)?.display().to_string();
        let (folder, file) = whole.rsplit_once('/').map_or(("", whole.as_str()), |(folder, file)| (folder, file));
        let Some((stem, kind)) = file.split_once('.').filter(|(stem, _)| !stem.is_empty()) else { continue };
        let name = if folder.is_empty() { stem.to_string() } else { format!("{folder}/{stem}") };
        if name != current.name {
            finish(std::mem::take(&mut current))?;
            current.name = name;
        }
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(bytes).is_none_or(|end| end > length) {
            return Err(wrong(format!("ends early: {whole} is not whole")));
        }
        if has_picture_name(Path::new(stem).with_extension(kind).as_path()) && !kind.contains('.') {
            current.picture = Some(Location::Member { archive: container.clone(), name: whole, offset, bytes });
        } else if matches!(kind, "cls" | "json") && bytes <= LABEL {
            let text = String::from_utf8_lossy(&container.read(offset, bytes as usize)?).trim().to_string();
            current.label = if kind == "cls" { Some(text) } else { label_of(&text).or(current.label) };
        }
    }
    finish(current)?;
    Ok(samples)
}

/// The label in a sample's JSON.
fn label_of(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let label = ["cls", "label"].iter().find_map(|key| value.get(key))?;
    label.as_str().map(String::from).or_else(|| label.as_u64().map(|number| number.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::super::open;
    use super::*;
    use image::{Rgb, RgbImage};

    fn png(shade: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::from_pixel(3, 5, Rgb([shade; 3])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn archive(path: &Path, files: &[(&str, Vec<u8>)]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        builder.finish().unwrap();
    }

    #[test]
    fn samples_are_files_of_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let text = |text: &str| text.as_bytes().to_vec();
        archive(
            &folder.path().join("small-train-000.tar"),
            &[
                ("a/1.png", png(10)),
                ("a/1.cls", text("7\n")),
                ("a/1.txt", text("a caption")),
                ("a/2.json", text(r#"{"label": 12}"#)),
                ("a/2.seg.png.gz", text("?")),
                ("a/2.png", png(20)),
            ],
        );
        archive(&folder.path().join("small-train-001.tar"), &[("b.png", png(30)), ("b.cls", text("7"))]);
        archive(&folder.path().join("small-val-000.tar"), &[("1.cls", text("12")), ("1.png", png(40))]);
        let [train, test] = [Split::Train, Split::Test].map(|split| open(folder.path(), split).unwrap());
        assert_eq!((train.class_names(), train.labels(), test.labels()), (&["7".to_string(), "12".into()][..], &[0, 1, 0][..], &[1][..]));
        assert_eq!([0, 1, 2].map(|i| train.image(i).unwrap().unwrap()[0]), [10, 20, 30]);
        assert_eq!(test.image(0).unwrap().unwrap()[0], 40);
        // The same archives in a folder each.
        let folders = tempfile::tempdir().unwrap();
        archive(&folders.path().join("train/0.tar"), &[("b.png", png(30)), ("b.cls", text("7"))]);
        archive(&folders.path().join("val/0.tar"), &[("c.png", png(50)), ("c.cls", text("7"))]);
        assert_eq!(open(folders.path(), Split::Test).unwrap().image(0).unwrap().unwrap()[0], 50);
    }

    #[test]
    fn damaged_archives_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.tar");
        archive(&path, &[("1.png", png(1))]);
        let error = open(folder.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("0.tar: 1 has no label"), "{error}");
        archive(&path, &[("1.png", png(1)), ("1.cls", b"0".to_vec())]);
        let whole = std::fs::read(&path).unwrap();
        for length in [1, 100, 520, 700, 1100] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = open(folder.path(), Split::Train).unwrap_err().to_string();
            assert!(error.contains("0.tar: "), "{length}: {error}");
        }
    }
}
