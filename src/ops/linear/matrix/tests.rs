//! Products of cooperative matrices against float64, and the traps of the extension.

use half::f16;

use super::super::gemm::Gemm;
use super::*;
use std::sync::Arc;

use crate::gpu::{GpuOptions, Kernel, Launch, Schedule, Tuning};
use crate::params;

/// A device that makes products of matrices; `None`, and why, where the adapter has none.
fn gpu() -> Option<Gpu> {
    let options = GpuOptions { schedule: Some(Schedule::Matrix), poison: true, ..GpuOptions::from_env().unwrap() };
    Gpu::with(options).map_err(|error| println!("NOT RUN: {error}")).ok()
}

/// Values that f16 holds exactly, without order, in -2..2.
fn values(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * step + 11) % 129) as f32 / 32.0 - 2.0).collect()
}

fn stored(gpu: &Gpu, data: &[f32], dtype: DType) -> Tensor {
    let halves: Vec<f16> = data.iter().map(|v| f16::from_f32(*v)).collect();
    match dtype {
        DType::F16 => Tensor::from_slice(gpu, &halves, [data.len()]).unwrap(),
        _ => Tensor::from_slice(gpu, data, [data.len()]).unwrap(),
    }
}

/// Whether a product was left to matrices.
fn is_matrix(gpu: &Gpu) -> bool {
    gpu.built_shaders().iter().any(|shader| shader.kernel == "linear/gemm_matrix")
}

/// Forms, sizes that are no multiple of anything, types of each operand, and the batch.
#[test]
fn matrix_products_are_right_at_their_edges() {
    let Some(gpu) = gpu() else { return };
    let types = [
        [DType::F16, DType::F16, DType::F16],
        [DType::F16, DType::F32, DType::F16],
        [DType::F16, DType::F16, DType::F32],
        [DType::F32, DType::F16, DType::F32],
    ];
    for (number, (m, n, k)) in
        [(130, 132, 20), (129, 131, 21), (64, 64, 64), (1, 1, 1), (5, 7, 3), (36, 68, 100), (3, 9, 700), (2, 2, 0)].into_iter().enumerate()
    {
        for (form, a_step, b_step) in
            [(Gemm::nn(m, n, k), (k, 1), (1, n)), (Gemm::nt(m, n, k), (k, 1), (k, 1)), (Gemm::tn(m, n, k), (1, m), (1, n))]
        {
            // Each size with two of the types, which take turns.
            for (at, [a_type, b_type, c_type]) in types.into_iter().enumerate().filter(|(at, _)| at % 2 == number % 2) {
                let (count, biased) = (1 + at % 3, at % 2 == 0);
                let (a, b, bias) = (values(count * m * k, 37), values(k * n, 53), values(n, 29));
                let (x, y) = (stored(&gpu, &a, a_type), stored(&gpu, &b, b_type));
                let c = Tensor::empty(&gpu, [count, m, n], c_type).unwrap();
                let biases = biased.then(|| stored(&gpu, &bias, DType::F32));
                form.batched(count, m * k, 0).alpha(0.5).run(&x, &y, biases.as_ref(), &c).unwrap();
                for (at, found) in c.to_f64().unwrap().into_iter().enumerate() {
                    let (matrix, row, column) = (at / (m * n), at / n % m, at % n);
                    let term = |l: usize| {
                        f64::from(a[matrix * m * k + row * a_step.0 + l * a_step.1]) * f64::from(b[column * b_step.0 + l * b_step.1])
                    };
                    let expected = 0.5 * (0..k).map(term).sum::<f64>() + if biased { f64::from(bias[column]) } else { 0.0 };
                    // Sums of these are exact in f32, so what is left is rounding on storing.
                    let allowed = if c_type == DType::F16 { expected.abs() / 2048.0 } else { 0.0 };
                    let what = format!("{m}x{n}x{k}, {a_type} {b_type} {c_type}, matrix {matrix}, row {row}, column {column}");
                    assert!((found - expected).abs() <= allowed, "{what}: {found}, not {expected}");
                }
            }
        }
    }
    assert!(is_matrix(&gpu));
    println!("ran on {} with {}", gpu.capabilities().name, gpu.capabilities().matrix.unwrap());
}

/// Tiles of 128, half of that on a software driver, whatever else decides.
#[test]
fn large_tiles_of_matrices_are_right() {
    let Some(gpu) = gpu() else { return };
    let mut table = Tuning::default();
    (0..10).for_each(|bucket| table.set("linear/gemm.side", bucket, 128));
    let gpu = Gpu::with(GpuOptions { tuning: Some(Arc::new(table)), ..gpu.options().clone() }).unwrap();
    let (m, n, k) = (200, 140, 67);
    let (a, b) = (values(m * k, 37), values(n * k, 53));
    let c = Tensor::empty(&gpu, [m, n], DType::F32).unwrap();
    Gemm::nt(m, n, k).run(&stored(&gpu, &a, DType::F16), &stored(&gpu, &b, DType::F16), None, &c).unwrap();
    for (at, found) in c.to_vec::<f32>().unwrap().into_iter().enumerate() {
        let expected: f32 = (0..k).map(|l| a[at / n * k + l] * b[at % n * k + l]).sum();
        assert_eq!(found, expected, "element {at}");
    }
}

/// 1.0 and 4,095 times 2^-11 is 3 - 2^-11 in f32, and 1 where sums are f16; sums beyond the largest
/// f16 are finite.
#[test]
fn matrix_sums_are_f32() {
    let Some(gpu) = gpu() else { return };
    let k = 4096;
    // With a batch, K is one slice; alone it is cut into sixteen.
    for count in [1, 128] {
        let mut small = vec![1.0 / 2048.0; k];
        small[0] = 1.0;
        for (b, sum) in [(small, 1.0 + 4095.0 / 2048.0), (vec![64.0; k], 64.0 * 4096.0)] {
            for dtype in [DType::F32, DType::F16] {
                let (x, y) = (stored(&gpu, &vec![1.0; k], DType::F16), stored(&gpu, &b, DType::F16));
                let c = Tensor::empty(&gpu, [count], dtype).unwrap();
                Gemm::nt(1, 1, k).batched(count, 0, 0).run(&x, &y, None, &c).unwrap();
                let rounded = if dtype == DType::F16 { f16::from_f64(sum).to_f64() } else { sum };
                assert!(
                    c.to_f64().unwrap().iter().all(|found| *found == rounded),
                    "{count} of {dtype}: {sum} is {:?}",
                    c.to_f64().unwrap()
                );
            }
        }
    }
}

/// f32 stays with the schedule for f32, to the bit.
#[test]
fn f32_is_left_to_the_gpu_schedule() {
    let Some(matrices) = gpu() else { return };
    let plain = Gpu::with(GpuOptions { schedule: Some(Schedule::Gpu), ..matrices.options().clone() }).unwrap();
    let product = |gpu: &Gpu| {
        let (x, y) = (stored(gpu, &values(33 * 70, 37), DType::F32), stored(gpu, &values(70 * 9, 53), DType::F32));
        let c = Tensor::empty(gpu, [33 * 9], DType::F32).unwrap();
        Gemm::nn(33, 9, 70).run(&x, &y, None, &c).unwrap();
        c.to_vec::<f32>().unwrap()
    };
    assert_eq!(product(&matrices), product(&plain));
    assert!(!is_matrix(&matrices));
}

#[test]
fn asking_for_matrices_where_there_are_none_is_an_error() {
    let options = GpuOptions { schedule: Some(Schedule::Matrix), webgpu_limits: true, ..GpuOptions::from_env().unwrap() };
    let error = Gpu::with(options).map(drop).unwrap_err().to_string();
    assert!(error.contains("cooperative matrices") && error.contains("WGRAD_SCHEDULE"), "{error}");
}

/// What others fell over, each as a kernel of its own: an accumulator carried in a loop (sums that
/// are twice as large), and an array of accumulators (refused by earlier compilers). Sums are of
/// whole numbers, exact in f32.
#[test]
fn the_traps_of_cooperative_matrices() {
    let Some(gpu) = gpu() else { return };
    let side = gpu.capabilities().matrix.unwrap().m as usize;
    let lanes = gpu.capabilities().subgroup_size.0;
    let text = |sums: &str, add: &str, first: &str, second: &str| {
        format!(
            r#"
{{{{ input(0, "a", type="f16") }}}}
{{{{ output(1, "c", type="f32") }}}}
{{{{ params("steps: u32, nothing: u32") }}}}
var<workgroup> tile: array<f16, {area}>;
var<workgroup> result: array<f32, {both}>;
@compute @workgroup_size({lanes})
fn sums(@builtin(local_invocation_index) lane: u32) {{
    {sums}
    for (var step = 0u; step < p.steps; step += 1u) {{
        workgroupBarrier();
        for (var i = lane; i < {area}u; i += {lanes}u) {{
            tile[i] = f16(load_a(step * {area}u + i));
        }}
        workgroupBarrier();
        let left = coopLoadT<coop_mat{side}x{side}<f16, A>>(&tile[0], {side}u);
        let right = coopLoad<coop_mat{side}x{side}<f16, B>>(&tile[0], {side}u);
        {add}
    }}
    coopStoreT({first}, &result[0], {side}u);
    coopStoreT({second}, &result[{area}], {side}u);
    workgroupBarrier();
    for (var i = lane; i < {both}u; i += {lanes}u) {{
        store_c(i, result[i]);
    }}
}}"#,
            area = side * side,
            both = 2 * side * side
        )
    };
    let named = text(
        &format!("var one = coop_mat{side}x{side}<f32, C>(); var two = coop_mat{side}x{side}<f32, C>();"),
        "one = coopMultiplyAdd(left, right, one); two = coopMultiplyAdd(left, right, one);",
        "one",
        "two",
    );
    let array = text(
        &format!("var both: array<coop_mat{side}x{side}<f32, C>, 2>;"),
        "both[0] = coopMultiplyAdd(left, right, both[0]); both[1] = coopMultiplyAdd(left, right, both[0]);",
        "both[0]",
        "both[1]",
    );
    let (steps, area) = (37, side * side);
    let a: Vec<f32> = (0..steps * area).map(|i| ((i * 31 + 7) % 11) as f32 - 5.0).collect();
    // Row by row: A is the tile and B its transpose.
    let step = |step: usize, at: usize| {
        let row = |r: usize| &a[step * area + r * side..][..side];
        row(at / side).iter().zip(row(at % side)).map(|(x, y)| x * y).sum::<f32>()
    };
    for (what, text) in [("named", named), ("array", array)] {
        let kernel = Kernel::new(what, text);
        let c = Tensor::empty(&gpu, [2 * area], DType::F32).unwrap();
        let x = stored(&gpu, &a, DType::F16);
        let launch = Launch::new(&gpu, &kernel, "sums").define("T", "f16").read(&x).write(&c);
        launch.params(params![steps, 0usize]).groups(1).unwrap();
        for (at, found) in c.to_vec::<f32>().unwrap().into_iter().enumerate() {
            let one: f32 = (0..steps).map(|s| step(s, at % area)).sum();
            let expected = if at < area { one } else { one + step(steps - 1, at % area) };
            assert_eq!(found, expected, "{what}, element {at}");
        }
    }
}
