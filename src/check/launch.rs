//! A launch: global variables, and one workgroup after the other.

use std::collections::HashMap;

use naga::{AddressSpace, Scalar, TypeInner};

use super::machine::{Machine, Memory, Own};
use super::memory::{Shared, store};
use super::report::Report;
use super::value::leaves;
use super::{Contents, Options};
use crate::error::{Error, Result};
use crate::gpu::Param;
use crate::gpu::source::Source;

/// The largest grid times workgroup that is run.
const MOST_INVOCATIONS: u64 = 1 << 22;
/// Invocations of the largest workgroup.
const MOST_LANES: u64 = 1024;
/// Bytes of the largest variable, which each invocation may have for itself.
const MOST_BYTES: usize = 256 << 10;
/// Bytes of the largest buffer: what is known of each place takes many times that.
const MOST_BUFFER: usize = 16 << 20;

impl<'s> Machine<'s> {
    pub fn new(
        source: &'s Source,
        entry: &str,
        buffers: Vec<Contents>,
        params: &[Param],
        grid: [u32; 3],
        options: Options,
    ) -> Result<Self> {
        let module = &source.module;
        let entry = module.entry_points.iter().position(|point| point.name == entry).unwrap_or(0);
        let size = module.entry_points.get(entry).map_or([1; 3], |entry| entry.workgroup_size);
        let all = |sides: [u32; 3]| sides.iter().fold(1u64, |all, side| all.saturating_mul(u64::from(*side)));
        let (lanes, invocations) = (all(size), all(grid).saturating_mul(all(size)));
        if lanes > MOST_LANES {
            let message = format!("a workgroup of {lanes} invocations cannot be checked: expected at most {MOST_LANES}");
            return Err(Error::shader(source.name(), message));
        }
        let lanes = lanes as usize;
        if invocations > MOST_INVOCATIONS {
            let message = format!("expected at most {MOST_INVOCATIONS} invocations, found {invocations}: check a smaller grid");
            return Err(Error::argument("grid", message));
        }
        let mut machine = Self {
            source,
            options,
            entry,
            grid,
            size,
            lanes,
            group: [0; 3],
            group_number: 0,
            epochs: [0; 2],
            globals: Vec::new(),
            locals: Vec::new(),
            frames: Vec::new(),
            rounds: vec![0; lanes],
            most_rounds: 0,
            findings: Vec::new(),
            seen: HashMap::new(),
            buffers: Vec::new(),
        };
        machine.bind(buffers, params)?;
        Ok(machine)
    }

    /// Gives each global variable its bytes.
    fn bind(&mut self, buffers: Vec<Contents>, params: &[Param]) -> Result<()> {
        let module = &self.source.module;
        let mut given: HashMap<String, Vec<u8>> = buffers.into_iter().map(|buffer| (buffer.name, buffer.bytes)).collect();
        for (handle, variable) in module.global_variables.iter() {
            let name = variable.name.clone().unwrap_or_default();
            let inner = &module.types[variable.ty].inner;
            let memory = match variable.space {
                AddressSpace::Storage { .. } => {
                    let bytes = given.remove(&name).ok_or_else(|| Error::argument("bind", format!("the buffer {name} is missing")))?;
                    if bytes.len() > MOST_BUFFER {
                        let message = format!("{name}: expected at most {MOST_BUFFER} bytes, found {}: check a smaller size", bytes.len());
                        return Err(Error::argument("bind", message));
                    }
                    self.buffers.push((name, handle.index()));
                    Memory::Shared(Shared::new(bytes, true))
                }
                AddressSpace::WorkGroup => Memory::Shared(Shared::new(Vec::new(), false)),
                AddressSpace::Private => Memory::Own(Own { bytes: Vec::new(), size: self.bytes_of(inner)? }),
                AddressSpace::Uniform | AddressSpace::Immediate => {
                    let groups = self.grid.iter().product::<u32>();
                    let words = params.iter().map(Param::bits);
                    let mut bytes: Vec<u8> = std::iter::once(groups).chain(words).flat_map(u32::to_le_bytes).collect();
                    bytes.resize(self.bytes_of(inner)?, 0);
                    Memory::Constant(bytes)
                }
                _ => return Err(self.unknown(&format!("{name}: textures and samplers"))),
            };
            self.globals.push(memory);
        }
        given.keys().min().map_or(Ok(()), |name| Err(Error::argument("bind", format!("the kernel has no buffer {name}"))))
    }

    /// An error for what is not interpreted.
    pub fn unknown(&self, what: &str) -> Error {
        Error::shader(self.source.name(), format!("{what} cannot be checked: the interpreter does not know them"))
    }

    pub fn bytes_of(&self, inner: &TypeInner) -> Result<usize> {
        let module = &self.source.module;
        let size = inner.try_size(module.to_ctx()).map(|size| size as usize).ok_or_else(|| self.unknown("types without a size"))?;
        if size <= MOST_BYTES {
            return Ok(size);
        }
        let message = format!("a variable of {size} bytes cannot be checked: expected at most {MOST_BYTES}");
        Err(Error::shader(self.source.name(), message))
    }

    /// Where the scalars of a type lie.
    pub fn leaves(&self, inner: &TypeInner) -> Result<Vec<(u32, Scalar)>> {
        self.bytes_of(inner)?;
        let found = leaves(&self.source.module, inner).filter(|found| found.iter().all(|(_, scalar)| scalar.width <= 4));
        found.ok_or_else(|| self.unknown("64-bit numbers, and values without a size,"))
    }

    pub fn run(mut self) -> Result<Report> {
        let [x, y, z] = self.grid;
        for group in (0..z).flat_map(|k| (0..y).flat_map(move |j| (0..x).map(move |i| [i, j, k]))) {
            self.run_group(group)?;
            self.group_number += 1;
        }
        let bytes = |index: &usize| match self.globals.get(*index) {
            Some(Memory::Shared(shared)) => shared.bytes.clone(),
            _ => Vec::new(),
        };
        let buffers = self.buffers.iter().map(|(name, index)| (name.clone(), bytes(index))).collect();
        let invocations = u64::from(self.group_number) * self.lanes as u64;
        Ok(Report { findings: self.findings, rounds: self.most_rounds, invocations, buffers })
    }

    fn run_group(&mut self, group: [u32; 3]) -> Result<()> {
        let module = &self.source.module;
        (self.group, self.epochs, self.rounds) = (group, [0; 2], vec![0; self.lanes]);
        for (handle, variable) in module.global_variables.iter() {
            let inner = &module.types[variable.ty].inner;
            let fresh = match variable.space {
                AddressSpace::WorkGroup => Some(Memory::Shared(Shared::new(vec![0; self.bytes_of(inner)?], false))),
                AddressSpace::Private => {
                    let size = self.bytes_of(inner)?;
                    let mut own = Own { bytes: vec![0; size * self.lanes], size };
                    if let Some(init) = variable.init {
                        let value = self.constant(&module.global_expressions, init)?;
                        self.fill(&mut own, inner, &value)?;
                    }
                    Some(Memory::Own(own))
                }
                _ => None,
            };
            if let (Some(fresh), Some(slot)) = (fresh, self.globals.get_mut(handle.index())) {
                *slot = fresh;
            }
        }
        let Some(entry) = module.entry_points.get(self.entry) else { return Ok(()) };
        let info = self.source.info.get_entry_point(self.entry);
        let arguments = entry.function.arguments.iter().map(|argument| self.argument(argument)).collect::<Result<Vec<_>>>()?;
        self.call(&entry.function, info, arguments, &vec![true; self.lanes])?;
        self.most_rounds = self.rounds.iter().copied().max().unwrap_or(0).max(self.most_rounds);
        Ok(())
    }

    /// Writes a value into each invocation's own variable.
    fn fill(&self, own: &mut Own, inner: &TypeInner, value: &[u32]) -> Result<()> {
        for lane in 0..self.lanes {
            for ((offset, scalar), bits) in self.leaves(inner)?.into_iter().zip(value) {
                store(&mut own.bytes, lane * own.size + offset as usize, scalar, *bits);
            }
        }
        Ok(())
    }
}
