//! llvmpipe leaves every shader loop after 65,535 rounds, without a word. No kernel may walk further than that in one loop, so each is
//! run on lengths beyond it, on values whose results are known.

mod common;

use common::gpus;
use wgrad::gpu::Gpu;
use wgrad::ops::convolution::conv2d::Conv2dOptions;
use wgrad::ops::convolution::depthwise_conv2d::DepthwiseConv2dOptions;
use wgrad::ops::normalization::batch_norm::BatchNormOptions;
use wgrad::tensor::{DType, Tensor};

/// More vec4s than a loop has rounds.
const LONG: usize = 300_000;

fn ones(gpu: &Gpu, shape: &[usize]) -> Tensor {
    Tensor::full(gpu, shape, 1.0).unwrap()
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
        expect("softmax", row.softmax(1, temperature).unwrap().to_vec::<f32>().unwrap()[LONG - 1], 1.0 / n);
        expect("log_softmax", row.log_softmax(1, temperature).unwrap().to_vec::<f32>().unwrap()[LONG - 1], -n.ln());
    }
    let y = last.watch().mul_scalar(1.0).unwrap().softmax(1, 1.0).unwrap();
    expect("softmax sums to", y.sum(&[1], false).unwrap().item().unwrap(), 1.0);
    let target = Tensor::from_slice(gpu, &[LONG as i32 - 1], [1]).unwrap();
    let loss = row.cross_entropy(&target, 0.1).unwrap();
    expect("cross entropy", loss.item().unwrap(), n.ln());
    expect("cross entropy's gradient", gradient(&row, &loss)[LONG - 1], -0.9);
    expect("distillation_kl", 1.0 + row.distillation_kl(&row, 4.0).unwrap().item().unwrap(), 1.0);
    expect("soft_cross_entropy", row.soft_cross_entropy(&row.softmax(1, 1.0).unwrap()).unwrap().item().unwrap(), n.ln());
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
    let y = image.conv2d(&kernel, None, &Conv2dOptions::default()).unwrap();
    expect("conv2d's weight gradient", gradient(&kernel, &y)[0], pixels);
    let taps = ones(gpu, &[3, 3, 4]).watch();
    let options = DepthwiseConv2dOptions { padding: 1.into(), ..Default::default() };
    let y = image.depthwise_conv2d(&taps, None, &options).unwrap();
    expect("depthwise_conv2d's weight gradient", gradient(&taps, &y)[16], pixels);
    let (gamma, beta) = (ones(gpu, &[4]).watch(), Tensor::zeros(gpu, [4], DType::F32).unwrap().watch());
    let (mean, var) = (Tensor::zeros(gpu, [4], DType::F32).unwrap(), ones(gpu, &[4]));
    let options = BatchNormOptions { momentum: 1.0, ..Default::default() };
    let y = image.batch_norm(&gamma, &beta, &mean, &var, &options, None).unwrap();
    expect("batch_norm's mean", mean.to_vec::<f32>().unwrap()[2], 1.0);
    expect("batch_norm's bias gradient", gradient(&beta, &y)[2], pixels);
    expect("group_norm", 1.0 + image.group_norm(1, &gamma, &beta, 1e-5).unwrap().to_vec::<f32>().unwrap()[5], 1.0);

    let window = wgrad::ops::pooling::Window::square(side, side, 0);
    let pooled = image.avg_pool2d(window, true);
    // Here a window is one walk: right, or refused where the driver would cut it short.
    match pooled {
        Ok(y) => expect("avg_pool2d", y.to_vec::<f32>().unwrap()[3], 1.0),
        Err(error) => assert!(matches!(&error, wgrad::error::Error::Limit { message, .. } if message.contains("313600 rounds")), "{error}"),
    }

    let labels = Tensor::from_slice(gpu, &vec![0i32; LONG], [LONG]).unwrap();
    let logits = Tensor::zeros(gpu, [LONG, 2], DType::F32).unwrap();
    expect("cross entropy over rows", logits.cross_entropy(&labels, 0.0).unwrap().item().unwrap(), 2f32.ln());
    wrong
}

#[test]
fn no_kernel_walks_further_than_a_loop_may() {
    for (schedule, gpu) in gpus() {
        let wrong = check(&gpu);
        assert!(wrong.is_empty(), "schedule {schedule}:\n{}", wrong.join("\n"));
    }
}
