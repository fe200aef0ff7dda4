//! Recognizes the format of an upload by its first bytes.

use wasmtime::{Engine, Precompiled};

use super::error::AdmissionError;

/// Refuses an upload that is not a component, and says what it is instead.
pub(crate) fn check_format(bytes: &[u8]) -> Result<(), AdmissionError> {
    const WASM: &[u8] = b"\0asm";
    let found = match bytes {
        [] => return Err(AdmissionError::Empty),
        [b'\0', b'a', b's', b'm', version @ ..] => match version {
            [0x0d, 0, 1, 0, ..] => return Ok(()),
            [1, 0, 0, 0, ..] => "a core module",
            [_, _, _, _, ..] => "a component of an unknown version",
            _ => "the first few bytes of a module",
        },
        _ if WASM.starts_with(bytes) => "the first few bytes of a module",
        [0x7f, b'E', b'L', b'F', ..] => match Engine::detect_precompiled(bytes) {
            Some(Precompiled::Module | Precompiled::Component) => "precompiled code",
            None => "a program for this machine (ELF)",
        },
        _ => match std::str::from_utf8(bytes) {
            Ok(text) if text.trim_start().starts_with(['(', ';']) => "WebAssembly text",
            Ok(_) => "text",
            Err(_) => "something else",
        },
    };
    Err(AdmissionError::NotAComponent { found: found.to_owned() })
}
