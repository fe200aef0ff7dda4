//! Recovery from lost hosts: the states that they had claimed are free again, and the
//! sweeps that they began are continued (`sweeps`).

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{SessionId, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{Changes, NoIds, outcome_of_lost_claim, plan};
use exosphere_store::{Finished, LostClaim, Operation, Reply, StoreError};
use futures::future::join_all;

use crate::execution::claims::ClaimTable;
use crate::inner::HostInner;

/// Maximum number of states that one transaction reclaims.
const MAX_STATES_PER_TRANSACTION: u32 = 500;

/// Reclaims the states of ended sessions.
pub(crate) async fn reclaim_states(
    inner: &HostInner,
    sessions: &[SessionId],
) -> Result<(), StoreError> {
    for session in sessions {
        let (mut after, mut all) = (StateId(0), 0);
        let mut ids = Vec::new();
        loop {
            let now = inner.db.clock.now();
            let held =
                inner.db.store.held_by(*session, after, MAX_STATES_PER_TRANSACTION, now).await?;
            let Some(last) = held.last() else { break };
            after = last.state.id;
            ids.extend(held.iter().map(|held| held.state.id));
            let mut operations = Vec::with_capacity(held.len());
            for held in held {
                let outcome = outcome_of_lost_claim(held.state.attempts, held.has_begun);
                operations.extend(finish_op(inner, held, outcome).await?);
            }
            let replies =
                join_all(operations.into_iter().map(|m| inner.pipeline.committer.submit(m))).await;
            all += replies.iter().filter(|reply| matches!(reply, Ok(Reply::Done))).count();
            // Another host may have reclaimed a state first, which is not a failure.
            if let Some(error) = replies.into_iter().find_map(Result::err) {
                return Err(error);
            }
        }
        // What it had committed, and not sent before it was lost.
        inner.traces.resend(*session, ids);
        if all > 0 {
            tracing::info!(
                states = all,
                session = session.0,
                "reclaimed the states of a lost host"
            );
        }
    }
    Ok(())
}

/// Sends the last spans of this host's lost sessions again: a session may be lost without holding
/// states, and before it has sent those of the one before it. The `reclaimed` ones are sent already.
pub(crate) async fn resend_spans(
    inner: &HostInner,
    reclaimed: &[SessionId],
) -> Result<(), StoreError> {
    if inner.traces.sampled().is_some() {
        let lost = inner.db.store.lost_sessions_before(inner.cluster.session.current()).await?;
        for session in lost.into_iter().filter(|session| !reclaimed.contains(session)) {
            inner.traces.resend(session, Vec::new());
        }
    }
    Ok(())
}

/// Builds the operations that give back states that the database holds for this session
/// and that this host does not know of.
pub(crate) async fn orphaned_claims(
    inner: &HostInner,
    claims: &ClaimTable,
) -> Result<Vec<Operation>, StoreError> {
    let session = inner.cluster.session.current();
    let (mut after, mut operations) = (StateId(0), Vec::new());
    loop {
        let held = inner
            .db
            .store
            .held_by(session, after, MAX_STATES_PER_TRANSACTION, inner.db.clock.now())
            .await?;
        let Some(last) = held.last() else { return Ok(operations) };
        after = last.state.id;
        for held in held.into_iter().filter(|held| !claims.holds(&held.state)) {
            operations.extend(finish_op(inner, held, Outcome::Released).await?);
        }
    }
}

/// Builds the operation that finishes a lost execution. Returns `None` if the end cannot be
/// planned: the run cannot be read, or the state does not fit its graph.
async fn finish_op(
    inner: &HostInner,
    held: LostClaim,
    outcome: Outcome,
) -> Result<Option<Operation>, StoreError> {
    let LostClaim { state, claimed_at, .. } = held;
    let run = match inner.caches.runs.get(&inner.db.store, state.run).await {
        Ok(run) => run,
        Err(StoreError::Data(cause)) => {
            tracing::error!(cause, state = %state.id, "a held state has no readable run");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let jitter = crate::system::jitter();
    let changes = match plan(&run.graph, &state, outcome, jitter, &NoIds) {
        Ok(Changes { end, counts }) => Changes { end: end.with_claim_time(claimed_at), counts },
        Err(mismatch) => {
            tracing::error!(%mismatch, state = %state.id, "a held state does not fit its graph");
            return Ok(None);
        }
    };
    let journal = Journal::default();
    let (logs, usage, limits) = (None, None, inner.settings.limits.clone());
    let staged = None;
    let finished = Finished {
        run,
        state,
        changes,
        journal,
        logs,
        usage,
        began_at: None,
        jitter,
        limits,
        staged,
    };
    Ok(Some(Operation::Finish(Box::new(finished))))
}
