//! Small grey images that a network can tell apart: a bright quarter on noise, one class for each quarter.

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
