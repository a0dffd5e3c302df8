//! What is known of images beyond their class: more labels, from a file beside the images, or from
//! classes taken together.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::classes::ClassGroup;
use super::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::io::atomic::read;
use crate::ops::loss::HIDDEN;

/// One more thing that is known of every image: a label among some classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What it is called.
    pub name: String,
    /// What its classes are called.
    pub classes: Vec<String>,
    /// The label of every image of the data set, by its place there, -1 (`HIDDEN`) where it is not
    /// known.
    pub labels: Arc<[i32]>,
}

impl Task {
    /// That of the images at `indices`, in their order.
    pub(super) fn pick(&self, indices: &[usize]) -> Self {
        let labels = indices.iter().filter_map(|index| self.labels.get(*index).copied()).collect();
        Self { labels, ..self.clone() }
    }
}

/// A task that the classes of a data set make, as recipes write it: `{ name = "kind", classes =
/// [[5, 7, 9], [0, 2]] }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskGroups {
    /// What it is called: letters, digits and `_`.
    pub name: String,
    /// Its classes, each one or several of the data set's.
    pub classes: Vec<ClassGroup>,
}

impl TaskGroups {
    /// The tasks that a line of text describes, as the command line takes them: `kind: 5+7+9, 0+2;
    /// heel: 9, 5` are two.
    ///
    /// # Errors
    /// [`Error::Argument`] for one without a name.
    pub fn list(list: &str) -> Result<Vec<Self>> {
        let task = |text: &str| {
            let wrong = || Error::argument("tasks", format!("\"{text}\": expected a name, a colon and classes, as in `kind: 5+7+9, 0+2`"));
            let (name, classes) = text.split_once(':').ok_or_else(wrong)?;
            Ok(Self { name: name.trim().into(), classes: ClassGroup::list(classes) })
        };
        list.split(';').map(str::trim).filter(|text| !text.is_empty()).map(task).collect()
    }
}

impl Dataset {
    /// The tasks of these images: those of the file beside them (`train_tasks.csv`,
    /// `test_tasks.csv`), and those that `groups` make of their classes. Where an image's class is
    /// in none of a task's, or hidden, its label there is hidden.
    ///
    /// # Errors
    /// [`Error::Argument`] for a class that there is not, or twice in a task; a name that is no
    /// word, or twice.
    pub fn tasks(&self, groups: &[TaskGroups]) -> Result<Vec<Task>> {
        let mut tasks = self.own_tasks().to_vec();
        for TaskGroups { name, classes } in groups {
            let (classes, labels) = self.group_labels(classes)?;
            tasks.push(Task { name: name.clone(), classes, labels: labels.into() });
        }
        let mut names = BTreeSet::new();
        for Task { name, .. } in &tasks {
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                return Err(Error::argument("tasks", format!("\"{name}\" is no name: letters, digits and _ make one")));
            }
            if !names.insert(name) {
                return Err(Error::argument("tasks", format!("two are called {name}")));
            }
        }
        Ok(tasks)
    }
}

/// The tasks of `folder/train_tasks.csv` or `folder/test_tasks.csv`, whichever the `split` has,
/// none where there is no such file: a line of names, then a line for each image in the order of
/// the data set, a cell for each task, empty where its label is not known. Classes are what the
/// file of the training images names, in the order of numbers or of letters.
///
/// # Errors
/// [`Error::Data`] with the file and the line: another number of cells than names, or of lines than
/// `images`; a class that no training image has.
pub(super) fn read_tasks(folder: &Path, split: Split, images: usize) -> Result<Vec<Task>> {
    let file = |split: Split| folder.join(format!("{split}_tasks.csv"));
    if !file(split).is_file() {
        return Ok(Vec::new());
    }
    let known = columns(&file(Split::Train))?;
    let path = file(split);
    let wrong = |message: String| Error::data(path.display().to_string(), message);
    let task = |(name, cells): (String, Vec<String>)| {
        let Some((_, train)) = known.iter().find(|(other, _)| *other == name) else {
            return Err(wrong(format!("has a task {name}, which {} has not", file(Split::Train).display())));
        };
        if cells.len() != images {
            return Err(wrong(format!("expected a line for each of {images} images below the names, found {}", cells.len())));
        }
        let classes = sorted_classes(train);
        let label = |(cell, line): (&String, usize)| match classes.iter().position(|class| class == cell) {
            Some(class) => Ok(class as i32),
            None if cell.is_empty() => Ok(HIDDEN),
            None => Err(wrong(format!("line {line}: \"{cell}\" is no class of {name} in training; there are {}", classes.join(", ")))),
        };
        let labels = cells.iter().zip(2..).map(label).collect::<Result<_>>()?;
        Ok(Task { name, classes, labels })
    };
    columns(&path)?.into_iter().map(task).collect()
}

/// The classes that cells name, each once: in the order of numbers where all are, else of letters.
/// Empty cells name none.
pub(super) fn sorted_classes<'a>(cells: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let named: BTreeSet<&String> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
    let mut classes: Vec<String> = named.into_iter().cloned().collect();
    // A stable sort: where one is no number, the order of letters stays.
    if classes.iter().all(|class| class.parse::<i64>().is_ok()) {
        classes.sort_by_key(|class| class.parse::<i64>().unwrap_or(0));
    }
    classes
}

/// The columns of a file by their names. Quoted cells may hold commas, quotes (doubled) and ends of
/// lines.
fn columns(path: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let wrong = |message: String| Error::data(path.display().to_string(), message);
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    let text = with_empty_cells(&text);
    for record in csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes()).records() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let cells = record.iter().map(|cell| cell.trim().trim_matches('"').to_string());
        if columns.is_empty() {
            columns = cells.map(|name| (name, Vec::new())).collect();
            continue;
        }
        if record.len() != columns.len() {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(wrong(format!("line {line}: expected {} cells, one a task, found {}", columns.len(), record.len())));
        }
        columns.iter_mut().zip(cells).for_each(|((_, column), cell)| column.push(cell));
    }
    Ok(columns)
}

/// The same lines, of which no empty one is passed over: it is the empty cell of a single column.
fn with_empty_cells(text: &str) -> String {
    let mut quoted = false;
    let line = |line: &str| {
        let empty = !quoted && line.is_empty();
        quoted ^= line.matches('"').count() % 2 == 1;
        format!("{}\n", if empty { "\"\"" } else { line })
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::dataset::tests::small;
    use super::*;

    #[test]
    fn classes_make_tasks() {
        let dataset = small(6).hide(&[0, 1, 2, 3, 4]);
        let made = |list: &str| dataset.tasks(&TaskGroups::list(list)?);
        let tasks = made("pair: a+c, 1 ; rest: d,c;").unwrap();
        assert_eq!(tasks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["pair", "rest"]);
        assert_eq!(tasks[0].classes, ["a+c", "b"]);
        assert_eq!(*tasks[0].labels, [0, 1, 0, HIDDEN, 0, HIDDEN]);
        assert_eq!(*tasks[1].labels, [HIDDEN, HIDDEN, 1, 0, HIDDEN, HIDDEN]);
        assert!(made("").unwrap().is_empty());
        for (bad, words) in
            [("a, b", "a name, a colon"), ("x: e", "there are a, b, c, d"), ("x.y: a", "\"x.y\" is no name"), ("x: a; x: b", "called x")]
        {
            let message = made(bad).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn files_make_tasks_that_follow_their_images() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let read = |split, images| read_tasks(folder.path(), split, images);
        assert!(read(Split::Train, 3).unwrap().is_empty());
        write("train_tasks.csv", "angle, colour\r\n90,red\r\n,\r\n10,\"blue\"\r\n");
        write("test_tasks.csv", "colour\n\nblue\n");
        let tasks = read(Split::Train, 3).unwrap();
        assert_eq!((tasks[0].classes.join(" "), tasks[1].classes.join(" ")), ("10 90".into(), "blue red".into()));
        assert_eq!((&*tasks[0].labels, &*tasks[1].labels), ([1, HIDDEN, 0].as_slice(), [1, HIDDEN, 0].as_slice()));
        assert_eq!(*read(Split::Test, 2).unwrap()[0].labels, [HIDDEN, 0]);
        write("train_tasks.csv", "\u{feff}\"name, of it\",b\n\"red, dark\",1\n\"a \"\"b\"\" c\", \"2\"\n\"two\n\nlines\",\n");
        let quoted = read(Split::Train, 3).unwrap();
        assert_eq!((quoted[0].name.as_str(), quoted[1].name.as_str()), ("name, of it", "b"));
        assert_eq!(quoted[0].classes, ["a \"b\" c", "red, dark", "two\n\nlines"]);
        assert_eq!((&*quoted[0].labels, &*quoted[1].labels), ([1, 0, 2].as_slice(), [0, 1, HIDDEN].as_slice()));
        write("train_tasks.csv", "angle, colour\r\n90,red\r\n,\r\n10,\"blue\"\r\n");
        let dataset = small(3).with_tasks(tasks).subset(&[2, 0, 0]).unwrap();
        let tasks = dataset.tasks(&TaskGroups::list("first: a, b+c+d").unwrap()).unwrap();
        assert_eq!((&*tasks[0].labels, tasks.len()), ([0, 1, 1].as_slice(), 3));
        assert_eq!(*tasks[2].labels, [1, 0, 0]);
        for (text, words) in [
            ("colour\ngreen\nred\n", "line 2: \"green\" is no class of colour"),
            ("colour\nred\n", "each of 2 images"),
            ("colour\nred,red\nred\n", "line 2: expected 1 cells"),
            ("size\n1\n2\n", "a task size"),
        ] {
            write("test_tasks.csv", text);
            let message = read(Split::Test, 2).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("test_tasks.csv"), "{message}");
        }
    }
}
