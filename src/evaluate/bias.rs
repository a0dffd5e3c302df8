//! What is added to a class's logit behind the training: where a class was never shown, say, its
//! bias was learnt too low (Hinton, Vinyals and Dean 2015, section 3).

use crate::error::{Error, Result};

/// Adds `bias`, a number a class, to rows of logits.
pub fn add_bias(logits: &mut [f32], bias: &[f32]) {
    for row in logits.chunks_exact_mut(bias.len().max(1)) {
        row.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
    }
}

/// The bias with which `class` is the largest of `classes` logits in the `share` of all rows. No
/// label is looked at.
///
/// # Errors
/// [`Error::Argument`] for a share that is not between 0 and 1, and where there are no rows or
/// fewer than two classes.
pub fn bias_for_share(logits: &[f32], classes: usize, class: usize, share: f64) -> Result<f32> {
    if !(share > 0.0 && share < 1.0) {
        return Err(Error::argument("share", format!("expected more than 0 and less than 1, found {share}")));
    }
    // What a row lacks for the class to be its largest.
    let lack = |row: &[f32]| {
        let others = row.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, logit)| *logit);
        others.fold(f32::NEG_INFINITY, f32::max) - row.get(class).copied().unwrap_or(f32::NAN)
    };
    let mut lacks: Vec<f32> = logits.chunks_exact(classes.max(1)).map(lack).collect();
    lacks.sort_by(f32::total_cmp);
    let at = (share * lacks.len() as f64).round() as usize;
    // Halfway between the last row that is won and the first that is not.
    match (lacks.get(at.saturating_sub(1)), lacks.get(at)) {
        (Some(won), Some(lost)) if won.is_finite() && lost.is_finite() => Ok(0.5 * (won + lost)),
        _ => Err(Error::argument("share", format!("{share} of {} images is no bias of class {class} among {classes}", lacks.len()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::outputs::argmax;
    use super::*;

    #[test]
    fn a_class_gets_its_share_and_no_more() {
        // Class 2 lacks 4, 5, .. 11 in the rows.
        let rows: Vec<f32> = (1..=8).flat_map(|i| [0.0, i as f32, -3.0]).collect();
        for (share, won) in [(0.25, 2), (0.5, 4), (0.9, 7)] {
            let bias = bias_for_share(&rows, 3, 2, share).unwrap();
            let mut raised = rows.clone();
            add_bias(&mut raised, &[0.0, 0.0, bias]);
            assert_eq!(raised.chunks(3).filter(|row| argmax(row) == 2).count(), won, "{share}: {bias}");
        }
        for (share, classes) in [(0.0, 3), (1.0, 3), (f64::NAN, 3), (0.5, 1)] {
            assert!(bias_for_share(&rows, classes, 0, share).is_err(), "{share} {classes}");
        }
        assert!(bias_for_share(&[], 3, 0, 0.5).is_err());
    }
}
