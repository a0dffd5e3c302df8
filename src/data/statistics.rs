//! What images are normalised by.

/// Mean and standard deviation of each channel, of pixels scaled to 0..1.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// One mean a channel.
    pub mean: Vec<f32>,
    /// One standard deviation a channel; 1 for a channel that is constant, so that dividing by it
    /// is safe.
    pub std: Vec<f32>,
}

/// Exact sums over pixels, which statistics are made of.
pub(super) struct ChannelSums {
    /// Of values and of their squares, a pair a channel.
    sums: Vec<(u64, u64)>,
    pixels: u64,
}

impl ChannelSums {
    pub fn new(channels: usize) -> Self {
        Self { sums: vec![(0, 0); channels], pixels: 0 }
    }

    /// Adds pixels, NHWC.
    pub fn add(&mut self, pixels: &[u8]) {
        for pixel in pixels.chunks_exact(self.sums.len().max(1)) {
            for ((sum, squares), &value) in self.sums.iter_mut().zip(pixel) {
                *sum += u64::from(value);
                *squares += u64::from(value) * u64::from(value);
            }
            self.pixels += 1;
        }
    }

    pub fn statistics(self) -> ChannelStatistics {
        let count = self.pixels as f64;
        let of = |(sum, squares): (u64, u64)| {
            let mean = sum as f64 / count;
            let std = (squares as f64 / count - mean * mean).max(0.0).sqrt();
            ((mean / 255.0) as f32, if std > 0.0 { (std / 255.0) as f32 } else { 1.0 })
        };
        let (mean, std) = self.sums.into_iter().map(of).unzip();
        ChannelStatistics { mean, std }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::dataset::Dataset;
    use super::super::dataset::tests::small;
    use super::*;

    #[test]
    fn statistics_per_channel() {
        let pixels = vec![0, 255, 7, 255, 255, 7];
        let dataset = Dataset::new("x", [1, 2, 3], pixels, vec![0], vec!["a".to_string()]).unwrap();
        let ChannelStatistics { mean, std } = dataset.statistics().unwrap();
        assert_eq!(mean, [0.5, 1.0, 7.0 / 255.0]);
        assert_eq!(std, [0.5, 1.0, 1.0]);
        let other = small(5);
        let part = other.clone().normalized_as(&dataset).unwrap().subset(&[1]).unwrap();
        assert_eq!(part.statistics(), dataset.statistics());
        assert_ne!(other.statistics(), dataset.statistics());
    }
}
