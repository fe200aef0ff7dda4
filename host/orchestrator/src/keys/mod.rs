//! The keys that encrypt secrets: their source, their file, and their rotation.
//!
//! Not here: the encryption (`exosphere_store`).

pub(crate) mod source;
pub(crate) mod file;
pub(crate) mod rotation;
