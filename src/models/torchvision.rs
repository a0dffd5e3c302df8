//! torchvision's networks are timm's by other names, and some with other batch norms. Its names of
//! tensors become timm's and back; `tv_` before one of its networks' names is that network with its
//! batch norms.

use super::mobilenet::{Head, Kind, MobileNetConfig};
use super::preprocessing::{HALF, IMAGENET, Published, published};
use super::registry::{Family, model};
use super::{Model, ModelOptions};
use crate::error::{Error, Result};
use crate::io::Interpolation::{Bicubic, Bilinear};
use crate::io::{Archive, HostTensor};
use crate::ops::activation::Activation;
use crate::tensor::Shape;

/// torchvision's name, timm's of the same structure, and batch norm's eps and momentum (torchvision
/// 0.29, `models/*.py`).
const NETWORKS: &[(&str, &str, f32, f32)] = &[
    ("mobilenet_v2", "mobilenetv2_100", 1e-5, 0.1),
    ("mobilenet_v3_large", "mobilenetv3_large_100", 1e-3, 0.01),
    ("mobilenet_v3_small", "mobilenetv3_small_100", 1e-3, 0.01),
    ("efficientnet_b0", "efficientnet_b0", 1e-5, 0.1),
    ("efficientnet_b1", "efficientnet_b1", 1e-5, 0.1),
    ("efficientnet_b2", "efficientnet_b2", 1e-5, 0.1),
    ("efficientnet_b3", "efficientnet_b3", 1e-5, 0.1),
    ("efficientnet_b4", "efficientnet_b4", 1e-5, 0.1),
    ("efficientnet_b5", "efficientnet_b5", 1e-3, 0.01),
    ("efficientnet_b6", "efficientnet_b6", 1e-3, 0.01),
    ("efficientnet_b7", "efficientnet_b7", 1e-3, 0.01),
    ("efficientnet_v2_s", "efficientnetv2_s", 1e-3, 0.1),
    ("efficientnet_v2_m", "efficientnetv2_m", 1e-3, 0.1),
    ("efficientnet_v2_l", "efficientnetv2_l", 1e-3, 0.1),
    ("resnet18", "resnet18", 1e-5, 0.1),
    ("resnet34", "resnet34", 1e-5, 0.1),
    ("resnet50", "resnet50", 1e-5, 0.1),
    ("resnet101", "resnet101", 1e-5, 0.1),
    ("resnet152", "resnet152", 1e-5, 0.1),
    ("vit_b_16", "vit_base_patch16_224", 0.0, 0.0),
    ("vit_b_32", "vit_base_patch32_224", 0.0, 0.0),
    ("vit_l_16", "vit_large_patch16_224", 0.0, 0.0),
    ("vit_l_32", "vit_large_patch32_224", 0.0, 0.0),
];

/// torchvision's networks.
pub(super) const FAMILY: Family = Family {
    names: &[],
    patterns: &[("tv_NAME", "torchvision's network of that name, with its batch norms")],
    parse,
    published: PUBLISHED,
};

fn parse(name: &str, options: &ModelOptions) -> Option<Result<Model>> {
    let name = name.strip_prefix("tv_")?;
    let unknown = || {
        let names: Vec<&str> = NETWORKS.iter().map(|(own, ..)| *own).collect();
        Error::argument("model", format!("torchvision has no \"{name}\"; it has {}", names.join(", ")))
    };
    let found = NETWORKS.iter().find(|(own, ..)| *own == name).ok_or_else(unknown);
    Some(found.and_then(|(_, timm, eps, momentum)| Ok(model(timm, *options)?.with_norm(*eps, *momentum))))
}

/// torchvision 0.29's names of weights (`models/*.py`).
#[rustfmt::skip]
const PUBLISHED: &[Published] = &[
    published("tv_mobilenet_v2", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_mobilenet_v2", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    published("tv_mobilenet_v3_large", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_mobilenet_v3_large", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    published("tv_mobilenet_v3_small", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_efficientnet_b0", "IMAGENET1K_V1", 224, 0.875, Bicubic, IMAGENET),
    published("tv_efficientnet_b1", "IMAGENET1K_V1", 240, 0.9375, Bicubic, IMAGENET),
    published("tv_efficientnet_b1", "IMAGENET1K_V2", 240, 0.941, Bilinear, IMAGENET),
    published("tv_efficientnet_b2", "IMAGENET1K_V1", 288, 1.0, Bicubic, IMAGENET),
    published("tv_efficientnet_b3", "IMAGENET1K_V1", 300, 0.9375, Bicubic, IMAGENET),
    published("tv_efficientnet_b4", "IMAGENET1K_V1", 380, 0.9895, Bicubic, IMAGENET),
    published("tv_efficientnet_b5", "IMAGENET1K_V1", 456, 1.0, Bicubic, IMAGENET),
    published("tv_efficientnet_b6", "IMAGENET1K_V1", 528, 1.0, Bicubic, IMAGENET),
    published("tv_efficientnet_b7", "IMAGENET1K_V1", 600, 1.0, Bicubic, IMAGENET),
    published("tv_efficientnet_v2_s", "IMAGENET1K_V1", 384, 1.0, Bilinear, IMAGENET),
    published("tv_efficientnet_v2_m", "IMAGENET1K_V1", 480, 1.0, Bilinear, IMAGENET),
    published("tv_efficientnet_v2_l", "IMAGENET1K_V1", 480, 1.0, Bicubic, HALF),
    published("tv_resnet18", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_resnet34", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_resnet50", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_resnet50", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    published("tv_resnet101", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_resnet101", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    published("tv_resnet152", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_resnet152", "IMAGENET1K_V2", 224, 0.9655, Bilinear, IMAGENET),
    published("tv_vit_b_16", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384, 1.0, Bicubic, IMAGENET),
    published("tv_vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1", 224, 1.0, Bicubic, IMAGENET),
    published("tv_vit_b_32", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
    published("tv_vit_l_16", "IMAGENET1K_V1", 224, 0.925, Bilinear, IMAGENET),
    published("tv_vit_l_16", "IMAGENET1K_SWAG_E2E_V1", 512, 1.0, Bicubic, IMAGENET),
    published("tv_vit_l_16", "IMAGENET1K_SWAG_LINEAR_V1", 224, 1.0, Bicubic, IMAGENET),
    published("tv_vit_l_32", "IMAGENET1K_V1", 224, 0.875, Bilinear, IMAGENET),
];

/// Whether the names in a file are torchvision's where they differ from timm's.
pub fn is_torchvision(archive: &Archive) -> bool {
    ["features.0.0.weight", "conv_proj.weight"].iter().any(|name| archive.tensors.contains_key(*name))
}

/// timm's names of a block's convolutions and batch norms.
fn layers(kind: Kind) -> &'static [[&'static str; 2]] {
    match kind {
        Kind::DepthwiseSeparable | Kind::DepthwiseSeparableActivated => &[["conv_dw", "bn1"], ["conv_pw", "bn2"]],
        Kind::InvertedResidual => &[["conv_pw", "bn1"], ["conv_dw", "bn2"], ["conv_pwl", "bn3"]],
        Kind::FusedResidual => &[["conv_exp", "bn1"], ["conv_pwl", "bn2"]],
        Kind::Convolution => &[["conv", "bn1"]],
    }
}

/// The three ways in which torchvision numbers a mobile network's layers.
#[derive(Clone, Copy, PartialEq)]
enum Numbering {
    MobileNetV2,
    MobileNetV3,
    EfficientNet,
}

/// The beginnings of names that stand for one another: timm's, torchvision's.
pub type Renames = Vec<(String, String)>;

/// Those of a mobile network.
pub(super) fn mobile(config: &MobileNetConfig) -> Option<Renames> {
    let numbering = match (config.head, config.style.activation) {
        (Head::PoolFirst(_), _) => Numbering::MobileNetV3,
        (Head::Convolution(_), Activation::Silu) => Numbering::EfficientNet,
        (Head::Convolution(_), _) => Numbering::MobileNetV2,
        (Head::Pool, _) => return None,
    };
    let mut pairs = Renames::new();
    let mut pair = |timm: String, torchvision: String| pairs.push((format!("{timm}."), format!("{torchvision}.")));
    pair("conv_stem".into(), "features.0.0".into());
    pair("bn1".into(), "features.0.1".into());
    let mut number = 0;
    for (stage, blocks) in config.stages.iter().enumerate() {
        for (index, block) in blocks.iter().enumerate() {
            number += 1;
            let timm = format!("blocks.{stage}.{index}");
            let inside = match numbering {
                Numbering::EfficientNet => format!("features.{}.{index}.block.", stage + 1),
                Numbering::MobileNetV3 if block.kind == Kind::Convolution => format!("features.{number}."),
                Numbering::MobileNetV3 => format!("features.{number}.block."),
                Numbering::MobileNetV2 => format!("features.{number}.conv."),
            };
            let names = layers(block.kind);
            let last = names.len() - 1;
            for (place, [convolution, norm]) in names.iter().enumerate() {
                let squeezed = block.squeezed > 0 && place == last;
                if squeezed {
                    pair(format!("{timm}.se.conv_reduce"), format!("{inside}{place}.fc1"));
                    pair(format!("{timm}.se.conv_expand"), format!("{inside}{place}.fc2"));
                }
                let place = place + usize::from(squeezed);
                let both = match numbering {
                    // Without a group of their own.
                    Numbering::MobileNetV2 if place == last => [place, place + 1].map(|p| p.to_string()),
                    Numbering::MobileNetV3 if block.kind == Kind::Convolution => ["0".into(), "1".into()],
                    _ => [0, 1].map(|p| format!("{place}.{p}")),
                };
                for (layer, place) in [convolution, norm].into_iter().zip(both) {
                    pair(format!("{timm}.{layer}"), format!("{inside}{place}"));
                }
            }
        }
    }
    let behind = if numbering == Numbering::EfficientNet { config.stages.len() } else { number } + 1;
    if numbering == Numbering::MobileNetV3 {
        pair("conv_head".into(), "classifier.0".into());
        pair("classifier".into(), "classifier.3".into());
    } else {
        pair("conv_head".into(), format!("features.{behind}.0"));
        pair("bn2".into(), format!("features.{behind}.1"));
        pair("classifier".into(), "classifier.1".into());
    }
    Some(pairs)
}

/// Those of a vision transformer of so many blocks.
pub(super) fn transformer(depth: usize) -> Renames {
    let mut pairs: Renames = [
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("patch_embed.proj.", "conv_proj."),
        ("norm.", "encoder.ln."),
        ("head.", "heads.head."),
    ]
    .map(|(timm, torchvision)| (timm.into(), torchvision.into()))
    .into();
    for block in 0..depth {
        for (timm, torchvision) in [
            ("norm1.", "ln_1."),
            ("attn.qkv.", "self_attention.in_proj_"),
            ("attn.proj.", "self_attention.out_proj."),
            ("norm2.", "ln_2."),
            ("mlp.fc1.", "mlp.0."),
            ("mlp.fc2.", "mlp.3."),
            // As in the published files, which torchvision renames when it loads them.
            ("mlp.fc1.", "mlp.linear_1."),
            ("mlp.fc2.", "mlp.linear_2."),
        ] {
            pairs.push((format!("blocks.{block}.{timm}"), format!("encoder.layers.encoder_layer_{block}.{torchvision}")));
        }
    }
    pairs
}

impl Model {
    fn pairs(&self) -> Result<Renames> {
        let pairs = self.architecture.torchvision();
        pairs.ok_or_else(|| Error::argument("torchvision", "has no network of this structure, so its tensors have no names there"))
    }

    /// torchvision's tensors of this network by timm's names. Other names stay as they are.
    ///
    /// # Errors
    /// [`Error::Argument`] where torchvision has no such network.
    pub fn timm_names(&self, archive: Archive) -> Result<Archive> {
        let pairs: Renames = self.pairs()?.into_iter().map(|(timm, torchvision)| (torchvision, timm)).collect();
        // MobileNetV3's is a linear layer there and a 1x1 convolution in timm.
        Ok(renamed(archive, &pairs, |name, shape| match shape {
            [outputs, inputs] if name == "conv_head.weight" => [*outputs, *inputs, 1, 1].into(),
            _ => shape.into(),
        }))
    }

    /// This network's tensors by torchvision's names, the other way round.
    ///
    /// # Errors
    /// As [`Self::timm_names`].
    pub fn torchvision_names(&self, archive: Archive) -> Result<Archive> {
        Ok(renamed(archive, &self.pairs()?, |name, shape| match shape {
            [outputs, inputs, 1, 1] if name == "classifier.0.weight" => [*outputs, *inputs].into(),
            _ => shape.into(),
        }))
    }
}

fn renamed(archive: Archive, pairs: &Renames, reshape: impl Fn(&str, &[usize]) -> Shape) -> Archive {
    let new = |name: String| pairs.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?))).unwrap_or(name);
    let tensor = |(name, tensor): (String, HostTensor)| {
        let name = new(name);
        let tensor = match tensor {
            HostTensor::F32(shape, data) => HostTensor::F32(reshape(&name, &shape), data),
            other => other,
        };
        (name, tensor)
    };
    Archive { tensors: archive.tensors.into_iter().map(tensor).collect(), text: archive.text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Archive {
        let tensors = names.iter().map(|name| (name.to_string(), HostTensor::F32([0].into(), Vec::new()))).collect();
        Archive { tensors, ..Default::default() }
    }

    #[test]
    fn a_transformers_names_go_there_and_back() {
        let vit = model("tv_vit_b_16", ModelOptions::default()).unwrap();
        let block = "encoder.layers.encoder_layer_10";
        let theirs = ["class_token", "encoder.pos_embedding", "conv_proj.bias", "encoder.ln.weight", "heads.head.weight"];
        let inside = ["self_attention.in_proj_weight", "self_attention.out_proj.bias", "ln_2.bias", "mlp.0.weight", "mlp.3.bias"]
            .map(|name| format!("{block}.{name}"));
        let theirs = named(&theirs.into_iter().chain(inside.iter().map(String::as_str)).collect::<Vec<_>>());
        let ours = vit.timm_names(theirs.clone()).unwrap();
        let of_block = ["attn.qkv.weight", "attn.proj.bias", "norm2.bias", "mlp.fc1.weight", "mlp.fc2.bias"];
        let of_block = of_block.map(|name| format!("blocks.10.{name}"));
        let expected = ["cls_token", "pos_embed", "patch_embed.proj.bias", "norm.weight", "head.weight"];
        assert_eq!(ours, named(&expected.into_iter().chain(of_block.iter().map(String::as_str)).collect::<Vec<_>>()));
        assert_eq!(vit.torchvision_names(ours).unwrap(), theirs);
        let published = vit.timm_names(named(&["encoder.layers.encoder_layer_0.mlp.linear_2.bias"])).unwrap();
        assert_eq!(published, named(&["blocks.0.mlp.fc2.bias"]));
    }

    #[test]
    fn what_torchvision_does_not_have_is_refused() {
        let error = model("mobilenetv1_100", ModelOptions::default()).unwrap().timm_names(Archive::default()).unwrap_err();
        assert!(error.to_string().contains("torchvision"), "{error}");
    }

    #[test]
    fn batch_norms_are_torchvisions() {
        for (name, eps, momentum) in
            [("tv_efficientnet_b5", 1e-3, 0.01), ("tv_efficientnet_b4", 1e-5, 0.1), ("tv_efficientnet_v2_m", 1e-3, 0.1)]
        {
            let model = model(name, ModelOptions::default()).unwrap();
            let config: &MobileNetConfig = model.config().unwrap();
            assert_eq!((config.style.eps, config.style.momentum), (eps, momentum), "{name}");
        }
    }
}
