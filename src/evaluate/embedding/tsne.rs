//! t-SNE (van der Maaten and Hinton 2008), exact: every pair of points in every step, as
//! scikit-learn's `method="exact"`.

use super::Rows;
use super::pca::pca;
use crate::error::{Error, Result};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::{DType, Tensor};

/// Steps with exaggerated attraction, unless there are fewer than twice as many.
const EARLY: usize = 250;
/// How much it is exaggerated.
const EXAGGERATION: f32 = 12.0;
/// Steps between two looks at the divergence.
const LOOK: usize = 50;

/// How features are laid out; scikit-learn's names and defaults, PCA's first two coordinates to
/// begin with, and its learning rate max(N / 48, 50).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TsneOptions {
    /// About the number of neighbours that a point has.
    pub perplexity: f32,
    /// Steps; the first 250 (half of them, where there are fewer than 500) exaggerate attraction.
    pub max_iter: usize,
}

impl Default for TsneOptions {
    fn default() -> Self {
        Self { perplexity: 30.0, max_iter: 1000 }
    }
}

/// Where points came to lie.
#[derive(Debug, Clone)]
pub struct Tsne {
    /// [N, 2]
    pub embedding: Tensor,
    /// The Kullback-Leibler divergence of neighbours there from neighbours in the features.
    pub kl_divergence: f64,
    /// That after every 50 steps, without exaggeration.
    pub history: Vec<(usize, f64)>,
}

/// Lays out the rows of `x` [N, D] on a plane. Steps are steepest descent with momentum (0.5, and
/// 0.8 after the exaggeration) and gains (Jacobs 1988). The same features give the same bits.
///
/// # Errors
/// Other than f32 [N, D] with N > 1, what is not finite, a perplexity below 1 or above N - 1, no
/// steps; more rows than a binding holds their distances.
pub fn tsne(x: &Tensor, options: &TsneOptions) -> Result<Tsne> {
    let rows = Rows::new("t-SNE", x)?;
    check(&rows, options)?;
    let q = rows.distances(&rows.rows, &rows.squares)?.joint_probabilities(options.perplexity)?;
    let entropy = fuse([&q], |[q]| q.clone() * q.maximum(1e-37).map("log"))?.sum(&[], false)?;
    let mut y = beginning(x)?;
    let rate = (rows.count() as f32 / EXAGGERATION / 4.0).max(50.0);
    let early = EARLY.min(options.max_iter / 2);
    let mut history = Vec::new();
    for (steps, exaggeration, momentum) in [(1..=early, EXAGGERATION, 0.5), (early + 1..=options.max_iter, 1.0, 0.8)] {
        let mut gains = Tensor::full(y.gpu(), y.shape(), 1.0, DType::F32)?;
        let mut update = Tensor::full(y.gpu(), y.shape(), 0.0, DType::F32)?;
        for step in steps {
            let (_, gradient) = y.tsne_loss(&q, exaggeration)?;
            // A gain grows by 0.2 where gradient and last update point apart, and else shrinks by a
            // fifth.
            gains = fuse([&update, &gradient, &gains], |[update, gradient, gain]| {
                let apart = (update * gradient * -1e30).relu().minimum(1.0);
                (gain.clone() * 0.8 + apart * (gain * 0.2 + 0.2)).maximum(0.01)
            })?;
            update = fuse([&update, &gradient, &gains], |[update, gradient, gain]| update * momentum - gradient * gain * rate)?;
            y = y.add(&update)?;
            if step % LOOK == 0 || step == options.max_iter {
                history.push((step, f64::from(y.tsne_loss(&q, 1.0)?.0.add(&entropy)?.item()?)));
            }
        }
    }
    let kl_divergence = history.last().map_or(f64::NAN, |(_, divergence)| *divergence);
    if !kl_divergence.is_finite() {
        return Err(Error::argument(
            "t-SNE",
            "the points flew apart; are there many equal rows? Leave them out, or take another perplexity",
        ));
    }
    Ok(Tsne { embedding: y, kl_divergence, history })
}

fn check(rows: &Rows, options: &TsneOptions) -> Result<()> {
    let (n, perplexity) = (rows.count(), options.perplexity);
    if !(1.0..=(n - 1) as f32).contains(&perplexity) {
        let message = format!(
            "a perplexity of {perplexity} needs it to be at least 1 and more rows than it says, found {n}; lower it, or take more images"
        );
        return Err(Error::argument("t-SNE", message));
    }
    if options.max_iter == 0 {
        return Err(Error::argument("t-SNE", "expected at least 1 step, found 0"));
    }
    let most = (rows.rows.gpu().capabilities().max_binding_bytes / 4).isqrt();
    if n as u64 > most {
        let message = format!("the distances of {n} rows do not fit into a binding of this adapter; take at most {most}");
        return Err(Error::argument("t-SNE", message));
    }
    Ok(())
}

/// The first two principal coordinates, the first with a deviation of 1e-4.
fn beginning(x: &Tensor) -> Result<Tensor> {
    let wide = if x.shape().last() == 1 { x.pad_zeros(&[0, 1])? } else { x.clone() };
    let found = pca(&wide, 2)?;
    let (n, first) = (x.shape().dim(0) as f64, found.explained_variance.first().copied().unwrap_or(0.0));
    let deviation = (first * (n - 1.0) / n).sqrt().max(1e-30);
    found.transform(&wide)?.mul_scalar((1e-4 / deviation) as f32)
}
