//! What the network of a finished run mistakes, and what it was shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Value, context};

use crate::data::{Dataset, Split, Views};
use crate::error::Result;
use crate::evaluate::{Evaluation, ViewSheet, argmax, outputs};
use crate::gpu::Gpu;
use crate::report::page::safe;
use crate::report::{Canvas, Tile};
use crate::tensor::InputShape;
use crate::train::{LoadedRun, Recipe, RunDirectory};

/// Most classes whose confusion is shown whole, pairs of classes that are shown else.
const WHOLE: usize = 20;
const PAIRS: usize = 15;
/// Mistakes that are shown.
const MISTAKES: usize = 24;
/// Images, and draws of one view.
const IMAGES: usize = 6;
const DRAWS: usize = 4;
/// Pictures are enlarged to so many pixels at least.
const SIDE: usize = 72;

/// The parts of the page.
#[derive(Default)]
pub(super) struct Seen {
    /// Of a classifier of few classes: rows of cells.
    pub confusion: Option<Value>,
    /// Of many classes: the pairs that are taken for each other.
    pub pairs: Vec<Value>,
    pub mistakes: Vec<Value>,
    pub views: Option<Value>,
    /// What it was judged by.
    pub judged: Option<String>,
}

pub(super) fn of(gpu: &Gpu, directory: &RunDirectory, recipe: &Recipe, data: Option<&Path>) -> Result<Seen> {
    let loaded = LoadedRun::open(gpu, directory.path(), data.map(PathBuf::from).as_ref())?;
    let all = loaded.recipe.open(Split::Train)?;
    let held_out = loaded.recipe.held_out(&all)?;
    let mut seen = Seen { views: views(gpu, recipe, &loaded.train)?, ..Seen::default() };
    let (Some(images), true) = (held_out, loaded.network.classifier().is_some()) else { return Ok(seen) };
    let logits = outputs(gpu, &loaded.network, &images, &loaded.recipe.preprocessing("none", 0, &loaded.train)?, 0)?;
    let mut found = Evaluation::new(images.classes());
    found.add(&logits, images.labels())?;
    seen.judged = Some(format!(
        "{} images that were not learnt from, by the weights that the run left: {:.2} % right, loss {:.4}.",
        found.images(),
        100.0 * found.accuracy(),
        found.loss()
    ));
    let name = |class: usize| images.class_names().get(class).cloned().unwrap_or_else(|| class.to_string());
    if images.classes() <= WHOLE {
        seen.confusion = Some(confusion(&found, &name));
    } else {
        let pair = |(truth, found, count): (usize, usize, usize)| context! { truth => name(truth), found => name(found), count };
        seen.pairs = found.mistakes().into_iter().take(PAIRS).map(pair).collect();
    }
    seen.mistakes = mistakes(&images, &logits, &name)?;
    Ok(seen)
}

fn confusion(found: &Evaluation, name: &dyn Fn(usize) -> String) -> Value {
    let row = |(class, row): (usize, &Vec<usize>)| {
        let all = row.iter().sum::<usize>().max(1) as f64;
        let cell =
            |(column, count): (usize, &usize)| context! { count, share => (100.0 * *count as f64 / all).round(), own => class == column };
        context! { name => name(class), cells => row.iter().enumerate().map(cell).collect::<Vec<_>>() }
    };
    let names: Vec<String> = (0..found.confusion.len()).map(name).collect();
    context! { names, rows => found.confusion.iter().enumerate().map(row).collect::<Vec<_>>() }
}

/// The images whose wrong class is the most certain, the most certain first.
fn mistakes(images: &Arc<Dataset>, logits: &[f32], name: &dyn Fn(usize) -> String) -> Result<Vec<Value>> {
    let InputShape::Image(size) = images.input() else { return Ok(Vec::new()) };
    let mut wrong: Vec<(f64, usize, usize, usize)> = Vec::new();
    for (place, (row, label)) in logits.chunks_exact(images.classes().max(1)).zip(images.labels()).enumerate() {
        let (found, Ok(truth)) = (argmax(row), usize::try_from(*label)) else { continue };
        let top = row.get(found).copied().map_or(0.0, f64::from);
        let share = 1.0 / row.iter().map(|v| (f64::from(*v) - top).exp()).sum::<f64>();
        if found != truth {
            wrong.push((share, place, truth, found));
        }
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let picture = |(share, place, truth, found): (f64, usize, usize, usize)| {
        let pixels = images.image(place)?.unwrap_or_default();
        let tile = Tile { pixels: &pixels, size };
        Ok(context! { picture => png(tile)?, truth => name(truth), found => name(found), share => format!("{:.1} %", 100.0 * share) })
    };
    wrong.into_iter().take(MISTAKES).map(picture).collect()
}

/// Some images as the network was shown them; `None` of texts.
fn views(gpu: &Gpu, recipe: &Recipe, train: &Arc<Dataset>) -> Result<Option<Value>> {
    if !matches!(train.input(), InputShape::Image(_)) {
        return Ok(None);
    }
    let views: &Views = &recipe.augmentation.views;
    let sheet = ViewSheet::new(gpu, train, IMAGES, views, DRAWS, (0, recipe.seed))?;
    let pictures = sheet.tiles().map(png).collect::<Result<Vec<_>>>()?;
    let rows: Vec<Vec<Value>> = pictures.chunks(sheet.columns.len().max(1)).map(<[Value]>::to_vec).collect();
    Ok(Some(context! { columns => sheet.columns, rows }))
}

/// A picture as an address that holds all of it.
fn png(tile: Tile) -> Result<Value> {
    let [height, width, _] = tile.size;
    let scale = SIDE.div_ceil(height.max(width).max(1)).max(1);
    let mut canvas = Canvas::new(width * scale, height * scale)?;
    canvas.image([0, 0], tile, scale)?;
    Ok(safe(format!("data:image/png;base64,{}", STANDARD.encode(canvas.png()?))))
}
