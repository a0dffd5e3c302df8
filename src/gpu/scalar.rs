//! Numbers that kernels take as parameters. A captured program submits the same commands again and
//! again; a number that may differ between runs (learning rate, epoch, temperature) is a [`Scalar`]
//! that is looked up before each. Commands are encoded anew for every run anyway (WebGPU has no
//! command buffer that may be submitted twice), so this costs no buffer, no upload and no change of
//! a kernel.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::reflection::ParamKind;

#[derive(Clone)]
enum Source<T> {
    Fixed(T),
    Live(Arc<dyn Fn() -> T + Send + Sync>),
}

/// A number: fixed, or looked up before each run of the commands that carry it.
///
/// ```
/// use wgrad::gpu::{Scalar, ScalarCell};
///
/// let epoch = ScalarCell::new(0u32);
/// let momentum: Scalar<f32> = epoch.scalar().map(|epoch| 1.0 - 0.5f32.powi(epoch as i32));
/// epoch.set(2);
/// assert_eq!(momentum.get(), 0.75);
/// assert_eq!(Scalar::from(0.1f32).get(), 0.1);
/// ```
#[derive(Clone)]
pub struct Scalar<T = f32>(Source<T>);

impl<T: Copy + Send + Sync + 'static> Scalar<T> {
    /// A number that `look` finds whenever it is needed. It must not use the device.
    pub fn live(look: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self(Source::Live(Arc::new(look)))
    }

    /// Its present value.
    pub fn get(&self) -> T {
        match &self.0 {
            Source::Fixed(value) => *value,
            Source::Live(look) => look(),
        }
    }

    /// The number that `f` makes of it; fixed where this one is.
    #[must_use]
    pub fn map<U: Copy + Send + Sync + 'static>(&self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Scalar<U> {
        match &self.0 {
            Source::Fixed(value) => Scalar(Source::Fixed(f(*value))),
            Source::Live(look) => {
                let look = look.clone();
                Scalar::live(move || f(look()))
            }
        }
    }

    /// Whether it may differ from run to run.
    pub fn is_live(&self) -> bool {
        matches!(self.0, Source::Live(_))
    }
}

impl<T> From<T> for Scalar<T> {
    fn from(value: T) -> Self {
        Self(Source::Fixed(value))
    }
}

impl<T: Copy + Send + Sync + 'static> From<&ScalarCell<T>> for Scalar<T> {
    fn from(cell: &ScalarCell<T>) -> Self {
        cell.scalar()
    }
}

impl<T: Copy + Send + Sync + fmt::Debug + 'static> fmt::Debug for Scalar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// By present value.
impl<T: Copy + Send + Sync + PartialEq + 'static> PartialEq for Scalar<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Default> Default for Scalar<T> {
    fn default() -> Self {
        Self(Source::Fixed(T::default()))
    }
}

/// A place for a number that the host changes between runs. Clones are the same place.
#[derive(Debug, Clone, Default)]
pub struct ScalarCell<T = f32>(Arc<Mutex<T>>);

impl<T: Copy + Send + Sync + 'static> ScalarCell<T> {
    /// A place that holds `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }

    /// What it holds.
    pub fn get(&self) -> T {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what it holds.
    pub fn set(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    /// The number that it holds at each run.
    pub fn scalar(&self) -> Scalar<T> {
        let cell = self.clone();
        Scalar::live(move || cell.get())
    }
}

/// One 4-byte kernel parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// For a `u32` member.
    U32(u32),
    /// For an `i32` member.
    I32(i32),
    /// For an `f32` member.
    F32(f32),
    /// A number that the member of this type cannot hold: the launch is refused.
    TooLarge(i128, ParamKind),
    /// Looked up before each run: its bits, for a member of this type.
    Live(Scalar<u32>, ParamKind),
}

impl From<u32> for Param {
    fn from(v: u32) -> Self {
        Param::U32(v)
    }
}
impl From<usize> for Param {
    fn from(v: usize) -> Self {
        u32::try_from(v).map_or(Param::TooLarge(v as i128, ParamKind::U32), Param::U32)
    }
}
impl From<i64> for Param {
    /// For an `i32` member.
    fn from(v: i64) -> Self {
        i32::try_from(v).map_or(Param::TooLarge(v.into(), ParamKind::I32), Param::I32)
    }
}
impl From<bool> for Param {
    fn from(v: bool) -> Self {
        Param::U32(u32::from(v))
    }
}
impl From<i32> for Param {
    fn from(v: i32) -> Self {
        Param::I32(v)
    }
}
impl From<f32> for Param {
    fn from(v: f32) -> Self {
        Param::F32(v)
    }
}

impl Param {
    /// Its present bits.
    pub(crate) fn bits(&self) -> u32 {
        match self {
            Param::U32(v) => *v,
            Param::I32(v) => v.cast_unsigned(),
            Param::F32(v) => v.to_bits(),
            Param::TooLarge(..) => u32::MAX,
            Param::Live(bits, _) => bits.get(),
        }
    }

    pub(super) fn kind(&self) -> ParamKind {
        match self {
            Param::U32(_) => ParamKind::U32,
            Param::I32(_) => ParamKind::I32,
            Param::F32(_) => ParamKind::F32,
            Param::TooLarge(_, kind) | Param::Live(_, kind) => *kind,
        }
    }
}

macro_rules! parameter {
    ($($number:ty),*) => { $(
        impl From<&Scalar<$number>> for Param {
            fn from(scalar: &Scalar<$number>) -> Self {
                match &scalar.0 {
                    Source::Fixed(value) => Param::from(*value),
                    Source::Live(look) => {
                        let look = look.clone();
                        Param::Live(Scalar::live(move || Param::from(look()).bits()), Param::from(<$number>::default()).kind())
                    }
                }
            }
        }

        impl From<Scalar<$number>> for Param {
            fn from(scalar: Scalar<$number>) -> Self {
                Param::from(&scalar)
            }
        }
    )* };
}
parameter!(u32, i32, f32);
