//! The current session of this host, with the signals of its thread.
//!
//! Not here: the session's row in the database (`exosphere_store`).

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use exosphere_domain::ids::SessionId;
use tokio::sync::Notify;

/// The current session of this host. Another host may expire it if this host was frozen
/// for longer than the lease; this host then begins a new one.
pub(crate) struct CurrentSession {
    current: AtomicI64,
    /// Set while states of expired sessions are being reclaimed.
    reclaiming: AtomicBool,
    /// Signals that the LISTEN connection must be reopened.
    reconnect_listener: Notify,
    /// Set when the host ends the session itself; no heartbeat follows.
    closing: AtomicBool,
    /// Signals that the host has ended the session.
    ended: Notify,
}

impl CurrentSession {
    pub(crate) fn new(session: SessionId) -> Self {
        CurrentSession {
            current: AtomicI64::new(session.0),
            reclaiming: AtomicBool::new(false),
            reconnect_listener: Notify::new(),
            closing: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    pub(crate) fn current(&self) -> SessionId {
        SessionId(self.current.load(Ordering::Relaxed))
    }

    /// Continues with a new session.
    pub(super) fn replace(&self, session: SessionId) {
        self.current.store(session.0, Ordering::Relaxed);
    }

    /// Stops the heartbeat, since the host is about to end the session.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends the thread of the heartbeat; the host has sent its last notification.
    pub(crate) fn end(&self) {
        self.ended.notify_one();
    }

    /// Waits until the host has ended the session.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Begins to reclaim states. Returns `false` if states are being reclaimed already.
    pub(super) fn begin_reclaiming(&self) -> bool {
        !self.reclaiming.swap(true, Ordering::Relaxed)
    }

    pub(super) fn end_reclaiming(&self) {
        self.reclaiming.store(false, Ordering::Relaxed);
    }

    /// Asks the listener to open a new connection.
    pub(super) fn reconnect_listener(&self) {
        self.reconnect_listener.notify_one();
    }

    /// Waits until the listener must open a new connection.
    pub(super) async fn must_reconnect(&self) {
        self.reconnect_listener.notified().await;
    }
}
