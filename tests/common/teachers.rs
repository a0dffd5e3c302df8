//! Teachers of any recipe: networks of the student's kind that have learnt nothing.

use std::rc::Rc;

use wgrad::data::Dataset;
use wgrad::gpu::Gpu;
use wgrad::methods::Teacher;
use wgrad::models::Network;
use wgrad::nn::Parameters;
use wgrad::train::Recipe;

/// As many as the recipe names; of several, each knows every so manyth class.
pub fn teachers(gpu: &Gpu, recipe: &Recipe, dataset: &Dataset) -> Vec<Rc<Teacher>> {
    let names: Vec<&str> = recipe.teachers.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let teacher = |(number, name): (usize, &&str)| {
        let params = Parameters::new(gpu, 100 + number as u32);
        let classes: Vec<usize> = (number..dataset.classes()).step_by(names.len()).collect();
        let backbone = recipe.encoder(&params, dataset).unwrap();
        let network = Network::new(&params, backbone, Some(classes.len())).unwrap();
        Rc::new(Teacher::new(*name, params, network, classes))
    };
    names.iter().enumerate().map(teacher).collect()
}
