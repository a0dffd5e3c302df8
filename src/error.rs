//! The one error type of the crate.
//!
//! Every message names what was wrong (the operator, file or adapter), what was expected, what was
//! found, and what to do.

use std::path::Path;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Values are cheap to clone, so an error that a driver reports late
/// can be returned by whichever call comes next.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes, axes or counts break an operator's rule.
    #[error("{operator}: {message}")]
    Shape {
        /// The operator whose rule was broken.
        operator: String,
        /// The shapes given and the rule.
        message: String,
    },
    /// A tensor's element type is not one that the operator takes.
    #[error("{operator}: {message}")]
    Dtype {
        /// The operator whose rule was broken.
        operator: String,
        /// The types expected and found.
        message: String,
    },
    /// An argument that is neither a shape nor a type: an attribute, an option, a name.
    #[error("{subject}: {message}")]
    Argument {
        /// What the argument belongs to.
        subject: String,
        /// What was expected and what was found.
        message: String,
    },
    /// The adapter cannot hold or launch what was asked for.
    #[error("{operator}: {message} (adapter: {adapter})")]
    Limit {
        /// The operator that needed more.
        operator: String,
        /// The limit, what was asked for, and the remedy.
        message: String,
        /// The adapter whose limit it is.
        adapter: String,
    },
    /// Shader text does not parse, validate or match its bindings.
    #[error("shader {kernel}: {message}")]
    Shader {
        /// The kernel's name.
        kernel: String,
        /// What the shader compiler or the binding check found.
        message: String,
    },
    /// The device stopped working: reset, unplugged, or destroyed.
    #[error("the GPU device was lost ({0}); make a new Gpu and resume from the last checkpoint")]
    DeviceLost(String),
    /// Device memory, or this program's own budget of it, is exhausted.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// The driver rejected a command: a bug of this crate or of the driver.
    #[error("the GPU driver refused {operator}: {message}")]
    Driver {
        /// The operator being run.
        operator: String,
        /// The driver's own words.
        message: String,
    },
    /// No adapter fits the request.
    #[error("no adapter: {0}")]
    Adapter(String),
    /// The tape cannot do what was asked of it.
    #[error("{operator}: {message}")]
    Autograd {
        /// The operator or call concerned.
        operator: String,
        /// What went wrong and the remedy.
        message: String,
    },
    /// A value became NaN or infinite (only reported when tracing is on, or by the training loop).
    #[error("{operator}: {message}")]
    NonFinite {
        /// The first operator that produced it.
        operator: String,
        /// Which output or gradient, and how many values.
        message: String,
    },
    /// Another process of a run that several share failed, was killed, or does not answer.
    #[error("process {rank} of this run: {message}")]
    Parallel {
        /// Its number.
        rank: usize,
        /// What happened to it, and the remedy.
        message: String,
    },
    /// A run has collapsed, and its recipe says to stop there.
    #[error("{method}: {message}")]
    Collapse {
        /// What was being trained.
        method: String,
        /// What was seen, and what is likely to be wrong.
        message: String,
    },
    /// A data set, image, weight file or checkpoint does not hold what it should.
    #[error("{source_name}: {message}")]
    Data {
        /// The file or data set.
        source_name: String,
        /// What was expected and what was found.
        message: String,
    },
    /// The operating system refused to read or write.
    #[error("{path}: {message}")]
    Io {
        /// The file or folder.
        path: String,
        /// The system's own words, and the remedy where there is one.
        message: String,
    },
}

/// `value`, where it is finite and in `low..=high`.
///
/// # Errors
/// [`Error::Argument`] that names the setting of `subject`.
pub fn require_within(subject: &str, setting: &str, value: f32, [low, high]: [f32; 2]) -> Result<f32> {
    // Written so that NaN lies outside.
    if value.is_finite() && value >= low && value <= high {
        return Ok(value);
    }
    Err(Error::argument(subject, format!("{setting} must lie in {low}..={high}, found {value}")))
}

/// `value`, where it is a probability or a share: 0 to 1.
///
/// # Errors
/// As [`require_within`].
pub fn require_share(subject: &str, setting: &str, value: f32) -> Result<f32> {
    require_within(subject, setting, value, [0.0, 1.0])
}

/// `value`, where it is finite and above 0.
///
/// # Errors
/// As [`require_within`].
pub fn require_positive(subject: &str, setting: &str, value: f32) -> Result<f32> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(Error::argument(subject, format!("{setting} must be positive and finite, found {value}")))
}

/// `value`, where it is finite and at least 0.
///
/// # Errors
/// As [`require_within`].
pub fn require_not_negative(subject: &str, setting: &str, value: f32) -> Result<f32> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Error::argument(subject, format!("{setting} must be finite and at least 0, found {value}")))
}

/// That every row of `width` values is finite: of one that is not, neither a class nor a cosine nor
/// a neighbour means anything.
///
/// # Errors
/// [`Error::NonFinite`] of `what`, with the number of rows that hold NaN or infinity and the first
/// of them.
pub fn require_finite_rows(what: &str, values: &[f32], width: usize) -> Result<()> {
    let bad = || values.chunks(width.max(1)).zip(0..).filter(|(row, _)| !row.iter().all(|v| v.is_finite()));
    let Some((row, place)) = bad().next() else { return Ok(()) };
    let value = row.iter().find(|v| !v.is_finite()).copied().unwrap_or(f32::NAN);
    let (count, rows) = (bad().count(), values.len().div_ceil(width.max(1)));
    let message = format!(
        "{count} of {rows} rows hold NaN or infinity, the first is row {place} ({value}); weights are damaged or numbers overflow: \
         use others, or find the first operator with WGRAD_TRACE_NON_FINITE=1"
    );
    Err(Error::NonFinite { operator: what.into(), message })
}

/// The one of `known` that is most like `name`, where one is like it.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let like = known.into_iter().filter_map(|other| {
        let lower = other.to_lowercase();
        let share = strsim::jaro_winkler(&name, &lower);
        // As unlike as clap still suggests for a mistyped option, or two letters of a short word
        // that changed places.
        (share > 0.7 || name.len() > 2 && strsim::osa_distance(&name, &lower) == 1).then_some((share, other))
    });
    like.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

impl Error {
    /// A broken shape rule of `operator`.
    pub fn shape(operator: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Shape { operator: operator.into(), message: message.into() }
    }

    /// A wrong element type given to `operator`.
    pub fn dtype(operator: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Dtype { operator: operator.into(), message: message.into() }
    }

    /// A wrong argument.
    pub fn argument(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Argument { subject: subject.into(), message: message.into() }
    }

    /// A name that there is not, of `subject`: with the closest of `known`, and all of them.
    pub fn unknown<'a>(subject: impl Into<String>, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let hint = closest(name, known.iter().copied()).map_or("there".into(), |closest| format!("did you mean \"{closest}\"? There"));
        Self::argument(subject, format!("there is no \"{name}\"; {hint} are {}", known.join(", ")))
    }

    /// A fault in shader text.
    pub fn shader(kernel: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Shader { kernel: kernel.into(), message: message.into() }
    }

    /// A misuse of the tape.
    pub fn autograd(operator: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Autograd { operator: operator.into(), message: message.into() }
    }

    /// Bad contents of a file or data set.
    pub fn data(source: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Data { source_name: source.into(), message: message.into() }
    }

    /// A failed read or write of `path`.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or folder".to_string(),
            std::io::ErrorKind::StorageFull => "no space left on the device; free some and run again".to_string(),
            _ => error.to_string(),
        };
        Error::Io { path: path.display().to_string(), message }
    }
}
