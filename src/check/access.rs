//! What invocations read and write, and what they race with.

use naga::{AddressSpace, Expression, Handle, Scalar, Span};

use super::machine::{Machine, Mask, Memory};
use super::memory::{Access, load, store};
use super::report::FindingKind;
use super::value::{Column, Root, shown};
use crate::error::Result;

impl Machine<'_> {
    /// What an access is of now.
    fn access(&self, lane: usize, space: usize, span: Span, value: u32, atomic: bool) -> Access {
        let epoch = self.epochs.get(space).copied().unwrap_or(0);
        Access { group: self.group_number, lane: lane as u32, epoch, span, value, atomic }
    }

    /// Which epochs a global variable has: those of workgroup memory, or of buffers.
    fn space(&self, index: usize) -> usize {
        let variable = self.source.module.global_variables.iter().nth(index);
        usize::from(variable.is_none_or(|(_, variable)| variable.space != AddressSpace::WorkGroup))
    }

    pub fn who(&self, access: &Access) -> String {
        format!("invocation {} of workgroup {}", access.lane, access.group)
    }

    /// Reads what pointers lead to.
    pub fn read(&mut self, pointer: Handle<Expression>, span: Span, active: &Mask, atomic: bool) -> Result<Column> {
        let pointee = self.pointee(pointer)?;
        let leaves = self.leaves(&pointee)?;
        let Column::Pointer { root, offsets } = self.value(pointer)? else { return Err(self.unknown("such pointers")) };
        let mut found = Column::zeros(leaves.len(), self.lanes);
        for (lane, offset) in offsets.iter().enumerate() {
            let (true, Some(offset)) = (active.get(lane).copied().unwrap_or(false), offset) else { continue };
            let values: Vec<u32> = leaves.iter().map(|(leaf, scalar)| self.load(root, lane, offset + leaf, *scalar)).collect();
            if let Root::Global(index) = root
                && matches!(self.globals.get(index), Some(Memory::Shared(_)))
            {
                let space = self.space(index);
                for ((leaf, scalar), value) in leaves.iter().zip(&values) {
                    let access = self.access(lane, space, span, *value, atomic);
                    let Some(Memory::Shared(shared)) = self.globals.get_mut(index) else { continue };
                    let (race, written) = shared.note_read(offset + leaf, access);
                    if let Some(write) = race {
                        self.race(&access, &write, false, index, offset + leaf, *scalar);
                    }
                    if !written {
                        let name = self.global_name(index);
                        self.find(
                            FindingKind::Uninitialized,
                            || format!("{name} is read where no invocation has written it, by invocation {lane}"),
                            &[span],
                        );
                    }
                }
            }
            found.set(lane, &values);
        }
        Ok(found)
    }

    /// Writes through pointers.
    pub fn write(&mut self, pointer: Handle<Expression>, value: &Column, span: Span, active: &Mask, atomic: bool) -> Result<()> {
        let pointee = self.pointee(pointer)?;
        let leaves = self.leaves(&pointee)?;
        let Column::Pointer { root, offsets } = self.value(pointer)? else { return Err(self.unknown("such pointers")) };
        for (lane, offset) in offsets.iter().enumerate() {
            let (true, Some(offset)) = (active.get(lane).copied().unwrap_or(false), offset) else { continue };
            for ((leaf, scalar), bits) in leaves.iter().zip(value.lane(lane)) {
                self.store(root, lane, offset + leaf, *scalar, *bits, span, atomic);
            }
        }
        Ok(())
    }

    fn load(&self, root: Root, lane: usize, offset: u32, scalar: Scalar) -> u32 {
        match root {
            Root::Local(index) => self.locals.get(index).map_or(0, |own| load(&own.bytes, lane * own.size + offset as usize, scalar)),
            Root::Global(index) => match self.globals.get(index) {
                Some(Memory::Shared(shared)) => load(&shared.bytes, offset as usize, scalar),
                Some(Memory::Own(own)) => load(&own.bytes, lane * own.size + offset as usize, scalar),
                Some(Memory::Constant(bytes)) => load(bytes, offset as usize, scalar),
                None => 0,
            },
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn store(&mut self, root: Root, lane: usize, offset: u32, scalar: Scalar, bits: u32, span: Span, atomic: bool) {
        let at = offset as usize;
        match root {
            Root::Local(index) => {
                if let Some(own) = self.locals.get_mut(index) {
                    store(&mut own.bytes, lane * own.size + at, scalar, bits);
                }
            }
            Root::Global(index) => {
                let access = self.access(lane, self.space(index), span, bits, atomic);
                let mut race = None;
                match self.globals.get_mut(index) {
                    Some(Memory::Shared(shared)) => {
                        race = shared.note_write(offset, access);
                        store(&mut shared.bytes, at, scalar, bits);
                    }
                    Some(Memory::Own(own)) => store(&mut own.bytes, lane * own.size + at, scalar, bits),
                    _ => {}
                }
                if let Some((other, write)) = race {
                    self.race(&access, &other, write, index, offset, scalar);
                }
            }
        }
    }

    fn race(&mut self, access: &Access, other: &Access, both_write: bool, index: usize, offset: u32, scalar: Scalar) {
        let name = self.global_name(index);
        let [own, others] = [access, other].map(|access| (self.who(access), shown(scalar, access.value)));
        let kind = if both_write && access.value == other.value { FindingKind::EqualWrites } else { FindingKind::Race };
        let message =
            move || format!("byte {offset} of {name}: {} ({}) and {} ({}), with nothing between them", own.0, own.1, others.0, others.1);
        self.find(kind, message, &[access.span, other.span]);
    }

    pub fn global_name(&self, index: usize) -> String {
        let variable = self.source.module.global_variables.iter().nth(index);
        variable.and_then(|(_, variable)| variable.name.clone()).unwrap_or_default()
    }
}
