//! Barlow Twins, VICReg, SwAV and NNCLR: losses at known points, equal shares, support sets.

use crate::common::gpu;
use crate::invariants::{BATCH, Driven, close, normal};
use wgrad::gpu::Gpu;
use wgrad::methods::{
    BarlowTwins, BarlowTwinsConfig, Contrast, Method, NnClr, NnClrConfig, SwAv, SwAvConfig, VicReg, VicRegConfig, sinkhorn,
};
use wgrad::optim::Optimizer;
use wgrad::tensor::{DType, Tensor};

/// The loss of embeddings.
fn compared(method: &dyn Contrast, gpu: &Gpu, embeddings: &[Tensor]) -> f32 {
    let labels = Tensor::from_slice(gpu, &vec![0i32; embeddings[0].shape().dim(0)], [embeddings[0].shape().dim(0)]).unwrap();
    method.compare(embeddings, &labels).unwrap().loss.item().unwrap()
}

/// Three features of mean 0 and variance 1 (4/3, unbiased) over four rows, at right angles.
fn independent(gpu: &Gpu) -> Tensor {
    Tensor::from_slice(gpu, &[1.0f32, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0], [4, 3]).unwrap()
}

#[test]
fn barlow_twins_at_known_points() {
    let gpu = gpu();
    let method = Driven::<BarlowTwins>::new(&gpu, BarlowTwinsConfig { lambda_param: 0.25, ..Default::default() }).method;
    let z = independent(&gpu);
    let loss = |a: &Tensor, b: &Tensor| compared(&method, &gpu, &[a.clone(), b.clone()]);
    // What is added to a variance of 1 makes the correlation of a feature with itself a little less.
    let own = 1.0 / (1.0 + 1e-5);
    close("independent features", loss(&z, &z), 3.0 * (1.0 - own) * (1.0 - own));
    close("the opposite", loss(&z, &z.neg().unwrap()), 3.0 * (1.0 + own) * (1.0 + own));
    // All nine correlations are alike, six of them beside the diagonal.
    let same = Tensor::concat(&[&z.slice(1, 0, 1).unwrap(); 3], 1).unwrap();
    close("one feature three times", loss(&same, &same), 3.0 * (1.0 - own) * (1.0 - own) + 0.25 * 6.0 * own * own);
    let scaled = Driven::<BarlowTwins>::new(&gpu, BarlowTwinsConfig { scale_loss: 0.125, lambda_param: 0.25, ..Default::default() }).method;
    close("a scaled loss", compared(&scaled, &gpu, &[z.clone(), z.neg().unwrap()]), 0.125 * 3.0 * (1.0 + own) * (1.0 + own));
    let [a, b] = [1, 2].map(|seed| normal(&gpu, seed, [9, 6]));
    let other = b.mul_scalar(64.0).unwrap().add_scalar(3.0).unwrap();
    assert!((loss(&a, &other) - loss(&a, &b)).abs() < 1e-3 * loss(&a, &b), "longer and shifted features");
}

#[test]
fn vicreg_at_known_points() {
    let gpu = gpu();
    let config = VicRegConfig { lambda_param: 3.0, mu_param: 5.0, nu_param: 7.0, ..Default::default() };
    let method = Driven::<VicReg>::new(&gpu, config).method;
    let loss = |a: &Tensor, b: &Tensor| compared(&method, &gpu, &[a.clone(), b.clone()]);
    let z = independent(&gpu);
    close("independent features", loss(&z, &z), 0.0);
    close("the opposite", loss(&z, &z.neg().unwrap()), 3.0 * 4.0);
    let collapsed = Tensor::full(&gpu, [4, 3], 0.7, DType::F32).unwrap();
    close("all embeddings equal", loss(&collapsed, &collapsed), 5.0 * 0.99);
    // Six covariances of 4/3 in each view, divided by three features.
    let same = Tensor::concat(&[&z.slice(1, 0, 1).unwrap(); 3], 1).unwrap();
    close("one feature three times", loss(&same, &same), 7.0 * 2.0 * 6.0 * (16.0 / 9.0) / 3.0);
}

#[test]
fn prototypes_get_equal_shares_of_the_images() {
    let gpu = gpu();
    let (rows, prototypes) = (33, 7);
    let scores = normal(&gpu, 5, [rows, prototypes]).l2_normalize(-1, 1e-12).unwrap();
    let values: Vec<f64> = scores.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    for (epsilon, iterations) in [(0.05, 1), (0.05, 3), (0.5, 3), (0.5, 60)] {
        // As in the paper: of exponentials.
        let mut expected: Vec<f64> = values.iter().map(|v| (v / f64::from(epsilon)).exp()).collect();
        for _ in 0..iterations {
            for column in 0..prototypes {
                let sum: f64 = expected.iter().skip(column).step_by(prototypes).sum();
                expected.iter_mut().skip(column).step_by(prototypes).for_each(|q| *q /= sum);
            }
            for row in expected.chunks_mut(prototypes) {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|q| *q /= sum);
            }
        }
        let found = sinkhorn(&scores, epsilon, iterations).unwrap().to_vec::<f32>().unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-5, "{epsilon}, {iterations}: {found}, expected {expected}");
        }
        if iterations == 60 {
            for column in 0..prototypes {
                let share: f32 = found.iter().skip(column).step_by(prototypes).sum();
                assert!((share - rows as f32 / prototypes as f32).abs() < 1e-3, "prototype {column} has {share} images");
            }
        }
    }
    // Exponentials of these would overflow.
    let sharp = sinkhorn(&scores, 1e-3, 3).unwrap().to_vec::<f32>().unwrap();
    for row in sharp.chunks(prototypes) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{row:?}");
    }
}

#[test]
fn prototypes_wait_and_queues_join_by_the_epoch() {
    let gpu = gpu();
    let config = SwAvConfig { freeze_prototypes_epochs: 1, queue: 16, epoch_queue_starts: 2, prototypes: 12, ..Default::default() };
    let mut driven = Driven::<SwAv>::new(&gpu, config);
    let weights = |driven: &Driven<SwAv>| driven.params.get("prototypes.weight").unwrap().detach().unwrap().to_vec::<f32>().unwrap();
    let queues = |driven: &Driven<SwAv>| -> Vec<Vec<f32>> {
        let queues = driven.method.state().into_iter().filter(|(name, _)| name.starts_with("queue."));
        queues.map(|(_, queue)| queue.to_vec().unwrap()).collect()
    };
    let batch = driven.batch(0);
    for epoch in 0..3 {
        driven.method.begin_epoch(epoch).unwrap();
        driven.method.begin_step().unwrap();
        let before = weights(&driven);
        before.chunks(32).for_each(|row| close("a prototype's length", row.iter().map(|v| v * v).sum(), 1.0));
        let found = driven.method.loss(&batch).unwrap();
        let q = found.teacher.as_ref().unwrap().to_vec::<f32>().unwrap();
        assert_eq!(q.len(), 2 * BATCH * 12);
        q.chunks(12).for_each(|row| close("an image's assignments", row.iter().sum(), 1.0));
        // Whether the queues take part: the loss is another with other rows in them.
        let state = driven.method.state();
        let (kept, (_, queue)) = (queues(&driven), &state[0]);
        queue.copy_from(&normal(&gpu, 9, [16, 32]).l2_normalize(-1, 1e-12).unwrap()).unwrap();
        let other = driven.method.loss(&batch).unwrap().loss.item().unwrap();
        assert_eq!(other != found.loss.item().unwrap(), epoch == 2, "epoch {epoch}");
        queue.write(&kept[0]).unwrap();
        driven.sgd.step(&driven.method.gradients(&found).unwrap(), 0.1).unwrap();
        assert_eq!(weights(&driven) != before, epoch > 0, "epoch {epoch}");
        driven.method.after_update(&found).unwrap();
        // Each view's embeddings have entered its own queue.
        let first = epoch as usize * BATCH % 16 * 32;
        for ((queue, before), z) in queues(&driven).iter().zip(&kept).zip(&found.embeddings) {
            let entered = z.l2_normalize(-1, 1e-12).unwrap().to_vec::<f32>().unwrap();
            let mut expected = before.clone();
            expected[first..first + BATCH * 32].copy_from_slice(&entered);
            assert_eq!(*queue, expected, "epoch {epoch}");
        }
    }
}

#[test]
fn the_nearest_of_the_support_set_attracts_the_other_view() {
    let gpu = gpu();
    let driven = Driven::<NnClr>::new(&gpu, NnClrConfig { temperature: 0.3, queue: 16, ..Default::default() });
    let state = driven.method.state();
    let (_, queue) = &state[0];
    let embeddings: Vec<Tensor> = (0..4).map(|seed| normal(&gpu, 20 + seed, [BATCH, 32])).collect();
    let unit = |tensor: &Tensor| -> Vec<Vec<f64>> {
        let rows = tensor.to_vec::<f32>().unwrap();
        let normed = |row: &[f32]| {
            let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|v| f64::from(*v) / length).collect()
        };
        rows.chunks(32).map(normed).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let support = unit(queue);
    let one_way = |z: &Tensor, p: &Tensor| {
        let (z, p) = (unit(z), unit(p));
        let of = |(i, z): (usize, &Vec<f64>)| {
            let nearest = support.iter().max_by(|a, b| dot(a, z).total_cmp(&dot(b, z))).unwrap();
            let sum: f64 = p.iter().map(|p| (dot(nearest, p) / 0.3).exp()).sum();
            sum.ln() - dot(nearest, &p[i]) / 0.3
        };
        z.iter().enumerate().map(of).sum::<f64>() / BATCH as f64
    };
    let expected = (one_way(&embeddings[0], &embeddings[3]) + one_way(&embeddings[1], &embeddings[2])) / 2.0;
    close("the loss", compared(&driven.method, &gpu, &embeddings), expected);
    // The first view's embeddings enter the set, behind the step.
    let before = queue.to_vec::<f32>().unwrap();
    let found = driven.method.loss(&driven.batch(0)).unwrap();
    assert_eq!(queue.to_vec::<f32>().unwrap(), before);
    driven.method.after_update(&found).unwrap();
    let entered = found.embeddings[0].l2_normalize(-1, 1e-12).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(queue.to_vec::<f32>().unwrap(), [&entered, &before[BATCH * 32..]].concat());
    let odd = Driven::<NnClr>::new(&gpu, NnClrConfig { queue: 20, ..Default::default() });
    let message = odd.method.loss(&odd.batch(0)).err().unwrap().to_string();
    assert!(message.contains("queue: 20 keys must be a multiple of the 8"), "{message}");
}
