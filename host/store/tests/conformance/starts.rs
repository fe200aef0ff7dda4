//! Starts of runs: once for each idempotency key, and when they are due.

use std::collections::BTreeMap;

use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::start_digest::StartDigest;
use exosphere_store::{ClaimMode, ExistingRun, NewRun, Operation, Reply};
use serde_json::json;

use crate::harness::{Harness, Host, Template, apply_graph};
use crate::test_database::Kind;

on_both! {
    one_batch_starts_one_run_per_key,
    two_batches_start_one_run_per_key,
    concurrent_hosts_start_one_run_per_key,
    idempotency_keys_are_per_namespace,
    a_key_keeps_its_request_digest,
    a_contended_key_keeps_one_request,
    a_delayed_run_starts_when_due,
    states_are_claimed_in_due_order,
    only_the_current_revision_can_start,
}

async fn with_key(host: &Host, template: &Template, key: &str) -> NewRun {
    NewRun { key: Some(key.into()), ..host.new_run(template).await }
}

fn existing_reply(run: &NewRun) -> Reply {
    Reply::Existing(ExistingRun {
        run: run.info.id,
        graph: run.info.graph_name.clone(),
        digest: run.digest.clone(),
    })
}

async fn one_batch_starts_one_run_per_key(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A > B")).await;
    // The later run has the smaller id, in case ids decide.
    let (second, first) =
        (with_key(&harness, &template, "k").await, with_key(&harness, &template, "k").await);
    let other = with_key(&harness, &template, "other").await;
    let expected = [Reply::Done, existing_reply(&first), Reply::Done];
    let operations = [first, second, other].map(|new| Operation::Start(new.into())).into();
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(9)).await;
    assert_eq!((done.replies.as_slice(), done.claimed.len()), (&expected[..], 2));
    assert_eq!(harness.number("SELECT COUNT(*) FROM run").await, 2);
    assert_eq!(harness.states().await, "QUEUED 2");
    harness.check().await;
}

async fn two_batches_start_one_run_per_key(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A > B")).await;
    let other = harness.template(GraphBuilder::from_text("C")).await;
    let first = with_key(&harness, &template, "k").await;
    let expected = [existing_reply(&first)];
    assert_eq!(harness.commit_one(Operation::Start(first.into())).await, Reply::Done);
    for template in [&template, &other] {
        let second = with_key(&harness, template, "k").await;
        let done =
            harness.commit_ok(vec![Operation::Start(second.into())], ClaimMode::NewOnly(9)).await;
        assert_eq!(done.replies, expected);
        assert!(done.claimed.is_empty() && done.run_updates.is_empty());
    }
    assert_eq!(harness.number("SELECT COUNT(*) FROM run").await, 1);
    assert_eq!(harness.states().await, "CREATED 1");
    harness.check().await;
}

/// The hosts commit the keys in opposite orders, so that each is first at some.
async fn concurrent_hosts_start_one_run_per_key(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut hosts = vec![(*harness).clone()];
    for at in 1..4 {
        hosts.push(harness.another(&format!("host {at}")).await);
    }
    let mut all = tokio::task::JoinSet::new();
    for (at, host) in hosts.into_iter().enumerate() {
        let template = template.clone();
        all.spawn(async move {
            let mut claimed = 0;
            for round in 0..5 {
                let mut keys: Vec<_> = (0..6).map(|key| format!("{round} {key}")).collect();
                if at % 2 == 1 {
                    keys.reverse();
                }
                let mut operations = Vec::new();
                for key in &keys {
                    operations.push(Operation::Start(with_key(&host, &template, key).await.into()));
                }
                let done = host.commit_ok(operations, ClaimMode::NewOnly(9)).await;
                let known = |answer: &&Reply| matches!(answer, Reply::Existing(_));
                let existing = done.replies.iter().filter(known).count();
                assert_eq!(done.replies.len() - existing, done.claimed.len());
                claimed += done.claimed.len();
            }
            claimed
        });
    }
    assert_eq!(all.join_all().await.into_iter().sum::<usize>(), 30);
    assert_eq!(harness.number("SELECT COUNT(*) FROM run").await, 30);
    assert_eq!(harness.states().await, "QUEUED 30");
    harness.check().await;
}

fn digest(value: i64) -> StartDigest {
    StartDigest::new(Some(&json!({ "value": value })), None, None)
}

async fn a_key_keeps_its_request_digest(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let missing = harness.store.started_with(&template.namespace, "k").await.unwrap();
    assert_eq!(missing, None);
    let first = NewRun { digest: Some(digest(1)), ..with_key(&harness, &template, "k").await };
    let expected = existing_reply(&first);
    harness.commit_one(Operation::Start(first.into())).await;
    let second = NewRun { digest: Some(digest(2)), ..with_key(&harness, &template, "k").await };
    assert_eq!(harness.commit_one(Operation::Start(second.into())).await, expected);
    let found = harness.store.started_with(&template.namespace, "k").await.unwrap();
    assert_eq!(found.map(Reply::Existing), Some(expected));
    // A run from before the digests of starts.
    harness.database.execute("UPDATE run SET start_digest = NULL").await.unwrap();
    let found = harness.store.started_with(&template.namespace, "k").await.unwrap().unwrap();
    assert_eq!(found.digest, None);
    harness.check().await;
}

/// Each host sends a different request under the same key: all get the answer of the first.
async fn a_contended_key_keeps_one_request(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut all = tokio::task::JoinSet::new();
    for at in 0..4 {
        let (host, template) = (harness.another(&format!("host {at}")).await, template.clone());
        all.spawn(async move {
            let mut answers = Vec::new();
            for round in 0..5 {
                let new = with_key(&host, &template, &round.to_string()).await;
                let new = NewRun { digest: Some(digest(at)), ..new };
                answers.push(match host.commit_one(Operation::Start(new.into())).await {
                    Reply::Done => Some(digest(at)),
                    Reply::Existing(known) => known.digest,
                    other => panic!("{other:?}"),
                });
            }
            answers
        });
    }
    let answers = all.join_all().await;
    assert!(
        answers.iter().all(|answer| *answer == answers[0] && answer.iter().all(Option::is_some)),
        "{answers:?}"
    );
    assert_eq!(harness.number("SELECT COUNT(*) FROM run").await, 5);
    harness.check().await;
}

async fn idempotency_keys_are_per_namespace(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let first_run = with_key(&harness, &template, "k").await;
    let other_template = harness.template_of("m", GraphBuilder::from_text("A")).await;
    let second_run = with_key(&harness, &other_template, "k").await;
    let keyless = [harness.new_run(&template).await, harness.new_run(&template).await];
    let operations = [first_run, second_run]
        .into_iter()
        .chain(keyless)
        .map(|new| Operation::Start(new.into()))
        .collect();
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(9)).await;
    assert_eq!(done.replies, [Reply::Done, Reply::Done, Reply::Done, Reply::Done]);
    harness.check().await;
}

async fn a_delayed_run_starts_when_due(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let new = NewRun { delay: 60_000, ..harness.new_run(&template).await };
    let done = harness.commit_ok(vec![Operation::Start(new.into())], ClaimMode::NewOnly(9)).await;
    assert!(done.claimed.is_empty() && !done.more_due);
    assert_eq!(done.next_due, Some(done.now + 60_000));
    let done = harness.commit_ok(vec![], ClaimMode::AllDue(9)).await;
    assert!(done.claimed.is_empty() && !done.more_due);
    assert!(done.next_due.is_some_and(|due| due > done.now && due <= done.now + 60_000));
    harness.advance(60_000).await;
    let done = harness.commit_ok(vec![], ClaimMode::AllDue(9)).await;
    assert_eq!((done.claimed.len(), done.more_due, done.next_due), (1, false, None));
    harness.check().await;
}

async fn states_are_claimed_in_due_order(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X; X > W; W(U)").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 4).await;
    let states = harness.commit_and_claim(fan).await;
    for (state, delay) in states.iter().zip([3000, 1000, 2000, 9000]) {
        let requeued = harness.finish_plain(&run.info, state, Outcome::RequeueAfter(delay)).await;
        harness.commit_one(requeued).await;
    }
    harness.advance(4000).await;
    for expected in [1, 2, 0] {
        assert_eq!(harness.claim(1).await[0].id, states[expected].id);
    }
    assert!(harness.claim(1).await.is_empty());
    harness.check().await;
}

async fn only_the_current_revision_can_start(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let stale_revision = NewRun { revision: 99, ..harness.new_run(&template).await };
    let valid = harness.new_run(&template).await;
    let mut known = with_key(&harness, &template, "k").await;
    let operations = [stale_revision, valid, with_key(&harness, &template, "k").await];
    let operations = operations.map(|new| Operation::Start(new.into())).into();
    let done = harness.commit_ok(operations, ClaimMode::NewOnly(9)).await;
    assert_eq!(done.replies, [Reply::Outdated, Reply::Done, Reply::Done]);
    assert_eq!(done.claimed.len(), 2);

    let (graph, none) = (GraphBuilder::from_text("A > B").build().unwrap(), BTreeMap::new());
    let reapply = apply_graph(
        &harness.store,
        &template.namespace,
        &template.name,
        &graph,
        &none,
        harness.now(),
    );
    reapply.await.unwrap();
    let old_run = harness.new_run(&template).await;
    known.info = old_run.info.clone();
    assert_eq!(harness.commit_one(Operation::Start(old_run.into())).await, Reply::Outdated);
    let answer = harness.commit_one(Operation::Start(known.into())).await;
    assert!(
        matches!(answer, Reply::Existing(_)),
        "what its key began before is the run: {answer:?}"
    );
    harness.check().await;
}
