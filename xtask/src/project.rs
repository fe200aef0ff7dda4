//! Paths of the project: the checkout, its folders, and the cargo in use.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The checkout in which this program was started.
pub struct Project {
    root: PathBuf,
    cargo: PathBuf,
}

impl Project {
    /// Finds the checkout, from cargo's environment.
    pub fn find() -> Result<Self> {
        // Cargo sets the crate's current folder; the checkout may have been moved since
        // this program was compiled.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let manifest = manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = manifest.parent().context("xtask/ lies in no checkout")?.to_owned();
        let cargo = env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
        Ok(Project { root, cargo })
    }

    /// Returns a path in the checkout.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Returns the path of the cargo that runs this program.
    pub fn cargo_path(&self) -> &Path {
        &self.cargo
    }

    /// Returns a cargo call on the host's workspace.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(&self.root);
        cargo
    }

    /// Returns a cargo call on the plugins' workspace. Its target folder is fixed, so
    /// that every task finds the components.
    pub fn plugins_cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(self.at("plugins")).arg(subcommand);
        cargo.arg("--target-dir").arg(self.at("plugins/target"));
        cargo
    }
}
