//! The benchmark: its probes, workloads, gates and output. Nothing here depends on how long
//! something takes.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{gpu, gpus};
use serde_json::Value;
use wgrad::bench::compare::{Verdict, compare, verdict};
use wgrad::bench::formats::{COLUMNS, csv, json_line};
use wgrad::bench::measure::{Flush, Options, measure};
use wgrad::bench::run::{Row, Run};
use wgrad::bench::{SUITES, ladder, measure as measuring, peers, probes, workloads};
use wgrad::gpu::Gpu;
use wgrad::ops::Cost;
use wgrad::report::{Bound, Peaks, TimeSummary};

/// As few measurements as possible: none is looked at here.
const OPTIONS: Options = Options { seconds: 0.0, cold: false, gate: true };

fn row(gpu: &Gpu, suite: &str, name: &str) -> Row {
    let workload = workloads(suite, gpu.capabilities()).into_iter().find(|w| w.name == name).unwrap_or_else(|| panic!("no {name}"));
    measure(gpu, &workload, &Peaks::default(), &Flush::new(gpu, &OPTIONS).unwrap(), &OPTIONS).unwrap()
}

#[test]
fn probes_compute_what_they_must() {
    for (schedule, gpu) in gpus() {
        let (peaks, rows) = probes::measure(&gpu, 0.0).unwrap();
        for row in &rows {
            assert_eq!(row.gate.passed, Some(true), "{} ({schedule}): {:?}", row.name, row.gate);
        }
        assert!(peaks.fma_gflops.is_some() && peaks.loads_gflops.is_some() && peaks.copy_gbs.is_some(), "{peaks:?}");
    }
}

/// `check` as burn 0.22.1 printed it (`burn-peer wgpu` on Mesa 22.3.6's llvmpipe, 2026-11-20).
#[test]
fn peers_give_what_burn_gives() {
    let burn = [
        ("matmul_512", 6.432_387_4),
        ("conv1x1_fwd", 0.180_208_2),
        ("conv1x1_fwdbwd", -20.611_275),
        ("dwconv3x3_fwd", -0.662_801_5),
        ("dwconv3x3_fwdbwd", 48.326_53),
        ("softmax_t4_fwd", 0.000_958_542_9),
        ("softmax_t4_fwdbwd", 0.000_231_051_5),
        ("ntxent_fwdbwd", 6.240_777),
        ("batchnorm_fwdbwd", -66.654_18),
        ("mobilenet_step", 2.336_496_4),
    ];
    for (schedule, gpu) in gpus() {
        for (name, expected) in burn {
            let row = row(&gpu, "peers", name);
            let check = row.check.unwrap();
            assert!((check - expected).abs() <= 1e-3, "{name} ({schedule}): {check}, burn has {expected}");
            assert_eq!(row.gate.passed, Some(true), "{name} ({schedule}): {:?}", row.gate);
        }
    }
}

#[test]
fn every_peer_has_its_name() {
    let names: Vec<String> = peers::workloads().into_iter().map(|w| w.name).collect();
    let expected = [
        "matmul_512",
        "matmul_1024",
        "matmul_4096x256x256",
        "conv3x3_fwd",
        "conv3x3_fwdbwd",
        "conv1x1_fwd",
        "conv1x1_fwdbwd",
        "dwconv3x3_fwd",
        "dwconv3x3_fwdbwd",
        "softmax_t4_fwd",
        "softmax_t4_fwdbwd",
        "ntxent_fwdbwd",
        "batchnorm_fwdbwd",
        "mobilenet_step",
    ];
    assert_eq!(names, expected);
    // The hash of the other programs: the first numbers of seed 1 (shared/peers/burn/src/bench.rs).
    assert!(peers::uniform(1, 1000).iter().all(|v| (-1.0..1.0).contains(v)));
    assert_ne!(peers::uniform(1, 4), peers::uniform(2, 4));
}

#[test]
fn names_are_unique_in_each_suite() {
    let gpu = gpu();
    for suite in SUITES {
        let mut names: Vec<String> = workloads(suite, gpu.capabilities()).into_iter().map(|w| w.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{suite}");
        assert!(count > 10 || ["probes", "half"].contains(&suite), "{suite} has {count}");
    }
}

/// One of each kind of layer, on the smallest of the networks.
#[test]
fn layers_and_operators_pass_their_gates() {
    let gpu = gpu();
    let layers = ["depthwise3s2_32x64", "conv1_2x512x1024", "norm_2x512_relu6", "avgpool_2x1024", "linear_1024x10"];
    for name in layers.iter().flat_map(|name| ["fwd", "fwdbwd"].map(|way| format!("mobilenet_v1_32/{name}_{way}"))) {
        let row = row(&gpu, "layers", &name);
        assert_eq!(row.gate.passed, Some(true), "{name}: {:?}", row.gate);
    }
    for name in ["batch_norm_train_fwdbwd", "cross_entropy_fwdbwd", "argmax", "conv2d_fwdbwd"] {
        let row = row(&gpu, "registry", name);
        assert_eq!(row.gate.passed, Some(true), "{name}: {:?}", row.gate);
        assert!(row.dispatches > 0 && row.wall_ms.count >= 5, "{row:?}");
    }
}

#[test]
fn steps_of_the_ladder_pass_their_gates_and_gain() {
    let gpu = gpu();
    for problem in ["gemm_256", "conv2d_4x16x64", "softmax_4096x64"] {
        let steps: Vec<_> = workloads("ladder", gpu.capabilities()).into_iter().filter(|w| w.name.starts_with(problem)).collect();
        let mut rows: Vec<Row> = Vec::new();
        for (workload, ms) in steps.iter().zip([6.0, 3.0, 2.0]) {
            let gate = ((workload.make)(&gpu).unwrap().gate)().unwrap();
            assert_eq!(gate.passed, Some(true), "{}: {gate:?}", workload.name);
            rows.push(Row { suite: "ladder".into(), name: workload.name.clone(), wall_ms: sample(&[ms]), ..Default::default() });
        }
        let [naive, tiled, engine] = rows.as_slice() else { panic!("{problem} has {} steps", rows.len()) };
        assert_eq!(
            [ladder::gain(naive, &[]), ladder::gain(tiled, &rows[..1]), ladder::gain(engine, &rows[..2])],
            [None, Some(2.0), Some(1.5)]
        );
        // The first step of another problem has none before it.
        assert_eq!(ladder::gain(&Row { name: "other/naive".into(), ..naive.clone() }, &rows), None);
    }
}

fn sample(values: &[f64]) -> TimeSummary {
    TimeSummary::of_seconds(&values.iter().map(|v| v * 1e-3).collect::<Vec<_>>())
}

#[test]
fn verdicts_know_noise_and_the_least_effect() {
    let around = |ms: f64, spread: f64| sample(&(0..21).map(|i| ms * (1.0 + spread * (f64::from(i) - 10.0) / 10.0)).collect::<Vec<_>>());
    let cases = [
        (around(10.0, 0.01), around(12.0, 0.01), Verdict::Slower),
        (around(10.0, 0.01), around(8.0, 0.01), Verdict::Faster),
        (around(10.0, 0.01), around(10.1, 0.01), Verdict::Same),
        // A tenth slower, but the measurements spread over more than that.
        (around(10.0, 0.4), around(11.0, 0.4), Verdict::Unsure),
        // Certain, and too little to matter.
        (around(10.0, 0.001), around(10.25, 0.001), Verdict::Same),
        (around(10.0, 0.001), around(10.4, 0.001), Verdict::Slower),
        // Five measurements of which one was interrupted for long: no doubt of three orders of
        // magnitude, much doubt of a factor of three.
        (sample(&[1.0, 1.1, 1.2, 1.5, 30.0]), sample(&[1e3, 1.1e3, 1.2e3, 1.5e3, 3e4]), Verdict::Slower),
        (sample(&[1e3, 1.1e3, 1.2e3, 1.5e3, 3e4]), sample(&[1.0, 1.1, 1.2, 1.5, 30.0]), Verdict::Faster),
        (sample(&[1.0, 1.1, 1.2, 1.5, 30.0]), sample(&[3.0, 3.3, 3.6, 4.5, 90.0]), Verdict::Unsure),
    ];
    for (before, after, expected) in cases {
        assert_eq!(verdict(&before, &after).0, expected, "{before:?} {after:?}");
    }
}

fn run(rows: Vec<Row>) -> Run {
    Run { environment: Default::default(), peaks: Peaks::default(), rows }
}

#[test]
fn runs_are_compared_by_suite_name_shape_and_schedule() {
    let row = |name: &str, schedule: &str, ms: f64| Row {
        suite: "peers".into(),
        name: name.into(),
        schedule: schedule.into(),
        wall_ms: sample(&[ms; 7]),
        ..Default::default()
    };
    let (before, after) = (
        run(vec![row("a", "software", 2.0), row("b", "software", 1.0)]),
        run(vec![row("a", "gpu", 9.0), row("b", "software", 2.0), row("a", "software", 1.0)]),
    );
    let found: Vec<(String, Verdict)> = compare(&before, &after).into_iter().map(|c| (c.name, c.verdict)).collect();
    assert_eq!(found, [("peers/b (software)".to_string(), Verdict::Slower), ("peers/a (software)".to_string(), Verdict::Faster)]);

    // Runs that were saved before the schedules got these names are read as the same.
    let saved = serde_json::to_string(&after).unwrap();
    let older = saved.replace("\"schedule\":\"software\"", "\"schedule\":\"cpu\"").replace("\"schedule\":\"gpu\"", "\"schedule\":\"simd\"");
    assert_ne!(older, saved);
    assert_eq!(serde_json::from_str::<Run>(&older).unwrap(), after);
}

#[test]
fn rates_follow_from_time_cost_and_peaks() {
    let peaks = Peaks {
        fma_gflops: Some(100.0),
        copy_gbs: Some(10.0),
        cached_copy_gbs: Some(20.0),
        dispatch_microseconds: Some(1.0),
        ..Default::default()
    };
    let rated = |flops: f64, bytes: f64, dispatches: usize| {
        let mut row = Row { wall_ms: sample(&[10.0]), dispatches, ..Default::default() };
        measuring::rate(&mut row, Cost { flops, bytes }, &peaks);
        row
    };
    let compute = rated(5e8, 1e6, 1);
    assert_eq!((compute.bound, compute.gflops, compute.intensity), (Bound::Compute, Some(50.0), Some(500.0)));
    approx::assert_abs_diff_eq!(compute.percent_of_peak.unwrap(), 50.0, epsilon = 1e-9);
    // What a cache holds is held against copying inside it.
    let near = rated(0.0, 1e7, 1);
    assert_eq!(near.bound, Bound::Memory);
    approx::assert_abs_diff_eq!(near.percent_of_peak.unwrap(), 5.0, epsilon = 1e-9);
    approx::assert_abs_diff_eq!(rated(0.0, 5e7, 1).percent_of_peak.unwrap(), 50.0, epsilon = 1e-9);
    assert_eq!(rated(1e3, 1e3, 10).bound, Bound::Launch);
    assert_eq!(rated(0.0, 0.0, 10).bound, Bound::Unknown);
}

#[test]
fn lines_and_tables_hold_what_they_promise() {
    let row = Row {
        suite: "peers".into(),
        name: "a,\"b\"".into(),
        wall_ms: sample(&[1.0, 2.0, 3.0]),
        check: Some(0.5),
        first_ms: 9.0,
        ..Default::default()
    };
    let line: Value = serde_json::from_str(&json_line(&row).unwrap()).unwrap();
    for (field, value) in [("ms", 2.0), ("min_ms", 1.0), ("check", 0.5), ("first_ms", 9.0), ("iterations", 3.0)] {
        assert!((line[field].as_f64().unwrap() - value).abs() < 1e-9, "{field}: {line}");
    }
    assert_eq!(line["workload"], "a,\"b\"");
    assert!(line.as_object().unwrap().contains_key("gflops"));
    let text = csv(&run(vec![row])).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    assert_eq!(head.split(',').count(), COLUMNS.len());
    assert!(rest.starts_with("peers,\"a,\"\"b\"\"\","), "{rest}");
}

fn wgrad(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).current_dir(folder).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const SCALE: &str = "
struct Params { n: u32, factor: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
// Its parameters.
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < params.n) { y[id.x] = params.factor * x[id.x]; }
}
";

/// The same as a template, with a constant.
const TEMPLATE: &str = r#"
{% include "grid.wgsl" %}
{{ input(0, "x") }} {{ output(1, "y") }} {{ params("n: u32, factor: f32") }}
@compute @workgroup_size(64)
fn scale(@builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(wid, nwg) * 64u + lane;
    if (i < p.n) { store_y(i, load_x(i) * p.factor * {{ TWICE }}.0); }
}
"#;

#[test]
fn a_kernel_from_a_file_is_measured_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scale.wgsl"), SCALE).unwrap();
    std::fs::write(folder.path().join("template.wgsl"), TEMPLATE).unwrap();
    std::fs::write(folder.path().join("wrong.wgsl"), SCALE.replace("params.factor *", "1.001 * params.factor *")).unwrap();
    let common = ["--bind", "x=f32[16,1000]:random", "--bind", "y=f32[16000]:zero", "--grid", "250", "--seconds", "0", "--hot", "--json"];
    let bench = |file: &str, more: &[&str]| wgrad(folder.path(), &[&["bench", file][..], &common, more].concat());

    let output = bench("scale.wgsl", &["--params", "16000,0.5", "--flops", "16*1000", "--bytes", "2*4*16000"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = lines(&output).remove(0);
    assert_eq!((line["workload"].as_str(), line["flops"].as_f64(), line["bytes"].as_f64()), (Some("scale"), Some(16000.0), Some(128000.0)));
    assert!(line["gate"]["passed"].is_null());

    let right = bench("scale.wgsl", &["--params", "factor=0.5,n=16000", "--expect", "scale.wgsl"]);
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    assert_eq!(lines(&right)[0]["gate"]["max_error"], 0.0);

    let template = bench("template.wgsl", &["--params", "16000,0.5", "--expect", "template.wgsl", "--define", "TWICE=2"]);
    assert!(template.status.success(), "{}", String::from_utf8_lossy(&template.stderr));

    let wrong = bench("wrong.wgsl", &["--params", "16000,0.5", "--expect", "scale.wgsl"]);
    assert_eq!(wrong.status.code(), Some(1));
    let gate = &lines(&wrong)[0]["gate"];
    assert_eq!(gate["passed"], false);
    approx::assert_abs_diff_eq!(gate["max_error"].as_f64().unwrap(), 1e-3, epsilon = 1e-5);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("wrong is WRONG"));

    for (arguments, words) in [
        (&["--params", "16000"][..], "the shader declares n: u32, factor: f32"),
        (&["--params", "16000,0.5", "--bind", "z=f32[3]"], "has no buffer \"z\"; it has x, y"),
        (&["--params", "16000,0.0", "--expect", "scale.wgsl"], "y of scale: its reference is 0 in every element"),
        (&["--params", "16000,0.5", "--entry", "other"], "no entry point \"other\"; it has: main"),
        (&["--params", "16000,0.5", "--flops", "2**3"], "expected numbers"),
    ] {
        let output = bench("scale.wgsl", arguments);
        let error = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(!output.status.success() && error.contains(words), "{error}");
    }
}

#[test]
fn a_saved_run_is_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "--suite", "registry", "=relu", "--seconds", "0", "--hot"];
    let saved = wgrad(folder.path(), &[&arguments[..], &["--save", "run.json", "--html", "run.html", "--csv"]].concat());
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    assert!(String::from_utf8_lossy(&saved.stdout).starts_with("suite,workload,"));
    assert!(std::fs::read_to_string(folder.path().join("run.html")).unwrap().contains("relu"));
    let mut run: Run = serde_json::from_slice(&std::fs::read(folder.path().join("run.json")).unwrap()).unwrap();
    assert_eq!((run.rows.len(), run.rows[0].name.as_str()), (1, "relu"));
    assert!(run.environment.command.contains("--suite registry") && run.environment.wgpu.starts_with("30."));

    // A past that was a thousand times faster, and one that was a thousand times slower.
    for (factor, code, word) in [(1e-3, 1, "SLOWER"), (1e3, 0, "FASTER")] {
        let row = &mut run.rows[0];
        row.wall_ms = sample(&[row.wall_ms.median * factor; 9]);
        row.device_ms = row.device_ms.map(|s| sample(&[s.median * factor; 9]));
        std::fs::write(folder.path().join("past.json"), serde_json::to_vec(&run).unwrap()).unwrap();
        let output = wgrad(folder.path(), &[&arguments[..], &["--compare", "past.json"]].concat());
        let text = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(word), "{text}");
        run.rows[0].wall_ms = sample(&[run.rows[0].wall_ms.median / factor; 9]);
        run.rows[0].device_ms = run.rows[0].device_ms.map(|s| sample(&[s.median / factor; 9]));
    }
    let unknown = wgrad(folder.path(), &["bench", "no_such_workload"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("--list shows all"));
}
