//! Data without a content, of what a recipe reads.

use std::sync::Arc;

use wgrad::data::{Dataset, Samples};
use wgrad::train::Recipe;

/// Black images of `size`, or empty texts where the recipe's network reads texts; ten classes.
pub fn black(recipe: &Recipe, size: [usize; 3], count: usize) -> Arc<Dataset> {
    let labels = (0..count).map(|i| (i % 10) as i32).collect();
    let names = (0..10).map(|c| c.to_string()).collect();
    let samples = if recipe.model.name.starts_with("bert_") {
        Samples::Tokens { length: 24, numbers: vec![0; count * 24] }
    } else {
        Samples::Images { size, pixels: vec![0; count * size.iter().product::<usize>()] }
    };
    Arc::new(Dataset::of("black", samples, labels, names).unwrap())
}
