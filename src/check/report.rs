//! What was found.

use std::fmt;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// Two invocations touch the same place, one of them writes, and nothing lies between.
    Race,
    /// Several invocations write the same value to a place: it is a race by the letter.
    EqualWrites,
    /// An index beyond an array or a buffer.
    OutOfBounds,
    /// Workgroup memory that no one has written.
    Uninitialized,
    /// A barrier that some invocations of the workgroup do not come to.
    DivergentBarrier,
    /// A subgroup operation that some invocations of the subgroup do not come to.
    DivergentSubgroup,
    /// A whole number divided by 0, or the least one by -1.
    Division,
    /// A shift by as many bits as there are, or more.
    Shift,
    /// A float that its whole number cannot hold.
    Conversion,
    /// NaN from numbers that are finite.
    NotANumber,
    /// More rounds of loops than drivers grant (65,535), or no end.
    Rounds,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Race => "race",
            Self::EqualWrites => "equal writes",
            Self::OutOfBounds => "out of bounds",
            Self::Uninitialized => "uninitialized",
            Self::DivergentBarrier => "divergent barrier",
            Self::DivergentSubgroup => "divergent subgroup operation",
            Self::Division => "division",
            Self::Shift => "shift",
            Self::Conversion => "conversion",
            Self::NotANumber => "NaN",
            Self::Rounds => "rounds",
        })
    }
}

/// One thing that is wrong, at one place or between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// What was seen first: which invocation, which index or value.
    pub message: String,
    /// Where, with the line as it was written.
    pub places: String,
    /// How often it was seen.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.count > 1 { format!(" ({} times)", self.count) } else { String::new() };
        write!(f, "{}: {}{times}{}", self.kind, self.message, self.places)
    }
}

/// What a kernel did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What is wrong, in the order in which it was come to.
    pub findings: Vec<Finding>,
    /// The most rounds of loops that an invocation walked.
    pub rounds: u64,
    /// Invocations that ran.
    pub invocations: u64,
    /// What each buffer holds behind it, by name, in the order of the kernel's bindings.
    pub buffers: Vec<(String, Vec<u8>)>,
}
