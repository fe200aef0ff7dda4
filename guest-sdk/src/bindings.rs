//! The WebAssembly side: the code that `wit-bindgen` generates from `wit/`, and the
//! glue from it to [`Plugin`]. Compiled for WebAssembly only, and only for
//! [`export!`](crate::export!).

// The generated code passes pointers to the host.
#![allow(unsafe_code, missing_docs, unused_qualifications, clippy::all)]

use crate::{Completion, Failure, Plugin};

wit_bindgen::generate!({
    path: "../wit",
    world: "plugin",
    pub_export_macro: true,
    export_macro_name: "export_guest",
    default_bindings_module: "exosphere_sdk::bindings",
    runtime_path: "exosphere_sdk::bindings::wit_bindgen::rt",
});

pub use exports::exosphere::node::guest;
pub use wit_bindgen;

/// Configuration that a plugin reads through WASI instead of the contract. A plugin imports it
/// only if it uses it.
pub(crate) mod config {
    wit_bindgen::generate!({
        inline: "
            package wasi:config@0.2.0-rc.1;

            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }

            world imports {
                import store;
            }
        ",
        world: "imports",
        runtime_path: "exosphere_sdk::bindings::wit_bindgen::rt",
    });

    use wasi::config::store as host;

    // Neither error can occur: the host has the values in memory.
    pub(crate) fn get(key: &str) -> Option<String> {
        host::get(key).ok().flatten()
    }

    pub(crate) fn all() -> Vec<(String, String)> {
        host::get_all().unwrap_or_default()
    }
}

/// Requests over HTTP, from WASI like the configuration.
pub(crate) mod http;

/// The log, with the levels of the SDK.
pub(crate) mod log {
    use super::exosphere::node::log as host;
    use crate::log::Level;

    pub(crate) fn write(level: Level, message: &str) {
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        host::write(level, message);
    }
}

/// Executes a node of a plugin, with the types of the contract.
pub fn execute(
    plugin: &Plugin,
    node: &str,
    inputs: String,
) -> Result<guest::Completion, guest::Failure> {
    match plugin.execute(node, inputs) {
        Ok(Completion::Outputs(outputs)) => Ok(guest::Completion::Outputs(outputs)),
        Ok(Completion::Prune(data)) => Ok(guest::Completion::Prune(data)),
        Ok(Completion::RequeueAfter(millis)) => Ok(guest::Completion::RequeueAfter(millis)),
        Err(Failure { message, retryable, details }) => {
            Err(guest::Failure { message, retryable, details })
        }
    }
}

/// Exports `PLUGIN` of the calling crate as a component.
#[doc(hidden)]
#[macro_export]
macro_rules! __component {
    () => {
        #[allow(unsafe_code)]
        const _: () = {
            struct Component;

            impl $crate::bindings::guest::Guest for Component {
                fn describe() -> String {
                    PLUGIN.describe()
                }

                fn execute(
                    node: String,
                    inputs: String,
                ) -> Result<$crate::bindings::guest::Completion, $crate::bindings::guest::Failure>
                {
                    $crate::bindings::execute(&PLUGIN, &node, inputs)
                }
            }

    $crate::bindings::export_guest!(Component with_types_in $crate::bindings);
        };
    };
}
