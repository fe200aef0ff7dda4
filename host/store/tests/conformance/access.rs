//! Keys of the API, the audit log and quotas.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use exosphere_domain::access::{Access, Actor, NamespaceScope};
use exosphere_domain::api_key::ApiKey;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::Digest;
use exosphere_domain::limits::LimitValues;
use exosphere_domain::quota::{Quota, QuotaValues};
use exosphere_domain::role::Role;
use exosphere_store::{
    AuditFilter, Control, Expected, KeyCreation, NewApiKey, Operation, Revocation, Setting,
    StoreError, quotas_version,
};

use crate::harness::{Harness, apply_graph, name};
use crate::test_database::Kind;

on_both! {
    keys_are_stored_without_their_secrets,
    the_last_admin_key_stays,
    refused_keys_expire,
    one_of_several_first_keys_is_stored,
    changes_are_audited_with_their_transaction,
    old_rows_of_the_audit_log_expire,
    quotas_are_charged_in_the_transaction,
}

fn key(seed: u8) -> ApiKey {
    let mut next = seed;
    ApiKey::generate(|bytes| {
        for byte in bytes {
            (*byte, next) = (next, next.wrapping_mul(7).wrapping_add(3));
        }
    })
}

fn new(key: &ApiKey, access: Access) -> NewApiKey {
    NewApiKey {
        id: key.id(),
        digest: key.digest(),
        access,
        label: "a label".to_owned(),
        requests_per_second: None,
        expires_at: None,
    }
}

async fn keys_are_stored_without_their_secrets(kind: Kind) {
    let harness = Harness::new(kind).await;
    let store = &harness.store;
    let (first, second) = (key(1), key(2));
    let only = NamespaceScope::Only([name("a"), name("b")].into());
    let access = Access { role: Role::Deployer, namespaces: only, payloads: true };
    let with_all = NewApiKey {
        requests_per_second: Some(7),
        expires_at: Some(i64::MAX),
        ..new(&first, access.clone())
    };
    assert_eq!(store.count_api_keys().await.unwrap(), 0);
    assert_eq!(store.create_api_key(with_all, 5).await.unwrap(), KeyCreation::Done);
    let plain = new(&second, Access::full());
    assert_eq!(store.create_api_key(plain.clone(), 5).await.unwrap(), KeyCreation::Done);
    assert!(matches!(store.create_api_key(plain, 5).await, Err(StoreError::Data(_))), "again");
    let row = store.api_key(first.id()).await.unwrap().unwrap();
    assert_eq!((row.access.clone(), row.digest), (access, first.digest()));
    assert_eq!((row.requests_per_second, row.expires_at), (Some(7), Some(i64::MAX)));
    assert!(row.is_valid(i64::MAX - 1) && !row.is_valid(i64::MAX));
    let other = store.api_key(second.id()).await.unwrap().unwrap();
    assert_eq!((other.access, other.used_at), (Access::full(), None));
    assert!(store.api_key(key(3).id()).await.unwrap().is_none());
    // Two hosts record the last use; the later one stays.
    for at in [20, 10] {
        store.record_key_uses(vec![(first.id(), at), (second.id(), 1)], 0).await.unwrap();
    }
    assert_eq!(store.api_key(first.id()).await.unwrap().unwrap().used_at, Some(20));
    let mut ids = [first.id(), second.id()];
    ids.sort();
    let page = store.api_keys(None, 1).await.unwrap();
    assert_eq!(page[0].id, ids[0]);
    let page = store.api_keys(Some(ids[0]), 9).await.unwrap();
    assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[1]]);
    let secret = &first.expose()[17..49];
    let sql = format!("SELECT COUNT(*) FROM api_key WHERE digest LIKE '%{secret}%'");
    assert_eq!(harness.number(&sql).await, 0);
    harness.check().await;
}

async fn the_last_admin_key_stays(kind: Kind) {
    let harness = Harness::new(kind).await;
    let store = &harness.store;
    let (admin, limited, second) = (key(1), key(2), key(3));
    store.create_api_key(new(&admin, Access::full()), 5).await.unwrap();
    let only = NamespaceScope::Only([name("a")].into());
    let access = Access { namespaces: only, ..Access::full() };
    store.create_api_key(new(&limited, access), 5).await.unwrap();
    assert_eq!(store.revoke_api_key(admin.id(), 6).await.unwrap(), Revocation::Last);
    store.create_api_key(new(&second, Access::full()), 5).await.unwrap();
    assert_eq!(store.revoke_api_key(admin.id(), 6).await.unwrap(), Revocation::Done);
    assert_eq!(store.revoke_api_key(admin.id(), 6).await.unwrap(), Revocation::Again);
    assert_eq!(store.revoke_api_key(second.id(), 6).await.unwrap(), Revocation::Last);
    assert_eq!(store.revoke_api_key(key(9).id(), 6).await.unwrap(), Revocation::Missing);
    assert!(store.api_key(admin.id()).await.unwrap().unwrap().revoked_at.is_some());
}

async fn refused_keys_expire(kind: Kind) {
    let harness = Harness::new(kind).await;
    let store = &harness.store;
    let [valid, revoked, expired, lasting] = [1, 2, 3, 4].map(key);
    for (key, expires_at) in
        [(&valid, None), (&revoked, Some(50)), (&expired, Some(10)), (&lasting, Some(i64::MAX))]
    {
        let new = NewApiKey { expires_at, ..new(key, Access::full()) };
        assert_eq!(store.create_api_key(new, 5).await.unwrap(), KeyCreation::Done);
    }
    // Revoked later than it would have expired: the time of the revocation counts. (On Postgres it
    // is the database's.)
    assert_eq!(store.revoke_api_key(revoked.id(), 60).await.unwrap(), Revocation::Done);
    let revoked_at = store.api_key(revoked.id()).await.unwrap().unwrap().revoked_at.unwrap();
    assert_eq!(store.expire_api_keys(10, 99).await.unwrap(), 0);
    assert_eq!(store.expire_api_keys(60, 99).await.unwrap(), 1);
    assert!(store.api_key(expired.id()).await.unwrap().is_none());
    assert_eq!(store.expire_api_keys(revoked_at, 99).await.unwrap(), 0);
    assert_eq!(store.expire_api_keys(revoked_at + 1, 99).await.unwrap(), 1);
    assert!(store.api_key(revoked.id()).await.unwrap().is_none());
    assert_eq!(store.count_api_keys().await.unwrap(), 2);
}

async fn one_of_several_first_keys_is_stored(kind: Kind) {
    let harness = Harness::new(kind).await;
    let mut hosts = vec![harness.store.clone()];
    for folder in ["b", "c", "d"] {
        hosts.push(harness.another(folder).await.store.clone());
    }
    let creations: Vec<_> = hosts
        .into_iter()
        .enumerate()
        .map(|(seed, store)| {
            let first = new(&key(seed as u8), Access::full());
            tokio::spawn(async move { store.create_first_api_key(first, 5).await.unwrap() })
        })
        .collect();
    let mut created = 0;
    for creation in creations {
        created += u32::from(creation.await.unwrap());
    }
    assert_eq!(created, 1);
    assert_eq!(harness.number("SELECT COUNT(*) FROM api_key").await, 1);
}

async fn changes_are_audited_with_their_transaction(kind: Kind) {
    let harness = Harness::new(kind).await;
    let key = key(1);
    let address = Some(Ipv4Addr::LOCALHOST.into());
    let actor = Arc::new(Actor { key: Some(key.id()), address });
    let store = harness.store.on_behalf_of(actor.clone());
    let (a, none) = (name("a"), LimitValues::default());
    let seen = Expected::OneOf(vec![Digest::from_content(b"other")]);
    let refused = store.set_namespace(&a, &none, Some(3), &seen, 0).await.unwrap();
    assert_eq!(refused, Setting::Unexpected);
    store.set_namespace(&a, &none, Some(3), &Expected::Anything, 0).await.unwrap();
    // A host's own changes, and those of a handle without a caller, are not recorded.
    harness.store.set_namespace(&a, &none, Some(4), &Expected::Anything, 0).await.unwrap();
    let graph = GraphBuilder::from_text("A").build().unwrap();
    apply_graph(&store, &a, &name("g"), &graph, &BTreeMap::new(), 0).await.unwrap();
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let run = harness.start(&template).await;
    let control = |control| {
        let entry = store.audit_entry("run cancel", Some(&run.info.namespace), run.info.id);
        Operation::Control(run.info.clone(), Control::Audited(Box::new(control), entry.unwrap()))
    };
    harness.commit_one(control(Control::Cancel)).await;
    // Refused: the run is over.
    harness.commit_one(control(Control::Cancel)).await;
    let filter = AuditFilter { limit: 9, ..AuditFilter::default() };
    let rows = store.audit(&filter).await.unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.action.as_str(), row.object.clone())).collect();
    let expected = [
        ("run cancel", run.info.id.to_string()),
        ("graph apply", "g".to_owned()),
        ("plugin push", "testing".to_owned()),
        ("namespace set", "a".to_owned()),
    ];
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.key.as_deref() == Some(key.id().as_str())), "{rows:?}");
    assert_eq!(rows[0].address.as_deref(), Some("127.0.0.1"));
    assert!(rows[1].before.is_none() && rows[1].after.is_some(), "{rows:?}");
    assert!(rows[3].before.is_some() && rows[3].before != rows[3].after, "{rows:?}");
    let of_namespace = AuditFilter { namespace: Some(a), ..filter.clone() };
    assert_eq!(store.audit(&of_namespace).await.unwrap(), rows[1..]);
    let before = AuditFilter { before: Some(rows[1].id), ..filter.clone() };
    assert_eq!(store.audit(&before).await.unwrap(), rows[2..]);
    let action = AuditFilter { action: Some("graph apply".to_owned()), ..filter.clone() };
    assert_eq!(store.audit(&action).await.unwrap(), rows[1..2]);
    let other = AuditFilter { key: Some("other".to_owned()), ..filter };
    assert!(store.audit(&other).await.unwrap().is_empty());
    harness.check().await;
}

async fn old_rows_of_the_audit_log_expire(kind: Kind) {
    let harness = Harness::new(kind).await;
    let store = harness.store.on_behalf_of(Arc::default());
    for number in 0..5 {
        let entry = store.audit_entry("test", None, number).unwrap();
        store.record_audit(entry, 1_000).await.unwrap();
    }
    assert_eq!(store.expire_audit(1_000, 9, 2_000).await.unwrap(), 0);
    assert_eq!(store.expire_audit(i64::MAX, 3, 2_000).await.unwrap(), 3);
    assert_eq!(store.expire_audit(i64::MAX, 3, 2_000).await.unwrap(), 2);
}

async fn quotas_are_charged_in_the_transaction(kind: Kind) {
    let harness = Harness::new(kind).await;
    let (store, a) = (&harness.store, name("a"));
    let quotas: QuotaValues = [(Quota::Graphs, 1), (Quota::Revisions, 2)].into_iter().collect();
    let none = Expected::OneOf(vec![quotas_version(&QuotaValues::default()).unwrap()]);
    assert_eq!(store.set_quotas(&a, &quotas, &none, 0).await.unwrap(), Setting::Done);
    assert_eq!(store.set_quotas(&a, &quotas, &none, 0).await.unwrap(), Setting::Unexpected);
    assert_eq!(store.quotas(&a).await.unwrap(), quotas);
    assert!(store.quotas(&name("b")).await.unwrap().is_empty());
    let graph = |text: &str| GraphBuilder::from_text(text).build().unwrap();
    let apply = async |namespace: &str, graph_name: &str, text: &str| {
        let (namespace, graph_name) = (name(namespace), name(graph_name));
        let (graph, no_secrets) = (graph(text), BTreeMap::new());
        match apply_graph(store, &namespace, &graph_name, &graph, &no_secrets, 0).await {
            Ok(applied) => Ok(applied.revision.number),
            Err(StoreError::Quota(breach)) => Err(breach.quota),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(apply("a", "g", "A").await, Ok(1));
    assert_eq!(apply("a", "h", "A").await, Err(Quota::Graphs));
    assert_eq!(apply("b", "h", "A").await, Ok(1));
    assert_eq!(apply("a", "g", "A > B").await, Ok(2));
    assert_eq!(apply("a", "g", "A > B").await, Ok(2), "nothing new");
    assert_eq!(apply("a", "g", "A").await, Err(Quota::Revisions));
    assert_eq!(store.quota_use(&a, Quota::Graphs).await.unwrap(), 1);
    assert_eq!(store.quota_use(&a, Quota::Revisions).await.unwrap(), 2);
    assert_eq!(store.quota_use(&a, Quota::OpenStates).await.unwrap(), 0);
    harness.check().await;
}
