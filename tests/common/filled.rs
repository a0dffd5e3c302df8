//! `filled.py` of the reference folder in Rust: tensors that any language can make from their
//! names.

use wgrad::io::{Archive, HostTensor};
use wgrad::nn::{Parameters, state_dict};
use wgrad::tensor::Shape;

fn crc32(name: &str) -> u32 {
    let mut crc = !0u32;
    for byte in name.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn hashes(name: &str, n: usize) -> impl Iterator<Item = u64> {
    let base = u64::from(crc32(name)) << 32;
    (0..n as u64).map(move |i| {
        let mut z = base.wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// Values in [-1, 1), exact in f32.
pub fn unit(name: &str, n: usize) -> Vec<f64> {
    hashes(name, n).map(|h| (h >> 40) as f64 / 8_388_608.0 - 1.0).collect()
}

/// Whole numbers below `below`.
pub fn integers(name: &str, n: usize, below: u64) -> Vec<i32> {
    hashes(name, n).map(|h| ((h >> 40) % below) as i32).collect()
}

/// A parameter by its name and its shape in PyTorch's layout.
pub fn parameter(name: &str, shape: &Shape) -> Vec<f32> {
    let last = name.rsplit('.').next().unwrap();
    let fan_in = shape.numel() / shape.dim(0).max(1);
    let value = |u: f64| match last {
        "running_var" => 1.0 + 0.2 * u.abs(),
        "weight" if shape.rank() == 1 => 1.0 + 0.1 * u,
        "weight" => u * (6.0 / fan_in as f64).sqrt(),
        _ => 0.1 * u,
    };
    unit(name, shape.numel()).into_iter().map(|u| value(u) as f32).collect()
}

/// Fills every parameter and statistic by `prefix` and its name.
pub fn fill(params: &Parameters, prefix: &str) {
    let mut archive = Archive::default();
    for (name, shape) in state_dict::state(params).unwrap() {
        if !name.ends_with("num_batches_tracked") {
            let data = parameter(&format!("{prefix}{name}"), &shape);
            archive.insert(name, HostTensor::F32(shape, data));
        }
    }
    let report = state_dict::from_archive(params, &archive, "filled").unwrap();
    assert!(report.extra.is_empty() && report.missing.is_empty(), "{report:?}");
}

/// `[N, C, H, W]` values as `[N, H, W, C]`.
pub fn nhwc(values: &[f64], [n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (i, v) in values.iter().enumerate() {
        let (x, y, ch, b) = (i % w, i / w % h, i / w / h % c, i / w / h / c);
        out[((b * h + y) * w + x) * c + ch] = *v as f32;
    }
    assert_eq!(values.len(), n * c * h * w);
    out
}
