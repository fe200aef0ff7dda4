//! Each statement of a list follows its index, on both databases: the cost of a page depends on what
//! it shows, and not on the number of runs, states and labels.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use super::super::*;
use super::postgres;
use crate::dialect::Statement;
use crate::{Database, SecretCipher, Store};

/// A statement of a list, the index that it uses, and values for its parameters.
struct Case {
    name: &'static str,
    statement: &'static Statement,
    index: &'static str,
    values: &'static str,
}

macro_rules! cases {
    ($($statement:ident by $index:literal with $values:literal,)*) => {
        &[$(Case {
            name: stringify!($statement),
            statement: $statement,
            index: $index,
            values: $values,
        },)*]
    };
}

const CASES: &[Case] = cases! {
    RUNS_BY_STATUS by "run_by_status" with "'n', 0, 0, 99999, 0, 50, 1, 1, 1, 1",
    RUNS_BY_GRAPH by "run_by_graph" with "'n', 0, 0, 99999, 0, 50, 1, 1, 1, 1, 'g'",
    // Pages of bulk operations: one status, and those of runs that have ended.
    RUNS_BY_STATUS by "run_by_status" with "'n', 0, 0, 99999, 0, 100, 0, 0, 1, 0",
    RUNS_BY_GRAPH by "run_by_graph" with "'n', 0, 0, 99999, 0, 100, 0, 1, 1, 1, 'g'",
    BULKS by "bulk_list" with "'n', 'g', 50",
    BULK_IDS by "bulk_list" with "'n', '00', '00g', 10",
    // By its id, or by namespace and id.
    BULK by "bulk_" with "'n', 'b77'",
    BULK_OF_KEY by "bulk_start_key" with "'n', 'key77'",
    RUNNING_BULKS by "bulk_running" with "'a', 1, 200",
    RUNNING_BULKS_OF by "bulk_running" with "'n'",
    REMOVE_BULKS by "bulk_ended" with "500, 100",
    RUNS_BY_LABEL by "label_list"
        with "'n', 'k', 'v', 0, 0, 99999, 0, 50, '[\"FAILED\"]', 'g', '[\"a:b\"]'",
    LABEL_BOUND by "label_list" with "'n', 'k', 'v', 0, 0, 99999, 0, 1999",
    RUN_VIEWS by "run_pkey" with "'[1,2,3]'",
    RUN_IDS by "run_pkey" with "'[1,2,3]'",
    LABELS by "label_pkey" with "'[1,2,3]'",
    RUN_LOGS by "attempt_log" with "1, 0, 0, 0, NULL, 100, 999999",
    QUEUED_STATES by "state_held" with "1, 50",
    DELAYED_STATES by "state_delayed_of_run" with "1, 50",
    HELD_BACK_STATES by "state_held_back" with "1, 50",
    DELAYED_COUNT by "state_delayed_of_run" with "1",
    READY_STATES by "state_ready" with "1, 50, 1",
    READY_COUNT by "state_ready" with "1, 10000",
    STATES by "state_path"
        with "1, '[0]', '[\"SUCCESS\"]', '5', '5', 50, 9999, '6', NULL, NULL, 0",
    STATES_BOUND by "state_path" with "1, '5', '5', 4999",
    ERRORED_STATES by "state_errored"
        with "1, '[0]', '[\"ERRORED\"]', '5', '5', 50, 9999, '6', NULL, NULL, 0",
    ERRORED_STATES_BOUND by "state_errored" with "1, '5', '5', 4999",
    STATES_OF_KIND by "state_failure_kind"
        with "1, '[0]', NULL, '5', '5', 50, 9999, '6', 'trap', NULL, 0",
    STATES_OF_KIND_BOUND by "state_failure_kind" with "1, '5', '5', 4999, 'trap'",
    STATES_OF_MESSAGE by "state_failure_message"
        with "1, '[0]', NULL, '5', '5', 50, 9999, '6', 'trap', 'm', 0",
    DATABASE_GAUGES by "state_ready" with "0, 100000",
    DATABASE_GAUGES by "state_delayed" with "0, 100000",
    STATES_OF_MESSAGE_BOUND by "state_failure_message" with "1, '5', '5', 4999, 'm'",
};

/// Runs with each status, some labelled; and states of one run, some failed.
const EXAMPLE_ROWS: &str = "
    INSERT INTO graph (id, namespace, name, current) VALUES (1, 'n', 'g', 1);
    INSERT INTO revision (id, graph, number, digest, body, created_at)
        VALUES (1, 1, 1, 'd', '{}', 0);
    INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, created_at,
        ended_at, open, failed, states, succeeded, pruned, errored, cancelled, retries, requeues,
        store_keys, store_bytes, store_version)
    SELECT n, 'u' || n, 'n', 1, 1, status, 0, '{}', n, CASE WHEN status <> 'RUNNING' THEN n END,
        (status = 'RUNNING')::INT, (status = 'FAILED')::INT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM (SELECT n, CASE n % 100 WHEN 0 THEN 'RUNNING' WHEN 1 THEN 'FAILED' WHEN 2 THEN 'CANCELLED'
        ELSE 'SUCCESS' END AS status FROM generate_series(1, 30000) AS n) runs;
    INSERT INTO label (run, key, value, namespace, created_at)
        SELECT id, 'k', 'v', 'n', created_at FROM run WHERE id % 3 = 0;
    INSERT INTO label (run, key, value, namespace, created_at)
        SELECT id, 'a', 'b', 'n', created_at FROM run WHERE id % 9 = 0;
    INSERT INTO state (id, run, node, path, status, due_at, session, fence, ended_at, outputs,
        kind, message, attempt, retries, requeues, losses, conflicts, refs, scopes, created_at)
    SELECT n, 1, 0, n::TEXT, CASE WHEN n % 40 = 0 THEN 'ERRORED' ELSE 'SUCCESS' END, 0, NULL, 1, 0,
        CASE WHEN n % 40 > 0 THEN 1 END, CASE n % 80 WHEN 0 THEN 'trap' WHEN 40 THEN 'exit' END,
        CASE n % 80 WHEN 0 THEN 'm' WHEN 40 THEN 'other' END, 1, 0, 0, 0, 0, '[]', '[]', 0
    FROM generate_series(1, 30000) AS n;
    INSERT INTO state (id, run, node, path, status, due_at, session, fence, attempt, retries, requeues,
        losses, conflicts, refs, scopes, created_at, namespace, delayed, held_back)
    SELECT 100000 + n, n % 10, 0, 'o' || n, CASE WHEN n % 20 = 0 THEN 'QUEUED' ELSE 'CREATED' END, n,
        CASE WHEN n % 20 = 0 THEN 1 END, 1, 0, 0, 0, 0, 0, '[]', '[]', 0, n % 3, n % 2, n / 3000 % 2
    FROM generate_series(1, 6000) AS n;
    INSERT INTO attempt (state, number, ended_at, outcome, logs, log_run)
        SELECT n, 1, n, 'SUCCESS', '[]', n % 2 FROM generate_series(1, 20000) AS n;
    INSERT INTO bulk (id, namespace, action, filter, reason, start_key, status, frozen_at, ended_at,
        expected, is_exact)
    SELECT 'b' || n, 'n', 'cancel', '{\"graph\":\"g\"}', '',
        CASE WHEN n % 9 = 0 THEN 'key' || n END,
        CASE WHEN n % 5000 = 0 THEN 'RUNNING' ELSE 'SUCCESS' END, n,
        CASE WHEN n % 5000 > 0 THEN n END, 0, 1
    FROM generate_series(1, 30000) AS n;
    INSERT INTO bulk_run (bulk, run, outcome)
        SELECT 'b' || n % 100, n, 'done' FROM generate_series(1, 20000) AS n;
    VACUUM ANALYZE bulk;
    VACUUM ANALYZE bulk_run;
    VACUUM ANALYZE run;
    VACUUM ANALYZE label;
    VACUUM ANALYZE attempt;
    VACUUM ANALYZE state";

/// Returns the maximum number of sorts in a plan, each of a page: one of each status of runs, or
/// one of what the page shows.
fn max_sorts(name: &str) -> usize {
    match name {
        "RUNS_BY_STATUS" | "RUNS_BY_GRAPH" => 4,
        name if name.ends_with("_BOUND") || name == "RUNS_BY_LABEL" => 0,
        _ => 1,
    }
}

/// Postgres plans a statement for the values of its parameters or, after some executions, for any
/// values. Both plans go along the index.
#[tokio::test]
async fn lists_go_along_their_indices_on_postgres() {
    let (mut connection, _) = postgres("list_plans").await;
    for statement in EXAMPLE_ROWS.split(";\n") {
        connection.execute(sqlx::raw_sql(statement)).await.unwrap();
    }
    for mode in ["force_custom_plan", "force_generic_plan"] {
        for (number, case) in CASES.iter().enumerate() {
            let (name, of) = (case.name, (case.statement, case.values));
            let plan = plan(&mut connection, &format!("case_{number}"), of, mode).await;
            assert!(plan.contains(case.index), "{name} goes not by {}: {plan}", case.index);
            let unwanted = [
                "Seq Scan on run",
                "Seq Scan on state",
                "Seq Scan on label",
                "Seq Scan on bulk",
                // The gauges are counted by namespace.
                if name == "DATABASE_GAUGES" { "Hash Cond" } else { "Hash" },
            ];
            assert!(!unwanted.iter().any(|it| plan.contains(it)), "{name}, {mode}: {plan}");
            let sorts = plan.matches("Sort  (").count();
            assert!(sorts <= max_sorts(name), "{name}, {mode}: {plan}");
        }
    }
}

/// Returns the plan of a statement with some values on Postgres. `name` names the prepared one.
pub(super) async fn plan(
    connection: &mut PgConnection,
    name: &str,
    (statement, values): (&Statement, &str),
    mode: &str,
) -> String {
    let prepare =
        format!("SET plan_cache_mode = {mode}; PREPARE {name}_{mode} AS {}", statement.postgres);
    connection.execute(sqlx::raw_sql(AssertSqlSafe(prepare))).await.unwrap();
    let explain = format!("EXPLAIN EXECUTE {name}_{mode} ({values})");
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(explain))).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

#[tokio::test]
async fn lists_go_along_their_indices_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store =
        Store::open(&Database::Sqlite(file.clone()), SecretCipher::new(&[7; 32])).await.unwrap();
    let sqlite = rusqlite::Connection::open(file).unwrap();
    for case in CASES {
        let name = case.name;
        let explain = format!("EXPLAIN QUERY PLAN {}", case.statement.sqlite);
        let mut statement = sqlite.prepare(&explain).unwrap();
        let rows = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        let plan: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
        let plan = plan.join("\n");
        // A primary key has no name of its own in a plan.
        let key = match case.index {
            "run_pkey" => "SEARCH u USING INTEGER PRIMARY KEY",
            "label_pkey" => "SEARCH label USING PRIMARY KEY",
            index => index,
        };
        assert!(plan.contains(key), "{name} goes not by {key}: {plan}");
        let unwanted = [
            "SCAN run",
            "SCAN state",
            "SCAN label",
            "SCAN bulk",
            "SCAN l\n",
            "SCAN u\n",
            "SCAN b\n",
        ];
        assert!(!unwanted.iter().any(|it| plan.contains(it)), "{name}: {plan}");
        let sorts = plan.matches("TEMP B-TREE").count();
        assert!(sorts <= max_sorts(name), "{name}: {plan}");
    }
    store.close().await;
}
