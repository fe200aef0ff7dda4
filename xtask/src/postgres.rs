//! Makes Postgres available for the tests and the benchmarks. They start clusters of
//! their own, so its programs must be installed, but no server need be running.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// The folder in which Debian installs each version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// Ensures that Postgres is installed, from Debian's packages if necessary and allowed.
pub fn ensure() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    let root = command::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let apt = command::succeeds(Command::new("apt-get").arg("--version"));
    if !(root && apt) {
        bail!(
            "the tests need the programs of PostgreSQL 13 or later (initdb, postgres), and they \
             are not here; on Debian and Ubuntu: sudo apt-get install postgresql"
        );
    }
    println!("installing PostgreSQL from Debian's packages");
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["--quiet", "--yes", "--no-install-recommends"]).args(arguments);
        command::run(apt.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update"])?;
    apt(&["install", "postgresql", "postgresql-client"])
}

fn is_there() -> bool {
    let debian = || {
        let versions = std::fs::read_dir(DEBIAN_FOLDER).into_iter().flatten().flatten();
        versions.map(|version| version.path()).any(|version| version.join("bin/initdb").is_file())
    };
    let configured = || {
        let folder = command::output(Command::new("pg_config").arg("--bindir")).ok();
        folder.is_some_and(|folder| Path::new(folder.trim()).join("initdb").is_file())
    };
    let on_path = || command::succeeds(Command::new("initdb").arg("--version"));
    debian() || on_path() || configured()
}
