//! Delivers the effects of each commit, in commit order, to waiting callers, run
//! watchers, other hosts, traces and the executor. Runs in its own task, so that the next
//! commit need not wait.
//!
//! Not here: commits (`committer`), and how each receiver works.

use std::sync::Arc;

use exosphere_store::{ClaimedState, Committed, Reply, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::execution::claims::ClaimPermit;
use crate::execution::committer::ReplySender;
use crate::execution::executor::dispatch;
use crate::inner::HostInner;

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
    pub replies: Vec<(ReplySender, Result<Reply, StoreError>)>,
    /// Claimed states, each with its claim permit.
    pub claimed: Vec<(ClaimedState, ClaimPermit)>,
}

/// Starts the dispatcher. The channel needs no bound of its own: each entry holds a claim
/// permit or has a caller that waits for it.
pub(crate) fn start(inner: Arc<HostInner>) -> mpsc::UnboundedSender<DispatchMessage> {
    let (effects, mut queue) = mpsc::unbounded_channel();
    let guard = inner.lifeline.guard("the dispatcher of commit effects");
    tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            match message {
                DispatchMessage::Committed(effects) => deliver(&inner, *effects),
                DispatchMessage::Drained(done) => drop(done.send(())),
            }
        }
        guard.end();
    });
    effects
}

fn deliver(inner: &Arc<HostInner>, effects: CommitEffects) {
    let CommitEffects { mut done, replies, claimed } = effects;
    // Before the answers, so that whoever knows of a change finds it counted.
    inner.metrics.add_counts(std::mem::take(&mut done.commit_counts));
    inner.metrics.claimed(done.now, claimed.iter().map(|(claimed, _)| claimed));
    inner.pipeline.executor.on_runs_changed(&done.run_updates);
    inner.pipeline.watchers.publish(&done.run_updates, std::mem::take(&mut done.ended));
    inner.cluster.notifier.enqueue(&done);
    inner.traces.record(std::mem::take(&mut done.report));
    for (sender, reply) in replies {
        sender.send(reply);
    }
    dispatch(inner, claimed);
}
