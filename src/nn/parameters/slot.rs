//! What a home knows of each of its parameters and statistics.

use crate::io::layout::Layout;
use crate::tensor::Shape;

/// Elements between the starts of slots: 256 bytes, the alignment of a binding.
pub const SLOT: usize = 64;

/// What a parameter is: decides its layout in files and whether weight decay applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A dense, grouped or transposed convolution's weight.
    Convolution,
    /// A depthwise convolution's weight.
    Depthwise,
    /// A linear layer's weight.
    Linear,
    /// A bias.
    Bias,
    /// Scale or shift of a normalisation.
    Norm,
    /// Tokens, embeddings, position embeddings.
    Embedding,
    /// Anything else that is trained.
    Other,
}

impl Kind {
    /// How files lay it out.
    pub fn layout(self) -> Layout {
        match self {
            Kind::Convolution => Layout::Convolution,
            Kind::Depthwise => Layout::Depthwise,
            _ => Layout::Plain,
        }
    }

    /// Whether it is one that recipes exclude from weight decay.
    pub fn is_bias_or_norm(self) -> bool {
        matches!(self, Kind::Bias | Kind::Norm)
    }
}

/// What becomes of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Trained.
    Value(Kind),
    /// Kept by batch norm.
    Statistic,
}

/// A slot of the home: one entry of the state.
#[derive(Debug, Clone)]
pub struct ParameterSlot {
    /// The state_dict name.
    pub name: String,
    /// The shape in the engine's layout.
    pub shape: Shape,
    /// What becomes of it.
    pub role: Role,
    /// The chunk of its role that holds it.
    pub chunk: usize,
    /// First element in the chunk, a multiple of [`SLOT`].
    pub start: usize,
    /// Not trained: its value and optimizer state stay as they are.
    pub frozen: bool,
    /// Times the learning rate.
    pub learning_rate: f32,
    /// Times the weight decay.
    pub weight_decay: f32,
}
