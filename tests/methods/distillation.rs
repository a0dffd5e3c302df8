//! Distillation: laws of its losses, teachers that never change, logits that are computed once, and
//! what is refused.

use crate::common::tiny;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::gpu;
use crate::common::teachers::teachers;
use crate::common::tiny::dataset;
use wgrad::data::{Dataset, Loader, PackedBatch, Split, Views};
use wgrad::evaluate::outputs;
use wgrad::gpu::Gpu;
use wgrad::methods::{
    Batch, DecoupledDistillation, DecoupledDistillationConfig, Distillation, DistillationConfig, HIDDEN, Method, MethodContext,
    MethodFactory, Supervised, SupervisedConfig, Teacher, decoupled,
};
use wgrad::models::{Network, SmallCnn, SmallCnnConfig};
use wgrad::nn::{Mode, Parameters, state_dict};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{InputShape, Tensor};
use wgrad::train::methods::METHODS;
use wgrad::train::progress::Style;
use wgrad::train::teachers::teachers as named_teachers;
use wgrad::train::{Checkpoint, LoadedRun, Recipe, RunDirectory, Trainer};

const ROWS: usize = 5;
const CLASSES: usize = 7;

fn normal(count: usize, scale: f32, key: u32) -> Vec<f32> {
    let mut stream = Stream::new(key, Purpose::Test);
    (0..count).map(|_| scale * stream.normal()).collect()
}

fn rows(gpu: &Gpu, values: &[f32]) -> Tensor {
    Tensor::from_slice(gpu, values, [values.len() / CLASSES, CLASSES]).unwrap()
}

/// Logits of a student and a teacher.
fn logits(gpu: &Gpu) -> [Tensor; 2] {
    [1, 2].map(|key| rows(gpu, &normal(ROWS * CLASSES, 2.0, key)))
}

/// The loss, and its gradient for the student.
fn divergence(student: &Tensor, teacher: &Tensor, temperature: f32) -> (f32, Vec<f32>) {
    let student = student.watch();
    let loss = student.distillation_kl(teacher, temperature).unwrap();
    (loss.item().unwrap(), loss.backward().unwrap().get(&student).unwrap().to_vec().unwrap())
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{found}, expected {expected}");
    }
}

#[test]
fn the_divergence_is_nothing_at_equality_and_its_rows_sum_to_nothing() {
    let gpu = gpu();
    let [student, teacher] = logits(&gpu);
    for temperature in [1.0, 4.0, 20.0] {
        let (loss, gradient) = divergence(&teacher, &teacher, temperature);
        assert!(loss.abs() < 1e-5 && norm(&gradient) < 1e-5, "{loss} {gradient:?}");
        // Softmax does not see what is added to all logits of a row.
        let (loss, _) = divergence(&teacher.add_scalar(3.0).unwrap(), &teacher, temperature);
        assert!(loss.abs() < 1e-4, "{loss}");
        let (loss, gradient) = divergence(&student, &teacher, temperature);
        assert!(loss > 0.1 && norm(&gradient) > 0.1);
        gradient.chunks(CLASSES).for_each(|row| assert!(row.iter().sum::<f32>().abs() < 1e-6, "{row:?}"));
    }
}

#[test]
fn without_its_factor_the_gradient_falls_with_the_square_of_the_temperature() {
    let gpu = gpu();
    let [student, teacher] = logits(&gpu);
    let plain = |temperature: f32| norm(&divergence(&student, &teacher, temperature).1) / f64::from(temperature).powi(2);
    let fall = plain(100.0) / plain(400.0);
    approx::assert_abs_diff_eq!(fall / 16.0, 1.0, epsilon = 0.02);
    // With it, the gradient becomes that of half the squared distance of centred logits, a mean
    // over rows and classes.
    let centred = |x: &Tensor| -> Vec<f32> {
        let values: Vec<f32> = x.to_vec().unwrap();
        values.chunks(CLASSES).flat_map(|row| row.iter().map(|v| v - row.iter().sum::<f32>() / CLASSES as f32)).collect()
    };
    let expected: Vec<f32> = centred(&student).iter().zip(centred(&teacher)).map(|(s, t)| (s - t) / (CLASSES * ROWS) as f32).collect();
    let (_, found) = divergence(&student, &teacher, 2000.0);
    let away: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
    assert!(norm(&away) < 0.01 * norm(&expected), "{found:?} {expected:?}");
}

#[test]
fn a_certain_teacher_is_a_label_and_the_mean_is_over_rows() {
    let gpu = gpu();
    let [student, teacher] = logits(&gpu);
    let classes: Vec<i32> = (0..ROWS as i32).map(|row| row * 3 % CLASSES as i32).collect();
    let certain: Vec<f32> =
        classes.iter().flat_map(|class| (0..CLASSES as i32).map(move |c| if c == *class { 60.0 } else { 0.0 })).collect();
    let labels = Tensor::from_slice(&gpu, &classes, [ROWS]).unwrap();
    let watched = student.watch();
    let entropy = watched.cross_entropy(&labels, 0.0).unwrap();
    let expected: Vec<f32> = entropy.backward_retain_graph().unwrap().get(&watched).unwrap().to_vec().unwrap();
    let (loss, gradient) = divergence(&student, &rows(&gpu, &certain), 1.0);
    close(&[loss], &[entropy.item().unwrap()], 1e-5);
    close(&gradient, &expected, 1e-6);
    // Classes times the mean over elements, which is something else.
    let (p, q) = (student.log_softmax(-1).unwrap(), teacher.log_softmax(-1).unwrap());
    let elements = q.exp().unwrap().mul(&q.sub(&p).unwrap()).unwrap();
    let mean = elements.mean(&[], false).unwrap().item().unwrap();
    close(&[divergence(&student, &teacher, 1.0).0], &[CLASSES as f32 * mean], 1e-5);
}

#[test]
fn distillation_is_decoupled_by_the_true_class() {
    let gpu = gpu();
    let others: Vec<i32> = (0..CLASSES as i32).flat_map(|class| (0..CLASSES as i32).filter(move |c| *c != class)).collect();
    let others = Tensor::from_slice(&gpu, &others, [CLASSES, CLASSES - 1]).unwrap();
    // The last: all but the true class have so little probability that its rest underflows.
    for (key, scale, temperature) in [(1, 2.0, 1.0), (2, 2.0, 4.0), (3, 5.0, 2.0), (4, 80.0, 1.0)] {
        let [student, teacher] = [key, key + 10].map(|key| normal(CLASSES, scale, key));
        for class in 0..CLASSES {
            let [s, t] = [&student, &teacher].map(|values| rows(&gpu, values));
            let label = Tensor::from_slice(&gpu, &[class as i32], [1]).unwrap();
            let [target, rest] = decoupled(&s, &t, &label, &others, temperature).unwrap().map(|part| part.item().unwrap());
            let sum: f64 = teacher.iter().map(|v| f64::from(v / temperature).exp()).sum();
            let probability = f64::from(teacher[class] / temperature).exp() / sum;
            let whole = divergence(&s, &t, temperature).0;
            let joined = target + (1.0 - probability as f32) * rest;
            assert!((whole - joined).abs() < 1e-4 * whole.abs().max(1.0), "{class} of {key}: {whole} {joined}");
        }
    }
}

const WIDTHS: [usize; 3] = [8, 12, 16];

/// A teacher of four classes that has learnt nothing, in this order of classes.
fn teacher(gpu: &Gpu, order: &[usize], classifier: bool) -> Arc<Teacher> {
    let params = Parameters::new(gpu, 9);
    let backbone = SmallCnn::new(&params, SmallCnnConfig { channels: 1, widths: WIDTHS }).unwrap();
    let network = Network::new(&params, Box::new(backbone), classifier.then_some(order.len())).unwrap();
    Arc::new(Teacher::new("runs/known", params, network, order.to_vec()))
}

fn setting(teachers: Vec<Arc<Teacher>>, labels: &[i32]) -> MethodContext {
    MethodContext {
        classes: tiny::CLASSES,
        input: InputShape::Image([tiny::SIDE, tiny::SIDE, 1]),
        labels: labels.into(),
        teachers,
        ..Default::default()
    }
}

fn made<M: MethodFactory>(gpu: &Gpu, config: M::Config, setting: &MethodContext) -> wgrad::error::Result<(Parameters, M)> {
    let params = Parameters::new(gpu, 5);
    let build = |params: &Parameters| -> wgrad::error::Result<Box<dyn wgrad::models::Backbone>> {
        Ok(Box::new(SmallCnn::new(params, SmallCnnConfig { channels: 1, widths: WIDTHS })?))
    };
    let method = M::new(&params, &build, config, setting)?;
    Ok((params, method))
}

fn batch(gpu: &Gpu, labels: &[i32]) -> Batch {
    let pixels = normal(labels.len() * tiny::SIDE * tiny::SIDE, 1.0, 7);
    let views = vec![Tensor::from_slice(gpu, &pixels, [labels.len(), tiny::SIDE, tiny::SIDE, 1]).unwrap()];
    let indices: Vec<i32> = (0..labels.len() as i32).collect();
    let [labels, indices] = [labels, &indices].map(|values| Tensor::from_slice(gpu, values, [values.len()]).unwrap());
    Batch { views, labels, indices, epoch: 0.into() }
}

fn loss<M: MethodFactory>(gpu: &Gpu, config: M::Config, teachers: Vec<Arc<Teacher>>, labels: &[i32]) -> f32 {
    let (_, method) = made::<M>(gpu, config, &setting(teachers, labels)).unwrap();
    method.loss(&batch(gpu, labels)).unwrap().loss.item().unwrap()
}

#[test]
fn the_teachers_part_and_the_labels_part() {
    let gpu = gpu();
    let labels = [0, 1, 2, 3, 0, 1];
    let of = |soft_weight: f32, labels: &[i32]| {
        loss::<Distillation>(&gpu, DistillationConfig { temperature: 2.0, soft_weight }, vec![teacher(&gpu, &[0, 1, 2, 3], true)], labels)
    };
    // Without a teacher's part it is supervised learning.
    close(
        &[of(0.0, &labels)],
        &[loss::<Supervised>(&gpu, SupervisedConfig { label_smoothing: 0.0, ..Default::default() }, vec![], &labels)],
        1e-6,
    );
    // The teacher alone looks at no label, and neither does one beside whom no label is known.
    assert_eq!(of(1.0, &labels), of(1.0, &[HIDDEN; 6]));
    close(&[of(0.3, &[HIDDEN; 6])], &[0.3 * of(1.0, &labels)], 1e-6);
    close(&[of(0.3, &labels)], &[0.3 * of(1.0, &labels) + 0.7 * of(0.0, &labels)], 1e-6);
    // Of some labels, the mean is over these.
    close(&[of(0.0, &[0, HIDDEN, 2, HIDDEN, HIDDEN, HIDDEN])], &[loss_of_known(&gpu, &[0, HIDDEN, 2, HIDDEN, HIDDEN, HIDDEN])], 1e-6);
}

/// Cross entropy of the same student, on the host.
fn loss_of_known(gpu: &Gpu, labels: &[i32]) -> f32 {
    let (_, method) = made::<Supervised>(gpu, SupervisedConfig::default(), &setting(vec![], labels)).unwrap();
    let logits: Vec<f32> = method.network().module().forward(&batch(gpu, labels).views[0], Mode::Train).unwrap().to_vec().unwrap();
    let known = labels.iter().zip(logits.chunks(tiny::CLASSES)).filter(|(label, _)| **label != HIDDEN);
    let entropies: Vec<f32> = known.map(|(label, row)| row.iter().map(|v| v.exp()).sum::<f32>().ln() - row[*label as usize]).collect();
    entropies.iter().sum::<f32>() / entropies.len() as f32
}

#[test]
fn a_teachers_classes_may_stand_in_another_order() {
    let gpu = gpu();
    let labels = [0, 1, 2, 3, 0, 1];
    let plain = teacher(&gpu, &[0, 1, 2, 3], true);
    let turned = teacher(&gpu, &[2, 0, 3, 1], true);
    // The same network, its rows of the classifier in that order.
    let mut archive = state_dict::to_archive(plain.parameters()).unwrap();
    for (name, width) in [("classifier.weight", WIDTHS[2]), ("classifier.bias", 1)] {
        let Some(wgrad::io::HostTensor::F32(_, data)) = archive.tensors.get_mut(name) else { panic!("no {name}") };
        *data = [2, 0, 3, 1].iter().flat_map(|class| data[class * width..(class + 1) * width].to_vec()).collect();
    }
    state_dict::from_archive(turned.parameters(), &archive, "turned").unwrap();
    let config = || DistillationConfig { soft_weight: 1.0, ..Default::default() };
    close(
        &[loss::<Distillation>(&gpu, config(), vec![turned], &labels)],
        &[loss::<Distillation>(&gpu, config(), vec![plain], &labels)],
        1e-5,
    );
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let gpu = gpu();
    let labels = [0, 1, 2, 3];
    let refused = |teachers: Vec<Arc<Teacher>>, words: &str| {
        let error = made::<Distillation>(&gpu, DistillationConfig::default(), &setting(teachers, &labels)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(vec![], "set `teachers` to a finished run's directory");
    refused(vec![teacher(&gpu, &[0, 1, 2, 3], true); 2], "2 were given");
    refused(vec![teacher(&gpu, &[0, 2, 3], true)], "runs/known does not know every class: class 1");
    refused(vec![teacher(&gpu, &[], false)], "has no classifier");
    let hidden = setting(vec![teacher(&gpu, &[0, 1, 2, 3], true)], &[0, HIDDEN]);
    let error = made::<DecoupledDistillation>(&gpu, DecoupledDistillationConfig::default(), &hidden).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("label of every image"), "{error}");
}

#[test]
fn the_decoupled_part_rises_over_the_warm_up() {
    let gpu = gpu();
    let labels = [0, 1, 2, 3];
    let mut setting = setting(vec![teacher(&gpu, &[0, 1, 2, 3], true)], &labels);
    setting.clock.steps_per_epoch = 3;
    let config = |warm_up_epochs| DecoupledDistillationConfig { warm_up_epochs, ..Default::default() };
    let at = |warm_up_epochs: u32, step: u64| {
        setting.clock.step.set(step);
        let (_, method) = made::<DecoupledDistillation>(&gpu, config(warm_up_epochs), &setting).unwrap();
        method.loss(&batch(&gpu, &labels)).unwrap().loss.item().unwrap()
    };
    let plain = loss::<Supervised>(&gpu, SupervisedConfig { label_smoothing: 0.0, ..Default::default() }, vec![], &labels);
    let whole = at(0, 0) - plain;
    assert!(whole > 1e-3);
    for (step, share) in [(0, 0.25), (2, 0.25), (3, 0.5), (9, 1.0), (30, 1.0)] {
        close(&[at(4, step) - plain], &[share * whole], 1e-4);
    }
}

fn recipe(method: &str) -> Recipe {
    Recipe::defaults(method).with(["batch=16", "epochs=2", "seed=7", "augmentation=grey_simclr"]).unwrap()
}

#[test]
fn a_teacher_never_changes_and_gets_no_gradient() {
    let (gpu, data) = (gpu(), dataset(48));
    let mut taught = 0;
    for entry in METHODS.iter().filter(|entry| !recipe(entry.name).teachers.is_empty()) {
        // That of texts has a test of its own, among those of texts.
        if recipe(entry.name).model.name.starts_with("bert_") {
            continue;
        }
        let teachers = teachers(&gpu, &recipe(entry.name), &data);
        let hashes = || teachers.iter().map(|teacher| teacher.hash().unwrap()).collect::<Vec<_>>();
        let before = hashes();
        let mut trainer = Trainer::with_teachers(&gpu, recipe(entry.name), data.clone(), teachers.clone()).unwrap();
        assert!(trainer.run(None, Style::Silent, &mut |_| false).unwrap().finished);
        assert_eq!(hashes(), before, "{}", entry.name);
        let packed = PackedBatch::upload(&gpu, &Loader::evaluation(data.clone(), 16).unwrap().epoch(0).next().unwrap().unwrap()).unwrap();
        let images = packed.unpack().unwrap();
        let views = vec![trainer.recipe.preprocessing("none", 0, &data).unwrap().apply(&images, 0, 0).unwrap(); trainer.method.views()];
        let batch = Batch { views, labels: images.labels, indices: images.indices, epoch: 0.into() };
        let gradients = trainer.method.gradients(&trainer.method.loss(&batch).unwrap()).unwrap();
        assert!(trainer.params.all().iter().any(|p| gradients.get(&p.tensor(Mode::Train).unwrap()).is_some()), "{}", entry.name);
        for parameter in teachers.iter().flat_map(|teacher| teacher.parameters().all()) {
            assert!(gradients.get(&parameter.tensor(Mode::Train).unwrap()).is_none(), "{}", entry.name);
        }
        taught += 1;
    }
    assert!(taught >= 5, "{taught}");
}

/// A recipe of a small network on the images in `data`, taught by the run `teacher`.
fn taught(method: &str, data: &Path, teacher: &Path) -> Recipe {
    let mut recipe = Recipe { teachers: vec![teacher.into()], ..recipe(method) }.with(["model=cnn_16_32_64"]).unwrap();
    recipe.data.path = data.into();
    recipe
}

/// A finished run on `data`.
fn finished(gpu: &Gpu, folder: &Path, data: &Path, settings: &[&str]) -> PathBuf {
    let mut recipe = Recipe::defaults("supervised").with(["model=cnn_16_32_64", "batch=16", "epochs=1"]).unwrap();
    recipe.data.path = data.into();
    recipe.set_all(settings.iter().copied()).unwrap();
    let path = folder.join(format!("teacher {}", settings.len()));
    let run = RunDirectory::create(&path, &recipe, gpu).unwrap();
    let images = Arc::new(recipe.open(Split::Train).unwrap());
    Trainer::new(gpu, recipe, images).unwrap().run(Some(&run), Style::Silent, &mut |_| false).unwrap();
    path
}

/// What a run's network says of its data, images as itself sees them.
fn own(gpu: &Gpu, run: &Path) -> Vec<f32> {
    let LoadedRun { recipe, network, train, .. } = LoadedRun::open(gpu, run, None).unwrap();
    outputs(gpu, &network, &train, &recipe.preprocessing("none", 0, &train).unwrap(), 0).unwrap()
}

/// What `expert` says of all of `data` as `recipe` shows it.
fn said(gpu: &Gpu, expert: &Teacher, recipe: &Recipe, data: &Arc<Dataset>) -> Vec<f32> {
    let preprocessing = recipe.preprocessing("none", 0, data).unwrap();
    let of = |batch: wgrad::error::Result<wgrad::data::HostBatch>| -> Vec<f32> {
        let batch = PackedBatch::upload(gpu, &batch.unwrap()).unwrap().unpack().unwrap();
        expert.logits(&preprocessing.apply(&batch, 0, 0).unwrap(), &batch.indices).unwrap().to_vec().unwrap()
    };
    Loader::evaluation(data.clone(), 32).unwrap().epoch(0).flat_map(of).collect()
}

fn kept(run: &Path) -> Vec<PathBuf> {
    fs::read_dir(run.join("cache")).map(|files| files.map(|file| file.unwrap().path()).collect()).unwrap_or_default()
}

#[test]
fn logits_are_computed_once_where_images_come_as_they_are() {
    let (gpu, folder) = (gpu(), tempfile::tempdir().unwrap());
    let path = tiny::data_called(folder.path(), "data");
    let teacher = finished(&gpu, folder.path(), &path, &[]);
    let student = |augmentation: &str, method: &str| {
        let mut recipe = taught(method, &path, &teacher);
        recipe.augmentation.views = Views::All(augmentation.into());
        recipe
    };
    let data = Arc::new(student("none", "distillation").open(Split::Train).unwrap());
    let expert = |recipe: &Recipe, data: &Arc<Dataset>| named_teachers(&gpu, recipe, data).unwrap().remove(0);
    let live = expert(&student("supervised", "distillation"), &data);
    assert!(!live.is_cached() && kept(&teacher).is_empty());
    assert!(!expert(&student("none", "feature_distillation"), &data).is_cached(), "nobody asks for its logits");
    let expected = own(&gpu, &teacher);
    close(&said(&gpu, &live, &student("none", "distillation"), &data), &expected, 1e-5);

    let recipe = student("none", "distillation");
    let cached = expert(&recipe, &data);
    let [file] = kept(&teacher).try_into().unwrap();
    assert!(cached.is_cached());
    let found = said(&gpu, &cached, &recipe, &data);
    close(&found, &expected, 1e-5);
    // Read again: the same bits, and no other file.
    assert_eq!(said(&gpu, &expert(&recipe, &data), &recipe, &data), found);
    assert_eq!(kept(&teacher), std::slice::from_ref(&file));
    // A damaged file is made anew; other images have one of their own.
    fs::write(&file, "x").unwrap();
    assert_eq!(said(&gpu, &expert(&recipe, &data), &recipe, &data), found);
    let part = Arc::new(data.subset(&(0..40).collect::<Vec<_>>()).unwrap());
    assert!(expert(&recipe, &part).is_cached());
    assert_eq!(kept(&teacher).len(), 2);

    // A run that is taught by them learns what one with the live teacher learns.
    let losses = [vec![live], vec![cached]].map(|teachers| {
        let mut trainer = Trainer::with_teachers(&gpu, recipe.clone(), data.clone(), teachers).unwrap();
        trainer.run(None, Style::Silent, &mut |_| false).unwrap().loss
    });
    assert!((losses[0] - losses[1]).abs() < 1e-4 * losses[0], "{losses:?}");

    // Where nothing can be written, it is computed all the same.
    fs::remove_dir_all(teacher.join("cache")).unwrap();
    fs::write(teacher.join("cache"), "in the way").unwrap();
    assert_eq!(said(&gpu, &expert(&recipe, &data), &recipe, &data), found);
}

#[test]
fn a_teacher_sees_images_as_it_learnt_them() {
    let (gpu, folder) = (gpu(), tempfile::tempdir().unwrap());
    let path = tiny::data_called(folder.path(), "data");
    let teacher = finished(&gpu, folder.path(), &path, &["normalize=imagenet"]);
    let student = taught("distillation", &path, &teacher);
    let data = Arc::new(student.open(Split::Train).unwrap());
    let expert = named_teachers(&gpu, &student, &data).unwrap().remove(0);
    let [scale, shift] = expert.renormalization().unwrap().unwrap();
    assert!((scale[0] - 1.0).abs() > 0.01 && shift[0].abs() > 0.01, "{scale:?} {shift:?}");
    close(&said(&gpu, &expert, &student, &data), &own(&gpu, &teacher), 1e-4);
}

#[test]
fn a_run_begins_with_a_teacher_that_exists_and_goes_on_with_the_same() {
    let (gpu, folder) = (gpu(), tempfile::tempdir().unwrap());
    let path = tiny::data_called(folder.path(), "data");
    let nowhere = taught("distillation", &path, Path::new("runs/nowhere"));
    let data = Arc::new(nowhere.open(Split::Train).unwrap());
    let error = Trainer::new(&gpu, nowhere, data.clone()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("teacher runs/nowhere") && error.contains("set `teachers`"), "{error}");

    let teacher = finished(&gpu, folder.path(), &path, &[]);
    let recipe = taught("distillation", &path, &teacher);
    let mut trainer = Trainer::new(&gpu, recipe, data.clone()).unwrap();
    trainer.run(None, Style::Silent, &mut |position| position.step == 5).unwrap();
    let file = folder.path().join("checkpoint");
    trainer.checkpoint().unwrap().save(&file).unwrap();
    let resume = || Trainer::resume(&gpu, &Checkpoint::load(&file).unwrap(), data.clone()).map(|trainer| trainer.position().step);
    assert_eq!(resume().unwrap(), 5);
    let weights = teacher.join("weights.safetensors");
    let mut archive = wgrad::io::Archive::load(&weights).unwrap();
    let Some(wgrad::io::HostTensor::F32(_, bias)) = archive.tensors.get_mut("classifier.bias") else { panic!("no bias") };
    bias[0] += 1e-6;
    archive.save(&weights).unwrap();
    let error = resume().unwrap_err().to_string();
    assert!(error.contains("another teacher") && error.contains(&*teacher.display().to_string()), "{error}");
}
