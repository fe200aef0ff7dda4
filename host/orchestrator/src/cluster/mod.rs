//! Cluster membership on a shared database: a heartbeat that renews this host's session
//! and expires dead ones, a listener for other hosts' notifications, and a notifier. A
//! host on SQLite is alone and has none of these; it reclaims the states of its
//! predecessor, as all hosts do (`recovery`).
//!
//! Not here: SQL, and the sweeps that a lost host has begun (`execution::sweeps`).

pub(crate) mod session;
mod heartbeat;
mod listener;
pub(crate) mod notifier;
pub(crate) mod recovery;
pub(crate) mod probe;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::inner::HostInner;
use notifier::Notifier;

/// Starts the heartbeat, the listener and the notifier, if the database is shared. They
/// have one thread of their own, so that no execution or request delays a heartbeat. Work
/// that a heartbeat asks for runs elsewhere, except the start of a new session.
///
/// # Errors
///
/// If the system cannot start a thread.
pub(crate) fn start(inner: &Arc<HostInner>) -> std::io::Result<()> {
    if !inner.db.store.is_shared() {
        return Ok(());
    }
    let guard = inner.lifeline.guard("the heartbeat");
    let (inner, host_runtime) = (inner.clone(), Handle::current());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let membership = async move {
        let all = futures::future::join3(
            heartbeat::run_heartbeat(inner.clone(), host_runtime),
            listener::run_listener(inner.clone()),
            Notifier::run(inner.clone()),
        );
        tokio::select! {
            _ = all => {}
            () = inner.cluster.session.ended() => guard.end(),
        }
    };
    let thread = std::thread::Builder::new().name("heartbeat".into());
    thread.spawn(move || runtime.block_on(membership)).map(drop)
}
