//! Pictures on disk, however they are read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use image::{Rgb, RgbImage};

use super::super::{
    AugmentStep, Augmentation, Dataset, DeviceBatch, HostBatch, ImageOptions, Loader, LoaderOptions, PackedBatch, Split, open_with,
};
use super::stored::kept_size;
use super::*;
use crate::gpu::{Gpu, GpuOptions};
use crate::io::Interpolation;
use crate::ops::augment::{Draws, RandomResizedCrop};
use crate::tensor::Tensor;
use crate::tensor::random::{Purpose, Stream};

const IMAGE: ImageOptions = ImageOptions { size: 8, grey: false, crop: 1.0, squash: false, interpolation: Interpolation::Bilinear };

/// 12 pictures of 2 classes to learn from and 4 to measure on, each of a size of its own; some have
/// longer short sides than are kept, one is nearly a line.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [(5, 9), (9, 5), (40, 13), (8, 8), (30, 31), (2, 97)];
    for (class, split, count) in [("cat", "train", 6), ("dog", "train", 6), ("cat", "test", 2), ("dog", "test", 2)] {
        for (i, (width, height)) in sizes.into_iter().enumerate().take(count) {
            let shade = |x: u32, y: u32| Rgb([(x * 7 + y * 3) as u8, (y * 11) as u8, (i * 40) as u8]);
            let path = folder.path().join(split).join(class).join(format!("inner/{i}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_fn(width, height, shade).save(path).unwrap();
        }
    }
    folder
}

fn open(path: &Path, split: Split, change: impl FnOnce(&mut PictureOptions)) -> Dataset {
    let mut options = PictureOptions::from(IMAGE);
    change(&mut options);
    open_with(path, split, options).unwrap()
}

/// All batches of two epochs.
fn batches(dataset: Dataset, uncropped: bool) -> Vec<HostBatch> {
    let options = LoaderOptions { batch_size: 5, seed: 1, shuffle: true, drop_last: false, labelled: 0, shards: 1 };
    let loader = Loader::new(Arc::new(dataset), options).unwrap();
    let loader = if uncropped { loader.uncropped() } else { loader };
    (0..2).flat_map(|epoch| loader.epoch(epoch).collect::<Result<Vec<_>>>().unwrap()).collect()
}

#[test]
fn threads_and_memory_change_nothing() {
    let folder = folder();
    for uncropped in [false, true] {
        let of = |workers, memory_mib| {
            batches(open(folder.path(), Split::Train, |o| (o.workers, o.memory_mib) = (workers, memory_mib)), uncropped)
        };
        let one = of(1, 0);
        assert_eq!(one.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [5, 5, 2, 5, 5, 2]);
        for (workers, memory_mib) in [(2, 0), (8, 0), (1, 1), (3, 512)] {
            assert!(of(workers, memory_mib) == one, "{workers} threads, {memory_mib} MiB");
        }
    }
}

#[test]
fn every_picture_fits_into_its_slot() {
    let mut stream = Stream::keyed(3, Purpose::Test.key(), 0);
    for _ in 0..20_000 {
        let side = |stream: &mut Stream| (1usize << stream.below(15)) + stream.below(1 << 14) as usize;
        let size @ [height, width] = [side(&mut stream), side(&mut stream)];
        let options = PictureOptions { short_side: 1 + stream.below(600) as usize, ..IMAGE.into() };
        let [h, w] = kept_size(size, options);
        let fits = |h: usize, w: usize| h * w <= options.pixels() && h.min(w) <= options.short_side() && h.max(w) <= 32_767;
        assert!((h == 1 || w == 1 || fits(h, w)) && h <= height && w <= width, "{size:?} to {h} x {w} of {options:?}");
        assert_eq!([h, w] == size, fits(height, width), "{size:?} to {h} x {w} of {options:?}");
        assert!(h * w * 3 <= options.slot_bytes(), "{size:?} to {h} x {w} of {options:?}");
    }
}

#[test]
fn what_is_kept_has_a_limit() {
    let cache = Cache::new(3, 250);
    let reads = std::cell::Cell::new(0);
    let read = |place| {
        let read = || {
            reads.set(reads.get() + 1);
            Ok(vec![place as u8; 100])
        };
        assert_eq!(*cache.image(place, read).unwrap(), [place as u8; 100]);
    };
    (0..3).chain(0..3).for_each(read);
    // Two have room; the third is read each time.
    assert_eq!(reads.get(), 4);
}

#[test]
fn packed_pictures_are_the_same_pictures() {
    let folder = folder();
    let path = folder.path().join("packed.safetensors");
    let [train, test] = [Split::Train, Split::Test].map(|split| open(folder.path(), split, |_| ()));
    let mut told = Vec::new();
    let packed = pack([&train, &test], &path, |done| told.push(done)).unwrap();
    assert_eq!((packed.train, packed.test, packed.bytes, told), (12, 4, std::fs::metadata(&path).unwrap().len(), vec![12, 16]));
    // What was packed once is packed to the same bytes again, from the pack, too.
    let again = folder.path().join("again.safetensors");
    let [packed_train, packed_test] = [Split::Train, Split::Test].map(|split| open(&path, split, |_| ()));
    pack([&packed_train, &packed_test], &again, |_| ()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
    assert_eq!((packed_train.labels(), packed_train.class_names()), (train.labels(), train.class_names()));
    assert!(batches(packed_train, true) == batches(train.clone(), true));
    // Images are cut from pictures as they are kept: the same where those were not shrunk.
    for (place, size) in [(0, [5, 9]), (1, [9, 5]), (3, [8, 8])] {
        assert_eq!(kept_size(size, IMAGE.into()), size);
        assert_eq!(open(&path, Split::Train, |_| ()).read(&[place]).unwrap(), train.read(&[place]).unwrap());
    }
    let whole = std::fs::read(&path).unwrap();
    // A flipped bit anywhere is an error, at once or when its picture is read.
    for place in (0..whole.len()).step_by(whole.len() / 60) {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let read =
            |split| open_with(&path, split, PictureOptions::from(IMAGE)).and_then(|data| data.read(&(0..data.len()).collect::<Vec<_>>()));
        let good = |split| {
            read(split).is_ok_and(|found| found == open(&again, split, |_| ()).read(&(0..found.numel() / 192).collect::<Vec<_>>()).unwrap())
        };
        assert!(read(Split::Train).is_err() || read(Split::Test).is_err() || (good(Split::Train) && good(Split::Test)), "byte {place}");
    }
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = open_with(&path, Split::Train, PictureOptions::from(IMAGE)).unwrap_err().to_string();
        assert!(error.contains("packed.safetensors: "), "{error}");
    }
}

#[test]
fn pictures_that_cannot_be_read_are_named_or_left_out() {
    let folder = folder();
    let bad = folder.path().join("train/cat/inner/2.png");
    std::fs::write(&bad, "no picture").unwrap();
    let all = open(folder.path(), Split::Train, |_| ());
    let options = LoaderOptions { batch_size: 4, seed: 1, shuffle: false, drop_last: true, labelled: 0, shards: 1 };
    let mut epoch = Loader::new(Arc::new(all), options).unwrap().epoch(0);
    let error = epoch.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("2.png") && error.contains("another kind"), "{error}");
    assert!(epoch.next().is_none(), "an epoch ends with its error");
    let good = open(folder.path(), Split::Train, |o| o.skip_bad = true);
    assert_eq!((good.len(), good.labels()[..6].to_vec()), (11, vec![0, 0, 0, 0, 0, 1]));
    assert!(good.read(&(0..11).collect::<Vec<_>>()).is_ok());
}

#[test]
fn statistics_are_those_of_the_images() {
    let folder = folder();
    let pictures = open(folder.path(), Split::Train, |_| ());
    let Samples::Images { size, pixels } = pictures.read(&(0..12).collect::<Vec<_>>()).unwrap() else { panic!() };
    let held = Dataset::new("held", size, pixels, pictures.labels().to_vec(), pictures.class_names().to_vec()).unwrap();
    assert_eq!(pictures.statistics(), held.statistics());
    assert_ne!(pictures.subset(&[1, 2]).unwrap().statistics(), held.statistics());
}

#[test]
fn random_crops_are_taken_from_the_whole_picture() {
    let gpu = Gpu::with(GpuOptions { poison: true, ..GpuOptions::from_env().unwrap() }).unwrap();
    let folder = folder();
    let dataset = open(folder.path(), Split::Train, |_| ());
    let interpolation = crate::ops::augment::Interpolation::Bicubic;
    let step = AugmentStep::RandomResizedCrop { size: None, scale: [0.1, 1.0], ratio: RandomResizedCrop::RATIO, flip: 0.5, interpolation };
    let pipeline = Augmentation::new(7, [step]).sized([6, 5]);
    assert!(pipeline.begins_with_crop());
    let host = HostBatch::uncropped(&dataset, &[4, 0, 2, 11, 3]).unwrap();
    let batch = PackedBatch::upload(&gpu, &host).unwrap().padded().unpack().unwrap();
    let found = pipeline.apply(&batch, 3, 1).unwrap();
    assert_eq!(found.shape().to_vec(), [5, 6, 5, 4]);
    let found = found.to_vec::<f32>().unwrap();
    let Samples::Pictures { slot, sizes, pixels, .. } = &host.samples else { panic!() };
    for (i, [height, width]) in sizes.iter().enumerate() {
        let size = [1, *height as usize, *width as usize, 3];
        let image: Vec<f32> = pixels[i * slot..][..size.iter().product()].iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let index = Tensor::from_slice(&gpu, &[host.indices[i] as i32], [1]).unwrap();
        let draws = Draws { seed: 7, epoch: 3.into(), view: 1, step: 0 };
        let crop = RandomResizedCrop { size: [6, 5], scale: [0.1, 1.0], ratio: RandomResizedCrop::RATIO, flip: 0.5, interpolation, draws };
        let expected = Tensor::from_slice(&gpu, &image, size).unwrap().random_resized_crop(&index, crop).unwrap().to_vec::<f32>().unwrap();
        for (found, expected) in found[i * 120..][..120].chunks(4).zip(expected.chunks(3)) {
            assert!(
                found[3] == 0.0 && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
                "picture {i}: {found:?}, {expected:?}"
            );
        }
    }
    // Nothing but a crop takes them.
    let flip = Augmentation::new(0, [AugmentStep::HorizontalFlip { p: 0.5 }]);
    let error = flip.apply(&DeviceBatch::upload(&gpu, &host).unwrap(), 0, 0).map(drop).unwrap_err().to_string();
    assert!(error.contains("random_resized_crop with a size as their first step"), "{error}");
}
