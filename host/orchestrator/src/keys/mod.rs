//! The keys that encrypt secrets: their source, their file, and their rotation.
//!
//! Not here: the encryption, which is the store's business.

pub(crate) mod source;
pub(crate) mod file;
pub(crate) mod rotation;
