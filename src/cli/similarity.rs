//! `wgrad similarity`: which images does an encoder find alike?

use std::path::PathBuf;
use std::process::ExitCode;

use super::device;
use super::output::say;
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::similarity::similarities;
use crate::report::Canvas;
use crate::train::LoadedRun;

/// Draw the cosines between two views of some test images, class by class, as a heat map
#[derive(clap::Args)]
pub(super) struct Similarity {
    /// The run's directory
    #[arg(default_value = "runs/latest")]
    run: PathBuf,
    /// The picture to write
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// The run's data set where it is not where the run found it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 10)]
    per_class: usize,
}

impl Similarity {
    pub(super) fn run(self) -> Result<ExitCode> {
        let gpu = device::open()?;
        let LoadedRun { recipe, network, train, .. } = LoadedRun::open(&gpu, &self.run, self.data.as_ref())?;
        let test = recipe.open(Split::Test)?;
        let found = similarities(&gpu, network.backbone(), &recipe, [&train, &test], self.per_class)?;
        let side = found.labels.len();
        let title = format!("{}: cosines, {} images a class", recipe.method.name, self.per_class);
        Canvas::heat_map(&found.cosines, [side; 2], &title)?.save(&self.out)?;
        say(format!(
            "mean cosine of two views of one image {:.3}, of images of one class {:.3}, of images of two classes {:.3}; drawn in {}",
            found.same_image,
            found.same_class,
            found.other_class,
            self.out.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
