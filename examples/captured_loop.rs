//! A network and a training loop of one's own, recorded once and replayed: needs nothing but the
//! engine.
//!
//!     cargo run --release --no-default-features --example captured_loop

use wgrad::prelude::*;
use wgrad::tensor::random::{Purpose, Stream};

/// Two layers that tell the inside of a circle from its outside.
struct Circle {
    first: Linear,
    last: Linear,
}

impl Circle {
    fn forward(&self, points: &Tensor) -> Result<Tensor> {
        self.last.forward(&self.first.forward(points, Mode::Train)?.relu()?, Mode::Train)
    }
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let params = Parameters::new(&gpu, 0);
    let model = Circle { first: Linear::new(&params, "first", 2, 32)?, last: Linear::new(&params, "last", 32, 2)? };
    let mut optimizer = Adam::new(&params, AdamOptions::default())?;
    let (mut step, rate) = (Capture::new(&gpu), ScalarCell::new(0.02f32));
    for number in 0..300 {
        let mut stream = Stream::new(number, Purpose::Shuffle);
        let points: Vec<f32> = (0..256).map(|_| stream.normal()).collect();
        let inside: Vec<i32> = points.chunks(2).map(|p| i32::from(p.iter().map(|v| v * v).sum::<f32>() < 1.4)).collect();
        let batch = (Tensor::from_slice(&gpu, &points, [128, 2])?, Tensor::from_slice(&gpu, &inside, [128])?);
        rate.set(0.02 * (1.0 - number as f32 / 300.0)); // varies from replay to replay
        let loss = step.run(&batch, |(points, inside)| {
            let loss = model.forward(points)?.cross_entropy(inside, 0.0)?;
            optimizer.step(&loss.backward()?, &rate)?;
            Ok(loss)
        })?;
        if number % 50 == 0 || number == 299 {
            println!("step {number:3}  loss {:.3}", loss.item()?);
        }
    }
    Ok(())
}
