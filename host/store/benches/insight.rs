//! The cost of views over all states of a run, on both databases: `cargo bench -p exosphere-store
//! --bench insight`. docs/guides/insight.md has the figures.

#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "../tests/check/harness.rs"]
mod harness;
#[path = "../tests/check/runs.rs"]
mod runs;

use std::time::{Duration, Instant};

use exosphere_domain::ids::{NodeIx, RunKey};
use exosphere_domain::insight::{
    Sample, TimelineBy, TimelineRequest, Times, group_failures, timeline, times_of_node,
};
use exosphere_store::{SecretCipher, Store};

use crate::harness::{Harness, Kind, TestDatabase};

/// The number of measurements of each view.
const ROUNDS: usize = 9;

/// The time at which the states are due.
const DUE_AT: i64 = 1_764_000_000_000;

#[tokio::main(worker_threads = 2)]
async fn main() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        for states in [100_000, 1_000_000] {
            let database = TestDatabase::new(kind, &format!("insight{states}"));
            let run = fill(&database, kind, states).await;
            let store = Store::open(&database.location, SecretCipher::new(&[7; 32])).await.unwrap();
            measure(&store, run, states, &format!("{kind:?}, {states} states")).await;
            store.close().await;
        }
    }
}

/// Makes a run with many states: each tenth has failed, and each twentieth was retried.
async fn fill(database: &TestDatabase, kind: Kind, states: u64) -> RunKey {
    let mut harness = Harness::new(database).await;
    let run = harness.start("fan", &runs::fan(), &[]).await.info.key;
    harness.close().await;
    let (series, path) = match kind {
        Kind::Sqlite => (
            format!(
                "(WITH RECURSIVE n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k < {}) \
                 SELECT k FROM n)",
                states - 1
            ),
            "printf('|%03d0|%03d0', k / 1000, k % 1000)",
        ),
        Kind::Postgres => (
            format!("(SELECT generate_series(0, {}) AS k)", states - 1),
            "'|' || lpad((k / 1000)::TEXT, 3, '0') || '0|' || lpad((k % 1000)::TEXT, 3, '0') || '0'",
        ),
    };
    let insert = format!(
        "INSERT INTO state (id, run, node, path, status, due_at, fence, attempt, retries, requeues, \
             losses, conflicts, refs, scopes, created_at, ended_at, outputs, kind, message, cpu_us, \
             memory_bytes, host_calls, input_bytes, output_bytes, last_session, began_at, namespace) \
         SELECT 1000000 + k, {key}, 1 + k % 3, {path}, \
             CASE WHEN k % 10 = 0 THEN 'ERRORED' ELSE 'SUCCESS' END, {DUE_AT}, 1, \
             CASE WHEN k % 20 = 0 THEN 2 ELSE 1 END, CASE WHEN k % 20 = 0 THEN 1 ELSE 0 END, \
             0, 0, 0, '[[0,1000000,' || k || '],[1,1000001,0]]', '[[3,1000002]]', {DUE_AT}, \
             {DUE_AT} + k / 5 + k % 997 * 7919 % 997, CASE WHEN k % 10 > 0 THEN 1 END, \
             CASE WHEN k % 10 = 0 THEN 'permanent' END, \
             CASE WHEN k % 10 = 0 THEN 'row ' || k || ' of \"table ' || k % 7 || '\" is not valid' END, \
             1500, 3000000, 4, 100, 200, 1, {DUE_AT} + k / 5, 1 \
         FROM {series} numbers; \
         INSERT INTO attempt (state, number, session, began_at, ended_at, outcome, kind, message) \
         SELECT id, 1, 1, began_at - 50, began_at - 20, 'FAILED', 'retryable', 'no' \
         FROM state WHERE attempt = 2;",
        key = run.0
    );
    database.tamper(&insert);
    if kind == Kind::Postgres {
        database.tamper("ANALYZE state");
        database.tamper("ANALYZE attempt");
    }
    run
}

async fn measure(store: &Store, run: RunKey, states: u64, what: &str) {
    let request = TimelineRequest {
        from: DUE_AT,
        to: DUE_AT + 300_000,
        bins: 60,
        by: TimelineBy::Node,
        now: DUE_AT,
    };
    let mut took = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    let (mut examined, mut groups) = (0, 0);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let read = store.state_times(run, states).await.unwrap();
        took[3].push(begin.elapsed());
        let sample = Sample { examined: read.len() as u64, of: states };
        let attempts = store.attempt_times(&read).await.unwrap();
        let times = Times { states: read, attempts, sample };
        let drawn = timeline(String::new(), &times, &request, &Default::default(), |node| {
            Some(node.0.to_string())
        });
        took[0].push(begin.elapsed());
        assert!(drawn.series.len() >= 3);
        examined = times.states.len();

        let begin = Instant::now();
        let failed = store.failures_of_run(run, states / 10, true).await.unwrap();
        groups = group_failures(&failed, Sample::default()).groups.len();
        took[1].push(begin.elapsed());

        let begin = Instant::now();
        let read = store.state_times(run, states).await.unwrap();
        let of = times_of_node(read.iter().filter(|state| state.node == NodeIx(1)), sample);
        let slowest: Vec<_> = of.slowest.iter().map(|(state, _)| *state).collect();
        assert_eq!(store.paths_of(&slowest).await.unwrap().len(), 10);
        took[2].push(begin.elapsed());
    }
    let [timeline, failures, distribution, read] = took.map(median);
    println!(
        "{what}, {examined} examined: timeline {timeline:.1?} (reading {read:.1?}), \
         failures {failures:.1?} in {groups} groups, distribution {distribution:.1?}"
    );
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}
