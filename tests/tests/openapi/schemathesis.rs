//! Schemathesis over the whole document, on a real host with both databases: requests made from
//! the document, valid and invalid ones, are answered as documented, and never with a 5xx.
//!
//! `cargo xtask test` runs a slice of it, `cargo xtask schemathesis` more. Both install the
//! program and name it in `EXOSPHERE_SCHEMATHESIS`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::both_databases::on_both;
use exosphere_tests::tool::Tool;
use serde_json::{Value, json};

use crate::happy::{ARGUMENTS, World, bulk};

/// The checks of each answer. None asks for a request to be accepted: a graph or a grant must
/// also make sense.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      allow_header_conformance";

/// Requests for each operation, in a slice.
const SLICE_EXAMPLES: &str = "6";

/// The longest time of a slice on one database, in seconds.
const SLICE_SECONDS: &str = "15";

const PROGRAM: Tool = Tool {
    name: "schemathesis",
    variable: "EXOSPHERE_SCHEMATHESIS",
    installed: "target/tools/schemathesis/bin/schemathesis",
};

/// Writes the settings: objects that exist are named more often than chance would.
fn write_settings(folder: &Path, world: &World<'_>) -> Result<()> {
    let (done, failed, begun) = (&world.succeeded, &world.failed, bulk(world)?);
    let values = [
        ("namespace", r#""default", "default""#.to_owned()),
        ("name", r#""echo", "lab", "fail_when""#.to_owned()),
        ("plugin", r#""lab", "lab""#.to_owned()),
        ("run", format!(r#""{}", "{}""#, done.id, failed.id)),
        ("revision", "1, 2".to_owned()),
        ("bulk", format!(r#""{begun}", "{begun}""#)),
        ("state", format!(r#""{}", "{}""#, done.state, failed.state)),
    ];
    let mut text = String::new();
    for (name, values) in &values {
        text += &format!("[dictionaries.{name}]\nvalues = [{values}]\n");
    }
    // Two operations share one path: the check, and the plugin that may have its name.
    text += "[[operations]]\ninclude-path-regex = \"/plugins/(check|.name.)$\"\n";
    text += "checks.allow_header_conformance.enabled = false\n";
    // A longer wait for the end of a run, or a longer stream, would take all the time.
    text += "[parameters]\n\"query.wait_ms\" = 1\n\"query.for_ms\" = 1\n";
    for (name, _) in &values {
        text += &format!("\"path.{name}\" = {{ dictionary = \"{name}\", probability = 0.7 }}\n");
    }
    Ok(std::fs::write(folder.join("schemathesis.toml"), text)?)
}

/// Runs the program on a host.
fn run(program: &Path, host: &Host) -> Result<()> {
    let world = World::of(host)?;
    let folder = tempfile::tempdir()?;
    write_settings(folder.path(), &world)?;
    let mut command = Command::new(program);
    command.current_dir(folder.path()).arg("run").arg(format!("{}/v1/openapi.json", host.url()));
    command.args(["--url", host.url(), "--checks", CHECKS, "--no-color"]);
    let key = json!({"label": "schemathesis", "role": "admin", "payloads": true,
        "requests_per_second": 100_000});
    command.args(["--header", &format!("Authorization: Bearer {}", host.new_key(&key)?)]);
    command.args(["--generation-database", "none", "--continue-on-failure"]);
    match std::env::var("EXOSPHERE_SCHEMATHESIS_SECONDS") {
        Ok(seconds) => {
            command.args(["--phases", "coverage,fuzzing,stateful", "--max-time", &seconds]);
        }
        Err(_) => {
            command.args(["--phases", "fuzzing", "--max-examples", SLICE_EXAMPLES]);
            command.args(["--max-time", SLICE_SECONDS, "--seed", "1"]);
        }
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let health: Value = host.get("//health")?;
    ensure!(health["status"] == "ok", "{health:#}");
    Ok(())
}

#[test]
fn schemathesis_finds_nothing_undocumented() -> Result<()> {
    let Some(program) = PROGRAM.find()? else {
        println!("skipped, because EXOSPHERE_SCHEMATHESIS=skip is set");
        return Ok(());
    };
    on_both("openapi_schemathesis", &ARGUMENTS, |host| run(&program, host))
}
