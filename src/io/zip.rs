//! The entries of a zip file as torch.save writes it: stored, not compressed.
//!
//! The crate `zip` would bring in four more crates to read compressed, encrypted and streamed
//! entries, none of which PyTorch writes. Layout: PKWARE's APPNOTE 6.3.10, sections 4.3.6 to
//! 4.3.16. Only the central directory at the end is trusted to list entries.

use std::collections::BTreeMap;

/// Bytes of the end record without its comment, of zip64's locator before it, and of the two fixed
/// headers of an entry.
const END: usize = 22;
const LOCATOR: usize = 20;
const CENTRAL: usize = 46;
const LOCAL: usize = 30;
/// Stands for a number that is in a zip64 field instead.
const ELSEWHERE: u32 = u32::MAX;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn place_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

/// The central directory's bytes, and where they begin.
fn directory(file: &[u8]) -> Option<(usize, &[u8])> {
    // The end record is the last thing but a comment of at most 65,535 bytes.
    let first = file.len().saturating_sub(END + usize::from(u16::MAX));
    let last = file.len().checked_sub(END)?;
    let end = (first..=last).rev().find(|at| {
        file.get(*at..).is_some_and(|f| f.starts_with(b"PK\x05\x06") && u16_at(f, 20).map(usize::from) == Some(f.len() - END))
    })?;
    let record = file.get(end..)?;
    let (mut size, mut start) = (u32_at(record, 12)? as usize, u32_at(record, 16)? as usize);
    if let Some(locator) = end.checked_sub(LOCATOR).and_then(|at| file.get(at..)).filter(|l| l.starts_with(b"PK\x06\x07")) {
        let record = file.get(place_at(locator, 8)?..).filter(|r| r.starts_with(b"PK\x06\x06"))?;
        (size, start) = (place_at(record, 40)?, place_at(record, 48)?);
    }
    Some((start, file.get(start..start.checked_add(size)?)?))
}

/// The contents of every entry by name, or what is wrong with the file. Everything is a slice of
/// it.
pub(super) fn entries(file: &[u8]) -> Result<BTreeMap<&str, &[u8]>, String> {
    let Some((start, mut directory)) = directory(file) else {
        return Err("is no complete zip file: its list of contents is missing or lies outside of it".into());
    };
    let data = file.get(..start).unwrap_or_default();
    let (mut entries, mut total) = (BTreeMap::new(), 0usize);
    while !directory.is_empty() {
        let Entry { name, contents, checksum, rest } = entry(data, directory)?;
        // Entries that share bytes could make much of little.
        total = total.saturating_add(contents.len());
        if total > data.len() {
            return Err(format!("is a damaged zip file: \"{name}\" overlaps other entries"));
        }
        if crc32fast::hash(contents) != checksum {
            return Err(format!("is a damaged zip file: the checksum of \"{name}\" is wrong"));
        }
        if entries.insert(name, contents).is_some() {
            return Err(format!("is a damaged zip file: \"{name}\" is there twice"));
        }
        directory = rest;
    }
    Ok(entries)
}

struct Entry<'a> {
    name: &'a str,
    contents: &'a [u8],
    /// CRC-32 of the contents.
    checksum: u32,
    /// The directory behind it.
    rest: &'a [u8],
}

/// The first entry of a directory, its contents in `data`.
fn entry<'a>(data: &'a [u8], directory: &'a [u8]) -> Result<Entry<'a>, String> {
    let damaged = || "is a damaged zip file: its list of contents ends early or holds something else".to_string();
    let (header, rest) = directory.split_at_checked(CENTRAL).filter(|(h, _)| h.starts_with(b"PK\x01\x02")).ok_or_else(damaged)?;
    let short = |at| u16_at(header, at).map(usize::from).ok_or_else(damaged);
    let (name, rest) = rest.split_at_checked(short(28)?).ok_or_else(damaged)?;
    let (extra, rest) = rest.split_at_checked(short(30)?).ok_or_else(damaged)?;
    let (_, rest) = rest.split_at_checked(short(32)?).ok_or_else(damaged)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged())?;

    let mut wide = zip64(extra);
    let mut number = |at| {
        let narrow = u32_at(header, at)?;
        if narrow != ELSEWHERE {
            return usize::try_from(narrow).ok();
        }
        let number = place_at(wide, 0);
        wide = wide.get(8..)?;
        number
    };
    // The wide numbers have this order.
    let (size, packed, start) = (number(24).ok_or_else(damaged)?, number(20).ok_or_else(damaged)?, number(42).ok_or_else(damaged)?);
    let encrypted = short(8)? & 1 != 0;
    if encrypted || short(10)? != 0 || size != packed {
        return Err(format!("holds the entry \"{name}\" compressed or encrypted; torch.save stores entries as they are"));
    }
    let contents = || {
        let local = data.get(start..).filter(|l| l.starts_with(b"PK\x03\x04"))?;
        let skip = LOCAL + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
        local.get(skip..)?.get(..size)
    };
    let contents = contents()
        .ok_or_else(|| format!("is a damaged zip file: \"{name}\" should have {size} bytes at byte {start}, which it has not"))?;
    Ok(Entry { name, contents, checksum: u32_at(header, 16).ok_or_else(damaged)?, rest })
}

/// The wide numbers of an entry: the extra field with the mark 1.
fn zip64(mut extra: &[u8]) -> &[u8] {
    while let (Some(mark), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some((field, rest)) = extra.get(4..).and_then(|e| e.split_at_checked(usize::from(length))) else { break };
        if mark == 1 {
            return field;
        }
        extra = rest;
    }
    &[]
}
