//! A program under way: the commands that a thread records, and what each does to which buffer.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;

use super::command::Command;
use super::pool::{Buffer, Owner};

/// What one command does to one buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Never given to another tensor, although the memory is.
    pub buffer: u64,
    /// How much of it is used, from its start.
    pub bytes: u64,
    /// Whether the program allocated it.
    pub inside: bool,
}

/// A program under way.
pub(crate) struct Recording {
    thread: ThreadId,
    owner: Owner,
    pub commands: Vec<Command>,
    /// How many commands stand before each mark.
    pub marks: Vec<usize>,
    pub uses: Vec<Vec<Use>>,
    /// What is used from outside.
    pub outside: HashMap<u64, Arc<Buffer>>,
}

impl Recording {
    /// Of what this thread records from now on.
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            thread: std::thread::current().id(),
            owner,
            commands: Vec::new(),
            marks: Vec::new(),
            uses: Vec::new(),
            outside: HashMap::new(),
        }
    }

    pub(crate) fn is_of_this_thread(&self) -> bool {
        self.thread == std::thread::current().id()
    }

    /// Adds a command, with the buffers that it uses up to their last byte used.
    pub(crate) fn push<'b>(&mut self, command: Command, buffers: impl Iterator<Item = (&'b Arc<Buffer>, u64)>) {
        self.touch(buffers);
        self.commands.push(command);
    }

    /// Adds what a command uses.
    pub(crate) fn touch<'b>(&mut self, buffers: impl Iterator<Item = (&'b Arc<Buffer>, u64)>) {
        let uses = buffers.map(|(buffer, bytes)| {
            let inside = buffer.owner() == Some(self.owner);
            if !inside {
                self.outside.entry(buffer.id()).or_insert_with(|| buffer.clone());
            }
            Use { buffer: buffer.id(), bytes, inside }
        });
        self.uses.push(uses.collect());
    }
}
