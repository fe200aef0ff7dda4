//! What the host offers, by the functions of the contract: in WebAssembly the
//! host's own, else those of the mock host in `testing`.
//!
//! Not here: anything that makes them pleasant to call.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::{
    config,
    exosphere::node::{context, secrets, store},
    log,
};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::imports::{config, context, log, secrets, store};
