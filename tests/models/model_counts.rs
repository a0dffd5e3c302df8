//! What networks count: parameters, multiply-adds, batch norms and stages, exactly. The figures are
//! those of timm 1.0.31 and torchvision 0.29 (multiply-adds of convolutions and linear layers of
//! one image, by hooks), which round to those of the papers.

use crate::common::gpu;
use wgrad::gpu::Gpu;
use wgrad::models::mobilenet::{MobileNetConfig, Scaling, SqueezeRule};
use wgrad::models::{Model, ModelOptions, model};
use wgrad::nn::{Module, Parameters, Summary};
use wgrad::ops::Activation;
use wgrad::tensor::Shape;

/// Parameters, batch norms, and multiply-adds at each resolution.
fn count(gpu: &Gpu, model: &Model, classes: usize, resolutions: &[usize]) -> (usize, usize, Vec<u64>) {
    let params = Parameters::new(gpu, 0);
    let network = model.classifier(&params, classes).unwrap();
    let macs = resolutions.iter().map(|resolution| {
        let mut summary = Summary::default();
        network.summarize(&Shape::from([1, *resolution, *resolution, 3]), &mut summary).unwrap();
        assert_eq!(summary.parameters(), params.count());
        summary.macs()
    });
    (params.count(), params.counters().len(), macs.collect())
}

fn named(name: &str, options: ModelOptions) -> Model {
    model(name, options).unwrap()
}

/// A name, its parameters and batch norms, and multiply-adds by resolution, its own first.
type Row = (&'static str, usize, usize, &'static [(usize, u64)]);

const ROWS: &[Row] = &[
    ("mobilenetv1_100", 4_231_976, 27, &[(224, 568_740_352), (192, 418_121_728), (160, 290_675_200), (128, 186_400_768)]),
    ("mobilenetv1_075", 2_585_560, 27, &[(224, 325_400_448), (192, 239_273_472), (160, 166_396_800), (128, 106_770_432)]),
    ("mobilenetv1_050", 1_331_592, 27, &[(224, 149_497_088), (192, 109_970_432), (160, 76_524_800), (128, 49_160_192)]),
    ("mobilenetv1_025", 470_072, 27, &[(224, 41_030_272), (192, 30_212_608), (160, 21_059_200), (128, 13_570_048)]),
    ("mobilenetv1_100h", 5_282_600, 28, &[(224, 620_120_576)]),
    ("mobilenetv1_125", 6_270_840, 27, &[(224, 879_516_800)]),
    ("mobilenetv2_140", 6_108_776, 52, &[(224, 582_195_824)]),
    ("mobilenetv2_100", 3_504_872, 52, &[(224, 300_774_272)]),
    ("mobilenetv2_075", 2_636_424, 52, &[(224, 209_069_792)]),
    ("mobilenetv2_050", 1_968_680, 52, &[(224, 97_131_840)]),
    ("mobilenetv2_035", 1_677_128, 52, &[(224, 59_285_808)]),
    ("mobilenetv2_110d", 4_516_520, 67, &[(224, 430_516_080)]),
    ("mobilenetv2_120d", 5_831_144, 79, &[(224, 668_857_568)]),
    ("mobilenetv3_large_100", 5_483_032, 46, &[(224, 216_589_760)]),
    ("mobilenetv3_large_075", 3_993_528, 46, &[(224, 154_560_624)]),
    ("mobilenetv3_small_100", 2_542_856, 34, &[(224, 56_510_400)]),
    ("mobilenetv3_small_075", 2_041_872, 34, &[(224, 43_399_344)]),
    ("mobilenetv3_small_050", 1_593_224, 34, &[(224, 24_188_688)]),
    ("efficientnet_b0", 5_288_548, 49, &[(224, 385_814_752), (32, 9_742_048)]),
    ("efficientnet_b1", 7_794_184, 69, &[(240, 686_802_832)]),
    ("efficientnet_b2", 9_109_994, 69, &[(260, 993_561_872), (288, 1_087_529_456)]),
    ("efficientnet_b3", 12_233_232, 78, &[(300, 1_827_141_392)]),
    ("efficientnet_b4", 19_341_616, 96, &[(380, 4_393_771_024)]),
    ("efficientnet_b5", 30_389_784, 116, &[(456, 10_266_384_752)]),
    ("efficientnet_b6", 43_040_704, 134, &[(528, 19_067_593_536)]),
    ("efficientnet_b7", 66_347_960, 163, &[(600, 37_745_884_192)]),
    ("tf_efficientnet_b0", 5_288_548, 49, &[(224, 385_814_752)]),
    ("efficientnet_lite0", 4_652_008, 49, &[(224, 385_187_552)]),
    ("efficientnet_lite1", 5_416_680, 64, &[(240, 600_185_232)]),
    ("efficientnet_lite2", 6_092_072, 64, &[(260, 859_736_272)]),
    ("efficientnet_lite3", 8_197_096, 73, &[(280, 1_383_321_872)]),
    ("efficientnet_lite4", 13_006_568, 91, &[(300, 2_553_034_336)]),
    ("efficientnetv2_s", 21_458_488, 110, &[(384, 8_365_617_152), (300, 5_307_561_248), (224, 2_849_895_872)]),
    ("efficientnetv2_m", 54_139_356, 157, &[(480, 24_582_460_384)]),
    ("efficientnetv2_l", 118_515_272, 217, &[(480, 56_079_699_008)]),
    ("resnet18", 11_689_512, 20, &[(224, 1_814_073_344)]),
    ("resnet26", 15_995_176, 29, &[(224, 2_342_256_640)]),
    ("resnet34", 21_797_672, 36, &[(224, 3_663_761_408)]),
    ("resnet50", 25_557_032, 53, &[(224, 4_089_184_256)]),
    ("vit_mini_patch4_28", 221_480, 0, &[(28, 7_587_328)]),
    ("vit_tiny_patch16_224", 5_717_416, 0, &[(224, 1_074_851_328)]),
    ("vit_tiny_patch16_384", 5_790_376, 0, &[(384, 3_148_082_688)]),
    ("vit_small_patch16_224", 22_050_664, 0, &[(224, 4_241_218_560)]),
    ("vit_small_patch32_224", 22_878_952, 0, &[(224, 1_119_869_952)]),
];

#[test]
fn published_networks_count_as_published() {
    let gpu = gpu().dry().unwrap();
    for (name, parameters, norms, costs) in ROWS {
        let model = named(name, ModelOptions::default());
        assert_eq!(model.resolution, costs[0].0, "{name}");
        let (resolutions, macs): (Vec<usize>, Vec<u64>) = costs.iter().copied().unzip();
        assert_eq!(count(&gpu, &model, 1000, &resolutions), (*parameters, *norms, macs), "{name}");
    }
}

#[test]
fn small_images_count_as_calculated() {
    let gpu = gpu().dry().unwrap();
    let small = ModelOptions { stem_stride: Some(1), ..Default::default() };
    assert_eq!(count(&gpu, &named("efficientnet_b0", ModelOptions::default()), 10, &[32]), (4_020_358, 49, vec![8_474_848]));
    assert_eq!(count(&gpu, &named("efficientnet_b0", small), 10, &[32]), (4_020_358, 49, vec![31_979_392]));
    let mut config: MobileNetConfig = named("efficientnet_b0", small).config().cloned().unwrap();
    config.stages[1][0].stride = 1;
    let slower = Model::new(32, config);
    assert_eq!(count(&gpu, &slower, 10, &[32]).2, [116_167_168]);
    assert_eq!(count(&gpu, &named("mobilenetv1_100", small), 10, &[32]), (3_217_226, 27, vec![46_354_432]));
    for (width, parameters, macs) in [(0.25, 701_466, 35_046_656), (0.5, 2_797_610, 139_299_328), (1.0, 11_173_962, 555_422_720)] {
        let model = named("resnet18", ModelOptions { width, ..small });
        assert_eq!(count(&gpu, &model, 10, &[32]), (parameters, 20, vec![macs]), "width {width}");
    }
}

/// Howard et al. 2017, table 4: MobileNetV1 with full convolutions has 29.3 M parameters and 4866 M
/// multiply-adds.
#[test]
fn mobilenet_with_full_convolutions() {
    let stages: [&[&str]; 5] = [&["cn_c64"], &["cn_r2_s2_c128"], &["cn_r2_s2_c256"], &["cn_r6_s2_c512"], &["cn_r2_s2_c1024"]];
    let config = MobileNetConfig::from_stages(&stages, [32, 0], Scaling::width(1.0), Activation::Relu, SqueezeRule::Inputs).unwrap();
    let model = Model::new(224, config);
    assert_eq!(count(&gpu().dry().unwrap(), &model, 1000, &[224]), (29_294_088, 14, vec![4_867_293_184]));
}

/// Channels (repeats) of each stage, and the head's channels, from torchvision's networks.
#[test]
fn compound_scaling_rounds_as_published() {
    let table: [(&str, usize, &str, usize); 8] = [
        ("b0", 32, "16(1) 24(2) 40(2) 80(3) 112(3) 192(4) 320(1)", 1280),
        ("b1", 32, "16(2) 24(3) 40(3) 80(4) 112(4) 192(5) 320(2)", 1280),
        ("b2", 32, "16(2) 24(3) 48(3) 88(4) 120(4) 208(5) 352(2)", 1408),
        ("b3", 40, "24(2) 32(3) 48(3) 96(5) 136(5) 232(6) 384(2)", 1536),
        ("b4", 48, "24(2) 32(4) 56(4) 112(6) 160(6) 272(8) 448(2)", 1792),
        ("b5", 48, "24(3) 40(5) 64(5) 128(7) 176(7) 304(9) 512(3)", 2048),
        ("b6", 56, "32(3) 40(6) 72(6) 144(8) 200(8) 344(11) 576(3)", 2304),
        ("b7", 64, "32(4) 48(7) 80(7) 160(10) 224(10) 384(13) 640(4)", 2560),
    ];
    for (name, stem, stages, head) in table {
        let drop_path = ModelOptions { drop_path: 0.2, ..Default::default() };
        let config: MobileNetConfig = named(&format!("efficientnet_{name}"), drop_path).config().cloned().unwrap();
        let found: Vec<String> = config.stages.iter().map(|s| format!("{}({})", s[0].outputs, s.len())).collect();
        assert_eq!((config.stem, found.join(" ").as_str()), (stem, stages), "{name}");
        assert_eq!(config.head, wgrad::models::mobilenet::Head::Convolution(head), "{name}");
        // Stochastic depth counts all blocks from 0: the last of B7's 55 is dropped with 0.2 * 54 / 55.
        let blocks: Vec<f32> = config.stages.iter().flatten().map(|b| b.drop_path).collect();
        let n = blocks.len() as f32;
        assert!((blocks[blocks.len() - 1] - 0.2 * (n - 1.0) / n).abs() < 1e-6 && blocks[0] == 0.0, "{name}");
        assert_eq!(name == "b7", n == 55.0);
    }
    // The rule itself, at its first step: 1.2 times the depth and 1.1 times the width of B0.
    let config: MobileNetConfig = named("efficientnet_phi1", ModelOptions::default()).config().cloned().unwrap();
    let found: Vec<String> = config.stages.iter().map(|s| format!("{}({})", s[0].outputs, s.len())).collect();
    assert_eq!(found.join(" "), "16(2) 24(3) 48(3) 88(4) 120(4) 208(5) 352(2)");
    assert_eq!(named("efficientnet_phi1", ModelOptions::default()).resolution, 258);
}

#[test]
fn what_a_network_does_not_have_is_named() {
    let refused = |name: &str, options: ModelOptions| match model(name, options) {
        Ok(model) => model.architecture.build(&Parameters::new(&gpu().dry().unwrap(), 0)).map(|_| ()).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    let options = ModelOptions::default();
    for (error, word) in [
        (refused("resnet19", options), "there is no \"resnet19\""),
        (refused("tv_resnet19", options), "torchvision has no \"resnet19\"; it has mobilenet_v2"),
        (refused("vit_tiny_patch0_224", options), "patches of 0 x 0"),
        (refused("vit_huge_patch16_224", options), "there is no \"vit_huge_patch16_224\""),
        (refused("vit_tiny_patch16_224", ModelOptions { width: 0.5, ..options }), "width"),
        (refused("vit_tiny_patch16_224", ModelOptions { stem_stride: Some(1), ..options }), "stem_stride"),
        (refused("vit_tiny_patch16_224", ModelOptions { size: Some([28; 2]), ..options }), "images of 28 x 28"),
        (refused("resnet18", ModelOptions { stem_stride: Some(3), ..options }), "a stride of 1 or 2"),
    ] {
        assert!(error.contains(word), "{error}");
    }
}
