//! A classifier to use: a run's, or a model by name with weights from a file.

use std::path::{Path, PathBuf};

use crate::data::{AugmentStep, Augmentation, ImageOptions, Labels};
use crate::error::{Error, Result};
use crate::evaluate::PictureInput;
use crate::gpu::Gpu;
use crate::io::{Interpolation, Preprocessing};
use crate::models::{self, Backbone, ModelOptions, model, preprocessing};
use crate::nn::{Module, Parameters, state_dict};
use crate::train::LoadedRun;

/// Options of a model with weights of the world, instead of a run.
#[derive(clap::Args)]
pub(super) struct ModelArguments {
    /// A model by timm's name instead of a run; a tag (efficientnet_b0.ra_in1k) says which weights
    #[arg(long, value_name = "NAME", requires = "weights")]
    pub model: Option<String>,
    /// The model's weights
    #[arg(long, value_name = "FILE", requires = "model")]
    weights: Option<PathBuf>,
    /// Classes of the network [default: as many as the weights have]
    #[arg(long, value_name = "N", requires = "model")]
    num_classes: Option<usize>,
    /// Names of the classes: a text of one a line, or a JSON list
    /// [default: ImageNet's for 1000 classes, else numbers]
    #[arg(long, value_name = "FILE", requires = "model")]
    labels: Option<PathBuf>,
    /// Pixels of the square that the network is given, where it is not the weights' own
    #[arg(long, value_name = "N", requires = "model")]
    resolution: Option<usize>,
    /// The part of the resized picture's shorter side that is kept, where it is not the weights'
    /// own
    #[arg(long, value_name = "SHARE", requires = "model")]
    crop: Option<f64>,
    /// bilinear or bicubic, where it is not the weights' own
    #[arg(long, value_name = "FILTER", requires = "model")]
    interpolation: Option<Interpolation>,
    /// Mean of red, green and blue in 0..1, where it is not the weights' own
    #[arg(long, value_name = "R,G,B", requires = "model", value_parser = colour, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue, where it is not the weights' own
    #[arg(long, value_name = "R,G,B", requires = "model", value_parser = colour)]
    std: Option<[f32; 3]>,
    /// Multiply batch norm into the convolutions before it
    #[arg(long)]
    fold_bn: bool,
    /// Picture files at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
}

fn colour(text: &str) -> std::result::Result<[f32; 3], String> {
    let numbers: std::result::Result<Vec<f32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    numbers.ok().and_then(|n| n.try_into().ok()).ok_or_else(|| "expected three numbers such as 0.485,0.456,0.406".to_string())
}

/// A network with its weights, and what must be known to use it.
pub(super) struct Classifier {
    pub network: Box<dyn Module>,
    pub params: Parameters,
    pub labels: Labels,
    pub input: PictureInput,
}

impl ModelArguments {
    /// The classifier of a run, for pictures.
    pub(super) fn of_run(&self, gpu: &Gpu, run: &Path, data: Option<&PathBuf>) -> Result<Classifier> {
        let LoadedRun { recipe, mut network, train, params } = LoadedRun::open(gpu, run, data)?;
        if network.classifier().is_none() {
            let message = "holds an encoder without a classifier; train one with `wgrad train supervised`";
            return Err(Error::argument(run.display().to_string(), message));
        }
        let [height, width, channels] = train.image_size()?;
        if height != width {
            let message = format!("its images are {height} x {width}; pictures can be brought to squares only");
            return Err(Error::data(train.name(), message));
        }
        let options = ImageOptions { size: height, grey: channels == 1, ..Default::default() };
        let input = PictureInput { options, preprocessing: recipe.preprocessing("none", 0, &train)?, batch: self.batch.into() };
        self.fold(&mut network)?;
        Ok(Classifier { network: Box::new(network), params, labels: Labels::new(train.class_names().to_vec()), input })
    }

    /// The model `name` with its weights.
    pub(super) fn of_model(&self, gpu: &Gpu, name: &str) -> Result<Classifier> {
        let preprocessing = self.preprocessing(name)?;
        let weights = self.weights.as_deref().unwrap_or(Path::new(""));
        let params = Parameters::new(gpu, 0);
        let options = ModelOptions { size: Some([preprocessing.resolution; 2]), ..Default::default() };
        let model = model(name, options)?;
        let archive = model.open_weights(name, weights)?;
        let backbone = model.architecture.build(&params)?;
        let head = archive.tensors.get(&format!("{}.weight", backbone.head()));
        let classes = self.num_classes.or(head.map(|weight| weight.shape().dim(0))).unwrap_or(1000);
        let labels = self.labels.as_deref().map_or_else(|| Ok(Labels::of_count(classes)), Labels::read)?;
        if labels.names().len() != classes {
            let file = self.labels.as_deref().unwrap_or(Path::new("--labels")).display().to_string();
            return Err(Error::data(file, format!("expected {classes} names, one a class, found {}", labels.names().len())));
        }
        let mut network = models::Classifier::new(&params, backbone, classes)?;
        state_dict::fill(&params, &archive, &weights.display().to_string(), &[])?;
        params.compact()?;
        let Preprocessing { mean, std, .. } = preprocessing;
        let normalize = Augmentation::new(0, [AugmentStep::Normalize { mean, std }]);
        let input = PictureInput { options: preprocessing.into(), preprocessing: normalize, batch: self.batch.into() };
        self.fold(&mut network)?;
        Ok(Classifier { network: Box::new(network), params, labels, input })
    }

    /// Folds batch norm where that was asked for.
    pub(super) fn fold(&self, network: &mut dyn Module) -> Result<()> {
        if self.fold_bn { network.fold() } else { Ok(()) }
    }

    /// What the weights expect, but for what the command line says.
    fn preprocessing(&self, name: &str) -> Result<Preprocessing> {
        let own = preprocessing(name)?;
        let told = Preprocessing {
            resolution: self.resolution.unwrap_or(own.resolution),
            crop: self.crop.unwrap_or(own.crop),
            interpolation: self.interpolation.unwrap_or(own.interpolation),
            mean: self.mean.unwrap_or(own.mean),
            std: self.std.unwrap_or(own.std),
            ..own
        };
        told.check()?;
        log::info!("{name}: {told:?}");
        Ok(told)
    }
}
