//! Parts of a tensor's contents: what is larger than a kernel may bind is worked on in pieces.

use std::ops::Range;

use super::{Spec, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{ALIGNMENT, Binding, Gpu};

/// How many rows of so many bytes each (one number a tensor) fit into `most` bytes, and the step in
/// which pieces are counted so that they begin where a binding may, or at least a copy. `None`
/// where not even one step fits.
pub(crate) fn fitting(row_bytes: &[u64], most: u64) -> Option<(usize, usize)> {
    let largest = row_bytes.iter().copied().max()?.max(1);
    let fit = most / largest;
    let step = |alignment: u64| row_bytes.iter().map(|row| alignment >> row.trailing_zeros().min(alignment.ilog2())).max();
    // Views where they are possible, else copies, which begin at multiples of 4.
    let step = step(ALIGNMENT).filter(|step| *step <= fit).or(step(4))?;
    (fit >= step).then_some(((fit - fit % step) as usize, step as usize))
}

/// The ranges of `each` rows that `rows` rows consist of; the last may be shorter.
pub(crate) fn ranges(rows: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(each.max(1)).map(move |first| first..rows.min(first + each.max(1)))
}

impl Spec {
    /// Refuses a tensor that `gpu` cannot hold, before anything of its size is made on the host.
    ///
    /// # Errors
    /// As [`Self::check_size`]; [`Error::OutOfMemory`] naming `operator`, the bytes, the largest
    /// buffer and the remedy.
    pub(crate) fn check_room(&self, operator: &str, gpu: &Gpu) -> Result<()> {
        self.check_size(operator)?;
        let (bytes, most, rows) = (self.bytes(), gpu.capabilities().max_buffer_bytes, self.shape.first().copied().unwrap_or(1).max(1));
        if bytes <= most {
            return Ok(());
        }
        let fit = most / (bytes / rows as u64).max(1);
        let remedy = match fit {
            0 => "one index of its axis 0 is too large by itself, so a smaller batch does not help: use smaller sizes".to_string(),
            fit => format!("use a smaller batch: its axis 0 may be at most {fit}"),
        };
        Err(Error::OutOfMemory(format!(
            "{operator}: {self} has {bytes} bytes, and the largest buffer of {} has {most}; a tensor is one buffer, even where operators run in \
             pieces; {remedy}",
            gpu.capabilities().name
        )))
    }

    /// Of `count` of the `of` equal rows that a tensor consists of: fewer along axis 0, or, where
    /// rows are something else, a matrix.
    pub(crate) fn rows(&self, count: usize, of: usize) -> Spec {
        let of = of.max(1);
        let shape = match self.shape.first() {
            Some(size) if size.is_multiple_of(of) => self.shape.with(0, size / of * count),
            _ => [count, self.shape.numel() / of].into(),
        };
        Spec { shape, ..self.clone() }
    }
}

impl Tensor {
    /// Whether a kernel can bind all of it.
    pub(crate) fn is_bindable(&self) -> bool {
        self.spec().bytes() <= self.gpu().capabilities().max_binding_bytes
    }

    /// The ranges of elements that can be bound one after another: all of them at once, unless
    /// there are very many.
    pub(crate) fn bindable(&self) -> impl Iterator<Item = Range<usize>> {
        let (all, most) = (self.numel(), self.gpu().capabilities().max_binding_bytes);
        let fit = if self.is_bindable() { None } else { fitting(&[self.dtype().bytes()], most) };
        ranges(all, fit.map_or(all, |(fit, _)| fit))
    }

    /// Rows of the `of` equal ones that the contents consist of, wherever they begin.
    fn window(&self, rows: &Range<usize>, of: usize) -> Tensor {
        let spec = self.spec().rows(rows.len(), of);
        let whole = &self.inner.binding;
        let offset = whole.offset + self.spec().bytes() / of.max(1) as u64 * rows.start as u64;
        let binding = Binding { buffer: whole.buffer.clone(), offset, bytes: spec.bytes(), storage: whole.storage };
        Self::assemble(self.gpu(), binding, spec, self.inner.version.clone())
    }

    /// Refuses what cannot be copied because it begins or, where something lies `behind` that must
    /// stay, ends within a word: some rows of f16.
    fn in_words(&self, behind: bool) -> Result<()> {
        let end = if behind { self.inner.binding.bytes } else { 0 };
        if (self.inner.binding.offset | end).is_multiple_of(4) {
            return Ok(());
        }
        Err(Error::shape("rows", format!("{} does not begin and end at whole words of 4 bytes; cast it to f32 first", self.spec())))
    }

    fn may_be_bound(&self) -> bool {
        self.inner.binding.offset.is_multiple_of(ALIGNMENT)
    }

    /// Rows of the `of` equal ones that the contents consist of, to be read: a view where a binding
    /// may begin there, else a copy.
    pub(crate) fn rows(&self, rows: &Range<usize>, of: usize) -> Result<Tensor> {
        if rows.len() == of {
            return Ok(self.clone());
        }
        let window = self.window(rows, of);
        if window.may_be_bound() {
            return Ok(window);
        }
        window.in_words(false)?;
        window.copy()
    }

    /// Replaces these rows of a tensor that was just made by the contents of `part`.
    pub(crate) fn put_rows(&self, rows: &Range<usize>, of: usize, part: &Tensor) -> Result<()> {
        let window = self.window(rows, of);
        if part.shape() != window.shape() || part.dtype() != window.dtype() {
            return Err(Error::shape(
                "rows",
                format!("{} of {} were expected for rows {rows:?}, found {}", window.spec(), self.spec(), part.spec()),
            ));
        }
        window.in_words(rows.end < of)?;
        self.gpu().copy(&part.inner.binding, &window.inner.binding, part.spec().bytes())
    }
}

/// Has `write` write these rows of `tensors`: in place where a binding may begin there. Pieces must
/// be written in order, because a kernel may reach up to 16 bytes into what lies behind.
pub(crate) fn write_rows(tensors: &[&Tensor], rows: &Range<usize>, of: usize, write: impl FnOnce(&[Tensor]) -> Result<()>) -> Result<()> {
    if rows.len() == of {
        return write(&tensors.iter().map(|t| (*t).clone()).collect::<Vec<_>>());
    }
    let place = |tensor: &&Tensor| {
        let window = tensor.window(rows, of);
        if window.may_be_bound() { Ok(window) } else { Tensor::empty(tensor.gpu(), window.shape(), window.dtype()) }
    };
    let places = tensors.iter().map(place).collect::<Result<Vec<_>>>()?;
    write(&places)?;
    for (tensor, part) in tensors.iter().zip(&places).filter(|(tensor, _)| !tensor.window(rows, of).may_be_bound()) {
        tensor.put_rows(rows, of, part)?;
    }
    Ok(())
}
