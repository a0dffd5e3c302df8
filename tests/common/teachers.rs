//! Teachers of any recipe: networks of the student's kind that have learnt nothing.

use std::path::PathBuf;
use std::sync::Arc;

use wgrad::data::Dataset;
use wgrad::gpu::Gpu;
use wgrad::methods::Teacher;
use wgrad::models::Network;
use wgrad::nn::Parameters;
use wgrad::train::Recipe;

/// As many as the recipe names; of several, each knows every so manyth class.
pub fn teachers(gpu: &Gpu, recipe: &Recipe, dataset: &Dataset) -> Vec<Arc<Teacher>> {
    let runs = &recipe.teachers;
    let teacher = |(number, run): (usize, &PathBuf)| {
        let params = Parameters::new(gpu, 100 + number as u32);
        let classes: Vec<usize> = (number..dataset.classes()).step_by(runs.len()).collect();
        let backbone = recipe.encoder(&params, dataset).unwrap();
        let network = Network::new(&params, backbone, Some(classes.len())).unwrap();
        Arc::new(Teacher::new(run.display().to_string(), params, network, classes))
    };
    runs.iter().enumerate().map(teacher).collect()
}
