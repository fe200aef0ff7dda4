//! Deletion of runs, graphs and plugins, and the removal of deleted runs in pieces.

use std::sync::Arc;

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_store::{
    AuditFilter, ClaimMode, Control, GraphDeletion, Operation, PluginRemoval, Removal, Reply,
    Uploads,
};

use crate::harness::{Harness, Run, apply_graph, fails, name, outputs, pause, sets};
use crate::test_database::Kind;

on_both! {
    a_deleted_run_leaves_no_rows,
    an_unfinished_run_is_not_deleted,
    a_removal_is_bounded_and_resumes,
    a_cancelled_run_is_deleted_before_its_sweep,
    a_deleted_run_frees_its_key,
    a_graph_with_unfinished_runs_stays,
    a_graph_is_deleted_with_its_runs,
    an_upload_in_use_is_not_removed,
    an_unused_upload_is_removed,
    an_apply_needs_its_uploads,
}

/// The tables that hold rows of a run.
const TABLES: [&str; 10] = [
    "run",
    "state",
    "output",
    "attempt",
    "unite",
    "entry",
    "staged",
    "staged_snapshot",
    "deleted_run",
    "run_pause",
];

async fn rows(harness: &Harness) -> Vec<(&'static str, i64)> {
    let mut left = Vec::new();
    for table in TABLES {
        match harness.number(&format!("SELECT COUNT(*) FROM {table}")).await {
            0 => {}
            count => left.push((table, count)),
        }
    }
    left
}

fn delete(run: &Run) -> Operation {
    Operation::Control(run.info.clone(), Control::Delete)
}

/// Removes everything that deleted runs have left. Returns the number of pieces.
async fn remove_all(harness: &Harness) -> usize {
    let mut pieces = 0;
    for run in harness.store.deleted_runs(100).await.unwrap() {
        let mut from = String::new();
        while let Removal::More(next) = harness.store.remove_piece(run, &from, 1).await.unwrap() {
            from = next;
            pieces += 1;
        }
    }
    pieces
}

/// Starts a run of one node and ends it, with an entry in its store and a failed attempt.
async fn failed_run(harness: &Harness) -> Run {
    let run = harness.start_of("A").await;
    let sets = harness.finish(&run.info, &run.root, Outcome::RequeueAfter(1), sets("k", "v")).await;
    assert_eq!(harness.commit_one(sets).await, Reply::Done);
    harness.advance(2).await;
    let held = harness.claim(1).await.remove(0);
    let end = harness.finish_plain(&run.info, &held, fails(FailureKind::Permanent)).await;
    assert_eq!(harness.commit_one(end).await, Reply::Done);
    run
}

async fn a_deleted_run_leaves_no_rows(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = failed_run(&harness).await;
    assert_eq!(harness.commit_one(delete(&run)).await, Reply::Done);
    let found = harness.store.run(&run.info.namespace, run.info.id).await.unwrap();
    assert!(found.is_none(), "it is gone before its states are");
    harness.check().await;
    assert_eq!(harness.commit_one(delete(&run)).await, Reply::Missing);
    let retry = Operation::Control(run.info.clone(), Control::Retry(run.root.id));
    assert_eq!(harness.commit_one(retry).await, Reply::Missing);
    remove_all(&harness).await;
    assert_eq!(rows(&harness).await, []);
    harness.check().await;
}

async fn an_unfinished_run_is_not_deleted(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let refused = harness.commit_one(delete(&run)).await;
    assert!(matches!(refused, Reply::Refused(_)), "{refused:?}");
    // Nor is one that the same batch reopens.
    let failed = failed_run(&harness).await;
    let retry = Operation::Control(failed.info.clone(), Control::Retry(failed.root.id));
    let both = harness.commit_ok(vec![retry, delete(&failed)], ClaimMode::NewOnly(0)).await;
    assert!(matches!(both.replies[1], Reply::Refused(_)), "{:?}", both.replies);
    harness.check().await;
}

async fn a_removal_is_bounded_and_resumes(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X; X > W; W(U)").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 1_500).await;
    assert_eq!(harness.commit_one(fan).await, Reply::Done);
    let cancel = Operation::Control(run.info.clone(), Control::Cancel);
    let event = harness.commit_for_sweep(cancel).await;
    harness.sweep(&run.info, event, 500).await;
    assert_eq!(harness.commit_one(delete(&run)).await, Reply::Done);
    let key = run.info.key;
    let states = async || harness.number("SELECT COUNT(*) FROM state").await;
    let before = states().await;
    // The outputs of one state may be more than one piece.
    let first = harness.store.remove_piece(key, "", 1).await.unwrap();
    assert_eq!((first, states().await), (Removal::More(String::new()), before));
    harness.store.remove_piece(key, "", 1).await.unwrap();
    let rest = states().await;
    assert!(rest < before && rest > before - 500, "{before} {rest}");
    harness.check().await;
    // After a crash, the removal begins with the first path again.
    assert!(remove_all(&harness).await > 3);
    assert_eq!(rows(&harness).await, []);
    assert_eq!(harness.store.remove_piece(key, "", 1).await.unwrap(), Removal::Busy);
    harness.check().await;
}

async fn a_cancelled_run_is_deleted_before_its_sweep(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X; X > W; W(U)").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    assert_eq!(harness.commit_one(fan).await, Reply::Done);
    let held = harness.claim(1).await.remove(0);
    harness.commit_for_sweep(pause(&run.info, true)).await;
    let cancel = Operation::Control(run.info.clone(), Control::Cancel);
    harness.commit_for_sweep(cancel).await;
    assert_eq!(harness.commit_one(delete(&run)).await, Reply::Done);
    // Its states are neither claimed nor ended any more.
    assert!(harness.claim(9).await.is_empty());
    let late = harness.finish(&run.info, &held, outputs(1), Journal::default()).await;
    assert_eq!(harness.commit_one(late).await, Reply::Stale);
    harness.check().await;
    remove_all(&harness).await;
    assert_eq!(rows(&harness).await, []);
    harness.check().await;
}

async fn a_deleted_run_frees_its_key(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut first = harness.new_run(&template).await;
    first.key = Some("k".into());
    let info = first.info.clone();
    let mut done =
        harness.commit_ok(vec![Operation::Start(first.into())], ClaimMode::NewOnly(1)).await;
    let run = Run { info, root: done.claimed.remove(0).state };
    let end = harness.finish_plain(&run.info, &run.root, outputs(1)).await;
    harness.commit_one(end).await;
    assert_eq!(harness.commit_one(delete(&run)).await, Reply::Done);
    let mut second = harness.new_run(&template).await;
    second.key = Some("k".into());
    assert_eq!(harness.commit_one(Operation::Start(second.into())).await, Reply::Done);
    harness.check().await;
}

async fn a_graph_with_unfinished_runs_stays(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let (namespace, graph) = (&run.info.namespace, &run.info.graph_name);
    let deleted = harness.store.delete_graph(namespace, graph, true, 1).await.unwrap();
    assert_eq!(deleted, GraphDeletion::Unfinished(1));
    let end = harness.finish_plain(&run.info, &run.root, outputs(1)).await;
    harness.commit_one(end).await;
    let deleted = harness.store.delete_graph(namespace, graph, false, 1).await.unwrap();
    assert_eq!(deleted, GraphDeletion::HasRuns(1));
    harness.check().await;
}

async fn a_graph_is_deleted_with_its_runs(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = failed_run(&harness).await;
    let other = failed_run(&harness).await;
    let (namespace, graph) = (&run.info.namespace, &run.info.graph_name);
    let template = GraphBuilder::from_text("A > B").build().unwrap();
    let secrets = [(name("s"), Some("hush".to_owned()))].into();
    apply_graph(&harness.store, namespace, graph, &template, &secrets, 2).await.unwrap();
    let current = harness.store.graph(namespace, graph).await.unwrap().unwrap().revision.digest;
    let store = harness.store.on_behalf_of(Arc::default());
    let deleted = store.delete_graph(namespace, graph, true, 1).await.unwrap();
    assert_eq!(deleted, GraphDeletion::Deleted { revisions: 2, runs: 1 });
    let audited = AuditFilter { limit: 9, ..AuditFilter::default() };
    let audited = store.audit(&audited).await.unwrap().remove(0);
    assert_eq!((audited.before, audited.after), (Some(current), None));
    assert!(harness.store.graph(namespace, graph).await.unwrap().is_none());
    assert_eq!(harness.store.secret_names(namespace, graph).await.unwrap(), []);
    assert!(harness.store.run(namespace, run.info.id).await.unwrap().is_none());
    harness.check().await;
    remove_all(&harness).await;
    harness.check().await;
    let again = harness.store.delete_graph(namespace, graph, true, 1).await.unwrap();
    assert_eq!(again, GraphDeletion::Missing);
    assert!(harness.store.run(namespace, other.info.id).await.unwrap().is_some());
    // A graph of the same name is another one.
    let newest = harness.number("SELECT MAX(id) FROM revision").await;
    let none = std::collections::BTreeMap::new();
    let applied = apply_graph(&harness.store, namespace, graph, &template, &none, 2).await;
    let applied = applied.unwrap().revision;
    assert_eq!(applied.number, 1);
    assert!(applied.id > newest, "a revision's id is never used again");
    harness.check().await;
}

async fn an_upload_in_use_is_not_removed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let (namespace, graph) = (&run.info.namespace, &run.info.graph_name);
    let (plugin, digest) = run.info.graph.uploads().pop_first().unwrap();
    let remove =
        async |uploads| harness.store.remove_plugin(namespace, plugin, uploads, 1).await.unwrap();
    let used = PluginRemoval::Used(digest, vec![(graph.clone(), 1)]);
    assert_eq!(remove(Uploads::All).await, used);
    assert_eq!(remove(Uploads::Digest(digest)).await, used);
    // An old revision keeps its upload while it has a run.
    let next = GraphBuilder::from_text("B").build().unwrap();
    let none = std::collections::BTreeMap::new();
    apply_graph(&harness.store, namespace, graph, &next, &none, 2).await.unwrap();
    assert_eq!(remove(Uploads::Digest(digest)).await, used);
    assert_eq!(remove(Uploads::Unused).await, PluginRemoval::Removed(vec![]));
    let end = harness.finish_plain(&run.info, &run.root, outputs(1)).await;
    harness.commit_one(end).await;
    assert_eq!(harness.commit_one(delete(&run)).await, Reply::Done);
    assert_eq!(remove(Uploads::Unused).await, PluginRemoval::Removed(vec![digest]));
    assert!(harness.store.component(digest).await.unwrap().is_none());
    harness.check().await;
}

async fn an_unused_upload_is_removed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let graph = GraphBuilder::from_text("A").build().unwrap();
    let none = std::collections::BTreeMap::new();
    for namespace in ["n", "m"] {
        apply_graph(&harness.store, &name(namespace), &name("g"), &graph, &none, 1).await.unwrap();
    }
    let (plugin, digest) = graph.uploads().pop_first().unwrap();
    let store = &harness.store;
    let deleted = store.delete_graph(&name("n"), &name("g"), false, 1).await.unwrap();
    assert_eq!(deleted, GraphDeletion::Deleted { revisions: 1, runs: 0 });
    let removed = store.remove_plugin(&name("n"), plugin, Uploads::All, 1).await.unwrap();
    assert_eq!(removed, PluginRemoval::Removed(vec![digest]));
    let again = store.remove_plugin(&name("n"), plugin, Uploads::All, 1).await.unwrap();
    assert_eq!(again, PluginRemoval::Missing);
    assert!(store.component(digest).await.unwrap().is_some(), "the other namespace has it");
    let used = store.remove_plugin(&name("m"), plugin, Uploads::All, 1).await.unwrap();
    assert!(matches!(used, PluginRemoval::Used(..)), "{used:?}");
    harness.check().await;
}

async fn an_apply_needs_its_uploads(kind: Kind) {
    let harness = Harness::new(kind).await;
    let graph = GraphBuilder::from_text("A").build().unwrap();
    let none = std::collections::BTreeMap::new();
    let refused = harness.store.apply_graph(&name("n"), &name("g"), &graph, &none, 1).await;
    assert!(refused.unwrap_err().to_string().contains("was removed meanwhile"));
    assert!(harness.store.graph(&name("n"), &name("g")).await.unwrap().is_none());
    harness.check().await;
}
