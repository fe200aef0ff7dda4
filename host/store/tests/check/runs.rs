//! Runs of every kind, each in a state in which a host may leave it.

use std::collections::BTreeMap;

use exosphere_domain::bulk::BulkAction;
use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::filter::RunFilter;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::BulkId;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_store::{BulkBegin, BulkStep, Control, NewBulk, Operation, Reply, RunCount};
use serde_json::json;

use crate::harness::{Harness, Run, TestDatabase, outputs};

/// Returns a fanout and its unite, with a node before and one after. Nodes are R 0, U 1, X 2, W 3,
/// Z 4; paths R "", U `00`, X `0000`, `0010`.., W `00~3`, Z `00~300`.
pub fn fan() -> GraphBuilder {
    GraphBuilder::from_text("R > U; U > X; X > W; W(U) > Z")
        .input("X", "own", "${{ U.outputs.v }}")
        .input("Z", "first", "${{ R.outputs.v }}")
}

/// Returns nested unites: the example of the documentation.
pub fn nested() -> GraphBuilder {
    GraphBuilder::from_text("A > B C; B > G F; G > E; E(B) > D; C > D; D(A)")
        .input("G", "first", "${{ A.outputs.v }}")
        .input("E", "first", "${{ A.outputs.v }}")
}

/// Returns two unites of one execution, and one that joins those.
pub fn forks() -> GraphBuilder {
    GraphBuilder::from_text("U > X; X > Y Z; Y > W1; Z > W2; W1(U) > J; W2(U) > J; J(U)")
}

/// Gives a node immediate retries.
pub fn retried(builder: GraphBuilder, node: &str) -> GraphBuilder {
    builder.with(node, |node| {
        node["retry_policy"] = json!({"max_retries": 2, "strategy": "FIXED", "backoff_factor": 1})
    })
}

pub type Ending = Option<(Outcome, Journal)>;

pub fn ends(outcome: Outcome) -> Ending {
    Some((outcome, Journal::default()))
}

pub fn fails(kind: FailureKind) -> Ending {
    ends(Outcome::Failed(Failure::new(kind, "failed on purpose")))
}

/// Returns the default ending: three branches, all successful.
fn well(node: &str) -> Ending {
    outputs(if matches!(node, "U" | "A" | "B") { 3 } else { 1 })
}

/// Returns all runs, by name.
pub async fn all(harness: &mut Harness, database: &TestDatabase) -> BTreeMap<&'static str, Run> {
    let mut runs = BTreeMap::new();
    finished_runs(harness, &mut runs).await;
    running_runs(harness, &mut runs).await;
    failed(harness, database, &mut runs).await;
    cancelled_and_paused(harness, &mut runs).await;
    stores(harness, &mut runs).await;
    bulks(harness, &runs).await;
    runs
}

/// Begins two bulk operations: one that is over, and one on the way, which has skipped a run.
async fn bulks(harness: &mut Harness, runs: &Runs) {
    for (number, reason) in [(1, "over"), (2, "on the way")] {
        let new = NewBulk {
            id: BulkId(uuid::Uuid::from_u128(number)),
            namespace: "n".parse().unwrap(),
            action: BulkAction::Delete,
            filter: RunFilter {
                graph: Some("fan".parse().unwrap()),
                created_before: Some(1),
                ..RunFilter::default()
            },
            reason: reason.to_owned(),
            created_by: None,
            expected: RunCount { runs: 0, is_exact: true },
            key: None,
        };
        assert_eq!(harness.store.begin_bulk(&new, 1_000_000).await.unwrap(), BulkBegin::Begun);
    }
    let session = exosphere_domain::ids::SessionId(1);
    let pages = harness.store.running_bulks(session, "", 9).await.unwrap();
    let (runs_of_page, next) = harness.store.runs_of_bulk(&pages[0], 9).await.unwrap();
    assert_eq!((runs_of_page, next), (Vec::new(), None));
    harness.store.end_page_of_bulk(&pages[0], next, 1_000_000).await.unwrap();
    let step = BulkStep {
        bulk: pages[1].id,
        page: pages[1].page,
        ended_before: Some(1),
        change: Control::Delete,
    };
    let step = Operation::Control(runs["fan"].info.clone(), Control::Bulk(step.into()));
    let reply = harness.commit_one(step).await;
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
}

type Runs = BTreeMap<&'static str, Run>;

async fn finished_runs(harness: &mut Harness, runs: &mut Runs) {
    for (name, builder) in [("fan", fan()), ("nested", nested()), ("forks", forks())] {
        let run = harness.start(name, &builder, &[]).await;
        harness.drive(&run, 2, |node, _| well(node)).await;
        runs.insert(name, run);
    }
    let run = harness.start("fan", &fan(), &[]).await;
    let pruned = |node: &str, _: &_| match node {
        "X" => ends(Outcome::Prune(Some("{\"why\":1}".into()))),
        other => well(other),
    };
    harness.drive(&run, 3, pruned).await;
    runs.insert("pruned", run);
    let run = harness.start("fan", &fan(), &[]).await;
    harness.drive(&run, 1, |node, _| outputs(usize::from(node != "U"))).await;
    runs.insert("empty", run);
    let wide = harness.start("fan", &fan(), &[]).await;
    harness.drive(&wide, 50, |node, _| outputs(if node == "U" { 150 } else { 1 })).await;
    runs.insert("wide", wide);
}

async fn running_runs(harness: &mut Harness, runs: &mut Runs) {
    let run = harness.start("fan", &fan(), &[]).await;
    // One has ended, one is claimed, one has requeued.
    let ending = |node: &str, state: &exosphere_domain::state::Claimed| match node {
        "X" if state.place.path.as_str() == "0010" => None,
        "X" if state.place.path.as_str() == "0020" => ends(Outcome::RequeueAfter(1_000_000_000)),
        other => well(other),
    };
    harness.drive(&run, 2, ending).await;
    runs.insert("open", run);
    let run = harness.start("again", &retried(fan(), "X"), &[]).await;
    // Retried for every possible reason.
    let ending =
        |node: &str, state: &exosphere_domain::state::Claimed| match (node, state.attempts.attempt)
        {
            ("X", 1) => fails(FailureKind::Retryable),
            ("X", 2) => ends(Outcome::RequeueAfter(1)),
            ("X", 3) => ends(Outcome::HostLost),
            ("X", 4) if state.attempts.host_losses == 1 && state.claim.fence.0 == 4 => {
                ends(Outcome::Released)
            }
            ("X", 4) => ends(Outcome::Conflict),
            (other, _) => well(other),
        };
    harness.drive(&run, 2, ending).await;
    runs.insert("again", run);
}

async fn failed(harness: &mut Harness, database: &TestDatabase, runs: &mut Runs) {
    let failing_branch = |node: &str, state: &exosphere_domain::state::Claimed| match node {
        "X" if state.place.path.as_str().ends_with("10") => fails(FailureKind::Permanent),
        "G" if state.place.path.as_str().ends_with("10") => fails(FailureKind::Trap),
        other => well(other),
    };
    let run = harness.start("fan", &fan(), &[]).await;
    harness.drive(&run, 2, failing_branch).await;
    runs.insert("failed", run);
    let builder = || retried(nested(), "G");
    let run = harness.start("nested-failed", &builder(), &[]).await;
    harness.drive(&run, 4, failing_branch).await;
    runs.insert("nested-failed", run.clone());
    // A retry reopens both unites above.
    let run = harness.start("nested-failed", &builder(), &[]).await;
    harness.drive(&run, 4, failing_branch).await;
    let state = harness.failed(database, &run).await;
    assert_eq!(
        harness.commit_one(Operation::Control(run.info.clone(), Control::Retry(state))).await,
        Reply::Done
    );
    runs.insert("reopened", run);
    let run = harness.start("fan", &fan(), &[]).await;
    harness.drive(&run, 2, failing_branch).await;
    let state = harness.failed(database, &run).await;
    assert_eq!(
        harness.commit_one(Operation::Control(run.info.clone(), Control::Retry(state))).await,
        Reply::Done
    );
    harness.drive(&run, 2, |node, _| well(node)).await;
    runs.insert("healed", run);
    let run = harness.start("fan", &fan(), &[]).await;
    harness
        .drive(
            &run,
            2,
            |node, _| if node == "X" { fails(FailureKind::InvalidOutput) } else { well(node) },
        )
        .await;
    let redrive = harness.redrive(&run).await;
    let answer = harness.commit_one(redrive).await;
    assert_eq!(answer, Reply::Redriven { states: 3, late: 0 });
    harness
        .drive(&run, 1, |node, state| {
            (state.place.path.as_str() != "0010").then(|| well(node)).flatten()
        })
        .await;
    runs.insert("redriven", run);
    let all_done = fan().with("W", |node| node["unites"]["strategy"] = json!("ALL_DONE"));
    let run = harness.start("tolerant", &all_done, &[]).await;
    harness.drive(&run, 2, failing_branch).await;
    runs.insert("tolerant", run);
}

async fn cancelled_and_paused(harness: &mut Harness, runs: &mut Runs) {
    let under_way = |node: &str, state: &exosphere_domain::state::Claimed| match node {
        "X" if state.place.path.as_str() != "0000" => None,
        other => well(other),
    };
    for (name, steps) in [("cancelled", usize::MAX), ("half-swept", 2)] {
        let run = harness.start("fan", &fan(), &[("k", "v")]).await;
        harness.drive(&run, 2, under_way).await;
        let Reply::ToSweep(event) =
            harness.commit_one(Operation::Control(run.info.clone(), Control::Cancel)).await
        else {
            panic!("{name}")
        };
        harness.sweep(&run, event, 2, steps).await;
        harness.held.retain(|state| state.run != run.info.key);
        runs.insert(name, run);
    }
    for (name, steps) in [("paused", usize::MAX), ("half-paused", 2)] {
        let run = harness.start("fan", &fan(), &[]).await;
        harness.drive(&run, 2, |node, _| if node == "X" { None } else { well(node) }).await;
        let held: Vec<_> = harness.held.extract_if(.., |state| state.run == run.info.key).collect();
        let pause = Operation::Control(run.info.clone(), Control::Pause);
        let mut operations = Vec::new();
        for state in held.iter().take(2) {
            operations.push(
                harness.finish(&run, state, Outcome::RequeueAfter(1), Journal::default()).await,
            );
        }
        harness.commit(operations, exosphere_store::ClaimMode::NewOnly(0)).await;
        let Reply::ToSweep(event) = harness.commit_one(pause).await else { panic!("{name}") };
        harness.sweep(&run, event, 2, steps).await;
        // One more becomes free while the run is paused.
        let last =
            harness.finish(&run, &held[2], Outcome::RequeueAfter(1), Journal::default()).await;
        harness.commit_one(last).await;
        runs.insert(name, run);
    }
    let run = runs["paused"].clone();
    let resumed = harness.start("fan", &fan(), &[]).await;
    harness.drive(&resumed, 2, |node, _| if node == "X" { None } else { well(node) }).await;
    for paused in [true, false] {
        let pause = Operation::Control(
            resumed.info.clone(),
            if paused { Control::Pause } else { Control::Resume },
        );
        let Reply::ToSweep(event) = harness.commit_one(pause).await else { panic!() };
        harness.sweep(&resumed, event, 100, 9).await;
    }
    harness.drive(&resumed, 2, |node, _| well(node)).await;
    runs.insert("resumed", resumed);
    assert!(
        harness.held.iter().all(|state| state.run != run.info.key),
        "a state of the paused run was claimed"
    );
}

async fn stores(harness: &mut Harness, runs: &mut Runs) {
    let write = |value: &str| {
        let mut journal = Journal::default();
        journal.set("späť", value.into()).unwrap();
        journal.set("nul", format!("{value}\0\u{1}")).unwrap();
        journal.increment("n", 2).unwrap();
        journal
    };
    let kept = || {
        fan().store(json!({"keep": true, "default_values": {"n": "1"}})).input(
            "Z",
            "n",
            "${{ store.n }}",
        )
    };
    let run = harness.start("kept", &kept(), &[("n", "1"), ("gone", "1")]).await;
    let mut remove = Journal::default();
    remove.remove("gone").unwrap();
    harness
        .drive(&run, 2, |node, _| {
            let (outcome, _) = well(node)?;
            let journal = if node == "R" { remove.clone() } else { write(node) };
            Some((outcome, journal))
        })
        .await;
    runs.insert("kept", run);
    let run = harness.start("fan", &fan(), &[("k", "v")]).await;
    harness.drive(&run, 2, |node, _| Some((well(node)?.0, write(node)))).await;
    runs.insert("cleared", run);
    let run = harness.start("fan", &fan(), &[("k", "v")]).await;
    harness
        .drive(&run, 2, |node, _| match node {
            "Z" => fails(FailureKind::Permanent),
            other => Some((well(other)?.0, write(other))),
        })
        .await;
    runs.insert("failed-store", run);
}
