//! Mixed precision: which operators are given f16, that the policy is a handle's own, and the loss
//! scale.

use crate::common::{gpus, options};
use wgrad::capture::Capture;
use wgrad::error::Error;
use wgrad::gpu::{Gpu, GpuOptions, Precision};
use wgrad::nn::{BatchNorm, BatchNormOptions, Conv2d, Conv2dOptions, Linear, Mode, Module, Parameters};
use wgrad::optim::{AdamOptions, AdamW, GradScaler, GradScalerOptions, Optimizer, Sgd, SgdOptions};
use wgrad::tensor::{DType, Tensor};

/// The devices of every schedule, for mixed precision; where they store no f16, that is an error.
fn mixed() -> Vec<Gpu> {
    let mut found = Vec::new();
    for (_, gpu) in gpus() {
        match gpu.with_precision(Precision::Mixed) {
            Ok(mixed) => found.push(mixed),
            Err(error) => {
                println!("{} stores no f16 here, so its error is what is tested", gpu.capabilities().name);
                assert!(!gpu.capabilities().f16);
                assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains("train in f32"), "{error}");
            }
        }
    }
    found
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

#[test]
fn an_adapter_without_f16_says_so() {
    let gpu = Gpu::with(GpuOptions { webgpu_limits: true, ..options() }).unwrap();
    let error = gpu.with_precision(Precision::Mixed).unwrap_err().to_string();
    assert!(error.contains("mixed precision") && error.contains("train in f32"), "{error}");
    assert_eq!(gpu.with_precision(Precision::F32).unwrap().precision(), Precision::F32);
}

/// Products take f16 and keep their weights; what sums up takes f32; the rest follows.
#[test]
fn operators_are_given_the_types_of_their_class() {
    for gpu in mixed() {
        let params = Parameters::new(&gpu, 0);
        let conv = Conv2d::new(&params, "conv", 3, 8, Conv2dOptions::default()).unwrap();
        let norm = BatchNorm::new(&params, "norm", 8, BatchNormOptions::default()).unwrap();
        let head = Linear::new(&params, "head", 8, 5).unwrap();
        let x = Tensor::from_slice(&gpu, &values(2 * 6 * 6 * 3), [2, 6, 6, 3]).unwrap().watch();
        let y = conv.forward(&x, Mode::Train).unwrap();
        let z = norm.forward(&y, Mode::Train).unwrap().relu().unwrap();
        let pooled = z.global_avg_pool2d().unwrap();
        let logits = head.forward(&pooled, Mode::Train).unwrap();
        assert_eq!([&y, &z, &pooled, &logits].map(Tensor::dtype), [DType::F16; 4]);
        let full = Tensor::ones(&gpu, [2, 5], DType::F32).unwrap();
        let sums = [
            logits.softmax(-1).unwrap(),
            logits.exp().unwrap(),
            logits.add(&full).unwrap(),
            logits.sum(&[], false).unwrap(),
            logits.l2_normalize(-1, 1e-12).unwrap(),
        ];
        assert!(sums.iter().all(|t| t.dtype() == DType::F32));
        let loss = logits.cross_entropy(&Tensor::from_slice(&gpu, &[1i32, 3], [2]).unwrap(), 0.0).unwrap();
        assert_eq!((loss.dtype(), loss.gpu().precision()), (DType::F32, Precision::Mixed));
        let gradients = loss.backward().unwrap();
        for parameter in params.all().into_iter().map(|p| p.tensor(Mode::Train).unwrap()).filter(Tensor::is_watched) {
            assert_eq!(gradients.get(&parameter).unwrap().dtype(), DType::F32);
        }
        let dx = gradients.get(&x).unwrap();
        assert_eq!((dx.dtype(), dx.gpu().precision()), (DType::F32, Precision::F32));
    }
}

/// The policy does what casts by hand do, to the bit, and another handle of the device has none.
#[test]
fn the_policy_is_that_of_casts_by_hand() {
    for gpu in mixed() {
        let plain = gpu.with_precision(Precision::F32).unwrap();
        let run = |gpu: &Gpu, cast: bool| {
            let as_half = |t: &Tensor| if cast { t.cast(DType::F16) } else { Ok(t.clone()) };
            let x = Tensor::from_slice(gpu, &values(7 * 12), [7, 12]).unwrap().watch();
            let w = Tensor::from_slice(gpu, &values(5 * 12), [5, 12]).unwrap().watch();
            let y = as_half(&x).unwrap().linear(&w, None).unwrap();
            let y = if cast { y.cast(DType::F32).unwrap() } else { y };
            let loss = y.softmax(-1).unwrap().square().unwrap().sum(&[], false).unwrap();
            let gradients = loss.backward().unwrap();
            let bits = |t: &Tensor| t.to_vec::<f32>().unwrap();
            [bits(&loss), bits(gradients.get(&x).unwrap()), bits(gradients.get(&w).unwrap())]
        };
        let by_policy = run(&gpu, false);
        assert_eq!(by_policy, run(&plain, true));
        assert_ne!(by_policy, run(&plain, false));
    }
}

/// Losses of logits read f16 as it is: nothing is cast, and the bits are those of casts.
#[test]
fn losses_read_halves_themselves() {
    for gpu in mixed() {
        let target = Tensor::from_slice(&gpu, &[1i32, 3, 0], [3]).unwrap();
        let run = |cast: bool| {
            let x = Tensor::from_slice(&gpu, &values(3 * 8), [3, 8]).unwrap().cast(DType::F16).unwrap();
            let other = x.mul_scalar(-0.5).unwrap();
            ["cross_entropy", "distillation_kl", "mse_loss"].map(|name| {
                let (x, wide) = (x.watch(), |t: &Tensor| if cast { t.cast(DType::F32).unwrap() } else { t.clone() });
                let (read, other) = (wide(&x), wide(&other));
                let loss = match name {
                    "cross_entropy" => read.cross_entropy(&target, 0.1),
                    "distillation_kl" => read.distillation_kl(&other, 4.0),
                    _ => read.mse_loss(&other),
                };
                let (loss, scale) = (loss.unwrap(), Tensor::full(&gpu, [], 1024.0, DType::F32).unwrap());
                let gradients = loss.backward_from(&scale).unwrap();
                let gradient = gradients.get(&x).unwrap();
                assert_eq!((loss.dtype(), gradient.dtype()), (DType::F32, DType::F16), "{name}");
                (loss.to_f64().unwrap(), gradient.to_f64().unwrap())
            })
        };
        assert_eq!(run(false), run(true));
    }
}

/// Sums in f32 are right where f16 would lose every other term: 4096 products of 1.0 and 2^-11.
#[test]
fn products_of_halves_are_summed_in_f32() {
    for gpu in mixed() {
        let ones = Tensor::ones(&gpu, [2, 4096], DType::F32).unwrap().watch();
        let small = Tensor::full(&gpu, [3, 4096], 2f64.powi(-11), DType::F32).unwrap().watch();
        let y = ones.linear(&small, None).unwrap();
        assert_eq!(y.dtype(), DType::F16);
        assert_eq!(y.cast(DType::F32).unwrap().to_vec::<f32>().unwrap(), [2.0; 6]);
        // Their gradients: sums over rows.
        let (x, dy) =
            (Tensor::ones(&gpu, [4096, 4], DType::F32).unwrap(), Tensor::full(&gpu, [4096, 3], 2f64.powi(-11), DType::F16).unwrap());
        let weight = Tensor::ones(&gpu, [3, 4], DType::F32).unwrap().watch();
        let gradients = x.linear(&weight, None).unwrap().backward_from(&dy).unwrap();
        assert_eq!(gradients.get(&weight).unwrap().to_vec::<f32>().unwrap(), [2.0; 12]);
    }
}

struct Run {
    params: Parameters,
    model: Linear,
    optimizer: AdamW,
    scaler: GradScaler,
}

impl Run {
    fn new(gpu: &Gpu, options: GradScalerOptions) -> Self {
        let params = Parameters::new(gpu, 0);
        let model = Linear::new(&params, "model", 4, 2).unwrap();
        let mut optimizer = AdamW::new(&params, AdamOptions::default()).unwrap();
        let scaler = GradScaler::new(gpu, options).unwrap();
        optimizer.scale_gradients(&scaler).unwrap();
        Self { params, model, optimizer, scaler }
    }

    fn step(&mut self, x: &Tensor) {
        let loss = self.model.forward(x, Mode::Train).unwrap().square().unwrap().mean(&[], false).unwrap();
        self.optimizer.step(&loss.backward_from(&self.scaler.scale()).unwrap(), 0.01).unwrap();
    }

    fn scale(&self) -> f32 {
        self.scaler.value_later().unwrap().wait().unwrap()
    }

    /// Weights and the optimizer's state.
    fn state(&mut self) -> Vec<f32> {
        let weights = self.params.all().into_iter().map(|p| p.detach().unwrap());
        let states = self.optimizer.state().unwrap().into_iter().filter(|(name, _)| name.starts_with("exp")).map(|(_, t)| t);
        weights.chain(states).flat_map(|t| t.to_vec::<f32>().unwrap()).collect()
    }
}

/// A step whose gradients overflow changes nothing but the scale, which is halved; after so many
/// that were taken it is doubled. Captured or not, the same bits.
#[test]
fn an_overflow_skips_its_step_and_halves_the_scale() {
    for gpu in mixed() {
        let good = Tensor::from_slice(&gpu, &values(12), [3, 4]).unwrap();
        // 65504 is the largest f16: the gradient of this one is far beyond it.
        let bad = Tensor::full(&gpu, [3, 4], 60000.0, DType::F32).unwrap();
        let options = GradScalerOptions { init_scale: 1024.0, growth_interval: 3, ..Default::default() };
        let batches = [&good, &good, &bad, &good, &good, &good, &good];
        let mut run = Run::new(&gpu, options);
        let mut scales = Vec::new();
        for batch in batches {
            let before = run.state();
            run.step(batch);
            assert_eq!(run.state() == before, std::ptr::eq(batch, &bad));
            scales.push(run.scale());
        }
        assert_eq!(scales, [1024.0, 1024.0, 512.0, 512.0, 512.0, 1024.0, 1024.0]);
        assert_eq!(run.optimizer.skipped().unwrap(), 1);
        let mut other = Run::new(&gpu, options);
        let mut capture = Capture::new(&gpu);
        for batch in batches {
            capture
                .run(batch, |x| {
                    other.step(x);
                    Ok(x.clone())
                })
                .unwrap();
        }
        assert_eq!(other.state(), run.state());
        assert_eq!(other.scale(), run.scale());
    }
}

/// The scale leaves no trace in the step: a power of two, taken out of the gradients before all
/// else.
#[test]
fn gradients_are_freed_of_the_scale() {
    for (_, gpu) in gpus() {
        let step = |scale: Option<f32>| {
            let params = Parameters::new(&gpu, 0);
            let model = Linear::new(&params, "model", 4, 2).unwrap();
            let mut optimizer = Sgd::new(&params, SgdOptions { momentum: 0.9, ..Default::default() }).unwrap();
            let x = Tensor::from_slice(&gpu, &values(12), [3, 4]).unwrap();
            let loss = model.forward(&x, Mode::Train).unwrap().square().unwrap().mean(&[], false).unwrap();
            let scaler = scale.map(|init_scale| GradScaler::new(&gpu, GradScalerOptions { init_scale, ..Default::default() }).unwrap());
            let gradients = match &scaler {
                Some(scaler) => {
                    optimizer.scale_gradients(scaler).unwrap();
                    loss.backward_from(&scaler.scale()).unwrap()
                }
                None => loss.backward().unwrap(),
            };
            optimizer.step(&gradients, 0.1).unwrap();
            params.all().into_iter().flat_map(|p| p.detach().unwrap().to_vec::<f32>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(step(None), step(Some(65536.0)));
    }
}

#[test]
fn settings_of_the_scale_without_a_meaning_are_refused() {
    let gpu = crate::common::gpu();
    for (options, words) in [
        (GradScalerOptions { init_scale: 0.0, ..Default::default() }, "init_scale"),
        (GradScalerOptions { growth_factor: f32::NAN, ..Default::default() }, "growth_factor"),
        (GradScalerOptions { backoff_factor: 1.5, ..Default::default() }, "backoff_factor"),
        (GradScalerOptions { growth_interval: 0, ..Default::default() }, "growth_interval"),
    ] {
        let error = GradScaler::new(&gpu, options).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}
