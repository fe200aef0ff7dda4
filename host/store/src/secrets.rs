//! Secrets at rest: the keys, the encryption of a secret, the check that a host has the keys of its
//! database, and the reencryption under a new key.

pub(crate) mod keyring;
mod algorithm;
pub(crate) mod secret_cipher;
pub(crate) mod key_check;
pub(crate) mod reencrypt;
pub(crate) mod settings;
