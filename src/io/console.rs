//! What passes between the program and whoever sits before the terminal.

use std::fmt::Display;
use std::io::Write;

/// Text as a terminal may be given it: control characters but the ends of lines and tabs, and those
/// that turn the direction of writing, appear as `\u001b`. Names of files and classes may hold any,
/// and a terminal obeys them.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => cleaned.push(c),
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                cleaned.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => cleaned.push(c),
        }
    }
    cleaned
}

/// Writes a line to stderr. Where no one reads it (a closed pipe, a full disk, a terminal that is
/// gone), work goes on.
pub fn tell(line: impl Display) {
    // In one piece, so that lines of several threads stay lines.
    let _ = std::io::stderr().write_all(format!("{}\n", clean(line.to_string().trim_end_matches('\n'))).as_bytes());
}

/// How the program was called; an argument need not be Unicode.
pub fn arguments() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_obeys_a_name() {
        assert_eq!(
            clean("a\x1b[31mb\x07\r\u{9b}2J\x7f\u{202e}c\n\td\u{e9}\u{1f600}"),
            concat!(r"a\u001b[31mb\u0007\u000d\u009b2J\u007f\u202ec", "\n\td\u{e9}\u{1f600}")
        );
    }
}
