//! Keys of secrets: key checks of a database, and the reencryption of a rotation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_store::{Keyring, LostSecrets, OpenError, Reencrypted, SecretCipher, Store};
use tokio::task::JoinSet;

use crate::harness::{apply_graph, name, open};
use crate::test_database::{Kind, TestDatabase};

on_both! {
    a_database_rejects_unknown_keys,
    secrets_are_removed_per_graph,
    every_secret_is_reencrypted,
    an_aborted_rotation_can_be_finished,
    secrets_without_key_ids_are_migrated,
    hosts_reload_keys_on_demand,
    a_host_follows_two_concurrent_rotations,
    undecryptable_secrets_are_kept_or_deleted,
}
on_postgres! {
    the_first_host_decides_the_key,
    secrets_set_during_rotation_are_reencrypted,
}

/// The key of the other tests, and another one.
const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];

fn old() -> Keyring {
    Keyring::from(&OLD)
}

fn new() -> Keyring {
    Keyring::from(&NEW)
}

fn both_keys() -> Keyring {
    new().with_older(&old())
}

async fn opened(database: &TestDatabase, keys: Keyring) -> Result<Store, OpenError> {
    Store::open(&database.location, SecretCipher::new(keys)).await
}

/// Sets a secret of a graph.
async fn set(store: &Store, graph: &str, secret: &str, value: &str) {
    let template = GraphBuilder::from_text("A").build().unwrap();
    let secrets = BTreeMap::from([(name(secret), Some(value.to_owned()))]);
    apply_graph(store, &name("n"), &name(graph), &template, &secrets, 1).await.unwrap();
}

async fn secrets_are_removed_per_graph(kind: Kind) {
    let database = TestDatabase::new(kind);
    let store = opened(&database, old()).await.unwrap();
    for (graph, secret) in [("g", "s"), ("g", "t"), ("h", "s")] {
        set(&store, graph, secret, "hush").await;
    }
    let template = GraphBuilder::from_text("A").build().unwrap();
    let secrets = BTreeMap::from([(name("s"), None), (name("never"), None)]);
    let applied =
        apply_graph(&store, &name("n"), &name("g"), &template, &secrets, 1).await.unwrap();
    assert!(!applied.changed, "a secret is no part of a revision");
    let names = async |graph| store.secret_names(&name("n"), &name(graph)).await.unwrap();
    assert_eq!((names("g").await, names("h").await), (vec![name("t")], vec![name("s")]));
}

async fn value(store: &Store, graph: &str, secret: &str) -> Result<String, String> {
    let (namespace, graph) = (name("n"), name(graph));
    let rows = store.encrypted_secrets(&namespace, &graph).await.unwrap();
    let all = store.open_secrets(&namespace, &graph, &rows).await;
    let (_, value) = all.into_iter().find(|(found, _)| *found == name(secret)).unwrap();
    value.map(|value| value.to_string()).map_err(|error| error.to_string())
}

/// Returns the number of secrets under each key, and the keys in use.
async fn state(database: &TestDatabase) -> String {
    let count = "SELECT key_id, COUNT(*) FROM secret GROUP BY key_id ORDER BY key_id";
    let key_ids = "SELECT key_id FROM seal ORDER BY key_id";
    let message = |rows: Vec<Vec<Option<String>>>| {
        let rows = rows.into_iter().map(|row| {
            row.into_iter().flatten().map(|cell| named(&cell)).collect::<Vec<_>>().join(" ")
        });
        rows.collect::<Vec<_>>().join(", ")
    };
    format!(
        "{}; in use: {}",
        message(database.rows(count).await),
        message(database.rows(key_ids).await)
    )
}

fn named(id: &str) -> String {
    let known = [(old(), "old"), (new(), "new")];
    let known = known.iter().find(|(key, _)| key.current().as_str() == id);
    known.map_or(id, |(_, name)| name).to_owned()
}

async fn a_database_rejects_unknown_keys(kind: Kind) {
    let database = TestDatabase::new(kind);
    opened(&database, old()).await.unwrap().close().await;
    let refused = opened(&database, new()).await.err().unwrap();
    let message = refused.to_string();
    assert!(matches!(refused, OpenError::OtherKey { .. }), "{message}");
    for part in [old().current().as_str(), new().current().as_str(), "--key", "reseal"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(state(&database).await, "; in use: old", "a rejected host changed nothing");
    opened(&database, old().with_older(&new())).await.unwrap().close().await;
    assert_eq!(state(&database).await, "; in use: old");
    opened(&database, both_keys()).await.unwrap().close().await;
    let both_in_use = state(&database).await;
    assert!(both_in_use.contains("old") && both_in_use.contains("new"), "{both_in_use}");
    assert!(
        opened(&database, old()).await.is_err(),
        "it could not decrypt secrets under the other key"
    );
    assert!(opened(&database, new()).await.is_err());
}

async fn every_secret_is_reencrypted(kind: Kind) {
    const SECRETS: usize = 150;
    let database = TestDatabase::new(kind);
    let store = opened(&database, old()).await.unwrap();
    for at in 0..SECRETS {
        set(&store, &format!("g{}", at % 7), &format!("s{at}"), &format!("value {at}")).await;
    }
    assert!(store.needs_no_reencryption().await.unwrap());
    store.use_keys(both_keys()).await.unwrap();
    assert!(!store.needs_no_reencryption().await.unwrap());
    let done = store.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
    assert_eq!(done, Reencrypted { secrets: SECRETS as u64, lost: Vec::new() });
    assert_eq!(state(&database).await, format!("new {SECRETS}; in use: new"));
    assert!(store.needs_no_reencryption().await.unwrap());
    let second_pass = store.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
    assert_eq!(second_pass, Reencrypted::default(), "there is nothing left to do");
    store.close().await;
    let store = opened(&database, new()).await.unwrap();
    for at in 0..SECRETS {
        let found = value(&store, &format!("g{}", at % 7), &format!("s{at}")).await;
        assert_eq!(found, Ok(format!("value {at}")));
    }
}

/// Between any two steps the keys in the file decrypt everything, and another process can do the
/// rest.
async fn an_aborted_rotation_can_be_finished(kind: Kind) {
    let database = TestDatabase::new(kind);
    let store = opened(&database, old()).await.unwrap();
    set(&store, "g", "first", "1").await;
    set(&store, "g", "second", "2").await;
    store.close().await;
    // The file has both keys; the database knows the old one alone.
    let store = opened(&database, both_keys()).await.unwrap();
    assert_eq!(value(&store, "g", "first").await, Ok("1".into()));
    // The new key is in use; some secrets are under it and some are not.
    set(&store, "g", "third", "3").await;
    store.close().await;
    let store = opened(&database, both_keys()).await.unwrap();
    for (secret, expected) in [("first", "1"), ("second", "2"), ("third", "3")] {
        assert_eq!(value(&store, "g", secret).await, Ok(expected.into()));
    }
    assert_eq!(store.reencrypt_secrets(LostSecrets::Keep).await.unwrap().secrets, 2);
    store.close().await;
    // The old key is no longer needed, and is still in the file.
    assert_eq!(state(&database).await, "new 3; in use: new");
    for keys in [both_keys(), new()] {
        let store = opened(&database, keys).await.unwrap();
        assert_eq!(value(&store, "g", "second").await, Ok("2".into()));
        store.close().await;
    }
}

async fn secrets_without_key_ids_are_migrated(kind: Kind) {
    let database = TestDatabase::new(kind);
    let store = open(&database).await;
    set(&store, "g", "s", "of old").await;
    store.close().await;
    for sql in ["UPDATE secret SET key_id = ''", "DELETE FROM seal"] {
        database.execute(sql).await.unwrap();
    }
    let refused = opened(&database, new()).await.err().unwrap();
    assert!(matches!(refused, OpenError::OtherKey { .. }), "{refused}");
    let store = opened(&database, old()).await.unwrap();
    assert_eq!(value(&store, "g", "s").await, Ok("of old".into()));
    assert!(!store.needs_no_reencryption().await.unwrap());
    store.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
    assert_eq!(state(&database).await, "old 1; in use: old");
}

async fn hosts_reload_keys_on_demand(kind: Kind) {
    let database = TestDatabase::new(kind);
    let file = Arc::new(Mutex::new(old()));
    let read = file.clone();
    let asking = SecretCipher::new(old()).with_reload(move || Ok(read.lock().unwrap().clone()));
    let host = Store::open(&database.location, asking).await.unwrap();
    let stale_host = opened(&database, old()).await.unwrap();
    set(&host, "g", "s", "hush").await;
    let rotating = opened(&database, old()).await.unwrap();
    *file.lock().unwrap() = both_keys();
    rotating.use_keys(both_keys()).await.unwrap();
    set(&host, "g", "t", "meanwhile").await;
    assert!(state(&database).await.starts_with("old 2; "), "the host has not reloaded its keys");
    rotating.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
    assert_eq!(state(&database).await, "new 2; in use: new");
    *file.lock().unwrap() = new();
    // The host learns of the new key by reading a secret that it has no key for.
    assert_eq!(value(&host, "g", "t").await, Ok("meanwhile".into()));
    let message = value(&stale_host, "g", "s").await.unwrap_err();
    assert!(message.contains(new().current().as_str()) && !message.contains("hush"), "{message}");
    // The host learns of the new key by writing under a key that is out of use.
    let read = file.clone();
    let asking =
        SecretCipher::new(both_keys()).with_reload(move || Ok(read.lock().unwrap().clone()));
    let late_store = Store::open(&database.location, asking).await.unwrap();
    let last = Keyring::from(&[9; 32]);
    *file.lock().unwrap() = last.with_older(&new());
    rotating.use_keys(last.with_older(&new())).await.unwrap();
    rotating.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
    set(&late_store, "g", "u", "late").await;
    let under = format!("{} 3; in use: {0}", last.current());
    assert_eq!(state(&database).await, under);
    let template = GraphBuilder::from_text("A").build().unwrap();
    let secrets = BTreeMap::from([(name("v"), Some("never".to_owned()))]);
    let refused = apply_graph(&stale_host, &name("n"), &name("h"), &template, &secrets, 1).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("no longer in use") && !message.contains("never"), "{message}");
    assert_eq!(state(&database).await, under, "no secret is under a removed key");
    let no_limits = BTreeMap::new();
    apply_graph(&stale_host, &name("n"), &name("h"), &template, &no_limits, 1).await.unwrap();
}

async fn undecryptable_secrets_are_kept_or_deleted(kind: Kind) {
    let database = TestDatabase::new(kind);
    let store = opened(&database, old()).await.unwrap();
    set(&store, "g", "whole", "1").await;
    set(&store, "g", "broken", "2").await;
    let empty_text = if kind == Kind::Sqlite { "x'00'" } else { "'\\x00'" };
    let tamper = format!("UPDATE secret SET sealed = {empty_text} WHERE name = 'broken'");
    database.execute(&tamper).await.unwrap();
    store.use_keys(both_keys()).await.unwrap();
    let done = store.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
    assert_eq!((done.secrets, done.lost.len()), (1, 1));
    assert!(done.lost[0].contains("broken of the graph g in n"), "{:?}", done.lost);
    assert!(opened(&database, new()).await.is_err(), "the old key is still needed");
    store.close().await;
    // All keys are lost.
    let last = Keyring::from(&[9; 32]);
    let store = Store::open_without_key_check(&database.location, SecretCipher::new(last.clone()))
        .await
        .unwrap();
    store.use_keys(last.clone()).await.unwrap();
    let done = store.reencrypt_secrets(LostSecrets::Delete).await.unwrap();
    assert_eq!((done.secrets, done.lost.len()), (0, 2));
    assert_eq!(state(&database).await, format!("; in use: {}", last.current()));
    set(&store, "g", "whole", "again").await;
    store.close().await;
    let store = opened(&database, last).await.unwrap();
    assert_eq!(value(&store, "g", "whole").await, Ok("again".into()));
}

async fn the_first_host_decides_the_key() {
    const HOSTS: u8 = 10;
    for (has_distinct_keys, expected) in [(false, usize::from(HOSTS)), (true, 1)] {
        let database = TestDatabase::new(Kind::Postgres);
        let keys =
            (1..=HOSTS).map(|at| Keyring::from(&[if has_distinct_keys { at } else { 1 }; 32]));
        let hosts = futures::future::join_all(keys.map(|keys| opened(&database, keys))).await;
        let started = hosts.iter().filter(|host| host.is_ok()).count();
        assert_eq!(started, expected, "different: {has_distinct_keys}");
        assert_eq!(database.number("SELECT COUNT(*) FROM seal").await, 1);
    }
}

/// A host that reads its keys just before a second rotation ends has to read them once more.
async fn a_host_follows_two_concurrent_rotations(kind: Kind) {
    let database = TestDatabase::new(kind);
    let newest = Keyring::from(&[9; 32]);
    let file = Mutex::new(vec![newest.clone(), new()]);
    let cipher = SecretCipher::new(old()).with_reload(move || {
        let mut next_key = file.lock().unwrap();
        let keys = if next_key.len() > 1 { next_key.pop() } else { next_key.last().cloned() };
        keys.ok_or_else(|| "no keys are left".to_owned())
    });
    let host = Store::open(&database.location, cipher).await.unwrap();
    let mut keys = old();
    for next in [new(), newest] {
        let rotating = opened(&database, keys.clone()).await.unwrap();
        let extended = next.with_older(&keys);
        rotating.use_keys(extended.clone()).await.unwrap();
        rotating.reencrypt_secrets(LostSecrets::Keep).await.unwrap();
        rotating.close().await;
        keys = extended.current_only();
    }
    set(&host, "g", "s", "hush").await;
    assert_eq!(value(&host, "g", "s").await, Ok("hush".to_owned()));
}

/// Hosts may encrypt secrets during a rotation; none remains under a key that leaves the file.
async fn secrets_set_during_rotation_are_reencrypted() {
    const ROTATIONS: u8 = 12;
    let database = TestDatabase::new(Kind::Postgres);
    let file = Arc::new(Mutex::new(Keyring::from(&[1; 32])));
    let ended = Arc::new(Mutex::new(false));
    let mut hosts = JoinSet::new();
    for at in 0..3 {
        let (read, ended) = (file.clone(), ended.clone());
        let keys = file.lock().unwrap().clone();
        let vault = SecretCipher::new(keys).with_reload(move || Ok(read.lock().unwrap().clone()));
        let host = Store::open(&database.location, vault).await.unwrap();
        hosts.spawn(async move {
            let mut count = 0;
            while !*ended.lock().unwrap() {
                let secret = format!("s{}", count % 40);
                set(&host, &format!("g{at}"), &secret, &format!("{at} {count}")).await;
                let found = value(&host, &format!("g{at}"), &secret).await;
                assert_eq!(found, Ok(format!("{at} {count}")));
                count += 1;
            }
            count
        });
    }
    for key in 2..2 + ROTATIONS {
        let keys = file.lock().unwrap().clone();
        let rotating = opened(&database, keys.clone()).await.unwrap();
        let extended = Keyring::from(&[key; 32]).with_older(&keys);
        *file.lock().unwrap() = extended.clone();
        rotating.use_keys(extended.clone()).await.unwrap();
        assert_eq!(
            rotating.reencrypt_secrets(LostSecrets::Keep).await.unwrap().lost,
            Vec::<String>::new()
        );
        let newest = extended.current_only();
        *file.lock().unwrap() = newest.clone();
        rotating.close().await;
        assert_eq!(database.text("SELECT key_id FROM seal").await, newest.current().as_str());
    }
    *ended.lock().unwrap() = true;
    let counts = hosts.join_all().await;
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    let newest = file.lock().unwrap().clone();
    let id = newest.current().to_string();
    let count_sql = format!("SELECT COUNT(*) FROM secret WHERE key_id <> '{id}'");
    assert_eq!(database.number(&count_sql).await, 0);
    let store = opened(&database, newest).await.unwrap();
    assert_eq!(
        store.reencrypt_secrets(LostSecrets::Keep).await.unwrap().lost,
        Vec::<String>::new()
    );
}
