//! What published weights expect of pictures, by the name that timm gives them.

use super::ModelOptions;
use super::registry::{FAMILIES, model, split_tag};
use crate::error::{Error, Result};
use crate::io::Interpolation::Bicubic;
use crate::io::{Interpolation, Preprocessing};

/// Mean and standard deviation.
pub(super) type Statistics = ([f32; 3], [f32; 3]);

pub(super) const IMAGENET: Statistics = Preprocessing::IMAGENET;
pub(super) const HALF: Statistics = Preprocessing::INCEPTION;
pub(super) const NONE: Statistics = ([0.0; 3], [1.0; 3]);

/// A model, the tags of its published weights, and what they expect: timm 1.0's `default_cfgs`
/// (`input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`). A model's first tag is
/// the one that timm takes where none is given. The rows stand with the families.
pub(super) struct Published(&'static str, &'static str, Preprocessing);

pub(super) const fn published(
    name: &'static str,
    tags: &'static str,
    resolution: usize,
    crop: f64,
    interpolation: Interpolation,
    (mean, std): Statistics,
) -> Published {
    Published(name, tags, Preprocessing { resolution, crop, squash: false, interpolation, mean, std })
}

/// Resized without a look at the aspect ratio.
pub(super) const fn squashed(Published(name, tags, preprocessing): Published) -> Published {
    Published(name, tags, Preprocessing { squash: true, ..preprocessing })
}

fn rows() -> impl Iterator<Item = &'static Published> {
    FAMILIES.iter().flat_map(|family| family.published)
}

/// What the weights called `name` (`efficientnet_b0.ra4_e3600_r224_in1k`) expect of pictures; of a
/// name without a tag, those that timm takes for it. Models without published weights get their own
/// resolution and what is most usual.
///
/// # Errors
/// [`Error::Argument`] for a model that there is not, or a tag that its weights do not have, with
/// those that they have.
pub fn preprocessing(name: &str) -> Result<Preprocessing> {
    let (structure, tag) = split_tag(name);
    let rows = || rows().filter(|Published(name, ..)| *name == structure);
    if let Some(Published(.., found)) = rows().find(|Published(_, tags, _)| tag.is_empty() || tags.split(' ').any(|t| t == tag)) {
        return Ok(*found);
    }
    let tags: Vec<&str> = rows().flat_map(|Published(_, tags, _)| tags.split(' ')).filter(|tag| !tag.is_empty()).collect();
    if !tags.is_empty() {
        let message = format!("no weights of {structure} are known as \"{tag}\"; there are {}, or give no tag", tags.join(", "));
        return Err(Error::argument("model", message));
    }
    let (mean, std) = IMAGENET;
    let resolution = model(name, ModelOptions::default())?.resolution;
    Ok(Preprocessing { resolution, crop: 0.875, squash: false, interpolation: Bicubic, mean, std })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Interpolation::Bilinear;

    #[test]
    fn a_tag_chooses_the_row() {
        let found = |name| preprocessing(name).unwrap();
        assert_eq!(found("efficientnet_b0"), found("efficientnet_b0.ra_in1k"));
        let newer = found("efficientnet_b0.ra4_e3600_r224_in1k");
        assert_eq!((newer.crop, newer.mean), (0.9, [0.5; 3]));
        assert_eq!(found("resnet18.tv_in1k").interpolation, Bilinear);
        assert_eq!((found("tf_efficientnet_b7.ap_in1k").resolution, found("tf_efficientnet_b7.ap_in1k").mean), (600, [0.5; 3]));
        assert!(found("tf_efficientnetv2_m").squash);
        // No weights are published for these.
        assert_eq!(found("efficientnet_phi1.5").resolution, 276);
        assert_eq!(found("mobilenetv1_050.mine").mean, IMAGENET.0);
        let message = preprocessing("resnet34.a9_in1k").unwrap_err().to_string();
        assert!(message.contains("a9_in1k") && message.contains("bt_in1k"), "{message}");
        assert!(preprocessing("nonet_b0").is_err());
    }

    #[test]
    fn every_row_means_something_and_no_tag_comes_twice() {
        let mut names = std::collections::BTreeSet::new();
        for Published(name, tags, preprocessing) in rows() {
            preprocessing.check().unwrap();
            tags.split(' ').for_each(|tag| assert!(names.insert((name, tag)), "{name}.{tag}"));
        }
        // What timm makes of these, as pixels of the shorter side.
        let scaled = |name: &str| preprocessing(name).map(|p| (p.resolution as f64 / p.crop).floor() as usize).unwrap();
        let sides = [
            "tv_efficientnet_b1.IMAGENET1K_V2",
            "tv_efficientnet_b4",
            "tv_resnet50.IMAGENET1K_V2",
            "tv_vit_l_16",
            "efficientnet_b6",
            "resnet50",
        ];
        assert_eq!(sides.map(scaled), [255, 384, 232, 242, 560, 235]);
    }
}
