//! Cluster membership on a shared database: a heartbeat that renews this host's session
//! and expires dead ones, and a listener for other hosts' notifications. A host on SQLite
//! is alone and has neither.
//!
//! All of it, and the notifier, runs on one thread of its own, so that no execution or
//! request delays a heartbeat. Work that a heartbeat asks for runs elsewhere, except the
//! start of a new session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::SessionId;
use exosphere_store::{Beat, ListenerEvent, StoreError, Touched};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::Parts;
use crate::cluster::notifier::Notifier;
use crate::cluster::recovery;
use crate::execution::committer::WorkHint;
use crate::execution::sweeps;

/// Interval between heartbeats. A lease (10 s) survives two missed heartbeats, and
/// another host's heartbeat finds a dead host after at most 14 s.
const BEAT: Duration = Duration::from_secs(4);

/// Interval after a heartbeat that failed.
const FAILED_BEAT: Duration = Duration::from_secs(1);

/// Heartbeats between two checks for sweeps that no host continues.
const BEATS_PER_SWEEP_CHECK: u32 = 5;

/// The current session of this host. Another host may expire it if this host was frozen
/// for longer than the lease; this host then begins a new one.
pub(crate) struct Session {
    current: AtomicI64,
    /// Set while states of expired sessions are being reclaimed.
    busy: AtomicBool,
    /// Signals that the LISTEN connection must be reopened.
    deaf: Notify,
    /// Set when the host ends the session itself; no heartbeat follows.
    closing: AtomicBool,
    /// Signals that the host has ended the session.
    ended: Notify,
}

impl Session {
    pub(crate) fn new(session: SessionId) -> Self {
        Session {
            current: AtomicI64::new(session.0),
            busy: AtomicBool::new(false),
            deaf: Notify::new(),
            closing: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Stops the heartbeat, since the host is about to end the session.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Ends the thread of the heartbeat; the host has sent its last notification.
    pub(crate) fn end(&self) {
        self.ended.notify_one();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn current(&self) -> SessionId {
        SessionId(self.current.load(Ordering::Relaxed))
    }
}

/// Starts the heartbeat, the listener and the notifier, if the database is shared.
///
/// # Errors
///
/// If the system cannot start a thread.
pub(crate) fn start(parts: &Arc<Parts>) -> std::io::Result<()> {
    if !parts.store.is_shared() {
        return Ok(());
    }
    let guard = parts.lifeline.guard("the heartbeat");
    let (parts, host) = (parts.clone(), Handle::current());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let company = async move {
        let all = futures::future::join3(
            beat(parts.clone(), host),
            listen(parts.clone()),
            Notifier::run(parts.clone()),
        );
        tokio::select! {
            _ = all => {}
            () = parts.session.ended.notified() => guard.end(),
        }
    };
    let thread = std::thread::Builder::new().name("heartbeat".into());
    thread.spawn(move || runtime.block_on(company)).map(drop)
}

/// Sends heartbeats until the session closes. Work that takes longer is spawned on the
/// runtime `host`.
async fn beat(parts: Arc<Parts>, host: Handle) {
    let mut next = Instant::now();
    let mut failing = false;
    for beats in 0u32.. {
        sleep_until(next).await;
        if parts.session.is_closing() {
            return;
        }
        let begun = Instant::now();
        let beaten = parts.store.beat(parts.session.current()).await;
        let beaten = match beaten {
            Ok(beat) => heed(&parts, &host, beat).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &beaten
            && !failing
        {
            tracing::warn!(%error, "the beat of this host fails; others may take it for dead");
            parts.session.deaf.notify_one();
        }
        failing = beaten.is_err();
        if beats % BEATS_PER_SWEEP_CHECK == 0 && !failing {
            host.spawn(adopt_sweeps(parts.clone()));
        }
        next = begun + if failing { FAILED_BEAT } else { BEAT };
    }
}

/// Applies the answer of a heartbeat: begins a new session if this one was expired, and
/// starts to reclaim the states of lost ones.
async fn heed(parts: &Arc<Parts>, host: &Handle, beat: Beat) -> Result<(), StoreError> {
    let Beat { now, alive, next_due, lost, ended } = beat;
    if parts.session.is_closing() {
        return Ok(());
    }
    if !alive {
        let session = parts.store.begin_session(parts.host(), parts.clock.now()).await?;
        tracing::warn!(
            "this host was taken for dead; it goes on, and what it was executing counts no more"
        );
        parts.session.current.store(session.0, Ordering::Relaxed);
        parts.executor.abort_all();
    }
    for session in &ended {
        tracing::warn!(session = session.0, "a host is gone; its states are taken back");
    }
    if !lost.is_empty() && !parts.session.busy.swap(true, Ordering::Relaxed) {
        host.spawn(take_back(parts.clone(), lost));
    }
    let work = next_due.is_some_and(|due| due <= now);
    parts.committer.look(WorkHint { now: Some(now), due: next_due, work });
    Ok(())
}

async fn take_back(parts: Arc<Parts>, lost: Vec<SessionId>) {
    // Another host may reclaim the same states; each is taken back once. After a failure,
    // the next heartbeat finds the rest.
    if let Err(error) = recovery::take_back(&parts, &lost).await {
        tracing::warn!(%error, "cannot take back the states of a lost host yet");
    }
    if let Err(error) = sweeps::go_on(&parts).await {
        tracing::warn!(%error, "cannot go on with the sweeps of a lost host yet");
    }
    parts.session.busy.store(false, Ordering::Relaxed);
}

/// Continues sweeps that no host seems to continue, for example after a host was stopped
/// in the middle of one.
async fn adopt_sweeps(parts: Arc<Parts>) {
    if let Err(error) = sweeps::adopt_abandoned(&parts).await {
        tracing::debug!(%error, "cannot look for sweeps that nobody goes on with yet");
    }
}

async fn listen(parts: Arc<Parts>) {
    let Some(mut ear) = parts.store.listener() else { return };
    loop {
        let news = tokio::select! {
            news = ear.next() => news,
            () = parts.session.deaf.notified() => {
                ear.reset();
                continue;
            }
        };
        match news {
            ListenerEvent::Received(notice) if notice.from == parts.session.current().0 => {}
            ListenerEvent::Received(notice) => {
                if notice.work {
                    parts.committer.look(WorkHint { work: true, ..WorkHint::default() });
                }
                let runs: Vec<Touched> = notice.runs.into_iter().map(Touched::from).collect();
                turned(&parts, &runs);
            }
            ListenerEvent::Lagged => {
                parts.committer.look(WorkHint { work: true, ..WorkHint::default() });
                catch_up(&parts).await;
            }
        }
    }
}

/// Applies status changes of runs that other hosts made.
fn turned(parts: &Parts, runs: &[Touched]) {
    parts.committer.heed(runs);
    parts.executor.heed(runs);
    parts.watchers.tell(runs, Vec::new());
}

/// Reads the status of every run that is executed or watched here, since notifications
/// may have been lost.
async fn catch_up(parts: &Parts) {
    let mut runs = parts.executor.runs();
    runs.extend(parts.watchers.runs());
    if runs.is_empty() {
        return;
    }
    match parts.store.run_statuses(&runs).await {
        Ok(found) => turned(parts, &found),
        Err(error) => tracing::debug!(%error, "cannot catch up with the other hosts"),
    }
}
