//! Fixed unite cases: the documented examples, and each way in which a unite can end. All but the
//! largest run in lockstep with the reference model.
//!
//! Not here: random cases (`main`).

use exosphere_domain::ids::SessionId;
use exosphere_domain::state::{Counter, RunStatus, Status};
use exosphere_domain::testing::SeededRng;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::lockstep::{Lockstep, domain_graph};
use crate::outcomes::ScriptedOutcome;
use crate::reference::Refusal;
use crate::shape::{Graph, MaxFailed, Strategy};
use crate::simulation::FaultPlan;

pub const SPLIT: &str = "splitter > worker; worker > merger; merger(splitter)";

fn strategy(mut graph: Graph, unite: &str, strategy: Strategy) -> Graph {
    let place = graph.node_index(unite);
    graph.nodes[place].unites.as_mut().unwrap().strategy = strategy;
    graph
}

pub fn any_ends(graph: Graph, unite: &str) -> Graph {
    strategy(graph, unite, Strategy::AllDone(MaxFailed::Any))
}

/// Runs a graph in lockstep to its end. A state without a scripted outcome returns one output.
pub fn run(
    graph: &Graph,
    outcomes: impl Fn(&str, &str, u32) -> Option<ScriptedOutcome> + 'static,
) -> Lockstep {
    let outcomes = move |node: &str, key: &str, before| {
        outcomes(node, key, before).unwrap_or(ScriptedOutcome::Outputs(1))
    };
    let mut lockstep = Lockstep::new(graph, Box::new(outcomes));
    finish(&mut lockstep);
    lockstep
}

pub fn finish(lockstep: &mut Lockstep) {
    lockstep.simulate(&mut SeededRng::new(7), FaultPlan::default());
    lockstep.compare_end();
}

/// Returns the names of the scopes in which a node's states are counted: unites, or `run`.
fn scope_names(lockstep: &Lockstep, node: &str) -> Vec<String> {
    let engine = &lockstep.engine;
    let name = |counter: &Counter| match counter {
        Counter::Run => "run".to_owned(),
        Counter::Unite(id) => {
            let row = engine.rows.iter().find(|row| row.id == *id).unwrap();
            lockstep.graph.nodes[row.place.node.at()].name.clone()
        }
    };
    let mut all: Vec<_> =
        engine.all(node).iter().flat_map(|row| engine.counters(row)).map(|c| name(&c)).collect();
    all.sort();
    all.dedup();
    all
}

fn input(lockstep: &Lockstep, node: &str, name: &str) -> Value {
    let rows = lockstep.engine.all(node);
    let [row] = rows.as_slice() else { panic!("{node} has not exactly one state") };
    row.inputs.as_ref().expect("the state has run")[name].clone()
}

pub fn status(lockstep: &Lockstep, node: &str) -> Status {
    let rows = lockstep.engine.all(node);
    let [row] = rows.as_slice() else { panic!("{node} has not exactly one state") };
    row.status
}

fn branch_statuses(lockstep: &Lockstep, unite: &str) -> Vec<Value> {
    let branches = input(lockstep, unite, "branches");
    branches.as_array().unwrap().iter().map(|branch| branch["status"].clone()).collect()
}

#[test]
fn states_count_in_their_innermost_unite() {
    let graph = Graph::draw("A > B C; B > G F; G > E; E(B) > D; C > D; D(A)");
    let lockstep =
        run(&graph, |node, _, _| ["A", "B"].contains(&node).then_some(ScriptedOutcome::Outputs(3)));
    assert_eq!(scope_names(&lockstep, "G"), ["E"]);
    for member in ["B", "C", "E"] {
        assert_eq!(scope_names(&lockstep, member), ["D"], "{member}");
    }
    for outermost in ["A", "D", "F"] {
        assert_eq!(scope_names(&lockstep, outermost), ["run"], "{outermost}");
    }
    assert_eq!(lockstep.engine.all("E").len(), 3);
    assert_eq!(input(&lockstep, "D", "G").as_array().unwrap().len(), 9);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
}

#[test]
fn a_side_branch_does_not_delay_unites() {
    let graph = Graph::draw("A > B C; B > D; C; D(A)");
    let mut engine = Engine::new(domain_graph(&graph).unwrap());
    for node in ["A", "B"] {
        let at = engine.rows.iter().position(|row| row.key == engine.all(node)[0].key).unwrap();
        let claim = engine.claim(at, SessionId(1));
        engine.commit(&[(at, claim, ScriptedOutcome::Outputs(1))]);
    }
    assert_eq!(engine.all("D")[0].status, Status::Created);
    assert_eq!(engine.all("C")[0].status, Status::Created);
}

#[test]
fn unites_reachable_around_their_source_are_rejected() {
    let graph = Graph::draw("A > U W; U > X; X > W; W(U)");
    let problems = domain_graph(&graph).unwrap_err();
    assert!(problems.iter().any(|problem| problem.path.ends_with("unites.identifier")));
}

#[test]
fn unite_sources_in_closed_scopes_are_rejected() {
    let graph = Graph::draw("A > U; U > X; X > V; V(A) > W; W(U)");
    let problems = domain_graph(&graph).unwrap_err();
    assert!(problems.iter().any(|problem| problem.path.ends_with("unites.identifier")));
}

#[test]
fn a_unites_successor_cannot_reference_its_source() {
    let mut graph = Graph::draw("U > X n; X > W; W(U) > n");
    let (n, u) = (graph.node_index("n"), graph.node_index("U"));
    graph.nodes[n].singles = vec![u];
    let problems = domain_graph(&graph).unwrap_err();
    assert_eq!(problems[0].path, format!("$.nodes[{n}].inputs.U"));
}

#[test]
fn two_unites_of_one_source_join() {
    let graph = Graph::draw("U > X Y; X > W1; Y > W2; W1(U) > J; W2(U) > J; J(U)");
    let lockstep = run(&graph, |node, _, _| (node == "U").then_some(ScriptedOutcome::Outputs(2)));
    assert_eq!(scope_names(&lockstep, "W1"), ["J"]);
    assert_eq!(scope_names(&lockstep, "W2"), ["J"]);
    assert_eq!(scope_names(&lockstep, "X"), ["W1"]);
    assert_eq!(input(&lockstep, "J", "X"), json!(["/0.0#0", "/1.0#0"]));
    assert_eq!(input(&lockstep, "J", "W1").as_array().unwrap().len(), 1);
    assert_eq!(branch_statuses(&lockstep, "J"), ["SUCCESS", "SUCCESS"]);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
}

#[test]
fn a_state_counts_in_two_parallel_unites() {
    let graph = Graph::draw("U > X; X > Y Z; Y > W1; Z > W2; W1(U); W2(U)");
    let lockstep =
        run(&graph, |node, _, _| (node == "X").then_some(ScriptedOutcome::Fail("permanent")));
    assert_eq!(scope_names(&lockstep, "X"), ["W1", "W2"]);
    assert_eq!(status(&lockstep, "W1"), Status::Errored);
    assert_eq!(status(&lockstep, "W2"), Status::Errored);
    assert_eq!(lockstep.engine.run.failed, 2);
}

#[test]
fn a_retry_past_one_unite_is_rejected() {
    let graph = Graph::draw("U > X; X > Y Z; Y > W1; Z > W2; W1(U); W2(U)");
    let graph = any_ends(graph, "W2");
    let mut lockstep =
        run(&graph, |node, _, _| (node == "X").then_some(ScriptedOutcome::Fail("permanent")));
    let at = lockstep.engine.rows.iter().position(|row| row.key == "/0.0").unwrap();
    assert_eq!(lockstep.retry(at), Err(Refusal::UnitePassed));
    assert_eq!(lockstep.engine.status, RunStatus::Failed);
}

#[test]
fn gathers_span_edges_of_different_depths() {
    let graph = Graph::draw("U > X W; X > Y W; Y > W; W(U)");
    let lockstep =
        run(&graph, |node, _, _| ["U", "X"].contains(&node).then_some(ScriptedOutcome::Outputs(2)));
    assert_eq!(input(&lockstep, "W", "U"), json!(["/#0", "/#1"]));
    assert_eq!(input(&lockstep, "W", "X"), json!(["/0.0#0", "/0.0#1", "/1.0#0", "/1.0#1"]));
    let expected = ["/0.0/0.0#0", "/0.0/1.0#0", "/1.0/0.0#0", "/1.0/1.0#0"];
    assert_eq!(input(&lockstep, "W", "Y"), json!(expected));
    assert_eq!(lockstep.engine.all("W")[0].unite.as_ref().unwrap().counts.arrived, 10);
}

#[test]
fn branches_merge_once_in_order() {
    for branches in [1, 2, 10_000] {
        let mut engine = Engine::new(domain_graph(&Graph::draw(SPLIT)).unwrap());
        let splitter = |at: usize| if at == 0 { branches } else { 1 };
        while engine.status == RunStatus::Running {
            let mut due = engine.claimable();
            SeededRng::new(3).shuffle(&mut due);
            let claim = |&at: &usize| {
                (at, engine.claim(at, SessionId(1)), ScriptedOutcome::Outputs(splitter(at)))
            };
            let ended: Vec<_> = due.iter().map(claim).collect();
            for batch in ended.chunks(256) {
                engine.commit(batch);
            }
        }
        assert_eq!(engine.status, RunStatus::Success);
        assert_eq!(engine.rows.len() as u32, branches + 2);
        let merged: Vec<_> = (0..branches).map(|branch| format!("/{branch}.0#0")).collect();
        assert_eq!(engine.all("merger")[0].inputs.as_ref().unwrap()["worker"], json!(merged));
    }
}

#[test]
fn an_empty_fanout_prunes_the_unite() {
    let lockstep = run(&Graph::draw(SPLIT), |node, _, _| {
        (node == "splitter").then_some(ScriptedOutcome::Outputs(0))
    });
    assert_eq!(status(&lockstep, "merger"), Status::Pruned);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
}

#[test]
fn a_retry_reopens_the_blocked_unite() {
    let mut lockstep = run(&Graph::draw(SPLIT), |node, key, before| match node {
        "splitter" => Some(ScriptedOutcome::Outputs(3)),
        _ => (key == "/1.0" && before == 0).then_some(ScriptedOutcome::Fail("permanent")),
    });
    assert_eq!(lockstep.engine.status, RunStatus::Failed);
    assert_eq!(status(&lockstep, "merger"), Status::Errored);
    let failure = lockstep.engine.all("merger")[0].failure.clone().unwrap();
    assert_eq!(failure.kind.as_str(), "blocked");
    let expected = "1 of its members failed: branch 1: worker (permanent: /1.0 fails). Retry those to heal it.";
    assert_eq!(failure.message, expected);
    let merger = lockstep.engine.rows.iter().position(|row| row.unite.is_some()).unwrap();
    assert_eq!(lockstep.retry(merger), Err(Refusal::Blocked));
    let worker = lockstep.engine.rows.iter().position(|row| row.key == "/1.0").unwrap();
    assert_eq!(lockstep.retry(worker), Ok(()));
    assert_eq!(lockstep.engine.status, RunStatus::Running);
    assert_eq!(status(&lockstep, "merger"), Status::Waiting);
    finish(&mut lockstep);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
    assert_eq!(input(&lockstep, "merger", "worker"), json!(["/0.0#0", "/1.0#0", "/2.0#0"]));
}

#[test]
fn all_done_gathers_null_for_failed_branches() {
    let graph = any_ends(Graph::draw(SPLIT), "merger");
    let mut lockstep = run(&graph, |node, key, _| match (node, key) {
        ("splitter", _) => Some(ScriptedOutcome::Outputs(4)),
        (_, "/1.0") => Some(ScriptedOutcome::Fail("permanent")),
        (_, "/2.0") => Some(ScriptedOutcome::Prune),
        _ => None,
    });
    assert_eq!(lockstep.engine.status, RunStatus::Success);
    assert_eq!(input(&lockstep, "merger", "worker"), json!(["/0.0#0", null, "/3.0#0"]));
    assert_eq!(branch_statuses(&lockstep, "merger"), ["SUCCESS", "ERRORED", "PRUNED", "SUCCESS"]);
    let error = json!({"identifier": "worker", "kind": "permanent", "message": "/1.0 fails"});
    assert_eq!(input(&lockstep, "merger", "branches")[1]["error"], error);
    let worker = lockstep.engine.rows.iter().position(|row| row.key == "/1.0").unwrap();
    assert_eq!(lockstep.retry(worker), Err(Refusal::UnitePassed));
}

#[test]
fn failures_above_max_failed_block() {
    let fails = |max_failed| {
        let graph = strategy(Graph::draw(SPLIT), "merger", Strategy::AllDone(max_failed));
        let lockstep = run(&graph, |node, key, _| match (node, key) {
            ("splitter", _) => Some(ScriptedOutcome::Outputs(4)),
            (_, "/1.0" | "/3.0") => Some(ScriptedOutcome::Fail("permanent")),
            _ => None,
        });
        status(&lockstep, "merger")
    };
    assert_eq!(fails(MaxFailed::Count(2)), Status::Success);
    assert_eq!(fails(MaxFailed::Count(1)), Status::Errored);
    assert_eq!(fails(MaxFailed::Percent(50)), Status::Success);
    assert_eq!(fails(MaxFailed::Percent(49)), Status::Errored);
}

#[test]
fn all_pruned_branches_follow_on_empty() {
    let outcomes = |node: &str, _: &str, _| match node {
        "splitter" => Some(ScriptedOutcome::Outputs(3)),
        "worker" => Some(ScriptedOutcome::Prune),
        _ => None,
    };
    let mut graph = Graph::draw(SPLIT);
    let lockstep = run(&graph, outcomes);
    assert_eq!(status(&lockstep, "merger"), Status::Pruned);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
    let merger = graph.node_index("merger");
    graph.nodes[merger].unites.as_mut().unwrap().run_when_empty = true;
    let lockstep = run(&graph, outcomes);
    assert_eq!(status(&lockstep, "merger"), Status::Success);
    assert_eq!(input(&lockstep, "merger", "worker"), json!([]));
    assert_eq!(branch_statuses(&lockstep, "merger"), ["PRUNED", "PRUNED", "PRUNED"]);
}

#[test]
fn a_blocked_inner_unite_leaves_one_gap() {
    let graph = Graph::draw("A > B; B > X; X > V; V(B) > Z; Z > W; W(A)");
    let outcomes = |node: &str, key: &str, _| match (node, key) {
        ("A" | "B", _) => Some(ScriptedOutcome::Outputs(2)),
        ("X", "/0.0/1.0") => Some(ScriptedOutcome::Fail("permanent")),
        _ => None,
    };
    // The inner unite is blocked: one gap for it and for everything after it.
    let lockstep = run(&any_ends(graph.clone(), "W"), outcomes);
    assert_eq!(input(&lockstep, "W", "X"), json!(["/0.0/0.0#0", null, "/1.0/0.0#0", "/1.0/1.0#0"]));
    assert_eq!(input(&lockstep, "W", "V"), json!([null, "/1.0/u3#0"]));
    assert_eq!(input(&lockstep, "W", "Z"), json!([null, "/1.0/u3/0.0#0"]));
    // The inner unite ran: a gap for the failed state alone.
    let lockstep = run(&any_ends(graph, "V"), outcomes);
    assert_eq!(input(&lockstep, "W", "X"), json!(["/0.0/0.0#0", null, "/1.0/0.0#0", "/1.0/1.0#0"]));
    assert_eq!(input(&lockstep, "W", "V"), json!(["/0.0/u3#0", "/1.0/u3#0"]));
    assert_eq!(branch_statuses(&lockstep, "W"), ["SUCCESS", "SUCCESS"]);
}
