//! At the start of a host: what the one before it held is free again, and
//! cancelled runs are swept to their end.

use std::sync::Arc;

use exosphere_domain::clock::Clock;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::plan;
use exosphere_domain::state::Claimed;
use exosphere_store::{Answer, Batch, Finished, Member, RunInfo, Want};

use crate::Parts;
use crate::error::StartError;

/// States that are taken back, or swept, in one transaction.
const AT_A_TIME: u32 = 500;

/// Takes back what other sessions hold: their hosts are gone, since this one
/// has the folder.
pub(crate) async fn take_back(parts: &Parts) -> Result<(), StartError> {
    let mut all = 0;
    loop {
        let held = parts.store.held_by_others(parts.session, AT_A_TIME).await?;
        if held.is_empty() {
            break;
        }
        all += held.len();
        let mut members = Vec::with_capacity(held.len());
        for state in held {
            members.push(lost(parts, state).await?);
        }
        let count = members.len();
        let batch = Batch {
            members: members.into(),
            range: 0..count,
            session: parts.session,
            now: parts.clock.now(),
            want: Want::Births(0),
            store_limits: (parts.limits.store_keys, parts.limits.store_bytes),
        };
        let done = parts.store.commit(batch).await?;
        if done.answers.contains(&Answer::Stale) {
            return Err(StartError::Recovery("another host writes to this database".into()));
        }
    }
    if all > 0 {
        tracing::info!(states = all, "took back what the host before this one held");
    }
    Ok(())
}

async fn lost(parts: &Parts, state: Claimed) -> Result<Member, StartError> {
    let run = parts.runs.get(&parts.store, state.run).await?;
    let jitter = crate::ambient::jitter();
    let now = parts.clock.now();
    // What was only held cannot be what ended the host.
    let outcome = match parts.begun.was_running(state.id) {
        true => Outcome::HostLost,
        false => Outcome::Released,
    };
    let changes = plan(&run.graph, &state, outcome, now, jitter, parts.store.ids())
        .map_err(|misfit| StartError::Recovery(misfit.to_string()))?;
    let journal = Journal::default();
    let finished = Finished { run, state, changes, journal, logs: None, usage: None, jitter };
    Ok(Member::Finish(Box::new(finished)))
}

/// Sweeps cancelled runs whose states were not all ended with them.
pub(crate) async fn sweep_cancelled(parts: &Arc<Parts>) -> Result<(), StartError> {
    for run in parts.store.unswept().await? {
        let run = parts.runs.get(&parts.store, run).await?;
        tokio::spawn(sweep(parts.clone(), run));
    }
    Ok(())
}

/// Ends the states of a cancelled run, some at a time.
pub(crate) async fn sweep(parts: Arc<Parts>, run: Arc<RunInfo>) {
    let mut after = None;
    loop {
        let member = Member::Sweep { run: run.clone(), after, most: AT_A_TIME };
        match parts.committer.submit(member).await {
            Ok(Answer::More(path)) => after = Some(path),
            Ok(_) => return,
            // The next start of a host goes on with it.
            Err(error) => return tracing::error!(%error, run = %run.id, "a sweep stopped"),
        }
    }
}
