//! `wasi:config/store`: the configuration values that the operator granted. Without a
//! grant there are none.

use std::sync::Arc;

use exosphere_domain::grant::Grants;
use wasmtime::component::Linker;
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

use crate::guest::state::Host;

/// The configuration of one guest.
pub(crate) struct Config {
    grants: Arc<Grants>,
    // Made when first needed: most guests never read their configuration.
    values: Option<WasiConfigVariables>,
}

impl Config {
    pub(crate) fn new(grants: &Arc<Grants>) -> Config {
        Config { grants: Arc::clone(grants), values: None }
    }
}

/// Links the interface.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi_config::add_to_linker(linker, |host: &mut Host| {
        // As for WASI: the next tick notices too many calls.
        host.host_calls = host.host_calls.saturating_add(1);
        let Config { grants, values } = &mut host.config;
        let values = values.get_or_insert_with(|| {
            grants.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        });
        WasiConfig::from(&*values)
    })
}
