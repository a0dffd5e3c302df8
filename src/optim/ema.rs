//! Moving averages of parameters: teachers, target networks, averaged weights.

use crate::error::{Error, Result};
use crate::gpu::Scalar;
use crate::nn::Parameters;
use crate::ops::apply;
use crate::ops::optimizer::Scalars;
use crate::ops::optimizer::ema_update::EmaUpdate;
use crate::tensor::{DType, Tensor};

/// The average of a home of parameters, a dispatch a chunk. Running statistics are not averaged.
pub struct Ema {
    source: Parameters,
    average: Parameters,
    scalars: Tensor,
}

impl Ema {
    /// An average that starts as a copy of `source`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(source: &Parameters) -> Result<Self> {
        let scalars = Tensor::zeros(source.gpu(), [Scalars::LENGTH], DType::F32)?;
        Ok(Self { source: source.clone(), average: source.snapshot()?, scalars })
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
        let (sources, averages) = (self.source.values(), self.average.values());
        if sources.iter().map(Tensor::elements).ne(averages.iter().map(Tensor::elements)) {
            return Err(Error::argument("ema", "the source has other parameters than when the average was made; make the average last"));
        }
        Ok((sources, averages))
    }

    /// `average = momentum * average + (1 - momentum) * source`.
    ///
    /// # Errors
    /// [`Error::Argument`] where parameters were added to the source since the average was made; a lost device.
    pub fn update(&self, momentum: impl Into<Scalar>) -> Result<()> {
        let (sources, averages) = self.check()?;
        self.scalars.write_scalars(&Scalars { ema_momentum: momentum.into(), ..Scalars::default() }.to_array())?;
        for (average, source) in averages.iter().zip(&sources) {
            apply(EmaUpdate, &[average, source, &self.scalars])?;
        }
        self.average.raise_versions();
        Ok(())
    }
}
