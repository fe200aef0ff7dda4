//! The host functions of the contract: in WebAssembly the host's own, elsewhere those
//! of the mock host in `testing`.
//!
//! Not here: the public functions over them, each in a module of its own.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::{
    config,
    exosphere::node::{context, secrets, store},
    http, log,
};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::imports::{config, context, http, log, secrets, store};
