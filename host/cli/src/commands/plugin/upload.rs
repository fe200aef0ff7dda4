//! The upload that `plugin push` and `plugin check` share.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Session, cannot_read};
use crate::error::Error;
use crate::sanitize;
use crate::wire::{Capability, Parts};

/// The default size limit of a plugin on a host, in bytes.
const COMMON_BYTES: u64 = 32 * 1024 * 1024;

/// Sends a component to a host.
pub fn upload(
    session: &Session,
    path: &[&str],
    query: &[(&str, Option<String>)],
    file: &Path,
) -> Result<Answer, Error> {
    let opened = File::open(file).map_err(|error| cannot_read(file, &error))?;
    let data = opened.metadata().map_err(|error| cannot_read(file, &error))?;
    if data.is_dir() {
        return Err(cannot_read(file, &ErrorKind::IsADirectory.into()));
    }
    let size = data.len();
    let sent = session.client.call(Method::POST, path).query(query).wasm(opened).send();
    sent.map_err(|error| match error {
        // A host reports this limit itself, but closes the connection on a body that it
        // does not read.
        Error::Unreachable(words) if size > COMMON_BYTES => Error::Failed(format!(
            "{} has {size} bytes; most hosts take {COMMON_BYTES}. Build it with `--release`, `opt-level = \"s\"` and `strip = true`\n{words}",
            file.display()
        )),
        error => error,
    })
}

/// Formats the warnings and capabilities of a plugin.
pub fn remarks(Parts { warnings, capabilities, .. }: &Parts) -> String {
    let mut text = String::new();
    for Capability { import, secret, needs, granted, grant } in capabilities {
        let asks = match (import, secret) {
            (Some(import), _) => format!("it imports {import}"),
            (_, Some(secret)) => format!("it declares the secret {secret}"),
            _ => "it asks for it".to_owned(),
        };
        let standing = match granted {
            true => "granted".to_owned(),
            false => format!("not granted; an operator does it by `{grant}`"),
        };
        text.push_str(&format!("\n\nneeds {needs}: {asks} ({standing})"));
    }
    for warning in warnings {
        text.push_str(&format!("\n\nwarning: {warning}"));
    }
    sanitize::lines(&text)
}
