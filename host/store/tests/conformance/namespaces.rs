//! Namespaces on one database: they take turns, keep to their shares, and follow their operators'
//! settings.

use std::collections::{BTreeMap, HashMap};

use exosphere_domain::grant::Grants;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::NamespaceKey;
use exosphere_domain::limits::{Limit, LimitValues};
use exosphere_domain::quota::Quota;
use exosphere_store::{
    Batch, ClaimMode, ClaimShares, Committed, Expected, PageRequest, Setting, grants_version,
    settings_version,
};

use crate::harness::{Harness, Run, name};
use crate::test_database::Kind;

on_both! {
    claims_are_round_robin_across_namespaces,
    a_namespace_cannot_exceed_its_quota,
    settings_and_grants_are_stored,
    a_setting_can_require_its_namespace,
    concurrent_updates_succeed_once,
}

/// Starts a run with this many branches, none of them claimed.
async fn waiting(harness: &Harness, namespace_name: &str, branches: usize) -> Run {
    let template =
        harness.template_of(namespace_name, GraphBuilder::from_text("U > X; X > W; W(U)")).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, branches).await;
    harness.commit_ok(vec![fan], ClaimMode::NewOnly(0)).await;
    run
}

fn counted(done: &Committed) -> BTreeMap<NamespaceKey, usize> {
    let mut counts = BTreeMap::new();
    for claimed in &done.claimed {
        *counts.entry(claimed.namespace).or_default() += 1;
    }
    counts
}

async fn claims_are_round_robin_across_namespaces(kind: Kind) {
    let harness = Harness::new(kind).await;
    // The first comes with a flood, long before the others.
    let mut keys = Vec::new();
    for (namespace_name, branches) in [("flood", 500), ("b", 20), ("c", 3)] {
        keys.push(waiting(&harness, namespace_name, branches).await.info.namespace_key);
    }
    let done = harness.commit_ok(Vec::new(), ClaimMode::AllDue(30)).await;
    let counts = counted(&done);
    assert_eq!(done.claimed.len(), 30);
    assert!(done.more_due);
    assert_eq!(counts[&keys[2]], 3, "{counts:?}");
    assert!(counts[&keys[1]] >= 10, "{counts:?}");
    // With fewer claim permits than namespaces, each namespace has its turn.
    for _ in 0..20 {
        harness.commit_ok(Vec::new(), ClaimMode::AllDue(1)).await;
    }
    let rest = harness.commit_ok(Vec::new(), ClaimMode::AllDue(1_000)).await;
    let counts = counted(&rest);
    assert!(!counts.contains_key(&keys[1]) || counts[&keys[1]] < 10, "{counts:?}");
    assert!(!rest.more_due && rest.saturated.is_empty());
    harness.check().await;
}

async fn a_namespace_cannot_exceed_its_quota(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (a, b) = (waiting(&harness, "a", 9).await, waiting(&harness, "b", 9).await);
    let (a, b) = (a.info.namespace_key, b.info.namespace_key);
    let left = HashMap::from([(a, 2)]);
    let shares = ClaimShares { default: 5, left, runs: HashMap::new() };
    let claim =
        |shares: ClaimShares| Batch { shares, ..harness.batch(Vec::new(), ClaimMode::AllDue(100)) };
    let done = harness.store.commit(claim(shares.clone())).await.unwrap();
    assert_eq!(counted(&done), BTreeMap::from([(a, 2), (b, 5)]));
    assert_eq!(done.saturated, [a, b].into());
    assert!(!done.more_due, "nothing that may be claimed now");

    // Claims of new states keep to the share, too.
    let template = harness.template_of("a", GraphBuilder::from_text("U > X; X > W; W(U)")).await;
    let run = harness.start(&template).await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 9).await;
    let batch = Batch { shares, ..harness.batch(vec![fan], ClaimMode::NewOnly(100)) };
    let done = harness.store.commit(batch).await.unwrap();
    assert_eq!(counted(&done), BTreeMap::from([(a, 2)]));
    assert_eq!((done.saturated, done.more_due), ([a].into(), false));
    harness.check().await;
}

async fn settings_and_grants_are_stored(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (a, b, plugin) = (name("a"), name("b"), name("web"));
    assert_eq!(harness.store.namespace(&a).await.unwrap(), None);
    let limits: LimitValues = [(Limit::CpuMs, 20), (Limit::Outputs, 0)].into_iter().collect();
    harness.store.set_namespace(&a, &limits, Some(3), &Expected::Anything, 0).await.unwrap();
    let row = harness.store.namespace(&a).await.unwrap().unwrap();
    assert_eq!((row.limits, row.slots), (limits, Some(3)));
    harness
        .store
        .set_namespace(&a, &LimitValues::default(), None, &Expected::Anything, 0)
        .await
        .unwrap();
    let row = harness.store.namespace(&a).await.unwrap().unwrap();
    assert_eq!((row.limits.is_empty(), row.slots), (true, None));

    let grants: Grants = exosphere_domain::json::from_value(serde_json::json!({
        "http": ["GET https://api.example.com/v1/"], "config": {"k": "v\u{0}ä"}, "secrets": ["token"],
    }))
    .unwrap();
    harness.store.set_grants(&a, &plugin, &grants, &Expected::Anything, 0).await.unwrap();
    assert_eq!(harness.store.grants(&a).await.unwrap(), BTreeMap::from([(plugin.clone(), grants)]));
    assert!(harness.store.grants(&b).await.unwrap().is_empty(), "nothing crosses");
    harness
        .store
        .set_grants(&a, &plugin, &Grants::default(), &Expected::Anything, 0)
        .await
        .unwrap();
    assert!(harness.store.grants(&a).await.unwrap().is_empty());
    // The grant opens nothing by itself, but is kept.
    let header = Grants { idempotency_header: true, ..Grants::default() };
    harness.store.set_grants(&a, &plugin, &header, &Expected::Anything, 0).await.unwrap();
    assert_eq!(harness.store.grants(&a).await.unwrap(), BTreeMap::from([(plugin, header)]));
    let all = PageRequest { after: None, limit: 9 };
    let names = harness.store.list_namespaces(&all).await.unwrap();
    assert_eq!(names.items.len(), 1, "{names:?}");
    assert_eq!(names.next, None);
    let listed = harness.store.list_grants(&a, &all).await.unwrap();
    assert_eq!(listed.items.len(), 1, "{listed:?}");
}

/// A namespace exists with its first setting, a plugin or a graph; the default one always does.
async fn a_setting_can_require_its_namespace(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (store, plugin, none) = (&harness.store, name("web"), LimitValues::default());
    let grants = Grants { config: [("k".to_owned(), "v".to_owned())].into(), ..Grants::default() };
    let quotas = [(Quota::Graphs, 1)].into_iter().collect();
    let set = async |which: &str, namespace: &str, expected: &Expected| {
        let namespace = name(namespace);
        match which {
            "grants" => store.set_grants(&namespace, &plugin, &grants, expected, 0).await,
            "quotas" => store.set_quotas(&namespace, &quotas, expected, 0).await,
            _ => store.set_namespace(&namespace, &none, Some(3), expected, 0).await,
        }
    };
    for which in ["grants", "quotas", "settings"] {
        let set = async |expected| set(which, &format!("of-{which}"), &expected).await.unwrap();
        assert_eq!(set(Expected::Existing).await, Setting::Unexpected, "{which}");
        assert_eq!(set(Expected::Absent).await, Setting::Done, "{which}");
        assert_eq!(set(Expected::Absent).await, Setting::Unexpected, "{which}");
        assert_eq!(set(Expected::Existing).await, Setting::Done, "{which}");
    }
    assert_eq!(set("settings", "default", &Expected::Absent).await.unwrap(), Setting::Unexpected);
    assert_eq!(set("settings", "default", &Expected::Existing).await.unwrap(), Setting::Done);
    assert!(!store.knows_namespace(&name("never")).await.unwrap());
}

/// Ten callers that have read the same version change it concurrently: one succeeds, and the
/// others get a conflict.
async fn concurrent_updates_succeed_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (a, plugin) = (name("a"), name("web"));
    let (now, no_limits) = (Grants::default(), LimitValues::default());
    let seen = Expected::OneOf(vec![grants_version(&now).unwrap()]);
    let set_grants = |at: u32| {
        let (store, a, plugin, seen) =
            (harness.store.clone(), a.clone(), plugin.clone(), seen.clone());
        let config = BTreeMap::from([(format!("k{at}"), "v".to_owned())]);
        let grants = Grants { config, ..Grants::default() };
        tokio::spawn(async move { store.set_grants(&a, &plugin, &grants, &seen, 0).await })
    };
    let seen = Expected::OneOf(vec![settings_version(&no_limits, None).unwrap()]);
    let setting = |at: u32| {
        let (store, a, seen) = (harness.store.clone(), a.clone(), seen.clone());
        let no_limits = no_limits.clone();
        tokio::spawn(
            async move { store.set_namespace(&a, &no_limits, Some(at + 1), &seen, 0).await },
        )
    };
    for all in [(0..10).map(set_grants).collect::<Vec<_>>(), (0..10).map(setting).collect()] {
        let mut done = 0;
        for one in all {
            done += u32::from(one.await.unwrap().unwrap() == Setting::Done);
        }
        assert_eq!(done, 1);
    }
    let grants = harness.store.grants(&a).await.unwrap().remove(&plugin).unwrap();
    assert_eq!(grants.config.len(), 1);
    let row = harness.store.namespace(&a).await.unwrap().unwrap();
    let seen = Expected::OneOf(vec![settings_version(&row.limits, row.slots).unwrap()]);
    let set = harness.store.set_namespace(&a, &no_limits, None, &seen, 0).await.unwrap();
    assert_eq!(set, Setting::Done, "who has read it again sets it");
}
