//! Points on a plane, coloured by class.

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report::{BLACK, Canvas, LINE, Tile, class_colour};

/// Sides of the plane in pixels: of points, and of images.
const SIDE: usize = 800;
const SIDE_OF_IMAGES: usize = 1600;
/// Images are shown with at most so many pixels a side.
const LARGEST_IMAGE: usize = 32;
const MARGIN: usize = 24;
/// Classes in the legend; a picture has room for so many.
const LEGEND: usize = 60;

/// A picture of points (x, y), coloured by `labels`, with a legend of `names`. With `images`, in
/// the points' order, those that cover no earlier one are drawn themselves, framed in their class's
/// colour.
///
/// # Errors
/// [`Error::Argument`] where points and labels, or images, are not as many, or a point is not
/// finite.
pub fn scatter(points: &[[f32; 2]], labels: &[i32], names: &[String], images: Option<&Dataset>) -> Result<Canvas> {
    let count = images.map_or(labels.len(), Dataset::len);
    if points.len() != labels.len() || count != labels.len() {
        let message = format!("expected as many points as labels and images, found {}, {} and {count}", points.len(), labels.len());
        return Err(Error::argument("scatter", message));
    }
    if let Some(point) = points.iter().position(|p| !p.iter().all(|v| v.is_finite())) {
        return Err(Error::argument("scatter", format!("point {point} is not finite")));
    }
    let side = if images.is_some() { SIDE_OF_IMAGES } else { SIDE };
    let shown = names.get(..names.len().min(LEGEND)).unwrap_or_default();
    let letters = if images.is_some() { 2 } else { 1 };
    let legend = shown.iter().map(|name| Canvas::text_width(name, letters)).max().unwrap_or(0) + (LINE + MARGIN) * letters;
    let mut canvas = Canvas::new(side + legend, side)?;
    let places = places(points, side);
    let classes: Vec<usize> = labels.iter().map(|label| usize::try_from(*label).unwrap_or(usize::MAX)).collect();
    let radius = if points.len() > 5000 { 1.5 } else { 3.0 };
    for ([x, y], class) in places.iter().zip(&classes) {
        canvas.disc(*x, *y, radius, class_colour(*class), 0.7);
    }
    if let Some(images) = images {
        draw_images(&mut canvas, &places, &classes, images)?;
    }
    for (class, name) in shown.iter().enumerate() {
        let at = [side, MARGIN + class * LINE * letters];
        canvas.rectangle(at, [7 * letters; 2], class_colour(class));
        canvas.text([at[0] + LINE * letters, at[1]], name, BLACK, letters);
    }
    Ok(canvas)
}

/// Points as pixels: both axes have one scale, and the whole fits.
fn places(points: &[[f32; 2]], side: usize) -> Vec<[f32; 2]> {
    let range = |pick: fn(&[f32; 2]) -> f32| {
        let (low, high) = points.iter().map(pick).fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        (0.5 * (low + high), high - low)
    };
    let ((x, width), (y, height)) = (range(|p| p[0]), range(|p| p[1]));
    let scale = (side - 2 * MARGIN) as f32 / width.max(height).max(f32::MIN_POSITIVE);
    let half = 0.5 * side as f32;
    // Upwards is up.
    points.iter().map(|p| [half + (p[0] - x) * scale, half - (p[1] - y) * scale]).collect()
}

fn draw_images(canvas: &mut Canvas, places: &[[f32; 2]], classes: &[usize], images: &Dataset) -> Result<()> {
    let [rows, columns, channels] = images.image_size()?;
    let every = rows.max(columns).div_ceil(LARGEST_IMAGE);
    let [height, width] = [rows, columns].map(|side| side.div_ceil(every));
    let mut drawn: Vec<[f32; 2]> = Vec::new();
    for (i, (place, class)) in places.iter().zip(classes).enumerate() {
        let covers =
            |other: &[f32; 2]| (place[0] - other[0]).abs() < (width + 2) as f32 && (place[1] - other[1]).abs() < (height + 2) as f32;
        if drawn.iter().any(covers) {
            continue;
        }
        let Some(image) = images.image(i)? else { continue };
        let rows = image.chunks_exact(columns * channels).step_by(every);
        let pixels: Vec<u8> = rows.flat_map(|row| row.chunks_exact(channels).step_by(every).flatten()).copied().collect();
        let corner = |centre: f32, side: usize| (centre as usize).saturating_sub(side / 2);
        let at = [corner(place[0], width), corner(place[1], height)];
        canvas.rectangle(at.map(|v| v.saturating_sub(1)), [width + 2, height + 2], class_colour(*class));
        canvas.image(at, Tile { pixels: &pixels, size: [height, width, channels] }, 1)?;
        drawn.push(*place);
    }
    Ok(())
}
