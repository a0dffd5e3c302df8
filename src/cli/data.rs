//! `wgrad data`: what a data set holds, and what augmentation makes of its images.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{Augmentation, Dataset, DeviceBatch, HostBatch, ImageOptions, Split, Views, open_with};
use crate::error::{Error, Result};
use crate::report::{Canvas, Tile, to_bytes};

/// Say what a data set holds; --preview draws what augmentation makes of its images
#[derive(clap::Args)]
pub(super) struct Data {
    /// A folder of images: MNIST or CIFAR files, or one folder a class
    #[arg(value_name = "DIR", default_value = "data/fashion-mnist")]
    data: PathBuf,
    /// The test images
    #[arg(long)]
    test: bool,
    /// Height and width that pictures of many sizes are brought to
    #[arg(long, value_name = "PIXELS", default_value_t = ImageOptions::default().size)]
    size: usize,
    /// Write a contact sheet: a preset's draws of several epochs, or the views of a list such as
    /// `byol_a, byol_b`
    #[arg(long, value_name = "PRESETS")]
    preview: Option<String>,
    /// Its PNG file
    #[arg(long, value_name = "FILE", default_value = "preview.png", requires = "preview")]
    out: PathBuf,
    /// Its rows: images, of each class in turn
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200), requires = "preview")]
    images: u16,
    /// Of a single preset: its columns
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=100), requires = "preview")]
    epochs: u16,
    /// The (first) epoch, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, requires = "preview")]
    epoch: u32,
    /// Decides what is drawn at random: the same picture for the same seed
    #[arg(long, default_value_t = 0, requires = "preview")]
    seed: u32,
    /// Print JSON
    #[arg(long, conflicts_with = "preview")]
    json: bool,
}

impl Data {
    pub(super) fn run(self) -> Result<ExitCode> {
        let split = if self.test { Split::Test } else { Split::Train };
        let dataset = open_with(&self.data, split, ImageOptions { size: self.size, ..ImageOptions::default() })?;
        match &self.preview {
            Some(list) => {
                self.preview(&dataset, list)?.save(&self.out)?;
                say(self.out.display())?;
            }
            None => self.describe(&dataset, split)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn describe(&self, dataset: &Dataset, split: Split) -> Result<()> {
        let mut counts = vec![0usize; dataset.classes()];
        for label in dataset.labels() {
            usize::try_from(*label).ok().and_then(|label| counts.get_mut(label)).into_iter().for_each(|count| *count += 1);
        }
        let statistics = dataset.statistics();
        let name = dataset.name();
        let size = dataset.input().batch(1).shape.to_vec().split_off(1);
        if self.json {
            let classes: Vec<_> =
                dataset.class_names().iter().zip(&counts).map(|(name, images)| json!({ "name": name, "images": images })).collect();
            let all = json!({
                "name": name, "split": split.to_string(), "images": dataset.len(), "size": size,
                "mean": statistics.mean, "std": statistics.std, "classes": classes,
            });
            return say(format!("{all:#}"));
        }
        say(format!("{name}: {} {}, {} classes\n", dataset.len(), dataset.input(), counts.len()))?;
        let mut classes = Table::new(&["class", "count"]);
        dataset.class_names().iter().zip(&counts).for_each(|(name, images)| classes.row(&[name.clone(), images.to_string()]));
        say(&classes)?;
        if statistics.mean.is_empty() {
            return Ok(());
        }
        let names: &[&str] = if statistics.mean.len() == 1 { &["grey"] } else { &["red", "green", "blue"] };
        let mut table = Table::new(&["channel, of 0 to 1", "mean", "std"]);
        for ((name, mean), std) in names.iter().zip(&statistics.mean).zip(&statistics.std) {
            table.row(&[(*name).to_string(), format!("{mean:.4}"), format!("{std:.4}")]);
        }
        say(format!("\n{table}"))
    }

    /// Rows of images, the original first, then what the views make of it.
    fn preview(&self, dataset: &Dataset, list: &str) -> Result<Canvas> {
        let views: Views = list.parse()?;
        let names = views.names(self.epochs.into())?;
        let [height, width, _] = dataset.image_size()?;
        // Many draws of one view, or one draw of many views.
        let draws = matches!(views, Views::All(_));
        let place = |column: u32| if draws { (self.epoch.saturating_add(column), 0) } else { (self.epoch, column) };
        let chosen = each_class_in_turn(dataset, self.images.into());
        let gpu = device::open()?;
        let batch = DeviceBatch::upload(&gpu, &HostBatch::of(dataset, &chosen))?;
        let mut columns = vec![(batch.inputs.clone(), "image".to_string())];
        for (name, column) in names.iter().zip(0..) {
            let (epoch, view) = place(column);
            let images = Augmentation::preset(name, self.seed, [height, width])?.apply(&batch, epoch, view)?;
            columns.push((images, if draws { format!("epoch {epoch}") } else { (*name).to_string() }));
        }
        let captions: Vec<&str> = columns.iter().map(|(_, caption)| caption.as_str()).collect();
        let labels: Vec<&str> = chosen
            .iter()
            .filter_map(|index| dataset.class_names().get(usize::try_from(dataset.label(*index)?).ok()?))
            .map(String::as_str)
            .collect();
        let pictures = columns
            .iter()
            .map(|(images, _)| {
                let size = images.shape().array().map(|[_, h, w, c]| [h, w, c]);
                let size = size.ok_or_else(|| Error::argument("preview", "a view is no image"))?;
                Ok((to_bytes(&images.to_vec::<f32>()?, 0.0, 1.0), size))
            })
            .collect::<Result<Vec<_>>>()?;
        let tile = |row: usize| {
            pictures.iter().filter_map(move |(pixels, size)| {
                let bytes = size.iter().product::<usize>();
                Some(Tile { pixels: pixels.get(row * bytes..(row + 1) * bytes)?, size: *size })
            })
        };
        let tiles: Vec<Tile> = (0..chosen.len()).flat_map(tile).collect();
        Canvas::contact_sheet(&tiles, columns.len(), &captions, &labels)
    }
}

/// The places of `count` images: the first of each class, then the second of each, and so on.
fn each_class_in_turn(dataset: &Dataset, count: usize) -> Vec<usize> {
    let mut seen = vec![0usize; dataset.classes()];
    let mut places: Vec<(usize, i32, usize)> = Vec::new();
    for (index, label) in dataset.labels().iter().enumerate() {
        if let Some(seen) = usize::try_from(*label).ok().and_then(|label| seen.get_mut(label)) {
            // No later one of a class can be among them.
            if *seen < count {
                places.push((*seen, *label, index));
            }
            *seen += 1;
        }
    }
    places.sort_unstable();
    places.into_iter().take(count).map(|(.., index)| index).collect()
}
