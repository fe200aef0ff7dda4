//! The upload that `plugin push` and `plugin check` share.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use exosphere_api_types::Capability;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::{Context, cannot_read};
use crate::error::Error;
use crate::sanitize;

/// The default size limit of a plugin on a host, in bytes.
const DEFAULT_UPLOAD_BYTES: u64 = 32 * 1024 * 1024;

/// Sends a component to a host.
pub fn upload(
    context: &Context,
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
    let sent = context.client.call(Method::POST, path).query(query).wasm(opened).send();
    sent.map_err(|error| match error {
        // A host reports this limit itself, but closes the connection on a body that it
        // does not read.
        Error::Unreachable(message) if size > DEFAULT_UPLOAD_BYTES => Error::Failed(format!(
            "{} has {size} bytes, and the default limit of a host is {DEFAULT_UPLOAD_BYTES}; build it with \
             `--release`, `opt-level = \"s\"` and `strip = true`\n{message}",
            file.display()
        )),
        error => error,
    })
}

/// Formats the warnings and capabilities of a plugin.
pub fn remarks(capabilities: &[Capability], warnings: &[String]) -> String {
    let mut text = String::new();
    for Capability { import, secret, needs, granted, grant } in capabilities {
        let request = match (import, secret) {
            (Some(import), _) => format!("imports {import}"),
            (_, Some(secret)) => format!("declares the secret {secret}"),
            _ => "asks for it".to_owned(),
        };
        let status = if *granted {
            "granted".to_owned()
        } else {
            format!("not granted; an operator grants it by `{grant}`")
        };
        text.push_str(&format!("\n\nneeds {needs}: the plugin {request} ({status})"));
    }
    for warning in warnings {
        text.push_str(&format!("\n\nwarning: {warning}"));
    }
    sanitize::lines(&text)
}
