//! Sizes that nothing can have: every number of a recipe, and every layer and network, is refused
//! by name before the host or the device is asked for memory. A dry device counts instead of
//! computing.

use crate::common::{black::black, teachers};
use std::panic::{AssertUnwindSafe, catch_unwind};

use toml::{Table, Value};
use wgrad::error::{Error, Result};
use wgrad::gpu::Gpu;
use wgrad::methods::{ContrastiveDistillationConfig, MocoConfig, NnClrConfig};
use wgrad::models::{ImageDecoder, TextConfig, TextEncoder, Vit, VitConfig};
use wgrad::models::{ImageDecoderConfig, Mlp, MlpConfig, ModelOptions, Prototypes, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, model};
use wgrad::nn::layers::{BatchNormOptions, Conv2dOptions, SqueezeExciteOptions};
use wgrad::nn::{BatchNorm, Conv2d, ConvNorm, DepthwiseConv2d, Embedding, LayerNorm, Linear, Parameters, SqueezeExcite};
use wgrad::ops::activation::Activation;
use wgrad::tensor::{DType, InputShape, Tensor};
use wgrad::train::estimate::run_memory;
use wgrad::train::methods::METHODS;
use wgrad::train::{Recipe, Trainer};

const HUGE: [usize; 3] = [usize::MAX, 1 << 40, 1 << 33];

/// The error of what must not be made.
#[track_caller]
fn refused<T>(what: &str, make: impl FnOnce() -> Result<T>) -> String {
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(_)) => panic!("{what} was made"),
        Err(_) => panic!("{what} panicked"),
    }
}

#[test]
fn tensors_layers_and_networks_of_impossible_sizes_are_refused_by_name() {
    let gpu = crate::common::gpu();
    for huge in HUGE {
        for sizes in [vec![huge], vec![huge, huge], vec![2, huge, 3], vec![1 << 20, huge], vec![huge, 0]] {
            let what = format!("a tensor {sizes:?}");
            let shape = sizes.as_slice();
            // Nothing has no memory, but what stands beside a 0 must be countable.
            if !(shape.contains(&0) && Tensor::zeros(&gpu, shape, DType::F32).is_ok()) {
                refused(&what, || Tensor::empty(&gpu, shape, DType::F32));
                refused(&what, || Tensor::zeros(&gpu, shape, DType::I32));
                refused(&what, || Tensor::full(&gpu, shape, 1.0, DType::F32));
            }
            if !shape.contains(&0) {
                refused(&what, || Tensor::from_slice(&gpu, &[1.0f32], shape));
                refused(&what, || Tensor::from_slice(&gpu, &[] as &[f32], shape));
            }
        }
        let params = Parameters::new(&gpu, 0).scope("outer");
        let conv = |kernel, dilation| Conv2dOptions { kernel, dilation, bias: true, ..Default::default() };
        let (norm, none) = (BatchNormOptions::default(), Activation::None);
        type Layer<'a> = Box<dyn Fn(&Parameters) -> Result<()> + 'a>;
        let layers: Vec<Layer> = vec![
            Box::new(|p| Linear::new(p, "layer", huge, huge).map(drop)),
            Box::new(|p| Linear::new(p, "layer", 1, huge).map(drop)),
            Box::new(|p| Linear::new(p, "layer", huge, 1).map(drop)),
            Box::new(|p| Embedding::new(p, "layer", huge, huge).map(drop)),
            Box::new(|p| Embedding::new(p, "layer", huge, 1).map(drop)),
            Box::new(|p| Conv2d::new(p, "layer", huge, huge, conv(3, 1)).map(drop)),
            Box::new(|p| Conv2d::new(p, "layer", 1, 1, conv(huge, 1)).map(drop)),
            Box::new(|p| Conv2d::new(p, "layer", 1, 1, conv(3, huge)).map(drop)),
            Box::new(|p| DepthwiseConv2d::new(p, "layer", huge, conv(3, 1)).map(drop)),
            Box::new(|p| DepthwiseConv2d::new(p, "layer", 1, conv(huge, 1)).map(drop)),
            Box::new(|p| ConvNorm::new(p, ["layer", "norm"], [1, huge], conv(1, 1), norm).map(drop)),
            Box::new(|p| BatchNorm::new(p, "layer", huge, norm).map(drop)),
            Box::new(|p| LayerNorm::new(p, "layer", huge, 1e-5).map(drop)),
            Box::new(|p| {
                SqueezeExcite::new(p, "layer", 8, SqueezeExciteOptions { squeezed: huge, activation: none, hard_gate: false }).map(drop)
            }),
            Box::new(|p| Mlp::new(&p.scope("layer"), 8, &MlpConfig { hidden: huge, ..Default::default() }).map(drop)),
            Box::new(|p| Mlp::new(&p.scope("layer"), 8, &MlpConfig { outputs: huge, ..Default::default() }).map(drop)),
            Box::new(|p| Mlp::new(&p.scope("layer"), 8, &MlpConfig { layers: huge, ..Default::default() }).map(drop)),
            Box::new(|p| Prototypes::new(&p.scope("layer"), 8, huge, false).map(drop)),
            Box::new(|p| ImageDecoder::new(&p.scope("layer"), 8, [28, 28, 1], &ImageDecoderConfig { width: huge, doublings: 2 }).map(drop)),
        ];
        for (at, layer) in layers.iter().enumerate() {
            let message = refused(&format!("layer {at} of {huge}"), || layer(&params));
            assert!(message.contains("outer.layer") || message.starts_with("layer"), "layer {at} of {huge}: {message}");
        }
        let params = Parameters::new(&gpu, 0);
        let vit = VitConfig::named("mini", 4, 28).unwrap();
        for config in [
            VitConfig { features: huge, heads: 1, ..vit },
            VitConfig { mlp_ratio: huge, ..vit },
            VitConfig { depth: huge, ..vit },
            VitConfig { channels: huge, ..vit },
            VitConfig { size: [huge / 4 * 4; 2], ..vit },
            VitConfig { size: [huge; 2], patch: huge, ..vit },
        ] {
            refused(&format!("{config:?}"), || Vit::new(&params.scope(format!("{config:?}")), &config));
        }
        let text = TextConfig::named("bert_l2_h128").unwrap();
        for config in [
            TextConfig { features: huge, heads: 1, ..text },
            TextConfig { mlp_ratio: huge, ..text },
            TextConfig { depth: huge, ..text },
            TextConfig { length: huge, ..text },
        ] {
            refused(&format!("{config:?}"), || TextEncoder::new(&params.scope(format!("{config:?}")), &config));
        }
        let resnet = ResNetConfig::deep(18).unwrap();
        refused("a wide ResNet", || ResNet::new(&params.scope("wide"), &ResNetConfig { width: huge, ..resnet }));
        refused("a ResNet", || ResNet::new(&params.scope("many"), &ResNetConfig { channels: huge, ..resnet }));
        refused("a small CNN", || SmallCnn::new(&params.scope("cnn"), SmallCnnConfig { channels: 1, widths: [huge; 3] }));
        for name in ["mobilenetv2_100", "efficientnet_b0", "resnet18", "cnn_16_32_64", "vit_mini_patch4_28"] {
            let options = ModelOptions { channels: huge, ..Default::default() };
            refused(name, || model(name, options)?.classifier(&params.scope(format!("c.{name}")), 2));
            let fine = || model(name, ModelOptions::default())?.classifier(&params.scope(format!("k.{name}")), huge);
            refused(name, fine);
        }
        for name in [
            format!("vit_mini_patch{huge}_{huge}"),
            format!("vit_mini_patch1_{huge}"),
            format!("bert_l{huge}_h128"),
            format!("bert_l2_h{huge}"),
        ] {
            refused(&name, || model(&name, ModelOptions::default())?.classifier(&params.scope(&name), 2));
        }
    }
    for phi in ["1e308", "nan", "-1e308", "99"] {
        let name = format!("efficientnet_phi{phi}");
        refused(&name, || model(&name, ModelOptions::default())?.classifier(&Parameters::new(&gpu, 0), 2));
    }
}

/// Keys of numbers and their values, those inside of tables with dots.
fn numbers(table: &Table, prefix: &str, found: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => numbers(inner, &format!("{prefix}{key}."), found),
            Value::Integer(_) | Value::Float(_) => found.push((format!("{prefix}{key}"), value.clone())),
            _ => {}
        }
    }
}

/// A recipe of the method, small, that learns from what it needs.
fn recipe(method: &str) -> Recipe {
    let mut recipe = Recipe { batch: 8, epochs: 1, ..Recipe::defaults(method) };
    let data = &mut recipe.data;
    (data.per_class, data.labels_per_class, data.labelled_batch) = (0, data.labels_per_class.min(2), data.labelled_batch.min(4));
    if !recipe.model.name.starts_with("bert_") && !recipe.model.name.starts_with("vit_") {
        recipe.model.name = "cnn_16_32_64".into();
    }
    recipe
}

#[test]
fn every_number_of_every_recipe_may_be_anything() {
    let gpu: Gpu = crate::common::gpu();
    let (mut tried, mut wrong) = (0, Vec::new());
    for method in METHODS.iter().map(|entry| entry.name) {
        let own = recipe(method);
        let data = black(&own, [28, 28, 1], 80);
        let run = |recipe: &Recipe| {
            let make = |gpu: &Gpu| Trainer::with_teachers(gpu, recipe.clone(), data.clone(), teachers::teachers(gpu, recipe, &data));
            run_memory(&gpu, make)
        };
        run(&own).unwrap_or_else(|error| panic!("{method}: {error}"));
        let mut table: Table = toml::from_str(&own.to_toml().unwrap()).unwrap();
        // What it is written in is no number of its own.
        table.remove("version");
        // What all recipes have is tried once.
        if method != "supervised" {
            table.retain(|key, _| key == "method");
        }
        let mut keys = Vec::new();
        numbers(&table, "", &mut keys);
        for (key, value) in keys {
            let hostile: &[&str] = match value {
                Value::Integer(_) => &["9223372036854775807", "1099511627776", "1000000000", "0", "-1"],
                _ => &["inf", "-inf", "nan", "1e38", "0", "-1"],
            };
            for text in hostile {
                let mut recipe = own.clone();
                let what = format!("{method} with {key}={text}");
                let found = catch_unwind(AssertUnwindSafe(|| {
                    recipe.set(&format!("{key}={text}"))?;
                    run(&recipe)
                }));
                tried += 1;
                let Ok(found) = found else {
                    wrong.push(format!("{what}: panicked"));
                    continue;
                };
                // Of these nothing can be meant, but in a seed and in what counts from the front.
                let unlimited = ["seed", "checkpoint_every", "finetune.unfreeze_every"].contains(&key.as_str());
                let impossible = ["9223372036854775807", "1099511627776", "inf", "-inf", "nan"].contains(text);
                match found {
                    Err(error @ (Error::Argument { .. } | Error::Data { .. } | Error::Shape { .. } | Error::Limit { .. })) => {
                        let named = error.to_string().contains(key.rsplit('.').next().unwrap());
                        if impossible && !named {
                            wrong.push(format!("{what} should name the key: {error}"));
                        }
                    }
                    Err(error) => println!("{what}: {error}"),
                    Ok(_) if impossible && !unlimited => wrong.push(format!("{what} was accepted")),
                    Ok(_) => {}
                }
            }
        }
    }
    assert!(wrong.is_empty() && tried > 500, "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn settings_of_the_library_are_counted_too() {
    let gpu = crate::common::gpu();
    for queue in [usize::MAX, 1 << 40, 1_000_000_000, 0] {
        for (method, config) in [
            ("moco", toml::to_string(&MocoConfig { queue: 4, ..Default::default() })),
            ("nnclr", toml::to_string(&NnClrConfig { queue: 4, ..Default::default() })),
            ("contrastive_distillation", toml::to_string(&ContrastiveDistillationConfig { queue: 4, ..Default::default() })),
        ] {
            let own = recipe(method);
            let mut options: Table = toml::from_str(&config.unwrap()).unwrap();
            options.insert("queue".into(), Value::Integer(i64::try_from(queue).unwrap_or(i64::MAX)));
            let entry = wgrad::train::methods::find(method).unwrap();
            let data = black(&own, [28, 28, 1], 80);
            let setting = wgrad::methods::MethodContext {
                classes: 10,
                input: InputShape::Image([28, 28, 1]),
                teachers: teachers::teachers(&gpu, &own, &data),
                ..Default::default()
            };
            let network = own.network(&data).unwrap();
            let message = refused(method, || entry.make(&Parameters::new(&gpu, 0), &|p| network.architecture.build(p), &options, &setting));
            assert!(message.contains("queue") || message.contains("normals"), "{method} {queue}: {message}");
        }
    }
}
