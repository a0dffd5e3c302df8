//! A checksum in a safetensors file, over all of it: length, header and tensors. It is the first of
//! the file's texts, so that it lies at one place, and is the CRC-32 of the file with zeros in its
//! stead.

use std::collections::BTreeMap;

/// Its name among the texts.
pub(super) const KEY: &str = "wgrad_checksum";
/// Bytes of the header's length.
const LENGTH: usize = 8;
/// How the header of a file with a checksum begins.
const BEGIN: &str = r#"{"__metadata__":{"wgrad_checksum":"crc32 "#;
const ZEROS: &str = "00000000";
/// Where the checksum lies.
const PLACE: usize = LENGTH + BEGIN.len();
const END: usize = PLACE + ZEROS.len();
/// A beginning that differs in no more bits than these is a damaged one. That of another file
/// differs in many more.
const DAMAGED_BITS: u32 = 8;

/// A safetensors file without texts, with `texts` and a checksum.
pub(super) fn seal(file: &[u8], texts: &BTreeMap<String, String>) -> Result<Vec<u8>, String> {
    let damaged = || "the crate safetensors wrote no header".to_string();
    let (length, rest) = file.split_first_chunk::<LENGTH>().ok_or_else(damaged)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
    let (tensors, data) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let tensors = std::str::from_utf8(tensors).ok().and_then(|json| json.trim_end().strip_prefix('{')).ok_or_else(damaged)?;
    let texts =
        serde_json::to_string(&texts.iter().filter(|(key, _)| *key != KEY).collect::<BTreeMap<_, _>>()).map_err(|e| e.to_string())?;
    let texts = texts.trim_start_matches('{');
    let comma = |rest: &str| if rest == "}" { "" } else { "," };
    let mut header = format!("{BEGIN}{ZEROS}\"{}{texts}{}{tensors}", comma(texts), comma(tensors)).into_bytes();
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    let mut sealed = [&(header.len() as u64).to_le_bytes()[..], &header, data].concat();
    let sum = format!("{:08x}", crc32fast::hash(&sealed));
    sealed.get_mut(PLACE..END).ok_or_else(damaged)?.copy_from_slice(sum.as_bytes());
    Ok(sealed)
}

/// Whether the file has a checksum, be it damaged.
pub(super) fn is_sealed(file: &[u8]) -> bool {
    let Some(begin) = file.get(LENGTH..PLACE) else { return false };
    begin.iter().zip(BEGIN.as_bytes()).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>() <= DAMAGED_BITS
}

/// Nothing where the file has no checksum or the right one; else what is wrong.
pub(super) fn verify(file: &[u8]) -> Result<(), String> {
    if !is_sealed(file) {
        return Ok(());
    }
    let mut hasher = crc32fast::Hasher::new();
    let (before, rest) = file.split_at(PLACE);
    let (noted, behind) = rest.split_at_checked(ZEROS.len()).unwrap_or((rest, &[]));
    [before, ZEROS.as_bytes(), behind].into_iter().for_each(|part| hasher.update(part));
    let found = format!("{:08x}", hasher.finalize());
    if noted == found.as_bytes() {
        return Ok(());
    }
    let noted = String::from_utf8_lossy(noted);
    Err(format!("is damaged: its checksum should be {noted}, its contents have {found}; take a copy, or write it anew"))
}
