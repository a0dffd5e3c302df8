//! llvmpipe leaves every shader loop after 65,535 rounds, without a word. No kernel may walk
//! further than that in one loop, so each is run on lengths beyond it, on values whose results are
//! known.

use crate::common::gpus;
use wgrad::gpu::Gpu;
use wgrad::ops::convolution::conv2d::Conv2dFuncOptions;
use wgrad::ops::convolution::depthwise_conv2d::DepthwiseConv2dFuncOptions;
use wgrad::ops::normalization::batch_norm::BatchNormFuncOptions;
use wgrad::ops::pooling::{Upsample, UpsampleMode, Window};
use wgrad::tensor::{DType, Tensor};

/// More vec4s than a loop has rounds.
const LONG: usize = 300_000;

fn ones(gpu: &Gpu, shape: &[usize]) -> Tensor {
    Tensor::full(gpu, shape, 1.0, DType::F32).unwrap()
}

fn near(what: &str, found: f32, expected: f32, tolerance: f32) -> Option<String> {
    let right = (found - expected).abs() <= tolerance * expected.abs().max(1e-6);
    (!right).then(|| format!("{what}: {found}, expected {expected}"))
}

fn gradient(x: &Tensor, y: &Tensor) -> Vec<f32> {
    y.backward_from(&ones(y.gpu(), y.shape())).unwrap().get(x).unwrap().to_vec().unwrap()
}

fn check(gpu: &Gpu) -> Vec<String> {
    let n = LONG as f32;
    let mut wrong = Vec::new();
    let mut expect = |what: &str, found: f32, expected: f32| wrong.extend(near(what, found, expected, 1e-4));

    let row = ones(gpu, &[1, LONG]).watch();
    expect("sum of a row", row.sum(&[1], false).unwrap().item().unwrap(), n);
    expect("sum of a column", row.reshape(&[LONG, 1]).unwrap().sum(&[0], false).unwrap().item().unwrap(), n);
    expect("logsumexp", row.logsumexp(&[1], false).unwrap().item().unwrap(), 1.0 + n.ln());
    let mut values = vec![0.0f32; LONG];
    values[LONG - 1] = 1.0;
    let last = Tensor::from_slice(gpu, &values, [1, LONG]).unwrap();
    expect("max", last.max(&[1], false).unwrap().item().unwrap(), 1.0);
    expect("argmax", last.argmax(1).unwrap().item().unwrap(), n - 1.0);
    expect("topk", last.topk(1, 1).unwrap().0.item().unwrap(), 1.0);
    expect("var", last.var(&[1], false, false).unwrap().item().unwrap(), 1.0 / n);
    expect("l2_normalize", row.l2_normalize(1, 1e-12).unwrap().to_vec::<f32>().unwrap()[LONG - 1], 1.0 / n.sqrt());
    expect("cosine_similarity", row.cosine_similarity(&row, 1e-8).unwrap().item().unwrap(), 1.0);
    for temperature in [1.0, 0.5] {
        expect("softmax", row.softmax_with_temperature(1, temperature).unwrap().to_vec::<f32>().unwrap()[LONG - 1], 1.0 / n);
        expect("log_softmax", row.log_softmax_with_temperature(1, temperature).unwrap().to_vec::<f32>().unwrap()[LONG - 1], -n.ln());
    }
    let y = last.watch().mul_scalar(1.0).unwrap().softmax(1).unwrap();
    expect("softmax sums to", y.sum(&[1], false).unwrap().item().unwrap(), 1.0);
    let target = Tensor::from_slice(gpu, &[LONG as i32 - 1], [1]).unwrap();
    let loss = row.cross_entropy(&target, 0.1).unwrap();
    expect("cross entropy", loss.item().unwrap(), n.ln());
    expect("cross entropy's gradient", gradient(&row, &loss)[LONG - 1], -0.9);
    expect("distillation_kl", 1.0 + row.distillation_kl(&row, 4.0).unwrap().item().unwrap(), 1.0);
    expect("soft_cross_entropy", row.soft_cross_entropy(&row.softmax(1).unwrap()).unwrap().item().unwrap(), n.ln());
    expect("mse_loss", row.mse_loss(&last).unwrap().item().unwrap(), (n - 1.0) / n);
    let scale = ones(gpu, &[LONG]).watch();
    let shift = Tensor::zeros(gpu, [LONG], DType::F32).unwrap();
    expect("layer_norm", last.layer_norm(&scale, &shift, 1e-5).unwrap().to_vec::<f32>().unwrap()[LONG - 1], 1.0 / (1.0 / n + 1e-5).sqrt());

    let column = ones(gpu, &[LONG, 1]).watch();
    let product = row.matmul(&column).unwrap();
    expect("matmul over K", product.item().unwrap(), n);
    expect("matmul_tn over K", column.matmul_tn(&column).unwrap().item().unwrap(), n);
    expect("matmul_nt over K", row.matmul_nt(&row).unwrap().item().unwrap(), n);
    expect("matmul's gradient", gradient(&column, &product)[LONG - 1], 1.0);
    let weight = ones(gpu, &[1, 1]).watch();
    let bias = ones(gpu, &[1]).watch();
    let y = column.linear(&weight, Some(&bias)).unwrap();
    let gradients = y.backward_from(&ones(gpu, &[LONG, 1])).unwrap();
    expect("linear's weight gradient", gradients.get(&weight).unwrap().item().unwrap(), n);
    expect("linear's bias gradient", gradients.get(&bias).unwrap().item().unwrap(), n);
    // [1, LONG] broadcast against [1, 1].
    let one = ones(gpu, &[1, 1]).watch();
    expect("a broadcast's gradient", gradient(&one, &row.mul(&one).unwrap())[0], n);

    let rows = 70_000;
    let table = ones(gpu, &[3, 4]).watch();
    let index = Tensor::from_slice(gpu, &vec![1i32; rows], [rows]).unwrap();
    expect("embedding's gradient", gradient(&table, &table.embedding(&index).unwrap())[4], rows as f32);
    expect("index_select's gradient", gradient(&table, &table.index_select(0, &index).unwrap())[4], rows as f32);
    let flat = ones(gpu, &[1, 3]).watch();
    let wide = Tensor::from_slice(gpu, &vec![1i32; rows], [1, rows]).unwrap();
    expect("gather's gradient", gradient(&flat, &flat.gather(1, &wide).unwrap())[1], rows as f32);
    expect("expand's gradient", gradient(&flat, &flat.expand(&[rows, 3]).unwrap())[1], rows as f32);

    let side = 560;
    let image = ones(gpu, &[1, side, side, 4]).watch();
    let pixels = (side * side) as f32;
    expect("global_avg_pool2d", image.global_avg_pool2d().unwrap().to_vec::<f32>().unwrap()[3], 1.0);
    let kernel = ones(gpu, &[4, 1, 1, 4]).watch();
    let y = image.conv2d(&kernel, None, &Conv2dFuncOptions::default()).unwrap();
    expect("conv2d's weight gradient", gradient(&kernel, &y)[0], pixels);
    let taps = ones(gpu, &[3, 3, 4]).watch();
    let options = DepthwiseConv2dFuncOptions { padding: 1.into(), ..Default::default() };
    let y = image.depthwise_conv2d(&taps, None, &options).unwrap();
    expect("depthwise_conv2d's weight gradient", gradient(&taps, &y)[16], pixels);
    let (gamma, beta) = (ones(gpu, &[4]).watch(), Tensor::zeros(gpu, [4], DType::F32).unwrap().watch());
    let (mean, var) = (Tensor::zeros(gpu, [4], DType::F32).unwrap(), ones(gpu, &[4]));
    let options = BatchNormFuncOptions { momentum: 1.0, ..Default::default() };
    let y = image.batch_norm(&gamma, &beta, &mean, &var, &options, None).unwrap();
    expect("batch_norm's mean", mean.to_vec::<f32>().unwrap()[2], 1.0);
    expect("batch_norm's bias gradient", gradient(&beta, &y)[2], pixels);
    expect("group_norm", 1.0 + image.group_norm(1, &gamma, &beta, 1e-5).unwrap().to_vec::<f32>().unwrap()[5], 1.0);

    let window = Window::square(side, side, 0);
    expect("avg_pool2d", image.avg_pool2d(window, true).unwrap().to_vec::<f32>().unwrap()[3], 1.0);

    let labels = Tensor::from_slice(gpu, &vec![0i32; LONG], [LONG]).unwrap();
    let logits = Tensor::zeros(gpu, [LONG, 2], DType::F32).unwrap();
    expect("cross entropy over rows", logits.cross_entropy(&labels, 0.0).unwrap().item().unwrap(), 2f32.ln());
    wrong
}

/// The largest distance of an element from `value`; NaN where one was not written.
fn distance(x: &Tensor, value: f32) -> f32 {
    x.to_vec::<f32>().unwrap().iter().fold(0.0, |most, v| if v.is_nan() { f32::NAN } else { (v - value).abs().max(most) })
}

/// Loops in each other, whose rounds multiply, and rows that are longer still.
fn check_nested(gpu: &Gpu) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, found: f32, expected: f32| wrong.extend(near(what, found, expected, 1e-4));
    let zeros = |shape: &[usize]| Tensor::zeros(gpu, shape, DType::F32).unwrap();

    for (shape, groups) in [([1, 112, 112, 128], 32), ([2, 32, 32, 64], 2), ([1, 86, 86, 1], 1), ([1, 300, 301, 1], 1)] {
        let c = shape[3];
        let (x, gamma) = (ones(gpu, &shape).watch(), ones(gpu, &[c]));
        let y = x.group_norm(groups, &gamma, &ones(gpu, &[c]), 1e-5).unwrap();
        expect(&format!("group_norm of {shape:?}"), 1.0 + distance(&y, 1.0), 1.0);
        let dx = y.backward_from(&ones(gpu, &shape)).unwrap().get(&x).unwrap().clone();
        expect(&format!("group_norm's gradient of {shape:?}"), 1.0 + distance(&dx, 0.0), 1.0);
    }
    let n = 1_500_001;
    let mut values = vec![0.0f32; n];
    values[n - 1] = 1.0;
    let last = Tensor::from_slice(gpu, &values, [1, n]).unwrap();
    let y = last.layer_norm(&ones(gpu, &[n]), &zeros(&[n]), 1e-5).unwrap();
    expect("layer_norm of a long row", y.to_vec::<f32>().unwrap()[n - 1], 1.0 / (1.0 / n as f32 + 1e-5).sqrt());

    for keys in [32_768, 40_000] {
        let (q, k, v) = (zeros(&[1, 1, 1, 4]), ones(gpu, &[1, 1, keys, 4]), ones(gpu, &[1, 1, keys, 4]).watch());
        let y = q.scaled_dot_product_attention(&k, &v, None, false).unwrap();
        expect("attention", y.to_vec::<f32>().unwrap()[3], 1.0);
        expect("attention's gradient", gradient(&v, &y)[4 * keys - 1], 1.0 / keys as f32);
        // Half of the keys are seen.
        let mask: Vec<i32> = (0..keys).map(|key| i32::from(key % 2 == 1)).collect();
        let y = q.scaled_dot_product_attention(&k, &v, Some(&Tensor::from_slice(gpu, &mask, [1, keys]).unwrap()), false).unwrap();
        expect("masked attention", y.to_vec::<f32>().unwrap()[3], 1.0);
        expect("masked attention's gradient", gradient(&v, &y)[4 * keys - 1], 2.0 / keys as f32);
    }

    let pixel = ones(gpu, &[1, 1, 1, 1]).watch();
    for mode in [UpsampleMode::Nearest, UpsampleMode::Bilinear, UpsampleMode::Bicubic] {
        let y = pixel.upsample2d(Upsample::Size([256, 256]), mode).unwrap();
        expect("upsample2d's gradient", gradient(&pixel, &y)[0], 65_536.0);
    }
    let n = 1_048_577;
    let (row, column) = (ones(gpu, &[1, n]), ones(gpu, &[n, 1]));
    expect("matmul over a long K", row.matmul(&column).unwrap().item().unwrap(), n as f32);
    let rows = 70_000;
    let center = zeros(&[3]);
    center.center_update(&ones(gpu, &[rows, 3]), 0.0).unwrap();
    expect("center_update", center.to_vec::<f32>().unwrap()[2], 1.0);
    let columns = ones(gpu, &[rows, 3]);
    expect("argmax of a column", 1.0 + columns.argmax(0).unwrap().to_vec::<i32>().unwrap()[2] as f32, 1.0);

    let d = 600_000;
    let mut values = vec![0.0f32; d];
    values[d - 1] = 1.0;
    let (wide, end) = (ones(gpu, &[1, d]), Tensor::from_slice(gpu, &values, [1, d]).unwrap());
    expect("byol_loss", wide.byol_loss(&end).unwrap().item().unwrap(), 2.0 - 2.0 / (d as f32).sqrt());
    expect("dino_loss", zeros(&[1, d]).dino_loss(&zeros(&[1, d]), &zeros(&[d]), 0.1, 0.04).unwrap().item().unwrap(), (d as f32).ln());
    // The only feature that counts is the last.
    let d = 300_000;
    let end = Tensor::from_slice(gpu, &values[values.len() - d..], [1, d]).unwrap();
    expect("similarity_matrix", end.similarity_matrix(&end, 1.0).unwrap().item().unwrap(), 1.0);

    let image = ones(gpu, &[1, 1, 66_000, 1]);
    let tap = ones(gpu, &[1, 1, 1]).watch();
    let y = image.depthwise_conv2d(&tap, None, &DepthwiseConv2dFuncOptions::default()).unwrap();
    expect("depthwise_conv2d's gradient of a long row", gradient(&tap, &y)[0], 66_000.0);
    let (image, kernel) = (ones(gpu, &[1, 151, 151, 4]), ones(gpu, &[4, 151, 151, 4]).watch());
    let y = image.conv2d(&kernel, None, &Conv2dFuncOptions::default()).unwrap();
    expect("conv2d by a large kernel", y.to_vec::<f32>().unwrap()[3], (4 * 151 * 151) as f32);
    expect("conv2d's gradient of a large kernel", gradient(&kernel, &y)[4 * 151 * 151 - 1], 1.0);
    let y = image.depthwise_conv2d(&ones(gpu, &[151, 151, 4]), None, &DepthwiseConv2dFuncOptions::default()).unwrap();
    expect("depthwise_conv2d by a large kernel", y.to_vec::<f32>().unwrap()[3], (151 * 151) as f32);

    let mut values = vec![1.0f32; 40_000];
    values[39_999] = 2.0;
    let image = Tensor::from_slice(gpu, &values, [1, 20_000, 2, 1]).unwrap().watch();
    let window = Window { kernel: [20_000, 2], ..Window::square(1, 1, 0) };
    let y = image.max_pool2d(window).unwrap();
    expect("max_pool2d of a large window", y.item().unwrap(), 2.0);
    expect("max_pool2d's gradient", gradient(&image, &y)[39_999], 1.0);
    let y = image.avg_pool2d(window, true).unwrap();
    expect("avg_pool2d of a large window", y.item().unwrap(), 1.000025);
    expect("avg_pool2d's gradient", gradient(&image, &y)[39_999], 1.0 / 40_000.0);
    let y = ones(gpu, &[1, 40_001, 3, 1]).avg_pool2d(Window { kernel: [20_001, 3], ..Window::square(1, 1, 0) }, true).unwrap();
    expect("avg_pool2d of large windows", 1.0 + distance(&y, 1.0), 1.0);
    wrong
}

#[test]
fn no_kernel_walks_further_by_loops_in_each_other() {
    for (schedule, gpu) in gpus() {
        let wrong = check_nested(&gpu);
        assert!(wrong.is_empty(), "schedule {schedule}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn no_kernel_walks_further_than_a_loop_may() {
    for (schedule, gpu) in gpus() {
        let wrong = check(&gpu);
        assert!(wrong.is_empty(), "schedule {schedule}:\n{}", wrong.join("\n"));
    }
}
