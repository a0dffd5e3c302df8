//! Python's pickle as far as dictionaries of tensors need it. Nothing is ever called or imported: a
//! call is kept as what it is, and one of anything but [`GLOBALS`] is an error. The opcodes are
//! described in Python's `Lib/pickletools.py`.
//!
//! Objects refer to each other by number, so that a hostile file can nest them as deep as it likes:
//! nothing here recurses, and each byte makes one object at most.

use std::collections::HashMap;

/// What a pickle may name.
const GLOBALS: [&str; 14] = [
    ORDERED_DICT,
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.DoubleStorage",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
];

const ORDERED_DICT: &str = "collections.OrderedDict";

// Opcodes that are no letters.
const PROTO: u8 = 0x80;
const TUPLE1: u8 = 0x85;
const TUPLE3: u8 = 0x87;
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const LONG1: u8 = 0x8a;
const SHORT_TEXT: u8 = 0x8c;
const STACK_GLOBAL: u8 = 0x93;
const MEMOIZE: u8 = 0x94;
const FRAME: u8 = 0x95;

/// Real ones have about 150 bytes a tensor.
const LONGEST: usize = 4 << 20;

/// The place of an object in its pickle.
pub(super) type Id = usize;

/// What a pickle holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object<'a> {
    /// None, floats, bytes, attributes: nothing that is needed of a weights file.
    Other,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// A tuple or list.
    Sequence(Vec<Id>),
    /// Keys and values, in order.
    Dict(Vec<(Id, Id)>),
    /// One of [`GLOBALS`].
    Global(&'static str),
    /// A global with its arguments, which nobody called.
    Call(&'static str, Id),
    /// Something outside of the pickle, by its name there: a storage.
    Outside(Id),
}

/// The objects of one pickle.
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`; also returns what follows it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), String> {
        let shown = bytes.get(..LONGEST).unwrap_or(bytes);
        let mut machine = Machine { rest: shown, ..Default::default() };
        let root = loop {
            if let Some(root) = machine.step()? {
                break root;
            }
        };
        let used = shown.len() - machine.rest.len();
        Ok((Self { objects: machine.objects, root }, bytes.get(used..).unwrap_or_default()))
    }

    /// The object that the pickle is of.
    pub(super) fn root(&self) -> &Object<'a> {
        self.get(self.root)
    }

    /// The object with this number.
    pub(super) fn get(&self, id: Id) -> &Object<'a> {
        self.objects.get(id).unwrap_or(&Object::Other)
    }

    /// The value behind a key of a dictionary.
    pub(super) fn entry(&self, dictionary: &Object, key: &str) -> Option<&Object<'a>> {
        let Object::Dict(entries) = dictionary else { return None };
        let (_, value) = entries.iter().find(|(k, _)| *self.get(*k) == Object::Text(key))?;
        Some(self.get(*value))
    }

    /// All of them, in the order of the file.
    pub(super) fn objects(&self) -> &[Object<'a>] {
        &self.objects
    }
}

/// Python's pickle machine: a stack of stacks, one a mark, and a memo.
#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    marked: Vec<Vec<Id>>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; the root where it was the last.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let [opcode] = self.array()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            PROTO => drop(self.array::<1>()?),
            FRAME => drop(self.array::<8>()?),
            b'(' => self.marked.push(std::mem::take(&mut self.stack)),
            TUPLE1..=TUPLE3 => {
                let first = self.stack.len().checked_sub(usize::from(opcode - TUPLE1) + 1).ok_or_else(broken)?;
                let items = self.stack.split_off(first);
                self.push(Object::Sequence(items));
            }
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Object::Sequence(items));
            }
            b'a' | b'e' => {
                let items = if opcode == b'e' { self.since_mark()? } else { vec![self.pop()?] };
                let Object::Sequence(list) = self.top()? else { return Err(broken()) };
                list.extend(items);
            }
            b's' | b'u' => {
                let items = if opcode == b'u' { self.since_mark()? } else { [self.pop()?, self.pop()?].into_iter().rev().collect() };
                let Object::Dict(entries) = self.top()? else { return Err(broken()) };
                let (pairs, []) = items.as_chunks() else { return Err(broken()) };
                entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let Some(Object::Global(name)) = self.objects.get(function) else { return Err(broken()) };
                let called = if *name == ORDERED_DICT { Object::Dict(Vec::new()) } else { Object::Call(name, arguments) };
                self.push(called);
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Object::Outside(name));
            }
            // An ordered dictionary of weights has attributes: the versions of its modules.
            b'b' => {
                self.pop()?;
                let Object::Dict(_) = self.top()? else {
                    return Err("holds code: it sets the attributes of an object; only plain tensors are read".into());
                };
            }
            b'q' | b'r' => {
                let place = self.place(opcode == b'q')?;
                self.memo.insert(place, *self.stack.last().ok_or_else(broken)?);
            }
            MEMOIZE => drop(self.memo.insert(self.memo.len() as u32, *self.stack.last().ok_or_else(broken)?)),
            b'h' | b'j' => {
                let place = self.place(opcode == b'h')?;
                self.stack.push(*self.memo.get(&place).ok_or_else(broken)?);
            }
            _ => {
                let value = self.value(opcode)?;
                self.push(value);
            }
        }
        Ok(None)
    }

    /// The object that an opcode makes of the bytes behind it.
    fn value(&mut self, opcode: u8) -> Result<Object<'a>, String> {
        Ok(match opcode {
            b'N' => Object::Other,
            TRUE | FALSE => Object::Bool(opcode == TRUE),
            b'K' => Object::Int(u8::from_le_bytes(self.array()?).into()),
            b'M' => Object::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Object::Int(i32::from_le_bytes(self.array()?).into()),
            LONG1 => self.long()?,
            b'G' => {
                self.array::<8>()?;
                Object::Other
            }
            b'X' | SHORT_TEXT => {
                let bytes = self.counted(opcode == SHORT_TEXT)?;
                Object::Text(std::str::from_utf8(bytes).map_err(|_| broken())?)
            }
            b'B' | b'T' | b'C' | b'U' => {
                self.counted(matches!(opcode, b'C' | b'U'))?;
                Object::Other
            }
            b')' | b']' => Object::Sequence(Vec::new()),
            b'}' => Object::Dict(Vec::new()),
            // `i` also calls what it names, and comes to nothing as all of these that are not in
            // the list.
            b'c' | b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                global(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name))?
            }
            STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.objects.get(module), self.objects.get(name)) {
                    (Some(Object::Text(module)), Some(Object::Text(name))) => global(module, name)?,
                    _ => return Err(broken()),
                }
            }
            other => return Err(format!("holds more than plain tensors: its pickle has the opcode {other:#04x}")),
        })
    }

    /// An integer of as many bytes as its first says: numbers beyond 32 bits, and PyTorch's marks.
    fn long(&mut self) -> Result<Object<'a>, String> {
        let [count] = self.array()?;
        let bytes = self.take(count.into())?;
        let fill = if bytes.last().is_some_and(|b| *b > 127) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        // Those beyond 64 bits count nothing.
        let Some(low) = wide.get_mut(..bytes.len()) else { return Ok(Object::Other) };
        low.copy_from_slice(bytes);
        Ok(Object::Int(i64::from_le_bytes(wide)))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(broken)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| broken())
    }

    /// A number of a byte, or of four.
    fn place(&mut self, short: bool) -> Result<u32, String> {
        if short { Ok(u8::from_le_bytes(self.array()?).into()) } else { Ok(u32::from_le_bytes(self.array()?)) }
    }

    /// Bytes behind their count.
    fn counted(&mut self, short: bool) -> Result<&'a [u8], String> {
        let count = self.place(short)?;
        self.take(count as usize)
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let length = self.rest.iter().position(|b| *b == b'\n').ok_or_else(broken)?;
        let line = self.take(length)?;
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(broken)
    }

    fn top(&mut self) -> Result<&mut Object<'a>, String> {
        let id = *self.stack.last().ok_or_else(broken)?;
        self.objects.get_mut(id).ok_or_else(broken)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let below = self.marked.pop().ok_or_else(broken)?;
        Ok(std::mem::replace(&mut self.stack, below))
    }
}

fn broken() -> String {
    format!("is damaged: its pickle ends early, breaks the rules, or has more than {} MiB", LONGEST >> 20)
}

fn global<'a>(module: &str, name: &str) -> Result<Object<'a>, String> {
    let full = format!("{module}.{name}");
    let found = GLOBALS.iter().find(|global| **global == full).ok_or_else(|| {
        let short: String = full.chars().take(100).collect();
        format!("holds code: it calls {short}; only plain tensors are read, and nothing was run")
    })?;
    Ok(Object::Global(found))
}
