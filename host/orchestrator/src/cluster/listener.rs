//! The listener: applies the notifications of other hosts here. They may be lost, so
//! after a gap the status of every run that matters here is read again.
//!
//! Not here: the connection to the database (`exosphere_store`).

use std::sync::Arc;

use exosphere_store::{ListenerEvent, RunUpdate};

use crate::execution::committer::WorkHint;
use crate::inner::{HostInner, Pipeline};

/// Listens for as long as the host lives.
pub(super) async fn run_listener(inner: Arc<HostInner>) {
    let Some(mut listener) = inner.db.store.listener() else { return };
    let session = &inner.cluster.session;
    let work_hint = || WorkHint { work: true, ..WorkHint::default() };
    loop {
        let event = tokio::select! {
            event = listener.next() => event,
            () = session.must_reconnect() => {
                listener.reset();
                continue;
            }
        };
        match event {
            ListenerEvent::Received(sent) if sent.from == session.current().0 => {}
            ListenerEvent::Received(notification) => {
                if notification.keys {
                    inner.caches.api_keys.expire();
                }
                if notification.work {
                    inner.pipeline.committer.hint(work_hint());
                }
                on_runs_changed(&inner.pipeline, &notification.run_updates());
            }
            ListenerEvent::Lagged => {
                inner.caches.api_keys.expire();
                inner.pipeline.committer.hint(work_hint());
                resync_runs(&inner).await;
            }
        }
    }
}

/// Applies status changes of runs that other hosts made.
fn on_runs_changed(pipeline: &Pipeline, runs: &[RunUpdate]) {
    pipeline.committer.on_runs_changed(runs);
    pipeline.executor.on_runs_changed(runs);
    pipeline.watchers.publish(runs, Vec::new());
}

/// Reads the status of every run that is executed or watched here, since notifications
/// may have been lost.
async fn resync_runs(inner: &HostInner) {
    let mut runs = inner.pipeline.executor.runs();
    runs.extend(inner.pipeline.watchers.runs());
    if runs.is_empty() {
        return;
    }
    match inner.db.store.run_statuses(&runs).await {
        Ok(found) => on_runs_changed(&inner.pipeline, &found),
        Err(error) => tracing::debug!(%error, "cannot read what other hosts have changed"),
    }
}
