//! The trap by which a host function ends the guest.
//!
//! Not here: the failure that it becomes, which is in [`crate::failure`].

use exosphere_domain::journal::StoreError;
use exosphere_domain::limits::Limit;

use super::run_store::Unavailable;

/// The reason why a host function ends the guest. It travels through wasmtime as an error and
/// is found again by its type.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostTrap {
    #[error("limit reached: {0:?}")]
    Limit(Limit),
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Unavailable(Unavailable),
}
