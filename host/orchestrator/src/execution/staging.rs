//! Commits the end of an execution that is too large for one batch. Its outputs and children
//! are staged in pieces, between which other operations are committed, and the end itself makes
//! them visible. Leftovers of abandoned staging are removed in pieces, too.
//!
//! Not here: the effect of a piece (`exosphere_store`), and the commit order of pieces of
//! different runs (`committer`).

use std::collections::VecDeque;
use std::sync::Arc;

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::StateId;
use exosphere_domain::limits::Limit;
use exosphere_domain::plan::{Transition, fail_permanently};
use exosphere_domain::state::NewState;
use exosphere_store::{
    Control, Finished, Leftover, Operation, Reply, RunInfo, Stage, Staged, StoreError,
};

use crate::error::internal;
use crate::execution::claims::ClaimPermit;
use crate::execution::committer::{MAX_BATCH_BYTES, ROW_BYTES, cost_of_end};
use crate::execution::sweeps;
use crate::inner::HostInner;

/// The cost from which an end is staged, in bytes: two batches. A fanout of 2,000 is written in
/// one batch, a wider one in pieces.
const STAGED_FROM_BYTES: u64 = 2 * MAX_BATCH_BYTES;

/// Maximum number of outputs, and of children, that are removed in one piece: about 20 ms of a
/// commit.
const MAX_REMOVED_PER_PIECE: u32 = 1_000;

/// An end that is being staged.
struct Staging {
    outputs: Vec<String>,
    children: Vec<NewState>,
    /// Counts of the pieces, outputs and children taken so far.
    staged: Staged,
}

/// The reason why an end cannot be staged.
enum StagingError {
    /// The state is no longer claimed, or its run is over.
    Stale,
    /// The state fails instead.
    Failed(Failure),
    Stopping,
}

/// Commits the end of an execution, staged if it is large.
pub(crate) async fn finish(inner: &Arc<HostInner>, mut finished: Finished, permit: ClaimPermit) {
    let is_success = matches!(finished.changes.end, Transition::Success { .. });
    if is_success
        && finished.state.claim.fence.0 > 1
        && !remove_earlier_attempt(inner, &finished).await
    {
        return;
    }
    if cost_of_end(&finished) < STAGED_FROM_BYTES || !is_success {
        return inner.pipeline.committer.finish(finished, permit).await;
    }
    let (run, state, fence) = (finished.run.clone(), finished.state.id, finished.state.claim.fence);
    let leftover = Leftover { state, fence, limit: MAX_REMOVED_PER_PIECE };
    match stage(inner, &mut finished).await {
        Ok(()) => {}
        Err(StagingError::Stopping) => return,
        Err(StagingError::Stale) => return begin_removal(inner, run, leftover),
        Err(StagingError::Failed(failure)) => fail(&mut finished, failure),
    }
    let was_unstaged = finished.staged.is_none();
    match inner.pipeline.committer.finish_and_wait(finished, permit).await {
        Ok(Reply::ToSweep(event)) => sweeps::begin_sweep(inner, run, event).await,
        Ok(Reply::Leftover(_) | Reply::Stale) => begin_removal(inner, run, leftover),
        Ok(_) if was_unstaged => begin_removal(inner, run, leftover),
        Ok(_) | Err(_) => {}
    }
}

/// Stages the outputs and children of an end, and leaves the end without any.
async fn stage(inner: &HostInner, finished: &mut Finished) -> Result<(), StagingError> {
    let new_states = finished.changes.end.new_states();
    let Transition::Success { outputs, children, .. } = &mut finished.changes.end else {
        return Ok(());
    };
    let mut staging = Staging {
        outputs: std::mem::take(outputs),
        children: std::mem::take(children),
        staged: Staged { pieces: 0, outputs: 0, children: 0 },
    };
    // Pieces are taken from the back.
    staging.outputs.reverse();
    staging.children.reverse();
    // While one piece is committed, the next one waits already.
    let mut in_flight = VecDeque::new();
    while let Some((first, outputs, children)) = staging.next() {
        let piece = Stage {
            run: finished.run.clone(),
            state: finished.state.clone(),
            piece: staging.staged.pieces,
            first,
            outputs,
            children,
            new_states,
            limits: finished.limits.clone(),
        };
        staging.staged.pieces += 1;
        in_flight.push_back(inner.pipeline.committer.enqueue(Operation::Stage(Box::new(piece))));
        if in_flight.len() > 1
            && let Some(first) = in_flight.pop_front()
        {
            expect_staged(finished, first.await)?;
        }
    }
    for rest in in_flight {
        expect_staged(finished, rest.await)?;
    }
    finished.staged = Some(staging.staged);
    Ok(())
}

/// Checks that a piece was committed.
fn expect_staged(
    finished: &Finished,
    reply: Result<Reply, StoreError>,
) -> Result<(), StagingError> {
    match reply {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(_)) => {
            Err(StagingError::Failed(finished.limits.reached(Limit::RunStates)))
        }
        Ok(_) => Err(StagingError::Stale),
        Err(StoreError::Data(cause)) => {
            let cause = format!("the outcome of state {} {cause}", finished.state.id);
            Err(StagingError::Failed(internal(&cause)))
        }
        Err(_) => Err(StagingError::Stopping),
    }
}

impl Staging {
    /// Takes the next piece: the number of its first output, the outputs, and the children. A
    /// piece costs at most as much as a batch, or it is one larger output.
    fn next(&mut self) -> Option<(u32, Vec<String>, Vec<NewState>)> {
        let first = self.staged.outputs as u32;
        let (mut outputs, mut children, mut cost) = (Vec::new(), Vec::new(), 0);
        while let Some(output) = self.outputs.last() {
            let row_bytes = ROW_BYTES + output.len() as u64;
            if cost > 0 && cost + row_bytes > MAX_BATCH_BYTES {
                break;
            }
            cost += row_bytes;
            outputs.extend(self.outputs.pop());
        }
        while cost + ROW_BYTES <= MAX_BATCH_BYTES
            && let Some(child) = self.children.pop()
        {
            cost += ROW_BYTES;
            children.push(child);
        }
        self.staged.outputs += outputs.len();
        self.staged.children += children.len();
        (cost > 0).then_some((first, outputs, children))
    }
}

/// Turns an end into a failure that is not retried.
fn fail(finished: &mut Finished, failure: Failure) {
    match fail_permanently(&finished.run.graph, &finished.state, failure) {
        Ok(changes) => {
            finished.changes = changes;
            finished.journal = Default::default();
        }
        Err(misfit) => {
            tracing::error!(%misfit, state = %finished.state.id, "a state cannot be ended");
        }
    }
}

/// Removes staged rows of an earlier attempt, which would conflict with the new ones. Returns
/// `false` if the host is stopping.
async fn remove_earlier_attempt(inner: &Arc<HostInner>, finished: &Finished) -> bool {
    match inner.db.retrying_store.staged(finished.state.id).await {
        Ok(None) => true,
        Ok(Some((state, _, fence))) => {
            let leftover = Leftover { state, fence, limit: MAX_REMOVED_PER_PIECE };
            remove_leftover(inner, &finished.run, leftover).await
        }
        Err(error) => {
            tracing::error!(%error, "cannot look for rows that an earlier attempt has staged");
            false
        }
    }
}

fn begin_removal(inner: &Arc<HostInner>, run: Arc<RunInfo>, leftover: Leftover) {
    let inner = inner.clone();
    tokio::spawn(async move { remove_leftover(&inner, &run, leftover).await });
}

/// Removes staged rows of ends that were never committed, left by dead hosts.
pub(crate) async fn remove_leftovers(inner: &Arc<HostInner>) -> Result<(), StoreError> {
    for (state, run, fence) in inner.db.store.leftovers().await? {
        let run = inner.caches.runs.get(&inner.db.store, run).await?;
        begin_removal(inner, run, Leftover { state, fence, limit: MAX_REMOVED_PER_PIECE });
    }
    Ok(())
}

/// Removes the staged rows of an execution, piece by piece. Returns `false` if the host
/// is stopping.
async fn remove_leftover(inner: &Arc<HostInner>, run: &Arc<RunInfo>, leftover: Leftover) -> bool {
    let state: StateId = leftover.state;
    loop {
        let operation = Operation::Control(run.clone(), Control::Unstage(leftover));
        match inner.pipeline.committer.submit(operation).await {
            Ok(Reply::More(_)) => {}
            Ok(_) => return true,
            Err(error) => {
                tracing::error!(%error, %state, "the leftovers of staging are not removed yet");
                return false;
            }
        }
    }
}
