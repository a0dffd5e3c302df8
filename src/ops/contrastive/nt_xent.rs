//! NT-Xent (Chen et al. 2020, SimCLR, equation 1) in memory that grows with the batch: `pairs` says
//! how.

use super::pairs::{
    self, Kind, Pairs, Rows, check_batch, check_rows, check_temperature, dot, input_gradients, log_sum_exp, loss_specs, rows_specs,
    saved_rows, scalar, specs, unit_rows,
};
use crate::error::Result;
use crate::gpu::Scalar;
use crate::ops::entry::Entry;
use crate::ops::sample::{Bad, Input, Sample, indices, normal};
use crate::ops::{Array, Autocast, Backward, Cost, Operator, Saves, Tolerance, apply_one, exactly};
use crate::tensor::{Spec, Tensor};

const NAME: &str = "nt_xent";

/// The loss of 2N views, `z1` and `z2` [N, D]: the mean over all rows i of -log softmax(similarity
/// / temperature) at the other view of i, over all rows but i.
#[derive(Debug, Clone)]
pub struct NtXent {
    /// Divides the cosines.
    pub temperature: Scalar,
}

impl NtXent {
    fn pairs<'a>(&'a self, rows: &'a Rows, n: usize) -> Pairs<'a> {
        Pairs { kind: Kind::Pairs, a: rows, b: rows, labels: None, rows: 2 * n, columns: 2 * n, half: n, temperature: &self.temperature }
    }
}

impl Operator for NtXent {
    fn name(&self) -> &str {
        NAME
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [z1, z2] = specs(NAME, inputs)?;
        check_temperature(NAME, &self.temperature)?;
        check_rows(NAME, ["z1", "z2"], [z1, z2])?;
        check_batch(NAME, ["z1", "z2"], [z1, z2])?;
        let rows = 2 * z1.shape.dim(0);
        let ([unit, inverse], [stats, weight, kept]) = (rows_specs(rows, z1.shape.last()), loss_specs(rows, rows));
        Ok(vec![Spec::f32([]), unit, inverse, stats, weight, kept])
    }

    fn forward(&self, inputs: &[&Tensor], _outputs: &[Spec]) -> Result<Vec<Tensor>> {
        let [z1, z2] = *exactly(NAME, inputs)?;
        let rows = Rows::new(z1.gpu(), &[z1, z2])?;
        let [loss, stats, weight, kept] = self.pairs(&rows, z1.shape().dim(0)).loss()?;
        Ok(vec![loss, rows.unit, rows.inverse, stats, weight, kept])
    }

    fn backward(&self, step: &Backward) -> Result<Vec<Option<Tensor>>> {
        let rows = saved_rows(step, 1)?;
        let n = step.input_spec(0)?.shape.dim(0);
        input_gradients(step, &self.pairs(&rows, n), 3, 2)
    }

    fn results(&self) -> usize {
        1
    }

    fn saves(&self) -> Saves {
        Saves { inputs: vec![], outputs: vec![1, 2, 3, 4, 5] }
    }

    fn differentiable(&self) -> Vec<usize> {
        vec![0, 1]
    }

    fn autocast(&self) -> Autocast {
        Autocast::Full
    }

    fn reference(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let [z1, z2] = exactly(NAME, inputs)?;
        let t = f64::from(self.temperature.get());
        let n = z1.shape.dim(0);
        let z: Vec<Vec<f64>> = unit_rows(z1).into_iter().chain(unit_rows(z2)).collect();
        let mut loss = 0.0;
        for (i, row) in z.iter().enumerate() {
            let similarity = |j: usize| z.get(j).map_or(f64::NAN, |other| dot(row, other) / t);
            let others: Vec<f64> = (0..2 * n).filter(|j| *j != i).map(similarity).collect();
            loss += log_sum_exp(&others) - similarity((i + n) % (2 * n));
        }
        Ok(scalar(loss / (2 * n) as f64))
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance { absolute: 1e-5, relative: 1e-4, reason: "f32 accumulation over features and rows" }
    }

    fn summed(&self, inputs: &[Array], gradient_of: Option<usize>) -> f64 {
        let t = f64::from(self.temperature.get());
        // (d - <d, u> u) / |x|, where d is a mean over rows of differences of rows of length 1,
        // over the temperature.
        let of = |x: &Array| 4.0 / (t * x.shape.dim(0) as f64 * x.shortest_row());
        gradient_of.and_then(|input| inputs.get(input)).map_or(0.0, of)
    }

    fn cost(&self, inputs: &[Spec], _outputs: &[Spec]) -> Cost {
        let (n, d) = inputs.first().map_or((0.0, 0.0), |z| (z.shape.dim(0) as f64, z.shape.last() as f64));
        let bytes: u64 = inputs.iter().map(Spec::bytes).sum();
        // A multiply-add for each of 2N x 2N pairs and D features, and about 8 operations for each
        // pair's place in the softmax.
        Cost { flops: 4.0 * n * n * (2.0 * d + 8.0), bytes: bytes as f64 + 4.0 }
    }
}

fn samples() -> Vec<Sample> {
    let on =
        |n: usize, d: usize, temperature: f32| Sample::new(NtXent { temperature: temperature.into() }, [normal([n, d]), normal([n, d])]);
    vec![
        on(1, 5, 0.5),
        on(3, 1, 0.2),
        on(5, 7, 0.5),
        on(33, 65, 0.1),
        on(65, 33, 0.01),
        Sample::new(NtXent { temperature: (0.5).into() }, [normal([7, 9]), Input::Same(0)]),
    ]
}

fn bad() -> Vec<Bad> {
    let loss = |temperature: f32| NtXent { temperature: temperature.into() };
    vec![
        Bad::new(loss(0.5), [normal([3, 4])], "takes 2 inputs, 1 were given"),
        Bad::new(loss(0.5), [normal([3, 4]), normal([3, 5])], "must have 4 features"),
        Bad::new(loss(0.5), [normal([3, 4]), normal([2, 4])], "must have as many rows"),
        Bad::new(loss(0.5), [normal([3]), normal([3])], "must be a matrix"),
        Bad::new(loss(0.5), [indices([3, 4], 2), normal([3, 4])], "must hold floats"),
        Bad::new(loss(0.5), [normal([0, 4]), normal([0, 4])], "is empty"),
        Bad::new(loss(0.0), [normal([3, 4]), normal([3, 4])], "temperature must be positive"),
    ]
}

pub(super) fn entry() -> Entry {
    Entry {
        name: NAME,
        module: module_path!(),
        inputs: &["z1", "z2"],
        outputs: &["loss"],
        kernels: pairs::LOSS,
        build: Box::new(|a| Ok(Box::new(NtXent { temperature: (a.number_or("temperature", 0.5)? as f32).into() }))),
        samples: Box::new(samples),
        bad: Box::new(bad),
    }
}

impl Tensor {
    /// The NT-Xent loss of two views' embeddings `self` and `z2`, both [N, D] and normalised here
    /// (Chen et al. 2020): the mean over the 2N rows of `-log(e^(s_ip / temperature) / sum over k
    /// != i of e^(s_ik / temperature))`, p the other view of i. A 2N x 2N matrix of more than 8 MiB
    /// is never stored.
    ///
    /// ```
    /// # fn main() -> wgrad::error::Result<()> {
    /// use wgrad::tensor::Tensor;
    ///
    /// let gpu = wgrad::gpu::Gpu::new()?;
    /// let view = Tensor::from_slice(&gpu, &[1.0f32, 0.0, 0.0, 1.0], [2, 2])?;
    /// let other = Tensor::from_slice(&gpu, &[0.0f32, 1.0, 1.0, 0.0], [2, 2])?;
    /// // Two views that agree cost less than two that do not.
    /// assert!(view.nt_xent(&view, 0.5)?.item()? < view.nt_xent(&other, 0.5)?.item()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Unequal shapes, no rows, integers, a temperature that is not positive; out of memory.
    pub fn nt_xent(&self, z2: &Tensor, temperature: impl Into<Scalar>) -> Result<Tensor> {
        apply_one(NtXent { temperature: temperature.into() }, &[self, z2])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gpu::{Gpu, GpuOptions, Schedule};
    use crate::tensor::DType;
    use crate::tensor::random::{Purpose, Stream};

    fn embedding(gpu: &Gpu, n: usize, d: usize, seed: u32) -> Tensor {
        let mut stream = Stream::new(seed, Purpose::Test);
        let data: Vec<f32> = (0..n * d).map(|_| stream.normal()).collect();
        Tensor::from_slice(gpu, &data, [n, d]).unwrap().watch()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        a.to_vec::<f32>().unwrap().iter().zip(b.to_vec::<f32>().unwrap()).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
    }

    #[test]
    fn agrees_with_the_unfused_path_and_repeats_its_bits() {
        for schedule in Schedule::ALL {
            let gpu = Gpu::with(GpuOptions { schedule: Some(schedule), poison: true, ..GpuOptions::from_env().unwrap() }).unwrap();
            // Similarities that are kept for the backward pass, and more than are.
            for (n, d) in [(70, 40), (740, 5)] {
                let (z1, z2) = (embedding(&gpu, n, d, 1), embedding(&gpu, n, d, 2));
                let fused = z1.nt_xent(&z2, 0.2).unwrap();
                let unfused = super::super::nt_xent_unfused(&z1, &z2, 0.2).unwrap();
                approx::assert_abs_diff_eq!(fused.item().unwrap(), unfused.item().unwrap(), epsilon = 1e-5);
                let (a, b) = (fused.backward().unwrap(), unfused.backward().unwrap());
                for z in [&z1, &z2] {
                    assert!(largest_difference(a.get(z).unwrap(), b.get(z).unwrap()) < 1e-6);
                }
                let again = z1.nt_xent(&z2, 0.2).unwrap().backward().unwrap();
                assert_eq!(again.get(&z1).unwrap().to_vec::<f32>().unwrap(), a.get(&z1).unwrap().to_vec::<f32>().unwrap());
            }
        }
    }

    #[test]
    fn equal_embeddings_lose_the_logarithm_of_their_number() {
        let gpu = Gpu::with(GpuOptions::from_env().unwrap()).unwrap();
        let z = Tensor::full(&gpu, [16, 8], 0.3, DType::F32).unwrap();
        approx::assert_abs_diff_eq!(z.nt_xent(&z, 0.5).unwrap().item().unwrap(), 31.0f32.ln(), epsilon = 1e-5);
    }

    #[test]
    fn memory_grows_with_the_batch_and_not_with_its_square() {
        let gpu = Gpu::with(GpuOptions::from_env().unwrap()).unwrap();
        let (z1, z2) = (embedding(&gpu, 1024, 128, 1), embedding(&gpu, 1024, 128, 2));
        let before = gpu.memory().peak;
        let started = std::time::Instant::now();
        let gradients = z1.nt_xent(&z2, 0.1).unwrap().backward().unwrap();
        gpu.synchronize().unwrap();
        let used = gpu.memory().peak - before;
        eprintln!("2N = 2048, D = 128: {:?}, {} KiB more than the inputs", started.elapsed(), used >> 10);
        assert!(gradients.get(&z1).is_some());
        assert!(used < 16 << 20, "{used} bytes");
    }

    #[test]
    fn takes_half_precision_embeddings() {
        let gpu = Gpu::with(GpuOptions::from_env().unwrap()).unwrap();
        if !gpu.capabilities().f16 {
            let refused = crate::tensor::Tensor::zeros(&gpu, [1], crate::tensor::DType::F16);
            assert!(matches!(refused, Err(crate::error::Error::Limit { .. })));
            return;
        }
        let [half, full] = [crate::tensor::DType::F16, crate::tensor::DType::F32].map(|dtype| {
            let data: Vec<f64> = (0..35).map(|i| f64::from(i * 11 % 17) / 8.0 - 1.0).collect();
            let z = Array { dtype, ..Array::new([5, 7], data) }.upload(&gpu).unwrap().watch();
            let loss = z.nt_xent(&z, 0.5).unwrap();
            let gradients = loss.backward().unwrap();
            (loss.item().unwrap(), gradients.get(&z).unwrap().to_f64().unwrap())
        });
        assert_eq!(half.0, full.0);
        assert!(half.1.iter().zip(&full.1).all(|(h, f)| (h - f).abs() < 1e-4));
    }
}
