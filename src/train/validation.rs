//! What a run is told of images that it does not learn from.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::Archive;
use crate::methods::TrainedNetwork;

/// How good a network is on images that it has not learnt from.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The share of images that is right: what is compared from one epoch to the next.
    pub score: f64,
    /// All that was found, by name: `top_1`, `top_5` and `loss` of a classifier, `knn` of features.
    pub figures: Vec<(&'static str, f64)>,
}

impl Verdict {
    /// In a few words.
    pub fn to_text(&self) -> String {
        let word = |(name, value): &(&str, f64)| match *name {
            "loss" => format!("loss {value:.4}"),
            name => format!("{} {:.2} %", name.replace('_', "-"), value * 100.0),
        };
        self.figures.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

/// Who judges the network of a run, which goes on as if nobody had.
pub trait Validator: Send {
    /// Judges `network`, on `gpu`, as it is, and with the weights `averaged`, where a run has these.
    ///
    /// # Errors
    /// Those of the network; outputs that are not finite.
    fn judge(&mut self, gpu: &Gpu, network: TrainedNetwork, averaged: Option<Archive>) -> Result<(Verdict, Option<Verdict>)>;
}

/// What was found behind an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Steps taken so far.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: u32,
    /// Of the weights that are trained.
    pub now: Verdict,
    /// Of their average, which is what the run leaves.
    pub averaged: Option<Verdict>,
}

impl Look {
    /// That of the weights that the run leaves.
    pub fn score(&self) -> f64 {
        self.averaged.as_ref().unwrap_or(&self.now).score
    }

    /// As a line of the metrics, whose `kind` is `validation`; `best` says whether it is the best so
    /// far. Figures of averaged weights have names that begin with `averaged_`.
    pub fn to_json(&self, best: bool) -> Value {
        let mut line = json!({ "kind": "validation", "step": self.step, "epoch": self.epoch, "best": best });
        if let Some(fields) = line.as_object_mut() {
            fields.extend(self.now.figures.iter().map(|(name, value)| (name.to_string(), json!(value))));
            let averaged = self.averaged.iter().flat_map(|averaged| &averaged.figures);
            fields.extend(averaged.map(|(name, value)| (format!("averaged_{name}"), json!(value))));
        }
        line
    }
}

/// What all looks together have said.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Looks {
    /// The epoch of the best one, from 1; 0 where there was none.
    pub epoch: u32,
    /// Its score.
    pub score: f64,
    /// How many looks since then were no better.
    pub worse: u32,
}

impl Looks {
    /// Adds one; says whether it is better by more than `min_delta`.
    pub fn add(&mut self, look: &Look, min_delta: f64) -> bool {
        let better = self.epoch == 0 || look.score() > self.score + min_delta;
        *self = match better {
            true => Self { epoch: look.epoch, score: look.score(), worse: 0 },
            false => Self { worse: self.worse + 1, ..*self },
        };
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_look_is_that_of_the_weights_that_are_kept() {
        let verdict = |score| Verdict { score, figures: vec![("top_1", score), ("loss", 0.5)] };
        let look = |epoch, now, averaged: Option<f64>| Look { step: 7, epoch, now: verdict(now), averaged: averaged.map(verdict) };
        let mut looks = Looks::default();
        assert!(looks.add(&look(1, 0.9, Some(0.0)), 0.0), "the first is the best, however bad");
        assert!(looks.add(&look(2, 0.1, Some(0.5)), 0.01));
        assert!(!looks.add(&look(3, 0.9, Some(0.505)), 0.01) && !looks.add(&look(4, 0.9, Some(0.4)), 0.01));
        assert_eq!(looks, Looks { epoch: 2, score: 0.5, worse: 2 });
        let line = look(4, 0.25, Some(0.4)).to_json(false);
        let expected = json!({ "kind": "validation", "step": 7, "epoch": 4, "best": false, "top_1": 0.25, "loss": 0.5, "averaged_top_1": 0.4, "averaged_loss": 0.5 });
        assert_eq!(line, expected);
        assert_eq!(verdict(0.125).to_text(), "top-1 12.50 %, loss 0.5000");
    }
}
