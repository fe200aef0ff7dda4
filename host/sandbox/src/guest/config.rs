//! The configuration values that the operator granted. Without a grant there are none.

use std::sync::Arc;

use exosphere_domain::grant::Grants;
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

/// The configuration of one guest.
pub(crate) struct Config {
    grants: Arc<Grants>,
    // Made on the first use, because most guests never read their configuration.
    values: Option<WasiConfigVariables>,
}

impl Config {
    pub(crate) fn new(grants: &Arc<Grants>) -> Config {
        Config { grants: Arc::clone(grants), values: None }
    }

    /// Returns the values as the engine's functions read them.
    pub(super) fn view(&mut self) -> WasiConfig<'_> {
        let Config { grants, values } = self;
        let values = values.get_or_insert_with(|| {
            grants.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        });
        WasiConfig::from(&*values)
    }
}
