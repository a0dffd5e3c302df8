//! Counter-based random numbers: Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw,
//! "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A counter-based generator is a function: the same key and counter always give the same bits, and
//! no state is shared. So the order of data, initial values, augmentation and dropout do not depend
//! on threads, batch size or schedule, and a run can be resumed anywhere.
//! `shaders/include/random.wgsl` has the same function for kernels, bit for bit.
//!
//! A key is (seed, purpose): two uses with one seed never see the same numbers. See [`Purpose`].

use super::{Shape, Spec, Tensor};
use crate::error::Result;
use crate::gpu::Gpu;

/// What random numbers are drawn for: the second word of the key.
///
/// Purposes lie 2^24 apart, so each has room for numbered keys of its own: see
/// [`Purpose::numbered`]. Changing a value changes every run with a given seed, so they are never
/// reused or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// Initial values of parameters; numbered by parameter.
    Initialise = 0x0100_0000,
    /// The order of a data set; a sequence is an epoch.
    Shuffle = 0x0200_0000,
    /// Augmentation of images; the counter is built from epoch, data-set index, view and draw.
    Augment = 0x0300_0000,
    /// Dropout and stochastic depth; numbered by layer.
    Dropout = 0x0400_0000,
    /// What a method draws for an image: masks of patches, permutations of tiles, noise; numbered
    /// by step and block of numbers.
    Mask = 0x0500_0000,
    /// Dividing a data set into parts; numbered by class.
    Split = 0x0600_0000,
    /// Random tensors that a user asks for by `rand`, `randn` and the like.
    Sample = 0x0700_0000,
    /// Clustering: the first centroids, and reseeding of empty clusters.
    Cluster = 0x0800_0000,
    /// Tests and benchmarks.
    Test = 0x0900_0000,
    /// How images of a batch are mixed; a sequence is a step.
    Mix = 0x0a00_0000,
}

impl Purpose {
    /// The second word of the key.
    pub const fn key(self) -> u32 {
        self as u32
    }

    /// The key of one layer, parameter or class. Numbers of 2^24 and more would run into the next
    /// purpose; nothing has so many.
    pub const fn numbered(self, number: u32) -> u32 {
        (self as u32).wrapping_add(number)
    }
}

/// Rotations of an odd group of four rounds, and of an even one.
const ODD: [u32; 4] = [13, 15, 26, 6];
const EVEN: [u32; 4] = [17, 29, 16, 24];

/// Makes the third word of the key schedule from the other two (Skein's constant).
const PARITY: u32 = 0x1BD1_1BDA;

/// Threefry-2x32-20: 64 random bits for a key and a counter.
pub const fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let [k0, k1] = key;
    let k2 = PARITY ^ k0 ^ k1;
    // Five groups of four rounds; words of the key and the group's number are added after each.
    let x = inject(counter, k0, k1, 0);
    let x = inject(four_rounds(x, ODD), k1, k2, 1);
    let x = inject(four_rounds(x, EVEN), k2, k0, 2);
    let x = inject(four_rounds(x, ODD), k0, k1, 3);
    let x = inject(four_rounds(x, EVEN), k1, k2, 4);
    inject(four_rounds(x, ODD), k2, k0, 5)
}

const fn four_rounds(x: [u32; 2], [a, b, c, d]: [u32; 4]) -> [u32; 2] {
    round(round(round(round(x, a), b), c), d)
}

const fn round([x0, x1]: [u32; 2], rotation: u32) -> [u32; 2] {
    let sum = x0.wrapping_add(x1);
    [sum, x1.rotate_left(rotation) ^ sum]
}

const fn inject([x0, x1]: [u32; 2], first: u32, second: u32, group: u32) -> [u32; 2] {
    [x0.wrapping_add(first), x1.wrapping_add(second).wrapping_add(group)]
}

/// A float in [0, 1) from the top 24 bits: every value is a multiple of 2^-24, and exact.
pub const fn uniform_from_bits(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A sequence of random numbers: the counter counts up.
///
/// Two streams with equal arguments give equal numbers; streams that differ in seed, key or
/// sequence are independent.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    counter: u64,
    /// The second word of the last block, while it is unused.
    spare: Option<u32>,
    /// The second of the last pair of normal numbers, while it is unused.
    spare_normal: Option<f32>,
}

impl Stream {
    /// The stream of a seed for a purpose.
    pub const fn new(seed: u32, purpose: Purpose) -> Self {
        Self::keyed(seed, purpose.key(), 0)
    }

    /// One of many streams of a seed: `key` comes from [`Purpose::key`] or [`Purpose::numbered`],
    /// `sequence` is for instance an epoch. A sequence holds 2^33 words; the next then follows.
    pub const fn keyed(seed: u32, key: u32, sequence: u32) -> Self {
        let counter = (sequence as u64) << 32;
        Self { key: [seed, key], counter, spare: None, spare_normal: None }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if let Some(word) = self.spare.take() {
            return word;
        }
        let counter = [self.counter as u32, (self.counter >> 32) as u32];
        self.counter = self.counter.wrapping_add(1);
        let [first, second] = threefry2x32(self.key, counter);
        self.spare = Some(second);
        first
    }

    /// A float in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        uniform_from_bits(self.next_u32())
    }

    /// An integer in `0..n`, each equally likely; 0 where `n` is 0.
    ///
    /// Lemire, "Fast random integer generation in an interval" (2019): the high word of a product,
    /// where the few low words that would favour some results are drawn again.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        // 2^32 mod n: so many low words are one too many.
        let surplus = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product as u32 >= surplus {
                return (product >> 32) as u32;
            }
        }
    }

    /// A standard normal number, by Box and Muller's transform.
    ///
    /// Computed in f64 and rounded once. Logarithm, sine and cosine are the platform's, so the last
    /// bit may differ between platforms; the integers behind it do not.
    pub fn normal(&mut self) -> f32 {
        if let Some(number) = self.spare_normal.take() {
            return number;
        }
        // Half a step up, so that the logarithm never sees 0: no result exceeds 6.8.
        let radius_bits = (f64::from(self.next_u32()) + 0.5) / 4_294_967_296.0;
        let angle = f64::from(self.next_u32()) / 4_294_967_296.0 * std::f64::consts::TAU;
        let radius = (-2.0 * radius_bits.ln()).sqrt();
        self.spare_normal = Some((radius * angle.sin()) as f32);
        (radius * angle.cos()) as f32
    }

    /// A tensor of standard normal numbers.
    ///
    /// # Errors
    /// As [`Tensor::empty`]; nothing is drawn then.
    pub fn normals(&mut self, gpu: &Gpu, shape: impl Into<Shape>) -> Result<Tensor> {
        let spec = Spec::f32(shape);
        spec.check_room("normals", gpu)?;
        let numbers: Vec<f32> = (0..spec.shape.numel()).map(|_| self.normal()).collect();
        Tensor::from_slice(gpu, &numbers, spec.shape)
    }

    /// The numbers `0..n` in random order, each order equally likely (Fisher and Yates).
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for last in (1..n).rev() {
            let other = self.below(last + 1);
            order.swap(last as usize, other as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// `threefry2x32 20` of Random123's `kat_vectors`.
    #[test]
    fn known_answers() {
        let cases = [
            ([0, 0], [0, 0], [0x6b20_0159, 0x99ba_4efe]),
            ([u32::MAX; 2], [u32::MAX; 2], [0x1cb9_96fc, 0xbb00_2be7]),
            ([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3], [0xc492_3a9c, 0x483d_f7a0]),
        ];
        for (key, counter, expected) in cases {
            assert_eq!(threefry2x32(key, counter), expected, "key {key:x?}, counter {counter:x?}");
        }
    }

    #[test]
    fn stream_counts_through_sequence_and_carries() {
        let key = [7, Purpose::Shuffle.key()];
        let mut stream = Stream::keyed(7, key[1], 3);
        for position in 0..5 {
            let [first, second] = threefry2x32(key, [position, 3]);
            assert_eq!((stream.next_u32(), stream.next_u32()), (first, second));
        }
        stream.counter = (4 << 32) - 1;
        assert_eq!(stream.next_u32(), threefry2x32(key, [u32::MAX, 3])[0]);
        stream.next_u32();
        assert_eq!(stream.next_u32(), threefry2x32(key, [0, 4])[0]);
    }

    #[test]
    fn seeds_purposes_numbers_and_sequences_differ() {
        let first = |mut s: Stream| s.next_u32();
        let key = Purpose::Dropout.key();
        let mut seen = vec![
            first(Stream::new(1, Purpose::Dropout)),
            first(Stream::new(2, Purpose::Dropout)),
            first(Stream::new(1, Purpose::Mask)),
            first(Stream::keyed(1, Purpose::Dropout.numbered(1), 0)),
            first(Stream::keyed(1, key, 1)),
        ];
        assert_eq!(seen[0], first(Stream::keyed(1, key, 0)));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn uniform_reaches_both_ends_and_stays_below_one() {
        assert_eq!(uniform_from_bits(0), 0.0);
        assert_eq!(uniform_from_bits(255), 0.0);
        assert_eq!(uniform_from_bits(u32::MAX), 1.0 - 1.0 / 16_777_216.0);
        let mut stream = Stream::new(0, Purpose::Test);
        let mean = (0..100_000).map(|_| f64::from(stream.uniform())).sum::<f64>() / 1e5;
        // The standard error of the mean is 0.2887 / sqrt(1e5) = 0.0009.
        approx::assert_abs_diff_eq!(mean, 0.5, epsilon = 0.004);
    }

    #[test]
    fn below_is_in_range_and_even() {
        let mut stream = Stream::new(3, Purpose::Test);
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.below(1), 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1;
        }
        // The standard deviation of a count is sqrt(70000 * 6) / 7 = 93.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 450), "{counts:?}");
        // Without rejection, multiples of 3 would come in 1 of 2 draws below 3 * 2^30. The standard
        // deviation is 82.
        let multiples = (0..30_000).filter(|_| stream.below(3 << 30).is_multiple_of(3)).count();
        assert!(multiples.abs_diff(10_000) < 400, "{multiples}");
    }

    #[test]
    fn normal_has_the_right_moments() {
        let mut stream = Stream::new(4, Purpose::Test);
        let numbers: Vec<f64> = (0..100_000).map(|_| f64::from(stream.normal())).collect();
        let moment = |k: i32| numbers.iter().map(|x| x.powi(k)).sum::<f64>() / 1e5;
        // Standard errors: 0.0032, 0.0045, 0.012, 0.031.
        assert!(moment(1).abs() < 0.015, "{}", moment(1));
        approx::assert_abs_diff_eq!(moment(2), 1.0, epsilon = 0.02);
        assert!(moment(3).abs() < 0.06, "{}", moment(3));
        approx::assert_abs_diff_eq!(moment(4), 3.0, epsilon = 0.15);
        let pairs: f64 = numbers.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / 1e5;
        assert!(pairs.abs() < 0.015, "neighbours correlate: {pairs}");
        assert!(numbers.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn permutation_holds_every_number_once() {
        let mut stream = Stream::new(5, Purpose::Test);
        assert!(stream.permutation(0).is_empty());
        assert_eq!(stream.permutation(1), [0]);
        let mut order = stream.permutation(1000);
        assert!(order.windows(2).any(|w| w[0] > w[1]));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn permutations_are_equally_likely() {
        let mut stream = Stream::new(6, Purpose::Test);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            *counts.entry(stream.permutation(4)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        // The standard deviation of a count is about sqrt(1000) = 31.
        assert!(counts.values().all(|&c| c.abs_diff(1000) < 160), "{counts:?}");
    }
}
