//! Delivers the effects of each commit, in commit order, to waiting callers, run
//! watchers, other hosts and the executor. Runs in its own task, so that the next
//! commit need not wait.
//!
//! Not here: commits (`committer`), and how each receiver works.

use std::sync::Arc;

use exosphere_store::{Answer, Committed, Leased, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::Parts;
use crate::claims::ClaimPermit;
use crate::executor::dispatch;
use crate::request::Reply;

/// One thing to pass on.
pub(crate) enum DispatchMessage {
    /// A commit.
    Committed(Box<CommitEffects>),
    /// There will be no other.
    Drained(oneshot::Sender<()>),
}

/// What a commit came to.
pub(crate) struct CommitEffects {
    /// What it did, but for what it claimed.
    pub done: Committed,
    /// Its answers to those who wait for one.
    pub answers: Vec<(Reply, Result<Answer, StoreError>)>,
    /// What it claimed, with the places that it takes.
    pub leased: Vec<(Leased, ClaimPermit)>,
}

/// Begins. The channel needs no bound of its own: what waits in it has a place in
/// the room of the host, or somebody who waits for it.
pub(crate) fn start(parts: Arc<Parts>) -> mpsc::UnboundedSender<DispatchMessage> {
    let (results, mut queue) = mpsc::unbounded_channel();
    let guard = parts.lifeline.guard("the task that hands on what commits come to");
    tokio::spawn(async move {
        while let Some(step) = queue.recv().await {
            match step {
                DispatchMessage::Committed(result) => deliver(&parts, *result),
                DispatchMessage::Drained(done) => drop(done.send(())),
            }
        }
        guard.end();
    });
    results
}

fn deliver(parts: &Arc<Parts>, result: CommitEffects) {
    let CommitEffects { mut done, answers, leased } = result;
    parts.executor.heed(&done.touched);
    parts.watchers.tell(&done.touched, std::mem::take(&mut done.ended));
    parts.notifier.enqueue(&done);
    for (reply, answer) in answers {
        reply.send(answer);
    }
    dispatch(parts, leased);
}
