//! Faults of shader text, by the line that their author wrote: what naga reads may be the expansion
//! of a template, with text that is included and text that is repeated. So a text with a fault is
//! expanded once more with a comment before each line that says whose it is.

use std::error::Error as _;
use std::ops::Range;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// Begins the comment before a line: `/*@wgrad FILE LINE*/`.
const MARK: &str = "/*@wgrad ";
/// Characters of a line that are shown.
const SHOWN: usize = 160;

/// What is wrong with a text.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    message: String,
    /// Where in the text that was read, and what is there.
    places: Vec<(Range<usize>, String)>,
}

/// Parses WGSL.
pub(super) fn parse(text: &str) -> Result<naga::Module, Fault> {
    naga::front::wgsl::parse_str(text).map_err(|error| {
        let notes = error.notes().map(|note| format!("; {note}"));
        let places = error.labels().filter_map(|(span, label)| Some((span.to_range()?, label.to_string())));
        Fault { message: error.message().to_string() + &notes.collect::<String>(), places: places.collect() }
    })
}

/// Validates it for a device with these features.
pub(super) fn validate(module: &naga::Module, features: wgpu::Features) -> Result<ModuleInfo, Fault> {
    let mut capabilities = Capabilities::empty();
    for (feature, capability) in [
        (wgpu::Features::IMMEDIATES, Capabilities::IMMEDIATES),
        (wgpu::Features::SHADER_F16, Capabilities::SHADER_FLOAT16),
        (wgpu::Features::SUBGROUP, Capabilities::SUBGROUP),
        (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, Capabilities::COOPERATIVE_MATRIX),
    ] {
        capabilities.set(capability, features.contains(feature));
    }
    Validator::new(ValidationFlags::all(), capabilities).validate(module).map_err(|error| {
        let mut message = error.as_inner().to_string();
        let mut source = error.as_inner().source();
        while let Some(cause) = source {
            message += &format!(": {cause}");
            source = cause.source();
        }
        // The most exact place comes last.
        let mut places: Vec<_> = error.spans().filter_map(|(span, label)| Some((span.to_range()?, label.clone()))).collect();
        places.reverse();
        Fault { message, places }
    })
}

/// Where the tags of a template lie. A string in a tag may hold the end of one.
pub(super) fn tags(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let next = |mut from: usize| loop {
        let start = from + text.get(from..)?.find('{')?;
        match text.as_bytes().get(start + 1) {
            Some(b'{') => return Some((start, "}}")),
            Some(b'%') => return Some((start, "%}")),
            Some(b'#') => return Some((start, "#}")),
            _ => from = start + 1,
        }
    };
    while let Some((start, close)) = next(at) {
        let (mut quote, mut escaped) = (None, false);
        at = text.len();
        for (index, c) in text.get(start + 2..).unwrap_or_default().char_indices() {
            let here = start + 2 + index;
            match quote {
                _ if escaped => escaped = false,
                Some(_) if c == '\\' => escaped = true,
                Some(q) if c == q => quote = None,
                Some(_) => {}
                None if text.get(here..).is_some_and(|rest| rest.starts_with(close)) => {
                    at = here + 2;
                    break;
                }
                None if (c == '"' || c == '\'') && close != "#}" => quote = Some(c),
                None => {}
            }
        }
        found.push(start..at);
    }
    found
}

/// `text` with marks before its lines. Those that begin inside of a template's tag stay as they
/// are.
pub(super) fn mark(text: &str, file: usize) -> String {
    let mut marked = String::with_capacity(2 * text.len());
    let mut tags = tags(text).into_iter().peekable();
    let mut start = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        while tags.next_if(|tag| tag.end <= start).is_some() {}
        if tags.peek().is_none_or(|tag| tag.start >= start) {
            marked += &format!("{MARK}{file} {}*/", number + 1);
        }
        marked += line;
        start += line.len();
    }
    marked
}

/// A line without its marks, and how many bytes of marks lie before its byte `at`.
fn unmarked(line: &str, at: usize) -> (String, usize) {
    let (mut plain, mut rest, mut removed, mut position) = (String::new(), line, 0, 0);
    while let Some((before, (mark, after))) = rest.split_once(MARK).and_then(|(before, tail)| Some((before, tail.split_once("*/")?))) {
        plain += before;
        position += before.len();
        let length = MARK.len() + mark.len() + 2;
        if position < at {
            removed += length;
        }
        position += length;
        rest = after;
    }
    (plain + rest, removed)
}

fn shown(line: &str) -> String {
    let line = line.trim_end();
    let head: String = line.chars().take(SHOWN).collect();
    if head.len() < line.len() { head + ".." } else { head }
}

impl Fault {
    pub(super) fn new(message: String, at: usize, label: &str) -> Self {
        Self { message, places: vec![(at..at + 1, label.to_string())] }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The message with its places, found by the marks of `marked`, in which this fault was found,
    /// in `files` (name and text).
    pub(super) fn located(&self, marked: &str, files: &[(&str, &str)]) -> String {
        let mut message = self.message.clone();
        for (range, label) in &self.places {
            let before = marked.get(..range.start).unwrap_or_default();
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let line = marked.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
            // A place may begin with the mark itself.
            let end = if line.starts_with(MARK) { line.find("*/").map_or(0, |at| start + at + 2).max(range.start) } else { range.start };
            let mark = marked.get(..end).and_then(|head| head.rsplit_once(MARK)).and_then(|(_, tail)| tail.split_once("*/"));
            let mut numbers = mark.map_or("0 1", |(mark, _)| mark).split(' ').map(|n| n.parse::<usize>().unwrap_or(0));
            let (file, number) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(1));
            let Some((name, text)) = files.get(file).or(files.first()) else { continue };
            let written = text.lines().nth(number.saturating_sub(1)).unwrap_or_default();
            let (expanded, removed) = unmarked(line, range.start - start);
            let same = expanded.trim_end() == written.trim_end();
            // Columns of an expansion are nobody's.
            let column = if same { format!(":{}", (range.start - start).saturating_sub(removed) + 1) } else { String::new() };
            message += &format!("\n --> {name}:{number}{column}: {label}\n{number:>5} | {}", shown(written));
            if !same {
                message += &format!("\n      = expanded: {}", shown(expanded.trim_start()));
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str) -> String {
        let marked = mark(text, 0);
        let fault = parse(&marked).and_then(|m| validate(&m, wgpu::Features::empty())).unwrap_err();
        fault.located(&marked, &[("file", text)])
    }

    #[test]
    fn a_fault_is_found_by_line_and_column() {
        assert!(located("fn a() {}\n  fn b() { let x = y; }\n").contains("file:2:20: unknown identifier"));
        assert!(located("\n\nfn b() -> f32 {\n}\n").contains("file:3:"), "{}", located("\n\nfn b() -> f32 {\n}\n"));
        assert!(located("fn ü() {}\nfn b( {\n").contains("file:2:7"), "{}", located("fn ü() {}\nfn b( {\n"));
    }

    #[test]
    fn lines_inside_of_tags_are_not_marked() {
        let text = "{% set x = [1,\n 2] %}a\n{# }} \n #}b {{ \"%}\"\n }}\nc";
        assert_eq!(mark(text, 3).matches(MARK).count(), 3);
        assert_eq!(unmarked(&mark("a\n", 3), 99).0, "a\n");
        let wide = "x".repeat(1000);
        assert!(shown(&wide).len() < 200);
    }
}
