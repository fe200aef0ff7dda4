//! Tests of all statements against the migrated tables, and of the guards of a claim one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use exosphere_tests::postgres::Postgres;
use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, Statement as _};
use tokio::sync::Barrier;

mod insight_plans;
mod lists;

use super::*;
use crate::dialect::Statement;
use crate::{Database, SecretCipher, Store};

/// Returns all statements. Each table has its own `ALL`.
#[allow(unused_qualifications)]
fn all_statements() -> impl Iterator<Item = &'static (&'static str, &'static Statement)> {
    let tables = [
        sessions::ALL,
        gauges::ALL,
        runs::ALL,
        run_lists::ALL,
        insight::ALL,
        labels::ALL,
        logs::ALL,
        open_states::ALL,
        states::ALL,
        unites::ALL,
        claims::ALL,
        staging::ALL,
        entries::ALL,
        catalog::ALL,
        deletion::ALL,
        deadlines::ALL,
        pauses::ALL,
        bulk::ALL,
        namespaces::ALL,
        access::ALL,
        secrets::ALL,
        spans::ALL,
        check::ALL,
    ];
    tables.into_iter().flatten()
}

/// Returns a connection to a new, migrated database, and the database's URL.
async fn postgres(name: &str) -> (PgConnection, String) {
    let url = Postgres::shared().unwrap().create_database(name).unwrap();
    let store = Store::open(&Database::Postgres(url.clone()), SecretCipher::new(&[7; 32])).await;
    store.unwrap().close().await;
    (PgConnection::connect(&url).await.unwrap(), url)
}

#[tokio::test]
async fn every_statement_is_prepared_on_both_databases() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store =
        Store::open(&Database::Sqlite(file.clone()), SecretCipher::new(&[7; 32])).await.unwrap();
    let sqlite = rusqlite::Connection::open(file).unwrap();
    let (mut postgres, _) = postgres("statements").await;
    for (name, text) in all_statements() {
        let sqlite_plan = sqlite.prepare(text.sqlite).unwrap_or_else(|e| panic!("{name}: {e}"));
        let postgres_plan = (&mut postgres).prepare(text.postgres.into_sql_str()).await;
        let postgres_plan = postgres_plan.unwrap_or_else(|error| panic!("{name}: {error}"));
        let parameters =
            postgres_plan.parameters().map_or(0, |types| types.either(|t| t.len(), |n| n));
        assert_eq!(sqlite_plan.parameter_count(), parameters, "parameters of {name}");
        assert_eq!(sqlite_plan.column_count(), postgres_plan.columns().len(), "columns of {name}");
    }
    for text in [HEARTBEAT, PING, NOTIFY, DURABILITY, now!()] {
        let prepared = (&mut postgres).prepare(text.into_sql_str()).await;
        prepared.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let names: BTreeSet<_> = all_statements().map(|(name, _)| name).collect();
    assert_eq!(names.len(), all_statements().count());
    store.close().await;
}

/// Inserts states of one run: number, run, node, path, status, due_at, session, fence, ended_at,
/// outputs.
async fn states(connection: &mut PgConnection, rows: &str) {
    let set_up = format!(
        "INSERT INTO graph (id, namespace, name, current) VALUES (1, 'n', 'g', 1); \
         INSERT INTO revision (id, graph, number, digest, body, created_at) VALUES (1, 1, 1, 'd', '{{}}', 0); \
         INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, \
          created_at, open, failed, states, succeeded, \
         pruned, errored, cancelled, retries, requeues, store_keys, store_bytes, store_version) \
         VALUES (1, 'u', 'n', 1, 1, 'RUNNING', 0, '{{}}', 0, {STATES}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0); \
         INSERT INTO state (id, run, node, path, status, due_at, session, fence, ended_at, \
          outputs, attempt, retries, requeues, losses, \
         conflicts, refs, scopes, created_at) SELECT s.*, 0, 0, 0, 0, 0, '[]', '[]', 0 FROM ({rows}) s"
    );
    connection.execute(sqlx::raw_sql(AssertSqlSafe(set_up))).await.unwrap();
}

/// Entries of ended claims stay in the index of held states until a vacuum. A plan by that index
/// reads all of them in every commit. Statistics from a moment with few held states tempt Postgres
/// into such a plan.
#[tokio::test]
async fn claim_guards_use_the_primary_key() {
    let (mut connection, _) = postgres("plans").await;
    states(
        &mut connection,
        "SELECT n, 1, 0, n::TEXT, CASE WHEN n % 40 = 0 THEN 'QUEUED' ELSE 'SUCCESS' END, 0, \
         CASE WHEN n % 40 = 0 THEN 1 END, 1, CASE WHEN n % 40 > 0 THEN 0 END, CASE WHEN n % 40 > 0 THEN 1 END \
         FROM generate_series(1, 20000) AS n",
    )
    .await;
    let setting = "ANALYZE state; SET enable_seqscan = off";
    connection.execute(sqlx::raw_sql(setting)).await.unwrap();
    let values = |value: &str| vec![value; 400].join(",");
    let (numbers, words) = (values("1"), values("SUCCESS"));
    for text in [STILL_HELD, FINISH, RESCHEDULE, RECORD_BEGIN] {
        let mut explain = format!("EXPLAIN {}", text.postgres);
        for parameter in (1..=15).rev() {
            explain = explain
                .replace(&format!("${parameter}::BIGINT[]"), &format!("'{{{numbers}}}'::BIGINT[]"))
                .replace(&format!("${parameter}::TEXT[]"), &format!("'{{{words}}}'::TEXT[]"));
        }
        let rows = connection.fetch_all(AssertSqlSafe(explain)).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("state_pkey") && !plan.contains("state_held"), "{plan}");
    }
}

/// Ended states, and far fewer that can be claimed now or later, of several runs.
const MIXED: &str = "SELECT n, 1, 0, n::TEXT, CASE WHEN n % 40 = 0 THEN 'CREATED' ELSE \
 'SUCCESS' END, n, NULL::BIGINT, 1, \
                     CASE WHEN n % 40 > 0 THEN 0 END, CASE WHEN n % 40 > 0 THEN 1 END FROM \
                      generate_series(1, 20000) AS n";

/// The cost of a claim depends only on the states that it claims. It steps along the indices of
/// claimable states, sorts nothing and reads no other state.
#[tokio::test]
async fn claims_use_the_claimable_indices_on_postgres() {
    let (mut connection, _) = postgres("claim_plans").await;
    states(&mut connection, MIXED).await;
    let mixed = "UPDATE state SET run = 1 + id % 7, namespace = id % 3, delayed = (id % 80 = \
     0)::INT WHERE status = 'CREATED'; \
                 ANALYZE state; SET enable_seqscan = off";
    connection.execute(sqlx::raw_sql(mixed)).await.unwrap();
    for (name, text, indices) in claim_statements() {
        let mut explain = format!("EXPLAIN {}", text.postgres);
        explain = explain.replace("$3::JSON", "'[-1]'::JSON");
        for parameter in (1..=8).rev() {
            explain = explain
                .replace(&format!("${parameter}::BIGINT[]"), "'{1,2}'::BIGINT[]")
                .replace(&format!("${parameter}"), "1");
        }
        let rows = connection.fetch_all(AssertSqlSafe(explain)).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        for index in indices {
            assert!(plan.contains(index), "{name} goes not by {index}: {plan}");
        }
        let unwanted = ["Seq Scan on state", "Sort", "Bitmap Heap Scan on state ", "state_path"];
        assert!(!unwanted.iter().any(|unwanted| plan.contains(unwanted)), "{name}: {plan}");
    }
}

#[tokio::test]
async fn claims_use_the_claimable_indices_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store =
        Store::open(&Database::Sqlite(file.clone()), SecretCipher::new(&[7; 32])).await.unwrap();
    let sqlite = rusqlite::Connection::open(file).unwrap();
    for (name, text, indices) in claim_statements() {
        let mut statement = sqlite.prepare(&format!("EXPLAIN QUERY PLAN {}", text.sqlite)).unwrap();
        let rows = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        let plan: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
        let plan = plan.join("\n");
        for index in indices {
            assert!(plan.contains(index), "{name} goes not by {index}: {plan}");
        }
        // Steps along an index, and lookups by primary key.
        let unwanted = ["SCAN state", "SCAN s\n", "TEMP B-TREE", "state_path"];
        assert!(!unwanted.iter().any(|unwanted| plan.contains(unwanted)), "{name}: {plan}");
    }
    store.close().await;
}

/// Returns the statements of a claim, each with the indices that it uses.
fn claim_statements() -> [(&'static str, &'static Statement, &'static [&'static str]); 4] {
    [
        ("CLAIMABLE", CLAIMABLE, &["state_ready", "state_delayed"]),
        ("READY_RUNS", READY_RUNS, &["state_ready"]),
        ("PROMOTE", PROMOTE, &["state_delayed"]),
        ("CLAIM", CLAIM, &["state_ready"]),
    ]
}

const CLAIMERS: usize = 12;
const STATES: i64 = 300;

/// A claim checks the status twice: where it searches, under a lock that other claims skip, and
/// where it writes. Each check alone keeps twelve claimers apart, so that neither hides a broken
/// change of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guard_of_a_claim_suffices_alone() {
    let (mut connection, url) = postgres("claims").await;
    states(
        &mut connection,
        &format!(
            "SELECT n, 1, 0, n::TEXT, 'CREATED', 0, NULL::BIGINT, 0, NULL::BIGINT, NULL::BIGINT \
         FROM generate_series(1, {STATES}) AS n"
        ),
    )
    .await;
    let (lock, guard) = (" FOR UPDATE OF s SKIP LOCKED", " AND status = 'CREATED' RETURNING");
    for (without, instead) in [(lock, ""), (guard, " RETURNING")] {
        let claim = CLAIM.postgres.replace(without, instead);
        assert_ne!(claim, CLAIM.postgres, "{without}");
        let claim: Arc<str> = claim.into();
        let start = Arc::new(Barrier::new(CLAIMERS));
        let claimers = (1..=CLAIMERS as i64).map(|session| {
            tokio::spawn(claims(url.clone(), claim.clone(), session, start.clone()))
        });
        let all: Vec<i64> =
            join_all(claimers).await.into_iter().flat_map(|claimed| claimed.unwrap()).collect();
        let unique: BTreeSet<_> = all.iter().collect();
        assert_eq!(
            (unique.len(), all.len()),
            (STATES as usize, STATES as usize),
            "without{without}"
        );
        let reset = "UPDATE state SET status = 'CREATED', session = NULL";
        connection.execute(reset).await.unwrap();
    }
}

/// Claims until nothing is left, as much as possible at a time.
async fn claims(url: String, claim: Arc<str>, session: i64, start: Arc<Barrier>) -> Vec<i64> {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut all = Vec::new();
    start.wait().await;
    loop {
        // From namespace 0 and run 1, from the first state on, up to `STATES` states, for a
        // session.
        let claim = sqlx::query(AssertSqlSafe(&*claim)).bind(vec![0i64]).bind(vec![1i64]);
        let claim = claim.bind(vec![0i64]).bind(vec![0i64]).bind(vec![STATES]).bind(vec![session]);
        let claim = claim.bind(vec![0i64]).bind(vec![0i64]);
        match claim.fetch_all(&mut connection).await {
            Ok(rows) if rows.is_empty() => return all,
            Ok(rows) => all.extend(rows.iter().map(|row| row.get::<i64, _>(0))),
            // Without the lock the claims may deadlock.
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                assert_eq!(code.as_deref(), Some("40P01"), "{error}");
            }
        }
    }
}
