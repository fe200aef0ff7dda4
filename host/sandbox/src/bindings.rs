//! The contract with guests, as Rust. One module a released version of the
//! WIT package; the rest of the crate maps it to the domain's types.
//!
//! Nothing here is written by hand but the options.

/// `exosphere:node@0.1.0`.
pub(crate) mod v0_1 {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "plugin",
        imports: {
            // Only these two may have to wait for a database.
            "exosphere:node/store.get": async | trappable,
            "exosphere:node/store.keys": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}
