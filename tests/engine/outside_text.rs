//! Shader text from outside, which may be anything: what is too deep, too large or endless is
//! refused before a compiler sees it, and faults are found at the lines that their author wrote.

use crate::common::gpu;
use wgrad::error::{Error, Result};
use wgrad::gpu::{Gpu, Kernel, Launch};
use wgrad::tensor::{DType, Tensor};

const HEAD: &str = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n";

fn entry(before: &str, body: &str) -> String {
    format!("{HEAD}{before}\n@compute @workgroup_size(4) fn run(@builtin(local_invocation_index) i: u32) {{\nvar a = y[i];\n{body}\n}}\n")
}

fn run(gpu: &Gpu, text: &str) -> Result<Vec<f32>> {
    let y = Tensor::full(gpu, [4], 3.0, DType::F32)?;
    Launch::new(gpu, &Kernel::new("deep", text), "run").write(&y).groups(1)?;
    y.to_vec::<f32>()
}

/// Refused with these words, in few of them, and the device works on.
fn refused(gpu: &Gpu, text: &str, words: &str) {
    let error = run(gpu, text).map(drop).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Shader { .. } | Error::Limit { .. }) && message.contains(words), "{words}: {message}");
    assert!(message.len() < 2000, "{}", message.len());
    assert_eq!(run(gpu, &entry("", "y[i] = a + 1.0;")).unwrap(), [4.0; 4]);
}

#[test]
fn deep_text_is_refused_or_works() {
    let gpu = gpu();
    let chain = |one: &str, count: usize| entry("", &format!("y[i] = a{};", one.repeat(count)));
    for one in ["+1", "+a", "[0]", ".x", "*(a", "+f(a"] {
        refused(&gpu, &chain(one, 30_000), "operators that depend on each other");
    }
    refused(&gpu, &entry("", &format!("y[i] = {}a;", "-".repeat(30_000))), "operators that depend on each other");
    refused(&gpu, &format!("var<private> z: {}f32;", "array<".repeat(30_000)), "operators that depend on each other");
    refused(&gpu, &entry("", &format!("y[i] = {}a{};", "(".repeat(1000), ")".repeat(1000))), "recursion limit");
    for block in ["{", "if a > 0.0 {", "loop { "] {
        refused(&gpu, &entry("", &(block.repeat(10_000) + &"}".repeat(10_000))), "limit");
    }
    let elses = |count: usize| {
        let more: String = (1..count).map(|n| format!(" else if a == {n}.0 {{ y[i] = {n}.5; }}")).collect();
        entry("", &format!("if a == 0.0 {{ y[i] = 0.5; }}{more}"))
    };
    refused(&gpu, &elses(10_000), "`else`s in one chain");
    let calls = |count: usize| {
        let more: String = (1..count).map(|n| format!("fn g{n}_(a: f32) -> f32 {{ return g{}_(a); }}\n", n - 1)).collect();
        entry(&format!("fn g0_(a: f32) -> f32 {{ return a + 0.5; }}\n{more}"), &format!("y[i] = g{}_(a);", count - 1))
    };
    refused(&gpu, &calls(5000), "calls 257 deep");
    let double: String = (1..40).map(|n| format!("fn g{n}_(a: f32) -> f32 {{ return g{0}_(a) + g{0}_(a + 1.0); }}\n", n - 1)).collect();
    refused(&gpu, &entry(&format!("fn g0_(a: f32) -> f32 {{ return a; }}\n{double}"), "y[i] = g39_(a);"), "each call is a copy");
    let types: String = (1..3000).map(|n| format!("alias T{n} = array<T{}, 1>;\n", n - 1)).collect();
    refused(&gpu, &entry(&format!("alias T0 = f32;\n{types}var<private> t: T2999;"), "let p = &t;"), "types lie in each other");
    let names: String = (1..10_000).rev().map(|n| format!("alias N{n} = N{};\n", n - 1)).collect();
    assert_eq!(run(&gpu, &entry(&format!("{names}alias N0 = f32;"), "y[i] = N9999(a);")).unwrap(), [3.0; 4]);
    // What is allowed works, to the end.
    assert_eq!(run(&gpu, &chain("+a", 1000)).unwrap(), [3003.0; 4]);
    assert_eq!(run(&gpu, &elses(300)).unwrap(), [3.5; 4]);
    assert_eq!(run(&gpu, &calls(200)).unwrap(), [3.5; 4]);
}

#[test]
fn memory_is_compared_with_limits_before_anything_is_compiled() {
    let gpu = gpu();
    let shared =
        |bytes: usize| entry(&format!("var<workgroup> w: array<f32, {}>;", bytes / 4), "w[i] = a; workgroupBarrier(); y[i] = w[3u - i];");
    refused(&gpu, &shared(400_000_000), "fn run needs 400000000 bytes of workgroup memory");
    let most = gpu.capabilities().max_workgroup_bytes as usize;
    refused(&gpu, &shared(most + 4), "bytes of workgroup memory");
    assert_eq!(run(&gpu, &shared(most)).unwrap(), [3.0; 4]);
    let two = entry(&format!("var<workgroup> v: array<f32, {0}>;\nvar<workgroup> w: array<f32, {0}>;", most / 6), "v[i] = a; w[i] = a;");
    refused(&gpu, &two, "bytes of workgroup memory");
    // What no entry point uses takes nothing.
    let unused = entry("var<workgroup> w: array<f32, 100000000>;", "y[i] = a;");
    assert_eq!(run(&gpu, &unused).unwrap(), [3.0; 4]);
    refused(&gpu, &entry("var<workgroup> w: array<array<array<f32, 65535>, 65535>, 65535>;", "w[0][0][i] = a;"), "");
    let body = "b[i] = a; y[i] = b[3u];";
    refused(&gpu, &entry("", &format!("var b: array<f32, 10000000>; {body}")), "variables of fn run take 40000004 bytes an invocation");
    refused(&gpu, &entry("var<private> b: array<f32, 10000000>;", body), "bytes an invocation");
    let called = "fn g(i: u32) -> f32 { var b: array<f32, 4000>; b[i] = 1.0; return b[3u]; }";
    refused(&gpu, &entry(called, &format!("y[i] = {}0.0;", "g(i) + ".repeat(100))), "with those of what it calls");
    refused(&gpu, &entry("", "let b = array<f32, 10000000>(); y[i] = b[i];"), "has a value of 40000000 bytes");
    assert_eq!(run(&gpu, &entry("", "var b: array<f32, 4000>; b[i] = a; y[i] = b[i];")).unwrap(), [3.0; 4]);
    let wide = entry("", "y[i] = a;").replace("workgroup_size(4)", "workgroup_size(1024, 1024, 64)");
    refused(&gpu, &wide, "workgroups of 1024 x 1024 x 64 invocations");
}

#[test]
fn templates_end() {
    let gpu = gpu();
    let run = |text: String, words: &str| refused(&gpu, &text, words);
    let nested = "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}";
    run(nested.to_string(), "runs for too long");
    run(format!("{{% set s %}}{nested}{{% endset %}}"), "runs for too long");
    run(format!("{{% for i in range(100000) %}}{}{{% endfor %}}", "x".repeat(900_000)), "becomes more than");
    run(format!("{{% set s %}}{{% for i in range(100000) %}}{}{{% endfor %}}{{% endset %}}", "x".repeat(900_000)), "runs for too long");
    run("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".into(), "recursion limit");
    run("{{ range(1000000000) }}".into(), "range has too many elements");
    run(format!("{{{{ {}1 }}}}", "1 + ".repeat(30_000)), "operators that depend on each other");
    run(format!("// {{{{ '}}}}' ~ {}1 }}}}", "1 and ".repeat(30_000)), "operators that depend on each other");
    run(format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(10_000)), "`elif`s");
    run("{% for i in range(2) %}".repeat(10_000), "recursion");
    run("// text\n".repeat(200_000), "1600000 bytes of text; 1048576 are the most");
}

/// The place that an error names, of a text with this many lines before the fault.
fn place(gpu: &Gpu, text: &str, expected: &str) {
    let message = run(gpu, text).unwrap_err().to_string();
    assert!(message.contains(expected), "{expected}: {message}");
}

#[test]
fn faults_are_found_at_the_lines_of_the_file() {
    let gpu = gpu();
    // What the parser says, and what the validator says of types and of results.
    let faults = [("y[i] = a +;", 11), ("y[i] = nope;", 8), ("y[i] = vec2f(a, a);", 1), ("let b: i32 = a;", 5)];
    for (fault, column) in faults {
        place(&gpu, &entry("", &format!("\n  // é\n{fault}")), &format!("deep:7:{column}"));
    }
    place(&gpu, &entry("", "}\nfn f() -> f32 {\n"), "deep:6:");
    place(&gpu, &entry("", "return 1.0;"), "deep:5:");
    place(&gpu, "enable subgroups;\n\nfn f( {}", "deep:3:7");
    // In a template: loops, includes, tags and comments of several lines before the fault.
    let template = |fault: &str| {
        format!(
            "{{% include \"grid.wgsl\" %}}\n{{{{ inout(0, \"y\") }}}}\n{{#\n\n#}}\n@compute @workgroup_size(4) fn run(@builtin(local_invocation_index) i: u32) {{\n\
             {{% for k in range(7) %}}\n  let v{{{{ k }}}} = load_y(i);\n{{% endfor %}}\n{{% set list = [1,\n  2] %}}\n  {fault}\n}}\n"
        )
    };
    run(&gpu, &template("store_y(i, v{{ 3 }});")).unwrap();
    place(&gpu, &template("store_y(i, nope);"), "deep:12:14: unknown identifier\n   12 |   store_y(i, nope);");
    place(&gpu, &template("let u: i32 = v{{ 3 }};"), "deep:12: ");
    place(&gpu, &template("let u: i32 = v{{ 3 }};"), "let u: i32 = v{{ 3 }};\n      = expanded: let u: i32 = v3;");
    place(&gpu, &template("store_y(i, v3"), "deep:13:");
    place(&gpu, &template("return 1.0;"), "deep:12:");
    // In what a template includes, and the template's own faults.
    place(&gpu, &template("{% include \"nothing.wgsl\" %}"), "deep:12");
    place(&gpu, &template("{{ nothing }}"), "deep:12");
    place(&gpu, &template("{% endfor %}"), "deep:12");
    place(&gpu, &template("{{ input(1, \"x\", width=3) }}"), "deep:12");
    place(&gpu, "{% include \"grid.wgsl\" %}\n".repeat(2).as_str(), "grid.wgsl:");
}

/// Threads with stacks of ordinary size build deep text at once.
#[test]
fn text_is_read_on_a_stack_of_its_own() {
    let gpu = gpu();
    let text = entry("", &format!("y[i] = a{};", "+a".repeat(1900)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let build = || run(&gpu, &text).map(|y| assert_eq!(y, [3.0 * 1901.0; 4]));
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, move || build().unwrap()).unwrap();
        }
    });
}
