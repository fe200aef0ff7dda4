//! Hand-written guests: puts functions into `tests/hostile/frame.wat`, which has everything
//! else that a plugin needs.

use anyhow::{Context, Result, ensure};

const FRAME: &str = include_str!("../hostile/frame.wat");

/// Changes to the frame.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Functions of the frame's module.
    pub functions: &'a str,
    /// Text of the component before its module.
    pub component: &'a str,
    /// The guest's description; by default one with a node `attack`.
    pub description: Option<&'a [u8]>,
    /// Replacements of texts that occur once in the frame.
    pub edits: &'a [(String, String)],
}

/// Address of the description; memory before it is the guest's.
const DESCRIPTION_AT: usize = 32 * 1024;

const PAGE_BYTES: usize = 64 * 1024;

const DESCRIPTION: &str =
    r#"{"nodes":[{"name":"attack","inputs":{"type":"object"},"outputs":{"type":"object"}}]}"#;

/// Builds the component of a guest.
pub fn component(changes: &Changes<'_>) -> Result<Vec<u8>> {
    let text = text(changes)?;
    wat::parse_str(&text).context("the guest is not valid WebAssembly text")
}

fn text(changes: &Changes<'_>) -> Result<String> {
    let mut text = FRAME.to_owned();
    for (from, to) in changes.edits {
        ensure!(
            text.matches(from).count() == 1,
            "{from:?} does not occur exactly once in the frame"
        );
        text = text.replace(from, to);
    }
    let description = changes.description.unwrap_or(DESCRIPTION.as_bytes());
    let heap = (DESCRIPTION_AT + description.len()).next_multiple_of(PAGE_BYTES);
    let length = u32::try_from(description.len())?;
    for (placeholder, filling) in [
        ("@pages@", (heap / PAGE_BYTES + 1).to_string()),
        ("@heap@", heap.to_string()),
        ("@length@", escaped(&length.to_le_bytes())),
        ("@description@", escaped(description)),
        ("@component@", changes.component.to_owned()),
        ("@functions@", functions(changes.functions)),
    ] {
        text = text.replace(placeholder, &filling);
    }
    Ok(text)
}

/// Returns the guest's functions, and default ones for missing exports.
fn functions(functions_text: &str) -> String {
    let mut all = functions_text.to_owned();
    if !functions_text.contains(r#"(export "describe")"#) {
        all += r#"(func (export "describe") (result i32) (i32.const 32))"#;
    }
    if !functions_text.contains(r#"(export "execute")"#) {
        all += r#"(func (export "execute") (param i32 i32 i32 i32) (result i32)
            (call $return (i32.const 16) (i32.const 2)))"#;
    }
    all
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}
