//! Small grey images that a network can tell apart: a bright quarter on noise, one class for each
//! quarter.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wgrad::data::Dataset;
use wgrad::tensor::random::{Purpose, Stream};

pub const SIDE: usize = 16;
pub const CLASSES: usize = 4;

/// `count` images, NHWC, and their labels.
pub fn images(count: usize) -> (Vec<u8>, Vec<u8>) {
    let mut stream = Stream::keyed(3, Purpose::Test.key(), 0);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..count {
        let class = index % CLASSES;
        for at in 0..SIDE * SIDE {
            let quarter = at / SIDE / (SIDE / 2) * 2 + at % SIDE / (SIDE / 2);
            pixels.push(stream.below(120) as u8 + if quarter == class { 100 } else { 0 });
        }
        labels.push(class as u8);
    }
    (pixels, labels)
}

/// The same as a data set.
pub fn dataset(count: usize) -> Arc<Dataset> {
    let (pixels, labels) = images(count);
    let names = (0..CLASSES).map(|i| format!("quarter {i}")).collect();
    Arc::new(Dataset::new("tiny", [SIDE, SIDE, 1], pixels, labels.into_iter().map(i32::from).collect(), names).unwrap())
}

pub fn idx(dimensions: &[usize], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|d| bytes.extend((*d as u32).to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A data set in MNIST's files: 96 images to learn from, 40 to test on.
pub fn data_called(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    for (name, count) in [("train", 96), ("t10k", 40)] {
        let (pixels, labels) = images(count);
        fs::write(folder.join(format!("{name}-images-idx3-ubyte")), idx(&[count, SIDE, SIDE], &pixels)).unwrap();
        fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), idx(&[count], &labels)).unwrap();
    }
    folder
}
