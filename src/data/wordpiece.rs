//! WordPiece (Schuster and Nakajima 2012), as BERT uses it (Devlin et al. 2018): lower case, words
//! and punctuation apart, and each word as the longest pieces of a vocabulary, from its front; a
//! piece inside a word begins with `##`.

use std::collections::HashMap;
use std::path::Path;

use super::gzip::DataFile;
use crate::error::{Error, Result};

/// The largest vocabulary file that is read, in bytes.
const LARGEST_FILE: u64 = 64 << 20;
/// Longer words are unknown: BERT's limit, in characters.
const LONGEST_WORD: usize = 100;

/// A vocabulary: pieces by number.
#[derive(Debug, Clone)]
pub struct WordPiece {
    pieces: Vec<String>,
    numbers: HashMap<String, u16>,
}

impl WordPiece {
    /// What every vocabulary begins with: padding, unknown, before a text, behind it, hidden.
    pub const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    /// The number of `[UNK]`.
    pub const UNKNOWN: u16 = 1;
    /// The number of `[CLS]`.
    pub const BEGIN: u16 = 2;
    /// The number of `[SEP]`.
    pub const END: u16 = 3;
    /// The number of `[MASK]`.
    pub const MASK: u16 = 4;

    /// The vocabulary of these pieces, one a line; `source` is its name in errors.
    ///
    /// # Errors
    /// Where it does not begin with [`Self::SPECIAL`], a piece comes twice, or there are more than
    /// 65,536.
    pub fn new(vocabulary: &str, source: &str) -> Result<Self> {
        let wrong = |message: String| Err(Error::data(source, message));
        let pieces: Vec<String> = vocabulary.lines().map(|line| line.trim().to_string()).collect();
        if !pieces.iter().map(String::as_str).take(5).eq(Self::SPECIAL) {
            return wrong(format!("expected a vocabulary that begins with the lines {}", Self::SPECIAL.join(", ")));
        }
        let mut numbers = HashMap::new();
        for (index, piece) in pieces.iter().enumerate() {
            let Ok(number) = u16::try_from(index) else { return wrong(format!("expected at most 65536 pieces, found {}", pieces.len())) };
            if let Some(first) = numbers.insert(piece.clone(), number) {
                return wrong(format!("expected each piece once, found \"{piece}\" in lines {} and {}", first + 1, index + 1));
            }
        }
        Ok(Self { pieces, numbers })
    }

    /// Reads a vocabulary.
    ///
    /// # Errors
    /// As [`Self::new`]; [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = DataFile::open(path)?.up_to(LARGEST_FILE, "a vocabulary")?;
        Self::new(&String::from_utf8_lossy(&bytes), &path.display().to_string())
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never true; it is here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The piece of this number.
    pub fn piece(&self, number: u16) -> Option<&str> {
        self.pieces.get(usize::from(number)).map(String::as_str)
    }

    /// The pieces of a text, by number, without `[CLS]` and `[SEP]`. A word that the vocabulary has
    /// no pieces for is `[UNK]`.
    pub fn tokens(&self, text: &str) -> Vec<u16> {
        words(text).iter().flat_map(|word| self.cut(word)).collect()
    }

    /// `length` numbers: `[CLS]`, as many of the text's pieces as fit, `[SEP]`, and `[PAD]`.
    pub fn encode(&self, text: &str, length: usize) -> Vec<u16> {
        let inside = self.tokens(text).into_iter().take(length.saturating_sub(2));
        let mut numbers: Vec<u16> = [Self::BEGIN].into_iter().chain(inside).chain([Self::END]).collect();
        numbers.resize(length, 0);
        numbers
    }

    fn cut(&self, word: &str) -> Vec<u16> {
        let (mut found, mut rest) = (Vec::new(), word);
        if word.chars().count() > LONGEST_WORD {
            return vec![Self::UNKNOWN];
        }
        while !rest.is_empty() {
            let prefix = if found.is_empty() { "" } else { "##" };
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let longest = ends.filter_map(|end| rest.split_at_checked(end)).find_map(|(piece, behind)| {
                let number = self.numbers.get(&format!("{prefix}{piece}"))?;
                Some((*number, behind))
            });
            let Some((number, behind)) = longest else { return vec![Self::UNKNOWN] };
            found.push(number);
            rest = behind;
        }
        found
    }
}

/// Runs of letters and digits, and every other character that is not white, alone; in lower case.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut joins) = (Vec::<String>::new(), false);
    for c in text.chars().flat_map(char::to_lowercase) {
        let letter = c.is_alphanumeric();
        match words.last_mut().filter(|_| letter && joins) {
            Some(word) => word.push(c),
            None if c.is_whitespace() || c.is_control() => {}
            None => words.push(c.into()),
        }
        joins = letter;
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::tensor::random::{Purpose, Stream};

    fn vocabulary(pieces: &[&str]) -> Result<WordPiece> {
        WordPiece::new(&[&WordPiece::SPECIAL, pieces].concat().join("\n"), "vocab.txt")
    }

    #[test]
    fn the_longest_piece_is_taken_first() {
        let wordpiece = vocabulary(&["un", "unaff", "##aff", "##able", "##a", "##b", "?", "é"]).unwrap();
        let pieces = |text: &str| wordpiece.tokens(text).into_iter().map(|n| wordpiece.piece(n).unwrap().to_string()).collect::<Vec<_>>();
        assert_eq!(pieces("Unaffable?"), ["unaff", "##able", "?"]);
        assert_eq!(pieces("  UN\tunab ??"), ["un", "un", "##a", "##b", "?", "?"]);
        // What has no pieces to its end is unknown as a whole; so is what begins with none.
        assert_eq!(pieces("unx able É a"), ["[UNK]", "[UNK]", "é", "[UNK]"]);
        assert_eq!(pieces(&"un".repeat(51)), ["[UNK]"]);
        assert_eq!(pieces(""), [""; 0]);
        assert_eq!(wordpiece.encode("un ? un", 7), [2, 5, 11, 5, 3, 0, 0]);
        assert_eq!(wordpiece.encode("un ? un", 4), [2, 5, 11, 3]);
        // A text cannot speak of special pieces.
        assert_eq!(pieces("[MASK]"), ["[UNK]"; 3]);
    }

    #[test]
    fn vocabularies_that_mean_nothing_are_refused() {
        for (text, words) in [("", "begins with"), ("[UNK]\n[PAD]", "begins with")] {
            assert!(WordPiece::new(text, "vocab.txt").unwrap_err().to_string().contains(words));
        }
        assert!(vocabulary(&["a", "b", "a"]).unwrap_err().to_string().contains("\"a\" in lines 6 and 8"));
        let many: Vec<String> = (0..70_000).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(vocabulary(&many).unwrap_err().to_string().contains("65536"));
    }

    #[test]
    fn no_text_panics() {
        let wordpiece = vocabulary(&["a", "##a", "ß", "##ss", "i̇"]).unwrap();
        let mut stream = Stream::new(1, Purpose::Test);
        for _ in 0..300 {
            let bytes: Vec<u8> = (0..stream.below(60)).map(|_| stream.next_u32() as u8).collect();
            let latin: String = bytes.iter().map(|b| char::from(*b)).collect();
            for text in [latin, String::from_utf8_lossy(&bytes).into_owned(), "İßﬁ\u{0}\u{301}".repeat(bytes.len())] {
                assert_eq!(wordpiece.encode(&text, 9).len(), 9);
            }
        }
    }
}
