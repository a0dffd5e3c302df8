//! The documents name what is there: files that they link to, paths, commands with their options,
//! and the tutorial's kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::files;
use crate::common::program::{json, run, wgrad};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = ["docs", "data", "benches", "tests/reference"].map(|folder| (folder.to_string(), files(&root().join(folder))));
    let below = folders.into_iter().flat_map(|(folder, names)| names.into_iter().map(move |name| format!("{folder}/{name}")));
    let top = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<String> = below.chain(top).filter(|name| name.ends_with(".md")).collect();
    paths.sort();
    paths.into_iter().map(|path| (root().join(&path), std::fs::read_to_string(root().join(&path)).unwrap())).collect()
}

/// What stands between each pair of `open` and `close`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// Its fenced blocks of `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

#[test]
fn links_and_paths_lead_somewhere() {
    const FOLDERS: [&str; 10] =
        ["src/", "shaders/", "docs/", "tests/", "scripts/", "recipes/", "examples/", "benches/", "data/fashion-mnist", "data/trec"];
    let mut missing = Vec::new();
    for (document, text) in documents() {
        let folder = document.parent().unwrap();
        let links = between(&text, "](", ")").filter(|link| !link.contains("://") && !link.starts_with('#'));
        let links = links.map(|link| folder.join(link.split('#').next().unwrap()));
        let code = text.split('`').skip(1).step_by(2).filter(|_| !document.ends_with("CHANGELOG.md"));
        let paths = code.filter(|word| {
            FOLDERS.iter().any(|f| word.starts_with(f)) && !word.contains(['*', '<', ' ', '{', '\n']) && !word.contains("METHOD")
        });
        let paths = paths.map(|path| root().join(path));
        missing.extend(links.chain(paths).filter(|path| !path.exists()).map(|path| format!("{}: {}", document.display(), path.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The commands of a document, in blocks and between back quotes, without what explains them.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
    let words = text.split('`').filter(|part| !part.contains('\n'));
    let lines = blocks.chain(words).map(|line| line.trim().trim_start_matches("$ "));
    let lines = lines.filter(|line| ["wgrad ", "cargo ", "scripts/"].iter().any(|begin| line.starts_with(begin)));
    // Two spaces and more stand before an explanation.
    lines.map(|line| line.split("   ").next().unwrap().replace(['[', ']'], " ")).collect()
}

#[test]
fn commands_have_the_options_that_are_given() {
    let mut help: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    let exists =
        |folder: &str, name: &str| ["", ".rs", "/main.rs"].iter().any(|end| root().join(format!("{folder}/{name}{end}")).is_file());
    for (document, text) in documents().into_iter().filter(|(path, _)| !path.ends_with("CHANGELOG.md")) {
        for command in commands(&text) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let after = |flag: &str| words.iter().position(|w| *w == flag).and_then(|at| words.get(at + 1));
            let right = match words.as_slice() {
                ["wgrad", name, options @ ..] if name.chars().all(|c| c.is_ascii_lowercase()) => {
                    // A word behind it may be a command of its own.
                    let inner = options.first().filter(|word| word.chars().all(|c| c.is_ascii_lowercase())).unwrap_or(&"");
                    let help = help.entry(format!("{name} {inner}")).or_insert_with(|| {
                        let help = |words: &[&str]| Some(run(wgrad().args(words))).filter(|ran| ran.code == Some(0)).map(|ran| ran.out);
                        let own = if inner.is_empty() { None } else { help(&[name, inner, "--help"]) };
                        own.or_else(|| help(&[name, "--help"])).unwrap_or_default()
                    });
                    let flags = options.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
                    !help.is_empty() && flags.into_iter().all(|flag| help.split([' ', '\n', ',', '[', '=']).any(|word| word == flag))
                }
                ["cargo", ..] => {
                    let test = after("--test").is_none_or(|name| exists("tests", name));
                    let bench = after("--bench").is_none_or(|name| exists("benches", name));
                    test && bench && after("--example").is_none_or(|name| exists("examples", name))
                }
                [script, ..] => !script.starts_with("scripts/") || root().join(script).is_file(),
                [] => true,
            };
            if !right {
                wrong.push(format!("{}: {command}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The text that the first tutorial shows is the file that its programs read, and the command that
/// times it runs.
#[test]
fn the_tutorial_shows_and_times_its_kernel() {
    let folder = root().join("docs/tutorial");
    let text = std::fs::read_to_string(folder.join("first-kernel.md")).unwrap();
    assert_eq!(blocks(&text, "wgsl"), [std::fs::read_to_string(folder.join("rms_norm.wgsl")).unwrap()]);
    let text = text.replace("\\\n", " ");
    let line = text.lines().find(|line| line.starts_with("wgrad bench docs/")).unwrap();
    let expect = ["--expect", "docs/tutorial/rms_norm.wgsl", "--seconds", "0", "--hot", "--json"];
    let row = json(&line.split_whitespace().skip(1).chain(expect).collect::<Vec<_>>());
    assert_eq!(row["gate"]["passed"], true, "{row}");
}
