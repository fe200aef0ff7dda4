//! Concurrent claims of twelve hosts: each state is claimed once for each fence, and none is
//! missed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::Claimed;
use exosphere_store::{ClaimMode, Reply, RunInfo};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::harness::{Harness, Host};
use crate::test_database::Kind;

on_both! { concurrent_claims_take_each_state_once }

const STATES: usize = 10_000;
const CLAIMERS: usize = 12;

async fn concurrent_claims_take_each_state_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let mut hosts = Vec::new();
    for at in 0..CLAIMERS {
        hosts.push(harness.another(&format!("host {at}")).await);
    }
    let run = harness.start_of("U > X; X > W; W(U)").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, STATES).await;
    assert_eq!(harness.commit_one(fan).await, Reply::Done);

    let started = Instant::now();
    let first = claim_concurrently(&hosts).await;
    assert!(first.iter().all(|state| state.claim.fence.0 == 1));
    each_once(&first, STATES);
    let released = release_half(&hosts, &run.info, first).await;
    let second = claim_concurrently(&hosts).await;
    assert!(second.iter().all(|state| state.claim.fence.0 == 2 && state.attempts.attempt == 1));
    each_once(&second, released);
    let sessions: HashSet<_> = hosts.iter().map(|host| host.session).collect();
    assert!(second.iter().all(|state| sessions.contains(&state.claim.session)));
    println!("{kind:?}: {STATES} and {released} states in {:?}", started.elapsed());
    // The claims match the rows.
    let held =
        harness.database.rows("SELECT id, fence, session FROM state WHERE status = 'QUEUED'").await;
    let held: HashSet<_> =
        held.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>()).collect();
    let claims = second
        .iter()
        .map(|state| vec![state.id.to_string(), "2".into(), state.claim.session.0.to_string()]);
    assert!(claims.into_iter().all(|row| held.contains(&row)));
    assert_eq!(held.len(), STATES);
}

/// Claims through all hosts until no state is due; each host has its own batch size.
async fn claim_concurrently(hosts: &[Host]) -> Vec<Claimed> {
    let start = Arc::new(Barrier::new(hosts.len()));
    let mut claimers = JoinSet::new();
    for (at, host) in hosts.iter().cloned().enumerate() {
        let start = start.clone();
        claimers.spawn(async move {
            let mut all = Vec::new();
            start.wait().await;
            loop {
                let max = 5 + 7 * at as u32;
                let done = host.commit_ok(Vec::new(), ClaimMode::AllDue(max)).await;
                all.extend(done.claimed.into_iter().map(|claimed| claimed.state));
                if !done.more_due {
                    return all;
                }
            }
        });
    }
    claimers.join_all().await.into_iter().flatten().collect()
}

fn each_once(states: &[Claimed], count: usize) {
    let unique: HashSet<_> = states.iter().map(|state| (state.id, state.claim.fence)).collect();
    assert_eq!((states.len(), unique.len()), (count, count));
}

/// Releases every second state through all hosts concurrently.
async fn release_half(hosts: &[Host], run: &Arc<RunInfo>, states: Vec<Claimed>) -> usize {
    let released: Vec<_> = states.into_iter().step_by(2).collect();
    let mut releases = JoinSet::new();
    for (host, host_states) in
        hosts.iter().zip(released.chunks(released.len().div_ceil(hosts.len())))
    {
        let (host, run, host_states) = (host.clone(), run.clone(), host_states.to_vec());
        releases.spawn(async move {
            for host_states in host_states.chunks(100) {
                let mut operations = Vec::new();
                for state in host_states {
                    operations.push(host.finish_plain(&run, state, Outcome::Released).await);
                }
                let done = host.commit_ok(operations, ClaimMode::NewOnly(0)).await;
                assert!(done.replies.iter().all(|answer| *answer == Reply::Done));
            }
        });
    }
    releases.join_all().await;
    released.len()
}
