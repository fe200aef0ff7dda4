//! `cargo xtask schemathesis`: tests the API against its OpenAPI document with requests that
//! schemathesis makes from it (<https://schemathesis.io>). The program is installed under
//! `target/`, in one version.
//!
//! Not here: the test that starts the hosts and the program (`tests/tests/openapi`).

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build;
use crate::command;
use crate::postgres;
use crate::project::Project;

/// The version of the program. A later one finds other things, so it is chosen with care.
const VERSION: &str = "4.32.5";

/// The packages that decide which requests are made, each in one version.
const PACKAGES: [&str; 3] =
    ["schemathesis==4.32.5", "hypothesis==6.170.17", "jsonschema_rs==0.60.3"];

/// The variable that tells the test where the program is.
pub const PROGRAM_VARIABLE: &str = "EXOSPHERE_SCHEMATHESIS";

/// Tests the whole document, for some seconds on each database.
pub fn run(project: &Project, seconds: u64) -> Result<()> {
    postgres::ensure()?;
    let program = installed(project)?;
    build::plugins(project, &[])?;
    build::host(project)?;
    let mut test = project.cargo();
    test.args(["test", "--workspace", "--test", "openapi", "--", "schemathesis", "--nocapture"]);
    test.env(PROGRAM_VARIABLE, program);
    command::run(test.env("EXOSPHERE_SCHEMATHESIS_SECONDS", seconds.to_string()))
}

/// Returns the program, which is installed if it is missing.
pub fn installed(project: &Project) -> Result<PathBuf> {
    let folder = project.at("target/tools/schemathesis");
    let program = folder.join("bin/schemathesis");
    let version = Command::new(&program).arg("--version").output();
    let is_there = version.is_ok_and(|found| {
        String::from_utf8_lossy(&found.stdout).split_whitespace().any(|word| word == VERSION)
    });
    if is_there {
        return Ok(program);
    }
    println!("schemathesis {VERSION} is not here; installing it into target/tools");
    let help = "schemathesis needs Python 3 with venv, and access to a package index once; \
                `cargo xtask test --without-schemathesis` tests everything else";
    command::run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).context(help)?;
    let mut pip = Command::new(folder.join("bin/pip"));
    command::run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))
        .context(help)?;
    Ok(program)
}
