//! Other classes for the images of a data set: some of them, several as one, wrong ones.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use crate::error::{Error, Result, closest};
use crate::ops::loss::HIDDEN;
use crate::tensor::random::{Purpose, Stream};

/// A class of a data set, as recipes write it: `5`, `"Bag"`. A number is the class that is called
/// so, where one is, and else its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a class: its number or its name, as in 5 or \"Bag\"")]
pub enum Class {
    /// By its number.
    Number(u32),
    /// By its name, in capital letters or small ones.
    Name(String),
}

impl Class {
    /// The class that `text` names.
    pub fn of(text: &str) -> Self {
        let text = text.trim();
        // A name such as "007" is not 7.
        let number = text.parse().ok().filter(|number: &u32| number.to_string() == text);
        number.map_or_else(|| Self::Name(text.into()), Self::Number)
    }

    /// The classes that `list` names with commas between: `5, Bag`.
    pub fn list(list: &str) -> Vec<Self> {
        list.split([',', '+']).map(Self::of).collect()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One class, or several that are taken as one: `"Bag"`, `[0, 2, 4]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a class, or a list of classes that are taken as one, as in 5, \"Bag\" or [0, 2, \"Coat\"]")]
pub enum ClassGroup {
    /// A class by itself.
    One(Class),
    /// Several.
    Several(Vec<Class>),
}

impl ClassGroup {
    /// The groups that a line of text names, with commas between and `+` inside: `0+2+4, Bag`, as
    /// the command line takes them.
    pub fn list(list: &str) -> Vec<Self> {
        let group = |text: &str| match text.split_once('+') {
            None => Self::One(Class::of(text)),
            Some(_) => Self::Several(Class::list(text)),
        };
        list.split(',').map(group).collect()
    }

    /// Its classes.
    pub fn classes(&self) -> &[Class] {
        match self {
            Self::One(class) => std::slice::from_ref(class),
            Self::Several(classes) => classes,
        }
    }
}

impl Dataset {
    /// The images of the classes of `groups`, each group a class of its own; images of others are
    /// left out. A group that is a single class keeps its name, the names of several stand with `+`
    /// between.
    ///
    /// ```no_run
    /// use wgrad::data::{ClassGroup, Split, open};
    ///
    /// let all = open("data/fashion-mnist".as_ref(), Split::Train)?;
    /// let shoes_or_bags = all.regrouped(&ClassGroup::list("5+7+9, Bag"))?;
    /// assert_eq!(shoes_or_bags.class_names(), ["Sandal+Sneaker+Ankle boot", "Bag"]);
    /// # Ok::<(), wgrad::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for a class that there is not, or twice; [`Error::Data`] where no image
    /// is left.
    pub fn regrouped(&self, groups: &[ClassGroup]) -> Result<Self> {
        let groups = self.groups(groups)?;
        let kept: Vec<usize> = (0..self.len()).filter(|image| self.grouped(&groups, *image) != Some(HIDDEN)).collect();
        let part = self.subset(&kept)?;
        let labels = kept.iter().filter_map(|image| self.grouped(&groups, *image)).collect();
        part.relabelled(self.group_names(&groups), labels)
    }

    /// What `groups` make of this data set's labels, for all images; those of no group are hidden.
    /// With the groups' names.
    ///
    /// # Errors
    /// [`Error::Argument`] for a class that there is not, or twice.
    pub fn group_labels(&self, groups: &[ClassGroup]) -> Result<(Vec<String>, Vec<i32>)> {
        let groups = self.groups(groups)?;
        let labels = (0..self.len()).filter_map(|image| self.grouped(&groups, image)).collect();
        Ok((self.group_names(&groups), labels))
    }

    /// The images of all classes but `omitted`; the classes stay.
    ///
    /// # Errors
    /// As [`Self::regrouped`].
    pub fn without(&self, omitted: &[Class]) -> Result<Self> {
        let groups = self.groups(&[ClassGroup::Several(omitted.to_vec())])?;
        self.subset(&(0..self.len()).filter(|image| self.grouped(&groups, *image) == Some(HIDDEN)).collect::<Vec<_>>())
    }

    /// The same images, of whose labels the `share` is drawn anew from all classes (symmetric
    /// noise: 1 / classes of them are right again).
    ///
    /// # Errors
    /// [`Error::Argument`] for a share outside 0..=1.
    pub fn with_noise(&self, share: f32, seed: u32) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::argument("label_noise", format!("expected 0 to 1, found {share}")));
        }
        let classes = self.classes() as u32;
        let noisy = |(place, label): (u32, &i32)| {
            // One stream an image: the first draw says whether, the second what.
            let mut stream = Stream::keyed(seed, Purpose::Split.numbered(1 << 16), place);
            let replaced = stream.uniform() < share;
            if replaced && *label != HIDDEN { stream.below(classes) as i32 } else { *label }
        };
        self.relabelled(self.class_names().to_vec(), (0..).zip(self.labels()).map(noisy).collect())
    }

    /// The class that `name` names, by number or name.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none, with those that there are.
    pub fn class(&self, name: &str) -> Result<usize> {
        let by_name = self.class_names().iter().position(|own| own.eq_ignore_ascii_case(name));
        by_name.or_else(|| name.parse().ok().filter(|n| *n < self.classes())).ok_or_else(|| {
            let hint = closest(name, self.class_names().iter().map(String::as_str));
            let hint = hint.map_or("there".into(), |closest| format!("did you mean \"{closest}\"? There"));
            let (names, last) = (self.class_names().join(", "), self.classes() - 1);
            Error::argument(format!("a class of {}", self.name()), format!("there is no \"{name}\"; {hint} are {names} (or 0 to {last})"))
        })
    }

    fn groups(&self, groups: &[ClassGroup]) -> Result<Vec<Vec<usize>>> {
        let group = |group: &ClassGroup| group.classes().iter().map(|class| self.class(&class.to_string())).collect::<Result<Vec<_>>>();
        let groups = groups.iter().map(group).collect::<Result<Vec<_>>>()?;
        let mut all: Vec<usize> = groups.iter().flatten().copied().collect();
        all.sort_unstable();
        if let Some([class, _]) = all.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
            let name = self.class_names().get(*class).map_or("", String::as_str);
            return Err(Error::argument("classes", format!("class {class}, {name}, is named twice")));
        }
        Ok(groups)
    }

    fn grouped(&self, groups: &[Vec<usize>], image: usize) -> Option<i32> {
        let label = self.label(image)?;
        Some(groups.iter().position(|group| group.iter().any(|class| *class as i32 == label)).map_or(HIDDEN, |group| group as i32))
    }

    fn group_names(&self, groups: &[Vec<usize>]) -> Vec<String> {
        let name = |class: &usize| self.class_names().get(*class).cloned().unwrap_or_default();
        groups.iter().map(|group| group.iter().map(name).collect::<Vec<_>>().join("+")).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::dataset::tests::small;
    use super::*;

    #[test]
    fn classes_are_chosen_joined_and_left_out() {
        let dataset = small(40);
        let part = dataset.regrouped(&ClassGroup::list("d, a+c")).unwrap();
        assert_eq!((part.len(), part.class_names()), (30, ["d".to_string(), "a+c".into()].as_slice()));
        assert_eq!(part.labels()[..6], [1, 1, 0, 1, 1, 0]);
        assert_eq!(part.image(2), dataset.image(3));
        let (names, labels) = dataset.group_labels(&ClassGroup::list("3,0+2")).unwrap();
        assert_eq!((names, &labels[..4]), (vec!["d".to_string(), "a+c".into()], [1, HIDDEN, 1, 0].as_slice()));
        let rest = dataset.without(&Class::list("b")).unwrap();
        assert_eq!((rest.len(), rest.classes()), (30, 4));
        assert!(rest.labels().iter().all(|label| *label != 1));
        for (bad, words) in [("e", "there are a, b, c, d"), ("4", "0 to 3"), ("a, b+a", "class 0, a, is named twice")] {
            let message = dataset.regrouped(&ClassGroup::list(bad)).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn noise_replaces_the_share_of_labels_that_it_should() {
        let dataset = small(4000);
        let noisy = dataset.with_noise(0.4, 3).unwrap();
        let wrong = dataset.labels().iter().zip(noisy.labels()).filter(|(a, b)| a != b).count();
        // 0.4 * 3 / 4 of 4000, give or take four deviations.
        assert!((1090..=1310).contains(&wrong), "{wrong}");
        assert_eq!(dataset.with_noise(0.4, 3).unwrap(), noisy);
        assert_ne!(dataset.with_noise(0.4, 4).unwrap(), noisy);
        assert_eq!(dataset.with_noise(0.0, 3).unwrap(), dataset);
        assert!(dataset.with_noise(f32::NAN, 3).is_err());
    }
}
