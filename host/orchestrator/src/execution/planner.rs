//! Plans the end of an attempt: from its outcome to the operation that is committed.
//!
//! Not here: the plan itself (`exosphere_domain::plan`), and ends too large for one batch
//! (`staging`).

use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{Changes, GraphMismatch, fail_permanently, ids_needed, plan};
use exosphere_domain::state::Claimed;
use exosphere_store::{ClaimedState, Finished, IdBlock, RunInfo, StoreError};

use super::attempt::AttemptResult;
use crate::database_backoff::{database_backoff, pause};
use crate::error::internal;
use crate::inner::HostInner;

/// Maximum number of new states with which an outcome is planned inline: less than a
/// millisecond.
const MAX_INLINE_STATES: u64 = 1_000;

/// Plans the end of an attempt for its commit. Returns nothing if not even a failure of the
/// state can be planned.
pub(super) async fn into_finish_op(
    inner: &HostInner,
    run: Arc<RunInfo>,
    claimed: ClaimedState,
    result: AttemptResult,
) -> Option<Finished> {
    let AttemptResult { outcome, journal, logs, usage, began_at, limits, slot: _ } = result;
    let limits = limits.unwrap_or_else(|| inner.settings.limits.clone());
    let (state, jitter) = (claimed.state, crate::system::jitter());
    let needed = ids_needed(&run.graph, &state, &outcome);
    let planned = match reserve_numbers(inner, needed).await {
        Ok(numbers) if needed > MAX_INLINE_STATES => {
            plan_on_blocking_thread(run.clone(), state.clone(), outcome, jitter, numbers).await
        }
        Ok(numbers) => plan(&run.graph, &state, outcome, jitter, &numbers),
        Err(cause) => fail_permanently(&run.graph, &state, internal(&cause)),
    };
    let changes =
        planned.or_else(|mismatch| fail_permanently(&run.graph, &state, internal(&mismatch)));
    let changes = changes
        .inspect_err(
            |mismatch| tracing::error!(%mismatch, state = %state.id, "a state cannot be ended"),
        )
        .ok()?;
    let logs = (!logs.is_empty()).then(|| serde_json::to_string(&logs).unwrap_or_default());
    let staged = None;
    Some(Finished { run, state, changes, journal, logs, usage, began_at, jitter, limits, staged })
}

/// Plans the changes of an outcome with many outputs, on a blocking thread.
async fn plan_on_blocking_thread(
    run: Arc<RunInfo>,
    state: Claimed,
    outcome: Outcome,
    jitter: f64,
    numbers: IdBlock,
) -> Result<Changes, GraphMismatch> {
    let (graph, place) = (run.clone(), state.clone());
    let planned =
        tokio::task::spawn_blocking(move || plan(&run.graph, &state, outcome, jitter, &numbers));
    planned
        .await
        .unwrap_or_else(|_| fail_permanently(&graph.graph, &place, internal(&"the host panicked")))
}

/// Reserves ids for new states. Retries without a deadline, because an outcome waits for its
/// database.
async fn reserve_numbers(inner: &HostInner, count: u64) -> Result<IdBlock, StoreError> {
    let mut backoff = database_backoff();
    loop {
        match inner.db.store.state_ids(count, inner.db.clock.now()).await {
            Err(
                StoreError::Contention(_) | StoreError::Unavailable(_) | StoreError::Unknown(_),
            ) => pause(&mut backoff).await,
            settled => return settled,
        }
    }
}
