//! Methods on logistic regression, whose losses can be written out in float64: the images' own
//! values are the features.

use wgrad::gpu::Gpu;
use wgrad::methods::{Batch, Method, MethodContext, MethodFactory};
use wgrad::models::{Architecture, Backbone, PixelsConfig};
use wgrad::nn::{Mode, Parameters};
use wgrad::tensor::Tensor;
use wgrad::tensor::random::{Purpose, Stream};

/// Values of an image.
pub const PIXELS: usize = 6;

pub type Rows = Vec<Vec<f64>>;

/// `n` images, different for each seed.
pub fn images(seed: u32, n: usize) -> Rows {
    let mut stream = Stream::keyed(seed, Purpose::Test.key(), 0);
    (0..n).map(|_| (0..PIXELS).map(|_| f64::from(stream.normal() * 2.0)).collect()).collect()
}

pub fn tensor(gpu: &Gpu, images: &Rows) -> Tensor {
    let values: Vec<f32> = images.iter().flatten().map(|v| *v as f32).collect();
    Tensor::from_slice(gpu, &values, [images.len(), 1, 1, PIXELS]).unwrap()
}

pub fn build(params: &Parameters) -> wgrad::error::Result<Box<dyn Backbone>> {
    PixelsConfig { features: PIXELS }.build(params)
}

pub fn make<M: MethodFactory>(gpu: &Gpu, config: M::Config, setting: &MethodContext) -> (Parameters, M) {
    let params = Parameters::new(gpu, 3);
    let method = M::new(&params, &build, config, setting).unwrap_or_else(|e| panic!("{e}"));
    method.begin().unwrap();
    (params, method)
}

/// Views of images that have the places 0, 1, .. in the data set.
pub fn batch(gpu: &Gpu, views: &[&Rows], labels: &[i32]) -> Batch {
    let indices: Vec<i32> = (0..labels.len() as i32).collect();
    Batch {
        views: views.iter().map(|view| tensor(gpu, view)).collect(),
        labels: Tensor::from_slice(gpu, labels, [labels.len()]).unwrap(),
        indices: Tensor::from_slice(gpu, &indices, [labels.len()]).unwrap(),
        epoch: 0.into(),
    }
}

/// What the classifier in `params` says of images.
pub fn logits(params: &Parameters, images: &Rows) -> Rows {
    let of = |name: &str| params.get(&format!("classifier.{name}")).unwrap().detach().unwrap().to_f64().unwrap();
    let (weight, bias) = (of("weight"), of("bias"));
    let row = |x: &Vec<f64>| {
        let dot = |w: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        weight.chunks(PIXELS).zip(&bias).map(|(w, b)| dot(w) + b).collect()
    };
    images.iter().map(row).collect()
}

pub fn log_softmax(z: &[f64]) -> Vec<f64> {
    let top = z.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
    let sum = top + z.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
    z.iter().map(|v| v - sum).collect()
}

pub fn softmax(z: &[f64]) -> Vec<f64> {
    log_softmax(z).iter().map(|v| v.exp()).collect()
}

pub fn argmax(z: &[f64]) -> usize {
    (0..z.len()).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap()
}

pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The mean of -log p of the known labels.
pub fn known(logits: &Rows, labels: &[i32]) -> f64 {
    let rows = logits.iter().zip(labels).filter(|(_, label)| **label >= 0);
    mean(&rows.map(|(z, label)| -log_softmax(z)[*label as usize]).collect::<Vec<_>>())
}

/// The gradient of the classifier's bias.
pub fn bias_gradient(params: &Parameters, method: &dyn Method, batch: &Batch) -> Vec<f64> {
    let gradients = method.loss(batch).unwrap().loss.backward().unwrap();
    let bias = params.get("classifier.bias").unwrap().tensor(Mode::Train).unwrap();
    gradients.get(&bias).unwrap().to_f64().unwrap()
}

/// The loss and the gradient of the bias are those of `expected`, of the student's logits on the
/// first view, or, of several, on each.
pub fn check(
    what: &str,
    gpu: &Gpu,
    params: &Parameters,
    method: &dyn Method,
    views: &[&Rows],
    labels: &[i32],
    expected: impl Fn(&[Rows]) -> f64,
) {
    let batch = batch(gpu, views, labels);
    let said: Vec<Rows> = views.iter().map(|view| logits(params, view)).collect();
    let (found, want) = (f64::from(method.loss(&batch).unwrap().loss.item().unwrap()), expected(&said));
    assert!((found - want).abs() < 1e-5 * want.abs().max(1.0), "{what}: {found}, expected {want}");
    for (class, found) in bias_gradient(params, method, &batch).into_iter().enumerate() {
        let moved = |by: f64| -> Vec<Rows> {
            let row = |z: &Vec<f64>| z.iter().enumerate().map(|(c, z)| if c == class { z + by } else { *z }).collect();
            said.iter().map(|view| view.iter().map(row).collect()).collect()
        };
        let want = (expected(&moved(1e-5)) - expected(&moved(-1e-5))) / 2e-5;
        assert!((found - want).abs() < 1e-5 * want.abs().max(1.0), "{what}, class {class}: gradient {found}, expected {want}");
    }
}
