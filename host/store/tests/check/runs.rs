//! Runs of every kind, each in a state that a host may leave it in.

use std::collections::BTreeMap;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_store::{Answer, Member};
use serde_json::json;

use crate::harness::{Bed, Place, Run, outputs};

/// Returns a fanout and its unite, with a node before and one after. Nodes are R 0, U 1, X 2, W 3,
/// Z 4; paths R "", U `00`, X `0000`, `0010`.., W `00~3`, Z `00~300`.
pub fn fan() -> Sketch {
    Sketch::of("R > U; U > X; X > W; W(U) > Z").input("X", "own", "${{ U.outputs.v }}").input(
        "Z",
        "first",
        "${{ R.outputs.v }}",
    )
}

/// Returns unites in a unite: the design's example.
pub fn nested() -> Sketch {
    Sketch::of("A > B C; B > G F; G > E; E(B) > D; C > D; D(A)")
        .input("G", "first", "${{ A.outputs.v }}")
        .input("E", "first", "${{ A.outputs.v }}")
}

/// Returns two unites of one execution, and one that joins those.
pub fn forks() -> Sketch {
    Sketch::of("U > X; X > Y Z; Y > W1; Z > W2; W1(U) > J; W2(U) > J; J(U)")
}

/// Gives a node immediate retries.
pub fn retried(sketch: Sketch, node: &str) -> Sketch {
    sketch.with(node, |node| {
        node["retry_policy"] = json!({"max_retries": 2, "strategy": "FIXED", "backoff_factor": 1})
    })
}

pub type Fate = Option<(Outcome, Journal)>;

pub fn ends(outcome: Outcome) -> Fate {
    Some((outcome, Journal::default()))
}

pub fn fails(kind: FailureKind) -> Fate {
    ends(Outcome::Failed(Failure::new(kind, "so it is")))
}

/// Returns the fate of most runs: three branches, all successful.
fn well(node: &str) -> Fate {
    outputs(if matches!(node, "U" | "A" | "B") { 3 } else { 1 })
}

/// Returns all runs, by name.
pub async fn all(bed: &mut Bed, place: &Place) -> BTreeMap<&'static str, Run> {
    let mut runs = BTreeMap::new();
    over(bed, &mut runs).await;
    under_way(bed, &mut runs).await;
    failed(bed, place, &mut runs).await;
    cancelled_and_paused(bed, &mut runs).await;
    stores(bed, &mut runs).await;
    runs
}

type Runs = BTreeMap<&'static str, Run>;

async fn over(bed: &mut Bed, runs: &mut Runs) {
    for (name, sketch) in [("fan", fan()), ("nested", nested()), ("forks", forks())] {
        let run = bed.start(name, &sketch, &[]).await;
        bed.drive(&run, 2, |node, _| well(node)).await;
        runs.insert(name, run);
    }
    let run = bed.start("fan", &fan(), &[]).await;
    let pruned = |node: &str, _: &_| match node {
        "X" => ends(Outcome::Prune(Some("{\"why\":1}".into()))),
        other => well(other),
    };
    bed.drive(&run, 3, pruned).await;
    runs.insert("pruned", run);
    let run = bed.start("fan", &fan(), &[]).await;
    bed.drive(&run, 1, |node, _| outputs(usize::from(node != "U"))).await;
    runs.insert("empty", run);
    let wide = bed.start("fan", &fan(), &[]).await;
    bed.drive(&wide, 50, |node, _| outputs(if node == "U" { 150 } else { 1 })).await;
    runs.insert("wide", wide);
}

async fn under_way(bed: &mut Bed, runs: &mut Runs) {
    let run = bed.start("fan", &fan(), &[]).await;
    // One has ended, one is claimed, one has requeued.
    let fate = |node: &str, state: &exosphere_domain::state::Claimed| match node {
        "X" if state.place.path.as_str() == "0010" => None,
        "X" if state.place.path.as_str() == "0020" => ends(Outcome::RequeueAfter(1_000_000_000)),
        other => well(other),
    };
    bed.drive(&run, 2, fate).await;
    runs.insert("open", run);
    let run = bed.start("again", &retried(fan(), "X"), &[]).await;
    // Retried for every possible reason.
    let fate =
        |node: &str, state: &exosphere_domain::state::Claimed| match (node, state.tries.attempt) {
            ("X", 1) => fails(FailureKind::Retryable),
            ("X", 2) => ends(Outcome::RequeueAfter(1)),
            ("X", 3) => ends(Outcome::HostLost),
            ("X", 4) if state.tries.losses == 1 && state.claim.fence.0 == 4 => {
                ends(Outcome::Released)
            }
            ("X", 4) => ends(Outcome::Conflict),
            (other, _) => well(other),
        };
    bed.drive(&run, 2, fate).await;
    runs.insert("again", run);
}

async fn failed(bed: &mut Bed, place: &Place, runs: &mut Runs) {
    let one_fails = |node: &str, state: &exosphere_domain::state::Claimed| match node {
        "X" if state.place.path.as_str().ends_with("10") => fails(FailureKind::Permanent),
        "G" if state.place.path.as_str().ends_with("10") => fails(FailureKind::Trap),
        other => well(other),
    };
    let run = bed.start("fan", &fan(), &[]).await;
    bed.drive(&run, 2, one_fails).await;
    runs.insert("failed", run);
    let sketch = || retried(nested(), "G");
    let run = bed.start("nested-failed", &sketch(), &[]).await;
    bed.drive(&run, 4, one_fails).await;
    runs.insert("nested-failed", run.clone());
    // A retry opens both unites above, and is left so.
    let run = bed.start("nested-failed", &sketch(), &[]).await;
    bed.drive(&run, 4, one_fails).await;
    let state = bed.failed(place, &run).await;
    assert_eq!(bed.one(Member::Retry { run: run.info.clone(), state }).await, Answer::Done);
    runs.insert("reopened", run);
    let run = bed.start("fan", &fan(), &[]).await;
    bed.drive(&run, 2, one_fails).await;
    let state = bed.failed(place, &run).await;
    assert_eq!(bed.one(Member::Retry { run: run.info.clone(), state }).await, Answer::Done);
    bed.drive(&run, 2, |node, _| well(node)).await;
    runs.insert("healed", run);
    let run = bed.start("fan", &fan(), &[]).await;
    bed.drive(
        &run,
        2,
        |node, _| if node == "X" { fails(FailureKind::InvalidOutput) } else { well(node) },
    )
    .await;
    let redrive = bed.redrive(&run).await;
    let answer = bed.one(redrive).await;
    assert_eq!(answer, Answer::Redriven { states: 3, late: 0 });
    bed.drive(&run, 1, |node, state| {
        (state.place.path.as_str() != "0010").then(|| well(node)).flatten()
    })
    .await;
    runs.insert("redriven", run);
    let tolerant = fan().with("W", |node| node["unites"]["strategy"] = json!("ALL_DONE"));
    let run = bed.start("tolerant", &tolerant, &[]).await;
    bed.drive(&run, 2, one_fails).await;
    runs.insert("tolerant", run);
}

async fn cancelled_and_paused(bed: &mut Bed, runs: &mut Runs) {
    let under_way = |node: &str, state: &exosphere_domain::state::Claimed| match node {
        "X" if state.place.path.as_str() != "0000" => None,
        other => well(other),
    };
    for (name, steps) in [("cancelled", usize::MAX), ("half-swept", 2)] {
        let run = bed.start("fan", &fan(), &[("k", "v")]).await;
        bed.drive(&run, 2, under_way).await;
        let Answer::ToSweep(event) = bed.one(Member::Cancel(run.info.clone())).await else {
            panic!("{name}")
        };
        bed.sweep(&run, event, 2, steps).await;
        bed.held.retain(|state| state.run != run.info.key);
        runs.insert(name, run);
    }
    for (name, steps) in [("paused", usize::MAX), ("half-paused", 2)] {
        let run = bed.start("fan", &fan(), &[]).await;
        bed.drive(&run, 2, |node, _| if node == "X" { None } else { well(node) }).await;
        let held: Vec<_> = bed.held.extract_if(.., |state| state.run == run.info.key).collect();
        let pause = Member::Pause { run: run.info.clone(), paused: true };
        let mut members = Vec::new();
        for state in held.iter().take(2) {
            members.push(
                bed.finished(&run, state, Outcome::RequeueAfter(1), Journal::default()).await,
            );
        }
        bed.commit(members, exosphere_store::Want::Births(0)).await;
        let Answer::ToSweep(event) = bed.one(pause).await else { panic!("{name}") };
        bed.sweep(&run, event, 2, steps).await;
        // One more becomes free while the run is paused.
        let last = bed.finished(&run, &held[2], Outcome::RequeueAfter(1), Journal::default()).await;
        bed.one(last).await;
        runs.insert(name, run);
    }
    let run = runs["paused"].clone();
    let resumed = bed.start("fan", &fan(), &[]).await;
    bed.drive(&resumed, 2, |node, _| if node == "X" { None } else { well(node) }).await;
    for paused in [true, false] {
        let pause = Member::Pause { run: resumed.info.clone(), paused };
        let Answer::ToSweep(event) = bed.one(pause).await else { panic!() };
        bed.sweep(&resumed, event, 100, 9).await;
    }
    bed.drive(&resumed, 2, |node, _| well(node)).await;
    runs.insert("resumed", resumed);
    assert!(bed.held.iter().all(|state| state.run != run.info.key), "paused is paused");
}

async fn stores(bed: &mut Bed, runs: &mut Runs) {
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
    let run = bed.start("kept", &kept(), &[("n", "1"), ("gone", "1")]).await;
    let mut remove = Journal::default();
    remove.remove("gone").unwrap();
    bed.drive(&run, 2, |node, _| {
        let (outcome, _) = well(node)?;
        let journal = if node == "R" { remove.clone() } else { write(node) };
        Some((outcome, journal))
    })
    .await;
    runs.insert("kept", run);
    let run = bed.start("fan", &fan(), &[("k", "v")]).await;
    bed.drive(&run, 2, |node, _| Some((well(node)?.0, write(node)))).await;
    runs.insert("cleared", run);
    let run = bed.start("fan", &fan(), &[("k", "v")]).await;
    bed.drive(&run, 2, |node, _| match node {
        "Z" => fails(FailureKind::Permanent),
        other => Some((well(other)?.0, write(other))),
    })
    .await;
    runs.insert("failed-store", run);
}
