//! t-SNE's probabilities that two points are neighbours (van der Maaten and Hinton 2008).

use super::{square, width};
use crate::error::{Error, Result};
use crate::gpu::{Launch, rounds};
use crate::ops::entry::{Entry, kernels};
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Cost, Edges, Operator, Tolerance, apply_one, exactly};
use crate::params;
use crate::tensor::random::{Purpose, Stream};
use crate::tensor::{DType, Spec, Tensor};

const NAME: &str = "joint_probabilities";
kernels!(KERNEL = "manifold/joint_probabilities");
/// Steps of bisection: doublings to a bound, and then a bit of the result each.
const STEPS: usize = 60;

/// y_ij = (P_j|i + P_i|j) / 2N for squared distances d [N, N]: P_j|i falls with d_ij as a Gaussian
/// does, whose width gives each point `perplexity` neighbours.
#[derive(Debug, Clone)]
pub struct JointProbabilities {
    /// The exponential of each P_.|i's entropy.
    pub perplexity: f32,
}

impl Operator for JointProbabilities {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [d] = exactly(NAME, inputs)?;
        let n = square(NAME, "d", d)?;
        if !(1.0..=(n - 1) as f32).contains(&self.perplexity) {
            let message = format!("perplexity must lie in 1..={}, the number of other points; found {}", n - 1, self.perplexity);
            return Err(Error::argument(NAME, message));
        }
        Ok(vec![d.clone()])
    }

    fn forward(&self, inputs: &[&Tensor], outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let ([d], [spec]) = (*exactly(NAME, inputs)?, exactly(NAME, outputs)?);
        let (gpu, n) = (d.gpu(), spec.shape.dim(0));
        let y = Tensor::empty(gpu, &spec.shape, DType::F32)?;
        let state = Tensor::empty(gpu, [6, n], DType::F32)?;
        let vec = width(n);
        let launch = |entry: &str, count: usize| {
            Launch::new(gpu, &KERNEL, entry)
                .define("VEC", vec)
                .read(d)
                .write(&state)
                .write(&y)
                .params(params![n, self.perplexity.ln()])
                .walk(rounds(n, 0))
                .invocations(count / vec)
        };
        launch("begin", n)?;
        (0..STEPS).try_for_each(|_| launch("search", n))?;
        launch("join", n * n)?;
        Ok(vec![y])
    }

    fn edges(&self, _: usize) -> Edges {
        Edges::Nan
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [d] = exactly(NAME, inputs)?;
        let n = d.shape.dim(0);
        let entropy = f64::from(self.perplexity).ln();
        let column = |i: usize| (0..n).map(|j| d.at(&[j, i])).collect::<Vec<f64>>();
        let conditional: Vec<Vec<f64>> = (0..n)
            .map(|i| (i, column(i)))
            .map(|(i, row)| {
                let others = || row.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, d)| *d);
                let nearest = others().fold(f64::INFINITY, f64::min);
                let weight = |b: f64, d: f64| (-b * (d - nearest)).exp();
                let (mut low, mut high) = (0.0f64, 1e12f64);
                for _ in 0..200 {
                    // Halving the exponent first, which spans many decades.
                    let b = if low == 0.0 || high / low > 4.0 { (low.max(1e-12) * high).sqrt() } else { 0.5 * (low + high) };
                    let z: f64 = others().map(|d| weight(b, d)).sum();
                    let mean = others().map(|d| weight(b, d) * (d - nearest)).sum::<f64>() / z;
                    *(if z.ln() + b * mean > entropy { &mut low } else { &mut high }) = b;
                }
                let z: f64 = others().map(|d| weight(low, d)).sum();
                row.iter().enumerate().map(|(j, d)| if j == i { 0.0 } else { weight(low, *d) / z }).collect()
            })
            .collect();
        let at = |i: usize, j: usize| conditional.get(i).and_then(|row| row.get(j)).copied().unwrap_or(f64::NAN);
        Ok(vec![Array::new([n, n], (0..n * n).map(|k| (at(k / n, k % n) + at(k % n, k / n)) / (2 * n) as f64).collect())])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance { absolute: 1e-8, relative: 5e-4, reason: "elements are about 1/N^2, and f32 entropies decide the widths" }
    }

    fn cost(&self, inputs: &[Spec], outputs: &[Spec]) -> Cost {
        Cost::streaming(inputs, outputs, 8.0 * STEPS as f64)
    }
}

/// Squared distances between `n` random points of three features.
pub(super) fn distances(n: usize) -> Array {
    let mut stream = Stream::new(7, Purpose::Test);
    let points: Vec<[f64; 3]> = (0..n).map(|_| [(); 3].map(|()| f64::from(stream.normal()))).collect();
    let between = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    Array::new([n, n], points.iter().flat_map(|a| points.iter().map(|b| f64::from(between(a, b) as f32)).collect::<Vec<_>>()).collect())
}

fn samples() -> Vec<Sample> {
    let on = |n: usize, perplexity: f32, scale: f64| {
        Sample::new(JointProbabilities { perplexity }, [Input::Values(distances(n).map(|d| f64::from((d * scale) as f32)))])
    };
    // All distances alike: every width will do.
    let alike = Sample::new(JointProbabilities { perplexity: 2.0 }, [Input::Values(Array::new([5, 5], vec![1.0; 25]))]);
    vec![
        on(3, 1.5, 1.0),
        on(5, 2.0, 1.0),
        on(7, 5.5, 1e-4),
        on(33, 5.0, 1e4),
        on(64, 20.0, 1.0),
        on(65, 30.0, 1.0),
        on(130, 30.0, 1.0),
        alike,
    ]
}

fn bad() -> Vec<Bad> {
    let of = |perplexity: f32| JointProbabilities { perplexity };
    vec![
        Bad::new(of(2.0), [normal([5, 4])], "d [5, 4] must be [N, N]"),
        Bad::new(of(2.0), [indices([5, 5], 2)], "must be f32"),
        Bad::new(of(30.0), [normal([5, 5])], "perplexity must lie in 1..=4, the number of other points; found 30"),
        Bad::new(of(f32::NAN), [normal([5, 5])], "found NaN"),
    ]
}

/// The operator's line of the registry.
pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["d"],
        outputs: &["y"],
        kernels: &[KERNELS],
        build: Box::new(|a| Ok(Box::new(JointProbabilities { perplexity: a.number_or("perplexity", 30.0)? as f32 }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// t-SNE's joint probabilities [N, N] of squared distances [N, N], which must be symmetric: 0
    /// on the diagonal, of sum 1 (van der Maaten and Hinton 2008). `perplexity` is about the number
    /// of neighbours that a point has.
    ///
    /// # Errors
    /// Other than a square matrix of f32; a perplexity below 1 or above N - 1; out of memory.
    pub fn joint_probabilities(&self, perplexity: f32) -> Result<Tensor> {
        apply_one(JointProbabilities { perplexity }, &[self])
    }
}
