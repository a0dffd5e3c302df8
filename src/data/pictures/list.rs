//! Tables of pictures and their labels: `train.csv` beside the pictures, and perhaps `test.csv`.

use std::path::{Path, PathBuf};

use super::super::dataset::{Dataset, Split};
use super::super::formats::Format;
use super::labelled::{self, Labelled};
use super::{Location, PictureOptions};
use crate::error::{Error, Result};
use crate::io::atomic::read;

/// Names of the tables, in the order in which they are looked for.
const TRAIN: [&str; 1] = ["train.csv"];
const TEST: [&str; 4] = ["test.csv", "val.csv", "validation.csv", "valid.csv"];
/// What the column of files may be called, and that of labels.
const FILES: [&str; 7] = ["path", "file", "filename", "file_name", "filepath", "image", "image_path"];
const LABELS: [&str; 4] = ["label", "class", "category", "target"];

/// Lists, for folders whose format is not said.
pub(in super::super) const FORMAT: Format =
    Format { expects: "a list of pictures (train.csv with the columns path and label, and perhaps test.csv)", recognise, read: read_list };

fn find(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn recognise(folder: &Path) -> bool {
    find(folder, &TRAIN).is_some()
}

/// Reads one split: `folder/train.csv` or `folder/test.csv` (or `val.csv`, ...). The first line names
/// the columns; paths are relative to the folder.
///
/// # Errors
/// [`Error::Data`] naming the table and the line: no such columns, an empty cell, a file that does
/// not exist; as [`labelled::open`].
fn read_list(folder: &Path, split: Split, options: PictureOptions) -> Result<Dataset> {
    let train = find(folder, &TRAIN).ok_or_else(|| Error::data(folder.display().to_string(), "expected train.csv, found none"))?;
    let test = find(folder, &TEST).map(|path| rows(folder, &path)).transpose()?;
    labelled::open(folder, split, rows(folder, &train)?, test, options)
}

fn rows(folder: &Path, path: &Path) -> Result<Vec<Labelled>> {
    let wrong = |message: String| Error::data(path.display().to_string(), message);
    let bytes = read(path)?;
    let mut table = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
    let names = table.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let column = |known: &[&str]| {
        let found = names.iter().position(|name| known.iter().any(|known| name.eq_ignore_ascii_case(known)));
        found.ok_or_else(|| {
            wrong(format!("line 1: expected a column {}, found {}", known.join(" or "), names.iter().collect::<Vec<_>>().join(", ")))
        })
    };
    let (file, label) = (column(&FILES)?, column(&LABELS)?);
    let mut pictures = Vec::new();
    for (row, line) in table.records().zip(2..) {
        let row = row.map_err(|error| wrong(error.to_string()))?;
        let cell = |column: usize| row.get(column).filter(|cell| !cell.is_empty());
        let (Some(file), Some(label)) = (cell(file), cell(label)) else {
            return Err(wrong(format!("line {line}: expected a file and a label, found \"{}\"", row.iter().collect::<Vec<_>>().join(","))));
        };
        let location = Location::file(folder, file.into()).map_err(|error| wrong(format!("line {line}: {error}")))?;
        pictures.push((location, label.to_string()));
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::super::folder::tests::write_image;
    use super::super::super::open;
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..10u8 {
            write_image(&folder.path().join(format!("pictures/{i}.png")), (4, 4), [i; 3]);
        }
        folder
    }

    fn table(folder: &Path, name: &str, rows: &[(u8, &str)]) {
        let rows: String = rows.iter().map(|(i, label)| format!("pictures/{i}.png, {label}\n")).collect();
        std::fs::write(folder.join(name), format!("filename,Label\n{rows}")).unwrap();
    }

    #[test]
    fn pictures_have_the_order_and_the_labels_of_their_list() {
        let folder = folder();
        table(folder.path(), "train.csv", &[(3, "10"), (1, "9"), (2, "10")]);
        table(folder.path(), "val.csv", &[(0, "10")]);
        let (train, test) = (open(folder.path(), Split::Train).unwrap(), open(folder.path(), Split::Test).unwrap());
        assert_eq!((train.class_names(), train.labels(), test.labels()), (&["9".to_string(), "10".into()][..], &[1, 0, 1][..], &[1][..]));
        assert_eq!([0, 1, 2].map(|i| train.image(i).unwrap().unwrap()[0]), [3, 1, 2]);
        std::fs::write(folder.path().join("classes.txt"), "cat\n\ndog\n").unwrap();
        table(folder.path(), "train.csv", &[(3, "1"), (1, "cat")]);
        table(folder.path(), "val.csv", &[(0, "0")]);
        let train = open(folder.path(), Split::Train).unwrap();
        assert_eq!((train.class_names(), train.labels()), (&["cat".to_string(), "dog".into()][..], &[1, 0][..]));
    }

    #[test]
    fn without_a_test_list_a_fifth_is_held_out() {
        let folder = folder();
        table(folder.path(), "train.csv", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|i| (i, if i < 5 { "a" } else { "b" })));
        let [train, test] = [Split::Train, Split::Test].map(|split| open(folder.path(), split).unwrap());
        assert_eq!((train.len(), test.labels()), (8, &[0, 1][..]));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_with_its_line() {
        let folder = folder();
        for (text, words) in [
            ("a,b\n1,2\n", "line 1: expected a column path or file"),
            ("path\npictures/1.png\n", "expected a column label"),
            ("path,label\npictures/1.png,\n", "line 2: expected a file and a label"),
            ("path,label\npictures/1.png,a\npictures/99.png,a\n", "line 3: "),
            ("path,label\n", "at least one image"),
        ] {
            std::fs::write(folder.path().join("train.csv"), text).unwrap();
            let error = open(folder.path(), Split::Train).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        table(folder.path(), "train.csv", &[(1, "a")]);
        table(folder.path(), "test.csv", &[(2, "b")]);
        let error = open(folder.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("the label \"b\" is none of 1 classes"), "{error}");
    }
}
