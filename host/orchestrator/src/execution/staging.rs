//! Commits the end of an execution that is too large for one batch. Its outputs and
//! children are staged in pieces, between which other operations are committed, and the
//! end itself makes them count. Leftovers of staging in vain are removed in pieces, too.
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
use exosphere_store::{Finished, Leftover, Operation, Reply, Stage, Staged, StoreError};

use crate::error::internal;
use crate::execution::claims::ClaimPermit;
use crate::execution::committer::{MAX_BATCH_BYTES, ROW_BYTES, weight_of_end};
use crate::execution::sweeps;
use crate::parts::HostInner;

/// The weight from which an end is staged, in bytes: two batches. A fanout of 2,000 is
/// written at once, a wider one in pieces.
const STAGED_FROM_BYTES: u64 = 2 * MAX_BATCH_BYTES;

/// Outputs, and children, that are removed in one piece: about 20 ms of a commit.
const MAX_REMOVED_PER_PIECE: u32 = 1_000;

/// An end that is being staged.
struct Staging {
    outputs: Vec<String>,
    children: Vec<NewState>,
    /// Counts of the pieces, outputs and children taken so far.
    staged: Staged,
}

/// The reason for which an end cannot be staged.
enum StagingError {
    /// The state is no longer claimed, or its run is over.
    Stale,
    /// The state fails instead.
    Failed(Failure),
    Stopping,
}

/// Commits the end of an execution, staged if it is large.
pub(crate) async fn finish(parts: &Arc<HostInner>, mut finished: Finished, permit: ClaimPermit) {
    let is_success = matches!(finished.changes.end, Transition::Success { .. });
    if is_success
        && finished.state.claim.fence.0 > 1
        && !remove_earlier_attempt(parts, &finished).await
    {
        return;
    }
    if weight_of_end(&finished) < STAGED_FROM_BYTES || !is_success {
        return parts.pipeline.committer.finish(finished, permit).await;
    }
    let (run, state, fence) = (finished.run.clone(), finished.state.id, finished.state.claim.fence);
    let leftover = Leftover { run: run.clone(), state, fence, most: MAX_REMOVED_PER_PIECE };
    match stage(parts, &mut finished).await {
        Ok(()) => {}
        Err(StagingError::Stopping) => return,
        Err(StagingError::Stale) => return begin_removal(parts, leftover),
        Err(StagingError::Failed(failure)) => fail(&mut finished, failure),
    }
    let was_unstaged = finished.staged.is_none();
    match parts.pipeline.committer.finish_with_answer(finished, permit).await {
        Ok(Reply::ToSweep(event)) => sweeps::begin_sweep(parts, run, event).await,
        Ok(Reply::Leftover(_) | Reply::Stale) => begin_removal(parts, leftover),
        Ok(_) if was_unstaged => begin_removal(parts, leftover),
        Ok(_) | Err(_) => {}
    }
}

/// Stages the outputs and children of an end, and leaves the end without any.
async fn stage(parts: &HostInner, finished: &mut Finished) -> Result<(), StagingError> {
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
        in_flight.push_back(parts.pipeline.committer.enqueue(Operation::Stage(Box::new(piece))));
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
        Err(StoreError::Data(why)) => {
            let why = format!("the outcome of state {} {why}", finished.state.id);
            Err(StagingError::Failed(internal(&why)))
        }
        Err(_) => Err(StagingError::Stopping),
    }
}

impl Staging {
    /// Takes the next piece: the number of its first output, outputs and children. Its
    /// weight is up to that of a batch, or it is one larger output.
    fn next(&mut self) -> Option<(u32, Vec<String>, Vec<NewState>)> {
        let first = self.staged.outputs as u32;
        let (mut outputs, mut children, mut weight) = (Vec::new(), Vec::new(), 0);
        while let Some(output) = self.outputs.last() {
            let more = ROW_BYTES + output.len() as u64;
            if weight > 0 && weight + more > MAX_BATCH_BYTES {
                break;
            }
            weight += more;
            outputs.extend(self.outputs.pop());
        }
        while weight + ROW_BYTES <= MAX_BATCH_BYTES
            && let Some(child) = self.children.pop()
        {
            weight += ROW_BYTES;
            children.push(child);
        }
        self.staged.outputs += outputs.len();
        self.staged.children += children.len();
        (weight > 0).then_some((first, outputs, children))
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

/// Removes staged rows of an earlier attempt, which would be in the way. Returns `false`
/// if the host is stopping.
async fn remove_earlier_attempt(parts: &Arc<HostInner>, finished: &Finished) -> bool {
    match parts.db.retrying_store.staged(finished.state.id).await {
        Ok(None) => true,
        Ok(Some((state, _, fence))) => {
            let run = finished.run.clone();
            remove_leftover(parts, Leftover { run, state, fence, most: MAX_REMOVED_PER_PIECE })
                .await
        }
        Err(error) => {
            tracing::error!(%error, "cannot look for rows that an earlier attempt has staged");
            false
        }
    }
}

fn begin_removal(parts: &Arc<HostInner>, leftover: Leftover) {
    let parts = parts.clone();
    tokio::spawn(async move { remove_leftover(&parts, leftover).await });
}

/// Removes staged rows of ends that were never committed, left by dead hosts.
pub(crate) async fn remove_leftovers(parts: &Arc<HostInner>) -> Result<(), StoreError> {
    for (state, run, fence) in parts.db.store.leftovers().await? {
        let run = parts.caches.runs.get(&parts.db.store, run).await?;
        begin_removal(parts, Leftover { run, state, fence, most: MAX_REMOVED_PER_PIECE });
    }
    Ok(())
}

/// Removes the staged rows of an execution, piece by piece. Returns `false` if the host
/// is stopping.
async fn remove_leftover(parts: &Arc<HostInner>, leftover: Leftover) -> bool {
    let state: StateId = leftover.state;
    loop {
        match parts.pipeline.committer.submit(Operation::Unstage(leftover.clone())).await {
            Ok(Reply::More(_)) => {}
            Ok(_) => return true,
            Err(error) => {
                tracing::error!(%error, %state, "the leftovers of staging are not removed yet");
                return false;
            }
        }
    }
}
