//! When what is watched means that a run has collapsed: which kind, how sure, and what is likely to
//! be wrong. Judged by figures alone, never by what a recipe says, and only where they last.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::watch::Diagnostics;

/// Steps before embeddings and teachers are judged: networks begin with embeddings that all point
/// much the same way.
const WARM_UP: u64 = 100;
/// Looks in a row that must agree.
const LOOKS: u32 = 5;
/// [`Diagnostics::std`] below which directions are one.
const LEAST_STD: f64 = 0.1;
/// [`Diagnostics::effective_rank`] below which embeddings lie in a line, though batch norm may keep
/// their deviation up (SimSiam without stop-gradient: about 2); where there are few features, a
/// quarter of what there could be.
const LEAST_RANK: f64 = 2.5;
/// The share of ln K from which a teacher's entropy is that of one that knows nothing, if the loss
/// is as near.
const UNIFORM: f64 = 0.99;
/// [`Diagnostics::teacher_usage`] below which a teacher says much the same of all images: of 256
/// outputs it uses three. Without centring DINO has
/// 0.11 on the bundled images, with it 0.57 and more.
const LEAST_USAGE: f64 = 0.2;
/// [`Diagnostics::queue_drift`] above which queries tell keys by their age alone. Healthy runs have
/// up to 0.85 while a queue is young, and less later; without momentum it is 0.94 to 1.
const MOST_DRIFT: f64 = 0.92;

/// How a run can collapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collapse {
    /// All images have one embedding, or embeddings fill a line.
    Dimensional,
    /// The teacher gives all classes the same probability, and the student follows.
    UniformTeacher,
    /// The teacher gives all images the same class, or a few.
    ConstantTeacher,
    /// Keys in the queue are not comparable with those of today: embeddings are a moving point, and
    /// queries tell keys by their age, not by what is in the image. It is what becomes of MoCo
    /// without momentum, and soon of its embeddings, too, because one point satisfies it.
    InconsistentQueue,
}

impl Collapse {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Dimensional, Self::UniformTeacher, Self::ConstantTeacher, Self::InconsistentQueue];

    /// Whether one look shows it.
    pub fn shows(self, figures: &Diagnostics) -> bool {
        let below = |value: Option<f64>, least: f64| value.is_some_and(|v| v < least);
        match self {
            Self::Dimensional => {
                let least_rank = figures.full_rank.map_or(0.0, |full| LEAST_RANK.min(full as f64 / 4.0));
                below(figures.std, LEAST_STD) || below(figures.effective_rank, least_rank)
            }
            Self::UniformTeacher => match (figures.teacher_entropy, figures.teacher_entropy_share, figures.teacher_divergence) {
                // The loss is the entropy and the divergence.
                (Some(entropy), Some(share), Some(divergence)) => share > UNIFORM && divergence < (1.0 - UNIFORM) * entropy,
                _ => false,
            },
            Self::ConstantTeacher => below(figures.teacher_usage, LEAST_USAGE),
            Self::InconsistentQueue => figures.queue_drift.is_some_and(|drift| drift > MOST_DRIFT),
        }
    }

    fn says(self, figures: &Diagnostics) -> String {
        let show = |value: Option<f64>| value.map_or("none".into(), |v| format!("{v:.3}"));
        match self {
            Self::Dimensional => format!(
                "the embeddings have collapsed: their standard deviation is {} of an even spread's, their effective rank {}",
                show(figures.std),
                show(figures.effective_rank)
            ),
            Self::UniformTeacher => format!(
                "the teacher has become uniform: its entropy is {} nats, {} of the most that there is, and the loss is no further",
                show(figures.teacher_entropy),
                show(figures.teacher_entropy_share)
            ),
            Self::ConstantTeacher => format!(
                "the teacher says much the same of all images: the entropy of its mean answer is {} of the most that there is",
                show(figures.teacher_usage)
            ),
            Self::InconsistentQueue => format!(
                "the queue's keys are not those of today's network: queries have a mean cosine of {} with their keys, of {} with those of other \
                 images of the batch, and of {} with the queue's",
                show(figures.positive_similarity),
                show(figures.negative_similarity),
                show(figures.queue_similarity)
            ),
        }
    }
}

/// What is said, once a run for each kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// After so many steps.
    pub step: u64,
    /// What has happened.
    pub collapse: Collapse,
    /// With figures, and what is likely to be wrong.
    pub message: String,
}

impl Event {
    /// As an object whose `kind` is `alarm`.
    pub fn to_json(&self) -> Value {
        json!({ "kind": "alarm", "step": self.step, "collapse": self.collapse, "message": self.message })
    }
}

/// Looks in a row that showed each kind, and which were said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Alarm {
    looks: [u32; Collapse::ALL.len()],
    said: Vec<Collapse>,
}

impl Alarm {
    /// Judges the figures after `step`. `collapse_hint` is what a method thinks is likely to be
    /// wrong.
    pub fn judge(&mut self, step: u64, figures: &Diagnostics, collapse_hint: &str) -> Vec<Event> {
        let age = figures.queue_age.unwrap_or(0.0);
        let mut events = Vec::new();
        for (collapse, looks) in Collapse::ALL.into_iter().zip(&mut self.looks) {
            // A queue begins as random directions; a long one takes long to be filled.
            let begin = if collapse == Collapse::InconsistentQueue { age as u64 } else { WARM_UP };
            *looks = if step > begin && collapse.shows(figures) { *looks + 1 } else { 0 };
            if *looks >= LOOKS && !self.said.contains(&collapse) {
                self.said.push(collapse);
                events.push(Event { step, collapse, message: format!("{}; {collapse_hint}", collapse.says(figures)) });
            }
        }
        events
    }

    /// What was said so far.
    pub fn said(&self) -> &[Collapse] {
        &self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(std: f64) -> Diagnostics {
        Diagnostics { std: Some(std), ..Default::default() }
    }

    #[test]
    fn it_is_said_once_and_only_where_it_lasts() {
        let mut alarm = Alarm::default();
        let mut judge = |step, std| alarm.judge(step, &figures(std), "advice").len();
        assert!((0..=5).all(|look| judge(20 * look, 0.0) == 0), "the first steps are not judged");
        assert!((6..10).all(|look| judge(20 * look, 0.0) == 0));
        assert_eq!(judge(200, 1.0), 0, "it was better in between");
        assert!((11..15).all(|look| judge(20 * look, 0.0) == 0));
        assert_eq!(judge(300, 0.0), 1);
        assert!((16..40).all(|look| judge(20 * look, 0.0) == 0));
        assert_eq!(alarm.said(), [Collapse::Dimensional]);
    }

    #[test]
    fn it_waits_until_a_queue_has_been_filled() {
        let drifting =
            |age| Diagnostics { negative_similarity: Some(0.9), queue_drift: Some(0.96), queue_age: Some(age), ..Default::default() };
        for (age, expected) in [(8.0, 100), (100.0, 200)] {
            let mut alarm = Alarm::default();
            let events: Vec<Event> = (1..40).flat_map(|look| alarm.judge(20 * look, &drifting(age), "raise the momentum")).collect();
            let [event] = events.as_slice() else { panic!("{events:?}") };
            assert_eq!((event.step, event.collapse), (expected, Collapse::InconsistentQueue));
            assert!(event.message.contains("0.900") && event.message.ends_with("raise the momentum"), "{}", event.message);
            assert_eq!(event.to_json()["collapse"], "inconsistent_queue");
        }
    }

    #[test]
    fn it_goes_on_from_where_it_was() {
        let mut alarm = Alarm::default();
        (6..9).for_each(|look| drop(alarm.judge(20 * look, &figures(0.0), "")));
        let mut again: Alarm = serde_json::from_str(&serde_json::to_string(&alarm).unwrap()).unwrap();
        assert_eq!(again, alarm);
        assert_eq!([9, 10].map(|look| again.judge(20 * look, &figures(0.0), "").len()), [0, 1]);
    }
}
