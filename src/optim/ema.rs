//! Moving averages of parameters: teachers, target networks, averaged weights.

use crate::error::{Error, Result, require_share};
use crate::gpu::Scalar;
use crate::nn::Parameters;
use crate::ops::apply;
use crate::ops::optimizer::Scalars;
use crate::ops::optimizer::ema_update::EmaUpdate;
use crate::tensor::{DType, Tensor};

/// The average of a home of parameters, a dispatch a chunk. Running statistics are averaged by the
/// same rule and counts of batches are taken over, as in timm's `ModelEmaV3`, so that the average
/// is ready for evaluation; those of a [`Self::teacher`] are left to it.
pub struct Ema {
    source: Parameters,
    average: Parameters,
    statistics: bool,
    scalars: Tensor,
}

impl Ema {
    /// An average that starts as a copy of `source`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(source: &Parameters) -> Result<Self> {
        let scalars = Tensor::zeros(source.gpu(), [Scalars::LENGTH], DType::F32)?;
        Ok(Self { source: source.clone(), average: source.snapshot()?, statistics: true, scalars })
    }

    /// As [`Self::new`], of the trained values alone: for a network that runs in training mode on
    /// batches of its own, whose running statistics follow these.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn teacher(source: &Parameters) -> Result<Self> {
        Ok(Self { statistics: false, ..Self::new(source)? })
    }

    /// The averaged parameters: make the same model from them.
    pub fn parameters(&self) -> &Parameters {
        &self.average
    }

    /// Becomes a copy of the source once more, running statistics included.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn reset(&self) -> Result<()> {
        self.check()?;
        self.average.copy_from(&self.source)
    }

    /// The slabs of both, which must be of one layout.
    fn check(&self) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let chunks = |home: &Parameters| home.values().into_iter().chain(home.statistics()).collect::<Vec<_>>();
        let (sources, averages) = (chunks(&self.source), chunks(&self.average));
        if sources.iter().map(Tensor::numel).ne(averages.iter().map(Tensor::numel)) {
            return Err(Error::argument("ema", "the source has other parameters than when the average was made; make the average last"));
        }
        Ok((sources, averages))
    }

    /// `average = momentum * average + (1 - momentum) * source`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a momentum outside 0..=1, or where parameters were added to the
    /// source since the average was made; a lost device.
    pub fn update(&self, momentum: impl Into<Scalar>) -> Result<()> {
        let (sources, averages) = self.check()?;
        let momentum = momentum.into();
        require_share("ema", "momentum", momentum.get())?;
        self.scalars.write_scalars(&Scalars { ema_momentum: momentum, ..Scalars::default() }.to_array())?;
        let count = if self.statistics { averages.len() } else { self.average.values().len() };
        for (average, source) in averages.iter().zip(&sources).take(count) {
            apply(EmaUpdate, &[average, source, &self.scalars])?;
        }
        if self.statistics {
            self.average.take_counters(&self.source);
        }
        self.average.bump_versions(self.statistics);
        Ok(())
    }
}
