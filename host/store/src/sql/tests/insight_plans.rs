//! Reads over all states of a run go along a range of its own rows, on both databases: their cost
//! depends on the run, and not on the number of others.

use sqlx::Executor;

use super::super::*;
use super::lists::plan;
use super::postgres;
use crate::dialect::Statement;
use crate::{Database, SecretCipher, Store};

/// A statement, the index that finds its rows on each database, and values for its parameters.
struct Case {
    name: &'static str,
    statement: &'static Statement,
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
    values: &'static str,
}

const CASES: [Case; 7] = [
    Case {
        name: "STATE_TIMES",
        statement: STATE_TIMES,
        sqlite: &["SEARCH state USING INDEX state_path (run=?)"],
        postgres: &["state_path"],
        values: "7, 2, 250000",
    },
    Case {
        name: "ATTEMPT_TIMES",
        statement: ATTEMPT_TIMES,
        sqlite: &["SEARCH attempt USING INDEX sqlite_autoindex_attempt_1 (state=?)"],
        postgres: &["attempt_pkey"],
        values: "'[1,2,3]', 250000",
    },
    Case {
        name: "FAILED_STATE_TIMES",
        statement: FAILED_STATE_TIMES,
        sqlite: &["SEARCH state USING INDEX state_errored (run=?)"],
        // Postgres may take any index of failed states.
        postgres: &["Index Scan using state_", "Index Cond: (run = "],
        values: "7, 2, 250000, 512",
    },
    Case {
        name: "STATE_PATHS",
        statement: STATE_PATHS,
        sqlite: &["SEARCH state USING INTEGER PRIMARY KEY"],
        postgres: &["state_pkey"],
        values: "'[1,2,3]'",
    },
    Case {
        name: "SESSION_HOSTS",
        statement: SESSION_HOSTS,
        sqlite: &["SEARCH l USING"],
        postgres: &["session"],
        values: "'[1,2,3]'",
    },
    Case {
        name: "RUN_COSTS",
        statement: RUN_COSTS,
        sqlite: &["SEARCH run USING INDEX run_by_graph"],
        postgres: &["run_by_graph"],
        values: "'n', 0, 0, 99999, 0, 20000, 'g'",
    },
    Case {
        name: "EARLIER_SUCCESSES",
        statement: EARLIER_SUCCESSES,
        sqlite: &["SEARCH u USING INDEX run_by_graph"],
        postgres: &["run_by_graph"],
        values: "7, 20",
    },
];

/// Runs of many graphs, each with states of which some have failed after an earlier attempt.
const EXAMPLE_ROWS: &str = "
    INSERT INTO graph (id, namespace, name, current)
        SELECT n, 'n', CASE WHEN n = 1 THEN 'g' ELSE 'g' || n END, 1 FROM generate_series(1, 100) AS n;
    INSERT INTO revision (id, graph, number, digest, body, created_at)
        VALUES (1, 1, 1, 'd', '{}', 0);
    INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, created_at,
        ended_at, open, failed, states, succeeded, pruned, errored, cancelled, retries, requeues,
        store_keys, store_bytes, store_version)
    SELECT n, 'u' || n, 'n', 1 + n % 100, 1, 'SUCCESS', 0, '{}', n, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM generate_series(1, 30000) AS n;
    INSERT INTO state (id, run, node, path, status, due_at, session, fence, ended_at, outputs,
        kind, message, attempt, retries, requeues, losses, conflicts, refs, scopes, created_at)
    SELECT n, n / 300, 0, n::TEXT, CASE WHEN n % 40 = 0 THEN 'ERRORED' ELSE 'SUCCESS' END, 0, NULL,
        1, 0, CASE WHEN n % 40 > 0 THEN 1 END, CASE WHEN n % 40 = 0 THEN 'trap' END,
        CASE WHEN n % 40 = 0 THEN 'm' END, 1 + (n % 40 = 0)::INT, 0, 0, 0, 0, '[]', '[]', 0
    FROM generate_series(1, 30000) AS n;
    INSERT INTO attempt (state, number, ended_at, outcome, kind)
        SELECT n, 1, 0, 'FAILED', 'trap' FROM generate_series(1, 30000) AS n;
    VACUUM ANALYZE run;
    VACUUM ANALYZE state;
    VACUUM ANALYZE attempt";

#[tokio::test]
async fn insight_goes_along_indices_on_postgres() {
    let (mut connection, _) = postgres("insight_plans").await;
    for statement in EXAMPLE_ROWS.split(";\n") {
        connection.execute(sqlx::raw_sql(statement)).await.unwrap();
    }
    for mode in ["force_custom_plan", "force_generic_plan"] {
        for case in &CASES {
            let of = (case.statement, case.values);
            let plan = plan(&mut connection, case.name, of, mode).await;
            for index in case.postgres {
                assert!(plan.contains(index), "{} goes not by {index}: {plan}", case.name);
            }
            let unwanted = ["Seq Scan on run", "Seq Scan on state", "Seq Scan on attempt"];
            assert!(!unwanted.iter().any(|it| plan.contains(it)), "{}, {mode}: {plan}", case.name);
            let reads_all_states = plan.contains("state_path");
            assert!(case.name != "FAILED_STATE_TIMES" || !reads_all_states, "{mode}: {plan}");
        }
    }
}

#[tokio::test]
async fn insight_goes_along_indices_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store =
        Store::open(&Database::Sqlite(file.clone()), SecretCipher::new(&[7; 32])).await.unwrap();
    let sqlite = rusqlite::Connection::open(file).unwrap();
    for case in &CASES {
        let explain = format!("EXPLAIN QUERY PLAN {}", case.statement.sqlite);
        let mut statement = sqlite.prepare(&explain).unwrap();
        let rows = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        let plan: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
        let plan = plan.join("\n");
        for step in case.sqlite {
            assert!(plan.contains(step), "{} goes not by {step}: {plan}", case.name);
        }
        let unwanted = ["SCAN run", "SCAN state", "SCAN u\n", "SCAN s\n", "SCAN a\n", "SCAN l\n"];
        assert!(!unwanted.iter().any(|it| plan.contains(it)), "{}: {plan}", case.name);
    }
    store.close().await;
}
