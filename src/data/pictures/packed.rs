//! One file of decoded pictures, from which epochs are read without decoding.
//!
//! It is a safetensors file, which other programs can read, too: for each split the `sizes` (heights
//! and widths) `[N, 2]`, the `labels` `[N]`, the CRC-32 of each picture (`checksums`, `[N]`), and
//! their `pixels`, one picture behind the other. What else there is to know is JSON in the header's
//! text `wgrad_pictures`. Tables lie before the pixels, so that they can be filled in at the end.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use bytemuck::pod_collect_to_vec;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::super::dataset::{Dataset, Split};
use super::location::Container;
use super::{CHUNK, Location, PictureOptions, dataset};
use crate::error::{Error, Result};
use crate::io::atomic::write_in_pieces;

/// The version that is written, and read.
const VERSION: u32 = 1;
/// The text of the header that says what the file is.
const KEY: &str = "wgrad_pictures";
/// Bytes of the header's length.
const LENGTH: usize = 8;
/// The largest header.
const LARGEST_HEADER: u64 = 100 << 20;
/// More bytes of pixels than there are.
const MOST: usize = 1 << 58;
/// The longest side.
const SIDE: i32 = 32_767;
const SPLITS: [Split; 2] = [Split::Train, Split::Test];

/// What a file says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    version: u32,
    /// Bytes a pixel.
    channels: usize,
    /// Of pictures at most.
    short_side: usize,
    classes: Vec<String>,
    /// CRC-32 of all tables.
    tables: u32,
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Pictures to learn from.
    pub train: usize,
    /// Pictures to measure on.
    pub test: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// The tables of a split.
#[derive(Default)]
struct Tables {
    sizes: Vec<i32>,
    labels: Vec<i32>,
    checksums: Vec<u32>,
    /// Bytes of all pixels.
    bytes: usize,
}

impl Tables {
    fn tensors(&self) -> [(&'static str, Dtype, Vec<usize>, &[u8]); 3] {
        let n = self.labels.len();
        [
            ("sizes", Dtype::I32, vec![n, 2], bytemuck::cast_slice(&self.sizes)),
            ("labels", Dtype::I32, vec![n], bytemuck::cast_slice(&self.labels)),
            ("checksums", Dtype::U32, vec![n], bytemuck::cast_slice(&self.checksums)),
        ]
    }

    fn bytes(tables: &[Self; 2]) -> Vec<u8> {
        tables.iter().flat_map(|tables| tables.tensors().map(|(.., bytes)| bytes.to_vec())).flatten().collect()
    }
}

/// Writes the pictures of a data set's two splits, as random crops take them, into one file at
/// `path`; `told` hears how many are done. [`open`](super::super::open) reads it.
///
/// # Errors
/// [`Error::Data`] for a data set that is not of pictures on disk, and naming a picture that cannot
/// be read; [`Error::Io`]. Then there is no file.
pub fn pack(splits: [&Dataset; 2], path: &Path, mut told: impl FnMut(usize)) -> Result<Packed> {
    let [train, test] = splits.map(|dataset| {
        let held = || Error::data(dataset.name(), "is in memory already: only pictures of many sizes are packed");
        dataset.pictures().ok_or_else(held)
    });
    let pictures = [train?, test?];
    let [options, _] = pictures.map(|pictures| pictures.shared.options);
    let [classes, _] = splits.map(|dataset| dataset.class_names().to_vec());
    let mut description =
        Description { version: VERSION, channels: options.image.channels(), short_side: options.short_side(), classes, tables: 0 };
    let mut tables = splits.map(|dataset| Tables { labels: dataset.labels().to_vec(), ..Tables::default() });
    for table in &mut tables {
        (table.sizes, table.checksums) = (vec![0; 2 * table.labels.len()], vec![0; table.labels.len()]);
    }
    let failed = |error: std::io::Error| Error::io(path, &error);
    let mut bytes = 0;
    write_in_pieces(path, |file| {
        // The longest header that there can be: numbers only get shorter.
        let reserved = header(&Description { tables: u32::MAX, ..description.clone() }, &tables, MOST)?.len();
        let first = reserved + Tables::bytes(&tables).len();
        file.seek(SeekFrom::Start(first as u64)).map_err(failed)?;
        let mut done = 0;
        for (pictures, tables) in pictures.iter().zip(&mut tables) {
            for indices in (0..pictures.len()).collect::<Vec<_>>().chunks(CHUNK) {
                for (index, picture) in indices.iter().zip(pictures.read_stored(indices)?) {
                    file.write_all(&picture.pixels).map_err(failed)?;
                    tables.bytes += picture.pixels.len();
                    tables.sizes.iter_mut().skip(2 * index).zip(picture.size).for_each(|(to, from)| *to = from);
                    tables.checksums.iter_mut().skip(*index).take(1).for_each(|to| *to = crc32fast::hash(&picture.pixels));
                }
                done += indices.len();
                told(done);
            }
        }
        let all = Tables::bytes(&tables);
        description.tables = crc32fast::hash(&all);
        let mut header = header(&description, &tables, 0)?;
        header.resize(reserved, b' ');
        let length = (reserved - LENGTH) as u64;
        header.splice(..LENGTH, length.to_le_bytes());
        bytes = (first + tables.iter().map(|tables| tables.bytes).sum::<usize>()) as u64;
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header)).and_then(|()| file.write_all(&all)).map_err(failed)
    })?;
    let [train, test] = splits.map(Dataset::len);
    Ok(Packed { train, test, bytes })
}

/// The header with its length, of pixels of at least `least` bytes a split.
fn header(description: &Description, tables: &[Tables; 2], least: usize) -> Result<Vec<u8>> {
    let wrong = |error: String| Error::data("packed pictures", error);
    let mut tensors = Vec::new();
    let mut end = 0usize;
    let mut add = |split: Split, name: &str, dtype, shape: Vec<usize>, bytes: usize| {
        let offsets = (end, end + bytes);
        end = offsets.1;
        tensors.push((format!("{split}.{name}"), TensorInfo { dtype, shape, data_offsets: offsets }));
    };
    for (split, tables) in SPLITS.into_iter().zip(tables) {
        tables.tensors().into_iter().for_each(|(name, dtype, shape, bytes)| add(split, name, dtype, shape, bytes.len()));
    }
    for (split, tables) in SPLITS.into_iter().zip(tables) {
        let bytes = tables.bytes.max(least);
        add(split, "pixels", Dtype::U8, vec![bytes], bytes);
    }
    let text = serde_json::to_string(description).map_err(|error| wrong(error.to_string()))?;
    let metadata = Metadata::new(Some([(KEY.to_string(), text)].into()), tensors).map_err(|error| wrong(error.to_string()))?;
    let json = serde_json::to_vec(&metadata).map_err(|error| wrong(error.to_string()))?;
    let mut header = vec![0; LENGTH];
    header.extend(json);
    header.resize(header.len().next_multiple_of(LENGTH), b' ');
    Ok(header)
}

/// One split of a packed file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] naming the file: another kind of file, another version, damaged
/// tables, a file that ends early; grey images of colour pictures, or the other way about.
pub(in super::super) fn open(path: &Path, split: Split, options: PictureOptions) -> Result<Dataset> {
    let wrong = |message: String| Error::data(path.display().to_string(), message);
    let pack = Container::open(path)?;
    let length = pack.file.metadata().map_err(|error| Error::io(path, &error))?.len();
    let (description, metadata, begin) = read_header(&pack, length)?;
    if description.version != VERSION {
        return Err(wrong(format!(
            "is version {} of packed pictures; this program reads version {VERSION}: pack them anew",
            description.version
        )));
    }
    if description.channels != options.image.channels() {
        return Err(wrong(format!("its pictures have {} channels, not {}", description.channels, options.image.channels())));
    }
    let end = begin + metadata.data_len() as u64;
    if length != end {
        return Err(wrong(format!("is damaged: it should have {end} bytes and has {length}; pack the pictures anew")));
    }
    let find = |split: Split, name: &str, dtype: Dtype| {
        let info = metadata.info(&format!("{split}.{name}")).filter(|info| info.dtype == dtype);
        info.ok_or_else(|| wrong(format!("has no {split}.{name} of the type {dtype:?}")))
    };
    let mut sum = crc32fast::Hasher::new();
    let mut read = |split: Split, name: &str, dtype: Dtype| {
        let (from, to) = find(split, name, dtype)?.data_offsets;
        let bytes = pack.read(begin + from as u64, to - from)?;
        sum.update(&bytes);
        Ok::<_, Error>(bytes)
    };
    let mut table = Tables::default();
    for of in SPLITS {
        let [sizes, labels] = [read(of, "sizes", Dtype::I32)?, read(of, "labels", Dtype::I32)?].map(|b| pod_collect_to_vec::<u8, i32>(&b));
        let checksums = pod_collect_to_vec::<u8, u32>(&read(of, "checksums", Dtype::U32)?);
        if of == split {
            table = Tables { sizes, labels, checksums, bytes: 0 };
        }
    }
    if sum.finalize() != description.tables {
        return Err(wrong("is damaged: the checksum of its tables is another; pack the pictures anew".into()));
    }
    let (from, to) = find(split, "pixels", Dtype::U8)?.data_offsets;
    let (mut pictures, mut offset) = (Vec::new(), begin + from as u64);
    for ((size, label), checksum) in table.sizes.as_chunks::<2>().0.iter().zip(table.labels).zip(table.checksums) {
        if size.iter().any(|side| !(1..=SIDE).contains(side)) {
            return Err(wrong(format!("has a picture of {size:?} pixels")));
        }
        pictures.push((Location::Packed { pack: pack.clone(), offset, size: *size, checksum }, label));
        offset += size.iter().map(|side| *side as u64).product::<u64>() * description.channels as u64;
    }
    if offset != begin + to as u64 {
        return Err(wrong("is damaged: its pixels are not as many as its sizes say; pack the pictures anew".into()));
    }
    dataset(format!("{} ({split})", path.display()), Path::new(""), pictures, description.classes, options)
}

/// What a file says of itself, where its tensors lie, and where they begin.
fn read_header(pack: &Container, length: u64) -> Result<(Description, Metadata, u64)> {
    let none = |why: &str| {
        let message = format!("expected the folder of a data set, or a file of `wgrad data --pack`, found a file that is neither: {why}");
        Error::data(pack.path.display().to_string(), message)
    };
    if length < LENGTH as u64 {
        return Err(none("it is too short"));
    }
    let size = pack.read(0, LENGTH)?.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if size > LARGEST_HEADER.min(length - LENGTH as u64) {
        return Err(none("it has no header"));
    }
    let metadata: Metadata = serde_json::from_slice(&pack.read(LENGTH as u64, size as usize)?).map_err(|error| none(&error.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|texts| texts.get(KEY)).ok_or_else(|| none("its header does not say so"))?;
    let description = serde_json::from_str(text).map_err(|error| none(&error.to_string()))?;
    Ok((description, metadata, LENGTH as u64 + size))
}
