//! What draws and formats: pictures, plots, statistics of measurements, and where they were made.

mod canvas;
pub(crate) mod chart;
pub(crate) mod csv;
mod environment;
pub(crate) mod page;
mod peaks;
pub mod statistics;
pub(crate) mod svg;
pub(crate) mod tensorboard;

pub use canvas::{BLACK, Canvas, Colour, LINE, Tile, WHITE, class_colour, to_bytes, viridis};
pub use environment::Environment;
pub(crate) use environment::schedule_name;
pub use peaks::{Bound, Peaks};
pub use statistics::TimeSummary;
