//! A MobileNet learns to name clothes: one epoch over the bundled photographs.
//! `cargo run --release --example train_mobilenet`
use std::path::Path;
use std::sync::Arc;

use wgrad::data::{Augmentation, DeviceBatch, Loader, Split, open};
use wgrad::error::Result;
use wgrad::evaluate::evaluate;
use wgrad::gpu::Gpu;
use wgrad::models::{Classifier, MobileNet, MobileNetConfig};
use wgrad::nn::{Mode, Module, Parameters};
use wgrad::optim::{Optimizer, Schedule, Sgd, SgdOptions};

const BATCH: usize = 100;
const SEED: u32 = 0;

fn main() -> Result<()> {
    let gpu = Gpu::new()?; // the best adapter, or WGRAD_ADAPTER
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/fashion-mnist"));
    let (train, test) = (Arc::new(open(folder, Split::Train)?), Arc::new(open(folder, Split::Test)?));
    let [height, width, channels] = train.image_size()?;
    println!("{}: {} images of {height} x {width} to learn from", gpu.capabilities().name, train.len());

    let params = Parameters::new(&gpu, SEED); // one home for all weights of a run
    let config = MobileNetConfig { channels, stem_stride: 1, ..MobileNetConfig::v1(0.25)? };
    let model = Classifier::new(&params, MobileNet::new(&params, &config)?, train.classes())?;
    let mut optimizer = Sgd::new(&params, SgdOptions { momentum: 0.9, nesterov: true, ..Default::default() })?;

    let clean = Augmentation::preset("none", SEED, [height, width])?.normalized(&train.statistics()?);
    let loader = Loader::training(train, BATCH, SEED)?;
    let schedule = Schedule::one_cycle(0.2, loader.batches() as u64);

    let begun = std::time::Instant::now();
    for (step, batch) in loader.epoch(0).enumerate() {
        let batch = DeviceBatch::upload(&gpu, &batch?)?;
        let images = clean.apply(&batch, 0, 0)?; // [N, H, W, C]
        let logits = model.forward(&images, Mode::Train)?; // [N, classes]
        let loss = logits.cross_entropy(&batch.labels, 0.1)?;
        optimizer.step(&loss.backward()?, schedule.rate(step as u64))?;
        if step % 10 == 9 {
            // Reading a value waits for the device, so this is done now and then.
            println!("step {:3} of {}: loss {:.3}", step + 1, loader.batches(), loss.item()?);
        }
    }
    println!("{:.1} s for one epoch", begun.elapsed().as_secs_f64());
    println!("{:.1} % of {} test images right", 100.0 * evaluate(&gpu, &model, &test, &clean)?.accuracy(), test.len());
    Ok(())
}
