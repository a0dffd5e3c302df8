//! A finished network that others learn from.

use crate::error::{Error, Result};
use crate::gpu::fnv;
use crate::io::HostTensor;
use crate::models::Network;
use crate::nn::{Mode, Module, Parameters, state_dict};
use crate::ops::elementwise::fuse::fuse;
use crate::tensor::Tensor;

/// A finished network that teaches: in evaluation, so it neither changes nor receives a gradient.
pub struct Teacher {
    name: String,
    params: Parameters,
    network: Network,
    classes: Vec<usize>,
    /// Scale and shift of each channel, `[C]`, from the student's normalisation to its own.
    renormalize: Option<[Tensor; 2]>,
    /// What it says of every image of the data set, `[images, K]`.
    cached: Option<Tensor>,
}

impl std::fmt::Debug for Teacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Teacher({})", self.name)
    }
}

impl Teacher {
    /// The network made in `params`. `classes` are the student's classes that its logits stand for,
    /// in their order; an encoder has none.
    pub fn new(name: impl Into<String>, params: Parameters, network: Network, classes: Vec<usize>) -> Self {
        Self { name: name.into(), params, network, classes, renormalize: None, cached: None }
    }

    /// Images are multiplied by `scale` and raised by `shift`, channel by channel, before it sees
    /// them: it was normalised by other statistics.
    ///
    /// # Errors
    /// Out of memory.
    pub fn renormalized(self, scale: &[f32], shift: &[f32]) -> Result<Self> {
        let gpu = self.params.gpu();
        let of = |values: &[f32]| Tensor::from_slice(gpu, values, [values.len()]);
        let renormalize = Some([of(scale)?, of(shift)?]);
        Ok(Self { renormalize, ..self })
    }

    /// What it says of every image of the data set is known already: `logits` `[images, K]`. It is
    /// then never run.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not of its classes.
    pub fn cached(self, logits: Tensor) -> Result<Self> {
        if logits.shape().rank() != 2 || logits.shape().last() != self.classes.len() {
            let message = format!("expected logits of its {} classes, found {}", self.classes.len(), logits.shape());
            return Err(Error::argument(format!("teacher {}", self.name), message));
        }
        Ok(Self { cached: Some(logits), ..self })
    }

    /// What it is called: the run's directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The student's classes that its logits stand for.
    pub fn classes(&self) -> &[usize] {
        &self.classes
    }

    /// Its weights.
    pub fn parameters(&self) -> &Parameters {
        &self.params
    }

    /// Its network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whether its logits are known for all images.
    pub fn is_cached(&self) -> bool {
        self.cached.is_some()
    }

    /// A hash of its weights and statistics: 16 hexadecimal digits, the same for the same bits.
    ///
    /// # Errors
    /// A lost device.
    pub fn hash(&self) -> Result<String> {
        if self.params.gpu().is_dry() {
            return Ok("dry".into());
        }
        let mut text = String::new();
        for (name, tensor) in state_dict::to_archive(&self.params)?.tensors {
            if let HostTensor::F32(shape, data) = tensor {
                text.push_str(&format!("{name} {shape} {:016x}\n", fnv(bytemuck::cast_slice(&data))));
            }
        }
        Ok(format!("{:016x}", fnv(text.as_bytes())))
    }

    /// What images are multiplied by and raised by, channel by channel; none where it takes them as
    /// they are.
    ///
    /// # Errors
    /// A lost device.
    pub fn renormalization(&self) -> Result<Option<[Vec<f32>; 2]>> {
        let Some([scale, shift]) = &self.renormalize else { return Ok(None) };
        Ok(Some([scale.to_vec()?, shift.to_vec()?]))
    }

    fn renormalized_images(&self, images: &Tensor) -> Result<Tensor> {
        match &self.renormalize {
            Some([scale, shift]) => fuse([images, scale, shift], |[x, scale, shift]| x * scale + shift),
            None => Ok(images.clone()),
        }
    }

    /// Its logits `[N, K]` of `images` `[N, H, W, C]`, which have the places `indices` in the data
    /// set.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is an encoder without a classifier; those of its operators.
    pub fn logits(&self, images: &Tensor, indices: &Tensor) -> Result<Tensor> {
        if let Some(cached) = &self.cached {
            return cached.index_select(0, indices);
        }
        if self.network.classifier().is_none() {
            let message = "it is an encoder without a classifier; train one, or learn its features";
            return Err(Error::argument(format!("teacher {}", self.name), message));
        }
        self.network.forward(&self.renormalized_images(images)?, Mode::Eval)
    }

    /// Its features `[N, D]` of `images`.
    ///
    /// # Errors
    /// Those of its operators.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.network.backbone().forward(&self.renormalized_images(images)?, Mode::Eval)
    }

    /// Its maps `[N, h, w, K]` of `images`.
    ///
    /// # Errors
    /// Those of its operators.
    pub fn maps(&self, images: &Tensor) -> Result<Tensor> {
        self.network.backbone().forward_features(&self.renormalized_images(images)?, Mode::Eval)
    }
}
