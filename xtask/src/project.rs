//! Where things are: the checkout, its folders, and the cargo in use.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The checkout that this program was started in.
pub struct Project {
    root: PathBuf,
    cargo: PathBuf,
}

impl Project {
    /// The checkout, as cargo tells it.
    pub fn find() -> Result<Self> {
        // Cargo says where the crate is now; the checkout may have been moved
        // since this program was compiled.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let manifest = manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = manifest.parent().context("xtask/ lies in no checkout")?.to_owned();
        let cargo = env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
        Ok(Project { root, cargo })
    }

    /// A path in the checkout.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// The cargo that runs us.
    pub fn cargo_path(&self) -> &Path {
        &self.cargo
    }

    /// A call of cargo on the host's workspace.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(&self.root);
        cargo
    }

    /// A call of cargo on the plugins' workspace. Its target folder is always
    /// its own, so that everyone knows where the components are.
    pub fn plugins_cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(self.at("plugins")).arg(subcommand);
        cargo.arg("--target-dir").arg(self.at("plugins/target"));
        cargo
    }
}
