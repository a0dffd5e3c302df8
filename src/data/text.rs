//! Questions with classes, as token numbers: Li and Roth's set, TREC (2002, "Learning Question
//! Classifiers").
//!
//! A line is `COARSE:fine question`, in Latin-1; the coarse classes are learnt. The last 500 lines
//! are the test split. A vocabulary `vocab.txt` lies beside it ([`WordPiece`];
//! `scripts/build_vocabulary.py` makes one).

use std::path::Path;

use super::dataset::{Dataset, Split};
use super::formats::Format;
use super::gzip::{DataFile, find, require};
use super::samples::Samples;
use super::wordpiece::WordPiece;
use crate::error::Result;

/// Tokens of a text, `[CLS]` and `[SEP]` among them; of Li and Roth's questions 94 % are no longer.
const LENGTH: usize = 24;
/// Lines at the end that are held out; a fifth where that is less.
const HELD_OUT: usize = 500;
/// The largest file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 30;

const QUESTIONS: [&str; 1] = ["train_5500.label"];
const VOCABULARY: [&str; 1] = ["vocab.txt"];

/// Questions, for folders whose format is not said.
pub(super) const FORMAT: Format = Format {
    expects: "questions with classes (train_5500.label[.gz], vocab.txt)",
    recognise,
    read: |folder, split, _| read_text_folder(folder, split),
};

/// Whether a folder holds questions.
fn recognise(folder: &Path) -> bool {
    find(folder, &QUESTIONS).is_some()
}

/// Reads a folder of `train_5500.label` and `vocab.txt`.
///
/// # Errors
/// When a file is missing or damaged; they name the file, and the line.
pub fn read_text_folder(folder: &Path, split: Split) -> Result<Dataset> {
    let wordpiece = WordPiece::read(&require(folder, &VOCABULARY)?)?;
    let mut file = DataFile::open(&require(folder, &QUESTIONS)?)?;
    let text: String = file.up_to(LARGEST_FILE, "questions")?.into_iter().map(char::from).collect();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let question = |(number, line): (usize, &str)| {
        let parts =
            line.split_once(char::is_whitespace).and_then(|(label, question)| Some((label.split_once(':')?.0.to_string(), question)));
        let (class, question) =
            parts.ok_or_else(|| file.error(format!("expected \"COARSE:fine question\" in line {}, found \"{line}\"", number + 1)))?;
        Ok((class, question.to_string()))
    };
    let questions = lines.map(question).collect::<Result<Vec<_>>>()?;
    // Of both splits, so that classes have the same numbers in each.
    let mut class_names: Vec<String> = questions.iter().map(|(class, _)| class.clone()).collect();
    class_names.sort_unstable();
    class_names.dedup();
    let (train, test) = questions.split_at(questions.len() - HELD_OUT.min(questions.len() / 5));
    let questions = if split == Split::Train { train } else { test };
    let label = |class: &String| class_names.binary_search(class).map_or(-1, |label| label as i32);
    let labels = questions.iter().map(|(class, _)| label(class)).collect();
    let numbers = questions.iter().flat_map(|(_, question)| wordpiece.encode(question, LENGTH)).collect();
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    Dataset::of(format!("{name} ({split})"), Samples::Tokens { length: LENGTH, numbers }, labels, class_names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::tensor::InputShape;
    use crate::tensor::random::{Purpose, Stream};

    fn folder(questions: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vocab.txt"), [&WordPiece::SPECIAL[..], &["who", "?", "\u{e9}"]].concat().join("\n")).unwrap();
        std::fs::write(folder.path().join("train_5500.label"), questions).unwrap();
        folder
    }

    #[test]
    fn questions_become_token_numbers() {
        let folder = folder(b"HUM:ind Who ?\n\nDESC:x \xe9\nHUM:gr Who who\nHUM:ind zzz\r\nLOC:c ?\n");
        let train = read_text_folder(folder.path(), Split::Train).unwrap();
        assert_eq!((train.input(), train.len()), (InputShape::Tokens(LENGTH), 4));
        assert_eq!((train.class_names(), train.labels()), (&["DESC", "HUM", "LOC"].map(String::from)[..], &[1, 0, 1, 1][..]));
        let Samples::Tokens { numbers, .. } = train.samples().unwrap() else { panic!() };
        let texts: Vec<&[u16]> = numbers.chunks(LENGTH).collect();
        assert_eq!((&texts[0][..6], &texts[1][..3], &texts[3][..3]), (&[2, 5, 6, 3, 0, 0][..], &[2, 7, 3][..], &[2, 1, 3][..]));
        assert_eq!((train.image(0).unwrap(), train.image_size().unwrap_err().to_string().contains("texts of 24 tokens")), (None, true));
        assert_eq!(read_text_folder(folder.path(), Split::Test).unwrap().labels(), [2]);
    }

    #[test]
    fn what_is_no_question_is_named_and_nothing_panics() {
        let error = read_text_folder(folder(b"HUM:ind Who ?\nno label\n").path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("in line 2, found \"no label\"") && error.contains("train_5500.label"), "{error}");
        assert!(read_text_folder(folder(b"").path(), Split::Train).is_err());
        let missing = folder(b"HUM:ind Who ?\n");
        std::fs::remove_file(missing.path().join("vocab.txt")).unwrap();
        assert!(read_text_folder(missing.path(), Split::Train).unwrap_err().to_string().contains("vocab.txt"));
        let mut stream = Stream::new(2, Purpose::Test);
        for _ in 0..100 {
            let garbage: Vec<u8> = (0..stream.below(200)).map(|_| stream.next_u32() as u8).collect();
            let _ = read_text_folder(folder(&garbage).path(), Split::Train);
        }
    }
}
