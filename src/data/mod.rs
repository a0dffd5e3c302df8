//! Reading labelled images and texts from disk and serving them in batches. Reading runs on the
//! CPU, of pictures on all of its cores; what is done to the images then runs on the device.
//!
//! | | |
//! |---|---|
//! | `open` | opens a folder, whichever format it has |
//! | `formats` | the formats, one line each |
//! | `dataset` | labelled images or texts: parts, statistics |
//! | `samples` | the images or texts themselves |
//! | `statistics` | what images are normalised by |
//! | `batch` | a batch in host memory |
//! | `loader` | batches in a repeatable order, prepared ahead |
//! | `device` | a batch on the device |
//! | `augmentation` | what is done to the images of a batch: pipelines of steps |
//! | `augment_step` | one such step |
//! | `presets` | published pipelines by name |
//! | `views` | which recipe makes which view of an image |
//! | `idx` | MNIST, Fashion-MNIST and their kind |
//! | `cifar` | CIFAR-10 and CIFAR-100, binary version |
//! | `folder` | pictures, a folder a class |
//! | `pictures` | pictures of many sizes, which stay on disk: lists, archives, one packed file |
//! | `picture` | one picture file, as pixels of the size that is wanted |
//! | `decoder` | one picture file as it is, within limits |
//! | `resample` | scaling pictures, to the bytes that Pillow gives |
//! | `stream` | pictures read ahead, batch by batch |
//! | `text` | questions with classes, as token numbers |
//! | `wordpiece` | texts as numbers of a vocabulary's pieces |
//! | `classes` | other classes for its images: some, several as one, wrong ones |
//! | `tasks` | what else is known of them: more labels |
//! | `labels` | what classes are called |
//! | `gzip` | what the readers share: files that may be compressed, damaged or hostile |

mod augment_step;
mod augmentation;
mod batch;
mod cifar;
mod classes;
mod dataset;
mod decoder;
mod device;
mod epoch;
mod folder;
mod formats;
mod gzip;
mod idx;
mod labels;
mod loader;
mod open;
mod picture;
mod pictures;
mod presets;
mod resample;
mod samples;
mod split;
mod statistics;
mod stream;
mod tasks;
mod text;
mod views;
mod wordpiece;

pub use augment_step::AugmentStep;
pub use augmentation::Augmentation;
pub use batch::HostBatch;
pub use cifar::{CIFAR10_CLASSES, CIFAR100_CLASSES, read_cifar10, read_cifar100};
pub use classes::{Class, ClassGroup};
pub use dataset::{Dataset, Split};
pub use device::{DeviceBatch, PackedBatch, PictureSizes};
pub use epoch::Epoch;
pub use folder::{LabelledFile, list_image_folder, list_pictures, read_image_folder, read_image_split};
pub use idx::{FASHION_MNIST_CLASSES, IdxImages, read_idx_folder, read_idx_images, read_idx_labels};
pub use labels::{Labels, Matched};
pub use loader::{Loader, LoaderOptions};
pub use open::{open, open_with};
pub use picture::ImageOptions;
pub use pictures::{Packed, PictureOptions, pack};
pub use samples::Samples;
pub use statistics::ChannelStatistics;
pub use stream::{PictureBatch, stream_pictures};
pub use tasks::{Task, TaskGroups};
pub use text::read_text_folder;
pub use views::{View, Views};
pub use wordpiece::WordPiece;
