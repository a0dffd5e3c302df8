//! Which parameters are trained, and how fast: freezing, groups with rates of their own, rates that
//! fall from layer to layer.

use std::collections::HashMap;

use super::{ParameterSlot, Parameters, Role};
use crate::error::{Error, Result};

/// Parameters with a learning rate and a weight decay of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterGroup {
    /// Which: see [`matches()`].
    pub pattern: String,
    /// Multiplies the learning rate.
    pub learning_rate: f32,
    /// Multiplies the weight decay.
    pub weight_decay: f32,
}

impl ParameterGroup {
    /// A group with its own learning rate.
    pub fn new(pattern: impl Into<String>, learning_rate: f32) -> Self {
        Self { pattern: pattern.into(), learning_rate, weight_decay: 1.0 }
    }
}

/// Whether `pattern` means the parameter `name`: its whole name, or a scope that it lies in, with
/// `*` for any text. `blocks.1` means all of that block and nothing of `blocks.10`; `*.bias` all
/// biases; `*.bn1` the first norm of each block.
///
/// ```
/// use wgrad::nn::matches;
///
/// assert!(matches("blocks.1", "blocks.1.bn1.weight") && !matches("blocks.1", "blocks.10.bn1.weight"));
/// assert!(matches("blocks.*.bias", "blocks.1.bn1.bias") && matches("*", "classifier.weight"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let ends = |tail: &str| tail.is_empty() || tail.starts_with('.');
    let Some((first, rest)) = pattern.split_once('*') else { return name.strip_prefix(pattern).is_some_and(ends) };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The leftmost place of each part leaves the most for the others.
    let tail = middle.split('*').try_fold(name.strip_prefix(first), |tail, part| Some(Some(tail?.split_once(part)?.1))).flatten();
    tail.is_some_and(|tail| (0..=tail.len()).any(|at| tail.get(at..).and_then(|tail| tail.strip_prefix(last)).is_some_and(ends)))
}

impl Parameters {
    /// Freezes (or thaws) all that `pattern` means, running statistics as well; how many it were.
    /// What is frozen keeps its value and its optimizer's state, and no gradient is computed for
    /// it. A batch norm whose running statistics are frozen normalises by them in training, too,
    /// and a scope that is frozen altogether has no stochastic depth: so a frozen part of a network
    /// computes what it computes in [`Mode::Eval`](super::Mode), and where nothing before it is
    /// trained it keeps nothing for the backward pass.
    ///
    /// # Errors
    /// [`Error::Argument`] with some of the names that there are where the pattern means none.
    pub fn freeze(&self, pattern: &str, frozen: bool) -> Result<usize> {
        self.edit_matching(pattern, |slot| slot.frozen = frozen)
    }

    /// Gives every parameter the products of the multipliers of the groups that it is in, 1 where
    /// it is in none. Earlier groups are gone.
    ///
    /// # Errors
    /// As [`Self::freeze`]; a multiplier that is negative or not finite.
    pub fn set_groups(&self, groups: &[ParameterGroup]) -> Result<()> {
        let sound = |value: f32| value.is_finite() && value >= 0.0;
        if let Some(group) = groups.iter().find(|g| !sound(g.learning_rate) || !sound(g.weight_decay)) {
            let message = format!("multipliers must be finite and not negative, found {} and {}", group.learning_rate, group.weight_decay);
            return Err(Error::argument(format!("group \"{}\"", group.pattern), message));
        }
        self.edit(|slot| (slot.learning_rate, slot.weight_decay) = (1.0, 1.0));
        for group in groups {
            self.edit_matching(&group.pattern, |slot| {
                slot.learning_rate *= group.learning_rate;
                slot.weight_decay *= group.weight_decay;
            })?;
        }
        Ok(())
    }

    /// Freezes all layers (see [`layer_decay`]) but the `trained` ones nearest to the `heads`,
    /// which stay as they are, and thaws these; how many layers there are.
    pub fn freeze_layers(&self, heads: &[&str], trained: usize) -> usize {
        let names: Vec<String> = self.slots().into_iter().map(|slot| slot.name).collect();
        let (depths, count) = layers(&names, heads);
        let frozen: Vec<Option<bool>> = depths.into_iter().map(|depth| Some(depth? + trained < count)).collect();
        // What changes nothing should not outdate what was captured.
        if self.slots().iter().zip(&frozen).any(|(slot, frozen)| frozen.is_some_and(|frozen| frozen != slot.frozen)) {
            let mut frozen = frozen.into_iter();
            self.edit(|slot| slot.frozen = frozen.next().flatten().unwrap_or(slot.frozen));
        }
        count
    }

    fn edit_matching(&self, pattern: &str, change: impl Fn(&mut ParameterSlot)) -> Result<usize> {
        let mut count = 0;
        self.edit(|slot| {
            if matches(pattern, &slot.name) {
                change(slot);
                count += 1;
            }
        });
        if count > 0 {
            return Ok(count);
        }
        let names: Vec<String> = self.slots().into_iter().map(|slot| slot.name).collect();
        let few = names.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(6);
        Err(Error::argument("parameters", format!("\"{pattern}\" means none of {few} and {more} more; * stands for any text")))
    }

    /// Whether this scope has parameters and all are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let mut values = self.all().into_iter().filter_map(|p| p.slot().ok()).filter(|slot| slot.role != Role::Statistic).peekable();
        values.peek().is_some() && values.all(|slot| slot.frozen)
    }
}

/// Learning rates that fall by `factor` from layer to layer, from the `heads` down to the stem
/// (BEiT, Bao et al. 2021; timm's `layer_decay`): a group for each of the `names`, which are in the
/// order of the state. A layer is a block (`blocks.5`, `blocks.2.0`, `layer2.0`: numbers behind the
/// first part of a name); all before the first block is one, too; what comes between the last block
/// and the head goes with that block.
pub fn layer_decay(names: &[String], heads: &[&str], factor: f32) -> Vec<ParameterGroup> {
    let (depths, last) = layers(names, heads);
    let group = |(name, depth): (&String, Option<usize>)| {
        ParameterGroup::new(name, factor.powi(last.saturating_sub(depth.unwrap_or(last)).try_into().unwrap_or(i32::MAX)))
    };
    names.iter().zip(depths).map(group).collect()
}

/// The layer of each name, from 0 at the stem, and none for a head's; with the number of layers.
fn layers(names: &[String], heads: &[&str]) -> (Vec<Option<usize>>, usize) {
    let mut blocks = HashMap::new();
    let mut layer = 0;
    let mut depths = Vec::new();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        let numbers = parts.iter().skip(1).take_while(|part| part.parse::<u32>().is_ok()).count();
        let head = heads.iter().any(|head| matches(head, name));
        if numbers > 0 && !head {
            let next = blocks.len() + 1;
            layer = *blocks.entry(parts.get(..=numbers).unwrap_or_default().join(".")).or_insert(next);
        }
        depths.push(if head { None } else { Some(layer) });
    }
    (depths, blocks.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names_and_scopes() {
        for (pattern, yes, no) in [
            ("blocks.1", "blocks.1.conv.weight", "blocks.10.conv.weight"),
            ("blocks.1.conv.weight", "blocks.1.conv.weight", "blocks.1.conv.weight2"),
            ("blocks.*.bias", "blocks.1.0.bias", "blocks.1.0.weight"),
            ("*.bn1", "blocks.0.bn1.weight", "bn1.weight"),
            ("*bn1", "bn1.weight", "bn10.weight"),
            ("*", "classifier.weight", ""),
            ("*aa", "baaa", "aab"),
            ("a*b*c", "a.b.b.c", "a.c.b"),
            ("a*b*b.c", "axbxb.c.weight", "axb.c"),
            ("**", "x", ""),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(no.is_empty() || !matches(pattern, no), "{pattern} {no}");
        }
        // Many stars cost no more than their number.
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
    }

    /// What timm's `group_parameters` of `group_matcher` says, less the parts of a block.
    #[test]
    fn layers_are_timms() {
        let depths = |names: &[&str], head: &str| -> Vec<i32> {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            layer_decay(&names, &[head], 0.5).iter().map(|g| -g.learning_rate.log2() as i32).collect()
        };
        let efficientnet = [
            "conv_stem.weight",
            "bn1.weight",
            "blocks.0.0.conv_dw.weight",
            "blocks.1.0.bn1.bias",
            "blocks.1.1.se.conv_reduce.weight",
            "blocks.1.1.bn3.weight",
            "conv_head.weight",
            "bn2.bias",
            "classifier.bias",
        ];
        assert_eq!(depths(&efficientnet, "classifier"), [4, 4, 3, 2, 1, 1, 1, 1, 0]);
        let resnet =
            ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer1.1.downsample.0.weight", "layer2.0.bn1.weight", "fc.weight"];
        assert_eq!(depths(&resnet, "fc"), [4, 4, 3, 2, 1, 0]);
        let vit = [
            "cls_token",
            "pos_embed",
            "patch_embed.proj.weight",
            "blocks.0.norm1.weight",
            "blocks.1.mlp.fc1.bias",
            "norm.weight",
            "head.bias",
        ];
        assert_eq!(depths(&vit, "head"), [3, 3, 3, 2, 1, 1, 0]);
        assert_eq!(depths(&["conv1.weight", "classifier.weight", "classifier.bias"], "classifier"), [1, 0, 0]);
        assert_eq!(depths(&["proj.0.weight", "proj.2.weight"], "proj"), [0, 0]);
    }
}
