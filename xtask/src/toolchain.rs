//! The Rust toolchain that compiles for `wasm32-wasip2`.
//!
//! It is the installed Rust if that has the target, or if rustup can fetch it.
//! Otherwise `debian-toolchain.sh` builds one from Debian's packages, in the folder
//! `.toolchain/`. The result is cached there, and holds as long as the Rust in use is
//! the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::project::Project;

/// The compilation target of plugins.
pub const TARGET: &str = "wasm32-wasip2";

/// A Rust toolchain that compiles for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The compiler, if it is not the one that compiles everything else.
    rustc: Option<PathBuf>,
    /// The folder of its libraries for the target.
    libraries: PathBuf,
    /// A description of the toolchain, for people.
    pub description: String,
}

impl Toolchain {
    /// Makes a cargo call use this toolchain.
    pub fn use_in(&self, cargo: &mut Command) {
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
    }
}

/// The cached toolchain, and the condition under which it holds.
#[derive(Serialize, Deserialize)]
struct Stamp {
    /// The Rust in use at that time, from `rustc -vV`.
    rust: String,
    toolchain: Toolchain,
}

/// Finds or makes a toolchain. `official` tells whether the Rust in use may serve, if
/// need be with rustup's help.
pub fn setup(project: &Project, official: bool) -> Result<Toolchain> {
    let search = Search::begin(project)?;
    let toolchain = match search.earlier(official) {
        Some(toolchain) => toolchain,
        None => {
            let toolchain = search.detect(official)?;
            search.remember(&toolchain)?;
            toolchain
        }
    };
    eprintln!("{TARGET}: {}", toolchain.description);
    Ok(toolchain)
}

struct Search<'a> {
    project: &'a Project,
    folder: PathBuf,
    rust: String,
}

impl<'a> Search<'a> {
    fn begin(project: &'a Project) -> Result<Self> {
        let folder = project.at(".toolchain");
        let rust = command::output(rustc(project).arg("-vV"))?;
        Ok(Search { project, folder, rust })
    }

    /// Returns the cached toolchain, if it is still valid.
    fn earlier(&self, official: bool) -> Option<Toolchain> {
        let text = fs::read_to_string(self.stamp()).ok()?;
        let Stamp { rust, toolchain } = serde_json::from_str(&text).ok()?;
        let wanted = official || toolchain.rustc.is_some();
        let is_installed = toolchain.libraries.is_dir();
        (wanted && is_installed && rust == self.rust).then_some(toolchain)
    }

    fn detect(&self, official: bool) -> Result<Toolchain> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make the folder {}", self.folder.display()))?;
        if official {
            if let Ok(toolchain) = self.try_rustc(None) {
                return Ok(toolchain);
            }
            let mut add = Command::new("rustup");
            add.args(["target", "add", TARGET]).current_dir(self.project.at(""));
            if command::run(&mut add).is_ok()
                && let Ok(toolchain) = self.try_rustc(None)
            {
                return Ok(toolchain);
            }
            eprintln!("rustup has no {TARGET} here; trying Debian's packages");
        }
        self.debian().context(format!(
            "no Rust here compiles for {TARGET}; install Rust by rustup and run \
             `rustup target add {TARGET}`"
        ))
    }

    /// Returns the toolchain of Debian's packages. It is built if it is missing or does
    /// not work (its linkers belong to the Rust in use, which may have been removed).
    fn debian(&self) -> Result<Toolchain> {
        let prefix = self.folder.join("debian");
        let rustc_path = prefix.join("bin/rustc");
        if let Ok(toolchain) = self.try_rustc(Some(&rustc_path)) {
            return Ok(toolchain);
        }
        if !cfg!(target_os = "linux") {
            bail!("only Debian has packages to make one of");
        }
        let sysroot = command::output(rustc(self.project).args(["--print", "sysroot"]))?;
        let mut script = Command::new(self.project.at("xtask/debian-toolchain.sh"));
        script.arg(&prefix).env("RUST_SYSROOT", sysroot.trim());
        script.env("CARGO", self.project.cargo_path());
        command::run(&mut script)?;
        self.try_rustc(Some(&rustc_path))
    }

    /// Compiles a small program to a component, with the compiler at `path` or with the
    /// one in use.
    fn try_rustc(&self, path: Option<&Path>) -> Result<Toolchain> {
        let compiler = || path.map_or_else(|| rustc(self.project), Command::new);
        let component = self.folder.join("smoke.wasm");
        let mut smoke = compiler();
        smoke.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "--target", TARGET]);
        smoke.arg(self.project.at("xtask/smoke.rs")).arg("-o").arg(&component);
        if !command::succeeds(&mut smoke) || !is_component(&component) {
            bail!("`{}` made no component", command::line(&smoke));
        }
        let libraries =
            command::output(compiler().args(["--print", "target-libdir", "--target", TARGET]))?;
        let version = command::output(compiler().arg("--version"))?;
        let origin = if path.is_some() { ", made of Debian's packages" } else { "" };
        Ok(Toolchain {
            rustc: path.map(Path::to_owned),
            libraries: libraries.trim().into(),
            description: format!("{}{origin}", version.trim()),
        })
    }

    fn remember(&self, toolchain: &Toolchain) -> Result<()> {
        let stamp = Stamp { rust: self.rust.clone(), toolchain: toolchain.clone() };
        fs::write(self.stamp(), serde_json::to_vec_pretty(&stamp)?)
            .with_context(|| format!("cannot write {}", self.stamp().display()))
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("found.json")
    }
}

/// Returns a call of the compiler in use, run in the checkout, which pins its version.
fn rustc(project: &Project) -> Command {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(project.at(""));
    rustc
}

/// Returns whether a file begins like a component, which a core module does not.
fn is_component(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\0asm\x0d\0\x01\0"))
}
