//! `wgrad recipe`: what a recipe says, and what it may say.

use std::path::Path;
use std::process::ExitCode;

use super::output::say;
use crate::error::Result;
use crate::io::atomic::read;
use crate::train::methods::{METHODS, find};
use crate::train::recipe::{Recipe as Contents, present_form};

/// Print a recipe: every key of a method's, or what a file says, in the present form where it is of
/// an earlier version
#[derive(clap::Args)]
pub(super) struct Recipe {
    /// A method, a recipe's file, or a run's directory
    #[arg(value_name = "METHOD|FILE|RUN")]
    of: String,
    /// Change one value, as for `wgrad train`; prints every key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print every key of a file, also those that it leaves to its method
    #[arg(long)]
    full: bool,
}

impl Recipe {
    pub(super) fn run(self) -> Result<ExitCode> {
        let path = Path::new(&self.of);
        let path = if path.is_dir() { path.join("recipe.toml") } else { path.to_path_buf() };
        let method = METHODS.iter().find(|entry| entry.name == self.of);
        // A word that is no file was meant for a method.
        if method.is_none() && !path.exists() && path.extension().is_none() {
            find(&self.of)?;
        }
        let text = if method.is_none() && !self.full && self.set.is_empty() {
            present_form(&String::from_utf8_lossy(&read(&path)?), &path.display().to_string())?
        } else {
            let mut recipe = if method.is_some() { Contents::defaults(&self.of) } else { Contents::read(&path)? };
            recipe.set_all(self.set.iter().map(String::as_str))?;
            recipe.check()?;
            recipe.to_toml()?
        };
        say(text)?;
        Ok(ExitCode::SUCCESS)
    }
}
