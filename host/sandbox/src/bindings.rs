//! The Rust bindings of the guest contract, one module for each released version of the
//! WIT package. The rest of the crate maps them to the domain's types.
//!
//! Only the options of the generator are written by hand.

/// `exosphere:node@0.1.0`.
pub(crate) mod v0_1 {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "plugin",
        imports: {
            // Only these two functions may have to wait for a database.
            "exosphere:node/store.get": async | trappable,
            "exosphere:node/store.keys": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}
