//! `wgrad data`: what a data set holds, what augmentation makes of its images, and its pictures packed
//! into one file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::device;
use super::output::say;
use super::table::Table;
use crate::data::{Dataset, ImageOptions, Loader, Packed, PictureOptions, Split, open_with, pack};
use crate::error::{Error, Result};
use crate::evaluate::ViewSheet;
use crate::report::Canvas;

/// Say what a data set holds; --preview draws what augmentation makes of its images; pack decodes
/// pictures once and for all
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Data {
    #[command(subcommand)]
    action: Option<Action>,
    /// MNIST or CIFAR files, pictures in one folder a class, a list train.csv, tar archives; or a file
    /// of `wgrad data pack`
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
    /// Read two epochs as a training does, and say how fast: decoding, then what is kept in memory
    #[arg(long, conflicts_with_all = ["preview", "json"])]
    speed: bool,
    /// Threads that read pictures; 0: one a core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// Print JSON
    #[arg(long, conflicts_with = "preview")]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Action {
    Pack(Pack),
}

/// Decode pictures into one file, from which trainings read them without decoding
#[derive(clap::Args)]
struct Pack {
    /// Pictures in one folder a class, a list train.csv, or tar archives
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// The file; beside the folder, with its name, where it is not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Shrink pictures whose shorter side is longer than this
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    short_side: u32,
    /// Threads that decode; 0: one a core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// List pictures that cannot be read, and leave them out
    #[arg(long)]
    skip_bad: bool,
}

impl Pack {
    fn run(self) -> Result<ExitCode> {
        // Each picture is read once, so nothing is kept.
        let options = PictureOptions {
            short_side: self.short_side as usize,
            workers: self.workers,
            memory_mib: 0,
            skip_bad: self.skip_bad,
            ..PictureOptions::default()
        };
        let (train, test) = (open_with(&self.data, Split::Train, options)?, open_with(&self.data, Split::Test, options)?);
        let out = self.out.unwrap_or_else(|| PathBuf::from(self.data.as_os_str()).with_added_extension("safetensors"));
        let bar = indicatif::ProgressBar::new((train.len() + test.len()) as u64);
        let packed = pack([&train, &test], &out, |done| bar.set_position(done as u64));
        bar.finish_and_clear();
        let Packed { train, test, bytes } = packed?;
        let mib = bytes as f64 / f64::from(1 << 20);
        say(format!("{}: {train} pictures to learn from, {test} to measure on, {mib:.1} MiB", out.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Data {
    pub(super) fn run(self) -> Result<ExitCode> {
        if let Some(Action::Pack(pack)) = self.action {
            return pack.run();
        }
        let split = if self.test { Split::Test } else { Split::Train };
        let options = PictureOptions::from(ImageOptions { size: self.size, ..ImageOptions::default() });
        let dataset = open_with(&self.data, split, PictureOptions { workers: self.workers, ..options })?;
        if self.speed {
            return speed(dataset);
        }
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
        let statistics = dataset.statistics()?;
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
        let gpu = device::open()?;
        let sheet = ViewSheet::new(&gpu, dataset, self.images.into(), &list.parse()?, self.epochs.into(), (self.epoch, self.seed))?;
        let captions: Vec<&str> = sheet.columns.iter().map(String::as_str).collect();
        let class = |index: &usize| dataset.class_names().get(usize::try_from(dataset.label(*index)?).ok()?);
        let labels: Vec<&str> = sheet.rows.iter().filter_map(class).map(String::as_str).collect();
        Canvas::contact_sheet(&sheet.tiles().collect::<Vec<_>>(), captions.len(), &captions, &labels)
    }
}

/// Images a batch where reading is timed.
const BATCH: usize = 128;

/// Reads two epochs in random order, each picture as random crops see it.
fn speed(dataset: Dataset) -> Result<ExitCode> {
    let images = dataset.len();
    let loader = Loader::training(Arc::new(dataset), BATCH.min(images), 0)?.uncropped();
    for epoch in 0..2 {
        let begun = Instant::now();
        let read = loader.epoch(epoch).try_fold(0, |read, batch| Ok::<_, Error>(read + batch?.labels.len()))?;
        let rate = read as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        say(format!("epoch {}: {read} images, {rate:.0} a second", epoch + 1))?;
    }
    Ok(ExitCode::SUCCESS)
}
