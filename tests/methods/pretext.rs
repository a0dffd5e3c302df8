//! Pretext tasks and autoencoders: what is drawn is what the papers say, losses see what they
//! should, and captured steps are the steps.

use std::collections::BTreeSet;

use crate::common::gpu;
use wgrad::capture::Capture;
use wgrad::gpu::{Gpu, Scalar, ScalarCell};
use wgrad::methods::{
    Autoencoder, AutoencoderConfig, Batch, Jigsaw, JigsawConfig, JigsawInput, Mae, MaeConfig, Method, MethodContext, MethodFactory,
    Rotation, TrainStep, Vae, VaeConfig, permutations, rotations,
};
use wgrad::models::{Architecture, Backbone, PixelsConfig, SmallCnnConfig, VitConfig};
use wgrad::nn::{Mode, Parameters, state_dict};
use wgrad::optim::{AdamOptions, AdamW, Optimizer};
use wgrad::tensor::random::{Purpose, Stream};
use wgrad::tensor::{DType, InputShape, Tensor};

const IMAGE: [usize; 3] = [12, 12, 1];
const N: usize = 16;

fn cnn() -> SmallCnnConfig {
    SmallCnnConfig { channels: IMAGE[2], widths: [8, 16, 16] }
}

fn vit() -> VitConfig {
    let small = VitConfig::named("tiny", 3, IMAGE[0]).unwrap();
    VitConfig { channels: IMAGE[2], features: 16, depth: 2, heads: 2, ..small }
}

fn make<M: MethodFactory>(params: &Parameters, architecture: &dyn Architecture, config: M::Config) -> M {
    let build = |params: &Parameters| architecture.build(params);
    M::new(params, &build, config, &MethodContext { input: InputShape::Image(IMAGE), seed: 5, ..MethodContext::default() })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Images with something to learn: a ramp whose direction and steepness are the image's own, with a
/// little noise.
fn images(gpu: &Gpu, places: &[i32]) -> Tensor {
    let [h, w, c] = IMAGE;
    let image = |place: &i32| {
        let mut stream = Stream::keyed(2, Purpose::Test.key(), *place as u32);
        let (across, down) = (stream.normal() * 0.2, 0.1 + stream.uniform() * 0.2);
        (0..h * w * c).map(move |at| (at % w) as f32 * across + (at / w) as f32 * down - 1.0 + stream.normal() * 0.1).collect::<Vec<_>>()
    };
    let values: Vec<f32> = places.iter().flat_map(image).collect();
    Tensor::from_slice(gpu, &values, [places.len(), h, w, c]).unwrap()
}

fn indices(gpu: &Gpu, places: &[i32]) -> Tensor {
    Tensor::from_slice(gpu, places, [places.len()]).unwrap()
}

fn batch(gpu: &Gpu, places: &[i32], epoch: impl Into<Scalar<u32>>) -> Batch {
    let indices = indices(gpu, places);
    Batch { views: vec![images(gpu, places)], labels: indices.clone(), indices, epoch: epoch.into() }
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

fn rows(x: &Tensor) -> Vec<Vec<i32>> {
    x.to_vec::<i32>().unwrap().chunks(x.shape().last()).map(<[i32]>::to_vec).collect()
}

#[test]
fn rotations_are_rotations() {
    let gpu = gpu();
    let x = images(&gpu, &[1, 2, 3]);
    let turned = rotations(&x).unwrap();
    let quarter = |x: &Tensor, turn: usize| rotations(x).unwrap().slice(0, 3 * turn, 3 * turn + 3).unwrap();
    assert_eq!(floats(&quarter(&x, 0)), floats(&x));
    let mut around = x.clone();
    for turn in 1..=4 {
        around = quarter(&around, 1);
        assert_eq!(floats(&around), floats(&quarter(&x, turn % 4)), "{turn} quarters");
    }
    // Counterclockwise, as torch.rot90: the last column becomes the first row.
    let (source, side) = (floats(&x), IMAGE[0]);
    let found = floats(&turned)[3 * side * side..4 * side * side].to_vec();
    let expected: Vec<f32> = (0..side * side).map(|at| source[at % side * side + side - 1 - at / side]).collect();
    assert_eq!(found, expected);
    let error = rotations(&Tensor::zeros(&gpu, [1, 3, 4, 1], wgrad::tensor::DType::F32).unwrap()).unwrap_err().to_string();
    assert!(error.contains("squares"), "{error}");
}

/// Four images that know their rotation by themselves: a network that cannot learn anything is told
/// the labels through its input.
#[test]
fn labels_of_rotations_are_in_their_order() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 1);
    let method: Rotation = make(&params, &PixelsConfig { features: IMAGE.iter().product() }, Default::default());
    // Bright in one corner only, which moves on with each quarter: pixel and class are one to one.
    let side = IMAGE[0];
    let mut pixels = vec![0.0f32; side * side];
    pixels[0] = 30.0;
    let x = Tensor::from_slice(&gpu, &pixels, [1, side, side, 1]).unwrap();
    let corner = |turn: usize| [0, (side - 1) * side, side * side - 1, side - 1][turn];
    let turned = floats(&rotations(&x).unwrap());
    let mut weight = vec![0.0f32; 4 * side * side];
    for turn in 0..4 {
        assert_eq!(turned[turn * side * side + corner(turn)], 30.0);
        weight[turn * side * side + corner(turn)] = 1.0;
    }
    let head = |name: &str| params.get(&format!("rotation.0.{name}")).unwrap().detach().unwrap();
    head("weight").copy_from(&Tensor::from_slice(&gpu, &weight, [4, side * side]).unwrap()).unwrap();
    head("bias").copy_from(&Tensor::zeros(&gpu, [4], wgrad::tensor::DType::F32).unwrap()).unwrap();
    let labels = indices(&gpu, &[0]);
    let loss = method.loss(&Batch { views: vec![x], labels: labels.clone(), indices: labels, epoch: 0.into() }).unwrap().loss;
    assert!(loss.item().unwrap() < 1e-6, "{}", loss.item().unwrap());
}

#[test]
fn permutations_lie_far_apart() {
    for (tiles, count, nearest) in [(4, 24, 2), (4, 4, 4), (9, 9, 8), (9, 64, 6)] {
        let chosen = permutations(tiles, count, 3).unwrap();
        let distance = |a: &[u32], b: &[u32]| a.iter().zip(b).filter(|(a, b)| a != b).count();
        for (index, order) in chosen.iter().enumerate() {
            assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..tiles).collect());
            let least = chosen[..index].iter().map(|other| distance(order, other)).min().unwrap_or(9);
            assert!(least >= nearest, "{count} of {tiles}: number {index} is only {least} from another");
        }
        assert_eq!(chosen, permutations(tiles, count, 3).unwrap());
        assert_ne!(chosen, permutations(tiles, count, 4).unwrap());
    }
    assert!(permutations(4, 25, 0).unwrap_err().to_string().contains("2 to 24 for 4 tiles, found 25"));
}

#[test]
fn tiles_put_back_are_the_image() {
    let gpu = gpu();
    let places = [7, 0, 3, 9, 1];
    for (grid, gap, cut) in [(2, 0, 12), (3, 0, 12), (3, 1, 9), (5, 0, 10)] {
        let config = JigsawConfig { grid, gap, permutations: 20, ..Default::default() };
        let method: Jigsaw = make(&Parameters::new(&gpu, 1), &cnn(), config);
        let x = images(&gpu, &places);
        let tiles = method.tiles(&x).unwrap();
        let (labels, order) = method.puzzle(&indices(&gpu, &places), &2.into()).unwrap();
        let back: Vec<i32> = rows(&order)
            .iter()
            .flat_map(|row| (0..row.len() as i32).map(|tile| row.iter().position(|t| *t == tile).unwrap() as i32).collect::<Vec<_>>())
            .collect();
        let back = Tensor::from_slice(&gpu, &back, [places.len(), grid * grid]).unwrap();
        let shuffled = Jigsaw::shuffle(&tiles, &order).unwrap();
        assert_eq!(floats(&Jigsaw::shuffle(&shuffled, &back).unwrap()), floats(&tiles));
        let whole = method.assemble(&tiles).unwrap();
        assert_eq!(whole.shape().to_vec(), [places.len(), cut, cut, 1]);
        if gap == 0 {
            assert_eq!(floats(&whole), floats(&x.slice(1, 0, cut).unwrap().slice(2, 0, cut).unwrap()));
        }
        // The same place in the data set draws the same, wherever it is in the batch; another epoch
        // draws anew.
        let other = |places: &[i32], epoch: u32| method.puzzle(&indices(&gpu, places), &epoch.into()).unwrap().0.to_vec::<i32>().unwrap();
        let drawn: Vec<i32> = labels.to_vec().unwrap();
        assert_eq!(other(&[1, 9, 3, 0, 7], 2), drawn.iter().rev().copied().collect::<Vec<_>>());
        assert_ne!(other(&(0..40).collect::<Vec<_>>(), 3), other(&(0..40).collect::<Vec<_>>(), 2));
    }
    let method: Jigsaw = make(&Parameters::new(&gpu, 1), &cnn(), JigsawConfig::default());
    let drawn: Vec<i32> = method.puzzle(&indices(&gpu, &(0..4096).collect::<Vec<_>>()), &0.into()).unwrap().0.to_vec().unwrap();
    let count = |k: i32| drawn.iter().filter(|d| **d == k).count();
    // 4096 / 24 = 171 each, with a standard deviation of 13.
    assert!((0..24).all(|k| count(k).abs_diff(171) < 65), "{:?}", (0..24).map(count).collect::<Vec<_>>());
}

#[test]
fn masks_hide_their_share_and_follow_the_image() {
    let gpu = gpu();
    let method: Mae = make(&Parameters::new(&gpu, 1), &vit(), MaeConfig::default());
    let places: Vec<i32> = (0..64).collect();
    let [seen, hidden] = method.divide(&indices(&gpu, &places), &1.into()).unwrap();
    assert_eq!((seen.shape().to_vec(), hidden.shape().to_vec()), (vec![64, 4], vec![64, 12]));
    let parts: Vec<Vec<i32>> = rows(&seen).into_iter().zip(rows(&hidden)).map(|(a, b)| [a, b].concat()).collect();
    for row in &parts {
        assert_eq!(row.iter().copied().collect::<BTreeSet<_>>(), (0..16).collect());
    }
    let of = |places: &[i32], epoch: u32| rows(&method.divide(&indices(&gpu, places), &epoch.into()).unwrap()[1]);
    let reversed: Vec<i32> = places.iter().rev().copied().collect();
    assert_eq!(of(&reversed, 1), rows(&hidden).into_iter().rev().collect::<Vec<_>>());
    assert_ne!(of(&places, 2), rows(&hidden));
    // Each patch is hidden in 48 of 64 masks, with a standard deviation of 3.5.
    let counts: Vec<usize> = (0..16).map(|patch| rows(&hidden).iter().filter(|row| row.contains(&patch)).count()).collect();
    assert!(counts.iter().all(|count| count.abs_diff(48) < 18), "{counts:?}");
}

#[test]
fn the_masked_loss_is_of_hidden_patches_alone() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 1);
    let method: Mae = make(&params, &vit(), MaeConfig::default());
    let places = [4, 8];
    let x = images(&gpu, &places);
    let parts = method.divide(&indices(&gpu, &places), &0.into()).unwrap();
    let [seen, hidden] = &parts;
    let [predicted, _] = method.predict(&x, &parts).unwrap();
    // The images with a patch of the first changed.
    let changed = |patch: i32| {
        let mut values = floats(&x);
        let (row, column) = (patch as usize / 4 * 3, patch as usize % 4 * 3);
        values[row * 12 + column] += 1.0;
        Tensor::from_slice(&gpu, &values, x.shape()).unwrap()
    };
    let loss = |images: &Tensor| predicted.mse_loss(&method.target(images, hidden).unwrap()).unwrap().item().unwrap().to_bits();
    let (visible, covered) = (changed(rows(seen)[0][0]), changed(rows(hidden)[0][0]));
    assert_eq!(loss(&visible), loss(&x));
    assert_ne!(loss(&covered), loss(&x));
    // And the encoder sees the others alone.
    assert_eq!(floats(&method.predict(&covered, &parts).unwrap()[0]), floats(&predicted));
    assert_ne!(floats(&method.predict(&visible, &parts).unwrap()[0]), floats(&predicted));
    // Targets are the hidden patches in their order, each with mean 0 and (unbiased) variance 1.
    let target = floats(&method.target(&x, hidden).unwrap());
    let source = floats(&x);
    for (number, patch) in rows(hidden)[1].iter().enumerate() {
        let at = |i: usize| source[144 + (*patch as usize / 4 * 3 + i / 3) * 12 + *patch as usize % 4 * 3 + i % 3];
        let values: Vec<f64> = (0..9).map(|i| f64::from(at(i))).collect();
        let mean = values.iter().sum::<f64>() / 9.0;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 8.0;
        for (i, value) in values.iter().enumerate() {
            let expected = (value - mean) / (var + 1e-6).sqrt();
            approx::assert_abs_diff_eq!(f64::from(target[(12 + number) * 9 + i]), expected, epsilon = 1e-4);
        }
    }
    // The token API is the network: all patches encoded give the class token that the network
    // gives.
    let encoder = method.encoder().vit().unwrap();
    let whole = encoder.encode(&encoder.embed(&x, Mode::Eval).unwrap(), Mode::Eval).unwrap();
    let class = floats(&whole.slice(1, 0, 1).unwrap());
    let features = floats(&wgrad::nn::Module::forward(encoder, &x, Mode::Eval).unwrap());
    assert!(class.iter().zip(&features).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn a_masked_autoencoder_says_what_it_needs() {
    let gpu = gpu();
    let build_for = |image, config: MaeConfig, architecture: &dyn Architecture| {
        let build = |params: &Parameters| architecture.build(params);
        Mae::new(&Parameters::new(&gpu, 1), &build, config, &MethodContext { input: InputShape::Image(image), ..MethodContext::default() })
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(build_for([12, 15, 1], MaeConfig::default(), &vit()).contains("views of 12 x 15"));
    assert!(build_for(IMAGE, MaeConfig::default(), &cnn()).contains("vision transformer"));
    for mask_ratio in [0.0, 1.0, 0.95] {
        assert!(build_for(IMAGE, MaeConfig { mask_ratio, ..Default::default() }, &vit()).contains("mask_ratio"));
    }
    assert!(build_for(IMAGE, MaeConfig { decoder_features: 30, ..Default::default() }, &vit()).contains("multiple of 4, found 30"));
}

#[test]
fn the_divergence_of_the_prior_is_nothing() {
    let gpu = gpu();
    let of = |mu: &[f32], v: &[f32]| {
        let [mu, v] = [mu, v].map(|values| Tensor::from_slice(&gpu, values, [2, 3]).unwrap());
        Vae::divergence(&mu, &v).unwrap().item().unwrap()
    };
    assert_eq!(of(&[0.0; 6], &[0.0; 6]), 0.0);
    // (mu^2 + e^v - v - 1) / 2, summed over three latents, the mean of two images.
    approx::assert_abs_diff_eq!(of(&[2.0, 0.0, 0.0, 0.0, 0.0, 0.0], &[0.0; 6]), 1.0, epsilon = 1e-6);
    let one = (1f32.exp() - 2.0) / 2.0;
    approx::assert_abs_diff_eq!(of(&[0.0; 6], &[1.0; 6]), 3.0 * one, epsilon = 1e-5);
}

#[test]
fn codes_are_normal_around_their_means() {
    let gpu = gpu();
    let method: Vae = make(&Parameters::new(&gpu, 1), &cnn(), VaeConfig { latent: 33, ..Default::default() });
    let places: Vec<i32> = (0..512).collect();
    let fill = |value: f32| Tensor::full(&gpu, [512, 33], value, DType::F32).unwrap();
    let codes = |epoch: u32| floats(&method.sample(&fill(0.0), &fill(0.0), &indices(&gpu, &places), &epoch.into()).unwrap());
    let noise = codes(0);
    let moment = |k: i32| noise.iter().map(|v| f64::from(*v).powi(k)).sum::<f64>() / noise.len() as f64;
    // Standard errors of 16,896 numbers: 0.008, 0.011, 0.019, 0.075.
    let moments = [1, 2, 3, 4].map(moment);
    for ((found, expected), error) in moments.iter().zip([0.0, 1.0, 0.0, 3.0]).zip([0.04, 0.055, 0.095, 0.4]) {
        assert!((found - expected).abs() < error, "{moments:?}");
    }
    let neighbours = noise.windows(2).map(|w| f64::from(w[0] * w[1])).sum::<f64>() / noise.len() as f64;
    assert!(neighbours.abs() < 0.04, "{neighbours}");
    assert_ne!(codes(1), noise);
    let scaled = floats(&method.sample(&fill(3.0), &fill(4f32.ln()), &indices(&gpu, &places), &0.into()).unwrap());
    assert!(scaled.iter().zip(&noise).all(|(a, b)| (a - (3.0 + 2.0 * b)).abs() < 1e-4));
}

/// Ten steps of AdamW on the same images, captured or anew: their losses, and weights and
/// statistics.
fn train<M: MethodFactory>(
    gpu: &Gpu,
    mut capture: Capture<TrainStep>,
    architecture: &dyn Architecture,
    config: M::Config,
) -> (Vec<f32>, wgrad::io::Archive) {
    let params = Parameters::new(gpu, 3);
    let method: M = make(&params, architecture, config);
    let mut optimizer = AdamW::new(&params, AdamOptions::default()).unwrap();
    let epoch = ScalarCell::new(0);
    let places: Vec<i32> = (0..N as i32).collect();
    let inputs = vec![images(gpu, &places), indices(gpu, &places)];
    let mut losses = Vec::new();
    for step in 0..12 {
        epoch.set(step);
        let step = capture.run(&inputs, |inputs| {
            let [images, places] = inputs.as_slice() else { unreachable!() };
            let step = method.loss(&Batch {
                views: vec![images.clone()],
                labels: places.clone(),
                indices: places.clone(),
                epoch: (&epoch).into(),
            })?;
            optimizer.step(&method.gradients(&step)?, 0.003)?;
            method.after_update(&step)?;
            Ok(step)
        });
        let step = step.unwrap_or_else(|e| panic!("{}: {e}", method.name()));
        losses.push(step.loss.item().unwrap());
        assert_eq!(step.embeddings.len(), 1);
        assert_eq!((step.embeddings[0].shape().dim(0), step.embeddings[0].shape().rank()), (N, 2), "{}", method.name());
    }
    for head in method.heads() {
        assert!(params.slots().iter().any(|slot| slot.name.starts_with(&format!("{head}."))), "{}: no parameter in {head}", method.name());
    }
    (losses, state_dict::to_archive(&params).unwrap())
}

fn learns<M: MethodFactory>(architecture: &dyn Architecture, config: impl Fn() -> M::Config) {
    let gpu = gpu();
    let (losses, state) = train::<M>(&gpu, Capture::new(&gpu), architecture, config());
    let (anew, expected) = train::<M>(&gpu, Capture::eager(&gpu), architecture, config());
    let bits = |losses: &[f32]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&losses), bits(&anew), "captured steps differ");
    assert!(state == expected, "captured steps leave other weights");
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    assert!(mean(&losses[9..]) < 0.97 * mean(&losses[..3]), "{losses:?}");
}

#[test]
fn rotation_learns() {
    learns::<Rotation>(&cnn(), Default::default);
}

#[test]
fn jigsaw_learns() {
    // The permutation changes with every epoch, so few of them.
    let config = |sight| JigsawConfig { permutations: 2, sight, ..Default::default() };
    learns::<Jigsaw>(&cnn(), || config(JigsawInput::Image));
    learns::<Jigsaw>(&cnn(), || JigsawConfig { gap: 1, normalize_tiles: true, ..config(JigsawInput::Tiles) });
}

#[test]
fn a_masked_autoencoder_learns() {
    learns::<Mae>(&vit(), Default::default);
}

#[test]
fn autoencoders_learn() {
    learns::<Autoencoder>(&cnn(), Default::default);
    learns::<Autoencoder>(&cnn(), || AutoencoderConfig { noise: 0.5, ..Default::default() });
    learns::<Autoencoder>(&vit(), Default::default);
    learns::<Vae>(&cnn(), Default::default);
}

#[test]
fn one_image_is_enough_for_each_method_and_more_views_than_it_takes_are_too_many() {
    let gpu = gpu();
    let check = |method: &dyn Method, views: usize, words: &str| {
        let one = batch(&gpu, &[3], 0);
        assert!(method.loss(&one).unwrap().loss.item().unwrap().is_finite(), "{}", method.name());
        let views = vec![one.views[0].clone(); views];
        let error = method.loss(&Batch { views, ..one }).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(method.name()) && error.contains(words), "{error}");
    };
    let params = || Parameters::new(&gpu, 1);
    check(&make::<Rotation>(&params(), &cnn(), Default::default()), 2, "1 views, 2 were given");
    check(&make::<Jigsaw>(&params(), &cnn(), Default::default()), 2, "1 views, 2 were given");
    check(&make::<Mae>(&params(), &vit(), Default::default()), 2, "1 views, 2 were given");
    check(&make::<Autoencoder>(&params(), &cnn(), Default::default()), 3, "two of the same size, 3 were given");
    check(&make::<Vae>(&params(), &cnn(), Default::default()), 3, "two of the same size, 3 were given");
}

/// Of two views the first, x, is encoded to f, and the second wanted: with c everywhere in it the
/// loss is the mean of (f - c)^2.
#[test]
fn an_autoencoder_gives_back_the_second_view() {
    let gpu = gpu();
    let method = make::<Autoencoder>(&Parameters::new(&gpu, 1), &cnn(), Default::default());
    let loss = |views| method.loss(&Batch { views, ..batch(&gpu, &[3, 4], 0) }).unwrap().loss.item().unwrap();
    let x = images(&gpu, &[3, 4]);
    assert_eq!(loss(vec![x.clone()]), loss(vec![x.clone(), x.clone()]));
    let [less, none, more] = [-1.0, 0.0, 1.0].map(|c| loss(vec![x.clone(), Tensor::full(&gpu, x.shape(), c, DType::F32).unwrap()]));
    approx::assert_abs_diff_eq!(0.5 * (less + more) - none, 1.0, epsilon = 1e-4);
}

/// Maps and features: what is pooled is what the network gives.
#[test]
fn features_are_the_means_of_maps() {
    let gpu = gpu();
    for name in ["cnn_16_32_64", "resnet18", "mobilenetv1_025", "mobilenetv2_035", "efficientnet_b0"] {
        let options = wgrad::models::ModelOptions { channels: 1, width: 0.25, stem_stride: Some(1), ..Default::default() };
        let options = if name.starts_with("cnn") { wgrad::models::ModelOptions { channels: 1, ..Default::default() } } else { options };
        let network = wgrad::models::model(name, options).unwrap().architecture.build(&Parameters::new(&gpu, 1)).unwrap();
        let x = images(&gpu, &[1, 2]);
        let maps = Backbone::forward_features(&network, &x, Mode::Eval).unwrap();
        let features = wgrad::nn::Module::forward(&network, &x, Mode::Eval).unwrap();
        assert_eq!(floats(&maps.global_avg_pool2d().unwrap()), floats(&features), "{name}");
    }
}
