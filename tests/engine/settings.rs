//! Settings without a meaning are refused where they are given, by name; what PyTorch takes and
//! means something is taken.

use crate::common::gpu;
use wgrad::error::Result;
use wgrad::methods::MethodContext;
use wgrad::models::{Architecture, PixelsConfig};
use wgrad::nn::layers::BatchNormOptions;
use wgrad::nn::{BatchNorm, Dropout, Init, Kind, LayerNorm, Mode, Module, Parameters};
use wgrad::optim::{
    Adam, AdamOptions, AdamW, Ema, Lars, LarsOptions, Optimizer, OptimizerOptions, RmsProp, RmsPropOptions, Sgd, SgdOptions,
};
use wgrad::tensor::{DType, InputShape, Tensor};
use wgrad::train::methods::METHODS;

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// Every value of `wrong` must be refused in words that name the setting, every one of `right`
/// taken.
fn check(setting: &str, wrong: &[f32], right: &[f32], make: impl Fn(f32) -> Result<()>) {
    for value in wrong {
        match make(*value) {
            Ok(()) => panic!("{setting} = {value} was taken"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(setting), "{setting} = {value}: \"{message}\" does not name it");
            }
        }
    }
    right.iter().for_each(|value| make(*value).unwrap_or_else(|error| panic!("{setting} = {value}: {error}")));
}

const NO_SHARE: &[f32] = &[-0.1, 1.1, 2.0, NAN, INF];
const NEGATIVE: &[f32] = &[-1.0, NAN, INF, f32::NEG_INFINITY];

#[test]
fn of_optimizers() {
    let gpu = gpu();
    let params = Parameters::new(&gpu, 0);
    let weight = params.parameter("weight", [3], Kind::Linear, Init::ONES).unwrap();
    let sgd = |config: SgdOptions| Sgd::new(&params, config).map(drop);
    check("momentum", NO_SHARE, &[0.0, 0.9, 1.0], |momentum| sgd(SgdOptions { momentum, ..Default::default() }));
    check("nesterov", &[0.0], &[0.9], |momentum| sgd(SgdOptions { momentum, nesterov: true, ..Default::default() }));
    let common = |common: OptimizerOptions| sgd(SgdOptions { common, ..Default::default() });
    check("weight_decay", NEGATIVE, &[0.0, 0.1], |weight_decay| common(OptimizerOptions { weight_decay, ..Default::default() }));
    check("gradient_scale", &[0.0, -1.0, NAN, INF], &[1.0, 1e-4], |gradient_scale| {
        common(OptimizerOptions { gradient_scale, ..Default::default() })
    });
    check("clip_norm", &[0.0, -1.0, NAN], &[1.0, INF], |norm| common(OptimizerOptions { clip_norm: Some(norm), ..Default::default() }));
    check("clip_each", &[0.0, -1.0, NAN], &[1.0, INF], |norm| common(OptimizerOptions { clip_each: Some(norm), ..Default::default() }));
    for beta in [-0.1, 1.0, 2.0, NAN] {
        for betas in [[beta, 0.999], [0.9, beta]] {
            assert!(Adam::new(&params, AdamOptions { betas, ..Default::default() }).map(drop).unwrap_err().to_string().contains("betas"));
            assert!(AdamW::new(&params, AdamOptions { betas, ..Default::default() }).is_err());
        }
    }
    check("eps", NEGATIVE, &[0.0, 1e-8], |eps| AdamW::new(&params, AdamOptions { eps, ..Default::default() }).map(drop));
    check("eps", NEGATIVE, &[0.0, 1e-8], |eps| RmsProp::new(&params, RmsPropOptions { eps, ..Default::default() }).map(drop));
    check("alpha", NO_SHARE, &[0.0, 0.99], |alpha| RmsProp::new(&params, RmsPropOptions { alpha, ..Default::default() }).map(drop));
    check("momentum", NO_SHARE, &[0.5], |momentum| RmsProp::new(&params, RmsPropOptions { momentum, ..Default::default() }).map(drop));
    check("momentum", NO_SHARE, &[0.5], |momentum| Lars::new(&params, LarsOptions { momentum, ..Default::default() }).map(drop));
    check("eta", &[0.0, -1.0, NAN, INF], &[1e-3], |eta| {
        Lars::new(&params, LarsOptions { trust_coefficient: eta, ..Default::default() }).map(drop)
    });
    // And of each step.
    let step = |rate: f32| {
        let gradients = weight.tensor(Mode::Train)?.sum(&[0], false)?.backward()?;
        Sgd::new(&params, SgdOptions::default())?.step(&gradients, rate)
    };
    check("learning_rate", NEGATIVE, &[0.0, 0.1], step);
    let decay = |decay: f32| Sgd::new(&params, SgdOptions::default())?.schedule_weight_decay(decay.into());
    check("weight_decay", NEGATIVE, &[0.0, 0.1], decay);
    check("momentum", NO_SHARE, &[0.0, 0.9, 1.0], |momentum| Ema::new(&params)?.update(momentum));
    assert!(weight.detach().unwrap().to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn of_layers() {
    let gpu = gpu();
    let batch_norm = |config: BatchNormOptions| BatchNorm::new(&Parameters::new(&gpu, 0), "norm", 4, config).map(drop);
    check("eps", NEGATIVE, &[0.0, 1e-5], |eps| batch_norm(BatchNormOptions { eps, ..Default::default() }));
    check("momentum", NO_SHARE, &[0.0, 0.1, 1.0], |momentum| batch_norm(BatchNormOptions { momentum, ..Default::default() }));
    check("eps", NEGATIVE, &[0.0, 1e-5], |eps| LayerNorm::new(&Parameters::new(&gpu, 0), "norm", 4, eps).map(drop));
    let x = Tensor::full(&gpu, [3, 4], 1.0, DType::F32).unwrap();
    for mode in [Mode::Train, Mode::Eval] {
        check("p must", NO_SHARE, &[0.0, 0.5, 1.0], |p| Dropout::new(&Parameters::new(&gpu, 0), p, 0).forward(&x, mode).map(drop));
    }
    let start = |init: Init| Parameters::new(&gpu, 0).parameter("weight", [3], Kind::Linear, init).map(drop);
    check("start", &[NAN, INF], &[0.0, -2.0], |value| start(Init::Constant(value)));
    check("start", NEGATIVE, &[0.0, 2.0], |std| start(Init::Normal { std }));
    check("start", NEGATIVE, &[0.0, 2.0], |std| start(Init::TruncatedNormal { std }));
    check("start", NEGATIVE, &[0.0, 2.0], |bound| start(Init::Uniform { bound }));
}

#[test]
fn of_operators() {
    let gpu = gpu();
    let x = Tensor::from_slice(&gpu, &[0.5f32, -1.5, 2.5, -3.5], [2, 2]).unwrap();
    let [ones, zeros] = [1.0, 0.0].map(|value| Tensor::full(&gpu, [2], value, DType::F32).unwrap());
    let labels = Tensor::from_slice(&gpu, &[0i32, 1], [2]).unwrap();
    let no_temperature = &[0.0, -1.0, NAN, INF];
    check("eps", NEGATIVE, &[0.0, 1e-5], |eps| x.layer_norm(&ones, &zeros, eps).map(drop));
    check("eps", NEGATIVE, &[0.0, 1e-5], |eps| x.group_norm(1, &ones, &zeros, eps).map(drop));
    check("eps", no_temperature, &[1e-12], |eps| x.l2_normalize(-1, eps).map(drop));
    check("eps", no_temperature, &[1e-8], |eps| x.cosine_similarity(&x.copy()?, eps).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.softmax_with_temperature(-1, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.log_softmax_with_temperature(-1, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.nt_xent(&x.copy()?, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.supcon_loss(&labels, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.info_nce_queue(&x.copy()?, &x.copy()?, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.similarity_matrix(&x.copy()?, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.dino_loss(&x.copy()?, &zeros, t, 0.1).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.dino_loss(&x.copy()?, &zeros, 0.1, t).map(drop));
    check("temperature", no_temperature, &[0.1], |t| x.distillation_kl(&x.copy()?, t).map(drop));
    check("momentum", NO_SHARE, &[0.0, 1.0], |momentum| zeros.copy()?.center_update(&x, momentum));
    check("label_smoothing", NO_SHARE, &[0.0, 0.1], |smoothing| x.cross_entropy(&labels, smoothing).map(drop));
    check("beta", NEGATIVE, &[0.0, 1.0], |beta| x.smooth_l1_loss(&x.copy()?, beta).map(drop));
    check("p must", NO_SHARE, &[0.0, 1.0], |p| x.dropout(p, 0, 0, 0).map(drop));
    check("min", &[NAN], &[0.0, f32::NEG_INFINITY], |min| x.clamp(min, 1.0).map(drop));
    // PyTorch's answer where the bounds stand in the wrong order.
    assert_eq!(x.clamp(1.0, -1.0).unwrap().to_vec::<f32>().unwrap(), [-1.0; 4]);
}

/// The numbers with a point among a method's settings, by their place.
fn numbers(table: &toml::Table, place: &[String]) -> Vec<Vec<String>> {
    let each = |(key, value): (&String, &toml::Value)| {
        let place = [place, std::slice::from_ref(key)].concat();
        match value {
            toml::Value::Float(_) => vec![place],
            toml::Value::Table(inner) => numbers(inner, &place),
            _ => Vec::new(),
        }
    };
    table.iter().flat_map(each).collect()
}

fn set(table: &mut toml::Table, place: &[String], value: f64) {
    match place {
        [key] => drop(table.insert(key.clone(), toml::Value::Float(value))),
        [first, rest @ ..] => set(table[first].as_table_mut().unwrap(), rest, value),
        [] => unreachable!(),
    }
}

/// Every number among the settings of every method.
#[test]
fn of_methods() {
    let gpu = gpu();
    let build = |params: &Parameters| PixelsConfig { features: 4 }.build(params);
    let setting = MethodContext { classes: 3, input: InputShape::Image([2, 2, 1]), ..Default::default() };
    let mut walked = 0;
    for entry in METHODS {
        let defaults = entry.complete(&toml::Table::new()).unwrap();
        for place in numbers(&defaults, &[]) {
            for value in [f64::NAN, f64::INFINITY, -1.0] {
                let mut options = defaults.clone();
                set(&mut options, &place, value);
                let made = entry.make(&Parameters::new(&gpu, 0), &build, &options, &setting);
                let (method, key) = (entry.name, place.join("."));
                let message = made.err().unwrap_or_else(|| panic!("{method}: {key} = {value} was taken")).to_string();
                let named = place.iter().any(|key| message.contains(key.as_str())) || message.contains("weights must lie");
                assert!(named, "{method}: {key} = {value}: \"{message}\" does not name it");
                walked += 1;
            }
        }
    }
    assert!(walked > 100, "{walked}");
}
