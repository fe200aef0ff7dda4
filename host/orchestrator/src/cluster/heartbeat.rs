//! The heartbeat: renews this host's session on a shared database, expires dead ones, and
//! has their states reclaimed.
//!
//! Not here: the statement itself (`exosphere_store`), and how states are reclaimed
//! (`recovery`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::SessionId;
use exosphere_store::{Heartbeat, StoreError};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::cluster::recovery;
use crate::execution::committer::WorkHint;
use crate::execution::sweeps;
use crate::inner::HostInner;

/// Interval between heartbeats. A lease (10 s) survives two missed heartbeats, and
/// another host's heartbeat finds a dead host after at most 14 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(4);

/// Interval after a heartbeat that failed.
const FAILED_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Number of heartbeats between two checks for sweeps that no host continues.
const HEARTBEATS_PER_SWEEP_CHECK: u32 = 5;

/// Sends heartbeats until the session closes. Work that takes longer is spawned on
/// `host_runtime`.
pub(super) async fn run_heartbeat(inner: Arc<HostInner>, host_runtime: Handle) {
    let session = &inner.cluster.session;
    let mut next = Instant::now();
    let mut failing = false;
    for count in 0u32.. {
        sleep_until(next).await;
        if session.is_closing() {
            return;
        }
        let started = Instant::now();
        let applied = match inner.db.store.heartbeat(session.current()).await {
            Ok(heartbeat) => apply_heartbeat(&inner, &host_runtime, heartbeat).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &applied
            && !failing
        {
            tracing::warn!(%error, "the heartbeat fails; other hosts may expire this host's session");
            session.reconnect_listener();
        }
        failing = applied.is_err();
        if count % HEARTBEATS_PER_SWEEP_CHECK == 0 && !failing {
            host_runtime.spawn(adopt_sweeps(inner.clone()));
        }
        next = started + if failing { FAILED_HEARTBEAT_INTERVAL } else { HEARTBEAT_INTERVAL };
    }
}

/// Applies the answer of a heartbeat: begins a new session if this one was expired, and
/// starts to reclaim the states of lost ones.
async fn apply_heartbeat(
    inner: &Arc<HostInner>,
    host_runtime: &Handle,
    heartbeat: Heartbeat,
) -> Result<(), StoreError> {
    let Heartbeat { now, alive, next_due, lost, ended } = heartbeat;
    inner.metrics.sessions_lost.fetch_add(ended.len() as u64, Ordering::Relaxed);
    let session = &inner.cluster.session;
    if session.is_closing() {
        return Ok(());
    }
    if !alive {
        let new = inner.db.store.begin_session(&inner.identity(), inner.db.clock.now()).await?;
        tracing::warn!(
            "this host's session was expired; it begins a new one, and the results of its executions are stale"
        );
        session.replace(new);
        inner.pipeline.executor.abort_all();
    }
    for expired in &ended {
        tracing::warn!(session = expired.0, "a host is gone; its states are reclaimed");
        if !lost.contains(expired) {
            inner.traces.resend(*expired, Vec::new());
        }
    }
    if !lost.is_empty() && session.begin_reclaiming() {
        host_runtime.spawn(reclaim(inner.clone(), lost));
    }
    // Those of runs that a host which is gone has started, and what it was carrying out.
    inner.pipeline.deadlines.wake();
    inner.pipeline.bulks.wake();
    let work = next_due.is_some_and(|due| due <= now);
    inner.pipeline.committer.hint(WorkHint { now: Some(now), due: next_due, work });
    Ok(())
}

async fn reclaim(inner: Arc<HostInner>, lost: Vec<SessionId>) {
    // Another host may reclaim the same states; each is reclaimed once. After a failure,
    // the next heartbeat finds the rest.
    if let Err(error) = recovery::reclaim_states(&inner, &lost).await {
        tracing::warn!(%error, "cannot reclaim the states of a lost host yet");
    }
    if let Err(error) = sweeps::resume_sweeps(&inner).await {
        tracing::warn!(%error, "cannot resume the sweeps of a lost host yet");
    }
    inner.cluster.session.end_reclaiming();
}

/// Continues sweeps that no host seems to continue, for example after a host was stopped
/// in the middle of one.
async fn adopt_sweeps(inner: Arc<HostInner>) {
    inner.pipeline.removals.wake();
    inner.pipeline.pauses.wake();
    if let Err(error) = sweeps::adopt_abandoned(&inner).await {
        tracing::debug!(%error, "cannot look for abandoned sweeps yet");
    }
}
