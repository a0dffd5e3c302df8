//! Networks by name: one line a family. Lists, help texts and errors follow from it.

use super::preprocessing::Published;
use super::{Model, ModelOptions, cnn, mobilenet, pixels, resnet, text_encoder, torchvision, vit};
use crate::error::{Error, Result};

/// Networks that one configuration describes, and one function reads the names of.
pub struct Family {
    /// The names that are listed.
    pub names: &'static [&'static str],
    /// Names with a parameter in them, and what it is.
    pub patterns: &'static [(&'static str, &'static str)],
    /// The network of a name without a tag; `None` where the name is another family's.
    pub(super) parse: fn(&str, &ModelOptions) -> Option<Result<Model>>,
    /// What published weights expect of pictures.
    pub(super) published: &'static [Published],
}

/// All of them.
pub const FAMILIES: &[Family] =
    &[mobilenet::FAMILY, resnet::FAMILY, vit::FAMILY, text_encoder::FAMILY, cnn::FAMILY, pixels::FAMILY, torchvision::FAMILY];

/// The names that are listed. [`model`] reads those of [`Family::patterns`], too.
pub fn model_names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.names).copied()
}

/// The network called `name`; timm's names where timm has them. A tag behind a dot
/// (`resnet18.a1_in1k`) names weights, not structure, and is passed over.
///
/// # Errors
/// [`Error::Argument`] listing all names where this is none of them, or naming an option that the
/// network does not have.
pub fn model(name: &str, options: ModelOptions) -> Result<Model> {
    let (structure, _) = split_tag(name);
    let found = FAMILIES.iter().find_map(|family| (family.parse)(structure, &options)).unwrap_or_else(|| {
        let patterns = FAMILIES.iter().flat_map(|family| family.patterns).map(|(pattern, _)| *pattern);
        Err(Error::unknown("model", name, model_names().chain(patterns)))
    });
    found.map(|model| Model { checkpoint_blocks: options.checkpoint_blocks, ..model })
}

/// A network's name and the tag of its weights, which is empty where there is none. Of a number the
/// dot is a point (`efficientnet_phi1.5`).
pub(super) fn split_tag(name: &str) -> (&str, &str) {
    let dots = name.match_indices('.').map(|(at, _)| name.split_at(at));
    let tagged = dots.map(|(structure, tag)| (structure, &tag[1..])).find(|(_, tag)| !tag.starts_with(|c: char| c.is_ascii_digit()));
    tagged.unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_points() {
        for (name, parts) in [
            ("resnet18", ("resnet18", "")),
            ("resnet18.a1_in1k", ("resnet18", "a1_in1k")),
            ("efficientnet_phi1.5", ("efficientnet_phi1.5", "")),
            ("efficientnet_phi1.5.mine", ("efficientnet_phi1.5", "mine")),
            ("resnet18.", ("resnet18", "")),
        ] {
            assert_eq!(split_tag(name), parts);
        }
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let message = model("nonet_b0", ModelOptions::default()).unwrap_err().to_string();
        for word in ["nonet_b0", "mobilenetv1_025", "pixels", "vit_SIZE_patchP_R"] {
            assert!(message.contains(word), "{message}");
        }
    }
}
