//! Texts: the way of token numbers to the network, the encoder and its distillation against
//! PyTorch's values, hidden tokens, and what students begin as.

use std::sync::Arc;

use crate::common::gpu;
use serde_json::Value;
use wgrad::data::{Dataset, DeviceBatch, Loader, Samples, WordPiece};
use wgrad::gpu::Gpu;
use wgrad::methods::{
    Batch, HiddenLoss, MaskedTokens, MaskedTokensConfig, Method, MethodContext, MethodFactory, StudentInit, Teacher,
    TransformerDistillation, TransformerDistillationConfig,
};
use wgrad::models::{Classifier, Network, TextConfig, TextEncoder, TokenEncoder};
use wgrad::nn::{Mode, Module, Parameters};
use wgrad::tensor::{InputShape, Tensor};
use wgrad::train::progress::Style;
use wgrad::train::{Recipe, Trainer};

const SMALL: TextConfig =
    TextConfig { vocabulary: 20, length: 6, features: 8, depth: 4, heads: 4, mlp_ratio: 4, eps: 1e-12, drop_rate: 0.0 };
const STUDENT: TextConfig = TextConfig { depth: 2, ..SMALL };

/// Texts as a network is given them.
fn texts(gpu: &Gpu, rows: &[Vec<u16>]) -> Tensor {
    let numbers: Vec<i32> = rows.iter().flatten().map(|number| i32::from(*number)).collect();
    Tensor::from_slice(gpu, &numbers, [rows.len(), rows[0].len()]).unwrap()
}

/// A data set of texts with two classes: whether a 7 is among the tokens.
fn dataset(count: usize) -> Arc<Dataset> {
    let text = |i: usize| [2, 8 + (i * 5 % 11) as u16, if i.is_multiple_of(2) { 7 } else { 6 }, 8 + (i * 3 % 11) as u16, 3, 0];
    let labels = (0..count).map(|i| (i % 2) as i32).collect();
    let samples = Samples::Tokens { length: 6, numbers: (0..count).flat_map(text).collect() };
    Arc::new(Dataset::of("texts", samples, labels, vec!["seven".into(), "none".into()]).unwrap())
}

fn fill(params: &Parameters, values: &Value) {
    for (name, values) in values.as_object().unwrap() {
        let Some(parameter) = params.get(name) else { continue };
        parameter.detach().unwrap().write(&numbers(values)).unwrap();
    }
}

fn numbers(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn close(what: &str, found: &Tensor, expected: &Value) {
    let (found, expected) = (found.to_vec::<f32>().unwrap(), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-5, "{what}: {worst}");
}

#[test]
fn every_token_number_reaches_the_network_as_it_was() {
    let gpu = gpu();
    let rows: Vec<u16> = (0..=u16::MAX).collect();
    let samples = Samples::Tokens { length: 64, numbers: rows.clone() };
    let data = Arc::new(Dataset::of("all", samples, vec![0; 1024], vec!["text".into()]).unwrap());
    let recipe = Recipe::default().with(["model=bert_l2_h16", "stem_stride=0"]).unwrap();
    let preprocessing = recipe.preprocessing("none", 0, &data).unwrap();
    let batch = Loader::evaluation(data.clone(), 1024).unwrap().epoch(0).next().unwrap().unwrap();
    let batch = DeviceBatch::upload(&gpu, &batch).unwrap();
    let found = preprocessing.apply(&batch, 0, 0).unwrap();
    assert_eq!(found.shape().to_vec(), [1024, 64]);
    assert!(found.to_vec::<i32>().unwrap().iter().zip(&rows).all(|(a, b)| *a == i32::from(*b)));
    let error = recipe.preprocessing("simclr", 0, &data).unwrap_err().to_string();
    assert!(error.contains("texts of 64 tokens") && error.contains("simclr"), "{error}");
}

#[test]
fn padding_changes_nothing_and_images_are_refused() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 3);
    let encoder = TextEncoder::new(&params, &TextConfig { length: 12, ..SMALL }).unwrap();
    let text = vec![2, 9, 15, 6, 3];
    let run = |length: usize| {
        let mut text = text.clone();
        text.resize(length, 0);
        encoder.forward(&texts(&gpu, &[text, vec![0; length]]), Mode::Eval).unwrap().to_vec::<f32>().unwrap()
    };
    let plain = run(5);
    assert!(plain.iter().any(|v| v.abs() > 0.1) && plain[8..].iter().all(|v| *v == 0.0), "{plain:?}");
    for length in [6, 11, 12] {
        assert!(run(length).iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6), "{length}");
    }
    for (shape, words) in [(&[1, 28, 28, 1][..], "found shape [1, 28, 28, 1]"), (&[1, 13], "at most 12 tokens")] {
        let error = encoder.forward(&Tensor::zeros(&gpu, shape, wgrad::tensor::DType::I32).unwrap(), Mode::Eval).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// `tests/reference/generate_text.py` in PyTorch 2.15, in float64.
#[test]
fn encoder_and_distillation_are_pytorchs() {
    let path = crate::common::folder("WGRAD_TEXT", "text").join("encoder.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ids: Vec<Vec<u16>> = numbers(&reference["ids"]).chunks(6).map(|row| row.iter().map(|v| *v as u16).collect()).collect();
    for (schedule, gpu) in crate::common::gpus() {
        let params = Parameters::new(&gpu, 0);
        let teacher = Classifier::new(&params, TextEncoder::new(&params, &SMALL).unwrap(), 3).unwrap();
        fill(&params, &reference["teacher"]);
        let images = texts(&gpu, &ids);
        let encoding = teacher.backbone.encode(&images, true, Mode::Eval).unwrap();
        close("logits", &teacher.forward(&images, Mode::Eval).unwrap(), &reference["logits"]);
        for layer in 0..4 {
            close("scores", &encoding.scores[layer], &reference["scores"][layer]);
            // What stands at padding is nobody's business.
            let hidden = encoding.hidden[layer].mul(&encoding.mask).unwrap();
            let expected: Vec<f32> = numbers(&reference["hidden"][layer]);
            let kept = expected.iter().enumerate().map(|(i, v)| if ids[i / 48][i / 8 % 6] == 0 { 0.0 } else { *v });
            close("hidden", &hidden, &kept.collect::<Vec<f32>>().into());
        }
        for case in reference["cases"].as_array().unwrap() {
            let weight = |name: &str| case["weights"][name].as_f64().unwrap_or(0.0) as f32;
            let cosine = case["hidden_loss"] == "cosine";
            let config = TransformerDistillationConfig {
                logits: weight("logits"),
                temperature: if cosine { 2.0 } else { 1.0 },
                labels: weight("labels"),
                hidden: weight("hidden"),
                hidden_loss: if cosine { HiddenLoss::Cosine } else { HiddenLoss::Mse },
                attention: weight("attention"),
                embeddings: weight("embeddings"),
                init: StudentInit::Own,
            };
            let teacher = expert(&gpu, &SMALL, 3, |params| fill(params, &reference["teacher"]));
            let params = Parameters::new(&gpu, 1);
            let student = student(&params, config, teacher, 3).unwrap();
            fill(&params, &reference["student"]);
            let labels: Vec<i32> = numbers(&reference["labels"]).iter().map(|v| *v as i32).collect();
            let labels = Tensor::from_slice(&gpu, &labels, [3]).unwrap();
            let indices = Tensor::from_slice(&gpu, &[0, 1, 2], [3]).unwrap();
            let step = student.loss(&Batch { views: vec![images.clone()], labels, indices, epoch: 0.into() }).unwrap();
            let near = |what: &str, found: f32, expected: &Value| {
                let expected = expected.as_f64().unwrap();
                assert!((f64::from(found) - expected).abs() < 1e-4 * expected.abs().max(1e-2), "{schedule} {what}: {found}, {expected}");
            };
            near("loss", step.loss.item().unwrap(), &case["loss"]);
            assert_eq!(step.parts.len(), case["parts"].as_object().unwrap().len());
            step.parts.iter().for_each(|(name, value)| near(name, value.item().unwrap(), &case["parts"][name]));
            let gradients = student.gradients(&step).unwrap();
            for (name, expected) in case["norms"].as_object().unwrap() {
                let watched = params.get(name).unwrap().tensor(Mode::Train).unwrap();
                // The key's bias moves all scores of a query alike: without a loss on scores its
                // gradient is 0.
                if name.ends_with("k_lin.bias") && cosine || expected.as_f64().unwrap() == 0.0 {
                    continue;
                }
                let norm = gradients.get(&watched).unwrap().square().unwrap().sum(&[], false).unwrap().item().unwrap().sqrt();
                near(name, norm, expected);
            }
        }
    }
}

fn expert(gpu: &Gpu, config: &TextConfig, classes: usize, change: impl FnOnce(&Parameters)) -> Arc<Teacher> {
    let params = Parameters::new(gpu, 9);
    let network = Network::new(&params, Box::new(TextEncoder::new(&params, config).unwrap()), Some(classes)).unwrap();
    change(&params);
    Arc::new(Teacher::new("teacher", params, network, (0..classes).collect()))
}

fn student(
    params: &Parameters,
    config: TransformerDistillationConfig,
    teacher: Arc<Teacher>,
    classes: usize,
) -> wgrad::error::Result<TransformerDistillation> {
    let setting = MethodContext { classes, input: InputShape::Tokens(6), teachers: vec![teacher], ..MethodContext::default() };
    TransformerDistillation::new(params, &|params| Ok(Box::new(TextEncoder::new(params, &STUDENT)?)), config, &setting)
}

fn values(params: &Parameters) -> Vec<Vec<f32>> {
    params.all().iter().map(|p| p.detach().unwrap().to_vec().unwrap()).collect()
}

#[test]
fn a_student_begins_as_every_second_layer_and_its_teacher_never_changes() {
    let gpu = gpu();
    let teacher = expert(&gpu, &SMALL, 2, |_| {});
    let before = values(teacher.parameters());
    let params = Parameters::new(&gpu, 1);
    let method = student(&params, TransformerDistillationConfig::default(), teacher.clone(), 2).unwrap();
    let own = values(&params);
    method.begin().unwrap();
    let value = |params: &Parameters, name: &str| params.get(name).unwrap().detach().unwrap().to_vec::<f32>().unwrap();
    for slot in params.slots() {
        let source = match slot.name.strip_prefix("transformer.layer.1.") {
            Some(rest) => format!("transformer.layer.2.{rest}"),
            None => slot.name.clone(),
        };
        let same = value(&params, &slot.name) == value(teacher.parameters(), &source);
        assert!(same || slot.name.starts_with("classifier."), "{}", slot.name);
    }
    assert_ne!(own, values(&params));
    let refused = |config: TransformerDistillationConfig, teacher: &TextConfig| {
        let params = Parameters::new(&gpu, 1);
        let made = student(&params, config, expert(&gpu, teacher, 2, |_| {}), 2).and_then(|method| method.begin());
        made.unwrap_err().to_string()
    };
    let defaults = TransformerDistillationConfig::default();
    assert!(refused(defaults.clone(), &TextConfig { features: 12, ..SMALL }).contains("set it to own"));
    assert!(refused(defaults.clone(), &TextConfig { depth: 1, ..SMALL }).contains("cannot follow"));
    let attention = TransformerDistillationConfig { attention: 1.0, ..defaults };
    assert!(refused(attention, &TextConfig { heads: 2, ..SMALL }).contains("heads"));

    let settings = ["model=bert_l2_h8_v20", "batch=8", "epochs=3", "teachers=one"];
    let recipe = Recipe::defaults("transformer_distillation").with(settings).unwrap();
    let mut trainer = Trainer::with_teachers(&gpu, recipe.clone(), dataset(40), vec![teacher.clone()]).unwrap();
    trainer.run(None, Style::Silent, &mut |_| false).unwrap();
    assert_eq!(before, values(teacher.parameters()));
    let error = Trainer::with_teachers(&gpu, recipe, dataset(40), vec![]).err().unwrap().to_string();
    assert!(error.contains("teachers"), "{error}");
}

#[test]
fn hidden_tokens_have_the_shares_and_are_no_special_ones() {
    let gpu = gpu();
    let config = TextConfig { vocabulary: 500, length: 40, ..STUDENT };
    let setting = MethodContext { input: InputShape::Tokens(40), seed: 5, ..MethodContext::default() };
    let build = |params: &Parameters| -> wgrad::error::Result<Box<dyn wgrad::models::Backbone>> {
        Ok(Box::new(TextEncoder::new(params, &config)?))
    };
    let method = MaskedTokens::new(&Parameters::new(&gpu, 0), &build, MaskedTokensConfig::default(), &setting).unwrap();
    // Texts of every length: [CLS], ordinary tokens with an [UNK] among them, [SEP], padding; the
    // last has nothing to hide.
    let text = |i: usize| -> Vec<u16> {
        let inside = (0..i % 37).map(|k| if k == 5 { WordPiece::UNKNOWN } else { 5 + ((i * 31 + k * 7) % 495) as u16 });
        let mut text: Vec<u16> = [WordPiece::BEGIN].into_iter().chain(inside).chain([WordPiece::END]).collect();
        text.resize(40, 0);
        text
    };
    let rows: Vec<Vec<u16>> = (0..740).map(text).collect();
    let flat: Vec<f32> = rows.iter().flatten().map(|v| f32::from(*v)).collect();
    let tokens = Tensor::from_slice(&gpu, &flat, [rows.len(), 40]).unwrap();
    let places: Vec<i32> = (0..740).collect();
    let indices = Tensor::from_slice(&gpu, &places, [740]).unwrap();
    let hide = |epoch: u32| method.hide(&tokens, &indices, &epoch.into()).unwrap();
    let hidden = hide(0);
    let (given, labels) = (hidden.tokens.to_vec::<i32>().unwrap(), hidden.labels.to_vec::<i32>().unwrap());
    let chosen_places = hidden.places.to_vec::<i32>().unwrap();
    let most = labels.len() / rows.len();
    assert_eq!(most, 6);
    let (mut masks, mut others, mut same, mut all) = (0, 0, 0, 0);
    for (i, row) in rows.iter().enumerate() {
        let ordinary = row.iter().filter(|t| **t > 4).count();
        let expected = if ordinary == 0 { 0 } else { ((ordinary as f32 * 0.15).round_ties_even() as usize).max(1) };
        let chosen: Vec<usize> = (0..most).filter(|k| labels[i * most + k] >= 0).map(|k| chosen_places[i * most + k] as usize).collect();
        assert_eq!(chosen.len(), expected, "{i}: {ordinary}");
        for (at, was) in row.iter().enumerate() {
            let now = given[i * 40 + at] as u16;
            if let Some(k) = chosen.iter().position(|place| *place == at) {
                assert_eq!((labels[i * most + k], *was > 4), (i32::from(*was), true));
                all += 1;
                match now {
                    WordPiece::MASK => masks += 1,
                    _ if now == *was => same += 1,
                    _ => others += usize::from((5..500).contains(&now)),
                }
            } else {
                assert_eq!(now, *was, "{i} {at}");
            }
        }
    }
    assert_eq!(masks + others + same, all);
    let share = |count: usize| count as f64 / all as f64;
    // Of 1,900 draws the standard deviation is 0.9 and 0.7 per cent.
    assert!((share(masks) - 0.8).abs() < 0.04 && (share(others) - 0.1).abs() < 0.03, "{} {} of {all}", share(masks), share(others));
    assert_eq!(given, hide(0).tokens.to_vec::<i32>().unwrap());
    assert_ne!(given, hide(1).tokens.to_vec::<i32>().unwrap());
}
