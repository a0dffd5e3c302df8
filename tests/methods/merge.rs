//! Several teachers and one student: the losses in float64, what they leave open, and that classes
//! have no order.

use std::sync::Arc;

use crate::common::gpu;
use crate::common::linear::{PIXELS, Rows, argmax, batch, bias_gradient, build, check, images, log_softmax, logits, make, mean, softmax};
use wgrad::gpu::Gpu;
use wgrad::methods::{Choice, Gate, HIDDEN, Merge, MergeConfig, MethodContext, MethodFactory, Teacher};
use wgrad::models::{Network, Pixels};
use wgrad::nn::Parameters;
use wgrad::tensor::{InputShape, Tensor};

const CLASSES: usize = 5;
const LABELS: [i32; 6] = [2, 0, 4, 1, 3, 2];
const DISJOINT: [&[usize]; 2] = [&[3, 0], &[4, 1, 2]];
const OVERLAPPING: [&[usize]; 2] = [&[0, 1, 2], &[2, 4, 3, 1]];

fn teachers(gpu: &Gpu, classes: [&[usize]; 2]) -> Vec<Arc<Teacher>> {
    let expert = |(seed, classes): (u32, &[usize])| {
        let params = Parameters::new(gpu, 40 + seed);
        let network = Network::new(&params, Box::new(Pixels::new(PIXELS)), Some(classes.len())).unwrap();
        Arc::new(Teacher::new(format!("expert {seed}"), params, network, classes.to_vec()))
    };
    (0..).zip(classes).map(expert).collect()
}

fn setting(teachers: Vec<Arc<Teacher>>, labels: &[i32]) -> MethodContext {
    MethodContext {
        classes: CLASSES,
        input: InputShape::Image([1, 1, PIXELS]),
        labels: labels.into(),
        teachers,
        ..MethodContext::default()
    }
}

fn config(choice: Choice) -> MergeConfig {
    MergeConfig { choice, ..MergeConfig::default() }
}

fn scaled(z: &[f64], by: f64) -> Vec<f64> {
    z.iter().map(|z| z * by).collect()
}

/// -sum of target times log softmax.
fn entropy(z: &[f64], target: &[f64]) -> f64 {
    -log_softmax(z).iter().zip(target).map(|(l, p)| l * p).sum::<f64>()
}

/// The loss of one image, of the student's logits and each teacher's, by the weights of the
/// teachers; without them, the naive one.
fn loss(z: &[f64], said: &[Vec<f64>], classes: [&[usize]; 2], weights: Option<[f64; 2]>, temperature: f64) -> f64 {
    let z = scaled(z, 1.0 / temperature);
    let soft = said.iter().map(|said| softmax(&scaled(said, 1.0 / temperature)));
    let square = temperature * temperature;
    let Some(weights) = weights else {
        let block = |(soft, classes): (Vec<f64>, &[usize])| entropy(&classes.iter().map(|c| z[*c]).collect::<Vec<_>>(), &soft);
        return square * soft.zip(classes).map(block).sum::<f64>();
    };
    let mut target = vec![0.0; z.len()];
    for ((soft, classes), weight) in soft.zip(classes).zip(weights) {
        soft.iter().zip(classes).for_each(|(p, class)| target[*class] += weight * p);
    }
    square * entropy(&z, &target)
}

fn weights(choice: Choice, config: &MergeConfig, said: &[Vec<f64>], label: i32, classes: [&[usize]; 2]) -> Option<[f64; 2]> {
    let one_hot = |at: usize| [f64::from(u8::from(at == 0)), f64::from(u8::from(at == 1))];
    match choice {
        Choice::Naive => None,
        Choice::Domain => {
            let knows = classes.map(|own| f64::from(u8::from(label >= 0 && own.contains(&(label as usize)))));
            let all = (knows[0] + knows[1]).max(1.0);
            Some(knows.map(|k| k / all))
        }
        Choice::Gate => {
            let score = |z: &Vec<f64>| match config.gate {
                Gate::Energy => z[0] - log_softmax(z)[0],
                Gate::Probability => softmax(z).into_iter().fold(0.0, f64::max),
            };
            let scores: Vec<f64> = said.iter().map(score).collect();
            let soft = softmax(&scaled(&scores, 1.0 / f64::from(config.softness)));
            Some(if config.softness > 0.0 { [soft[0], soft[1]] } else { one_hot(argmax(&scores)) })
        }
    }
}

#[test]
fn losses_are_their_formulas() {
    let gpu = gpu();
    let x = images(1, LABELS.len());
    let labels = [2, 0, HIDDEN, 1, 3, 2];
    for classes in [DISJOINT, OVERLAPPING] {
        let teachers = teachers(&gpu, classes);
        let said: Vec<Rows> = teachers.iter().map(|e| logits(e.parameters(), &x)).collect();
        for (choice, gate, softness, temperature) in [
            (Choice::Naive, Gate::Energy, 0.0, 1.0),
            (Choice::Naive, Gate::Energy, 0.0, 3.0),
            (Choice::Domain, Gate::Energy, 0.0, 1.0),
            (Choice::Domain, Gate::Energy, 0.0, 3.0),
            (Choice::Gate, Gate::Energy, 0.0, 1.0),
            (Choice::Gate, Gate::Probability, 0.0, 2.0),
            (Choice::Gate, Gate::Energy, 0.5, 1.0),
            (Choice::Gate, Gate::Probability, 0.1, 1.0),
        ] {
            let config = MergeConfig { choice, gate, softness, temperature };
            let (params, method) = make::<Merge>(&gpu, config.clone(), &setting(teachers.clone(), &labels));
            check(&format!("{config:?}"), &gpu, &params, &method, &[&x], &labels, |student| {
                let one = |i: usize| {
                    let said: Vec<Vec<f64>> = said.iter().map(|said| said[i].clone()).collect();
                    loss(&student[0][i], &said, classes, weights(choice, &config, &said, labels[i], classes), temperature.into())
                };
                mean(&(0..labels.len()).map(one).collect::<Vec<_>>())
            });
        }
    }
}

/// What is said among a teacher's classes cannot move the whole of them.
#[test]
fn the_naive_loss_cannot_choose_between_disjoint_teachers() {
    let gpu = gpu();
    // Where classes are common, what one teacher says of them moves the other's whole.
    for (choice, classes, zero) in [
        (Choice::Naive, DISJOINT, true),
        (Choice::Domain, DISJOINT, false),
        (Choice::Gate, DISJOINT, false),
        (Choice::Naive, OVERLAPPING, false),
    ] {
        let (params, method) = make::<Merge>(&gpu, config(choice), &setting(teachers(&gpu, classes), &LABELS));
        for row in 0..4 {
            // One image, so that the gradient of the bias is that of its logits.
            let gradient = bias_gradient(&params, &method, &batch(&gpu, &[&images(row, 1)], &LABELS[..1]));
            assert!(gradient.iter().map(|g| g.abs()).sum::<f64>() > 0.1, "{gradient:?}");
            let blocks = classes.map(|own| own.iter().map(|class| gradient[*class]).sum::<f64>());
            let largest = blocks.iter().map(|sum| sum.abs()).fold(0.0, f64::max);
            assert!(if zero { largest < 1e-6 } else { largest > 1e-3 }, "{choice:?}: {blocks:?}");
        }
    }
}

#[test]
fn permuted_classes_permute_the_result() {
    let gpu = gpu();
    let x = images(3, LABELS.len());
    // Class c becomes to[c].
    let to = [3usize, 0, 4, 1, 2];
    for choice in [Choice::Naive, Choice::Domain, Choice::Gate] {
        let run = |permuted: bool| {
            let place = |class: usize| if permuted { to[class] } else { class };
            let owned = DISJOINT.map(|own| own.iter().map(|c| place(*c)).collect::<Vec<_>>());
            let labels: Vec<i32> = LABELS.iter().map(|label| place(*label as usize) as i32).collect();
            let (params, method) = make::<Merge>(&gpu, config(choice), &setting(teachers(&gpu, [&owned[0], &owned[1]]), &labels));
            if permuted {
                let weight = params.get("classifier.weight").unwrap().detach().unwrap();
                let from: Vec<i32> = (0..CLASSES).map(|c| to.iter().position(|t| *t == c).unwrap() as i32).collect();
                let rows = weight.index_select(0, &Tensor::from_slice(&gpu, &from, [CLASSES]).unwrap()).unwrap();
                weight.copy_from(&rows).unwrap();
            }
            let batch = batch(&gpu, &[&x], &labels);
            let loss = wgrad::methods::Method::loss(&method, &batch).unwrap().loss.item().unwrap();
            let gradient = bias_gradient(&params, &method, &batch);
            (loss, (0..CLASSES).map(|class| gradient[place(class)]).collect::<Vec<_>>())
        };
        let ((a, da), (b, db)) = (run(false), run(true));
        assert!((a - b).abs() < 1e-5, "{choice:?}: {a} and {b}");
        assert!(da.iter().zip(&db).all(|(a, b)| (a - b).abs() < 1e-6), "{choice:?}: {da:?} and {db:?}");
    }
}

#[test]
fn teachers_that_do_not_fit_are_named() {
    let gpu = gpu();
    let refused = |teachers: Vec<Arc<Teacher>>, config: MergeConfig, words: &str| {
        let made = Merge::new(&Parameters::new(&gpu, 0), &build, config, &setting(teachers, &LABELS));
        let message = made.map(drop).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    refused(Vec::new(), MergeConfig::default(), "set `teachers` to their directories");
    refused(teachers(&gpu, [&[0, 1], &[2, 4]]), MergeConfig::default(), "none of them knows class 3");
    refused(teachers(&gpu, [&[0, 1, 2], &[3, 4, 5]]), MergeConfig::default(), "expert 1 knows class 5, the student has 5");
    refused(teachers(&gpu, DISJOINT), MergeConfig { temperature: 0.0, ..MergeConfig::default() }, "temperature");
    let params = Parameters::new(&gpu, 0);
    let encoder = Network::new(&params, Box::new(Pixels::new(PIXELS)), None).unwrap();
    refused(vec![Arc::new(Teacher::new("runs/byol", params, encoder, Vec::new()))], MergeConfig::default(), "runs/byol is an encoder");
}
