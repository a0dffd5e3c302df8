//! Bytes of a variable, and what is known of each place: who has touched it since the last barrier,
//! and whether anyone has written it.

use naga::{Scalar, Span};

/// Places are told apart by pairs of bytes: no scalar is smaller.
const PLACE: usize = 2;

/// One access.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub group: u32,
    pub lane: u32,
    /// Barriers that its workgroup had behind it.
    pub epoch: u32,
    pub span: Span,
    pub value: u32,
    pub atomic: bool,
}

impl Access {
    /// Whether nothing lies between the two, and they are not of the same invocation.
    fn meets(&self, other: &Self) -> bool {
        let apart = self.group != other.group || (self.lane != other.lane && self.epoch == other.epoch);
        apart && !(self.atomic && other.atomic)
    }
}

/// Who has touched a place.
#[derive(Debug, Clone, Default)]
struct Shadow {
    write: Option<Access>,
    /// The last read, and the last one of another invocation before it.
    reads: [Option<Access>; 2],
    written: bool,
}

/// Bytes that several invocations share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub bytes: Vec<u8>,
    shadow: Vec<Shadow>,
}

impl Shared {
    /// Of these bytes, which someone has `written` before.
    pub fn new(bytes: Vec<u8>, written: bool) -> Self {
        let places = bytes.len().div_ceil(PLACE);
        Self { bytes, shadow: vec![Shadow { written, ..Shadow::default() }; places] }
    }

    fn place(&mut self, offset: u32) -> Option<&mut Shadow> {
        self.shadow.get_mut(offset as usize / PLACE)
    }

    /// Notes a read; the write that it races with, and whether anyone has written the place.
    pub fn note_read(&mut self, offset: u32, access: Access) -> (Option<Access>, bool) {
        let Some(shadow) = self.place(offset) else { return (None, true) };
        let race = shadow.write.filter(|write| write.meets(&access));
        if shadow.reads[0].is_some_and(|last| last.lane != access.lane || last.group != access.group) {
            shadow.reads[1] = shadow.reads[0];
        }
        shadow.reads[0] = Some(access);
        (race, shadow.written)
    }

    /// Notes a write; what it races with, and whether that is a write, too.
    pub fn note_write(&mut self, offset: u32, access: Access) -> Option<(Access, bool)> {
        let shadow = self.place(offset)?;
        let write = shadow.write.filter(|write| write.meets(&access)).map(|write| (write, true));
        let read = shadow.reads.iter().flatten().find(|read| read.meets(&access)).map(|read| (*read, false));
        (shadow.write, shadow.written) = (Some(access), true);
        write.or(read)
    }
}

/// The bits of a scalar in memory; 0 where it does not lie in it.
pub(super) fn load(bytes: &[u8], offset: usize, scalar: Scalar) -> u32 {
    let mut word = [0; 4];
    let width = usize::from(scalar.width).min(4);
    let from = bytes.get(offset..offset.saturating_add(width)).unwrap_or_default();
    word.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    u32::from_le_bytes(word)
}

/// Writes the bits of a scalar, where it lies in the memory.
pub(super) fn store(bytes: &mut [u8], offset: usize, scalar: Scalar, bits: u32) {
    let width = usize::from(scalar.width).min(4);
    if let Some(to) = bytes.get_mut(offset..offset.saturating_add(width)) {
        to.iter_mut().zip(bits.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
}
