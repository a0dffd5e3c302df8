//! A finished run to be used: its network with its weights, without what only training needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::recipe::Recipe;
use super::run::RunDirectory;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::Archive;
use crate::models::Network;
use crate::nn::{Parameters, state_dict};

/// A run's network, and what it was trained on.
pub struct LoadedRun {
    /// What was run.
    pub recipe: Recipe,
    /// The encoder, with a classifier where the run learnt one.
    pub network: Network,
    /// The images that it learnt from, with their true labels.
    pub train: Arc<Dataset>,
    /// The network's weights.
    pub params: Parameters,
}

impl LoadedRun {
    /// Opens the run in the directory `run`, or by a file of weights in it ([`RunDirectory::open`]).
    /// Its training images give the classes and the statistics to normalise with; `data` says where
    /// they are when they have moved.
    ///
    /// # Errors
    /// [`Error::Data`] where there is no run, it is not finished, or its files do not fit; those of
    /// opening its data.
    pub fn open(gpu: &Gpu, run: &Path, data: Option<&PathBuf>) -> Result<Self> {
        let (run, mut recipe) = RunDirectory::open(run)?;
        let weights = run.weights();
        if !weights.exists() {
            let command = format!("wgrad train {} --resume --out {}", recipe.method.name, run.path().display());
            let message = format!("has no weights yet: the run is not finished; go on with `{command}`");
            return Err(Error::data(run.path().display().to_string(), message));
        }
        if let Some(data) = data {
            recipe.data.path.clone_from(data);
        }
        let train = recipe.chosen(Arc::new(recipe.open(Split::Train)?))?;
        let (params, network) = recipe.network_with(gpu, &train, Archive::load(&weights)?, &weights.display().to_string())?;
        Ok(Self { recipe, network, train, params })
    }
}

impl Recipe {
    /// The encoder, with a classifier where `weights`, which errors call `source`, have one, and with
    /// these weights; `train` is what is learnt from.
    ///
    /// # Errors
    /// [`Error::Data`] for weights of another network; out of memory.
    pub fn network_with(&self, gpu: &Gpu, train: &Dataset, mut weights: Archive, source: &str) -> Result<(Parameters, Network)> {
        let params = Parameters::new(gpu, self.seed);
        let backbone = self.encoder(&params, train)?;
        let head = weights.tensors.get(&format!("{}.weight", backbone.head())).map(|weight| weight.shape().dim(0));
        let network = Network::new(&params, backbone, head)?;
        // The rest are heads that only training needs.
        let own = state_dict::to_archive(&params)?.tensors;
        weights.tensors.retain(|name, _| own.contains_key(name));
        state_dict::fill(&params, &weights, source, &[])?;
        Ok((params, network))
    }
}
