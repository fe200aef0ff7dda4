//! The store of a run, and the round trip of difficult texts.

use std::collections::BTreeMap;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::filter::StateFilter;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::journal::{Entry, Journal};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::path::Path;
use exosphere_store::{ClaimMode, FailureView, NewRun, Operation, Reply, StatePageRequest};
use serde_json::json;

use crate::harness::{Harness, outputs, sets};
use crate::test_database::Kind;

on_both! {
    store_writes_commit_with_the_outcome,
    a_third_conflict_fails_the_state,
    store_values_are_snapshot_at_creation,
    a_store_is_cleared_with_its_run,
    any_text_round_trips,
    pages_are_bounded_by_failure_bytes,
}

fn kept(text: &str) -> GraphBuilder {
    GraphBuilder::from_text(text).store(json!({"keep": true}))
}

async fn store_writes_commit_with_the_outcome(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(kept("U > X")).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    let states = harness.commit_and_claim(fan).await;
    let mut add = Journal::default();
    add.increment("n", 2).unwrap();
    let mut rewrite = Journal::default();
    rewrite.record_read("n", None);
    rewrite.set("n", "100".into()).unwrap();
    let operations = vec![
        harness.finish(&run.info, &states[0], outputs(1), add).await,
        harness.finish(&run.info, &states[1], outputs(1), rewrite).await,
        harness.finish(&run.info, &states[2], outputs(1), sets("big", &"x".repeat(2000))).await,
    ];
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(0)).await;
    assert_eq!(done.replies, [Reply::Done, Reply::Done, Reply::Done]);
    let entries = harness.store.entries(run.info.key).await.unwrap();
    let expected = Entry { value: "2".into(), version: 1 };
    assert_eq!(entries, [("n".to_owned(), expected)], "what broke a limit left no trace");
    let conflicts = format!("SELECT conflicts FROM state WHERE id = {}", states[1].id);
    assert_eq!(harness.number(&conflicts).await, 1, "a read that no longer holds is a conflict");
    let failed = format!("SELECT kind FROM attempt WHERE state = {}", states[2].id);
    assert_eq!(harness.text(&failed).await, "store");

    let next = harness.claim(1).await.remove(0);
    assert_eq!(next.id, states[1].id);
    let mut new_journal = Journal::default();
    new_journal.record_read("n", harness.store.entry(run.info.key, "n").await.unwrap());
    new_journal.set("n", "100".into()).unwrap();
    let operation = harness.finish(&run.info, &next, outputs(1), new_journal).await;
    harness.commit_one(operation).await;
    assert_eq!(harness.text("SELECT value FROM entry WHERE key = 'n'").await, "100");
    harness.check().await;
}

async fn a_third_conflict_fails_the_state(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(kept("A").with("A", |node| {
        node["retry_policy"] = json!({"max_retries": 0});
    }));
    let template = template.await;
    let mut new = harness.new_run(&template).await;
    new.store.insert("k".into(), "is there".into());
    let run = new.info.clone();
    let mut held = harness.commit_and_claim(Operation::Start(new.into())).await;
    for conflicts in 0..3 {
        let state = held.remove(0);
        assert_eq!(state.attempts.conflicts, conflicts);
        let mut journal = sets("k", "other");
        journal.record_read("k", None);
        let operation = harness.finish(&run, &state, outputs(1), journal).await;
        assert_eq!(harness.commit_one(operation).await, Reply::Done);
        held = harness.claim(1).await;
    }
    assert_eq!(harness.states().await, "ERRORED 1");
    assert_eq!(harness.text("SELECT kind FROM state").await, "store");
    assert_eq!(harness.text("SELECT value FROM entry").await, "is there");
    assert_eq!(harness.number("SELECT COUNT(*) FROM output").await, 0);
    harness.check().await;
}

/// A state's values are fixed by the commit that creates it, its own writes included.
async fn store_values_are_snapshot_at_creation(kind: Kind) {
    let harness = Harness::new(kind).await;
    let store = json!({"keep": true, "default_values": {"k": "default", "none": "x"}});
    let builder = GraphBuilder::from_text("A > B").store(store).input("B", "k", "${{ store.k }}");
    let template = harness.template(builder).await;
    let mut new = harness.new_run(&template).await;
    new.store.insert("k".into(), "first".into());
    let run = new.info.clone();
    let root = harness.commit_and_claim(Operation::Start(new.into())).await.remove(0);
    let end = harness.finish(&run, &root, outputs(2), sets("k", "second")).await;
    let done = harness.commit_ok(vec![end], ClaimMode::NewOnly(1)).await;
    let store_snapshot = BTreeMap::from([("k".to_owned(), "second".to_owned())]);
    assert_eq!(done.claimed[0].store_snapshot, store_snapshot, "when it was created");
    harness.database.execute("UPDATE entry SET value = 'third'").await.unwrap();
    let done = harness.commit_ok(vec![], ClaimMode::AllDue(1)).await;
    assert_eq!(done.claimed[0].store_snapshot, store_snapshot, "when it was claimed");
}

async fn a_store_is_cleared_with_its_run(kind: Kind) {
    let harness = Harness::new(kind).await;
    let clears = harness.template(GraphBuilder::from_text("A")).await;
    let keeps = harness.template(kept("A")).await;
    for (template, entries) in [(clears, 0), (keeps, 1)] {
        let run = harness.start(&template).await;
        let end = harness.finish(&run.info, &run.root, outputs(1), sets("k", "v")).await;
        harness.commit_one(end).await;
        let key = run.info.key.0;
        let left = format!("SELECT COUNT(*) FROM entry WHERE run = {key}");
        assert_eq!(harness.number(&left).await, entries);
        let counted = format!("SELECT store_keys FROM run WHERE id = {key}");
        assert_eq!(harness.number(&counted).await, entries);
    }
    harness.check().await;
}

/// Postgres has no NUL in a text; the store's texts may have one.
async fn any_text_round_trips(kind: Kind) {
    let texts = ["\0", "a\0\0b", "\u{1}", "\u{1}0\u{1}1", "\u{1}\0\u{2}", "\u{7f}\r\n\t", "ä𝄞"];
    let harness = Harness::new(kind).await;
    let template =
        harness.template(kept("A > B").input("A", "k", "${{ store.k0 }}").store(json!({
            "keep": true, "required_keys": ["k0"],
        })));
    let template = template.await;
    let values = texts.iter().enumerate().map(|(at, text)| (format!("k{at}"), text.to_string()));
    let values: BTreeMap<_, _> = values.collect();
    let new = NewRun {
        store: values.clone(),
        key: Some("a\0key\u{1}".into()),
        ..harness.new_run(&template).await
    };
    let (id, run) = (new.info.id, new.info.clone());
    let done = harness.commit_ok(vec![Operation::Start(new.into())], ClaimMode::NewOnly(1)).await;
    assert_eq!(done.replies, [Reply::Done]);
    let entries = harness.store.entries(run.key).await.unwrap();
    let read: BTreeMap<_, _> = entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
    assert_eq!(read, values);
    let duplicate = NewRun { key: Some("a\0key\u{1}".into()), ..harness.new_run(&template).await };
    let reply = harness.commit_one(Operation::Start(duplicate.into())).await;
    assert!(matches!(reply, Reply::Existing(known) if known.run == id));

    // A key of control characters, read again within a commit.
    let key = "\u{1}0 \u{2}";
    let root = done.claimed.into_iter().next().unwrap();
    assert_eq!(root.store_snapshot["k0"], "\0");
    let start_again = |text: &str| {
        let mut journal = sets(key, text);
        journal.increment("n", 1).unwrap();
        journal
    };
    let mut state = root.state;
    for text in texts {
        let operation =
            harness.finish(&run, &state, Outcome::RequeueAfter(1), start_again(text)).await;
        harness.commit_one(operation).await;
        assert_eq!(harness.store.entry(run.key, key).await.unwrap().unwrap().value, text);
        harness.advance(1).await;
        state = harness.claim(1).await.remove(0);
    }
    assert_eq!(harness.store.entry(run.key, "n").await.unwrap().unwrap().value, "7");

    let text = texts.concat();
    let details = json!({"guest said": text, "\0": [text]});
    let written = details.to_string();
    let failure = Failure::new(FailureKind::Permanent, text.clone()).with(details);
    let (kind, message) = (failure.kind, failure.message.clone());
    let read = FailureView { kind, message, details: Some(written) };
    let bodies = texts.map(|text| json!({"text": text}).to_string());
    let operation = harness.finish_plain(&run, &state, Outcome::Outputs(bodies.to_vec())).await;
    let children = harness.commit_and_claim(operation).await;
    assert_eq!(harness.store.outputs_of(state.id).await.unwrap(), bodies);
    let operation = harness.finish_plain(&run, &children[0], Outcome::Failed(failure)).await;
    harness.commit_one(operation).await;
    let failed = harness.store.state(run.key, children[0].id).await.unwrap().unwrap();
    assert_eq!(failed.failure.as_ref(), Some(&read));
    let attempts = harness.store.attempts(children[0].id).await.unwrap();
    assert_eq!(attempts[0].failure.as_ref(), Some(&read));
    let data = json!({"left": text}).to_string();
    let operation =
        harness.finish_plain(&run, &children[1], Outcome::Prune(Some(data.clone()))).await;
    harness.commit_one(operation).await;
    let pruned = harness.store.state(run.key, children[1].id).await.unwrap().unwrap();
    assert_eq!(pruned.data, Some(data));
    harness.check().await;
}

async fn pages_are_bounded_by_failure_bytes(kind: Kind) {
    const FAILED_STATES: usize = 40;
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, FAILED_STATES).await;
    let failure = Failure::new(FailureKind::Permanent, "no").with(json!("x".repeat(60_000)));
    for state in harness.commit_and_claim(fan).await {
        let operation =
            harness.finish_plain(&run.info, &state, Outcome::Failed(failure.clone())).await;
        harness.commit_one(operation).await;
    }
    let (mut pages, mut seen, mut after) = (0, 0, None);
    loop {
        let request = StatePageRequest { after, limit: 1000, has_details: true };
        let filter = StateFilter::default();
        let page = harness.store.states(run.info.key, &filter, None, &request).await.unwrap();
        let failures = page.items.iter().filter(|state| state.failure.is_some()).count();
        assert!(failures <= 5, "{failures} failures of 60 kB on a page of 256 KiB");
        (pages, seen) = (pages + 1, seen + page.items.len());
        after = page.next.map(|next| Path::decode(&next).unwrap());
        if after.is_none() {
            break;
        }
    }
    assert_eq!((pages, seen), (9, 1 + FAILED_STATES));
}
