//! Pictures that are read while others are being worked on: no more than a few batches of them lie
//! in memory.

use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

use super::batch::HostBatch;
use super::decoder::Limit;
use super::folder::LabelledFile;
use super::picture::{ImageOptions, decode};
use super::samples::Samples;
use crate::error::{Error, Result};

/// Batches that wait ready while one is being used.
const PREFETCH: usize = 1;

/// Some of the pictures of a list.
#[derive(Debug)]
pub struct PictureBatch {
    /// Those that could be read; `indices` are their places in the list.
    pub batch: HostBatch,
    /// Why the others could not, naming each.
    pub damaged: Vec<Error>,
}

/// Reads `files`, each with its label of `classes`, on other threads, and hands them to `each` in
/// their order, `batch_size` at a time.
///
/// # Errors
/// [`Error::Argument`] for options that mean nothing or a batch of 0; the first error of `each`,
/// after which no more is read. A damaged picture is none: [`PictureBatch::damaged`].
pub fn stream_pictures(
    files: &[LabelledFile],
    classes: usize,
    options: ImageOptions,
    batch_size: usize,
    each: impl FnMut(PictureBatch) -> Result<()>,
) -> Result<()> {
    let (bytes, limit) = (options.image_bytes()?, Limit::from_env()?);
    let size = [options.size, options.size, options.channels()];
    if batch_size == 0 {
        return Err(Error::argument("batch", "expected at least 1 picture, found 0"));
    }
    let most = files.len().min(batch_size).saturating_mul(bytes);
    if Vec::<u8>::new().try_reserve_exact(most).is_err() {
        return Err(Error::argument(
            "batch",
            format!("{batch_size} pictures of {bytes} bytes do not fit into memory; use a smaller batch"),
        ));
    }
    let read = |chunk: &[LabelledFile], first: u32| {
        let mut pixels = Vec::with_capacity(chunk.len() * bytes);
        let (mut labels, mut indices) = (Vec::new(), Vec::new());
        let mut damaged = Vec::new();
        let decode = |(file, _): &LabelledFile| decode(file, options, limit);
        let decoded: Vec<_> = chunk.par_iter().with_max_len(1).map(decode).collect();
        for ((place, (_, label)), decoded) in (first..).zip(chunk).zip(decoded) {
            match decoded {
                Ok(picture) => {
                    pixels.extend(picture);
                    labels.push(*label);
                    indices.push(place);
                }
                Err(error) => damaged.push(error),
            }
        }
        let batch = HostBatch { samples: Samples::Images { size, pixels }, labels, indices, classes, hidden: false };
        PictureBatch { batch, damaged }
    };
    let (sender, receiver) = sync_channel(PREFETCH);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (chunk, first) in files.chunks(batch_size).zip((0..).step_by(batch_size)) {
                if sender.send(read(chunk, first)).is_err() {
                    return;
                }
            }
        });
        receiver.into_iter().try_for_each(each)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::folder::tests::write_image;
    use super::*;
    use std::path::PathBuf;

    const SMALL: ImageOptions =
        ImageOptions { size: 2, grey: true, crop: 1.0, squash: false, interpolation: crate::io::Interpolation::Bicubic };

    #[test]
    fn order_labels_and_damage_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<(PathBuf, i32)> = (0..11).map(|i| (folder.path().join(format!("{i}.png")), i % 3)).collect();
        for (i, (file, _)) in files.iter().enumerate() {
            write_image(file, (3, 5), [10 * i as u8; 3]);
        }
        std::fs::write(&files[4].0, "no picture").unwrap();
        std::fs::remove_file(&files[5].0).unwrap();
        let (mut sizes, mut seen, mut damaged) = (vec![], vec![], vec![]);
        stream_pictures(&files, 3, SMALL, 4, |read| {
            sizes.push(read.batch.indices.len());
            for (i, place) in read.batch.indices.iter().enumerate() {
                assert_eq!(read.batch.samples.bytes()[i * 4..][..4], [10 * *place as u8; 4]);
                assert_eq!(read.batch.labels[i], *place as i32 % 3);
                seen.push(*place);
            }
            damaged.extend(read.damaged.iter().map(ToString::to_string));
            Ok(())
        })
        .unwrap();
        assert_eq!((sizes, seen), (vec![4, 2, 3], vec![0, 1, 2, 3, 6, 7, 8, 9, 10]));
        assert!(damaged.len() == 2 && damaged[0].contains("4.png") && damaged[1].contains("5.png"), "{damaged:?}");
    }

    #[test]
    fn an_error_of_the_consumer_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.png");
        write_image(&file, (3, 5), [1; 3]);
        let mut batches = 0;
        let error = stream_pictures(&vec![(file, 0); 100], 1, SMALL, 1, |_| {
            batches += 1;
            if batches == 3 { Err(Error::argument("x", "enough")) } else { Ok(()) }
        });
        assert_eq!((error, batches), (Err(Error::argument("x", "enough")), 3));
        assert!(stream_pictures(&[], 1, SMALL, 0, |_| Ok(())).is_err());
        assert!(stream_pictures(&[], 1, ImageOptions { crop: f64::NAN, ..SMALL }, 1, |_| Ok(())).is_err());
        stream_pictures(&[], 1, SMALL, 1, |_| Err(Error::argument("x", "there is none"))).unwrap();
    }
}
