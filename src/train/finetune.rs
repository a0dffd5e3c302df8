//! What a recipe says about weights to begin from, and about which of them are trained how.

use std::path::Path;

use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::io::{HostTensor, open_weights};
use crate::nn::{ParameterGroup, Parameters, Role, layer_decay, matches, state_dict};

/// What networks and methods call the part that only their own task needs.
const HEADS: [&str; 4] = ["classifier", "fc", "head", "proj"];

/// Fills a model from the weights of another task: all but its `head`, which starts anew where the file has none, or one for another number of
/// classes: with zeros (Kolesnikov et al. 2019, arXiv:1912.11370), since random logits of good features are only in the way. Returns lines
/// that say so, and which heads of the file were left out.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`] as [`open_weights`]; [`Error::Data`] naming tensors that are missing, extra or of another shape.
pub fn begin_from(params: &Parameters, head: &str, path: &Path) -> Result<Vec<String>> {
    let source = path.display().to_string();
    let mut archive = open_weights(path)?;
    let state = state_dict::state(params)?;
    let mut notes = Vec::new();
    let (weight, classes) = (format!("{head}.weight"), |tensor: &HostTensor| tensor.shape().dim(0));
    let own = state.iter().find(|(name, _)| *name == weight).map(|(_, shape)| shape);
    match (archive.tensors.get(&weight), own) {
        (Some(found), Some(own)) if found.shape() != own && found.shape().rank() == 2 && found.shape().last() == own.last() => {
            notes.push(format!("{head}: {} classes in the file, {} here: starts anew", classes(found), own.dim(0)));
            archive.tensors.retain(|name, _| !matches(head, name));
        }
        (None, _) => notes.push(format!("{head}: not in the file: starts anew")),
        _ => {}
    }
    for other in HEADS.iter().filter(|other| **other != head) {
        let before = archive.tensors.len();
        archive.tensors.retain(|name, _| !matches(other, name) || params.get(name).is_some());
        if archive.tensors.len() < before {
            notes.push(format!("{other}: in the file, not in the model: not used"));
        }
    }
    // Nothing is written where anything is wrong.
    let has = |name: &str| archive.tensors.contains_key(name) || (!notes.is_empty() && matches(head, name));
    let slots = params.slots();
    let missing: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).filter(|name| !has(name)).collect();
    let extra: Vec<&str> = archive.tensors.keys().filter(|key| !state.iter().any(|(name, _)| name == *key)).map(String::as_str).collect();
    if missing.is_empty() && extra.is_empty() {
        let report = state_dict::from_archive(params, &archive, &source)?;
        for head in report.missing.iter().filter_map(|name| params.get(name)) {
            head.plain()?.write(&vec![0.0f32; head.slot()?.shape.elements()])?;
        }
        return Ok(notes);
    }
    let list = |names: &[&str]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
    Err(Error::data(source, format!("does not fit the model; missing: {}; not in the model: {}", list(&missing), list(&extra))))
}

impl Recipe {
    /// Freezes and groups the parameters of a learner whose head is `head`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a pattern that means nothing, a group that cannot be read, or where nothing is left to train.
    pub fn apply_to(&self, params: &Parameters, head: &str) -> Result<()> {
        for word in words(&self.freeze) {
            match word.strip_prefix('!') {
                None if word == "backbone" => {
                    params.freeze("*", true)?;
                    params.freeze(head, false)?;
                }
                None => drop(params.freeze(word, true)?),
                Some(thawed) => drop(params.freeze(thawed, false)?),
            }
        }
        if self.freeze_batch_norm {
            params.freeze("*running_*", true)?;
        }
        let values: Vec<_> = params.slots().into_iter().filter(|slot| slot.role != Role::Statistic).collect();
        if !values.is_empty() && values.iter().all(|slot| slot.frozen) {
            return Err(Error::argument("freeze", format!("\"{}\" leaves nothing to train", self.freeze)));
        }
        let names: Vec<String> = values.into_iter().map(|slot| slot.name).collect();
        let mut groups = if self.layer_decay < 1.0 { layer_decay(&names, head, self.layer_decay) } else { Vec::new() };
        groups.extend(words(&self.groups).map(group).collect::<Result<Vec<_>>>()?);
        if groups.is_empty() { Ok(()) } else { params.set_groups(&groups) }
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// `PATTERN lr=FACTOR decay=FACTOR`, either of the two.
fn group(text: &str) -> Result<ParameterGroup> {
    let mut parts = text.split_whitespace();
    let mut group = ParameterGroup::new(parts.next().unwrap_or_default(), 1.0);
    for part in parts {
        let wrong = || Error::argument("groups", format!("\"{text}\": expected PATTERN lr=FACTOR decay=FACTOR, found \"{part}\""));
        let (key, value) = part.split_once('=').ok_or_else(wrong)?;
        let target = match key {
            "lr" => &mut group.learning_rate,
            "decay" => &mut group.weight_decay,
            _ => return Err(wrong()),
        };
        *target = value.parse().map_err(|_| wrong())?;
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_text() {
        let read = |text| words(text).map(group).collect::<Result<Vec<_>>>();
        let expected =
            [ParameterGroup::new("classifier", 10.0), ParameterGroup { weight_decay: 0.0, ..ParameterGroup::new("*.bias", 2.0) }];
        assert_eq!(read(" classifier lr=10, *.bias lr=2 decay=0,").unwrap(), expected);
        assert!(read("").unwrap().is_empty());
        for (bad, words) in [("a b", "\"b\""), ("a lr=x", "\"lr=x\""), ("a rate=1", "\"rate=1\"")] {
            let message = read(bad).unwrap_err().to_string();
            assert!(message.starts_with("groups") && message.contains(words), "{message}");
        }
    }
}
