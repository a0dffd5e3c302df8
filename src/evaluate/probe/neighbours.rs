//! Nearest neighbours: a vote of the labelled rows that are closest by cosine, weighted by
//! exp(cosine / T) (Wu et al. 2018, arXiv:1805.01978).

use std::str::FromStr;

use super::features::Features;
use super::linear::share_right;
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// How nearest neighbours vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbours {
    /// How many, or all rows where there are fewer.
    pub k: usize,
    /// T: the smaller, the more the closest counts.
    pub temperature: f32,
}

impl Neighbours {
    /// DINO's (Caron et al. 2021).
    pub const DINO: Self = Self { k: 20, temperature: 0.07 };
    /// Those of MoCo's CIFAR notebook, and of Wu et al.: for many labels.
    pub const MOCO: Self = Self { k: 200, temperature: 0.1 };

    /// The part of `judged` rows whose label gets most of the votes of the `labelled` ones. Of
    /// equally close rows the first count, of classes with equal votes the first wins.
    ///
    /// # Errors
    /// Rows of different widths; out of memory.
    pub fn accuracy(
        &self,
        gpu: &Gpu,
        (labelled, labels): (&Features, &[i32]),
        (judged, truth): (&Features, &[i32]),
        classes: usize,
    ) -> Result<f64> {
        let mut votes = vec![0.0f32; judged.len() * classes];
        let mut rows = votes.chunks_exact_mut(classes.max(1));
        judged.cosines(gpu, labelled, |_, cosines| {
            let Some(votes) = rows.next() else { return };
            let nearest = nearest(cosines, self.k);
            let top = nearest.first().map_or(0.0, |(cosine, _)| *cosine);
            for (cosine, place) in nearest {
                let label = labels.get(place).and_then(|label| usize::try_from(*label).ok());
                if let Some(vote) = label.and_then(|label| votes.get_mut(label)) {
                    // Less the largest, so that no temperature overflows.
                    *vote += ((cosine - top) / self.temperature).exp();
                }
            }
        })?;
        Ok(share_right(&votes, truth))
    }
}

/// The `k` largest values and their places, or all where there are fewer: the largest first, and of
/// equal ones the first.
fn nearest(values: &[f32], k: usize) -> Vec<(f32, usize)> {
    let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let mut rest: Vec<(f32, usize)> = values.iter().copied().zip(0..).collect();
    if k < rest.len() {
        rest.select_nth_unstable_by(k, order);
        rest.truncate(k);
    }
    rest.sort_unstable_by(order);
    rest
}

impl FromStr for Neighbours {
    type Err = Error;

    /// `dino`, `moco` or `K:T`.
    fn from_str(text: &str) -> Result<Self> {
        let own = |text: &str| {
            let (k, temperature) = text.split_once(':')?;
            Some(Self { k: k.parse().ok()?, temperature: temperature.parse().ok()? })
                .filter(|n| n.k > 0 && n.temperature > 0.0 && n.temperature.is_finite())
        };
        match text {
            "dino" => Ok(Self::DINO),
            "moco" => Ok(Self::MOCO),
            _ => own(text)
                .ok_or_else(|| Error::argument("neighbours", format!("expected dino, moco or K:T such as 20:0.07, found \"{text}\""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_the_largest_and_of_equal_ones_the_first() {
        let values = [0.5, 0.9, 0.5, -1.0, 0.9, 0.5];
        let places = |k| nearest(&values, k).into_iter().map(|(_, place)| place).collect::<Vec<_>>();
        assert_eq!(places(3), [1, 4, 0]);
        assert_eq!(places(4), [1, 4, 0, 2]);
        assert_eq!(places(60), [1, 4, 0, 2, 5, 3]);
        assert!(places(0).is_empty() && nearest(&[], 3).is_empty());
    }

    #[test]
    fn neighbours_are_read_from_text() {
        for (text, expected) in [("dino", Some((20, 0.07))), ("moco", Some((200, 0.1))), ("5:0.5", Some((5, 0.5)))] {
            assert_eq!(text.parse::<Neighbours>().ok().map(|n| (n.k, n.temperature)), expected);
        }
        for bad in ["", "5", "0:0.1", "5:0", "5:-1", "5:inf", "5:NaN", "5:x", "simclr"] {
            let message = bad.parse::<Neighbours>().unwrap_err().to_string();
            assert!(message.contains("K:T") && message.contains(&format!("\"{bad}\"")), "{message}");
        }
    }
}
