//! What augmentation makes of images, to be looked at.

use crate::data::{Augmentation, Dataset, DeviceBatch, HostBatch, Views};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::report::{Tile, to_bytes};

/// Images, then what views make of them, column by column.
pub struct ViewSheet {
    /// The places of the images in their data set: the rows.
    pub rows: Vec<usize>,
    /// What each column is called.
    pub columns: Vec<String>,
    /// The bytes of each column's pictures, one after the other, and the size of one.
    pictures: Vec<(Vec<u8>, [usize; 3])>,
}

impl ViewSheet {
    /// `images` images of `dataset`, of each class in turn: `draws` draws of one preset in as many
    /// epochs from `epoch` on, or one draw of each view of a list.
    ///
    /// # Errors
    /// A preset that there is not; images of no size; out of memory.
    pub fn new(gpu: &Gpu, dataset: &Dataset, images: usize, views: &Views, draws: usize, (epoch, seed): (u32, u32)) -> Result<Self> {
        let names = views.names(draws)?;
        let [height, width, _] = dataset.image_size()?;
        let one = matches!(views, Views::All(_));
        let rows = each_class_in_turn(dataset, images);
        let batch = DeviceBatch::upload(gpu, &HostBatch::of(dataset, &rows)?)?;
        let mut columns = vec![(batch.inputs.clone(), "image".to_string())];
        for (name, column) in names.iter().zip(0..) {
            let (epoch, view) = if one { (epoch.saturating_add(column), 0) } else { (epoch, column) };
            let augmentation = Augmentation::preset(name, seed, [height, width])?;
            // As in training: a random crop is one of the whole picture.
            let images = if dataset.has_many_sizes() && augmentation.begins_with_crop() {
                let whole = DeviceBatch::upload(gpu, &HostBatch::uncropped(dataset, &rows)?)?;
                augmentation.sized([height, width]).apply(&whole, epoch, view)?
            } else {
                augmentation.apply(&batch, epoch, view)?
            };
            columns.push((images, if one { format!("epoch {epoch}") } else { (*name).to_string() }));
        }
        let picture = |images: &crate::tensor::Tensor| {
            let size = images.shape().array().map(|[_, h, w, c]| [h, w, c]);
            let size = size.ok_or_else(|| Error::argument("preview", "a view is no image"))?;
            Ok((to_bytes(&images.to_vec::<f32>()?, 0.0, 1.0), size))
        };
        let pictures = columns.iter().map(|(images, _)| picture(images)).collect::<Result<_>>()?;
        Ok(Self { rows, columns: columns.into_iter().map(|(_, name)| name).collect(), pictures })
    }

    /// All pictures, row by row.
    pub fn tiles(&self) -> impl Iterator<Item = Tile<'_>> {
        (0..self.rows.len()).flat_map(move |row| {
            self.pictures.iter().filter_map(move |(pixels, size)| {
                let bytes = size.iter().product::<usize>();
                Some(Tile { pixels: pixels.get(row * bytes..(row + 1) * bytes)?, size: *size })
            })
        })
    }
}

/// The places of `count` images: the first of each class, then the second of each, and so on.
fn each_class_in_turn(dataset: &Dataset, count: usize) -> Vec<usize> {
    let mut seen = vec![0usize; dataset.classes()];
    let mut places: Vec<(usize, i32, usize)> = Vec::new();
    for (index, label) in dataset.labels().iter().enumerate() {
        if let Some(seen) = usize::try_from(*label).ok().and_then(|label| seen.get_mut(label)) {
            // No later one of a class can be among them.
            if *seen < count {
                places.push((*seen, *label, index));
            }
            *seen += 1;
        }
    }
    places.sort_unstable();
    places.into_iter().take(count).map(|(.., index)| index).collect()
}
