//! Every shader variant that the operators' samples build, in both texts: naga reads the native one
//! and writes SPIR-V, MSL, HLSL and GLSL of it, and reads the browser one; `tint` and `spirv-val`
//! have their say where they are installed. Texts for adapters that are not here are made on
//! devices that plan.

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::common::on_each_schedule;
use crate::common::samples::run;
use wgrad::gpu::{AdapterKind, BuiltShader, Capabilities, Gpu, Language, Matrix, Schedule, translate, untranslatable};
use wgrad::ops::convolution::conv2d::Conv2dFuncOptions;
use wgrad::ops::normalization::batch_norm::BatchNormFuncOptions;
use wgrad::ops::registry::registry;
use wgrad::tensor::{DType, Tensor};

fn built() -> &'static [BuiltShader] {
    static BUILT: OnceLock<Vec<BuiltShader>> = OnceLock::new();
    BUILT.get_or_init(build_all)
}

fn build_all() -> Vec<BuiltShader> {
    let mut shaders = on_each_schedule(|_, gpu| {
        run_samples(gpu);
        wgrad::bench::ladder::samples().into_iter().for_each(|sample| drop(run(gpu, sample)));
        wgrad::bench::probes::measure(gpu, 0.0).unwrap();
        gpu.built_shaders()
    });
    shaders.extend(matrix_shaders());
    shaders.sort_by(|a, b| (&a.kernel, &a.variant).cmp(&(&b.kernel, &b.variant)));
    shaders.dedup_by(|a, b| a == b);
    shaders
}

/// Every operator's samples. A wrong result is another test's business; here only the shaders
/// matter.
fn run_samples(gpu: &Gpu) {
    for entry in registry() {
        (entry.samples)().into_iter().for_each(|sample| drop(run(gpu, sample)));
    }
    if gpu.capabilities().f16 {
        half_precision(gpu);
    }
}

/// What adapters with cooperative matrices would be given: Metal's of 8, NVIDIA's and AMD's of 16.
fn matrix_shaders() -> Vec<BuiltShader> {
    let gpu = common::gpu();
    let planned = |side: u32, subgroup_size: (u32, u32), immediates: bool| {
        let (kind, schedule, matrix) = (AdapterKind::Discrete, Schedule::Gpu, Some(Matrix { m: side, n: side, k: side }));
        let own = gpu.capabilities().clone();
        let adapter = Capabilities { kind, schedule, matrix, subgroups: true, subgroup_size, f16: true, immediates, ..own };
        let planning = gpu.planning_as(adapter).unwrap();
        half_precision(&planning);
        let kernels = planning.take_plan().unwrap().into_iter().map(|launch| launch.kernel);
        kernels.filter(|kernel| kernel.kernel.ends_with("_matrix")).collect::<Vec<_>>()
    };
    let mut shaders = Vec::new();
    for (side, width) in [(8, (32, 32)), (16, (32, 32)), (16, (32, 64))] {
        let both = planned(side, width, true).into_iter().zip(planned(side, width, false));
        shaders.extend(both.map(|(native, browser)| BuiltShader {
            kernel: native.kernel.clone(),
            variant: native.variant.clone(),
            native: native.text.clone(),
            browser: browser.text.clone(),
        }));
    }
    assert!(shaders.len() > 20, "only {} texts have matrices", shaders.len());
    shaders
}

/// Samples are f32; here the heavy kernels are built for f16 storage, too.
fn half_precision(gpu: &Gpu) {
    let half = |shape: &[usize]| Tensor::full(gpu, shape, 1.0, DType::F32).unwrap().cast(DType::F16).unwrap().watch();
    let full = |shape: &[usize]| Tensor::full(gpu, shape, 1.0, DType::F32).unwrap();
    let backward = |y: Tensor| y.backward_from(&half(y.shape())).map(drop).unwrap();
    backward(half(&[33]).relu().unwrap());
    backward(half(&[33, 65]).matmul(&half(&[65, 7])).unwrap());
    backward(half(&[5, 33]).softmax(-1).unwrap());
    backward(half(&[36, 40]).matmul(&half(&[40, 68])).unwrap());
    backward(half(&[1, 5, 5, 3]).conv2d(&full(&[5, 3, 3, 3]).watch(), None, &Conv2dFuncOptions::default()).unwrap());
    backward(half(&[1, 5, 5, 8]).conv2d(&full(&[8, 3, 3, 8]).watch(), None, &Conv2dFuncOptions::default()).unwrap());
    let stats = [full(&[8]), full(&[8]), full(&[8]), full(&[8])];
    backward(half(&[6, 8]).batch_norm(&stats[0], &stats[1], &stats[2], &stats[3], &BatchNormFuncOptions::default(), None).unwrap());
}

/// Whether a tool is there, and not another of its name (Debian's tint is a game): its help has the
/// word.
fn installed(tool: &str, word: &str) -> bool {
    let help = Command::new(tool).arg("--help").output();
    help.is_ok_and(|help| String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).to_lowercase().contains(word))
}

fn files_below(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_stem().unwrap().to_string_lossy());
        match path.is_dir() {
            true => files_below(&path, &format!("{name}/"), found),
            false => _ = found.insert(name),
        }
    }
}

/// What some versions of spirv-val say of modules that have no fault of ours.
const SPIRV_VAL: [(&str, &str); 2] = [
    ("Invalid capability operand: 6022", "this spirv-val is older than SPV_KHR_cooperative_matrix"),
    ("VUID-StandaloneSpirv-None-10684", "naga 30 gives arrays in workgroup memory a stride, which newer spirv-vals refuse"),
];

#[test]
fn every_shader_translates_everywhere() {
    let shaders = built();
    let (tint, spirv_val) = (installed("tint", "wgsl"), installed("spirv-val", "spir-v"));
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    let mut excused = BTreeSet::new();
    for shader in shaders {
        let name = format!("{} [{}]", shader.kernel, shader.variant);
        for language in Language::ALL {
            if let Some(reason) = untranslatable(&shader.native, language) {
                excused.insert((shader.kernel.clone(), reason));
                continue;
            }
            match translate(&name, &shader.native, language) {
                Ok(bytes) if language == Language::Spirv && spirv_val => {
                    let path = folder.path().join("shader.spv");
                    std::fs::write(&path, bytes).unwrap();
                    let output = Command::new("spirv-val").args(["--target-env", "vulkan1.1"]).arg(&path).output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr);
                    let known = SPIRV_VAL.iter().find(|(words, _)| said.contains(words));
                    match known.filter(|_| !output.status.success()) {
                        Some((_, reason)) => _ = excused.insert((shader.kernel.clone(), *reason)),
                        None if output.status.success() => {}
                        None => failures.push(format!("{name}: spirv-val: {said}")),
                    }
                }
                Ok(_) => {}
                Err(error) => failures.push(error.to_string()),
            }
        }
        if let Err(error) = translate(&name, &shader.browser, Language::Spirv) {
            failures.push(format!("browser text: {error}"));
        }
        // A browser is never given what naga alone knows.
        if tint && !shader.browser.contains("enable wgpu_cooperative_matrix;") {
            let path = folder.path().join("shader.wgsl");
            std::fs::write(&path, &shader.browser).unwrap();
            let output = Command::new("tint").args(["--format", "wgsl", "-o", "/dev/null"]).arg(&path).output().unwrap();
            if !output.status.success() {
                failures.push(format!("{name}: tint: {}", String::from_utf8_lossy(&output.stderr)));
            }
        }
    }
    println!("{} shader variants; tint {tint}, spirv-val {spirv_val}; not translated: {excused:?}", shaders.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// An adapter that is not here, with f16 storage.
fn adapter(schedule: Schedule, subgroup_size: (u32, u32), browser: bool) -> Capabilities {
    let (kind, subgroups, immediates) = (AdapterKind::Discrete, subgroup_size.1 > 0, !browser);
    Capabilities { kind, schedule, subgroups, subgroup_size, f16: true, matrix: None, immediates, ..common::gpu().capabilities().clone() }
}

/// What adapters would be given that are not here: NVIDIA's have subgroups of 32 lanes, AMD's of 64
/// or of either, Intel's of 8 to 32, and a browser may have none. Both schedules may be asked for on
/// any.
#[test]
fn shaders_are_valid_whatever_the_width_of_subgroups() {
    let gpu = common::gpu();
    let mut known = BTreeSet::new();
    let mut failures = Vec::new();
    for (least, most) in [(0, 0), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (32, 64)] {
        // The kernels for GPUs use none.
        for schedule in Schedule::ALL.into_iter().filter(|schedule| *schedule == Schedule::Software || [0, 32].contains(&most)) {
            let browsers: &[bool] = if [0, 8].contains(&most) { &[false, true] } else { &[false] };
            for &browser in browsers {
                let subgroups = most > 0;
                let planning = gpu.planning_as(adapter(schedule, (least, most), browser)).unwrap();
                run_samples(&planning);
                for launch in planning.take_plan().unwrap() {
                    let shader = launch.kernel;
                    if !known.insert((subgroups, shader.text.clone())) {
                        continue;
                    }
                    let name = format!("{} [{}] for subgroups of {least} to {most}", shader.kernel, shader.variant);
                    let lines = shader.text.lines().filter(|line| !line.trim_start().starts_with("//") && *line != "enable subgroups;");
                    let uses = lines.collect::<String>().contains("subgroup");
                    if uses && !subgroups {
                        failures.push(format!("{name}: the adapter has none"));
                    }
                    if (uses && browser) != shader.text.contains("enable subgroups;") {
                        failures.push(format!("{name}: a browser is asked for subgroups that are not used, or the other way round"));
                    }
                    failures.extend(translate(&name, &shader.text, Language::Spirv).err().map(|error| error.to_string()));
                }
            }
        }
    }
    println!("{} texts", known.len());
    assert!(known.len() > 400, "only {} texts", known.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Writes every text that a browser is given into a folder, by whether it has subgroups, for Dawn's
/// compiler (`scripts/validate.sh dawn`).
#[test]
#[ignore = "scripts/validate.sh asks for it"]
fn browser_texts_are_written() {
    let gpu = common::gpu();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser_texts");
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    for (kind, most) in [("plain", 0), ("subgroups", 32)] {
        let mut known = BTreeSet::new();
        for schedule in Schedule::ALL {
            let planning = gpu.planning_as(adapter(schedule, (most, most), true)).unwrap();
            run_samples(&planning);
            wgrad::bench::ladder::samples().into_iter().for_each(|sample| drop(run(&planning, sample)));
            known.extend(planning.take_plan().unwrap().into_iter().map(|launch| {
                let shader = launch.kernel;
                (shader.kernel.clone(), shader.variant.clone(), shader.text.clone())
            }));
        }
        for (index, (kernel, variant, text)) in known.iter().enumerate() {
            let text = format!("// {kernel} [{variant}]\n{text}");
            std::fs::write(folder.join(format!("{kind}-{index:04}.wgsl")), text).unwrap();
        }
        println!("{} texts, {kind}", known.len());
    }
}

/// No shader file is dead, and the registry names every one that its operators use.
#[test]
fn every_shader_file_is_used_by_a_sample() {
    let shaders = built();
    let used: BTreeSet<String> = shaders.iter().map(|s| s.kernel.clone()).collect();
    let mut files = BTreeSet::new();
    files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"), "", &mut files);
    files.retain(|f| !f.starts_with("include/"));
    // Launched by the tape and the device layer, which no sample need reach.
    let below_operators = ["autograd/accumulate", "autograd/non_finite", "gpu/fill", "gpu/numbers"].map(String::from);
    let dead: Vec<_> = files.iter().filter(|f| !used.contains(*f) && !below_operators.contains(f)).collect();
    assert!(dead.is_empty(), "no sample or probe uses {dead:?}");
    files.retain(|f| !f.starts_with("bench/") && !f.starts_with("ladder/"));
    let named: BTreeSet<String> = registry().iter().flat_map(|e| e.shaders().into_iter().map(String::from)).collect();
    let unknown: Vec<_> = files.iter().filter(|f| !named.contains(*f) && !below_operators.contains(f)).collect();
    assert!(unknown.is_empty(), "no registry entry names {unknown:?}");
}

/// The first line that mixes operators which WGSL's grammar keeps apart, if any: operands of shifts
/// and of `&`, `|`, `^` are unary, so what stands beside them needs parentheses. naga takes them as C
/// does; a browser's compiler refuses them. Operators stand between spaces, as in all our texts.
fn mixed_operators(text: &str) -> Option<&str> {
    const SHIFTS: [&str; 2] = ["<<", ">>"];
    const BITS: [&str; 3] = ["&", "|", "^"];
    const ARITHMETIC: [&str; 5] = ["+", "-", "*", "/", "%"];
    const OTHERS: [&str; 8] = ["==", "!=", "<=", ">=", "<", ">", "&&", "||"];
    let is_wrong = |ops: &[&str]| {
        let has = |list: &[&str]| ops.iter().filter(|op| list.contains(op)).count();
        let bits = has(&BITS);
        has(&SHIFTS) > usize::from(bits + has(&ARITHMETIC) == 0) || (bits > 0 && ops.iter().any(|op| *op != ops[0]))
    };
    text.lines().find(|line| {
        let code = line.split("//").next().unwrap_or_default();
        let mut levels: Vec<Vec<&str>> = vec![Vec::new()];
        let mut words = code.split_inclusive([' ', '(', ')', '[', ']', ',', ';', '{', '}']);
        words.any(|word| {
            let (op, end) = (word.trim(), word.chars().last().unwrap_or(' '));
            let known = [&SHIFTS[..], &BITS, &ARITHMETIC, &OTHERS].concat().contains(&op);
            let top = levels.last_mut().unwrap();
            if known {
                top.push(op);
            }
            // `=` and `return` begin an expression.
            if op.ends_with('=') && !OTHERS.contains(&op) {
                top.clear();
            }
            let wrong = is_wrong(top);
            match end {
                '(' | '[' => levels.push(Vec::new()),
                ')' | ']' => drop(levels.split_off(levels.len().max(2) - 1)),
                ',' | ';' | '{' | '}' => levels.last_mut().unwrap().clear(),
                _ => {}
            }
            wrong
        })
    })
}

#[test]
fn operators_that_browsers_keep_apart_are_told() {
    for wrong in
        ["let a = b >> 1u & 3u;", "let a = (b * 4u + (b >> 1u & 3u)) ^ 1u;", "if (a & 1u == 1u) {", "x = a + b << 2u;", "x = a & b | c;"]
    {
        assert_eq!(mixed_operators(wrong), Some(wrong));
    }
    let right = [
        "let a = (b >> 1u) & 3u;",
        "let a = ((b * 4u) + ((b >> 1u) & 3u)) ^ 1u;",
        "if ((a & 1u) == 1u && b < c) {",
        "let v: array<vec4<f32>>= x;",
        "x = a[b >> 2u] + c[d & 3u];",
        "x = a | b | c; // a & b | c",
        "if (a >> 1u == b) {",
    ];
    assert_eq!(mixed_operators(&right.join("\n")), None);
}

#[test]
fn no_text_mixes_operators_that_browsers_keep_apart() {
    let texts = built().iter().flat_map(|s| [(&s.kernel, &s.variant, &s.native), (&s.kernel, &s.variant, &s.browser)]);
    let wrong = |(kernel, variant, text): (&String, &String, &String)| Some(format!("{kernel} [{variant}]: {}", mixed_operators(text)?));
    let failures: Vec<String> = texts.filter_map(wrong).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
