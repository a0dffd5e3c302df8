//! What dense convolutions leave to measurement (`wgrad tune`).

use crate::gpu::Knob;

/// Pixels and columns of a tile of the convolution, on GPUs; by pixels.
pub(super) const TILE: Knob = Knob { name: "convolution/dense.tile", choices: &[64, 128] };
/// Positions of a step that an invocation reads from workgroup memory before it multiplies, on GPUs.
pub(super) const AHEAD: Knob = Knob { name: "convolution/dense.ahead", choices: &[1, 2] };
/// Pixels of a slab of the gradient to the weights, on software drivers; by the channels of both
/// images.
pub(super) const SLAB_PIXELS: Knob = Knob { name: "convolution/dense_weight.slab_pixels", choices: &[256, 512, 1024, 2048] };
/// Workgroups that the gradient to the weights is split into at least, on GPUs; by pixels.
pub(super) const SLAB_GROUPS: Knob = Knob { name: "convolution/dense_weight.groups", choices: &[128, 256, 512, 1024] };
/// Whether convolutions of f16 are left to cooperative matrices; by pixels.
pub(super) const MATRICES: Knob = Knob { name: "convolution/dense.matrix", choices: &[0, 1] };
/// Whether pointwise convolutions are products of matrices; by pixels.
pub(super) const PRODUCT: Knob = Knob { name: "convolution/dense.product", choices: &[0, 1] };
