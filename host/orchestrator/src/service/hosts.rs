//! The hosts of the database, for operators.
//!
//! Not here: how a host keeps its session (`cluster`).

use exosphere_store::HostView;

use crate::Host;
use crate::error::Error;

impl Host {
    /// Lists the hosts of the database.
    pub async fn hosts(&self) -> Result<Vec<HostView>, Error> {
        Ok(self.inner.db.store.hosts().await?)
    }
}
