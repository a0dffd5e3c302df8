//! Learning from few and from weak labels: losses and gradients against formulas in float64,
//! thresholds, masks, ramps, averages, candidates.

use crate::common::gpu;
use crate::common::linear;
use crate::common::linear::{Rows, argmax, batch, bias_gradient, check, images, known, log_softmax, logits, make, mean, softmax};
use wgrad::methods::{
    Clock, CoarseToFine, CoarseToFineConfig, EmaTeacherConfig, FixMatch, FixMatchConfig, HIDDEN, MeanTeacher, MeanTeacherConfig, Method,
    MethodContext, PartialLabels, PartialLabelsConfig, PartialLoss, PseudoLabel, PseudoLabelConfig, candidates, groups,
};
use wgrad::nn::Parameters;
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::tensor::InputShape;

const CLASSES: usize = 5;
const LABELS: [i32; 7] = [2, HIDDEN, 0, HIDDEN, HIDDEN, 4, HIDDEN];

fn setting(step: u64, steps: u64) -> MethodContext {
    let clock = Clock { steps, steps_per_epoch: steps, ..Clock::default() };
    clock.step.set(step);
    MethodContext {
        clock,
        classes: CLASSES,
        input: InputShape::Image([1, 1, linear::PIXELS]),
        seed: 5,
        labels: LABELS.into(),
        ..MethodContext::default()
    }
}

/// Cross entropies of `rows` against the likeliest class of `answers`, 0 where that has less than
/// `threshold`.
fn believed(rows: &Rows, answers: &Rows, threshold: f64) -> Vec<f64> {
    let one = |(z, answer): (&Vec<f64>, &Vec<f64>)| {
        let class = argmax(answer);
        if softmax(answer)[class] >= threshold { -log_softmax(z)[class] } else { 0.0 }
    };
    rows.iter().zip(answers).map(one).collect()
}

#[test]
fn pseudo_labels_are_the_networks_own() {
    let gpu = gpu();
    let x = images(1, LABELS.len());
    for (step, threshold) in [(0, 0.0), (30, 0.0), (100, 0.0), (100, 0.7), (100, 1.0)] {
        let config = PseudoLabelConfig { weight: 3.0, from: 0.1, to: 0.5, threshold };
        let weight = f64::from(config.at(step as f32 / 100.0));
        let (params, method) = make::<PseudoLabel>(&gpu, config, &setting(step, 100));
        let answers = logits(&params, &x);
        let rows: Vec<usize> = (0..LABELS.len()).filter(|i| LABELS[*i] == HIDDEN).collect();
        check("pseudo_label", &gpu, &params, &method, &[&x], &LABELS, |said| {
            let terms = believed(&said[0], &answers, threshold.into());
            known(&said[0], &LABELS) + weight * mean(&rows.iter().map(|i| terms[*i]).collect::<Vec<_>>())
        });
        // All labels known: nothing is left for answers.
        let all = [1; 7];
        check("pseudo_label, all known", &gpu, &params, &method, &[&x], &all, |said| known(&said[0], &all));
    }
}

#[test]
fn ramps_begin_and_end_where_they_should() {
    let config = PseudoLabelConfig { weight: 3.0, from: 0.1, to: 0.6, threshold: 0.0 };
    for (part, weight) in [(0.0, 0.0), (0.1, 0.0), (0.35, 1.5), (0.6, 3.0), (1.0, 3.0)] {
        approx::assert_abs_diff_eq!(config.at(part), weight, epsilon = 1e-6);
    }
    let at_once = PseudoLabelConfig { from: 0.0, to: 0.0, ..config };
    assert_eq!([at_once.at(0.0), at_once.at(1.0)], [3.0, 3.0]);
    let config = MeanTeacherConfig { consistency: 8.0, ramp_up: 0.5, ..Default::default() };
    for (part, weight) in [(0.0, 8.0 * (-5.0f32).exp()), (0.25, 8.0 * (-1.25f32).exp()), (0.5, 8.0), (1.0, 8.0)] {
        approx::assert_abs_diff_eq!(config.at(part), weight, epsilon = 1e-6);
    }
    assert_eq!(MeanTeacherConfig { ramp_up: 0.0, ..config }.at(0.0), 8.0);
}

#[test]
fn hidden_rows_get_no_gradient_of_cross_entropy() {
    let gpu = gpu();
    let x = images(1, LABELS.len());
    let other: Rows =
        images(9, LABELS.len()).into_iter().zip(&x).zip(LABELS).map(|((b, a), l)| if l == HIDDEN { b } else { a.clone() }).collect();
    assert_ne!(x, other);
    let gradients = |method: &dyn Method, params: &Parameters, views: &[&Rows]| bias_gradient(params, method, &batch(&gpu, views, &LABELS));
    let (params, method) = make::<PseudoLabel>(&gpu, PseudoLabelConfig { weight: 0.0, ..Default::default() }, &setting(90, 100));
    assert_eq!(gradients(&method, &params, &[&x]), gradients(&method, &params, &[&other]));
    let (params, method) = make::<FixMatch>(&gpu, FixMatchConfig { weight: 0.0, ..Default::default() }, &setting(0, 1));
    assert_eq!(gradients(&method, &params, &[&x, &x]), gradients(&method, &params, &[&other, &other]));
    let (params, method) = make::<MeanTeacher>(&gpu, MeanTeacherConfig { consistency: 0.0, ..Default::default() }, &setting(0, 1));
    assert_eq!(gradients(&method, &params, &[&x, &x]), gradients(&method, &params, &[&other, &other]));
    let (params, method) = make::<MeanTeacher>(&gpu, MeanTeacherConfig::default(), &setting(0, 1));
    assert_ne!(gradients(&method, &params, &[&x, &x]), gradients(&method, &params, &[&other, &x]));
}

#[test]
fn fixmatch_learns_strong_views_from_sure_weak_ones() {
    let gpu = gpu();
    let (weak, strong) = (images(1, LABELS.len()), images(2, LABELS.len()));
    let mut sure = Vec::new();
    for threshold in [0.0, 0.6, 0.95, 1.0] {
        let (params, method) = make::<FixMatch>(&gpu, FixMatchConfig { threshold, weight: 2.0 }, &setting(0, 1));
        let answers = logits(&params, &weak);
        check("fixmatch", &gpu, &params, &method, &[&weak, &strong], &LABELS, |said| {
            known(&said[0], &LABELS) + 2.0 * mean(&believed(&said[1], &answers, threshold.into()))
        });
        let parts = method.loss(&batch(&gpu, &[&weak, &strong], &LABELS)).unwrap().parts;
        sure.push(parts.iter().find(|(name, _)| name == "sure").unwrap().1.item().unwrap());
    }
    assert!(sure[0] == 1.0 && sure[1] < 1.0 && sure[1] > sure[2] && sure[3] == 0.0, "{sure:?}");
    let params = Parameters::new(&gpu, 0);
    let error = <FixMatch as wgrad::methods::MethodFactory>::new(
        &params,
        &linear::build,
        FixMatchConfig { threshold: 1.5, weight: 1.0 },
        &setting(0, 1),
    );
    assert!(error.map(drop).unwrap_err().to_string().contains("threshold: expected 0 to 1, found 1.5"));
}

#[test]
fn a_mean_teacher_is_the_average_and_is_followed() {
    let gpu = gpu();
    let momentum = 0.8;
    let config = MeanTeacherConfig { consistency: 4.0, ramp_up: 0.0, teacher: EmaTeacherConfig { momentum, momentum_end: momentum } };
    let (params, method) = make::<MeanTeacher>(&gpu, config, &setting(0, 10));
    let mut sgd = Sgd::new(&params, SgdOptions::default()).unwrap();
    let values = |params: &Parameters| -> Vec<f64> { params.all().iter().flat_map(|p| p.detach().unwrap().to_f64().unwrap()).collect() };
    let teacher = method.averages()[0].1.clone();
    let mut expected = values(&params);
    assert_eq!(values(&teacher), expected);
    for step in 0..4 {
        let views = [images(10 + step, LABELS.len()), images(20 + step, LABELS.len())];
        let said_by_teacher = logits(&teacher, &views[1]);
        check("mean_teacher", &gpu, &params, &method, &[&views[0], &views[1]], &LABELS, |said| {
            let squares = said[0]
                .iter()
                .zip(&said_by_teacher)
                .flat_map(|(z, t)| softmax(z).into_iter().zip(softmax(t)).map(|(a, b)| (a - b).powi(2)));
            known(&said[0], &LABELS) + 4.0 * mean(&squares.collect::<Vec<_>>())
        });
        let found = method.loss(&batch(&gpu, &[&views[0], &views[1]], &LABELS)).unwrap();
        sgd.step_with(&method.gradients(&found).unwrap(), 0.5.into()).unwrap();
        assert_eq!(values(&teacher).len(), expected.len());
        method.after_update(&found).unwrap();
        let m = f64::from(momentum);
        expected.iter_mut().zip(values(&params)).for_each(|(average, value)| *average = m * *average + (1.0 - m) * value);
        let worst = values(&teacher).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{worst}");
    }
}

#[test]
fn candidates_hold_the_truth_and_have_the_expected_size() {
    let labels: Vec<i32> = (0..4000).map(|i| i % 10).collect();
    for (ambiguity, size) in [(0.0, 1.0), (0.3, 3.7), (1.0, 10.0)] {
        let found = candidates(&labels, 10, ambiguity, 3);
        assert!(found.chunks(10).zip(&labels).all(|(row, label)| row[*label as usize]));
        let all = found.iter().filter(|c| **c).count() as f64 / 4000.0;
        // The deviation of a row's size is at most sqrt(9 / 4), of the mean of 4000 rows 0.024.
        assert!((all - size).abs() < if ambiguity == 0.3 { 0.1 } else { 1e-9 }, "{ambiguity}: {all}");
    }
    assert_eq!(candidates(&labels, 10, 0.3, 3), candidates(&labels, 10, 0.3, 3));
    assert_ne!(candidates(&labels, 10, 0.3, 3), candidates(&labels, 10, 0.3, 4));
    // By place, whatever stands before it.
    assert_eq!(candidates(&labels[..7], 10, 0.3, 3), candidates(&labels, 10, 0.3, 3)[..70]);
    assert_eq!(candidates(&[HIDDEN], 3, 0.0, 3), [true; 3]);
}

#[test]
fn partial_losses_are_of_the_candidates() {
    let gpu = gpu();
    let x = images(4, LABELS.len());
    for loss in [PartialLoss::Cc, PartialLoss::Average] {
        for ambiguity in [0.0, 0.4, 1.0] {
            let (params, method) = make::<PartialLabels>(&gpu, PartialLabelsConfig { ambiguity, loss }, &setting(0, 1));
            let chosen = candidates(&LABELS, CLASSES, ambiguity, 5);
            check("partial_labels", &gpu, &params, &method, &[&x], &LABELS, |said| {
                let one = |(z, chosen): (&Vec<f64>, &[bool])| {
                    let among: Vec<f64> = log_softmax(z).into_iter().zip(chosen).filter(|(_, c)| **c).map(|(v, _)| v).collect();
                    if loss == PartialLoss::Cc { -among.iter().map(|v| v.exp()).sum::<f64>().ln() } else { -mean(&among) }
                };
                mean(&said[0].iter().zip(chosen.chunks(CLASSES)).map(one).collect::<Vec<_>>())
            });
        }
    }
}

#[test]
fn coarse_labels_are_known_of_all_and_fine_ones_of_a_few() {
    let gpu = gpu();
    let labels: Vec<i32> = (0..23).map(|i| if i == 7 { HIDDEN } else { i % CLASSES as i32 }).collect();
    let setting = MethodContext { labels: labels.as_slice().into(), ..setting(0, 1) };
    let x = images(6, labels.len());
    let group = [1, 0, 0, 2, 1];
    let named = vec![vec![1, 2], vec![0, 4]];
    assert_eq!(groups(&named, CLASSES).unwrap(), group);
    let config = |fine_per_class, coarse_weight| CoarseToFineConfig { coarse: named.clone(), fine_per_class, coarse_weight };
    let coarse = |said: &Rows| {
        let among =
            |z: &[f64], label: i32| softmax(z).iter().zip(group).filter(|(_, g)| *g == group[label as usize]).map(|(p, _)| p).sum::<f64>();
        mean(&said.iter().zip(&labels).map(|(z, label)| if *label == HIDDEN { 0.0 } else { -among(z, *label).ln() }).collect::<Vec<_>>())
    };
    let (params, method) = make::<CoarseToFine>(&gpu, config(0, 2.0), &setting);
    check("only groups", &gpu, &params, &method, &[&x], &labels, |said| 2.0 * coarse(&said[0]));
    let (params, method) = make::<CoarseToFine>(&gpu, config(100, 2.0), &setting);
    check("all classes", &gpu, &params, &method, &[&x], &labels, |said| 2.0 * coarse(&said[0]) + known(&said[0], &labels));
    // Two of each class: the same images as the recipe's `labels_per_class`.
    let full = labels.iter().map(|label| (*label).max(0)).collect::<Vec<_>>();
    let names = (0..CLASSES).map(|c| c.to_string()).collect();
    let data = wgrad::data::Dataset::new("x", [1, 1, 1], vec![0; full.len()], full.clone(), names).unwrap();
    let fine = data.hide(&data.split_indices(2, 5).unwrap().0).labels().to_vec();
    assert_eq!(fine.iter().filter(|label| **label != HIDDEN).count(), 2 * CLASSES);
    let (params, method) = make::<CoarseToFine>(&gpu, config(2, 0.0), &MethodContext { labels: full.as_slice().into(), ..setting });
    check("two of each", &gpu, &params, &method, &[&x], &full, |said| known(&said[0], &fine));
    for (bad, words) in [(vec![vec![1, 5]], "5 is none of the classes 0 to 4"), (vec![vec![1], vec![2, 1]], "1 stands there twice")] {
        let message = groups(&bad, CLASSES).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
