//! `wgrad demo`: from images without labels to a small network and a table in minutes, on real
//! photographs of clothes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::compare::text;
use super::device;
use super::output::{say, write};
use super::probe::table as probe_table;
use super::signals::Stop;
use crate::data::{Dataset, Split, Views, open};
use crate::error::{Error, Result};
use crate::evaluate::compare::{Subject, measure};
use crate::evaluate::probe::{ProbeOptions, ProbeSubject, probe};
use crate::gpu::Gpu;
use crate::io::atomic::{make_folder, write_atomically};
use crate::io::console::tell;
use crate::io::lock::{FolderLock, HOLDER, holder, lock_folder};
use crate::report::Environment;
use crate::train::progress::Style;
use crate::train::{Recipe, RunDirectory, Trainer};

/// Pre-train without labels, probe, teach with a few labels, distil into a small MobileNet on
/// images without labels, and compare
#[derive(clap::Args)]
pub(super) struct Demo {
    /// Where everything is kept; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// The photographs
    #[arg(long, value_name = "DIR", default_value = "data/fashion-mnist")]
    data: PathBuf,
    /// Epochs of pre-training
    #[arg(long, value_name = "N", default_value_t = 6)]
    pretrain_epochs: u32,
    /// Epochs of the small network over all images
    #[arg(long, value_name = "N", default_value_t = 5)]
    epochs: u32,
    /// Decides labels, initial values, order and augmentation
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Labels of each class that anything here is given.
const LABELS: usize = 20;
/// Images of a step that learns from these labels, and from all images.
const FEW: usize = 50;
const MANY: usize = 64;

/// What every part of the demo works with.
struct Stage<'a> {
    demo: &'a Demo,
    gpu: Gpu,
    train: Arc<Dataset>,
    stop: Stop,
}

impl Demo {
    pub(super) fn run(self) -> Result<ExitCode> {
        let stop = Stop::on_signals()?;
        Ok(if self.all(stop.clone())?.is_some() { ExitCode::SUCCESS } else { stop.code() })
    }

    /// `None` where it was interrupted.
    fn all(&self, stop: Stop) -> Result<Option<()>> {
        let begun = Instant::now();
        let gpu = device::open()?;
        let train = Arc::new(open(&self.data, Split::Train)?);
        let test = Arc::new(open(&self.data, Split::Test)?);
        let _held = self.clear()?;
        let caps = gpu.capabilities();
        let (images, classes) = (train.len(), train.classes());
        tell(format!("{} ({}), {images} training and {} test images of {classes} classes", caps.name, caps.backend, test.len()));
        let stage = Stage { demo: self, gpu: gpu.clone(), train: train.clone(), stop };

        tell(format!("\n1. SimCLR: an encoder learns from {images} images without labels"));
        let Some(simclr) = stage.train("simclr", self.pretraining(images))? else { return Ok(None) };

        let options = ProbeOptions { labels: vec![LABELS], seed: self.seed, ..Default::default() };
        tell(format!("\n2. Probe: what {LABELS} labels a class make of its features, {} draws", options.draws));
        let Trainer { method, params, recipe, .. } = &simclr;
        let subject = ProbeSubject { encoder: method.encoder(), params, recipe, train: &train, test: &test };
        let probed = probe(&gpu, &subject, &options, &mut |_| ())?;
        tell(probe_table(&probed));

        tell(format!("\n3. The teacher: the whole encoder is trained on, with a classifier, by {LABELS} labels a class"));
        let Some(_) = stage.train("teacher", self.teaching())? else { return Ok(None) };

        tell("\n4. The student: a small MobileNet learns what the teacher says of all images, and is told no label");
        let Some(_) = stage.train("student", self.distilling()?)? else { return Ok(None) };

        tell("\n5. To compare with: the same MobileNet, in as many steps, and a linear classifier on pixels, both by these labels alone");
        let steps = self.epochs as usize * (images / MANY).max(1);
        let Some(_) = stage.train("labels-alone", self.alone(steps.div_ceil((LABELS * classes / FEW).max(1))))? else { return Ok(None) };
        let Some(_) = stage.train("pixels", self.pixels()?)? else { return Ok(None) };

        tell("\n6. Side by side");
        let columns = [
            ("SimCLR and a linear probe", "simclr"),
            ("teacher: fine-tuned", "teacher"),
            ("student: distilled", "student"),
            ("labels alone", "labels-alone"),
            ("linear on pixels", "pixels"),
        ];
        let subjects = columns.into_iter().map(|(name, run)| Subject::of_runs(name, vec![self.out.join(run)]));
        let comparison = measure(&gpu, subjects.collect::<Result<_>>()?, None, &mut |_| ())?;
        let seconds = begun.elapsed().as_secs_f64();
        let report = self.out.join("report.html");
        let title = format!("wgrad demo: {images} images, {LABELS} labels a class");
        write_atomically(&report, comparison.html(Some(&title))?.as_bytes())?;
        let summary = json!({
            "environment": Environment::of(&gpu), "seconds": seconds, "probe": probed.to_json(), "comparison": comparison.to_json(),
        });
        write_atomically(&self.out.join("summary.json"), format!("{summary:#}\n").as_bytes())?;
        if self.json {
            say(format!("{summary:#}"))?;
        } else {
            write(format!("\n{}", text(&comparison)).as_bytes())?;
            say(format!("{seconds:.0} s in all; everything is in {}, the same with pictures in {}", self.out.display(), report.display()))?;
        }
        Ok(Some(()))
    }

    /// An empty directory that no other demo is in, until what is returned is dropped.
    fn clear(&self) -> Result<FolderLock> {
        let refused = |message: &str| Err(Error::argument(self.out.display().to_string(), message));
        // A demo's directory is the demo's own; anything else is left alone.
        make_folder(&self.out)?;
        let Some(lock) = lock_folder(&self.out)? else {
            return refused(&format!("another demo is under way there{}; choose another --out", holder(&self.out)));
        };
        let paths =
            std::fs::read_dir(&self.out).and_then(|found| found.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>());
        let mut paths = paths.map_err(|e| Error::io(&self.out, &e))?;
        paths.retain(|path| !path.ends_with(HOLDER));
        if !paths.is_empty() && !self.out.join("simclr").join("recipe.toml").exists() {
            return refused("exists and holds no demo; choose another --out");
        }
        for path in paths {
            let gone = if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.map_err(|e| Error::io(&path, &e))?;
        }
        Ok(lock)
    }

    /// What all parts begin with.
    fn recipe(&self, method: &str) -> Recipe {
        let mut recipe = Recipe { seed: self.seed, ..Recipe::defaults(method) };
        recipe.data.path.clone_from(&self.data);
        recipe
    }

    fn pretraining(&self, images: usize) -> Recipe {
        let mut recipe = self.recipe("simclr");
        recipe.model.name = TEACHER.into();
        Recipe { epochs: self.pretrain_epochs, batch: recipe.batch.min(images), ..recipe }
    }

    /// By few labels, which are shown in many ways.
    fn few(&self) -> Recipe {
        let mut recipe = Recipe { batch: FEW, ..self.recipe("supervised") };
        recipe.data.per_class = LABELS;
        recipe.augmentation.views = Views::All("supervised".into());
        recipe
    }

    fn teaching(&self) -> Recipe {
        let mut recipe = Recipe { epochs: 80, ..self.few() };
        recipe.model.name = TEACHER.into();
        recipe.data.normalize = "data".into();
        recipe.finetune.weights = self.out.join("simclr").join("weights.safetensors");
        recipe
    }

    fn distilling(&self) -> Result<Recipe> {
        let mut recipe = self.recipe("distillation").with(["soft_weight=1", "temperature=2", "augmentation=none"])?;
        let Recipe { optimizer, schedule, .. } = self.recipe("supervised");
        (recipe.optimizer.rule, recipe.optimizer.learning_rate) = (optimizer.rule, optimizer.learning_rate);
        let teachers = vec![self.out.join("teacher")];
        Ok(small(Recipe { teachers, schedule, batch: MANY, epochs: self.epochs, ..recipe }))
    }

    fn alone(&self, epochs: usize) -> Recipe {
        small(Recipe { epochs: epochs as u32, ..self.few() })
    }

    fn pixels(&self) -> Result<Recipe> {
        // 7,850 values by 200 labels: it takes a strong decay.
        let settings = ["learning_rate=0.02", "weight_decay=0.05", "label_smoothing=0"];
        Recipe { epochs: 100, ..self.few() }.with(["model=pixels", "augmentation=none"].into_iter().chain(settings))
    }
}

/// The encoder that becomes the teacher.
const TEACHER: &str = "cnn_32_64_128";

/// For the small network: a MobileNetV1 of an eighth of the full width.
fn small(mut recipe: Recipe) -> Recipe {
    (recipe.model.name, recipe.model.width) = ("mobilenetv1_025".into(), 0.5);
    recipe
}

impl Stage<'_> {
    /// Trains one network; `None` where it was interrupted.
    fn train(&self, name: &str, recipe: Recipe) -> Result<Option<Trainer>> {
        let path = self.demo.out.join(name);
        let mut trainer = Trainer::new(&self.gpu, recipe, self.train.clone())?;
        let run = RunDirectory::create(&path, &trainer.recipe, &self.gpu)?;
        let outcome = trainer.run(Some(&run), Style::Auto, &mut |_| self.stop.is_asked_for())?;
        if !outcome.finished {
            tell(format!(
                "stopped; `wgrad train {} --resume --out {}` finishes this part alone",
                trainer.recipe.method.name,
                path.display()
            ));
            return Ok(None);
        }
        Ok(Some(trainer))
    }
}
