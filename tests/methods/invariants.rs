//! What must hold for self-supervised methods whatever the data: losses at known points, queues,
//! averages, teachers.

use std::f64::consts::LN_2;

use crate::common::gpu;
use wgrad::gpu::Gpu;
use wgrad::methods::{
    Batch, Byol, ByolConfig, Clock, EmaTeacherConfig, Method, MethodContext, MethodFactory, Moco, MocoConfig, MocoV3, MocoV3Config,
};
use wgrad::models::{MlpConfig, ModelOptions, model};
use wgrad::nn::{Mode, Parameters, Role};
use wgrad::optim::{Ema, Optimizer, Schedule, Sgd, SgdOptions};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, InputShape, Tensor};

pub fn normal(gpu: &Gpu, seed: u32, shape: [usize; 2]) -> Tensor {
    let mut stream = Stream::keyed(seed, Purpose::Test.key(), 0);
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| stream.normal()).collect();
    Tensor::from_slice(gpu, &values, shape).unwrap()
}

/// `rows` different directions at right angles.
fn orthogonal(gpu: &Gpu, rows: usize, first: usize, width: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * width).map(|i| if i % width == first + i / width { 3.0 } else { 0.0 }).collect();
    Tensor::from_slice(gpu, &values, [rows, width]).unwrap()
}

pub fn close(what: &str, found: f32, expected: f64) {
    assert!((f64::from(found) - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
}

#[test]
fn nt_xent_at_known_points() {
    let gpu = gpu();
    for n in [1, 2, 7, 33] {
        let same = Tensor::full(&gpu, [n, 5], 0.7, DType::F32).unwrap();
        close("all embeddings equal", same.nt_xent(&same, 0.3).unwrap().item().unwrap(), (2.0 * n as f64 - 1.0).ln());
        let [a, b] = [1, 2].map(|seed| normal(&gpu, seed, [n, 5]));
        let loss = a.nt_xent(&b, 0.3).unwrap().item().unwrap();
        close("views exchanged", b.nt_xent(&a, 0.3).unwrap().item().unwrap(), loss.into());
        close("longer embeddings", a.mul_scalar(7.0).unwrap().nt_xent(&b, 0.3).unwrap().item().unwrap(), loss.into());
    }
    for (n, temperature) in [(4, 0.5), (16, 0.2), (16, 0.1)] {
        let z = orthogonal(&gpu, n, 0, n);
        let floor = (1.0 + (2.0 * n as f64 - 2.0) * (-1.0 / f64::from(temperature)).exp()).ln();
        close("negatives at right angles", z.nt_xent(&z, temperature).unwrap().item().unwrap(), floor);
    }
}

#[test]
fn nt_xent_does_not_pull_along_an_embedding() {
    let gpu = gpu();
    let [a, b] = [1, 2].map(|seed| normal(&gpu, seed, [9, 6]).watch());
    let gradients = a.nt_xent(&b, 0.2).unwrap().backward().unwrap();
    for z in [&a, &b] {
        let gradient = gradients.get(z).unwrap();
        let along = gradient.mul(z).unwrap().sum(&[1], false).unwrap().to_vec::<f32>().unwrap();
        let size = gradient.mul(gradient).unwrap().sum(&[0, 1], false).unwrap().item().unwrap().sqrt();
        assert!(size > 1e-3 && along.iter().all(|v| v.abs() < 1e-6 * size.max(1.0)), "{along:?} of {size}");
    }
}

#[test]
fn similarities_are_divided_by_the_temperature() {
    let gpu = gpu();
    let [a, b] = [1, 2].map(|seed| normal(&gpu, seed, [5, 8]));
    let plain = a.similarity_matrix(&b, 1.0).unwrap().to_vec::<f32>().unwrap();
    let sharp = a.similarity_matrix(&b, 0.05).unwrap().to_vec::<f32>().unwrap();
    plain.iter().zip(sharp).for_each(|(p, s)| close("a similarity", s, f64::from(*p) / 0.05));
}

#[test]
fn a_queue_of_equal_keys_gives_the_logarithm_of_their_number() {
    let gpu = gpu();
    for k in [1, 6, 130] {
        let [q, queue] = [3, k].map(|rows| Tensor::full(&gpu, [rows, 4], 0.5, DType::F32).unwrap());
        close("degenerate", q.info_nce_queue(&q, &queue, 0.07).unwrap().item().unwrap(), (k as f64 + 1.0).ln());
    }
}

/// A method on a small network, and what drives it.
pub struct Driven<M> {
    pub method: M,
    pub params: Parameters,
    clock: Clock,
    pub sgd: Sgd,
}

pub const BATCH: usize = 8;

impl<M: MethodFactory> Driven<M> {
    pub fn new(gpu: &Gpu, config: M::Config) -> Self {
        let params = Parameters::new(gpu, 3);
        let clock = Clock { steps: 10, steps_per_epoch: 5, ..Default::default() };
        let setting =
            MethodContext { clock: clock.clone(), classes: 4, input: InputShape::Image([8, 8, 1]), seed: 3, ..Default::default() };
        let network = model("cnn_16_32_64", ModelOptions { channels: 1, ..Default::default() }).unwrap().architecture;
        let method = M::new(&params, &|params| network.build(params), config, &setting).unwrap();
        let sgd = Sgd::new(&params, SgdOptions { momentum: 0.9, ..Default::default() }).unwrap();
        method.begin().unwrap();
        Self { method, params, clock, sgd }
    }

    pub fn batch(&self, step: u64) -> Batch {
        let gpu = self.params.gpu();
        let view = |view: u32| normal(gpu, 100 * step as u32 + view, [BATCH, 64]).reshape(&[BATCH, 8, 8, 1]).unwrap();
        let labels = Tensor::from_slice(gpu, &[0i32; BATCH], [BATCH]).unwrap();
        Batch { views: vec![view(0), view(1)], indices: labels.clone(), labels, epoch: 0.into() }
    }

    fn teacher(&self) -> &Parameters {
        self.method.averages()[0].1
    }
}

/// All values, or all running statistics, of a home.
fn contents(params: &Parameters, statistics: bool) -> Vec<f32> {
    let kind = |p: &wgrad::nn::Parameter| (p.slot().unwrap().role == Role::Statistic) == statistics;
    params.all().iter().filter(|p| kind(p)).flat_map(|p| p.detach().unwrap().to_vec::<f32>().unwrap()).collect()
}

/// `m * average + (1 - m) * source`, up to how a kernel rounds it.
fn assert_follows(what: &str, after: &[f32], average: &[f32], source: &[f32], momentum: f32) {
    assert_eq!(after.len(), average.len());
    for ((after, a), s) in after.iter().zip(average).zip(source) {
        let expected = momentum * a + (1.0 - momentum) * s;
        assert!((after - expected).abs() <= 2e-7 * a.abs().max(s.abs()), "{what}: {after}, expected {expected} of {a} and {s}");
    }
}

fn moco(gpu: &Gpu, splits: usize, symmetric: bool) -> Driven<Moco> {
    let teacher = EmaTeacherConfig { momentum: 0.9, momentum_end: 0.9 };
    Driven::new(gpu, MocoConfig { queue: 32, batch_norm_splits: splits, symmetric, teacher, ..Default::default() })
}

#[test]
fn keys_enter_the_queue_behind_the_loss_and_leave_it_in_their_order() {
    let gpu = gpu();
    for (splits, symmetric) in [(1, false), (4, false), (2, true)] {
        let mut driven = moco(&gpu, splits, symmetric);
        let state = driven.method.state();
        let (queue, cursor) = (&state[0].1, &state[1].1);
        let entering = if symmetric { 2 * BATCH } else { BATCH };
        let lasting = 32 / entering;
        let mut rows = queue.to_vec::<f32>().unwrap();
        for step in 0..2 * lasting + 1 {
            driven.clock.step.set(step as u64);
            driven.method.begin_step().unwrap();
            let found = driven.method.loss(&driven.batch(step as u64)).unwrap();
            assert_eq!(queue.to_vec::<f32>().unwrap(), rows, "the loss sees the queue as it was");
            if !symmetric {
                let [q, k] = [&found.embeddings[0], &found.embeddings[1]];
                let before = Tensor::from_slice(&gpu, &rows, [32, 32]).unwrap();
                close("the loss", found.loss.item().unwrap(), q.info_nce_queue(k, &before, 0.2).unwrap().item().unwrap().into());
                rows[step % lasting * BATCH * 32..][..BATCH * 32].copy_from_slice(&k.to_vec::<f32>().unwrap());
            }
            driven.sgd.step(&driven.method.gradients(&found).unwrap(), 0.1).unwrap();
            driven.method.after_update(&found).unwrap();
            let now = queue.to_vec::<f32>().unwrap();
            if symmetric {
                let at = step % lasting * entering * 32;
                assert_ne!(now[at..at + entering * 32], rows[at..at + entering * 32]);
                rows[at..at + entering * 32].copy_from_slice(&now[at..at + entering * 32]);
            }
            assert_eq!(now, rows, "{splits} splits, step {step}");
            assert_eq!(cursor.to_vec::<i32>().unwrap(), [((step + 1) * entering % 32) as i32]);
            for key in now.chunks(32) {
                close("a key's length", key.iter().map(|v| v * v).sum::<f32>(), 1.0);
            }
        }
    }
    let odd = Driven::<Moco>::new(&gpu, MocoConfig { queue: 20, ..Default::default() });
    let message = odd.method.loss(&odd.batch(0)).err().unwrap().to_string();
    assert!(message.contains("queue: 20 keys must be a multiple of the 8"), "{message}");
}

/// Parts of a batch, shuffled or not, see each other's statistics no more, and every key comes back
/// to its own row.
#[test]
fn split_batch_norms_see_only_their_part() {
    let gpu = gpu();
    let driven = moco(&gpu, 1, false);
    let batch = driven.batch(0);
    let keys = |splits: usize, shuffle: bool| {
        let config = MocoConfig { queue: 32, batch_norm_splits: splits, shuffle, ..Default::default() };
        let found = Driven::<Moco>::new(&gpu, config).method.loss(&batch).unwrap();
        found.embeddings[1].to_vec::<f32>().unwrap()
    };
    let shuffled = keys(2, true);
    // Dealt out, rows 0, 2, 4 and 6 lie in one part: the same as if they had been given first,
    // unshuffled.
    let order = [0, 2, 4, 6, 1, 3, 5, 7];
    let index = Tensor::from_slice(driven.params.gpu(), &order.map(|i| i as i32), [BATCH]).unwrap();
    let dealt = Batch { views: batch.views.iter().map(|v| v.index_select(0, &index).unwrap()).collect(), ..driven.batch(0) };
    let config = MocoConfig { queue: 32, batch_norm_splits: 2, shuffle: false, ..Default::default() };
    let plain = Driven::<Moco>::new(&gpu, config).method.loss(&dealt).unwrap().embeddings[1].to_vec::<f32>().unwrap();
    for (row, from) in plain.chunks(32).zip(order) {
        assert_eq!(row, &shuffled[from * 32..][..32]);
    }
    assert_ne!(shuffled, keys(2, false));
    assert_ne!(shuffled, keys(1, false));
    assert_eq!(keys(1, true), keys(1, false));
    let uneven = Driven::<Moco>::new(&gpu, MocoConfig { queue: 32, batch_norm_splits: 3, ..Default::default() });
    let message = uneven.method.loss(&batch).err().unwrap().to_string();
    assert!(message.contains("batch_norm_splits") && message.contains("3 equal parts"), "{message}");
}

#[test]
fn an_average_has_its_closed_form() {
    let params = Parameters::new(&gpu(), 0);
    let network = model("cnn_16_32_64", ModelOptions { channels: 1, ..Default::default() }).unwrap().architecture;
    network.build(&params).unwrap();
    let (average, own) = (Ema::new(&params).unwrap(), Ema::teacher(&params).unwrap());
    let start = contents(average.parameters(), false);
    for parameter in params.all() {
        let tensor = parameter.detach().unwrap();
        tensor.write(&vec![0.25f32; tensor.numel()]).unwrap();
    }
    let (start_statistics, own_statistics) = (contents(average.parameters(), true), contents(own.parameters(), true));
    for _ in 0..20 {
        own.update(0.9).unwrap();
        average.update(0.9).unwrap();
    }
    let share = 0.9f64.powi(20);
    for (found, start) in contents(average.parameters(), false).iter().zip(&start) {
        close("after 20 steps", *found, share * f64::from(*start) + (1.0 - share) * 0.25);
    }
    assert_eq!(contents(own.parameters(), false), contents(average.parameters(), false));
    assert_eq!(contents(own.parameters(), true), own_statistics, "a teacher's running statistics are its own");
    for (found, start) in contents(average.parameters(), true).iter().zip(&start_statistics) {
        close("statistics after 20 steps", *found, share * f64::from(*start) + (1.0 - share) * 0.25);
    }
    let before = contents(average.parameters(), false);
    average.update(1.0).unwrap();
    assert_eq!(contents(average.parameters(), false), before, "momentum 1 stands still");
    average.update(0.0).unwrap();
    assert_eq!(contents(average.parameters(), false), contents(&params, false), "momentum 0 copies");
    average.reset().unwrap();
    assert_eq!(contents(average.parameters(), true), contents(&params, true), "a reset copies statistics, too");
}

#[test]
fn momentum_goes_from_its_first_value_to_its_last() {
    let clock = Clock { steps: 100, ..Default::default() };
    let momentum = clock.scalar(Schedule::Cosine { rate: 0.99, end: 1.0, steps: clock.steps });
    for (step, expected) in [(0, 0.99), (50, 0.995), (100, 1.0), (25, 1.0 - 0.01 * ((std::f64::consts::PI / 4.0).cos() + 1.0) / 2.0)] {
        clock.step.set(step);
        close("momentum", momentum.get(), expected);
    }
    for bad in [-0.1, 1.1, f32::NAN] {
        let config = ByolConfig { teacher: EmaTeacherConfig { momentum: bad, momentum_end: 1.0 }, ..Default::default() };
        let params = Parameters::new(&gpu(), 0);
        let network = model("cnn_16_32_64", ModelOptions { channels: 1, ..Default::default() }).unwrap().architecture;
        let message = Byol::new(&params, &|params| network.build(params), config, &MethodContext::default()).err().unwrap().to_string();
        assert!(message.contains("teacher.momentum: expected 0 to 1"), "{message}");
    }
}

/// The teacher moves in one place alone, by exactly the recursion, and nothing in it receives a
/// gradient; its batch norms run on its own batches.
fn follows<M: MethodFactory>(mut driven: Driven<M>, in_the_loss: bool, momentum: impl Fn(u64) -> f32) {
    let name = driven.method.name();
    for step in 0..3 {
        driven.clock.step.set(step);
        let [before, source] = [driven.teacher(), &driven.params].map(|params| contents(params, false));
        let statistics = contents(driven.teacher(), true);
        driven.method.begin_step().unwrap();
        let found = driven.method.loss(&driven.batch(step)).unwrap();
        let between = contents(driven.teacher(), false);
        assert_ne!(contents(driven.teacher(), true), statistics, "{name}: training mode");
        let gradients = driven.method.gradients(&found).unwrap();
        for parameter in driven.teacher().all() {
            assert!(gradients.get(&parameter.tensor(Mode::Train).unwrap()).is_none(), "{name}: a teacher has no gradient");
        }
        driven.sgd.step(&gradients, 0.1).unwrap();
        let updated = contents(&driven.params, false);
        assert_ne!(updated, source);
        driven.method.after_update(&found).unwrap();
        let after = contents(driven.teacher(), false);
        if in_the_loss {
            assert_follows(name, &between, &before, &source, momentum(step));
            assert_eq!(after, between, "{name}");
        } else {
            assert_eq!(between, before, "{name}");
            assert_follows(name, &after, &before, &updated, momentum(step));
        }
    }
}

#[test]
fn teachers_follow_in_their_methods_order() {
    let gpu = gpu();
    let teacher = EmaTeacherConfig { momentum: 0.9, momentum_end: 1.0 };
    let cosine = |step: u64| Schedule::Cosine { rate: 0.9, end: 1.0, steps: 10 }.rate(step);
    follows(moco(&gpu, 1, false), true, |_| 0.9);
    follows(Driven::<MocoV3>::new(&gpu, MocoV3Config { teacher, ..Default::default() }), true, cosine);
    follows(Driven::<Byol>::new(&gpu, ByolConfig { teacher, ..Default::default() }), false, cosine);
}

/// DeepMind's loss of BYOL lies in 0..=8, and is the normalised squared distance.
#[test]
fn two_minus_two_cosines_is_the_squared_distance_of_directions() {
    let gpu = gpu();
    let [p, z] = [1, 2].map(|seed| normal(&gpu, seed, [6, 9]));
    let difference = p.l2_normalize(-1, 1e-12).unwrap().sub(&z.l2_normalize(-1, 1e-12).unwrap()).unwrap();
    let distance = difference.mul(&difference).unwrap().sum(&[1], false).unwrap().mean(&[0], false).unwrap().item().unwrap();
    close("the loss", p.byol_loss(&z).unwrap().item().unwrap(), distance.into());
    close("opposite directions", p.byol_loss(&p.neg().unwrap()).unwrap().item().unwrap(), 4.0);
    close("one direction", p.byol_loss(&p.mul_scalar(3.0).unwrap()).unwrap().item().unwrap(), 0.0);
}

/// MoCo v3's loss of a batch whose keys are all alike: every direction has `2 temperature ln N`.
#[test]
fn moco_v3_is_scaled_by_twice_its_temperature() {
    let config = MocoV3Config { temperature: 0.3, predictor: MlpConfig::predictor(), ..Default::default() };
    let driven = Driven::<MocoV3>::new(&gpu(), config);
    // Equal images have equal keys: batch norm makes zeros of them, and their cosines are 0.
    let same = Tensor::full(driven.params.gpu(), [BATCH, 8, 8, 1], 0.5, DType::F32).unwrap();
    let batch = Batch { views: vec![same.clone(), same], ..driven.batch(0) };
    close("the loss", driven.method.loss(&batch).unwrap().loss.item().unwrap(), 2.0 * 2.0 * 0.3 * 3.0 * LN_2);
}
