//! `exosphere:node/secrets`: the secrets that the caller chose to show. Which
//! node may see which is decided before an invocation is made, not here.

use crate::bindings::v0_1::exosphere::node::secrets as wit;
use crate::host::Host;

impl wit::Host for Host {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.secrets.get(&name).cloned())
    }
}
