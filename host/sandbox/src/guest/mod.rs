//! One guest: the data of its wasmtime store, and the capabilities that it may import.
//!
//! `state` has the data and the settings of the store, `linker` offers the host
//! functions. Each capability has its own file: `context`, `store`, `secrets`, `log`,
//! `config`, `wasi` and `http`.

pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod secrets;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod wasi;
