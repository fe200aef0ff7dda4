//! Write the nodes of an Exosphere plugin in Rust.
//!
//! A **node** is a plain function from a type of inputs to a type of outputs.
//! [`export!`] turns one or several of them into a plugin: a WebAssembly
//! component that a host can run in its sandbox. This is a whole one:
//!
//! ```
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! Put it into a library crate with `crate-type = ["cdylib"]` that depends on
//! `exosphere-sdk` and `serde` (the derives need it by name), and compile it by
//! `cargo build --release --target wasm32-wasip2`. The schemas that the host
//! checks graphs and inputs against are derived from the two types.
//!
//! # What a node may return
//!
//! | the function returns | which means |
//! |---|---|
//! | `Ok(Greeting { .. })` | one output |
//! | `Ok(())` | one output without fields |
//! | `Ok(Flow::many(greetings))` | a fanout: each output starts a branch of its own |
//! | `Ok(Flow::none())` | an empty fanout: nothing goes on from here |
//! | `Ok(Flow::prune())` | this branch ends here, which is no failure |
//! | `Ok(Flow::requeue_after(delay))` | the same state runs again after the delay |
//! | `Err(..)`, or `?` on any error | a failure; the retry policy decides what follows |
//! | `Err(Error::permanent("..")) `, or `.permanent()?` | a failure that no other attempt can mend |
//!
//! The first two are for functions that return [`Result<T>`], the others for
//! those that return `Result<Flow<T>>`; see [`Flow`]. On errors see [`Error`].
//!
//! # What a node may call
//!
//! - [`context`]: which run, state and attempt this is.
//! - [`store`]: the run's key-value data, shared by all its states.
//! - [`log`]: lines for the people who read what an attempt did.
//! - [`secrets`]: the secrets that the node declared in [`export!`].
//! - [`config`]: values that the operator granted to the plugin.
//!
//! For requests over HTTP use the crate `wasip2` (`wasip2::http`), or any other
//! client for `wasi:http`. The host makes those that an operator granted to the
//! plugin, and says in the attempt's log what to grant for another:
//! `exosphere grant add PLUGIN --http "GET https://api.example.com/v1/"`.
//!
//! # How to test it
//!
//! The same functions run natively, without a host: see [`testing`].
//!
//! # What this crate is not
//!
//! It knows nothing of graphs, retries and schedules; those are the host's. It
//! adds nothing to the contract in `wit/`, so a plugin may also be written
//! without it, in any language that can make a component.

// What `wit-bindgen` generates names this crate as a plugin does.
#[cfg(target_arch = "wasm32")]
extern crate self as exosphere_sdk;

pub mod config;
pub mod context;
mod error;
mod flow;
mod imports;
pub mod log;
mod node;
mod schema;
pub mod secrets;
pub mod store;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;

pub use error::{Error, Failure, OrPermanent, Result};
pub use flow::{Completion, Flow, Reply};
pub use node::{Handler, Node, Plugin};
pub use {schemars, serde, serde_json};

/// All that a node usually needs, in one line: `use exosphere_sdk::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{
        Error, Flow, OrPermanent, Result, config, context, export, log, secrets, store,
    };
    // The module too, not only the derive: what the derive writes begins with
    // `schemars::`, and so the author's crate need not depend on it.
    pub use crate::schemars::{self, JsonSchema};
    pub use crate::serde::{Deserialize, Serialize};
    pub use crate::serde_json::{Value, json};
}
