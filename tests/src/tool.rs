//! Programs of others with which tests check the host. `cargo xtask` installs them below `target/`.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::checkout;

/// A program of others.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The name of the program, and of the task that installs it.
    pub name: &'static str,
    /// The variable that names it; `skip` stands for none.
    pub variable: &'static str,
    /// The path at which `cargo xtask` installs it.
    pub installed: &'static str,
}

impl Tool {
    /// Returns the path of the program, unless the operator of the tests goes without it.
    pub fn find(&self) -> Result<Option<PathBuf>> {
        match std::env::var(self.variable) {
            Ok(word) if word == "skip" => Ok(None),
            Ok(path) => Ok(Some(path.into())),
            Err(_) => {
                let installed = checkout().join(self.installed);
                if !installed.is_file() {
                    bail!(
                        "{name} is not installed: `cargo xtask {name}` installs it; \
                         `{variable}=skip` goes without it",
                        name = self.name,
                        variable = self.variable,
                    );
                }
                Ok(Some(installed))
            }
        }
    }
}
