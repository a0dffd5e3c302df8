//! An operator of one's own: its WGSL, its gradient, a check of both, and its time.
//! `cargo run --release --example custom_op`
use wgrad::error::Result;
use wgrad::gpu::{Gpu, Kernel, Launch};
use wgrad::ops::gradcheck::gradcheck_sample;
use wgrad::ops::sample::{Sample, normal};
use wgrad::ops::{Array, Backward, Operator, Saves, apply_one, exactly};
use wgrad::tensor::{DType, Spec, Tensor};

/// Two kernels in one text. `input` and `output` declare the bindings with `load_x`, `store_y`
/// beside them, `params` the numbers.
const SWISH: &str = r#"
{% include "grid.wgsl" %}
{{ input(0, "x") }} {% if GRADIENT %} {{ input(1, "dy") }} {{ output(2, "dx") }} {% else %} {{ output(1, "y") }} {% endif %}
{{ params("n: u32, beta: f32") }}
@compute @workgroup_size(64)
fn run(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i >= p.n) { return; }
    let s = 1.0 / (1.0 + exp(-p.beta * load_x(i)));
    {% if GRADIENT %} store_dx(i, load_dy(i) * s * (1.0 + p.beta * load_x(i) * (1.0 - s)));
    {% else %} store_y(i, load_x(i) * s); {% endif %}
}"#;

/// x sigmoid(beta x) (Ramachandran et al. 2017, arXiv:1710.05941).
struct Swish {
    beta: f32,
}

impl Swish {
    fn launch(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (x, kernel) = (inputs[0], Kernel::new("swish", SWISH));
        let y = Tensor::empty(x.gpu(), x.shape(), x.dtype())?;
        let launch = Launch::new(x.gpu(), &kernel, "run").storage(x.dtype().storage()).define("GRADIENT", inputs.len() == 2);
        let launch = inputs.iter().fold(launch, |launch, tensor| launch.read(*tensor));
        launch.write(&y).params(wgrad::params![x.numel(), self.beta]).invocations(x.numel())?;
        Ok(y)
    }
}

#[rustfmt::skip] // one line a method
impl Operator for Swish {
    fn name(&self) -> &str { "swish" }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> { Ok(exactly::<1, _>("swish", inputs)?.to_vec()) }
    fn forward(&self, inputs: &[&Tensor], _: &[Spec]) -> Result<Vec<Tensor>> { Ok(vec![self.launch(inputs)?]) }
    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> { Ok(vec![Some(self.launch(&[step.input(0)?, &step.cotangent(0)?])?)]) }
    fn saves(&self) -> Saves { Saves { inputs: vec![0], outputs: vec![] } }
    fn differentiable(&self) -> Vec<usize> { vec![0] }
    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> { Ok(vec![inputs[0].map(|x| x / (1.0 + (-f64::from(self.beta) * x).exp()))]) }
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let report = gradcheck_sample(&gpu, Sample::new(Swish { beta: 1.5 }, [normal([33, 65])]), 0)?;
    println!("swish and its gradient agree with float64: {} values, worst error {:.3} of what is allowed", report.compared, report.worst);
    // It works on the tape like any other: descend to its minimum, where beta x = -1.278465.
    let mut x = 0.0;
    for _ in 0..100 {
        let watched = Tensor::scalar(&gpu, x)?.watch();
        let gradients = apply_one(Swish { beta: 1.5 }, &[&watched])?.backward()?;
        x -= gradients.get(&watched).expect("x is watched").item()?;
    }
    println!("100 steps of descent end at {x:.4}; the minimum is at {:.4}", -1.278465 / 1.5);
    let big = Tensor::full(&gpu, [1 << 22], 0.5, DType::F32)?;
    gpu.synchronize()?;
    let begun = std::time::Instant::now();
    apply_one(Swish { beta: 1.5 }, &[&big])?;
    gpu.synchronize()?;
    println!("2^22 elements: {:.2} ms on {}", begun.elapsed().as_secs_f64() * 1e3, gpu.capabilities().name);
    Ok(())
}
