//! k-means (Lloyd 1982) from k-means++ seeds (Arthur and Vassilvitskii 2007).

use super::Rows;
use crate::error::{Error, Result};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::random::{Purpose, Stream};
use crate::tensor::{DType, Spec, Tensor};

/// How features are clustered; scikit-learn's names and defaults, with its earlier `n_init`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansOptions {
    /// Clusters.
    pub n_clusters: usize,
    /// Decides the seeds.
    pub seed: u32,
    /// Choices of seeds; the clusters of least inertia are kept.
    pub n_init: u32,
    /// Most steps from each.
    pub max_iter: usize,
}

impl Default for KMeansOptions {
    fn default() -> Self {
        Self { n_clusters: 8, seed: 0, n_init: 10, max_iter: 300 }
    }
}

/// Clusters.
#[derive(Debug, Clone)]
pub struct KMeans {
    /// The cluster of each row.
    pub labels: Vec<i32>,
    /// Their means [K, D]. A cluster that lost all its rows stays where it was.
    pub cluster_centers: Tensor,
    /// The sum of the rows' squared distances to the mean of their cluster.
    pub inertia: f64,
    /// That of one cluster: 1 - inertia / total is the part of the variance that clusters explain.
    pub total: f64,
    /// Steps until nothing changed.
    pub iterations: usize,
}

/// Clusters the rows of `x` [N, D].
///
/// # Errors
/// Other than f32 [N, D] with N > 1, what is not finite, no clusters or more than rows.
pub fn kmeans(x: &Tensor, options: &KMeansOptions) -> Result<KMeans> {
    let rows = Rows::new("k-means", x)?;
    if !(1..=rows.count()).contains(&options.n_clusters) || options.n_init == 0 || options.max_iter == 0 {
        let (n, KMeansOptions { n_clusters, n_init, max_iter, .. }) = (rows.count(), options);
        let message =
            format!("expected 1 to {n} clusters of {n} rows, found {n_clusters}, in {max_iter} steps from {n_init} choices of seeds");
        return Err(Error::argument("k-means", message));
    }
    Spec::f32([options.n_clusters; 2]).check_room("k-means", x.gpu())?;
    let mut best = lloyd(&rows, options, 0)?;
    for choice in 1..options.n_init {
        let found = lloyd(&rows, options, choice)?;
        if found.inertia < best.inertia {
            best = found;
        }
    }
    best.cluster_centers = best.cluster_centers.add(&rows.mean)?;
    Ok(best)
}

/// Rows [K, D] far from each other: each is drawn in proportion to its squared distance to the
/// nearest before it. The largest of log(weight) + Gumbel noise is such a draw, so nothing is read
/// back.
fn seeds(rows: &Rows, options: &KMeansOptions, choice: u32) -> Result<Tensor> {
    let mut stream = Stream::keyed(options.seed, Purpose::Cluster.key(), choice);
    let mut nearest = Tensor::full(rows.rows.gpu(), [rows.count()], 1.0, DType::F32)?;
    let mut chosen = Vec::with_capacity(options.n_clusters);
    for turn in 0..options.n_clusters {
        let noise: Vec<f32> = (0..rows.count())
            .map(|_| {
                let uniform = (f64::from(stream.next_u32()) + 0.5) / 4_294_967_296.0;
                -(-uniform.ln()).ln() as f32
            })
            .collect();
        let noise = Tensor::from_slice(rows.rows.gpu(), &noise, [rows.count()])?;
        let drawn = fuse([&nearest, &noise], |[weight, noise]| weight.maximum(1e-30).map("log") + noise)?.argmax(0)?.reshape(&[1])?;
        let seed = rows.rows.index_select(0, &drawn)?;
        let distance = rows.distances(&seed, &rows.squares.index_select(0, &drawn)?)?.reshape(&[-1])?;
        nearest = if turn == 0 { distance } else { nearest.minimum(&distance)? };
        chosen.push(seed);
    }
    Tensor::concat(&chosen.iter().collect::<Vec<_>>(), 0)
}

fn lloyd(rows: &Rows, options: &KMeansOptions, choice: u32) -> Result<KMeans> {
    let k = options.n_clusters;
    let unit: Vec<f32> = (0..k * k).map(|i| f32::from(u8::from(i / k == i % k))).collect();
    let unit = Tensor::from_slice(rows.rows.gpu(), &unit, [k, k])?;
    let mut centers = seeds(rows, options, choice)?;
    let mut labels = Vec::new();
    let mut iterations = 0;
    loop {
        // The nearest centre c of x has the largest 2 x.c - c.c, and a squared distance of x.x less
        // that.
        let squares = centers.square()?.sum(&[1], false)?.reshape(&[1, -1])?;
        let scores = fuse([&rows.rows.matmul_nt(&centers)?, &squares], |[xc, cc]| xc * 2.0 - cc)?;
        let nearest = scores.argmax(1)?;
        let found = nearest.to_vec::<i32>()?;
        if found == labels || iterations == options.max_iter {
            let distances = fuse([&rows.squares, &scores.max(&[1], false)?], |[x, score]| (x - score).relu())?;
            let sum = |values: &Tensor| Ok::<_, Error>(values.to_f64()?.iter().sum::<f64>());
            return Ok(KMeans {
                labels: found,
                cluster_centers: centers,
                inertia: sum(&distances)?,
                total: sum(&rows.squares)?,
                iterations,
            });
        }
        labels = found;
        iterations += 1;
        let members = unit.embedding(&nearest)?;
        let (sums, counts) = (members.matmul_tn(&rows.rows)?, members.sum(&[0], false)?.reshape(&[-1, 1])?);
        centers = fuse([&sums, &counts, &centers], |[sum, count, old]| {
            let empty = (count.clone() * -1.0 + 1.0).relu();
            (sum + old * empty) / count.maximum(1.0)
        })?;
    }
}
