//! Augmentation in captured steps: replays give the bits of the same steps run anew.

use crate::common::gpu;
use wgrad::capture::Capture;
use wgrad::data::{Augmentation, DeviceBatch};
use wgrad::gpu::ScalarCell;
use wgrad::tensor::Tensor;
use wgrad::tensor::random::{Purpose, Stream};

#[test]
fn replayed_views_are_the_views_themselves() {
    let gpu = gpu();
    let (n, side) = (5, 17);
    for name in Augmentation::PRESETS {
        let channels = if name.starts_with("grey") { 1 } else { 3 };
        let pipeline = Augmentation::preset(name, 7, [side, side]).unwrap();
        let epoch = ScalarCell::new(0u32);
        let mut capture = Capture::new(&gpu);
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for step in 0..4u32 {
            let mut stream = Stream::new(step / 2, Purpose::Test);
            let pixels: Vec<f32> = (0..n * side * side * channels).map(|_| stream.uniform()).collect();
            let places: Vec<i32> = (0..n as i32).map(|i| i * 11 + step as i32 / 2).collect();
            let inputs = vec![
                Tensor::from_slice(&gpu, &pixels, [n, side, side, channels]).unwrap(),
                Tensor::from_slice(&gpu, &places, [n]).unwrap(),
            ];
            epoch.set(step);
            let view = |inputs: &Vec<Tensor>| DeviceBatch {
                inputs: inputs[0].clone(),
                pictures: None,
                labels: inputs[1].clone(),
                indices: inputs[1].clone(),
            };
            let replayed = capture.run(&inputs, |inputs| pipeline.apply(&view(inputs), &epoch, 1)).unwrap();
            let bits = |images: &Tensor| images.to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let anew = pipeline.apply(&view(&inputs), step, 1).unwrap();
            assert_eq!(bits(&replayed), bits(&anew), "{name}, step {step}");
            assert!(name == "none" || !seen.contains(&bits(&anew)), "{name}: step {step} repeats another");
            seen.push(bits(&anew));
        }
        assert!(capture.program().is_some());
    }
}
