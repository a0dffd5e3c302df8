//! Pictures with a label each, written down in some list, as a data set.

use std::collections::HashMap;
use std::path::Path;

use super::super::dataset::{Dataset, Split};
use super::super::split::held_out;
use super::super::tasks::sorted_classes;
use super::{Location, PictureOptions, dataset};
use crate::error::{Error, Result};
use crate::io::atomic::read;

/// What the classes are called, one a line, where labels are numbers.
const NAMES: &str = "classes.txt";

/// A picture and what its label is called.
pub(super) type Labelled = (Location, String);

/// One split of the data set in `folder`: pictures of `train` and, where there is a list of them, of
/// `test`. Without one, a fifth of each class of `train` is held out.
///
/// Classes are the lines of `classes.txt`, which labels are numbers of from 0 on or names from; where
/// there is no such file, they are the labels of `train` in the order of numbers or of letters.
///
/// # Errors
/// [`Error::Data`] naming the folder: no picture, or a test label that no training picture has.
pub(super) fn open(
    folder: &Path,
    split: Split,
    train: Vec<Labelled>,
    test: Option<Vec<Labelled>>,
    options: PictureOptions,
) -> Result<Dataset> {
    let wrong = |message: String| Error::data(folder.display().to_string(), message);
    let (names, numbered) = names(folder, &train)?;
    let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    let class = |label: &String| {
        let number = || label.parse().ok().filter(|number| numbered && *number < names.len());
        let unknown =
            || wrong(format!("the label \"{label}\" is none of {} classes{}", names.len(), if numbered { " of classes.txt" } else { "" }));
        places.get(label.as_str()).copied().or_else(number).map(|class| class as i32).ok_or_else(unknown)
    };
    let with_class =
        |list: Vec<Labelled>| list.into_iter().map(|(location, label)| Ok((location, class(&label)?))).collect::<Result<Vec<_>>>();
    let train = with_class(train)?;
    let pictures = match (split, test) {
        (Split::Train, Some(_)) => train,
        (Split::Test, Some(test)) => with_class(test)?,
        (_, None) => {
            let labels: Vec<i32> = train.iter().map(|(_, label)| *label).collect();
            let kept = held_out(&labels, names.len(), split);
            train.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(picture, _)| picture).collect()
        }
    };
    dataset(format!("{} ({split})", folder.display()), folder, pictures, names, options)
}

/// What the classes are called, and whether labels may be their numbers.
fn names(folder: &Path, train: &[Labelled]) -> Result<(Vec<String>, bool)> {
    let path = folder.join(NAMES);
    if !path.is_file() {
        return Ok((sorted_classes(train.iter().map(|(_, label)| label)), false));
    }
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    Ok((text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect(), true))
}
