//! Pauses of graphs and namespaces, and the runs that follow them.

use std::sync::Arc;

use exosphere_domain::access::Actor;
use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::RunKey;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    ClaimMode, Control, GraphPause, NewPause, Operation, Reply, RunView, RunsFrom, Store,
};

use crate::harness::{Harness, Run, Template, fails, name, outputs, pause};
use crate::test_database::Kind;

on_both! {
    runs_follow_a_paused_graph,
    a_new_run_is_born_paused,
    a_run_paused_by_itself_stays_paused,
    a_pause_of_a_run_names_its_caller,
    a_run_paused_with_its_graph_is_not_resumed,
    a_retried_run_follows_its_graph,
    an_ended_run_is_not_paused,
    a_pending_pause_survives_its_host,
    a_paused_namespace_is_listed,
}

const FANOUT: &str = "U > X; X > W; W(U)";

fn why(reason: &str) -> NewPause {
    NewPause { by: Some("ada".into()), reason: reason.into() }
}

async fn set(harness: &Harness, template: &Template, pause: Option<&NewPause>) -> GraphPause {
    let now = harness.now();
    harness.store.pause_graph(&template.namespace, &template.name, pause, now).await.unwrap()
}

/// Makes every run follow its graph, as a host does. Returns the number of runs.
async fn follow(harness: &Harness, runs: &[&Run]) -> usize {
    let mut followed = 0;
    for pending in harness.store.pending_pauses(9).await.unwrap() {
        let mut keys = Vec::new();
        if pending.is_paused {
            let mut from = Some(RunsFrom::NEWEST);
            while let Some(place) = from {
                let page = harness.store.runs_to_pause(pending.graph, place, 1).await.unwrap();
                keys.extend(page.0);
                from = page.1;
            }
        } else {
            keys = harness.store.runs_to_resume(pending.graph, RunKey(0), 99).await.unwrap();
        }
        followed += keys.len();
        for run in runs.iter().filter(|run| keys.contains(&run.info.key)) {
            let operation = Operation::Control(run.info.clone(), Control::FollowGraph);
            if let Reply::ToSweep(event) = harness.commit_one(operation).await {
                harness.sweep(&run.info, event, 9).await;
            }
        }
        harness.store.end_pending_pause(pending, harness.now()).await.unwrap();
    }
    assert_eq!(harness.store.pending_pauses(9).await.unwrap(), []);
    followed
}

async fn view(harness: &Harness, run: &Run) -> RunView {
    harness.store.run(&run.info.namespace, run.info.id).await.unwrap().unwrap()
}

async fn runs_follow_a_paused_graph(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text(FANOUT)).await;
    let (one, two) = (harness.start(&template).await, harness.start(&template).await);
    let other = harness.start_of("A").await;
    let fan = harness.finish_with_outputs(&one.info, &one.root, 3).await;
    harness.commit_one(fan).await;
    assert!(matches!(set(&harness, &template, Some(&why("r"))).await, GraphPause::Changed(_)));
    let shown = harness.store.pause_of_graph(&template.namespace, &template.name).await.unwrap();
    let shown = shown.unwrap();
    assert_eq!((shown.reason.as_str(), shown.by.as_deref()), ("r", Some("ada")));
    assert_eq!(follow(&harness, &[&one, &two, &other]).await, 2);
    assert!(view(&harness, &one).await.paused && view(&harness, &two).await.paused);
    assert!(!view(&harness, &other).await.paused);
    assert!(harness.claim(9).await.is_empty());
    // A running state ends, and its children wait.
    let fan = harness.finish_with_outputs(&two.info, &two.root, 2).await;
    assert_eq!(harness.commit_ok(vec![fan], ClaimMode::NewOnly(9)).await.claimed.len(), 0);
    harness.check().await;
    // Another reason does not change since when.
    set(&harness, &template, Some(&why("other"))).await;
    assert_eq!(follow(&harness, &[&one, &two]).await, 0);
    let again = harness.store.pause_of_graph(&template.namespace, &template.name).await.unwrap();
    assert_eq!(again.map(|it| (it.since, it.reason)), Some((shown.since, "other".into())));

    assert!(matches!(set(&harness, &template, None).await, GraphPause::Changed(_)));
    assert_eq!(follow(&harness, &[&one, &two]).await, 2);
    assert!(!view(&harness, &one).await.paused);
    assert_eq!(harness.claim(9).await.len(), 5);
    assert_eq!(set(&harness, &template, None).await, GraphPause::Unchanged);
    assert_eq!(harness.number("SELECT COUNT(*) FROM paused_run").await, 0);
    harness.check().await;
}

async fn a_new_run_is_born_paused(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    set(&harness, &template, Some(&why(""))).await;
    let new = harness.new_run(&template).await;
    let info = new.info.clone();
    let done = harness.commit_ok(vec![Operation::Start(new.into())], ClaimMode::AllDue(9)).await;
    assert_eq!((done.replies, done.claimed.len()), (vec![Reply::Done], 0));
    let run = Run { root: harness.start_of("A").await.root, info };
    assert!(view(&harness, &run).await.paused);
    assert!(harness.claim(9).await.is_empty());
    harness.check().await;
    set(&harness, &template, None).await;
    assert_eq!(follow(&harness, &[&run]).await, 1);
    assert_eq!(harness.claim(9).await.len(), 1);
    harness.check().await;
}

async fn a_run_paused_by_itself_stays_paused(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (before, after) = (harness.start(&template).await, harness.start(&template).await);
    harness.commit_for_sweep(pause(&before.info, true)).await;
    set(&harness, &template, Some(&why(""))).await;
    assert_eq!(follow(&harness, &[&before, &after]).await, 1);
    // Paused again by itself, while its graph is paused.
    assert_eq!(harness.commit_one(pause(&after.info, true)).await, Reply::Done);
    assert_eq!(harness.commit_one(pause(&before.info, true)).await, Reply::Done);
    set(&harness, &template, None).await;
    assert_eq!(follow(&harness, &[&before, &after]).await, 0);
    assert!(view(&harness, &before).await.paused && view(&harness, &after).await.paused);
    for run in [&before, &after] {
        assert!(harness.store.own_pause_of_run(run.info.key).await.unwrap().is_some());
    }
    harness.commit_for_sweep(pause(&after.info, false)).await;
    assert!(!view(&harness, &after).await.paused);
    assert_eq!(harness.store.own_pause_of_run(after.info.key).await.unwrap(), None);
    harness.check().await;
}

async fn a_pause_of_a_run_names_its_caller(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let key = Some("0bCnOza3eFqR".parse().unwrap());
    let caller = harness.store.on_behalf_of(Arc::new(Actor { key, address: None }));
    let by = |store: &Store, control: Control| {
        let entry = store.audit_entry("run pause", None, "r").unwrap();
        Operation::Control(run.info.clone(), Control::Audited(Box::new(control), entry))
    };
    harness.commit_for_sweep(by(&caller, Control::Pause)).await;
    let paused = harness.store.own_pause_of_run(run.info.key).await.unwrap().unwrap();
    assert_eq!((paused.by.as_deref(), paused.reason.as_str()), (Some("0bCnOza3eFqR"), ""));
    // Paused again, by another: it stays as it is.
    let other = harness.store.on_behalf_of(Arc::default());
    assert_eq!(harness.commit_one(by(&other, Control::Pause)).await, Reply::Done);
    let again = harness.store.own_pause_of_run(run.info.key).await.unwrap();
    assert_eq!(again, Some(paused));
    harness.commit_for_sweep(by(&other, Control::Resume)).await;
    assert_eq!(harness.store.own_pause_of_run(run.info.key).await.unwrap(), None);
    harness.commit_for_sweep(by(&other, Control::Pause)).await;
    let new = harness.store.own_pause_of_run(run.info.key).await.unwrap();
    assert_eq!(new.unwrap().by, None);
    harness.check().await;
}

async fn a_run_paused_with_its_graph_is_not_resumed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let run = harness.start(&template).await;
    set(&harness, &template, Some(&why(""))).await;
    follow(&harness, &[&run]).await;
    assert!(harness.store.find_pause_with_graph(run.info.key).await.unwrap());
    let refused = harness.commit_one(pause(&run.info, false)).await;
    assert!(
        matches!(&refused, Reply::Refused(cause) if cause.contains("graph resume")),
        "{refused:?}"
    );
    assert!(view(&harness, &run).await.paused);
    // A pause of its own, which then ends, does not end that of the graph.
    for paused in [true, false] {
        assert_eq!(harness.commit_one(pause(&run.info, paused)).await, Reply::Done);
        assert!(view(&harness, &run).await.paused);
    }
    assert!(harness.store.find_pause_with_graph(run.info.key).await.unwrap());
    set(&harness, &template, None).await;
    follow(&harness, &[&run]).await;
    assert!(!view(&harness, &run).await.paused);
}

async fn a_retried_run_follows_its_graph(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let run = harness.start(&template).await;
    let failed = harness.finish_plain(&run.info, &run.root, fails(FailureKind::Permanent)).await;
    harness.commit_one(failed).await;
    set(&harness, &template, Some(&why(""))).await;
    assert_eq!(follow(&harness, &[&run]).await, 0);
    let retry = Operation::Control(run.info.clone(), Control::Retry(run.root.id));
    assert_eq!(harness.commit_one(retry).await, Reply::Done);
    assert!(view(&harness, &run).await.paused && harness.claim(9).await.is_empty());
    harness.check().await;
    set(&harness, &template, None).await;
    assert_eq!(follow(&harness, &[&run]).await, 1);
    assert_eq!(harness.claim(9).await.len(), 1);
    harness.check().await;
}

async fn an_ended_run_is_not_paused(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (cancelled, ended) = (harness.start(&template).await, harness.start(&template).await);
    let single = harness.start_of("A").await;
    set(&harness, &template, Some(&why(""))).await;
    follow(&harness, &[&cancelled, &ended]).await;
    harness.commit_for_sweep(pause(&single.info, true)).await;
    for run in [&cancelled, &single] {
        let cancel = Operation::Control(run.info.clone(), Control::Cancel);
        let event = harness.commit_for_sweep(cancel).await;
        harness.sweep(&run.info, event, 9).await;
        let found = view(&harness, run).await;
        assert_eq!((found.status, found.paused), (RunStatus::Cancelled, false));
    }
    let end = harness.finish_plain(&ended.info, &ended.root, outputs(0)).await;
    harness.commit_one(end).await;
    let found = view(&harness, &ended).await;
    assert_eq!((found.status, found.paused), (RunStatus::Success, false));
    set(&harness, &template, None).await;
    follow(&harness, &[&cancelled, &ended]).await;
    assert_eq!(view(&harness, &ended).await.status, RunStatus::Success);
    assert_eq!(harness.number("SELECT COUNT(*) FROM paused_run").await, 0);
    harness.check().await;
}

async fn a_pending_pause_survives_its_host(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let run = harness.start(&template).await;
    let GraphPause::Changed(first) = set(&harness, &template, Some(&why(""))).await else {
        panic!("the graph exists");
    };
    // Its host ends before any run has followed, and another change comes in between.
    let GraphPause::Changed(second) = set(&harness, &template, None).await else { panic!() };
    harness.store.end_pending_pause(first, harness.now()).await.unwrap();
    assert_eq!(harness.store.pending_pauses(9).await.unwrap(), [second]);
    let operation = Operation::Control(run.info.clone(), Control::FollowGraph);
    assert_eq!(harness.commit_one(operation).await, Reply::Done, "it follows the latest change");
    assert!(!view(&harness, &run).await.paused);
    let missing = harness.store.pause_graph(&template.namespace, &name("none"), None, 1).await;
    assert_eq!(missing.unwrap(), GraphPause::Missing);
    let released = harness.finish_plain(&run.info, &run.root, Outcome::Released).await;
    harness.commit_one(released).await;
    harness.check().await;
}

async fn a_paused_namespace_is_listed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let (store, namespace) = (&harness.store, &template.namespace);
    assert_eq!(store.paused_namespaces().await.unwrap(), []);
    store.pause_namespace(namespace, Some(&why("quiet")), harness.now()).await.unwrap();
    assert_eq!(store.paused_namespaces().await.unwrap(), [template.namespace_key]);
    let shown = store.pause_of_namespace(namespace).await.unwrap().unwrap();
    assert_eq!(shown.reason, "quiet");
    store.pause_namespace(namespace, None, harness.now()).await.unwrap();
    assert_eq!(store.paused_namespaces().await.unwrap(), []);
    assert_eq!(store.pause_of_namespace(namespace).await.unwrap(), None);
    harness.check().await;
}
