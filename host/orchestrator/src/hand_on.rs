//! What commits came to, on its way to all who want to know: who waits for an
//! answer, who watches a run, the other hosts, and the executor. In a task of its
//! own, so that no commit waits for that; in the order of the commits.

use std::sync::Arc;

use exosphere_store::{Answer, Committed, Leased, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::Parts;
use crate::executor::dispatch;
use crate::request::Reply;
use crate::room::Lease;

/// One thing to pass on.
pub(crate) enum Step {
    /// A commit.
    Committed(Box<CommitResult>),
    /// There will be no other.
    Drained(oneshot::Sender<()>),
}

/// What a commit came to.
pub(crate) struct CommitResult {
    /// What it did, but for what it claimed.
    pub done: Committed,
    /// Its answers to those who wait for one.
    pub answers: Vec<(Reply, Result<Answer, StoreError>)>,
    /// What it claimed, with the places that it takes.
    pub leased: Vec<(Leased, Lease)>,
}

/// Begins. The channel needs no bound of its own: what waits in it has a place in
/// the room of the host, or somebody who waits for it.
pub(crate) fn start(parts: Arc<Parts>) -> mpsc::UnboundedSender<Step> {
    let (results, mut queue) = mpsc::unbounded_channel();
    let guard = parts.lifeline.guard("the task that hands on what commits come to");
    tokio::spawn(async move {
        while let Some(step) = queue.recv().await {
            match step {
                Step::Committed(result) => hand_on(&parts, *result),
                Step::Drained(done) => drop(done.send(())),
            }
        }
        guard.end();
    });
    results
}

fn hand_on(parts: &Arc<Parts>, result: CommitResult) {
    let CommitResult { mut done, answers, leased } = result;
    parts.executor.heed(&done.touched);
    parts.watchers.tell(&done.touched, std::mem::take(&mut done.ended));
    parts.teller.tell(&done);
    for (reply, answer) in answers {
        reply.send(answer);
    }
    dispatch(parts, leased);
}
