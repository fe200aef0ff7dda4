//! Reads over all states of a run, and over the runs of a graph.

use std::time::Instant;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::insight::StateTimes;
use exosphere_domain::limits::Usage;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::{RunStatus, Status};
use exosphere_store::Operation;

use crate::harness::{Harness, outputs};
use crate::test_database::Kind;

on_both! {
    times_of_states_and_attempts_are_read,
    large_runs_are_sampled_evenly,
    failures_have_messages_on_demand,
    runs_add_up_the_cost_of_attempts,
    earlier_successes_are_of_one_graph,
    the_migration_adds_up_costs,
}

/// Returns the finish of an execution that began and used something.
fn used(finish: Operation, cpu_us: u64, memory: u64) -> Operation {
    let Operation::Finish(mut finished) = finish else { panic!("not a finish") };
    finished.began_at = Some(Instant::now());
    finished.usage = Some(Usage { cpu_us, peak_memory_bytes: memory, ..Usage::default() });
    Operation::Finish(finished)
}

async fn times_of_states_and_attempts_are_read(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    let children = harness.commit_and_claim(used(fan, 1, 1)).await;
    let again = Outcome::Failed(Failure::new(FailureKind::Retryable, "again"));
    let retry = harness.finish_plain(&run.info, &children[0], again).await;
    harness.commit_one(used(retry, 1, 1)).await;
    let end = harness.finish_plain(&run.info, &children[1], outputs(1)).await;
    harness.commit_one(used(end, 1, 1)).await;
    let mut times = harness.store.state_times(run.info.key, 4).await.unwrap();
    times.sort_by_key(|state| state.id);
    assert_eq!(times.len(), 4);
    let statuses: Vec<_> = times.iter().map(|state| state.status).collect();
    assert_eq!(statuses, [Status::Success, Status::Created, Status::Success, Status::Queued]);
    let root = &times[0];
    assert_eq!((root.node.0, root.session), (0, Some(harness.session)));
    assert!(root.run_ms().is_some() && root.wait_ms().is_some());
    let retried = &times[1];
    assert_eq!((retried.attempts, retried.retries, retried.began_at), (1, 1, None));
    assert!(retried.has_earlier_attempts() && !times[2].has_earlier_attempts());
    assert_eq!((times[3].ended_at, times[3].attempts), (None, 1));
    let attempts = harness.store.attempt_times(&times).await.unwrap();
    assert_eq!(attempts.len(), 1);
    let attempt = &attempts[0];
    assert_eq!((attempt.node.0, attempt.session), (1, Some(harness.session)));
    assert!(attempt.has_failed && attempt.began_at.is_some_and(|at| at <= attempt.ended_at));
    let hosts = harness.store.hosts_of(&[harness.session]).await.unwrap();
    assert_eq!(hosts.len(), 1);
    let paths = harness.store.paths_of(&[times[2].id]).await.unwrap();
    assert_eq!(paths[&times[2].id], children[1].place.path);
}

/// A run that is said to be much larger is read as a sample. Two nodes take turns in the order of
/// state numbers; both are in the sample with equal parts.
async fn large_runs_are_sampled_evenly(kind: Kind) {
    const BRANCHES: usize = 6_000;
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X Y").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, BRANCHES).await;
    harness.commit_one(fan).await;
    for (states, stride) in [(200_001, 2), (1_000_000, 5)] {
        let times = harness.store.state_times(run.info.key, states).await.unwrap();
        let expected = BRANCHES as f64 / f64::from(stride);
        for node in [1, 2] {
            let count = times.iter().filter(|state| state.node.0 == node).count() as f64;
            assert!((count / expected - 1.0).abs() < 0.15, "{count} of {expected} at {node}");
        }
        let ids = |times: &[StateTimes]| times.iter().map(|state| state.id).collect::<Vec<_>>();
        let again = harness.store.state_times(run.info.key, states).await.unwrap();
        assert_eq!(ids(&again).len(), ids(&times).len(), "a sample is the same each time");
    }
    assert_eq!(harness.store.state_times(run.info.key, 1).await.unwrap().len(), 1 + 2 * BRANCHES);
}

async fn failures_have_messages_on_demand(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    let children = harness.commit_and_claim(fan).await;
    for (state, message) in children.iter().zip(["ä".repeat(600), String::new()]) {
        let failure = Outcome::Failed(Failure::new(FailureKind::Permanent, message));
        let operation = harness.finish_plain(&run.info, state, failure).await;
        harness.commit_one(operation).await;
    }
    let mut failed = harness.store.failures_of_run(run.info.key, 2, true).await.unwrap();
    failed.sort_by_key(|state| state.id);
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0].kind, FailureKind::Permanent);
    let messages: Vec<_> = failed.iter().map(|state| state.message.as_deref()).collect();
    assert_eq!(messages, [Some("ä".repeat(512).as_str()), Some("")]);
    let hidden = harness.store.failures_of_run(run.info.key, 2, false).await.unwrap();
    assert!(hidden.len() == 2 && hidden.iter().all(|state| state.message.is_none()));
}

async fn runs_add_up_the_cost_of_attempts(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let again = Outcome::Failed(Failure::new(FailureKind::Retryable, "again"));
    let retry = harness.finish_plain(&run.info, &run.root, again).await;
    harness.commit_one(used(retry, 500, 9_000)).await;
    harness.database.execute("UPDATE state SET due_at = 0, delayed = 0").await.unwrap();
    let state = harness.claim(1).await.remove(0);
    let end = harness.finish_plain(&run.info, &state, outputs(1)).await;
    harness.commit_one(used(end, 70, 4_000)).await;
    let view = harness.store.run(&run.info.namespace, run.info.id).await.unwrap().unwrap();
    assert_eq!((view.counters.cpu_us, view.counters.memory_bytes), (570, 9_000));
    let (namespace, graph) = (&run.info.namespace, &run.info.graph_name);
    let costs = harness.store.run_costs(namespace, graph, (0, i64::MAX), 9).await.unwrap();
    assert_eq!(costs.len(), 1);
    assert_eq!((costs[0].status, costs[0].cpu_us), (RunStatus::Success, 570));
    let none = harness.store.run_costs(namespace, graph, (0, 1), 9).await.unwrap();
    assert_eq!(none, []);
    harness.check().await;
}

async fn earlier_successes_are_of_one_graph(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut runs = Vec::new();
    for outcome in [
        outputs(1),
        outputs(1),
        Outcome::Failed(Failure::new(FailureKind::Permanent, "no")),
        outputs(1),
    ] {
        let run = harness.start(&template).await;
        let end = harness.finish_plain(&run.info, &run.root, outcome).await;
        harness.commit_one(end).await;
        runs.push(run.info);
    }
    let other = harness.start_of("A").await;
    let end = harness.finish_plain(&other.info, &other.root, outputs(1)).await;
    harness.commit_one(end).await;
    let earlier = harness.store.earlier_successes(runs[3].key, 9).await.unwrap();
    assert_eq!(earlier, [runs[1].id, runs[0].id]);
    assert_eq!(harness.store.earlier_successes(runs[3].key, 1).await.unwrap(), [runs[1].id]);
    assert_eq!(harness.store.earlier_successes(runs[0].key, 9).await.unwrap(), []);
}

/// Runs of an earlier schema have no costs; the migration adds up those that are stored.
async fn the_migration_adds_up_costs(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 2).await;
    let children = harness.commit_and_claim(used(fan, 5, 100)).await;
    let again = Outcome::Failed(Failure::new(FailureKind::Retryable, "again"));
    let retry = harness.finish_plain(&run.info, &children[0], again).await;
    harness.commit_one(used(retry, 30, 900)).await;
    let end = harness.finish_plain(&run.info, &children[1], outputs(1)).await;
    harness.commit_one(used(end, 200, 300)).await;
    let costs = || harness.database.rows("SELECT cpu_us, memory_bytes FROM run");
    let before = costs().await;
    harness.database.execute("UPDATE run SET cpu_us = 0, memory_bytes = 0").await.unwrap();
    let migration = match kind {
        Kind::Sqlite => include_str!("../../../../migrations/sqlite/0020_run_cost.sql"),
        Kind::Postgres => include_str!("../../../../migrations/postgres/0020_run_cost.sql"),
    };
    let from = migration.find("UPDATE run SET").unwrap();
    harness.database.execute(&migration[from..]).await.unwrap();
    assert_eq!(costs().await, before);
    assert_eq!(before, [[Some("235".to_owned()), Some("900".to_owned())]]);
}
