//! Networks: structure, counts, weights in and out, the answers of timm and torchvision.

#[path = "../common/mod.rs"]
mod common;

mod checkpoints;
mod model_counts;
mod pretrained;
mod reference_models;
mod structure;
mod text;
mod weights;
