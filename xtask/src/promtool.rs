//! `cargo xtask promtool`: installs promtool, the program of Prometheus that checks metrics and
//! alert rules, below `target/`. It comes from Debian's package, which is unpacked and not
//! installed, so that this needs no root.
//!
//! Not here: the tests that run it (`tests/tests/metrics`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::project::Project;

/// The package that has the program.
const PACKAGE: &str = "prometheus";

/// The variable that tells the tests where the program is.
pub const PROGRAM_VARIABLE: &str = "EXOSPHERE_PROMTOOL";

/// Returns the program, which is unpacked if it is missing.
pub fn installed(project: &Project) -> Result<PathBuf> {
    let folder = project.at("target/tools/prometheus");
    let program = folder.join("usr/bin/promtool");
    if command::succeeds(Command::new(&program).arg("--version")) {
        return Ok(program);
    }
    println!("promtool is not here; unpacking Debian's package {PACKAGE} into target/tools");
    let help = "promtool needs Debian's package prometheus (apt-get and dpkg-deb); \
                `cargo xtask test --without-promtool` tests everything else, and a promtool from \
                elsewhere can be named in EXOSPHERE_PROMTOOL";
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let download = tempfile::tempdir()?;
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet", "download", PACKAGE]).current_dir(download.path());
    command::run(&mut apt).context(help)?;
    let mut packages = fs::read_dir(download.path())?.flatten().map(|entry| entry.path());
    let package = packages.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let Some(package) = package else { bail!("apt-get has downloaded no package; {help}") };
    command::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&folder))
        .context(help)?;
    Ok(program)
}
