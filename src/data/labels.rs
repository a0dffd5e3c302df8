//! What a classifier's outputs are called.

use std::path::Path;

use crate::error::{Error, Result};

/// One name a class, in the order of a network's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// WordNet's numbers of the classes, where they are known: folders of ImageNet are called so.
    synsets: Vec<&'static str>,
}

/// How the folders of a data set were matched with a network's classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// They are called alike.
    Name,
    /// Folders are called after the places of classes.
    Number,
    /// There are as many of both: by their order.
    Order,
}

impl std::fmt::Display for Matched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Number => "number",
            Self::Order => "order",
        })
    }
}

impl Labels {
    /// Names given.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, synsets: vec![] }
    }

    /// The classes of ImageNet-1k, by torchvision's names.
    pub fn imagenet() -> Self {
        let lines = |text: &'static str| text.lines();
        Self {
            names: lines(include_str!("../../data/imagenet_classes.txt")).map(str::to_string).collect(),
            synsets: lines(include_str!("../../data/imagenet_synsets.txt")).collect(),
        }
    }

    /// Where no names are given: ImageNet's for 1000 classes, else numbers from 0.
    pub fn of_count(classes: usize) -> Self {
        let imagenet = Self::imagenet();
        if classes == imagenet.names.len() { imagenet } else { Self::new((0..classes).map(|i| i.to_string()).collect()) }
    }

    /// Reads a file of one name a line, or a JSON list of names.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a line or element that is no name.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |message: String| Error::data(path.display().to_string(), message);
        let text = String::from_utf8(crate::io::atomic::read(path)?).map_err(|_| wrong("expected a text of class names (UTF-8)".into()))?;
        let names: Vec<String> = if text.trim_start().starts_with('[') {
            serde_json::from_str(&text).map_err(|error| wrong(format!("expected a JSON list of names: {error}")))?
        } else {
            text.trim_end().lines().map(|line| line.trim().to_string()).collect()
        };
        match names.iter().position(String::is_empty) {
            Some(place) => Err(wrong(format!("expected a name for every class, found none for class {place}"))),
            None => Ok(Self::new(names)),
        }
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a class; its number where it has none.
    pub fn name(&self, class: usize) -> String {
        self.names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The class that each of `folders` means: by name (in any case, with `_` for spaces) or
    /// WordNet's number, else by the number that it is called, else by order, where there are as
    /// many folders as classes.
    ///
    /// # Errors
    /// [`Error::Data`] naming a folder that is no class, and both counts.
    pub fn match_folders(&self, folders: &[String]) -> Result<(Vec<usize>, Matched)> {
        let plain = |name: &str| name.to_lowercase().replace('_', " ");
        let names: Vec<String> = self.names.iter().map(|name| plain(name)).collect();
        let named = |folder: &String| {
            let (id, name) = (folder.as_str(), plain(folder));
            self.synsets.iter().position(|synset| *synset == id).or_else(|| names.iter().position(|n| *n == name))
        };
        let numbered = |folder: &String| folder.parse().ok().filter(|class| *class < names.len());
        let named: Result<Vec<usize>, &String> = folders.iter().map(|folder| named(folder).ok_or(folder)).collect();
        match (named, folders.iter().map(numbered).collect()) {
            (Ok(classes), _) => Ok((classes, Matched::Name)),
            (_, Some(classes)) => Ok((classes, Matched::Number)),
            _ if folders.len() == names.len() => Ok(((0..names.len()).collect(), Matched::Order)),
            (Err(folder), None) => Err(Error::data(
                folder.as_str(),
                format!(
                    "this folder is called like none of the {} classes, and {} folders cannot be matched by order",
                    names.len(),
                    folders.len()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn imagenet_has_a_thousand_different_names_in_the_usual_order() {
        let labels = Labels::of_count(1000);
        let different: std::collections::BTreeSet<&String> = labels.names().iter().collect();
        assert_eq!((labels.names().len(), different.len(), labels.synsets.len()), (1000, 1000, 1000));
        assert_eq!([0, 281, 504, 985, 999].map(|class| labels.name(class)), ["tench", "tabby", "coffee mug", "daisy", "toilet tissue"]);
        assert_eq!((labels.synsets[0], labels.synsets[281], labels.synsets[999]), ("n01440764", "n02123045", "n15075141"));
        assert_eq!(Labels::of_count(3).names(), ["0", "1", "2"]);
    }

    #[test]
    fn names_are_read_from_lines_and_lists() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Labels::read(&path)
        };
        for text in ["cat\nguide dog\n", "cat\r\nguide dog\r\n\r\n", "[\"cat\", \"guide dog\"]"] {
            assert_eq!(read(text).unwrap().names(), ["cat", "guide dog"]);
        }
        for (text, words) in [("cat\n\ndog\n", "class 1"), ("[1, 2]", "JSON list"), ("[\"a\"", "JSON list"), ("[\"\"]", "class 0")] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("names"), "{message}");
        }
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(Labels::read(&path).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn folders_find_their_classes() {
        let labels = Labels::imagenet();
        let found = |names: &[&str]| labels.match_folders(&strings(names)).unwrap();
        assert_eq!(found(&["tench", "Great_White_Shark"]), (vec![0, 2], Matched::Name));
        assert_eq!(found(&["n01440764", "n02123045"]), (vec![0, 281], Matched::Name));
        assert_eq!(found(&["0", "10", "2"]), (vec![0, 10, 2], Matched::Number));
        let message = labels.match_folders(&strings(&["tench", "wombatt"])).unwrap_err().to_string();
        assert!(message.contains("wombatt") && message.contains("1000") && message.contains("2 folders"), "{message}");
        let three = Labels::new(strings(&["a", "b", "c"]));
        assert_eq!(three.match_folders(&strings(&["x", "y", "z"])).unwrap(), (vec![0, 1, 2], Matched::Order));
        assert_eq!(three.match_folders(&strings(&["c", "a"])).unwrap(), (vec![2, 0], Matched::Name));
    }
}
