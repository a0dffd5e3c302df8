//! Optimizers at the edges: gradients whose squares f32 cannot hold, steps of different parameters
//! in turn, gradients of somebody else.

use crate::common::gpus;
use wgrad::autograd::Gradients;
use wgrad::capture::Capture;
use wgrad::gpu::{Gpu, Program};
use wgrad::nn::{Init, Kind, Mode, Parameter, Parameters};
use wgrad::optim::{
    Adam, AdamOptions, AdamW, Lars, LarsOptions, Optimizer, OptimizerOptions, RmsProp, RmsPropOptions, Sgd, SgdOptions, clip_each_norm,
};
use wgrad::tensor::{DType, Tensor};

/// A home with a parameter of each size, full of `value`.
fn home(gpu: &Gpu, sizes: &[usize], value: f32) -> (Parameters, Vec<Parameter>) {
    let params = Parameters::new(gpu, 0);
    let made = sizes.iter().enumerate();
    let all = made.map(|(i, n)| params.parameter(&format!("p{i}"), [*n], Kind::Linear, Init::Constant(value)).unwrap()).collect();
    (params, all)
}

/// Each parameter's gradient is `value` everywhere.
fn gradients(of: &[Parameter], value: f32) -> Gradients {
    let mut all = Gradients::default();
    for parameter in of {
        let x = parameter.tensor(Mode::Train).unwrap();
        let upstream = Tensor::full(x.gpu(), x.shape(), value, DType::F32).unwrap();
        all.accumulate(&x.mul_scalar(1.0).unwrap().backward_from(&upstream).unwrap()).unwrap();
    }
    all
}

fn values(parameter: &Parameter) -> Vec<f32> {
    parameter.detach().unwrap().to_vec().unwrap()
}

fn close(what: &str, found: f32, expected: f64) {
    assert!((f64::from(found) - expected).abs() <= 2e-6 * expected.abs(), "{what}: {found:e}, expected {expected:e}");
}

fn norm(optimizer: &impl Optimizer) -> f32 {
    optimizer.gradient_norm().unwrap().to_vec::<f32>().unwrap()[0]
}

#[test]
fn norms_are_those_of_float64_where_squares_leave_f32() {
    for (schedule, gpu) in gpus() {
        for value in [1e17f32, 1e18, 1e19, 3e25, 1e37, 1e-9, 1e-10, 1e-11, 1e-12, 1e-18, 1e-25, 1e-30, 1e-37, 2.5] {
            let what = format!("{schedule}, gradients of {value:e}");
            let length = 10.0 * f64::from(value);
            let clipped = if length > 1.0 { 0.1 } else { f64::from(value) };
            // By the global norm: 36 and 64 elements.
            let (params, all) = home(&gpu, &[36, 64], 0.0);
            let config = SgdOptions { common: OptimizerOptions { clip_norm: Some(1.0), ..Default::default() }, ..Default::default() };
            let mut sgd = Sgd::new(&params, config).unwrap();
            sgd.step(&gradients(&all, value), 1.0).unwrap();
            assert_eq!(sgd.skipped().unwrap(), 0, "{what}");
            close(&what, norm(&sgd), length);
            all.iter().flat_map(values).for_each(|v| close(&what, -v, clipped));
            // Each by its own norm, in the step and before it.
            for at_once in [true, false] {
                let (params, all) = home(&gpu, &[100, 100], 0.0);
                let common = OptimizerOptions { clip_each: at_once.then_some(1.0), ..Default::default() };
                let mut sgd = Sgd::new(&params, SgdOptions { common, ..Default::default() }).unwrap();
                let mut found = gradients(&all, value);
                if !at_once {
                    clip_each_norm(&mut found, 1.0).unwrap();
                }
                sgd.step(&found, 1.0).unwrap();
                all.iter().flat_map(values).for_each(|v| close(&what, -v, clipped));
            }
            // LARS: eta |w| / |g| of g = value is eta |w| / 10.
            let (params, all) = home(&gpu, &[100], 2.0);
            let mut lars = Lars::new(&params, LarsOptions { momentum: 0.0, trust_coefficient: 0.5, ..Default::default() }).unwrap();
            lars.step(&gradients(&all, value), 0.25).unwrap();
            all.iter().flat_map(values).for_each(|v| close(&what, v, 2.0 - 0.25 * 0.5 * 20.0 / 10.0));
            // Clipped, a layer moves as far, but no further than by its gradient times the rate.
            for rate in [0.25, 4.0] {
                let (params, all) = home(&gpu, &[100], 2.0);
                let options = LarsOptions { momentum: 0.0, trust_coefficient: 0.5, clip_lr: true, ..Default::default() };
                Lars::new(&params, options).unwrap().step(&gradients(&all, value), rate).unwrap();
                let moved = (f64::from(rate) * f64::from(value)).min(0.5 * 20.0 / 10.0);
                all.iter().flat_map(values).for_each(|v| close(&what, v, 2.0 - moved));
            }
        }
        // The norm itself is beyond f32: it is shown as infinite, and the step is what it should
        // be.
        let (params, all) = home(&gpu, &[10_000], 0.0);
        let config = SgdOptions { common: OptimizerOptions { clip_norm: Some(100.0), ..Default::default() }, ..Default::default() };
        let mut sgd = Sgd::new(&params, config).unwrap();
        sgd.step(&gradients(&all, 3e38), 1.0).unwrap();
        assert!(norm(&sgd).is_infinite() && sgd.skipped().unwrap() == 0);
        values(&all[0]).into_iter().for_each(|v| close("beyond f32", -v, 1.0));
        let (params, all) = home(&gpu, &[10_000], 0.0);
        let config = SgdOptions { common: OptimizerOptions { clip_each: Some(100.0), ..Default::default() }, ..Default::default() };
        Sgd::new(&params, config).unwrap().step(&gradients(&all, 3e38), 1.0).unwrap();
        values(&all[0]).into_iter().for_each(|v| close("each beyond f32", -v, 1.0));
        let (params, all) = home(&gpu, &[10_000], 2.0);
        Lars::new(&params, LarsOptions { momentum: 0.0, trust_coefficient: 0.5, ..Default::default() })
            .unwrap()
            .step(&gradients(&all, 3e38), 0.25)
            .unwrap();
        values(&all[0]).into_iter().for_each(|v| close("LARS beyond f32", v, 1.75));
        // What is not finite is still skipped.
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (params, all) = home(&gpu, &[100], 1.0);
            let mut sgd = Sgd::new(&params, config).unwrap();
            sgd.step(&gradients(&all, value), 1.0).unwrap();
            assert_eq!((sgd.skipped().unwrap(), values(&all[0])), (1, vec![1.0; 100]), "{value}");
            // And leaves nothing behind, not even in the padding between parameters.
            sgd.step(&gradients(&all, 0.5), 1.0).unwrap();
            assert_eq!((sgd.skipped().unwrap(), values(&all[0])), (1, vec![0.5; 100]), "{value}");
        }
    }
}

/// Two captured steps over one optimizer, each of parameters of its own, run in turn.
#[test]
fn captured_steps_change_their_own_parameters_alone() {
    for (schedule, gpu) in gpus() {
        let run = |captured: bool| {
            let (params, all) = home(&gpu, &[3, 5], 1.0);
            let config =
                SgdOptions { momentum: 0.9, common: OptimizerOptions { weight_decay: 0.1, ..Default::default() }, ..Default::default() };
            let mut sgd = Sgd::new(&params, config).unwrap();
            let mut programs: [Option<Program>; 2] = [None, None];
            // Recording is a step, too: the first time there are two.
            for which in if captured { vec![0, 1, 0, 1, 1, 0] } else { vec![0, 0, 1, 1, 0, 1, 1, 0] } {
                let mut step = || sgd.step(&all[which].tensor(Mode::Train)?.square()?.sum(&[0], false)?.backward()?, 0.5);
                match &programs[which] {
                    Some(program) => program.replay().unwrap(),
                    None => step().unwrap(),
                }
                if captured && programs[which].is_none() {
                    programs[which] = Some(gpu.capture(step).unwrap().1);
                }
            }
            all.iter().map(values).collect::<Vec<_>>()
        };
        assert_eq!(run(true), run(false), "{schedule}");
    }
}

/// A scheduled weight decay takes the place of the fixed one in steps that were captured before,
/// too.
#[test]
fn a_schedule_of_decay_outdates_what_was_captured() {
    let gpu = crate::common::gpu();
    let (params, all) = home(&gpu, &[3], 1.0);
    let mut sgd =
        Sgd::new(&params, SgdOptions { common: OptimizerOptions { weight_decay: 0.1, ..Default::default() }, ..Default::default() })
            .unwrap();
    let loss = || all[0].tensor(Mode::Train).unwrap().sum(&[0], false).unwrap();
    sgd.step(&loss().backward().unwrap(), 0.5).unwrap();
    let ((), program) = gpu.capture(|| sgd.step(&loss().backward()?, 0.5)).unwrap();
    sgd.schedule_weight_decay(0.2.into()).unwrap();
    assert!(!program.is_current());
}

#[test]
fn gradients_of_another_model_are_refused() {
    let gpu = crate::common::gpu();
    let ((mine, own), (_, foreign)) = (home(&gpu, &[3], 1.0), home(&gpu, &[3, 4], 1.0));
    let mut sgd = Sgd::new(&mine, SgdOptions::default()).unwrap();
    let mut rest: Vec<Box<dyn Optimizer>> = vec![
        Box::new(Adam::new(&mine, AdamOptions::default()).unwrap()),
        Box::new(Lars::new(&mine, LarsOptions::default()).unwrap()),
        Box::new(RmsProp::new(&mine, RmsPropOptions::default()).unwrap()),
    ];
    let theirs = gradients(&foreign, 1.0);
    for error in rest.iter_mut().map(|o| o.step(&theirs, 0.1)).chain([sgd.step(&theirs, 0.1), sgd.step(&Gradients::default(), 0.1)]) {
        let message = error.unwrap_err().to_string();
        assert!(message.contains("gradients is of one of its parameters"), "{message}");
    }
    assert_eq!((mine.step(), values(&own[0])), (0, vec![1.0; 3]));
    // A loss of two models moves each by its own optimizer.
    let mut both = theirs;
    both.accumulate(&gradients(&own, 1.0)).unwrap();
    sgd.step(&both, 0.5).unwrap();
    assert_eq!(values(&own[0]), vec![0.5; 3]);
}

/// A run of Adam over one parameter whose gradients are `upstream`, captured or not, the state of
/// which is handed to another run in the middle: the parameter at the end, and its averages.
fn adam(gpu: &Gpu, decoupled: bool, upstream: &[f32], captured: bool) -> [Vec<f32>; 3] {
    let common = OptimizerOptions { weight_decay: 0.1, ..Default::default() };
    let options = AdamOptions { common, ..Default::default() };
    let make = || -> (Parameters, Parameter, Box<dyn Optimizer>) {
        let (params, mut all) = home(gpu, &[3], 1.0);
        let optimizer: Box<dyn Optimizer> =
            if decoupled { Box::new(AdamW::new(&params, options).unwrap()) } else { Box::new(Adam::new(&params, options).unwrap()) };
        (params, all.remove(0), optimizer)
    };
    let (mut params, mut parameter, mut optimizer) = make();
    for half in upstream.chunks(upstream.len() / 2) {
        // What a checkpoint holds, in a run of its own.
        let (old, old_parameter) = (params.step(), parameter.detach().unwrap());
        let state = optimizer.state().unwrap();
        (params, parameter, optimizer) = make();
        params.set_step(old);
        parameter.detach().unwrap().copy_from(&old_parameter).unwrap();
        for ((name, tensor), (_, from)) in optimizer.state().unwrap().iter().zip(&state) {
            tensor.copy_from(from).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let mut capture = Capture::new(gpu);
        for value in half {
            let factor = Tensor::full(gpu, [3], *value, DType::F32).unwrap();
            let mut step = |factor: &Tensor| {
                let loss = parameter.tensor(Mode::Train)?.mul(factor)?.sum(&[0], false)?;
                optimizer.step(&loss.backward()?, 0.125)?;
                Ok(factor.clone())
            };
            if captured { capture.run(&factor, step).map(drop).unwrap() } else { step(&factor).map(drop).unwrap() }
        }
    }
    let state = optimizer.state().unwrap();
    let average = |at: usize| state[at].1.to_vec::<f32>().unwrap()[..3].to_vec();
    [values(&parameter), average(0), average(1)]
}

/// PyTorch's Adam of one number, in float64, which is not told of steps that are skipped.
fn adam_of_one(decoupled: bool, upstream: &[f32]) -> [f64; 3] {
    let [beta1, beta2] = AdamOptions::default().betas.map(f64::from);
    let (eps, decay) = (f64::from(AdamOptions::default().eps), f64::from(0.1f32));
    let (mut w, mut m, mut v, mut t) = (1.0, 0.0, 0.0, 0);
    for value in upstream.iter().filter(|value| value.is_finite()) {
        let mut g = f64::from(*value);
        t += 1;
        if decoupled {
            w *= 1.0 - 0.125 * decay;
        } else {
            g += decay * w;
        }
        m = beta1 * m + (1.0 - beta1) * g;
        v = beta2 * v + (1.0 - beta2) * g * g;
        w -= 0.125 / (1.0 - beta1.powi(t)) * m / ((v / (1.0 - beta2.powi(t))).sqrt() + eps);
    }
    [w, m, v]
}

/// A step that is not taken is none for the correction of Adam's averages either, wherever it
/// lies; runs that skip none keep their bits.
#[test]
fn skipped_steps_leave_no_trace_in_adam() {
    let taken = [0.5, -0.25, 2.0, 1.0, 0.75, -0.5, 0.25, 1.5];
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let first = [nan, 0.5, -0.25, 2.0, inf, nan, 1.0, 0.75, -0.5, 0.25, 1.5, inf];
    let middle = [0.5, -0.25, 2.0, inf, 1.0, 0.75, -0.5, nan, 0.25, 1.5];
    for (schedule, gpu) in gpus() {
        for decoupled in [false, true] {
            for upstream in [&taken[..], &first, &middle] {
                let what = format!("{schedule}, decoupled {decoupled}, {upstream:?}");
                let found = adam(&gpu, decoupled, upstream, false);
                assert_eq!(found, adam(&gpu, decoupled, upstream, true), "{what}");
                for (found, expected) in found.iter().zip(adam_of_one(decoupled, upstream)) {
                    found.iter().for_each(|v| close(&what, *v, expected));
                }
            }
        }
    }
}
