//! A kernel of one's own, as commands take it: a file of WGSL, and what it is run on.

use std::path::Path;

use crate::bench::arguments::Bound;
use crate::bench::user::User;
use crate::error::{Error, Result};

/// What a file of WGSL is run on.
#[derive(clap::Args)]
pub(super) struct KernelArguments {
    /// A buffer: x=f32[1024,1024]:random; also f16, i32, u32, and zero, one, index or a number
    #[arg(long, value_name = "NAME=TYPE[SIZES]:FILL")]
    bind: Vec<String>,
    /// Its parameters in order, or by name: 1024,0.5 or n=1024,scale=0.5
    #[arg(long, value_name = "NUMBERS", default_value = "", allow_hyphen_values = true)]
    params: String,
    /// Workgroups along x, y and z
    #[arg(long, value_name = "X,Y,Z", default_value = "1", value_delimiter = ',', num_args = 1..=3)]
    grid: Vec<u32>,
    /// The entry point, where there are several
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// A constant of a template
    #[arg(long, value_name = "NAME=VALUE")]
    define: Vec<String>,
}

impl KernelArguments {
    pub(super) fn user(&self, path: &Path) -> Result<User> {
        let (name, text) = User::read(path)?;
        let define = |text: &String| {
            let (name, value) =
                text.split_once('=').ok_or_else(|| Error::argument("--define", format!("expected NAME=VALUE, found \"{text}\"")))?;
            Ok((name.to_string(), value.to_string()))
        };
        let size = |axis: usize| self.grid.get(axis).copied().unwrap_or(1);
        Ok(User {
            text,
            name,
            entry: self.entry.clone(),
            defines: self.define.iter().map(define).collect::<Result<_>>()?,
            bound: self.bind.iter().map(|text| Bound::parse(text)).collect::<Result<_>>()?,
            params: self.params.clone(),
            grid: [size(0), size(1), size(2)],
        })
    }
}
