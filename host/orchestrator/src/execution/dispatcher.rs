//! Delivers the effects of each commit, in commit order, to waiting callers, run
//! watchers, other hosts and the executor. Runs in its own task, so that the next
//! commit need not wait.
//!
//! Not here: commits (`committer`), and how each receiver works.

use std::sync::Arc;

use exosphere_store::{Answer, Committed, Leased, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::Parts;
use crate::execution::claims::ClaimPermit;
use crate::execution::executor::dispatch;
use crate::service::request::Reply;

/// A message to the dispatcher.
pub(crate) enum DispatchMessage {
    Committed(Box<CommitEffects>),
    /// The last message; the dispatcher answers it after all others.
    Drained(oneshot::Sender<()>),
}

/// The effects of a commit.
pub(crate) struct CommitEffects {
    /// Changes of the commit, without its claims.
    pub done: Committed,
    /// Answers to the callers that wait for one.
    pub answers: Vec<(Reply, Result<Answer, StoreError>)>,
    /// Claimed states, each with its claim permit.
    pub leased: Vec<(Leased, ClaimPermit)>,
}

/// Starts the dispatcher. The channel needs no bound of its own: each entry holds a claim
/// permit or has a caller that waits for it.
pub(crate) fn start(parts: Arc<Parts>) -> mpsc::UnboundedSender<DispatchMessage> {
    let (results, mut queue) = mpsc::unbounded_channel();
    let guard = parts.lifeline.guard("the dispatcher of commit effects");
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
