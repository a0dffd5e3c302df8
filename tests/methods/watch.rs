//! Watching a run: figures of embeddings whose figures are known, the gradient's norm, and the
//! alarm: every negative control sets it off, no healthy run does.

use std::fs;
use std::sync::{Arc, OnceLock};

use crate::common::teachers::teachers;
use serde_json::{Value, json};
use wgrad::data::{Dataset, Split};
use wgrad::error::{Error, Result};
use wgrad::gpu::Gpu;
use wgrad::methods::{Embedder, Queue, Supervision};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, Tensor};
use wgrad::train::alarm::Collapse;
use wgrad::train::methods::{Entry, METHODS};
use wgrad::train::progress::Style;
use wgrad::train::watch::{Diagnostics, Observed, PendingDiagnostics};
use wgrad::train::{Outcome, Recipe, RunDirectory, Trainer};

fn normal(count: usize, key: u32) -> Vec<f32> {
    let mut stream = Stream::new(key, Purpose::Test);
    (0..count).map(|_| stream.normal()).collect()
}

fn matrix(gpu: &Gpu, values: &[f32], columns: usize) -> Tensor {
    Tensor::from_slice(gpu, values, [values.len() / columns, columns]).unwrap()
}

fn figures(observed: Observed, loss: f64) -> Diagnostics {
    PendingDiagnostics::at(&observed).unwrap().figures(loss).unwrap()
}

fn of_embeddings(embeddings: Vec<Tensor>) -> Diagnostics {
    figures(Observed { embeddings, ..Default::default() }, 0.0)
}

fn close(found: Option<f64>, expected: f64, tolerance: f64) {
    let found = found.unwrap();
    assert!((found - expected).abs() <= tolerance, "{found}, expected {expected} within {tolerance}");
}

#[test]
fn constant_embeddings_have_neither_deviation_nor_rank() {
    let gpu = crate::common::gpu();
    let row = normal(48, 1);
    let found = of_embeddings(vec![matrix(&gpu, &row.repeat(64), 48); 2]);
    close(found.std, 0.0, 1e-5);
    assert_eq!(found.effective_rank, Some(0.0));
    close(found.positive_similarity, 1.0, 1e-5);
    close(found.negative_similarity, 1.0, 1e-5);
    // Nothing at all is no spread either, and no NaN.
    let nothing = of_embeddings(vec![Tensor::full(&gpu, [64, 48], 0.0, DType::F32).unwrap(); 2]);
    assert_eq!((nothing.std, nothing.effective_rank, nothing.positive_similarity), (Some(0.0), Some(0.0), Some(0.0)));
}

#[test]
fn isotropic_embeddings_have_the_deviation_of_the_sphere() {
    let gpu = crate::common::gpu();
    for (rows, columns) in [(512, 32), (512, 128), (1024, 255), (700, 400)] {
        let [first, second] = [1, 2].map(|key| matrix(&gpu, &normal(rows * columns, key), columns));
        let found = of_embeddings(vec![first, second]);
        // 1 / sqrt(D) of each feature.
        close(found.std, 1.0, 0.05);
        close(found.positive_similarity, 0.0, 0.02);
        close(found.negative_similarity, 0.0, 0.02);
        let side = rows.min(columns).min(256);
        assert_eq!(found.full_rank, Some(side));
        assert!(found.effective_rank.unwrap() > 0.8 * side as f64, "{found:?}");
    }
}

#[test]
fn a_planted_rank_is_found_however_long_the_sides_are() {
    let gpu = crate::common::gpu();
    // More rows than features, more features than rows, and both sides longer than what is looked
    // at.
    for (rows, columns) in [(512, 64), (48, 300), (600, 333)] {
        for rank in [1usize, 3, 20] {
            let [left, right] = [(rows, 3), (columns, 4)].map(|(n, key)| orthonormal(&normal(n * rank, key), rank));
            let values: Vec<f32> = (0..rows * columns)
                .map(|at| (0..rank).map(|r| left[at / columns + r * rows] * right[at % columns + r * columns]).sum::<f64>() as f32)
                .collect();
            let found = of_embeddings(vec![matrix(&gpu, &values, columns)]);
            // Of normalised rows, and of a part of them, singular values are no longer quite equal.
            close(found.effective_rank, rank as f64, 0.05 * rank as f64);
            assert_eq!((found.positive_similarity, found.negative_similarity), (None, None));
        }
    }
}

/// `rank` directions of length 1, at right angles, by Gram and Schmidt.
fn orthonormal(values: &[f32], rank: usize) -> Vec<f64> {
    let mut directions: Vec<Vec<f64>> = Vec::new();
    for values in values.chunks_exact(values.len() / rank) {
        let mut v: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        for earlier in &directions {
            let along: f64 = v.iter().zip(earlier).map(|(a, b)| a * b).sum();
            v.iter_mut().zip(earlier).for_each(|(v, e)| *v -= along * e);
        }
        let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        directions.push(v.into_iter().map(|v| v / length).collect());
    }
    directions.concat()
}

#[test]
fn similarities_are_those_of_plain_loops() {
    let gpu = crate::common::gpu();
    let (rows, columns, keys) = (33, 7, 65);
    let [a, b, queue] =
        [(rows, 5), (rows, 6), (keys, 7)].map(|(n, key)| normal(n * columns, key).iter().map(|v| v + 0.5).collect::<Vec<f32>>());
    let observed = Observed {
        embeddings: vec![matrix(&gpu, &a, columns), matrix(&gpu, &b, columns)],
        queue: Some(Queue { keys: matrix(&gpu, &queue, columns), age: 4.0 }),
        ..Default::default()
    };
    let found = figures(observed, 0.0);
    let unit = |values: &[f32]| -> Vec<Vec<f64>> {
        let row = |row: &[f32]| {
            let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|v| f64::from(*v) / length).collect()
        };
        values.chunks_exact(columns).map(row).collect()
    };
    let (a, b, queue) = (unit(&a), unit(&b), unit(&queue));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut positive, mut negative, mut to_queue) = (0.0, 0.0, 0.0);
    for (i, row) in a.iter().enumerate() {
        positive += dot(row, &b[i]) / rows as f64;
        negative += (0..rows).filter(|j| *j != i).map(|j| dot(row, &b[j])).sum::<f64>() / (rows * (rows - 1)) as f64;
        to_queue += queue.iter().map(|key| dot(row, key)).sum::<f64>() / (rows * keys) as f64;
    }
    close(found.positive_similarity, positive, 1e-5);
    close(found.negative_similarity, negative, 1e-5);
    close(found.queue_similarity, to_queue, 1e-5);
    assert_eq!(found.queue_age, Some(4.0));
}

#[test]
fn a_teachers_entropy_lies_between_one_answer_and_none() {
    let gpu = crate::common::gpu();
    let of = |rows: &[f32], loss: f64| figures(Observed { teacher: Some(matrix(&gpu, rows, 4)), ..Default::default() }, loss);
    let most = 4f64.ln();
    let uniform = of(&[0.25; 12], most);
    close(uniform.teacher_entropy, most, 1e-6);
    close(uniform.teacher_entropy_share, 1.0, 1e-6);
    close(uniform.teacher_divergence, 0.0, 1e-6);
    assert!(Collapse::UniformTeacher.shows(&uniform) && !Collapse::ConstantTeacher.shows(&uniform));
    // The teacher knows nothing yet, but the student is elsewhere.
    assert!(!Collapse::UniformTeacher.shows(&of(&[0.25; 12], 2.0 * most)));
    let constant = of(&[0.0, 1.0, 0.0, 0.0].repeat(3), 0.1);
    close(constant.teacher_entropy, 0.0, 1e-6);
    close(constant.teacher_usage, 0.0, 1e-6);
    close(constant.teacher_divergence, 0.1, 1e-6);
    assert!(Collapse::ConstantTeacher.shows(&constant) && !Collapse::UniformTeacher.shows(&constant));
    // Sure of each image, and not of the same: what is hoped for.
    let sure = of(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0], 0.1);
    close(sure.teacher_entropy, 0.0, 1e-6);
    close(sure.teacher_usage, 1.0, 1e-6);
    assert!(Collapse::ALL.iter().all(|kind| !kind.shows(&sure)));
}

fn fashion() -> Arc<Dataset> {
    static DATA: OnceLock<Arc<Dataset>> = OnceLock::new();
    DATA.get_or_init(|| Arc::new(Recipe::default().open(Split::Train).unwrap())).clone()
}

/// A run of 200 steps on 320 images of Fashion-MNIST.
struct Watched {
    result: Result<Outcome>,
    said: Vec<Collapse>,
    lines: Vec<Value>,
    views: usize,
}

fn watched(method: &str, settings: &[&str]) -> Watched {
    let settings = ["per_class=32", "batch=32", "epochs=20"].iter().chain(settings).copied();
    let recipe = Recipe::defaults(method).with(settings.clone()).unwrap();
    let (gpu, folder) = (crate::common::gpu(), tempfile::tempdir().unwrap());
    let run = RunDirectory::create(&folder.path().join("run"), &recipe, &gpu).unwrap();
    let teachers = teachers(&gpu, &recipe, &fashion());
    let mut trainer = Trainer::with_teachers(&gpu, recipe, fashion(), teachers).unwrap();
    let result = trainer.run(Some(&run), Style::Silent, &mut |_| false);
    let lines = lines(&run);
    println!("{method} {:?}: {:?}", settings.collect::<Vec<_>>(), lines.iter().rev().find(|line| line["kind"] == "step"));
    Watched { result, said: trainer.alarm().said().to_vec(), lines, views: trainer.method.views() }
}

fn lines(run: &RunDirectory) -> Vec<Value> {
    let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The method whose turn it is in one of two halves, which run side by side.
fn healthy(half: usize) {
    // Those whose embeddings or teachers could collapse; texts are no photographs.
    let collapses = |entry: &&Entry| entry.card.supervision == Supervision::SelfSupervised || entry.heads.contains(&Embedder::PROJECTOR);
    let watched_ones = METHODS.iter().filter(collapses).map(|entry| Recipe::defaults(entry.name));
    for recipe in watched_ones.filter(|recipe| !recipe.model.name.starts_with("bert_")).skip(half).step_by(2) {
        let (method, queue) = (recipe.method.name.as_str(), recipe.method.settings.contains_key("queue"));
        let Watched { result, said, lines, views } = watched(method, if queue { &["queue=512"] } else { &[] });
        assert!(result.unwrap().finished);
        assert_eq!(said, [], "{method}");
        assert!(lines.iter().all(|line| line["kind"] != "alarm"), "{method}");
        let steps: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "step").collect();
        assert_eq!(steps.len(), 10);
        assert!(steps.iter().all(|line| line["gradient_norm"].as_f64().unwrap() > 0.0), "{method}");
        if views == 2 {
            for key in ["embedding_std", "effective_rank", "positive_similarity", "negative_similarity"] {
                assert!(steps.iter().all(|line| line[key].is_number()), "{method}: {key}");
            }
        }
        assert_eq!(steps[0]["queue_age"].is_number() && steps[0]["queue_similarity"].is_number(), queue, "{method}");
    }
}

#[test]
fn healthy_runs_are_left_alone() {
    healthy(0);
}

#[test]
fn more_healthy_runs_are_left_alone() {
    healthy(1);
}

#[test]
fn simsiam_without_stop_gradient_sets_the_alarm_off() {
    // The recipe's last batch norm would keep every feature's deviation, and the embeddings would
    // lose their rank alone, and slowly.
    let Watched { result, said, lines, .. } = watched("simsiam", &["stop_gradient=false", "projector.last_norm=none"]);
    // It is said, and the run goes on.
    assert!(result.unwrap().finished);
    assert_eq!(said, [Collapse::Dimensional]);
    let events: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "alarm").collect();
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&event["collapse"], &event["step"]), (&json!("dimensional"), &json!(200)));
    assert!(event["message"].as_str().unwrap().contains("stop_gradient"), "{event}");
}

#[test]
fn moco_without_momentum_sets_the_alarm_off_and_stops_where_its_recipe_says_so() {
    let settings = ["queue=1024", "teacher.momentum=0", "teacher.momentum_end=0", "stop_on_collapse=true"];
    let Watched { result, said, lines, .. } = watched("moco", &settings);
    assert!(matches!(&result, Err(Error::Collapse { message, .. }) if message.contains("teacher.momentum")), "{result:?}");
    assert_eq!(said, [Collapse::InconsistentQueue]);
    assert_eq!(lines.last().unwrap()["collapse"], "inconsistent_queue");
}

#[test]
fn dino_without_centring_sets_the_alarm_off() {
    let Watched { result, said, lines, .. } = watched("dino", &["centering=false"]);
    assert!(result.unwrap().finished);
    assert_eq!(said, [Collapse::ConstantTeacher]);
    let message = lines.iter().find(|line| line["kind"] == "alarm").unwrap()["message"].to_string();
    assert!(message.contains("centering"), "{message}");
}

/// The norm that metrics show is that of the gradients before they are clipped, also of steps that
/// are replayed.
#[test]
fn the_gradients_norm_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let norms = |clip_norm: f32| -> Vec<f64> {
        let clip = format!("clip_norm={clip_norm}");
        let recipe = Recipe::defaults("simclr").with(["per_class=32", "batch=16", "epochs=2", "learning_rate=0", &clip]).unwrap();
        let gpu = crate::common::gpu();
        let run = RunDirectory::create(&folder.path().join(clip_norm.to_string()), &recipe, &gpu).unwrap();
        Trainer::new(&gpu, recipe, fashion()).unwrap().run(Some(&run), Style::Silent, &mut |_| false).unwrap();
        lines(&run).iter().filter_map(|line| line["gradient_norm"].as_f64()).collect()
    };
    let plain = norms(0.0);
    assert!(plain.len() == 2 && plain.iter().all(|norm| *norm > 1e-3) && plain[0] != plain[1], "{plain:?}");
    assert_eq!(plain, norms(1e-3));
}
