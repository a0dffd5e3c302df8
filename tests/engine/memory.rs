//! Memory: nothing is written behind a tensor, nothing is read that was not written, bounds checks
//! change nothing, and NT-Xent's memory grows with the batch, not with its square.

use std::time::Instant;

use crate::common::samples::run;
use crate::common::{gpu, options};
use wgrad::error::Error;
use wgrad::gpu::{AdapterKind, Gpu, GpuOptions, Kernel, Launch, POISON, Schedule};
use wgrad::ops::gradcheck::{ROUNDING, compare};
use wgrad::ops::registry::registry;
use wgrad::ops::sample::Sample;
use wgrad::ops::{Array, Tolerance};
use wgrad::params;
use wgrad::tensor::{DType, Tensor};

/// How far results may be apart: what rounding may leave of terms that cancel, and the operator's
/// tolerance.
fn allowed(sample: &Sample) -> (f64, Tolerance) {
    let (operator, inputs) = (&sample.operator, sample.arrays(1));
    let largest =
        operator.differentiable().into_iter().map(|i| operator.summed(&inputs, Some(i))).fold(operator.summed(&inputs, None), f64::max);
    (ROUNDING * largest, operator.tolerance())
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.read_later().unwrap().wait().unwrap()
}

/// Every sample of the registry on one schedule: in poisoned memory, in plain memory, and with
/// bounds checks.
fn every_sample(schedule: Schedule) {
    let device = |poison, checked| Gpu::with(GpuOptions { schedule: Some(schedule), poison, checked, ..options() }).unwrap();
    let (poisoned, plain, checked) = (device(true, false), device(false, false), device(true, true));
    let (mut tensors, mut other_bits, mut failures) = (0, Vec::new(), Vec::new());
    for entry in registry() {
        let runs = [&poisoned, &plain, &checked].map(|gpu| (entry.samples)().into_iter().map(|s| run(gpu, s)).collect::<Vec<_>>());
        let [a, b, c] = runs;
        let tolerances: Vec<_> = (entry.samples)().iter().map(allowed).collect();
        for (index, (((a, b), c), (floor, tolerance))) in a.iter().zip(&b).zip(&c).zip(tolerances).enumerate() {
            for ((((what, a), (_, b)), (_, c)), name) in a.iter().zip(b).zip(c).zip(std::iter::repeat(entry.name)) {
                tensors += 1;
                let mut fail = |message: &str| failures.push(format!("{name} sample {index}, {what}: {message}"));
                if !a.sentinels_intact().unwrap() || !c.sentinels_intact().unwrap() {
                    fail("something was written behind it");
                }
                let contents = bytes(a);
                if contents != bytes(b) {
                    fail("other bits in poisoned memory");
                }
                if contents.chunks_exact(4).any(|w| w == POISON.to_le_bytes()) {
                    fail("an element was not written");
                }
                if contents != bytes(c) {
                    other_bits.push(format!("{name} sample {index}, {what}"));
                    let (found, expected) = (Array::download(c).unwrap(), Array::download(a).unwrap());
                    if let Err(error) = compare("with bounds checks", &found, &expected, floor, tolerance) {
                        fail(&error.to_string());
                    }
                }
            }
        }
    }
    assert!(tensors > 1000, "only {tensors} tensors were looked at");
    println!("schedule {schedule}: {tensors} tensors; {} have other bits with bounds checks, within their tolerance", other_bits.len());
    other_bits.iter().for_each(|what| println!("  {what}"));
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn samples_stay_inside_their_memory_on_schedule_software() {
    every_sample(Schedule::Software);
}

#[test]
fn samples_stay_inside_their_memory_on_schedule_gpu() {
    every_sample(Schedule::Gpu);
}

/// The sentinels see a kernel that writes one element too many, and only that.
#[test]
fn sentinels_see_a_stray_write() {
    const TEXT: &str = r#"{{ output(0, "y") }} {{ params("n: u32") }}
        @compute @workgroup_size(1) fn run() { for (var i = 0u; i < p.n; i++) { store_y(i, 1.0); } }"#;
    let gpu = gpu();
    // SAFETY: it writes at most 64 elements, which lie in the sentinels behind y's 5 elements.
    #[allow(unsafe_code)]
    let kernel = unsafe { Kernel::trusted("stray", TEXT) };
    // 5 elements fill 20 bytes; the rest up to 32 may be written by a vec4 store.
    for (n, intact) in [(5u32, true), (8, true), (9, false), (64, false)] {
        let y = Tensor::empty(&gpu, [5], DType::F32).unwrap();
        Launch::new(&gpu, &kernel, "run").write(&y).params(params![n]).groups(1).unwrap();
        assert_eq!(y.sentinels_intact().unwrap(), intact, "{n} elements were written");
        assert_eq!(y.to_vec::<f32>().unwrap(), [1.0; 5]);
    }
    let plain = Gpu::with(GpuOptions { poison: false, ..options() }).unwrap();
    let error = Tensor::full(&plain, [5], 1.0, DType::F32).unwrap().sentinels_intact().unwrap_err();
    assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains("GpuOptions::poison"), "{error}");
}

/// Memory is NaN before it is written, recycled memory, too.
#[test]
fn new_and_recycled_memory_is_poisoned() {
    let gpu = gpu();
    for _ in 0..3 {
        let y = Tensor::empty(&gpu, [777], DType::F32).unwrap();
        assert!(y.to_vec::<f32>().unwrap().iter().all(|v| v.to_bits() == POISON));
        y.write(&[1.0f32; 777]).unwrap();
    }
}

fn embeddings(gpu: &Gpu, n: usize, features: usize) -> [Tensor; 2] {
    [0u32, 1].map(|view| {
        let values: Vec<f32> = (0..(n * features) as u32)
            .map(|i| {
                let hash = (i + view * 77_777).wrapping_mul(2_654_435_761);
                (hash >> 8) as f32 / (1 << 23) as f32 - 1.0 + (i / features as u32 % 7) as f32 * 0.05
            })
            .collect();
        Tensor::from_slice(gpu, &values, [n, features]).unwrap().watch()
    })
}

/// The most memory in use in NT-Xent's forward and backward pass over `rows` rows (both views) of
/// 128 features, and the seconds.
fn nt_xent(rows: usize) -> (u64, f64) {
    let gpu = gpu();
    let start = Instant::now();
    let [z1, z2] = embeddings(&gpu, rows / 2, 128);
    let loss = z1.nt_xent(&z2, 0.5).unwrap();
    let gradients = loss.backward().unwrap();
    assert!(loss.item().unwrap().is_finite());
    for z in [&z1, &z2] {
        let gradient = gradients.get(z).unwrap().to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|v| v.is_finite()) && gradient.iter().any(|v| *v != 0.0));
    }
    let (high, seconds) = (gpu.memory().peak, start.elapsed().as_secs_f64());
    println!("NT-Xent, 2N = {rows} x 128: at most {:.1} MiB, {seconds:.1} s", high as f64 / f64::from(1 << 20));
    (high, seconds)
}

#[test]
fn nt_xent_memory_is_linear_in_the_batch() {
    let (half, whole) = (nt_xent(2048).0, nt_xent(4096).0);
    assert!(whole * 10 <= half * 22, "{half} bytes at 2048 rows, {whole} at 4096");
    // The matrix alone would be 64 MiB.
    assert!(whole < 32 << 20, "{whole} bytes");
}

#[test]
fn nt_xent_of_16384_rows_runs_in_256_mib() {
    let full = std::env::var("WGRAD_FULL").is_ok_and(|v| v == "1");
    let rows = if full || gpu().capabilities().kind != AdapterKind::Software { 16_384 } else { 4096 };
    if rows < 16_384 {
        println!("a software driver: 2N = {rows} instead of 16,384, in a share of 256 MiB as large; WGRAD_FULL=1 runs all");
    }
    let most = (256 << 20) * rows as u64 / 16_384;
    assert!(nt_xent(rows).0 < most);
}
