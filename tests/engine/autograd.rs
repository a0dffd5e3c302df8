//! The tape: what a backward pass gives, what it frees, and what it refuses.

use std::sync::{Arc, LazyLock};

use crate::common::{gpu, gpus, options};
use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, GpuOptions, Kernel, Launch};
use wgrad::nn::{BatchNorm, Linear, Mode, Module, Parameters};
use wgrad::ops::gradcheck::gradcheck;
use wgrad::ops::{Array, Backward, Operator, Saves, apply, apply_one, exactly};
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::params;
use wgrad::tensor::{DType, Shape, Spec, Tensor};

fn ramp(gpu: &Gpu, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let values: Vec<f32> = (0..shape.numel()).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_slice(gpu, &values, shape).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}

/// The words that a message must hold.
fn says(error: &Error, words: &[&str]) {
    let message = error.to_string();
    assert!(words.iter().all(|w| message.contains(w)), "\"{message}\" lacks one of {words:?}");
}

#[test]
fn a_second_backward_is_refused_and_retaining_the_graph_allows_it() {
    let gpu = gpu();
    let x = ramp(&gpu, [33, 5]).watch();
    let loss = x.mul(&x).unwrap().sigmoid().unwrap().mean(&[], false).unwrap();
    let first = loss.backward_retain_graph().unwrap();
    let second = loss.backward_retain_graph().unwrap();
    let last = loss.backward().unwrap();
    assert_eq!(bits(first.get(&x).unwrap()), bits(second.get(&x).unwrap()));
    assert_eq!(bits(first.get(&x).unwrap()), bits(last.get(&x).unwrap()));
    for again in [loss.backward(), loss.backward_retain_graph()] {
        let error = again.unwrap_err();
        assert!(matches!(error, Error::Autograd { .. }), "{error:?}");
        says(&error, &["mean", "backward_retain_graph()"]);
    }
    // A part of the graph that another loss has walked is as spent as the whole.
    let shared = x.exp().unwrap();
    let (a, b) = (shared.sum(&[], false).unwrap(), shared.neg().unwrap().sum(&[], false).unwrap());
    a.backward().unwrap();
    says(&b.backward().unwrap_err(), &["exp", "backward_retain_graph()"]);
}

#[test]
fn a_parameter_changed_between_forward_and_backward_is_named() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 1);
    let layer = Linear::new(&params, "head.fc", 5, 3).unwrap();
    let mut optimizer = Sgd::new(&params, SgdOptions::default()).unwrap();
    let x = ramp(&gpu, [7, 5]);
    let loss = |x: &Tensor| layer.forward(x, Mode::Train).unwrap().sum(&[], false).unwrap();
    let (first, second) = (loss(&x), loss(&x.watch()));
    optimizer.step(&first.backward().unwrap(), 0.1).unwrap();
    let error = second.backward().unwrap_err();
    assert!(matches!(error, Error::Autograd { .. }), "{error:?}");
    says(&error, &["linear", "\"head.fc.weight\"", "changed in place", "call backward before the optimizer"]);
    // Computed anew, it works; and what no backward needs may change.
    loss(&x.watch()).backward().unwrap();
    let y = x.watch();
    let sum = y.add(&x).unwrap().sum(&[], false).unwrap();
    x.write(&[9.0f32; 35]).unwrap();
    assert_eq!(values(sum.backward().unwrap().get(&y).unwrap()), [1.0; 35]);
}

#[test]
fn a_saved_tensor_written_by_the_host_or_a_copy_is_refused() {
    let gpu = gpu();
    for change in [|t: &Tensor| t.write(&[1.0f32; 4]), |t: &Tensor| t.copy_from(&Tensor::full(t.gpu(), [4], 2.0, DType::F32)?)] {
        let (x, factor) = (ramp(&gpu, [4]).watch_as("factor.left"), ramp(&gpu, [4]));
        let loss = x.mul(&factor).unwrap().sum(&[], false).unwrap();
        change(&factor).unwrap();
        says(&loss.backward().unwrap_err(), &["mul", "input 1", "changed in place"]);
    }
    // A view shares the version of what it views.
    let x = ramp(&gpu, [4]).watch_as("viewed");
    let loss = x.reshape(&[2, 2]).unwrap().exp().unwrap().mul(&x.reshape(&[2, 2]).unwrap()).unwrap().sum(&[], false).unwrap();
    x.write(&[0.0f32; 4]).unwrap();
    says(&loss.backward().unwrap_err(), &["changed in place"]);
}

/// Batch norm keeps what it needs of the running statistics, so that moving them changes no
/// gradient.
#[test]
fn running_statistics_that_move_between_forward_and_backward_change_no_gradient() {
    let gpu = gpu();
    let gradients = |moved: bool| {
        let params = Parameters::new(&gpu, 1);
        let norm = BatchNorm::new(&params, "norm", 5, Default::default()).unwrap();
        let mean = params.get("norm.running_mean").unwrap().detach().unwrap();
        let (x, other) = (ramp(&gpu, [9, 5]).watch(), ramp(&gpu, [33, 5]).add_scalar(3.0).unwrap());
        let frozen = norm.forward(&x, Mode::FrozenNorm).unwrap().mul(&x).unwrap().sum(&[], false).unwrap();
        let train = norm.forward(&x, Mode::Train).unwrap().mul(&x).unwrap().sum(&[], false).unwrap();
        let before = (mean.version(), values(&mean));
        if moved {
            norm.forward(&other, Mode::Train).unwrap();
            assert!(mean.version() > before.0 && values(&mean) != before.1, "the running statistics did not move");
        }
        [frozen, train].map(|loss| {
            let found = loss.backward().unwrap();
            let weight = params.get("norm.weight").unwrap().tensor(Mode::Train).unwrap();
            [bits(found.get(&x).unwrap()), bits(found.get(&weight).unwrap())]
        })
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn gradients_add_up_over_uses_and_micro_batches() {
    let gpu = gpu();
    let x = ramp(&gpu, [5, 7]).watch();
    let loss = x.mul(&x).unwrap().add(&x).unwrap().add(&x).unwrap().sum(&[], false).unwrap();
    let found = values(loss.backward().unwrap().get(&x).unwrap());
    assert!(values(&x).iter().zip(&found).all(|(x, g)| (g - (2.0 * x + 2.0)).abs() < 1e-5));

    for (schedule, gpu) in gpus() {
        let params = Parameters::new(&gpu, 3);
        let layer = Linear::new(&params, "fc", 7, 4).unwrap();
        let data = ramp(&gpu, [12, 7]);
        let labels: Vec<i32> = (0..12).map(|i| (i * 5) % 4).collect();
        let loss = |from: usize, to: usize| {
            let y = Tensor::from_slice(&gpu, &labels[from..to], [to - from]).unwrap();
            layer.forward(&data.slice(0, from, to).unwrap(), Mode::Train).unwrap().cross_entropy(&y, 0.1).unwrap()
        };
        let whole = loss(0, 12).backward().unwrap();
        let mut parts = loss(0, 4).backward().unwrap();
        parts.accumulate(&loss(4, 8).backward().unwrap()).unwrap();
        parts.accumulate(&loss(8, 12).backward().unwrap()).unwrap();
        parts.scale(1.0 / 3.0).unwrap();
        assert_eq!((parts.len(), whole.len()), (2, 2));
        for name in ["fc.weight", "fc.bias"] {
            let parameter = params.get(name).unwrap().tensor(Mode::Train).unwrap();
            let (a, b) = (values(whole.get(&parameter).unwrap()), values(parts.get(&parameter).unwrap()));
            assert!(a.iter().any(|v| v.abs() > 1e-3), "{name} has no gradient to compare");
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{name} on {schedule}: {a:?} {b:?}");
        }
    }
}

#[test]
fn accumulating_into_nothing_keeps_the_gradients() {
    let gpu = gpu();
    let (x, z) = (ramp(&gpu, [3]).watch(), ramp(&gpu, [3]).watch());
    let mut total = wgrad::autograd::Gradients::default();
    assert!(total.is_empty());
    total.accumulate(&x.sum(&[], false).unwrap().backward().unwrap()).unwrap();
    total.accumulate(&z.neg().unwrap().sum(&[], false).unwrap().backward().unwrap()).unwrap();
    assert_eq!(values(total.get(&x).unwrap()), [1.0; 3]);
    assert_eq!(values(total.get(&z).unwrap()), [-1.0; 3]);
    assert!(total.get(&ramp(&gpu, [3]).watch()).is_none());
}

#[test]
fn detach_and_eval_cut_the_tape() {
    let gpu = gpu();
    let x = ramp(&gpu, [6]).watch();
    let square = x.mul(&x.detach()).unwrap();
    assert_eq!(values(square.sum(&[], false).unwrap().backward().unwrap().get(&x).unwrap()), values(&x));
    assert!(square.is_watched() && !square.detach().is_watched());

    let params = Parameters::new(&gpu, 1);
    let layer = Linear::new(&params, "fc", 6, 2).unwrap();
    let logits = layer.forward(&x.detach(), Mode::Eval).unwrap();
    assert!(!logits.is_watched());
    let error = logits.sum(&[], false).unwrap().backward().unwrap_err();
    assert!(matches!(error, Error::Autograd { .. }), "{error:?}");
    says(&error, &["backward", "watched", "Eval mode"]);
    let snapshot = params.snapshot().unwrap();
    let teacher = Linear::new(&snapshot, "fc", 6, 2).unwrap();
    assert!(!teacher.forward(&x.detach(), Mode::Train).unwrap().is_watched(), "a snapshot was recorded");
}

#[test]
fn a_loss_has_one_element_and_a_cotangent_its_shape() {
    let gpu = gpu();
    let x = ramp(&gpu, [2, 3]).watch();
    let y = x.exp().unwrap();
    let error = y.backward().unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error:?}");
    says(&error, &["[2, 3]", "backward_from"]);
    says(&y.backward_from(&Tensor::full(&gpu, [3, 2], 1.0, DType::F32).unwrap()).unwrap_err(), &["[3, 2]", "[2, 3]"]);
    let cotangent = ramp(&gpu, [2, 3]).neg().unwrap();
    let found = values(y.backward_from(&cotangent).unwrap().get(&x).unwrap());
    let expected: Vec<f32> = values(&x).iter().zip(values(&cotangent)).map(|(x, c)| x.exp() * c).collect();
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    // A shape of one element is a loss, whatever its rank.
    let one = x.sum(&[0, 1], true).unwrap();
    assert_eq!(values(one.backward().unwrap().get(&x).unwrap()), [1.0; 6]);
    // A watched tensor is its own loss.
    let leaf = Tensor::scalar(&gpu, 2.0).unwrap().watch();
    assert_eq!(values(leaf.backward().unwrap().get(&leaf).unwrap()), [1.0]);
}

/// A thread with a stack of 1 MiB would not survive one frame a node.
#[test]
fn a_long_chain_overflows_no_stack() {
    const NODES: usize = 20_000;
    let gpu = gpu();
    let x = Tensor::full(&gpu, [1], 2.0, DType::F32).unwrap().watch();
    // Every pipeline is compiled before, on this thread's own stack.
    x.neg().unwrap().backward().unwrap();
    let chain = move || {
        let build = || (0..NODES).fold(x.clone(), |y, _| y.neg().unwrap());
        let walked = build().backward().unwrap();
        assert_eq!(values(walked.get(&x).unwrap()), [1.0]);
        let dropped = build();
        assert_eq!(values(&dropped), [2.0]);
        drop(dropped);
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(chain).unwrap().join().unwrap();
}

#[test]
fn memory_is_freed_as_backward_passes() {
    let gpu = gpu();
    let x = ramp(&gpu, [100_000]).watch();
    let run = || {
        let before = gpu.memory().in_use;
        let loss = (0..20).fold(x.clone(), |y, _| y.sigmoid().unwrap()).sum(&[], false).unwrap();
        let recorded = gpu.memory().in_use - before;
        let found = loss.backward().unwrap();
        let walked = gpu.memory().in_use - before;
        drop(found);
        drop(loss);
        assert_eq!(gpu.memory().in_use, before, "something was kept");
        (recorded, walked, gpu.memory().peak - before)
    };
    let (recorded, walked, high) = run();
    let activation = 400_000;
    assert!(recorded > 20 * activation, "the test records too little: {recorded} bytes");
    // What is left is the gradient and a few scalars; on the way there were never more than two
    // tensors above what was recorded.
    assert!(walked < 2 * activation, "{walked} bytes are in use behind backward");
    assert!(high < recorded + 4 * activation, "{high} bytes at the most, {recorded} recorded");
    let allocations = gpu.memory().allocations;
    run();
    assert_eq!(gpu.memory().allocations, allocations, "the second pass made new buffers");
}

#[test]
fn tracing_names_the_first_operator_with_a_non_finite_value() {
    let gpu = Gpu::with(GpuOptions { trace_non_finite: true, ..options() }).unwrap();
    let x = Tensor::from_slice(&gpu, &[1.0f32, -1.0, 4.0], [3]).unwrap().watch();
    let error = x.mul_scalar(2.0).unwrap().log().unwrap_err();
    assert!(matches!(&error, Error::NonFinite { operator, .. } if operator == "log"), "{error:?}");
    says(&error, &["log", "output 0", "1 non-finite values of 3"]);
    // A gradient: the derivative of sqrt at 0 is infinite, its value is not.
    let zero = Tensor::from_slice(&gpu, &[1.0f32, 0.0], [2]).unwrap().watch();
    let error = zero.sqrt().unwrap().sum(&[], false).unwrap().backward().unwrap_err();
    assert!(matches!(&error, Error::NonFinite { operator, .. } if operator == "sqrt"), "{error:?}");
    says(&error, &["the gradient of input 0", "1 non-finite values of 2"]);
    // Without tracing the values pass.
    let quiet = crate::common::gpu();
    let x = Tensor::full(&quiet, [3], -1.0, DType::F32).unwrap();
    assert!(values(&x.log().unwrap()).iter().all(|v| v.is_nan()));
}

#[test]
fn tensors_of_two_devices_do_not_mix() {
    let (a, b) = (gpu(), gpu());
    let error = ramp(&a, [3]).add(&ramp(&b, [3])).unwrap_err();
    assert!(matches!(error, Error::Argument { .. }), "{error:?}");
    says(&error, &["add", "different devices", "upload"]);
    let x = ramp(&a, [3]).watch();
    let error = x.exp().unwrap().backward_from(&ramp(&b, [3])).unwrap_err();
    says(&error, &["different devices"]);
    let error = ramp(&a, [3]).copy_from(&ramp(&b, [3])).unwrap_err();
    says(&error, &["different devices"]);
}

/// An operator from outside the crate, `y = x^3`; the factor of its derivative is 3 where it is
/// right.
struct Cube {
    factor: f32,
}

static CUBE: LazyLock<Kernel> = LazyLock::new(|| {
    Kernel::new(
        "cube",
        r#"
        {% include "grid.wgsl" %}
        {{ input(0, "x") }}
        {{ input(1, "dy") }}
        {{ output(2, "y") }}
        {{ params("n: u32, factor: f32") }}
        @compute @workgroup_size(64)
        fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
            let i = group_index(wid, nwg) * 64u + lane;
            if (i < p.n) { let x = load_x(i); store_y(i, x * x * x); }
        }
        @compute @workgroup_size(64)
        fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
            let i = group_index(wid, nwg) * 64u + lane;
            if (i < p.n) { let x = load_x(i); store_y(i, p.factor * x * x * load_dy(i)); }
        }"#,
    )
});

impl Cube {
    fn launch(&self, entry: &str, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let y = Tensor::empty(x.gpu(), x.shape(), DType::F32)?;
        let n = x.numel();
        Launch::new(x.gpu(), &CUBE, entry).read(x).read(dy).write(&y).params(params![n, self.factor]).invocations(n)?;
        Ok(y)
    }
}

impl Operator for Cube {
    fn name(&self) -> &str {
        "cube"
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = exactly("cube", inputs)?;
        Ok(vec![x.clone()])
    }
    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
        let [x] = exactly("cube", inputs)?;
        Ok(vec![self.launch("forward", x, x)?])
    }
    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.launch("backward", step.input(0)?, &step.cotangent(0)?)?)])
    }
    fn saves(&self) -> Saves {
        Saves { inputs: vec![0], outputs: vec![] }
    }
    fn differentiable(&self) -> Vec<usize> {
        vec![0]
    }
    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [x] = exactly("cube", inputs)?;
        Ok(vec![x.map(|x| x * x * x)])
    }
}

#[test]
fn an_operator_from_outside_is_checked_and_trained_through() {
    let gpu = gpu();
    let input = Array::new([2, 3], vec![0.5, -1.0, 2.0, 0.0, 1.5, -0.25]);
    let right: Arc<dyn Operator> = Arc::new(Cube { factor: 3.0 });
    let report = gradcheck(&gpu, &right, std::slice::from_ref(&input)).unwrap();
    assert_eq!(report.compared, 12);
    assert!(report.worst <= 1.0);
    let wrong: Arc<dyn Operator> = Arc::new(Cube { factor: 2.0 });
    let error = gradcheck(&gpu, &wrong, std::slice::from_ref(&input)).unwrap_err();
    let cotangent = wgrad::ops::sample::Sample::cotangent(&Shape::from([2, 3]), 0);
    // The worst element is the one with the largest gradient.
    let off: Vec<f64> = input.data.iter().zip(&cotangent.data).map(|(x, c)| (x * x * c).abs()).collect();
    let largest = (0..6).max_by(|a, b| off[*a].total_cmp(&off[*b])).unwrap();
    let (x, c) = (input.data[largest], cotangent.data[largest]);
    let (found, expected) = (2.0 * x * x * c, 3.0 * x * x * c);
    says(&error, &["cube gradient of input 0", &format!("element {largest} is "), "6 elements are off"]);
    let message = error.to_string();
    let numbers: Vec<f64> = message.split([' ', ',']).filter(|w| w.contains('e')).filter_map(|w| w.parse().ok()).collect();
    assert!(numbers.len() >= 2 && (numbers[0] / found - 1.0).abs() < 1e-5 && (numbers[1] / expected - 1.0).abs() < 1e-5, "{message}");
    // In a chain with the crate's own operators.
    let x = ramp(&gpu, [70_000]).watch();
    let y = apply_one(Cube { factor: 3.0 }, &[&x.mul_scalar(2.0).unwrap()]).unwrap();
    let found = values(y.sum(&[], false).unwrap().backward().unwrap().get(&x).unwrap());
    assert!(values(&x).iter().zip(&found).all(|(x, g)| (g - 24.0 * x * x).abs() < 1e-4));
    assert!(apply(Cube { factor: 3.0 }, &[&x, &x]).unwrap_err().to_string().contains("cube: it takes 1 inputs, 2 were given"));
}

/// A backward that asks for what it did not save, and one whose gradient has another shape, are
/// told so.
#[test]
fn a_careless_operator_is_told_what_is_wrong() {
    struct Careless {
        saves: bool,
    }
    impl Operator for Careless {
        fn name(&self) -> &str {
            "careless"
        }
        fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
            Ok(inputs.to_vec())
        }
        fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> {
            Ok(vec![inputs[0].detach().neg()?])
        }
        fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
            let x = if self.saves { step.cotangent(0)? } else { step.input(0)?.clone() };
            Ok(vec![Some(x.sum(&[], false)?)])
        }
        fn differentiable(&self) -> Vec<usize> {
            vec![0]
        }
        fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
            Ok(inputs.to_vec())
        }
    }
    let gpu = gpu();
    let x = ramp(&gpu, [3]).watch();
    let run = |saves: bool| apply_one(Careless { saves }, &[&x]).unwrap().backward_from(&ramp(&gpu, [3])).unwrap_err();
    says(&run(false), &["careless", "input 0", "`saves` does not name"]);
    says(&run(true), &["careless", "the gradient of input 0 has shape []", "[3]"]);
}

#[test]
fn scalars_and_empty_tensors_work_everywhere() {
    for (_, gpu) in gpus() {
        let x = Tensor::scalar(&gpu, 3.0).unwrap().watch();
        let y = x.add(&x).unwrap().relu().unwrap().mul(&x).unwrap();
        assert_eq!((y.shape().rank(), y.item().unwrap()), (0, 18.0));
        assert_eq!(y.sum(&[], false).unwrap().backward().unwrap().get(&x).unwrap().item().unwrap(), 12.0);

        for shape in [vec![0], vec![3, 0], vec![0, 4]] {
            let empty = Tensor::zeros(&gpu, shape.clone(), DType::F32).unwrap().watch();
            let y = empty.add(&Tensor::scalar(&gpu, 1.0).unwrap()).unwrap().relu().unwrap();
            assert_eq!((y.shape(), values(&y).len()), (&Shape::from(shape.clone()), 0));
            let loss = y.sum(&[], false).unwrap();
            assert_eq!(loss.item().unwrap(), 0.0);
            assert_eq!(loss.backward().unwrap().get(&empty).unwrap().shape(), &Shape::from(shape));
        }
        // An inner size of 0: a product of zeros, and gradients without elements.
        let (a, b) = (Tensor::zeros(&gpu, [2, 0], DType::F32).unwrap().watch(), Tensor::zeros(&gpu, [0, 3], DType::F32).unwrap().watch());
        let product = a.matmul(&b).unwrap();
        assert_eq!(values(&product), [0.0; 6]);
        let found = product.sum(&[], false).unwrap().backward().unwrap();
        assert_eq!((found.get(&a).unwrap().shape(), found.get(&b).unwrap().shape()), (a.shape(), b.shape()));
        // No rows: the weight's gradient is zero, not what the memory held.
        let (rows, weight) = (Tensor::zeros(&gpu, [0, 4], DType::F32).unwrap(), ramp(&gpu, [4, 3]).watch());
        let found = rows.matmul(&weight).unwrap().sum(&[], false).unwrap().backward().unwrap();
        assert_eq!(values(found.get(&weight).unwrap()), [0.0; 12]);
    }
}
