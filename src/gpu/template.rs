//! From the text in `shaders/` to WGSL: templates in Jinja's syntax (minijinja), so that an inner
//! loop can be unrolled and a storage type chosen without writing a kernel twice.
//!
//! A kernel declares its bindings by three functions that hide the storage type and the target:
//!
//! - `{{ input(0, "x") }}`, `{{ output(1, "y") }}`, `{{ inout(2, "state") }}` bind a buffer of the kernel's storage type
//!   `T` (f32 or f16) and define `load_x(i)`, `store_y(i, v)`, which compute in f32. `type="f32"`, `type="i32"` fix the type;
//!   `width=4` binds `vec4`s and defines `load4_x(i)` (and `load_x(i)`), `store4_y(i, v)`, where `i` counts vec4s.
//! - `{{ params("n: u32, eps: f32") }}` declares `p`, whose first member, `groups`, is the number of workgroups wanted: grids
//!   are linear and may be folded, so a kernel starts with `let group = group_index(wid, nwg); if (group >= p.groups) { return; }`.
//!
//! Native targets get parameters as immediates; browsers have none, get a uniform buffer, and
//! demand `enable` lines.

use std::collections::BTreeMap;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, State, Value};

use super::bounds::{EXPANDED_BYTES, check_size, check_tags};
use super::fault::{Fault, mark, tags};
use crate::error::{Error, Result};

/// Text that kernels share: `{% include "name.wgsl" %}`.
const INCLUDES: &[(&str, &str)] = &[
    ("activation.wgsl", include_str!("../../shaders/include/activation.wgsl")),
    ("augment.wgsl", include_str!("../../shaders/include/augment.wgsl")),
    ("convolution.wgsl", include_str!("../../shaders/include/convolution.wgsl")),
    ("convolution_weight.wgsl", include_str!("../../shaders/include/convolution_weight.wgsl")),
    ("counter.wgsl", include_str!("../../shaders/include/counter.wgsl")),
    ("expm1.wgsl", include_str!("../../shaders/include/expm1.wgsl")),
    ("gemm.wgsl", include_str!("../../shaders/include/gemm.wgsl")),
    ("grid.wgsl", include_str!("../../shaders/include/grid.wgsl")),
    ("lanes.wgsl", include_str!("../../shaders/include/lanes.wgsl")),
    ("logarithm.wgsl", include_str!("../../shaders/include/logarithm.wgsl")),
    ("matrix.wgsl", include_str!("../../shaders/include/matrix.wgsl")),
    ("nan.wgsl", include_str!("../../shaders/include/nan.wgsl")),
    ("pairwise.wgsl", include_str!("../../shaders/include/pairwise.wgsl")),
    ("product.wgsl", include_str!("../../shaders/include/product.wgsl")),
    ("quotient.wgsl", include_str!("../../shaders/include/quotient.wgsl")),
    ("random.wgsl", include_str!("../../shaders/include/random.wgsl")),
    ("similarity.wgsl", include_str!("../../shaders/include/similarity.wgsl")),
    ("softmax.wgsl", include_str!("../../shaders/include/softmax.wgsl")),
    ("squares.wgsl", include_str!("../../shaders/include/squares.wgsl")),
    ("strided.wgsl", include_str!("../../shaders/include/strided.wgsl")),
    ("tile_statistics.wgsl", include_str!("../../shaders/include/tile_statistics.wgsl")),
    ("trigonometry.wgsl", include_str!("../../shaders/include/trigonometry.wgsl")),
    ("window.wgsl", include_str!("../../shaders/include/window.wgsl")),
];

/// Who will read the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// naga inside wgpu: parameters as immediates, no `enable` lines.
    Native,
    /// A browser, and adapters without immediates: parameters as a uniform buffer at group 1.
    Browser,
}

/// Set where accessors are to note an index outside of their binding.
const GUARDED: &str = "GUARDED";
/// The private variable that they note it in, not 0 then ([`super::walks`] reports it).
pub(super) const OUTSIDE: &str = "outside_of_a_binding";

/// Constants of one variant of a kernel, by name.
pub type Defines = BTreeMap<String, Value>;

pub(crate) struct Templates {
    environment: Environment<'static>,
}

fn invalid(message: String) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}

/// The declaration and accessors of one storage binding.
fn binding(state: &State, index: u32, name: &str, access: &str, options: Kwargs) -> Result<String, minijinja::Error> {
    let storage = state.lookup("T").map(|t| t.to_string()).unwrap_or_else(|| "f32".into());
    let ty: String = options.get::<Option<String>>("type")?.unwrap_or(storage);
    let width: u32 = options.get::<Option<u32>>("width")?.unwrap_or(1);
    options.assert_all_used()?;
    // f16 is computed in f32; integers are what they are.
    let value = match ty.as_str() {
        "f16" | "f32" => "f32",
        "i32" => "i32",
        "u32" => "u32",
        other => return Err(invalid(format!("binding {name}: unknown type {other}"))),
    };
    let element = match width {
        1 => ty.clone(),
        4 => format!("vec4<{ty}>"),
        other => return Err(invalid(format!("binding {name}: width {other} is neither 1 nor 4"))),
    };
    let mut text = format!("@group(0) @binding({index}) var<storage, {access}> {name}: array<{element}>;\n");
    let guarded = state.lookup(GUARDED).is_some_and(|v| v.is_true());
    let guard = |at: &str| if guarded { format!("if ({at} >= arrayLength(&{name})) {{ {OUTSIDE} = 1u; }} ") } else { String::new() };
    if guarded && index == 0 {
        text += &format!("var<private> {OUTSIDE}: u32;\n");
    }
    let (at, read) = if width == 4 { ("i >> 2u", format!("{name}[i >> 2u][i & 3u]")) } else { ("i", format!("{name}[i]")) };
    text += &format!("fn load_{name}(i: u32) -> {value} {{ {}return {value}({read}); }}\n", guard(at));
    if width == 4 {
        text += &format!("fn load4_{name}(i: u32) -> vec4<{value}> {{ {}return vec4<{value}>({name}[i]); }}\n", guard("i"));
    }
    if access == "read_write" {
        // No scalar store into a vec4 array: WGSL lets an implementation rewrite the whole vector,
        // which would be a race.
        text += &match width {
            4 => format!("fn store4_{name}(i: u32, v: vec4<{value}>) {{ {}{name}[i] = vec4<{ty}>(v); }}\n", guard("i")),
            _ => format!("fn store_{name}(i: u32, v: {value}) {{ {}{name}[i] = {ty}(v); }}\n", guard("i")),
        };
    }
    Ok(text)
}

fn params(state: &State, fields: &str) -> String {
    let members: String = ["groups: u32"]
        .into_iter()
        .chain(fields.split(','))
        .map(str::trim)
        .filter(|f| !f.is_empty())
        .map(|f| format!("    {f},\n"))
        .collect();
    let browser = state.lookup("BROWSER").is_some_and(|v| v.is_true());
    let space = if browser { "@group(1) @binding(0) var<uniform>" } else { "var<immediate>" };
    format!("struct Params {{\n{members}}}\n{space} p: Params;\n")
}

/// The text without its comments. WGSL has no strings that could hold the beginning of one.
fn without_comments(text: &str) -> String {
    let (mut code, mut rest, mut depth) = (String::new(), text, 0usize);
    while let Some(c) = rest.chars().next() {
        let length = match (depth, rest.get(..2)) {
            (_, Some("/*")) => {
                depth += 1;
                2
            }
            (0, Some("//")) => rest.find('\n').unwrap_or(rest.len()),
            (0, _) => {
                code.push(c);
                c.len_utf8()
            }
            (_, Some("*/")) => {
                depth -= 1;
                // What stood on both sides must not become one word.
                code.extend((depth == 0).then_some(' '));
                2
            }
            _ => c.len_utf8(),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    code
}

/// Whether a word of the text outside its comments is as `wanted` says.
fn has_word(text: &str, wanted: impl Fn(&str) -> bool) -> bool {
    without_comments(text).split(|c: char| !c.is_alphanumeric() && c != '_').any(wanted)
}

/// Whether the text needs `enable subgroups`.
pub(super) fn uses_subgroups(text: &str) -> bool {
    const QUADS: [&str; 4] = ["quadBroadcast", "quadSwapX", "quadSwapY", "quadSwapDiagonal"];
    has_word(text, |word| word.starts_with("subgroup") || QUADS.contains(&word))
}

/// Whether the text needs `enable f16`.
pub(super) fn uses_half(text: &str) -> bool {
    has_word(text, |word| word == "f16" || matches!(word, "vec2h" | "vec3h" | "vec4h"))
}

/// Whether the text has cooperative matrices, as naga alone knows them.
pub(super) fn uses_matrices(text: &str) -> bool {
    text.contains("coop_mat") && has_word(text, |word| word.starts_with("coop_mat"))
}

/// What a template becomes, up to a limit.
#[derive(Default)]
struct Expansion {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Expansion {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full = self.bytes.len() + bytes.len() > EXPANDED_BYTES;
        if self.full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Instructions that a template from outside may take: fewer where each can write much, so that
/// what it keeps in memory has a limit, too.
fn fuel(text: &str) -> u64 {
    let (mut literal, mut end) = (4096, 0);
    for tag in tags(text) {
        literal = tag.start.saturating_sub(end).max(literal);
        end = tag.end;
    }
    (1 << 30) / text.len().saturating_sub(end).max(literal) as u64
}

/// The error with its causes. It names the file and its line.
fn reason(error: &minijinja::Error) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        message += &format!(": {next}");
        cause = next.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => message + ": the template runs for too long; unroll less",
        _ => message,
    }
}

impl Templates {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { environment: Self::environment(|_, text| text.to_string())? })
    }

    /// The includes after `change` of their number and text.
    fn environment(change: impl Fn(usize, &str) -> String) -> Result<Environment<'static>> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::shader("templates", e.to_string()))?);
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        environment
            .add_function("input", |state: &State, index: u32, name: &str, options: Kwargs| binding(state, index, name, "read", options));
        environment.add_function("output", |state: &State, index: u32, name: &str, options: Kwargs| {
            binding(state, index, name, "read_write", options)
        });
        environment.add_function("inout", |state: &State, index: u32, name: &str, options: Kwargs| {
            binding(state, index, name, "read_write", options)
        });
        environment.add_function("params", params);
        for (index, (name, text)) in INCLUDES.iter().enumerate() {
            environment.add_template_owned(*name, change(index, text)).map_err(|e| Error::shader(*name, e.to_string()))?;
        }
        Ok(environment)
    }

    /// The WGSL text of one variant.
    pub(crate) fn render(&self, name: &str, text: &str, defines: &Defines, target: Target) -> Result<String> {
        Self::expand(&self.environment, name, text, defines, target)
    }

    /// The same, with accessors that note an index outside of their binding.
    pub(crate) fn render_guarded(&self, name: &str, text: &str, defines: &Defines, target: Target) -> Result<String> {
        let mut defines = defines.clone();
        defines.insert(GUARDED.into(), Value::from(true));
        Self::expand(&self.environment, name, text, &defines, target)
    }

    /// The same of text from outside, which may be any: within limits.
    pub(crate) fn render_outside(&self, name: &str, text: &str, defines: &Defines, target: Target) -> Result<String> {
        check_size(name, text)?;
        if check_tags(text).is_err() {
            let marked = mark(text, 0);
            check_tags(&marked).map_err(|fault| Error::shader(name, fault.located(&marked, &[(name, text)])))?;
        }
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel(text)));
        Self::expand(&environment, name, text, defines, target)
    }

    /// The fault that `read` finds in one variant, by the lines of `text` and of what it includes.
    pub(crate) fn located(
        name: &str,
        text: &str,
        defines: &Defines,
        target: Target,
        read: impl Fn(&str) -> Option<Fault>,
    ) -> Option<String> {
        let marked = Self::marked(name, text, defines, target).ok()?;
        Some(read(&marked)?.located(&marked, &Self::files(name, text)))
    }

    /// One variant with a mark before each line that says whose it is.
    pub(crate) fn marked(name: &str, text: &str, defines: &Defines, target: Target) -> Result<String> {
        let environment = Self::environment(|index, text| mark(text, index + 1))?;
        Self::expand(&environment, name, &mark(text, 0), defines, target)
    }

    /// The files that marks number: the kernel's own, and what it may include.
    pub(crate) fn files<'a>(name: &'a str, text: &'a str) -> Vec<(&'a str, &'a str)> {
        std::iter::once((name, text)).chain(INCLUDES.iter().copied()).collect()
    }

    fn expand(environment: &Environment, name: &str, text: &str, defines: &Defines, target: Target) -> Result<String> {
        let mut context = defines.clone();
        context.insert("BROWSER".into(), Value::from(target == Target::Browser));
        context.entry("T".into()).or_insert_with(|| Value::from("f32"));
        // T, or the type of one input that is stored otherwise.
        let half = context.values().any(|value| value.as_str() == Some("f16"));
        // Jinja's delimiters cannot be told from text that never used them, so outside text without
        // any is left as it is.
        let body = if text.contains("{{") || text.contains("{%") {
            let template = environment.template_from_named_str(name, text).map_err(|e| Error::shader(name, reason(&e)))?;
            let mut expansion = Expansion::default();
            match template.render_captured_to(context, &mut expansion) {
                Ok(_) => String::from_utf8(expansion.bytes).map_err(|e| Error::shader(name, e.to_string()))?,
                Err(_) if expansion.full => {
                    return Err(Error::shader(name, format!("the template becomes more than {EXPANDED_BYTES} bytes; unroll less")));
                }
                Err(e) => return Err(Error::shader(name, reason(&e))),
            }
        } else {
            text.to_string()
        };
        let mut head = String::new();
        if half && !body.contains("enable f16;") {
            head += "enable f16;\n";
        }
        if !body.contains("enable wgpu_cooperative_matrix;") && uses_matrices(&body) {
            head += "enable wgpu_cooperative_matrix;\n";
        }
        if target == Target::Browser && uses_subgroups(&body) {
            head += "enable subgroups;\n";
        }
        Ok(head + &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_outside_of_comments() {
        let text = "// subgroupAdd\nlet a /* f16 /* subgroupAdd */ f16 */ = b; // f16";
        assert_eq!(without_comments(text), "\nlet a   = b; ");
        assert!(!uses_subgroups(text) && !uses_half(text));
        assert!(uses_subgroups("let a = /* a sum */subgroupAdd(b);") && uses_subgroups("@builtin(subgroup_invocation_id) lane: u32"));
        assert!(uses_subgroups("let a = quadSwapX(b);") && !uses_subgroups("let quadrant = my_subgroup;"));
        assert!(uses_half("var<storage> x: array<vec4<f16>>;") && !uses_half("let f16_sum = 0.0;"));
        assert_eq!(without_comments("a / b * c // no end"), "a / b * c ");
        assert_eq!(without_comments("a /* no end"), "a ");
    }

    #[test]
    fn a_browser_is_asked_for_subgroups_where_the_code_has_them() {
        let templates = Templates::new().unwrap();
        let render = |text: &str| templates.render("test", text, &Defines::new(), Target::Browser).unwrap();
        assert_eq!(render("// By subgroups elsewhere.\nfn f() {}"), "// By subgroups elsewhere.\nfn f() {}");
        assert!(render("fn f() -> f32 { return subgroupAdd(1.0); }").starts_with("enable subgroups;\n"));
    }
}
