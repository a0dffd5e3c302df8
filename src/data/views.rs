//! Lists of views: which preset makes which view of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::augmentation::Augmentation;
use crate::error::{Error, Result};

/// The most views of an image: random numbers are counted by a byte of the view.
const MOST: usize = 256;

/// Which preset makes which view of an image, as recipes write it: `"simclr"` for all views, or a
/// list with an entry for each, a name or a preset with a count:
///
/// ```toml
/// views = ["dino_global_1", "dino_global_2", { preset = "dino_local", count = 8 }]
/// ```
///
/// On the command line it is a line of text: names with commas between, each perhaps after a count.
/// A single name without a count serves for all views.
///
/// ```
/// use wgrad::data::Views;
///
/// assert_eq!("simclr".parse::<Views>()?.names(2)?, ["simclr", "simclr"]);
/// assert_eq!("byol_a, 2 byol_b".parse::<Views>()?.names(2)?, ["byol_a", "byol_b", "byol_b"]);
/// # Ok::<(), wgrad::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a preset, or a list of presets, each a name or { preset = NAME, count = NUMBER }")]
pub enum Views {
    /// The same preset for all views of the method.
    All(String),
    /// Presets, in the order of the views.
    Each(Vec<View>),
}

/// An entry of [`Views::Each`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a preset's name, or { preset = NAME, count = NUMBER }")]
pub enum View {
    /// One view by a preset.
    Preset(String),
    /// Several by one.
    Several {
        /// The preset's name.
        preset: String,
        /// How many views.
        count: usize,
    },
}

impl View {
    fn parts(&self) -> (&str, usize) {
        match self {
            Self::Preset(preset) => (preset, 1),
            Self::Several { preset, count } => (preset, *count),
        }
    }
}

impl Views {
    /// The preset of each view: `views` are those of the method, where one preset serves for all.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty list, a count of 0, an unknown preset (with those that
    /// there are), more than 256 views.
    pub fn names(&self, views: usize) -> Result<Vec<&str>> {
        let wrong = |message: String| Error::argument("views", message);
        let entries = match self {
            Self::All(preset) => vec![(preset.as_str(), views)],
            Self::Each(list) => list.iter().map(View::parts).collect(),
        };
        if entries.is_empty() {
            return Err(wrong("expected at least one preset, found none".into()));
        }
        let mut names = Vec::new();
        for (name, count) in entries {
            if !Augmentation::PRESETS.contains(&name) {
                return Err(Error::unknown("views", name, Augmentation::PRESETS));
            }
            if count == 0 {
                return Err(wrong(format!("expected a count of at least 1 for {name}, found 0")));
            }
            if count > MOST - names.len() {
                return Err(wrong(format!("an image has at most {MOST} views")));
            }
            names.extend(std::iter::repeat_n(name, count));
        }
        Ok(names)
    }

    /// The preset of the first view.
    ///
    /// # Errors
    /// As [`Self::names`].
    pub fn first(&self) -> Result<&str> {
        Ok(self.names(1)?.first().copied().unwrap_or("none"))
    }
}

impl Default for Views {
    fn default() -> Self {
        Self::All("none".into())
    }
}

impl fmt::Display for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = |view: &View| match view {
            View::Preset(preset) => preset.clone(),
            View::Several { preset, count } => format!("{count} {preset}"),
        };
        match self {
            Self::All(preset) => f.write_str(preset),
            Self::Each(list) => f.write_str(&list.iter().map(entry).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl FromStr for Views {
    type Err = Error;

    /// # Errors
    /// [`Error::Argument`] for an empty entry or a count that is none. Presets are looked up by
    /// [`Self::names`].
    fn from_str(list: &str) -> Result<Self> {
        let wrong = |message: String| Error::argument(format!("views \"{list}\""), message);
        let mut views = Vec::new();
        for entry in list.split(',') {
            let mut words = entry.split_whitespace();
            views.push(match (words.next(), words.next(), words.next()) {
                (Some(preset), None, None) if !list.contains(',') => return Ok(Self::All(preset.into())),
                (Some(preset), None, None) => View::Preset(preset.into()),
                (Some(count), Some(preset), None) => {
                    let number = count.parse().ok().filter(|count| *count > 0);
                    let count = number.ok_or_else(|| wrong(format!("expected a count before {preset}, found \"{count}\"")))?;
                    View::Several { preset: preset.into(), count }
                }
                _ => {
                    let entry = entry.trim();
                    return Err(wrong(format!("expected names with commas between, each perhaps after a count, found \"{entry}\"")));
                }
            });
        }
        Ok(Self::Each(views))
    }
}

impl Augmentation {
    /// The pipeline of each view, see [`Views::names`], each a [`preset`](Self::preset) for images
    /// of `[height, width]`: the one at place `v` is for view `v`.
    ///
    /// # Errors
    /// As [`Views::names`].
    pub fn views(list: &Views, views: usize, seed: u32, size: [usize; 2]) -> Result<Vec<Self>> {
        list.names(views)?.into_iter().map(|name| Self::preset(name, seed, size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_views_are_read() {
        for (list, views) in [
            ("simclr", &["simclr"; 3][..]),
            (" 2 simclr ", &["simclr", "simclr"]),
            ("byol_a,byol_b", &["byol_a", "byol_b"]),
            ("dino_global_1, dino_global_2, 2  dino_local", &["dino_global_1", "dino_global_2", "dino_local", "dino_local"]),
        ] {
            let list: Views = list.parse().unwrap();
            assert_eq!(list.names(3).unwrap(), views, "{list}");
            assert_eq!(list.to_string().parse::<Views>().unwrap(), list);
            let presets = views.iter().map(|name| Augmentation::preset(name, 5, [32, 28]).unwrap()).collect::<Vec<_>>();
            assert_eq!(Augmentation::views(&list, 3, 5, [32, 28]).unwrap(), presets, "{list}");
        }
        for (list, words) in [
            ("", "found \"\""),
            ("simclr,", "found \"\""),
            ("byol_a, simclr3", "there is no \"simclr3\"; did you mean \"simclr\"? There are none, "),
            ("byol_a; byol_b", "a count before byol_b, found \"byol_a;\""),
            ("0 byol_a", "a count before byol_a, found \"0\""),
            ("-1 byol_a", "found \"-1\""),
            ("1 2 byol_a", "found \"1 2 byol_a\""),
            ("byol_a, 256 byol_b", "at most 256 views"),
            ("18446744073709551615 byol_a", "at most 256 views"),
        ] {
            let error = list.parse().and_then(|views: Views| views.names(2).map(drop)).unwrap_err().to_string();
            assert!(error.starts_with("views") && error.contains(words), "{error}");
        }
    }
}
