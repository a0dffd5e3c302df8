//! mixup and CutMix in runs, with RandAugment and random erasing before them: captured steps,
//! interruptions, mixed precision, and what cannot be mixed.

use super::training::{bits, data_of, recipe, resumed, to_the_end, trainer};
use wgrad::gpu::Gpu;
use wgrad::train::progress::Style;
use wgrad::train::{Recipe, RunDirectory};

const MIXES: [&[&str]; 3] = [
    &["mixup=0.8"],
    &["cutmix=1.0", "augmentation=torchvision_randaugment_erasing"],
    &["mixup=0.2", "cutmix=1.0", "mixup_prob=0.9", "augmentation=randaugment"],
];

fn mixed(settings: &[&str]) -> Recipe {
    recipe("supervised").with(settings.iter().copied()).unwrap()
}

fn whole(gpu: &Gpu, recipe: &Recipe) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut trainer = trainer(gpu, recipe.clone(), &data_of("supervised", 100));
    to_the_end(&mut trainer, None).unwrap();
    bits(&mut trainer)
}

/// What is drawn for a step is drawn again where the run goes on, in recorded steps as in others.
#[test]
fn a_run_that_mixes_repeats_its_bits_and_goes_on_to_them() {
    if !crate::common::wanted("supervised") {
        return;
    }
    let data = data_of("supervised", 100);
    let mut seen = vec![whole(&crate::common::gpu(), &recipe("supervised"))];
    for settings in MIXES {
        let recipe = mixed(settings);
        let first = whole(&crate::common::gpu(), &recipe);
        assert!(!seen.contains(&first), "{settings:?} changed nothing");
        assert!(first == whole(&crate::common::gpu(), &recipe), "{settings:?}");
        let folder = tempfile::tempdir().unwrap();
        let gpu = crate::common::gpu();
        let run = RunDirectory::create(&folder.path().join("run"), &recipe, &gpu).unwrap();
        let mut stopped = trainer(&gpu, recipe, &data);
        stopped.run(Some(&run), Style::Silent, &mut |position| position.step == 11).unwrap();
        drop((stopped, gpu));
        let rest = bits(&mut resumed(&run, &data));
        let different: Vec<&String> = first.keys().filter(|name| rest.get(*name) != first.get(*name)).collect();
        assert!(different.is_empty() && rest.len() == first.len(), "{settings:?}: {different:?} differ");
        seen.push(first);
    }
}

/// Without a step that mixes, the targets are what label smoothing makes of one label.
#[test]
fn where_no_step_mixes_the_loss_is_that_of_labels_alone() {
    let gpu = crate::common::gpu();
    let losses = [&["mixup=0"][..], &["mixup=0.8", "cutmix=1.0", "mixup_prob=0"]].map(|settings| {
        let recipe = Recipe { epochs: 1, ..mixed(settings).with(["learning_rate=0.01"]).unwrap() };
        to_the_end(&mut trainer(&gpu, recipe, &data_of("supervised", 100)), None).unwrap().loss
    });
    assert!((losses[0] - losses[1]).abs() < 1e-4 * losses[0], "{losses:?}");
}

#[test]
fn mixed_images_train_in_mixed_precision() {
    let gpu = crate::common::gpu();
    if !gpu.capabilities().f16 {
        println!("{} stores no f16 here, so nothing was run", gpu.capabilities().name);
        return;
    }
    for settings in MIXES {
        let recipe = mixed(settings).with(["precision=mixed", "learning_rate=0.01"]).unwrap();
        let mut trainer = trainer(&gpu, recipe, &data_of("supervised", 100));
        let outcome = to_the_end(&mut trainer, None).unwrap();
        assert!(outcome.finished && outcome.loss.is_finite(), "{settings:?}: {}", outcome.loss);
    }
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let gpu = crate::common::gpu().dry().unwrap();
    for (settings, words) in [
        (&["mixup=0.2", "labels_per_class=2"][..], "mixup and cutmix ask for the labels of all images"),
        (&["cutmix=2000"], "cutmix must lie in 0..=1000, found 2000"),
        (&["mixup=-1"], "mixup must lie in 0..=1000, found -1"),
        (&["mixup_prob=1.5"], "mixup_prob must lie in 0..=1, found 1.5"),
        (&["mixup_switch_prob=-0.5"], "mixup_switch_prob must lie in 0..=1, found -0.5"),
    ] {
        let error = wgrad::train::Trainer::new(&gpu, mixed(settings), data_of("supervised", 100)).map(drop).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let texts = mixed(&["mixup=0.2", "model=bert_l2_h16_v64", "stem_stride=0", "augmentation=none"]);
    let error = wgrad::train::Trainer::new(&gpu, texts, data_of("masked_tokens", 100)).map(drop).unwrap_err().to_string();
    assert!(error.contains("texts cannot be mixed"), "{error}");
}
