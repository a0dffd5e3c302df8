//! Captured steps against the same steps run anew: dropout, averages, frozen parameters, inputs of
//! several shapes and ranges.

use crate::common::gpu;
use wgrad::capture::{Capture, Inputs};
use wgrad::error::Error;
use wgrad::gpu::{Gpu, ScalarCell};
use wgrad::io::archive::Archive;
use wgrad::nn::layers::BatchNormOptions;
use wgrad::nn::{BatchNorm, Dropout, Linear, Mode, Module, Parameters, state_dict};
use wgrad::optim::{AdamOptions, AdamW, Ema, Optimizer};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, Tensor};

const CLASSES: usize = 5;

/// A network with everything that counts its steps.
struct Run {
    params: Parameters,
    layers: Vec<Box<dyn Module>>,
    optimizer: AdamW,
    ema: Ema,
    rate: ScalarCell,
    momentum: ScalarCell,
    capture: Capture<Tensor>,
}

impl Run {
    fn new(gpu: &Gpu, capture: Capture<Tensor>) -> Self {
        let params = Parameters::new(gpu, 3);
        let layers: Vec<Box<dyn Module>> = vec![
            Box::new(Linear::new(&params, "first", 9, 16).unwrap()),
            Box::new(BatchNorm::new(&params, "norm", 16, BatchNormOptions::default()).unwrap()),
            Box::new(Dropout::new(&params, 0.4, 1)),
            Box::new(Linear::new(&params, "last", 16, CLASSES).unwrap()),
        ];
        let optimizer = AdamW::new(&params, AdamOptions::default()).unwrap();
        let ema = Ema::new(&params).unwrap();
        Self { params, layers, optimizer, ema, rate: ScalarCell::new(0.0), momentum: ScalarCell::new(0.0), capture }
    }

    /// One step on `n` rows whose labels lie below `classes`.
    fn step(&mut self, gpu: &Gpu, number: u32, n: usize, classes: u32) -> f32 {
        let mut stream = Stream::new(number, Purpose::Test);
        let x: Vec<f32> = (0..n * 9).map(|_| stream.normal()).collect();
        let labels: Vec<i32> = (0..n).map(|_| stream.below(classes) as i32).collect();
        let inputs = (Tensor::from_slice(gpu, &x, [n, 9]).unwrap(), Tensor::from_slice(gpu, &labels, [n]).unwrap());
        self.rate.set(0.1 / (1 + number) as f32);
        self.momentum.set(0.5 + 0.03 * number as f32);
        let Self { layers, optimizer, ema, rate, momentum, capture, .. } = self;
        let loss = capture.run(&inputs, |(x, labels)| {
            let mut y = x.clone();
            for layer in layers {
                y = layer.forward(&y, Mode::Train)?;
            }
            let loss = y.cross_entropy(labels, 0.1)?;
            optimizer.step(&loss.backward()?, &*rate)?;
            ema.update(&*momentum)?;
            Ok(loss)
        });
        loss.unwrap().item().unwrap()
    }

    /// Weights, running statistics, counters and averages.
    fn state(&self) -> [Archive; 2] {
        [&self.params, self.ema.parameters()].map(|home| state_dict::to_archive(home).unwrap())
    }
}

#[test]
fn replayed_steps_are_the_steps_themselves() {
    let gpu = gpu();
    let mut anew = Run::new(&gpu, Capture::eager(&gpu));
    let mut replayed = Run::new(&gpu, Capture::new(&gpu));
    for number in 0..8 {
        let (a, b) = (anew.step(&gpu, number, 12, 5), replayed.step(&gpu, number, 12, 5));
        assert_eq!(a.to_bits(), b.to_bits(), "step {number}");
    }
    assert!(anew.capture.program().is_none() && replayed.capture.program().is_some());
    assert_eq!(anew.params.step(), replayed.params.step());
    assert!(anew.state() == replayed.state(), "weights or averages differ");
}

#[test]
fn other_shapes_ranges_and_frozen_parameters_are_noticed() {
    let gpu = gpu();
    let mut anew = Run::new(&gpu, Capture::eager(&gpu));
    let mut replayed = Run::new(&gpu, Capture::new(&gpu));
    // Six shapes are more than are kept; labels of the second half reach further than the program
    // was told.
    let steps =
        [(12, 3), (12, 3), (12, 3), (7, 3), (7, 3), (12, 3), (12, 5), (12, 5), (12, 5), (3, 5), (4, 5), (5, 5), (6, 5), (12, 5), (7, 3)];
    for (number, (n, classes)) in (0..).zip(steps) {
        // Frozen, and thawed again layer by layer.
        let changes: &[(u32, &str, bool, usize)] =
            &[(8, "first", true, 2), (8, "norm", true, 4), (11, "norm", false, 4), (13, "*", false, 8)];
        for (_, pattern, frozen, count) in changes.iter().filter(|change| change.0 == number) {
            for run in [&anew, &replayed] {
                assert_eq!(run.params.freeze(pattern, *frozen).unwrap(), *count);
            }
        }
        let (a, b) = (anew.step(&gpu, number, n, classes), replayed.step(&gpu, number, n, classes));
        assert_eq!(a.to_bits(), b.to_bits(), "step {number}");
    }
    assert!(anew.state() == replayed.state(), "weights or averages differ");
}

#[test]
fn tuples_and_arrays_of_tensors_are_inputs() {
    let gpu = gpu();
    let one = |value: f32| Tensor::full(&gpu, [2], value, DType::F32).unwrap();
    let mut capture = Capture::new(&gpu);
    for i in 0..4 {
        let i = i as f32;
        // Nested: each part takes its own tensors, in order.
        let sum = capture.run(&(one(i), [one(10.0), one(100.0 * i)], (vec![one(1000.0)],)), |(a, [b, c], (d,))| {
            let [d] = d.as_slice() else { return Err(Error::argument("sum", "takes one")) };
            a.mul_scalar(2.0)?.add(b)?.add(&c.mul_scalar(3.0)?)?.add(d)
        });
        assert_eq!(sum.unwrap().to_vec::<f32>().unwrap(), [1010.0 + 302.0 * i; 2]);
    }
    assert!(capture.program().is_some());
    let (pair, three) = ((one(1.0), one(2.0)), [one(1.0), one(2.0), one(3.0)]);
    for given in [&three[..1], &three[..]] {
        assert!(matches!(pair.with_tensors(given), Err(Error::Shape { .. })));
        assert!(matches!(pair.tensors().first().unwrap().with_tensors(&[]), Err(Error::Shape { .. })));
    }
}

/// Buckets of gradients, too: all of them together are what the tape's walk gives.
#[test]
fn a_replayed_step_stops_at_its_marks() {
    let gpu = gpu();
    let mut step = Capture::new(&gpu);
    for (run, x) in [2.0f32, 3.0, 4.0, 5.0].into_iter().enumerate() {
        let (input, mut seen) = (Tensor::from_slice(&gpu, &[x], [1]).unwrap(), Vec::new());
        let work = |x: &Tensor| {
            let square = x.square()?;
            gpu.mark();
            let fourth = square.square()?;
            gpu.mark();
            Ok([square, fourth.clone(), fourth.square()?])
        };
        let found = step.run_in_parts(&input, work, |output: &[Tensor; 3], mark| {
            seen.push(output[mark].item()?);
            // Of the recorded step three parts, of which this comes behind the one before.
            if x == 4.0 && mark == 1 { Err(Error::argument("test", "stop")) } else { Ok(()) }
        });
        // The first run is as it is, the second is recorded.
        assert_eq!(seen, if run < 2 { vec![] } else { vec![x.powi(2), x.powi(4)] }, "run {run}");
        assert_eq!(found.map(|output| output[2].item().unwrap()).ok(), (x != 4.0).then(|| x.powi(8)), "run {run}");
    }
}

#[test]
fn buckets_hold_the_gradients_of_the_walk_in_its_order() {
    let gpu = gpu();
    let watched = |value: f32, n: usize| Tensor::full(&gpu, [n], value, DType::F32).unwrap().watch();
    let (first, second, apart) = (watched(2.0, 40_000), watched(3.0, 40_000), watched(1.0, 5));
    let loss = first.square().unwrap().mul(&second).unwrap().sum(&[], false).unwrap();
    let all = [first.clone(), second.clone(), apart.clone()];
    let buckets = loss.backward_in_buckets(None, true, &all).unwrap();
    assert_eq!(buckets.len(), 2, "of 160 kB each");
    let values: Vec<Tensor> = buckets.iter().map(|bucket| bucket.values.mul_scalar(10.0).unwrap()).collect();
    let scaled = wgrad::autograd::PackedGradients::unpack(&buckets, &values);
    let value = |x: &Tensor| scaled.get(x).map(|gradient| gradient.to_vec::<f32>().unwrap());
    assert_eq!((value(&first), value(&second), value(&apart)), (Some(vec![120.0; 40_000]), Some(vec![40.0; 40_000]), None));
    // What the loss used last has its gradient first.
    assert_eq!(buckets[0].values.to_vec::<f32>().unwrap()[..40_000], vec![4.0; 40_000]);
    let of_second = loss.backward_in_buckets(Some(&Tensor::full(&gpu, [], 0.5, DType::F32).unwrap()), true, &all[1..2]).unwrap();
    assert_eq!(of_second.len(), 1);
    assert_eq!(of_second[0].values.to_vec::<f32>().unwrap(), vec![2.0; 40_000]);
    let refused = loss.backward_in_buckets(None, false, &all[2..]).err().unwrap();
    assert!(refused.to_string().contains("depends on none"), "{refused}");
}
