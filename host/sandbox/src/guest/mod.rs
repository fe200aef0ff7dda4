//! One guest: the data of its wasmtime store, and the capabilities that it may import.
//!
//! A capability is one file, which knows nothing of the others: `context`, `store`,
//! `secrets`, `log`, `config`, `wasi`, `http`. `state` puts them together into the data
//! of one store and sets its limits. `linker` offers them to the guest: every host
//! function is counted there and handed on to its capability.
//!
//! `trap` is how a host function ends the guest.

pub(crate) mod trap;

pub(crate) mod context;
pub(crate) mod run_store;
pub(crate) mod store;
pub(crate) mod secrets;
pub(crate) mod log;
pub(crate) mod config;
pub(crate) mod wasi;
pub(crate) mod http;

pub(crate) mod state;
pub(crate) mod linker;
