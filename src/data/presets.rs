//! Published augmentations by name.

use super::augment_step::AugmentStep;
use super::augmentation::Augmentation;
use crate::error::{Error, Result};
use crate::ops::augment::{
    Edge, ErasingValue, GaussianBlur, Interpolation, JitterStyle, RandAugment, RandomErasing, RandomResizedCrop, Sampling,
};

/// One published view: a random crop with a flip, jitter with grey, blur, solarize, in this order.
/// Where a source flips later, that is the same: no other step tells left from right.
#[derive(Clone, Copy)]
struct Preset {
    name: &'static str,
    scale: [f32; 2],
    interpolation: Interpolation,
    /// Of the sides of the other views: 96 of 224 pixels, 3/7, for DINO's local ones; rounded up to
    /// a multiple of 4, as patches need.
    local: bool,
    style: JitterStyle,
    /// Brightness, contrast, saturation, hue; with chance 0.8.
    jitter: [f32; 4],
    grey: f32,
    /// The chance.
    blur: f32,
    kernel: Kernel,
    /// The chance. Above 1/2, which of bytes is from 128 up, as Pillow does.
    solarize: f32,
}

/// The blur's kernel; sigma is uniform in 0.1..2 pixels in all of them.
#[derive(Clone, Copy)]
enum Kernel {
    /// Of a tenth of the height, and what lies outside.
    Tenth(Edge),
    /// Pillow's `GaussianBlur`, which cuts nothing off: 13 pixels hold all but 0.1 % of the widest.
    Pillow,
}

/// torchvision on Pillow's images.
const PYTORCH: Preset = Preset {
    name: "",
    scale: [0.08, 1.0],
    interpolation: Interpolation::Bilinear,
    local: false,
    style: JitterStyle::Torchvision,
    jitter: [0.4, 0.4, 0.2, 0.1],
    grey: 0.2,
    blur: 0.0,
    kernel: Kernel::Pillow,
    solarize: 0.0,
};

/// google-research/simclr, `data_util.py`: `color_jitter_rand`, impl `simclrv2`;
/// `batch_random_blur`.
const SIMCLR: Preset = Preset {
    interpolation: Interpolation::Bicubic,
    style: JitterStyle::Simclr,
    jitter: [0.8, 0.8, 0.8, 0.2],
    kernel: Kernel::Tenth(Edge::Zeros),
    ..PYTORCH
};

/// deepmind-research/byol, `utils/augmentations.py` and `utils/dataset.py`; Grill et al. 2020,
/// table 6.
const BYOL: Preset = Preset { style: JitterStyle::Byol, jitter: [0.4, 0.4, 0.2, 0.1], ..SIMCLR };

/// vturrisi/solo-learn, `scripts/pretrain/cifar/augmentations/*.yaml` and `CifarTransform` of
/// `solo/data/pretrain_dataloader.py`.
const SOLO: Preset = Preset { interpolation: Interpolation::Bicubic, ..PYTORCH };

/// facebookresearch/dino, `DataAugmentationDINO` of `main_dino.py`.
const DINO: Preset = Preset { scale: [0.4, 1.0], interpolation: Interpolation::Bicubic, ..PYTORCH };

/// Our own, for small grey images: neither saturation nor hue to jitter, and a kernel that leaves
/// something of 28 pixels.
const GREY: Preset = Preset { scale: [0.3, 1.0], jitter: [0.4, 0.4, 0.0, 0.0], grey: 0.0, kernel: Kernel::Tenth(Edge::Reflect), ..PYTORCH };

const VIEWS: [Preset; 23] = [
    Preset { name: "simclr", blur: 0.5, ..SIMCLR },
    // README.md: `--use_blur=False --color_jitter_strength=0.5`.
    Preset { name: "simclr_cifar", jitter: [0.4, 0.4, 0.4, 0.1], ..SIMCLR },
    // lightly-ai/lightly, `transforms/simclr_transform.py`; what SimCLR's appendix A gives for
    // PyTorch.
    Preset { name: "simclr_lightly", jitter: [0.8, 0.8, 0.8, 0.2], blur: 0.5, ..PYTORCH },
    // facebookresearch/moco, `main_moco.py --aug-plus`.
    Preset { name: "moco_v2", scale: [0.2, 1.0], jitter: [0.4, 0.4, 0.4, 0.1], blur: 0.5, ..PYTORCH },
    // facebookresearch/moco, `colab/moco_cifar10_demo.ipynb`; lightly's SimCLR on CIFAR
    // (`cj_strength=0.5, gaussian_blur=0`) is the same.
    Preset { name: "moco_cifar", jitter: [0.4, 0.4, 0.4, 0.1], ..PYTORCH },
    Preset { name: "byol_a", blur: 1.0, ..BYOL },
    Preset { name: "byol_b", blur: 0.1, solarize: 0.2, ..BYOL },
    // lightly-ai/lightly, `transforms/byol_transform.py`.
    Preset { name: "byol_lightly_a", blur: 1.0, ..PYTORCH },
    Preset { name: "byol_lightly_b", blur: 0.1, solarize: 0.2, ..PYTORCH },
    Preset { name: "solo_symmetric", jitter: [0.8, 0.8, 0.8, 0.2], blur: 0.5, ..SOLO },
    Preset { name: "solo_symmetric_weak", jitter: [0.4, 0.4, 0.4, 0.1], blur: 0.5, ..SOLO },
    Preset { name: "solo_asymmetric_a", ..SOLO },
    Preset { name: "solo_asymmetric_b", solarize: 0.2, ..SOLO },
    // `scripts/pretrain/cifar/vicreg.yaml`.
    Preset { name: "solo_vicreg", scale: [0.2, 1.0], solarize: 0.1, ..SOLO },
    Preset { name: "dino_global_1", blur: 1.0, ..DINO },
    Preset { name: "dino_global_2", blur: 0.1, solarize: 0.2, ..DINO },
    Preset { name: "dino_local", scale: [0.05, 0.4], local: true, blur: 0.5, ..DINO },
    Preset { name: "grey_simclr", ..GREY },
    Preset { name: "grey_byol_a", blur: 1.0, ..GREY },
    Preset { name: "grey_byol_b", blur: 0.1, solarize: 0.2, ..GREY },
    Preset { name: "grey_dino_global_1", scale: [0.4, 1.0], blur: 1.0, ..GREY },
    Preset { name: "grey_dino_global_2", scale: [0.4, 1.0], blur: 0.1, solarize: 0.2, ..GREY },
    Preset { name: "grey_dino_local", scale: [0.15, 0.4], local: true, blur: 0.5, ..GREY },
];

impl Preset {
    fn steps(self, size: [usize; 2]) -> Vec<AugmentStep> {
        let [height, width] = if self.local { size.map(|side| (side * 3).div_ceil(7).next_multiple_of(4)) } else { size };
        let [brightness, contrast, saturation, hue] = self.jitter;
        let (kernel, edge) = match self.kernel {
            Kernel::Tenth(edge) => (GaussianBlur::kernel_for(height), edge),
            Kernel::Pillow => (13, Edge::Replicate),
        };
        let mut steps = vec![
            AugmentStep::RandomResizedCrop {
                size: self.local.then_some([height, width]),
                scale: self.scale,
                ratio: RandomResizedCrop::RATIO,
                flip: 0.5,
                interpolation: self.interpolation,
            },
            AugmentStep::ColorJitter { style: self.style, brightness, contrast, saturation, hue, p: 0.8, grayscale: self.grey },
        ];
        if self.blur > 0.0 {
            steps.push(AugmentStep::GaussianBlur { kernel, sigma: [0.1, 2.0], p: self.blur, edge });
        }
        if self.solarize > 0.0 {
            steps.push(AugmentStep::Solarize { threshold: 0.5, p: self.solarize });
        }
        steps
    }
}

/// Presets for learning from labels.
const LABELLED: [&str; 5] =
    ["supervised", "randaugment", "torchvision_classification", "torchvision_randaugment", "torchvision_randaugment_erasing"];

/// The steps of one of [`LABELLED`]. RandAugment draws two operations of strength 9 of 31.
fn labelled(name: &str) -> Vec<AugmentStep> {
    // pytorch/vision, `references/classification/presets.py`: `ClassificationPresetTrain`, as it is, with
    // `--auto-augment ra`, and with `--random-erase 0.1`, too.
    let crop = AugmentStep::RandomResizedCrop {
        size: None,
        scale: [0.08, 1.0],
        ratio: RandomResizedCrop::RATIO,
        flip: 0.5,
        interpolation: Interpolation::Bilinear,
    };
    let augment =
        AugmentStep::RandAugment { num_ops: 2, magnitude: 9, num_magnitude_bins: RandAugment::BINS, sampling: Sampling::Bilinear };
    let erasing =
        AugmentStep::RandomErasing { p: 0.1, scale: RandomErasing::SCALE, ratio: RandomErasing::RATIO, value: ErasingValue::default() };
    let shift = AugmentStep::ReflectCrop { pad: 4, flip: 0.5 };
    match name {
        "randaugment" => vec![shift, augment],
        "torchvision_classification" => vec![crop],
        "torchvision_randaugment" => vec![crop, augment],
        "torchvision_randaugment_erasing" => vec![crop, augment, erasing],
        _ => vec![shift],
    }
}

impl Augmentation {
    /// The names that [`Self::preset`] knows.
    // Evaluated when it is built: an index outside would be an error there.
    #[allow(clippy::indexing_slicing)]
    pub const PRESETS: [&str; 1 + LABELLED.len() + VIEWS.len()] = {
        let mut names = ["none"; 1 + LABELLED.len() + VIEWS.len()];
        let mut i = 0;
        while i < LABELLED.len() {
            names[1 + i] = LABELLED[i];
            i += 1;
        }
        i = 0;
        while i < VIEWS.len() {
            names[1 + LABELLED.len() + i] = VIEWS[i].name;
            i += 1;
        }
        names
    };

    /// A published recipe, for images of `[height, width]`, in 0..1 and without normalising: see
    /// [`Self::normalized`].
    ///
    /// | name | source | crop | jitter (chance 0.8) | grey | blur | solarize |
    /// |---|---|---|---|---|---|---|
    /// | `none` | | | | | | |
    /// | `supervised` | | padded by 4 reflected pixels | | | | |
    /// | `randaugment` | ours, for small images | padded by 4 reflected pixels | RandAugment | | | |
    /// | `torchvision_classification` | [pytorch/vision] | 0.08-1 | | | | |
    /// | `torchvision_randaugment` | its `--auto-augment ra` | 0.08-1 | RandAugment | | | |
    /// | `torchvision_randaugment_erasing` | and `--random-erase 0.1` | 0.08-1 | RandAugment | | | |
    /// | `simclr` | [google-research/simclr] | 0.08-1, bicubic | SimCLR's 0.8, 0.8, 0.8, 0.2 | 0.2 | 0.5, H/10, zeros | |
    /// | `simclr_cifar` | the same, for CIFAR | 0.08-1, bicubic | SimCLR's 0.4, 0.4, 0.4, 0.1 | 0.2 | | |
    /// | `simclr_lightly` | [lightly] | 0.08-1 | 0.8, 0.8, 0.8, 0.2 | 0.2 | 0.5 | |
    /// | `moco_v2` | [facebookresearch/moco] | 0.2-1 | 0.4, 0.4, 0.4, 0.1 | 0.2 | 0.5 | |
    /// | `moco_cifar` | its demo on CIFAR; lightly's SimCLR there | 0.08-1 | 0.4, 0.4, 0.4, 0.1 | 0.2 | | |
    /// | `byol_a`, `byol_b` | [deepmind-research/byol] | 0.08-1, bicubic | BYOL's 0.4, 0.4, 0.2, 0.1 | 0.2 | 1, 0.1; H/10, zeros | 0, 0.2 |
    /// | `byol_lightly_a`, `byol_lightly_b` | [lightly] | 0.08-1 | 0.4, 0.4, 0.2, 0.1 | 0.2 | 1, 0.1 | 0, 0.2 |
    /// | `solo_symmetric` | [solo-learn] on CIFAR: SimCLR | 0.08-1, bicubic | 0.8, 0.8, 0.8, 0.2 | 0.2 | 0.5 | |
    /// | `solo_symmetric_weak` | MoCo v2+, SimSiam | 0.08-1, bicubic | 0.4, 0.4, 0.4, 0.1 | 0.2 | 0.5 | |
    /// | `solo_asymmetric_a`, `solo_asymmetric_b` | BYOL, DINO, MoCo v3 | 0.08-1, bicubic | 0.4, 0.4, 0.2, 0.1 | 0.2 | | 0, 0.2 |
    /// | `solo_vicreg` | VICReg | 0.2-1, bicubic | 0.4, 0.4, 0.2, 0.1 | 0.2 | | 0.1 |
    /// | `dino_global_1`, `dino_global_2` | [facebookresearch/dino] | 0.4-1, bicubic | 0.4, 0.4, 0.2, 0.1 | 0.2 | 1, 0.1 | 0, 0.2 |
    /// | `dino_local` | the same | 0.05-0.4 to 3/7 of the sides (up to a multiple of 4), bicubic | 0.4, 0.4, 0.2, 0.1 | 0.2 | 0.5 | |
    /// | `grey_simclr` | ours, for small grey images | 0.3-1 | 0.4, 0.4 | | | |
    /// | `grey_byol_a`, `grey_byol_b` | ours | 0.3-1 | 0.4, 0.4 | | 1, 0.1; H/10 | 0, 0.2 |
    /// | `grey_dino_global_1`, `grey_dino_global_2` | ours | 0.4-1 | 0.4, 0.4 | | 1, 0.1; H/10 | 0, 0.2 |
    /// | `grey_dino_local` | ours | 0.15-0.4 to 3/7 of the sides | 0.4, 0.4 | | 0.5, H/10 | |
    ///
    /// RandAugment draws two operations of strength 9 of 31, without jitter: [`RandAugment`]. Erasing
    /// fills a box with the mean colour: [`RandomErasing`].
    ///
    /// Where two numbers stand with a comma between, they are those of the two views. All but
    /// `none` mirror half of the images. Crops have aspect ratios from 3 : 4 to 4 : 3 and are
    /// bilinear with antialiasing unless the table says otherwise; jitter is torchvision's unless
    /// it is [SimCLR's or BYOL's](JitterStyle); blur has sigma from 0.1 to 2 pixels and is Pillow's
    /// unless its kernel is given, a tenth of the height (at least 3), with what lies outside.
    /// Pixels are pixels: what was made for 224 of them is strong on 32.
    ///
    /// What differs from the sources: all is done on floats, where Pillow rounds to bytes after
    /// each step; Pillow's blur is three boxes that approximate the Gaussian; boxes are
    /// torchvision's everywhere, where TensorFlow tries 100 of them with uniform aspect ratio and
    /// BYOL cuts them off at the image; TensorFlow's bicubic does not antialias, and SimCLR's
    /// counts from corners of pixels.
    ///
    /// [pytorch/vision]: https://github.com/pytorch/vision/blob/main/references/classification/presets.py
    /// [google-research/simclr]: https://github.com/google-research/simclr/blob/master/data_util.py
    /// [lightly]: https://github.com/lightly-ai/lightly/tree/master/lightly/transforms
    /// [facebookresearch/moco]: https://github.com/facebookresearch/moco/blob/main/main_moco.py
    /// [deepmind-research/byol]:
    /// https://github.com/google-deepmind/deepmind-research/blob/master/byol/utils/augmentations.py
    /// [solo-learn]:
    /// https://github.com/vturrisi/solo-learn/tree/main/scripts/pretrain/cifar/augmentations
    /// [facebookresearch/dino]: https://github.com/facebookresearch/dino/blob/main/main_dino.py
    ///
    /// # Errors
    /// [`Error::Argument`] for another name, with those that there are.
    pub fn preset(name: &str, seed: u32, size: [usize; 2]) -> Result<Self> {
        let steps = match name {
            "none" => vec![],
            _ if LABELLED.contains(&name) => labelled(name),
            _ => {
                let found =
                    VIEWS.iter().find(|preset| preset.name == name).ok_or_else(|| Error::unknown("augmentation", name, Self::PRESETS))?;
                found.steps(size)
            }
        };
        Ok(Self { seed, steps })
    }
}
