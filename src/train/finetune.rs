//! What a recipe says about weights to begin from, and about which of them are trained how.

use std::collections::BTreeMap;

use super::methods::METHODS;
use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::io::HostTensor;
use crate::models::{HEADS, Model};
use crate::nn::{ParameterGroup, Parameters, Role, layer_decay, matches, state_dict};

/// The scopes that only their own task needs: classifiers of networks and heads of methods, each
/// once.
fn all_heads() -> Vec<&'static str> {
    let mut all = HEADS.to_vec();
    for head in METHODS.iter().flat_map(|entry| entry.heads) {
        if !all.contains(head) {
            all.push(head);
        }
    }
    all
}

/// Fills the parameters of `network` and its `heads` from the recipe's weights, which are of
/// another task. A head starts anew where the file has none, or a classifier for other classes, and
/// then with zeros (Kolesnikov et al. 2019, arXiv:1912.11370), since random logits of good features
/// are only in the way. Returns lines that say so, and which heads of the file were left out.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`] as [`Model::open_weights`]; [`Error::Data`] naming tensors that
/// are missing, extra or of another shape.
pub fn begin_from(params: &Parameters, recipe: &Recipe, network: &Model, heads: &[&str]) -> Result<Vec<String>> {
    let weights = &recipe.finetune.weights;
    let mut archive = network.open_weights(&recipe.model.name, weights)?;
    let mut notes = Vec::new();
    let all = state_dict::to_archive(params)?.tensors;
    for head in heads {
        let own: BTreeMap<_, _> = all.iter().filter(|(name, _)| matches(head, name)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let weight = format!("{head}.weight");
        let note = match (archive.tensors.get(&weight), own.get(&weight)) {
            (Some(found), Some(own))
                if found.shape() != own.shape() && found.shape().rank() == 2 && found.shape().last() == own.shape().last() =>
            {
                Some(format!("{head}: {} classes in the file, {} here: starts anew", found.shape().dim(0), own.shape().dim(0)))
            }
            _ if !archive.tensors.keys().any(|name| matches(head, name)) => Some(format!("{head}: not in the file: starts anew")),
            _ => None,
        };
        if let Some(note) = note {
            notes.push(note);
            let classifier = own.contains_key(&weight);
            for (name, initial) in own {
                let zeros = HostTensor::F32(initial.shape().clone(), vec![0.0; initial.shape().numel()]);
                // A projector of several layers would never leave zeros.
                archive.insert(name, if classifier { zeros } else { initial });
            }
        }
    }
    for other in all_heads().iter().filter(|other| !heads.contains(other)) {
        let before = archive.tensors.len();
        archive.tensors.retain(|name, _| !matches(other, name) || params.get(name).is_some());
        if archive.tensors.len() < before {
            notes.push(format!("{other}: in the file, not in the model: not used"));
        }
    }
    // A linear layer of another name is the head of a task that is not learnt here.
    let linear = |(name, tensor): (&String, &HostTensor)| {
        let scope = name.strip_suffix(".weight").filter(|scope| !scope.contains('.') && tensor.shape().rank() == 2)?;
        (!all.keys().any(|own| matches(scope, own))).then(|| scope.to_string())
    };
    let others: Vec<String> = archive.tensors.iter().filter_map(linear).collect();
    for other in others {
        archive.tensors.retain(|name, _| !matches(&other, name));
        notes.push(format!("{other}: in the file, not in the model: not used"));
    }
    state_dict::fill(params, &archive, &weights.display().to_string(), &[])?;
    Ok(notes)
}

impl Recipe {
    /// Freezes and groups the parameters of a learner with these `heads`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a pattern that means nothing, or where nothing is left to train.
    pub fn apply_to(&self, params: &Parameters, heads: &[&str]) -> Result<()> {
        self.freeze_in(params, heads)?;
        let values: Vec<_> = params.slots().into_iter().filter(|slot| slot.role != Role::Statistic).collect();
        if !values.is_empty() && values.iter().all(|slot| slot.frozen) {
            return Err(Error::argument("freeze", format!("\"{}\" leaves nothing to train", self.finetune.freeze.join(", "))));
        }
        let names: Vec<String> = values.into_iter().map(|slot| slot.name).collect();
        let decay = self.finetune.layer_decay;
        let mut groups = if decay < 1.0 { layer_decay(&names, heads, decay) } else { Vec::new() };
        groups.extend(self.finetune.groups.iter().map(ParameterGroup::from));
        if groups.is_empty() { Ok(()) } else { params.set_groups(&groups) }
    }

    /// How many layers learn with the head in `epoch`, where layers are unfrozen one after another.
    pub fn unfrozen(&self, epoch: u32) -> Option<u32> {
        epoch.checked_div(self.finetune.unfreeze_every)
    }

    /// Lets so many layers next to the `heads` learn, and no others; what the recipe freezes stays
    /// frozen.
    ///
    /// # Errors
    /// As [`Self::apply_to`].
    pub fn unfreeze(&self, params: &Parameters, heads: &[&str], layers: u32) -> Result<()> {
        params.freeze_layers(heads, layers as usize);
        self.freeze_in(params, heads)
    }

    fn freeze_in(&self, params: &Parameters, heads: &[&str]) -> Result<()> {
        for pattern in &self.finetune.freeze {
            match pattern.strip_prefix('!') {
                None if pattern == "backbone" => {
                    params.freeze("*", true)?;
                    heads.iter().try_for_each(|head| params.freeze(head, false).map(drop))?;
                }
                None => drop(params.freeze(pattern, true)?),
                Some(thawed) => drop(params.freeze(thawed, false)?),
            }
        }
        if self.finetune.freeze_batch_norm && params.slots().iter().any(|slot| slot.role == Role::Statistic) {
            params.freeze("*running_*", true)?;
        }
        Ok(())
    }
}
