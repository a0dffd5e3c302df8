//! Which of several teachers an image belongs to: how well their student tells, and how well the
//! teachers' own sureness does.

use std::sync::Arc;

use crate::data::{Dataset, Loader, PackedBatch};
use crate::error::{Error, Result, require_finite_rows};
use crate::gpu::{Gpu, Pending};
use crate::methods::{Gate, Teacher};
use crate::train::recipe::Recipe;
use crate::train::teachers::networks;

/// Images a step.
const BATCH: usize = 250;

/// What is known of an image's domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Domains {
    /// The part of images for which the student predicts a class of a teacher that knows the true
    /// one.
    pub student: f64,
    /// By energy.
    pub energy: GateScore,
    /// By the largest probability.
    pub probability: GateScore,
}

/// How well a gate tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateScore {
    /// The part of images whose surest teacher knows the true class.
    pub accuracy: f64,
    /// The area under the receiver operating characteristic of each teacher's lead over the surest
    /// other one, for images whose class it knows against all others; its mean over teachers.
    pub auroc: f64,
}

/// The probability that a score of `positive` is larger than one of `negative`, where equal ones
/// count half: the area under the receiver operating characteristic. NaN where there is nothing to
/// compare, or a score is NaN.
pub fn auroc(positive: &[f64], negative: &[f64]) -> f64 {
    if positive.iter().chain(negative).any(|score| score.is_nan()) {
        return f64::NAN;
    }
    let mut all: Vec<(f64, bool)> = positive.iter().map(|v| (*v, true)).chain(negative.iter().map(|v| (*v, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut won) = (0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let ours = equal.iter().filter(|(_, positive)| *positive).count() as f64;
        let theirs = equal.len() as f64 - ours;
        won += ours * (below + theirs / 2.0);
        below += theirs;
    }
    won / (positive.len() as f64 * negative.len() as f64)
}

/// How well scores tell, `scores[teacher][image]`, where `knows[teacher][image]`.
pub fn gate_score(scores: &[Vec<f64>], knows: &[Vec<bool>]) -> GateScore {
    let score = |teacher: usize, image: usize| scores.get(teacher).and_then(|s| s.get(image)).copied().unwrap_or(f64::NAN);
    let knows = |teacher: usize, image: usize| knows.get(teacher).and_then(|k| k.get(image)).copied().unwrap_or(false);
    let (teachers, images) = (scores.len(), scores.first().map_or(0, Vec::len));
    let surest = |image: usize| (0..teachers).max_by(|a, b| score(*a, image).total_cmp(&score(*b, image)));
    let right = (0..images).filter(|image| surest(*image).is_some_and(|teacher| knows(teacher, *image))).count();
    let lead = |teacher: usize, image: usize| {
        let others = (0..teachers).filter(|other| *other != teacher).map(|other| score(other, image));
        score(teacher, image) - others.fold(f64::NEG_INFINITY, f64::max)
    };
    let area = |teacher: usize| {
        let leads = |own: bool| (0..images).filter(|i| knows(teacher, *i) == own).map(|i| lead(teacher, i)).collect::<Vec<_>>();
        auroc(&leads(true), &leads(false))
    };
    let areas: Vec<f64> = (0..teachers).map(area).filter(|area| !area.is_nan()).collect();
    GateScore { accuracy: right as f64 / images.max(1) as f64, auroc: areas.iter().sum::<f64>() / areas.len() as f64 }
}

/// Of a student that `recipe` merged from its teachers: of the images of `test`, with the student's
/// confusion `[true class][predicted class]`. `train` is what it learnt from.
///
/// # Errors
/// [`Error::Argument`] for a recipe with less than two teachers; those of opening and running them;
/// scores that are not finite.
pub fn domains(gpu: &Gpu, recipe: &Recipe, train: &Dataset, test: &Arc<Dataset>, confusion: &[Vec<usize>]) -> Result<Domains> {
    let teachers = networks(gpu, recipe, train)?;
    if teachers.len() < 2 {
        return Err(Error::argument("domains", "the run has less than two teachers: there is nothing to tell apart"));
    }
    let both = |truth: usize, found: usize| teachers.iter().any(|e| e.classes().contains(&truth) && e.classes().contains(&found));
    let cells =
        confusion.iter().enumerate().flat_map(|(truth, row)| row.iter().enumerate().map(move |(found, count)| (truth, found, *count)));
    let (mut right, mut all) = (0usize, 0usize);
    for (truth, found, count) in cells {
        right += if both(truth, found) { count } else { 0 };
        all += count;
    }
    let knows = |teacher: &Teacher| test.labels().iter().map(|label| teacher.classes().iter().any(|c| *c as i32 == *label)).collect();
    let knows: Vec<Vec<bool>> = teachers.iter().map(knows).collect();
    let [energy, probability] = scores(gpu, recipe, train, test, &teachers)?;
    Ok(Domains {
        student: right as f64 / all.max(1) as f64,
        energy: gate_score(&energy, &knows),
        probability: gate_score(&probability, &knows),
    })
}

/// Both gates' scores of all images of `test`, `[gate][teacher][image]`.
fn scores(gpu: &Gpu, recipe: &Recipe, train: &Dataset, test: &Arc<Dataset>, teachers: &[Teacher]) -> Result<[Vec<Vec<f64>>; 2]> {
    let preprocessing = recipe.preprocessing("none", 0, train)?;
    let mut pending: [Vec<Vec<Pending>>; 2] = [Gate::Energy, Gate::Probability].map(|_| teachers.iter().map(|_| Vec::new()).collect());
    for batch in Loader::evaluation(test.clone(), BATCH)?.epoch(0) {
        let batch = PackedBatch::upload(gpu, &batch?)?.unpack()?;
        let images = preprocessing.apply(&batch, 0, 0)?;
        for (at, teacher) in teachers.iter().enumerate() {
            let logits = teacher.logits(&images, &batch.indices)?;
            for (gate, list) in [Gate::Energy, Gate::Probability].into_iter().zip(&mut pending) {
                let score = gate.score(&logits)?.read_later()?;
                if let Some(list) = list.get_mut(at) {
                    list.push(score);
                }
            }
        }
    }
    let read = |list: Vec<Pending>| -> Result<Vec<f64>> {
        let parts = list.into_iter().map(|p| Ok(bytemuck::pod_collect_to_vec::<u8, f32>(&p.wait()?))).collect::<Result<Vec<_>>>()?;
        let scores = parts.concat();
        require_finite_rows("a teacher's scores", &scores, 1)?;
        Ok(scores.into_iter().map(f64::from).collect())
    };
    let [energy, probability] = pending.map(|gate| gate.into_iter().map(read).collect::<Result<Vec<_>>>());
    Ok([energy?, probability?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn areas_are_those_of_counted_pairs() {
        assert_eq!(auroc(&[3.0, 4.0], &[1.0, 2.0]), 1.0);
        assert_eq!(auroc(&[1.0, 2.0], &[3.0]), 0.0);
        assert_eq!(auroc(&[1.0; 3], &[1.0; 5]), 0.5);
        assert!(auroc(&[], &[1.0]).is_nan() && auroc(&[2.0, f64::NAN], &[1.0]).is_nan());
        let (a, b) = ([0.3, -1.0, 2.0, 0.3, 5.0], [0.3, 0.0, 2.0, -4.0]);
        let pairs = a.iter().flat_map(|x: &f64| {
            b.iter().map(move |y| {
                if x > y {
                    1.0
                } else if x == y {
                    0.5
                } else {
                    0.0
                }
            })
        });
        approx::assert_abs_diff_eq!(auroc(&a, &b), pairs.sum::<f64>() / 20.0, epsilon = 1e-15);
    }

    #[test]
    fn the_surest_teacher_is_compared_with_the_one_that_knows() {
        let scores = [vec![2.0, 0.0, 1.0, 3.0], vec![1.0, 5.0, 2.0, 1.0]];
        let knows = [vec![true, false, true, true], vec![false, true, false, false]];
        let found = gate_score(&scores, &knows);
        // Leads of the first: 1, -5, -1, 2; its images are all but the second, which comes last.
        assert_eq!(found, GateScore { accuracy: 0.75, auroc: 1.0 });
    }
}
