//! Lists of views: which preset makes which view of an image.

use super::augmentation::Augmentation;
use crate::error::{Error, Result};

/// The most views of an image: random numbers are counted by a byte of the view.
const MOST: usize = 256;

/// The preset of each view, from a list of names with commas between, each perhaps after a count:
/// `dino_global_1, dino_global_2, 4 dino_local`. A single name without a count serves for all of `views` views.
///
/// ```
/// assert_eq!(wgrad::data::view_names("simclr", 2)?, ["simclr", "simclr"]);
/// assert_eq!(wgrad::data::view_names("byol_a, 2 byol_b", 2)?, ["byol_a", "byol_b", "byol_b"]);
/// # Ok::<(), wgrad::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for an empty entry, a count that is none, an unknown preset (with those that there are), more than 256 views.
pub fn view_names(list: &str, views: usize) -> Result<Vec<&str>> {
    let wrong = |message: String| Error::argument(format!("views \"{list}\""), message);
    let mut names = Vec::new();
    let alone = !list.contains(',');
    for entry in list.split(',') {
        let mut words = entry.split_whitespace();
        let (count, name) = match (words.next(), words.next(), words.next()) {
            (Some(name), None, None) => (if alone { views } else { 1 }, name),
            (Some(count), Some(name), None) => {
                let number = count.parse().ok().filter(|count| *count > 0);
                (number.ok_or_else(|| wrong(format!("expected a count before {name}, found \"{count}\"")))?, name)
            }
            _ => return Err(wrong(format!("expected names with commas between, each perhaps after a count, found \"{}\"", entry.trim()))),
        };
        if !Augmentation::PRESETS.contains(&name) {
            return Err(wrong(format!("there is no preset called \"{name}\"; there are {}", Augmentation::PRESETS.join(", "))));
        }
        if count > MOST - names.len() {
            return Err(wrong(format!("an image has at most {MOST} views")));
        }
        names.extend(std::iter::repeat_n(name, count));
    }
    Ok(names)
}

impl Augmentation {
    /// The pipeline of each view of a list, see [`view_names`], each a [`preset`](Self::preset) for images of `[height, width]`: the one at
    /// place `v` is for view `v`.
    ///
    /// # Errors
    /// As [`view_names`].
    pub fn views(list: &str, views: usize, seed: u32, size: [usize; 2]) -> Result<Vec<Self>> {
        view_names(list, views)?.into_iter().map(|name| Self::preset(name, seed, size)).collect()
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
            assert_eq!(view_names(list, 3).unwrap(), views, "{list}");
            let presets = views.iter().map(|name| Augmentation::preset(name, 5, [32, 28]).unwrap()).collect::<Vec<_>>();
            assert_eq!(Augmentation::views(list, 3, 5, [32, 28]).unwrap(), presets, "{list}");
        }
        for (list, words) in [
            ("", "found \"\""),
            ("simclr,", "found \"\""),
            ("byol_a, simclr3", "no preset called \"simclr3\"; there are none, "),
            ("byol_a; byol_b", "a count before byol_b, found \"byol_a;\""),
            ("0 byol_a", "a count before byol_a, found \"0\""),
            ("-1 byol_a", "found \"-1\""),
            ("1 2 byol_a", "found \"1 2 byol_a\""),
            ("byol_a, 256 byol_b", "at most 256 views"),
            ("18446744073709551615 byol_a", "at most 256 views"),
        ] {
            let error = view_names(list, 2).unwrap_err().to_string();
            assert!(error.starts_with(&format!("views \"{list}\"")) && error.contains(words), "{error}");
        }
    }
}
