//! Kernels with one fault each, and the same without it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use FindingKind as Kind;

/// Runs a text on a buffer `x` of these floats and a buffer `y` of as many zeros.
fn run(text: &str, x: &[f32], grid: [u32; 3], options: Options) -> Result<Report> {
    let bytes = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
    let contents = |name: &str, bytes| Contents { name: name.into(), bytes };
    let head = "@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n";
    let buffers = vec![contents("x", bytes(x)), contents("y", bytes(&vec![0.0; x.len()]))];
    check(&Kernel::new("test", format!("{head}{text}")), "", &[], buffers, &[], grid, options)
}

fn found(text: &str) -> Vec<(Kind, String)> {
    let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let report = run(text, &x, [2, 1, 1], Options::default()).unwrap();
    report.findings.into_iter().map(|finding| (finding.kind, finding.to_string())).collect()
}

fn results(report: &Report) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&report.buffers[1].1)
}

/// A kernel of 32 invocations: `body` with the invocation's number `lane` and its place `i` among all.
fn kernel(body: &str) -> String {
    format!(
        "var<workgroup> s: array<f32, 32>;
@compute @workgroup_size(32) fn run(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {{
    let i = group.x * 32u + lane;
    {body}
}}"
    )
}

#[track_caller]
fn assert_found(body: &str, expected: &[Kind]) -> String {
    let found = found(&kernel(body));
    let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, expected, "{body}: {found:?}");
    found.into_iter().map(|(_, text)| text).collect()
}

const SUM: &str = "s[lane] = x[i];
    workgroupBarrier();
    for (var half = 16u; half > 0u; half /= 2u) {
        if (lane < half) { s[lane] += s[lane + half]; }
        workgroupBarrier();
    }
    y[i] = s[0];";

#[test]
fn what_is_right_is_right() {
    assert_found(SUM, &[]);
    let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let report = run(&kernel(SUM), &x, [2, 1, 1], Options::default()).unwrap();
    let y = results(&report);
    assert_eq!((y[0], y[31], y[32], report.rounds, report.invocations), (496.0, 496.0, 1520.0, 6, 64));
}

#[test]
fn a_missing_barrier_is_a_race() {
    // Whichever is left out: the lines of both accesses are named.
    for (number, barrier) in SUM.match_indices("workgroupBarrier();").map(|(at, _)| at).enumerate() {
        let mut text = SUM.to_string();
        text.replace_range(barrier..barrier + 19, "");
        let found = found(&kernel(&text));
        assert!(found.iter().any(|(kind, _)| *kind == Kind::Race), "{number}: {found:?}");
    }
    let text = assert_found("s[lane] = x[i]; y[i] = s[31u - lane];", &[Kind::Race]);
    assert!(text.contains("of s: invocation") && text.contains("test:6:") && text.contains("with nothing between them"), "{text}");
    // A subgroup's invocations need not go together.
    assert_found("s[lane] = x[i]; y[i] = s[lane ^ 1u];", &[Kind::Race]);
    // What each has for itself is no one else's.
    assert_found("s[lane] = x[i]; y[i] = s[lane];", &[]);
}

#[test]
fn workgroups_do_not_wait_for_each_other() {
    let text = assert_found("if (lane == 0u) { y[0] = f32(group.x); }", &[Kind::Race]);
    assert!(text.contains("of workgroup 1") && text.contains("of workgroup 0"), "{text}");
    assert_found("y[0] = 1.0;", &[Kind::EqualWrites]);
    assert_found("y[i] = x[i]; storageBarrier(); if (lane > 0u) { y[i - 1u] = 2.0; }", &[]);
    assert_found("y[i] = x[i]; if (lane > 0u) { y[i - 1u] = -2.0; }", &[Kind::Race]);
}

#[test]
fn atomics_race_with_nothing_atomic() {
    let sum = "@group(0) @binding(2) var<storage, read_write> n: array<atomic<u32>>;
        @compute @workgroup_size(32) fn run(@builtin(local_invocation_index) lane: u32) { let a = x[0] + y[0]; let old = atomicAdd(&n[0], lane); }";
    let head = "@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> y: array<f32>;\n";
    let buffer = |name: &str| Contents { name: name.into(), bytes: vec![0; 4] };
    let kernel = Kernel::new("sum", format!("{head}{sum}"));
    let report = check(&kernel, "run", &[], ["x", "y", "n"].map(buffer).to_vec(), &[], [3, 1, 1], Options::default()).unwrap();
    assert_eq!((report.findings.len(), report.buffers[2].1.clone()), (0, (3 * 496u32).to_le_bytes().to_vec()));
}

#[test]
fn indices_have_bounds() {
    let text = assert_found("y[i] = x[i + 1u];", &[Kind::OutOfBounds]);
    assert!(text.contains("index 64 of 64 of x, in invocation 31"), "{text}");
    assert_found("if (i < 60u) { y[i + 4u] = x[i]; }", &[]);
    assert_found("s[lane + 1u] = 1.0;", &[Kind::OutOfBounds]);
    assert_found("var a = vec4<f32>(1.0); y[i] = a[lane & 3u];", &[]);
    assert_found("var a = array<f32, 4>(); y[i] = a[lane];", &[Kind::OutOfBounds]);
}

#[test]
fn what_no_one_has_written() {
    let text = assert_found("if (lane < 16u) { s[lane] = 1.0; } workgroupBarrier(); y[i] = s[lane];", &[Kind::Uninitialized]);
    assert!(text.contains("s is read where no invocation has written it, by invocation 16"), "{text}");
}

#[test]
fn barriers_are_for_all() {
    let text = assert_found("if (lane < 16u) { workgroupBarrier(); } y[i] = 1.0;", &[Kind::DivergentBarrier]);
    assert!(text.contains("16 of 32 invocations do not come to it, invocation 16 among them"), "{text}");
    assert_found("if (lane == 3u) { return; } s[lane] = 1.0; storageBarrier(); y[i] = s[lane];", &[Kind::DivergentBarrier]);
    assert_found("if (group.x == 1u) { return; } workgroupBarrier(); y[i] = 1.0;", &[]);
}

#[test]
fn subgroups_of_every_size() {
    let body = kernel("y[i] = subgroupAdd(x[i]);");
    let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
    for size in [4, 8, 16, 32, 64] {
        let report = run(&body, &x, [2, 1, 1], Options { subgroup_size: size, ..Options::default() }).unwrap();
        let first: f32 = x.iter().take(size.min(32) as usize).sum();
        assert!(report.findings.is_empty() && results(&report)[1] == first, "{size}");
    }
    let found = found(&kernel("if (lane % 3u == 0u) { y[i] = subgroupAdd(x[i]); }"));
    assert_eq!(found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::DivergentSubgroup]);
    assert_found("if (lane < 32u) { y[i] = subgroupShuffleXor(x[i], 1u); }", &[]);
    assert!(run(&body, &x, [1, 1, 1], Options { subgroup_size: 3, ..Options::default() }).is_err());
}

#[test]
fn numbers_without_a_meaning() {
    let text = assert_found("y[i] = f32(7u / (lane - lane));", &[Kind::Division]);
    assert!(text.contains("of 7, 0 in invocation 0"), "{text}");
    assert_found("y[i] = f32(7u % (lane + 1u));", &[]);
    assert_found("y[i] = f32(1u << (lane + 1u));", &[Kind::Shift]);
    assert_found("y[i] = f32(u32(x[i] - 1.0));", &[Kind::Conversion]);
    assert_found("y[i] = f32(i32(x[i] - 1.0));", &[]);
    // NaN is named where it comes from, and nowhere else.
    let text = assert_found("let a = sqrt(x[i] - 1.0); y[i] = a + 1.0;", &[Kind::NotANumber]);
    assert!(text.contains("of -1e0 in invocation 0") && text.contains("test:6:"), "{text}");
}

#[test]
fn loops_end() {
    assert_found("var n = 0u; while (n < 60000u) { n++; } y[i] = f32(n);", &[]);
    assert_found("var n = 0u; loop { n++; if (n > 70000u) { break; } } y[i] = f32(n);", &[Kind::Rounds]);
    let endless = kernel("var n = 0u; loop { if (n > 0u) { n = 1u; } else { n = 2u; } if (lane > 99u) { break; } } y[i] = f32(n);");
    let error = run(&endless, &[0.0; 64], [1, 1, 1], Options { most_rounds: 70_000, ..Options::default() }).unwrap_err().to_string();
    assert!(error.contains("has walked 70001 rounds of loops and is given up") && error.contains("test:6:"), "{error}");
}

#[test]
fn control_flow_is_that_of_wgsl() {
    let body = "
    var total = 0.0;
    for (var k = 0u; k < 10u; k++) {
        if (k == lane) { continue; }
        if (k > lane + 3u) { break; }
        switch (k % 3u) { case 0u: { total += 1.0; } case 1u: { if (lane == 1u) { break; } total += 10.0; } default: { total += 100.0; } }
    }
    y[i] = total + add(x[i], lane);
}
fn add(a: f32, lane: u32) -> f32 {
    if (lane == 2u) { return -1.0; }
    var v = vec3<f32>(a, 2.0, 3.0);
    v.y = 4.0;
    let m = mat2x2<f32>(1.0, 2.0, 3.0, 4.0) * vec2<f32>(1.0, 1.0);
    return dot(v.xyz, vec3<f32>(1.0)) + m.x * 1000.0 + m[1] * 10000.0;
";
    let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let report = run(&kernel(body), &x, [2, 1, 1], Options::default()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let expected = |i: usize| {
        let lane = i % 32;
        let mut total = 0.0;
        for k in 0..10 {
            if k == lane {
                continue;
            }
            if k > lane + 3 {
                break;
            }
            total += match k % 3 {
                0 => 1.0,
                1 if lane == 1 => 0.0,
                1 => 10.0,
                _ => 100.0,
            };
        }
        total + if lane == 2 { -1.0 } else { x[i] + 7.0 + 4000.0 + 60000.0 }
    };
    assert_eq!(results(&report), (0..64).map(expected).collect::<Vec<f32>>());
}

#[test]
fn wrong_calls_are_errors() {
    let text = kernel("y[i] = x[i];");
    let call = |entry: &str, names: &[&str], grid| {
        let head =
            "@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n";
        let buffers = names.iter().map(|name| Contents { name: (*name).into(), bytes: vec![0; 128] }).collect();
        check(&Kernel::new("test", format!("{head}{text}")), entry, &[], buffers, &[], grid, Options::default())
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert!(call("other", &["x", "y"], [1; 3]).contains("no entry point \"other\"; it has: run"));
    assert!(call("run", &["x"], [1; 3]).contains("the buffer y is missing"));
    assert!(call("run", &["x", "y", "z"], [1; 3]).contains("no buffer z"));
    for grid in [[1 << 20, 1, 1], [u32::MAX; 3]] {
        assert!(call("run", &["x", "y"], grid).contains("check a smaller grid"));
    }
    let huge = ["var<workgroup> s: array<f32, 100000000>;", "var<private> s: array<f32, 10000000>;"];
    for text in huge.map(|s| format!("{s}\n@compute @workgroup_size(1) fn run() {{ s[0] = x[0]; y[0] = s[0]; }}")) {
        let error = run(&text, &[1.0], [1; 3], Options::default()).map(drop).unwrap_err().to_string();
        assert!(error.contains("cannot be checked: expected at most"), "{error}");
    }
    let error = check(&Kernel::new("broken", "fn ("), "", &[], vec![], &[], [1; 3], Options::default()).map(drop).unwrap_err().to_string();
    assert!(error.contains("broken:1:"), "{error}");
}
