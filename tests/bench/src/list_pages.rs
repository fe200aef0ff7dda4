//! Pages of lists: what a page costs with each filter, in a database with a million runs and a run
//! with a million states. A page must not become slower the further it is from the first one.

use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use exosphere_domain::path::Path;
use exosphere_tests::postgres::Postgres;
use rusqlite::{Connection, params};
use serde_json::json;

use crate::results::{Results, Unit};
use crate::system_under_test::SystemUnderTest;

/// The pages that are read with one filter.
const PAGES: u32 = 1000;
/// The first number of the inserted runs and states: above those of the host itself.
const FIRST_ID: u64 = 1 << 40;
/// The id of the run with many states.
const LARGE_RUN: &str = "0195b7f0-0000-7000-8000-00000000ffff";

/// Filters of runs: every documented one by itself, and in combinations.
const RUN_FILTERS: [&str; 14] = [
    "",
    "status=RUNNING",
    "status=SUCCESS",
    "status=FAILED",
    "status=CANCELLED",
    "status=FAILED&status=RUNNING",
    "graph=single",
    "graph=single&status=FAILED",
    "label=team:t1",
    "label=rare:x",
    "label=team:t1&label=rare:x",
    "label=team:t1&status=FAILED",
    "label=team:t1&graph=single",
    "created_before={middle}&created_after={start}",
];

/// Filters of states.
const STATE_FILTERS: [&str; 8] = [
    "",
    "status=SUCCESS",
    "status=ERRORED",
    "status=CREATED",
    "identifier=worker",
    "kind=timeout",
    "message=out%20of%20time",
    "kind=trap&identifier=worker",
];

/// Fills a database of each kind, and measures the pages of each filter.
pub fn run(postgres: &Postgres, size: u64, results: &mut Results) -> Result<()> {
    for database in [None, Some(postgres)] {
        let system = SystemUnderTest::start(database, "lists")?;
        eprintln!("lists: fills {} with {size} runs and {size} states", system.name);
        let start = fill(&system, postgres, size)?;
        let middle = start + size / 2;
        for filter in RUN_FILTERS {
            let filter = filter.replace("{start}", &start.to_string());
            let filter = filter.replace("{middle}", &middle.to_string());
            measure(&system, "/runs", "runs", &filter, results)?;
        }
        for filter in STATE_FILTERS {
            let path = format!("/runs/{LARGE_RUN}/states");
            measure(&system, &path, "states", filter, results)?;
        }
    }
    Ok(())
}

/// Reads up to [`PAGES`] pages of 50 items, and records the time of the first one, of the last one
/// and of the slowest.
fn measure(
    system: &SystemUnderTest,
    path: &str,
    list: &str,
    filter: &str,
    results: &mut Results,
) -> Result<()> {
    let (mut times, mut items, mut after) = (Vec::new(), 0, String::new());
    for _ in 0..PAGES {
        let request = format!("{path}?limit=50&{filter}{after}");
        let begun = Instant::now();
        let page = system.host.get(&request)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        items += page[list].as_array().context("a page has items")?.len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('~', "%7E")),
            None => break,
        }
    }
    let filter = if filter.is_empty() { "no filter" } else { filter };
    let filter = filter.split("created_before").next().filter(|it| !it.is_empty());
    let filter = filter.unwrap_or("created_before, created_after");
    eprintln!("{}: {list}, {filter}: {items} items on {} pages", system.name, times.len());
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let last = times.last().copied().unwrap_or_default();
    let number = times.len();
    for (page, value) in [
        ("page 1".to_owned(), times[0]),
        (format!("page {number}"), last),
        ("slowest".into(), slowest),
    ] {
        results.add(&format!("{list}: {filter}, {page}"), system.name, Unit::Millis, value);
    }
    Ok(())
}

/// Inserts runs, one millisecond apart, and a paused run with as many states. Returns the time of
/// the first one.
fn fill(system: &SystemUnderTest, postgres: &Postgres, size: u64) -> Result<u64> {
    // A run of the host itself, whose namespace, graph and revision the others have.
    for graph in ["single", "fanout"] {
        system.host.send("POST", &format!("/graphs/{graph}/runs?wait_ms=30000"), &json!({}))?;
    }
    let start = 1_760_000_000_000;
    let last = FIRST_ID + size;
    match system.database() {
        Some(database) => {
            // The database's server may run as another user, who cannot read the host's folder.
            let file = tempfile::NamedTempFile::new()?;
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            let mut paths = BufWriter::new(file.as_file());
            for number in 0..size {
                writeln!(paths, "{}\t{}", FIRST_ID + number, path(number).as_str())?;
            }
            paths.flush()?;
            let copy = format!(
                "CREATE TABLE path_of (id BIGINT, path TEXT COLLATE \"C\"); \
                 COPY path_of FROM '{}'",
                file.path().display()
            );
            postgres.psql(database, &copy)?;
            let numbers = format!("generate_series({FIRST_ID}::BIGINT, {}) AS n (id)", last - 1);
            for sql in statements(start, &numbers, "gen_random_uuid()::TEXT") {
                postgres.psql(database, &sql)?;
            }
            let end = "DROP TABLE path_of; VACUUM ANALYZE; CHECKPOINT";
            for sql in end.split("; ") {
                postgres.psql(database, sql)?;
            }
            let count = postgres.psql(database, "SELECT COUNT(*) FROM run")?;
            ensure!(count.trim().parse::<u64>()? > size, "{count} runs");
        }
        None => {
            let mut sqlite = Connection::open(system.host.data().join("exosphere.db"))?;
            let tx = sqlite.transaction()?;
            tx.execute_batch("CREATE TABLE path_of (id INTEGER PRIMARY KEY, path TEXT)")?;
            let mut insert = tx.prepare("INSERT INTO path_of VALUES (?1, ?2)")?;
            for number in 0..size {
                insert
                    .execute(params![i64::try_from(FIRST_ID + number)?, path(number).as_str()])?;
            }
            drop(insert);
            for sql in statements(start, "path_of AS n", "lower(hex(randomblob(16)))") {
                tx.execute_batch(&sql)?;
            }
            tx.execute_batch("DROP TABLE path_of")?;
            tx.commit()?;
            sqlite.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
    }
    Ok(start)
}

/// Returns the path of a branch of the large run.
fn path(number: u64) -> Path {
    Path::root().child(u32::try_from(number).unwrap_or(u32::MAX), 0)
}

/// Returns the statements that insert the rows of the numbers `n`. One run in a thousand is
/// RUNNING, one CANCELLED, one in a hundred FAILED; of the states, one in a thousand has failed, one
/// in a hundred thousand for another reason, and the last ones are still CREATED.
fn statements(start: u64, numbers: &str, uuid: &str) -> Vec<String> {
    let run_columns = "id, uuid, namespace, graph, revision, status, version, inputs, created_at, \
                       ended_at, open, failed, states, succeeded, pruned, errored, cancelled, \
                       retries, requeues, store_keys, store_bytes, store_version, node_counts";
    let large_run = FIRST_ID * 2;
    vec![
        format!(
            "INSERT INTO run ({run_columns}) \
             SELECT id, {uuid}, namespace, graph, revision, status, 1, '{{}}', \
                 {start} + id - {FIRST_ID}, CASE WHEN status <> 'RUNNING' THEN {start} + id - {FIRST_ID} END, \
                 CASE WHEN status = 'RUNNING' THEN 1 ELSE 0 END, \
                 CASE WHEN status = 'FAILED' THEN 1 ELSE 0 END, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, '' \
             FROM (SELECT n.id, u.namespace, u.graph, u.revision, \
                 CASE WHEN n.id % 1000 = 0 THEN 'RUNNING' WHEN n.id % 1000 = 1 THEN 'CANCELLED' \
                     WHEN n.id % 100 = 2 THEN 'FAILED' ELSE 'SUCCESS' END AS status \
                 FROM {numbers} JOIN run u ON u.id = (SELECT CASE WHEN n.id % 7 = 0 \
                     THEN MAX(id) ELSE MIN(id) END FROM run WHERE id < {FIRST_ID})) copied"
        ),
        format!(
            "INSERT INTO label (run, key, value, namespace, created_at) \
             SELECT id, 'team', 't' || CAST(id % 3 AS TEXT), namespace, created_at \
             FROM run WHERE id >= {FIRST_ID}"
        ),
        format!(
            "INSERT INTO label (run, key, value, namespace, created_at) \
             SELECT id, 'rare', 'x', namespace, created_at \
             FROM run WHERE id >= {FIRST_ID} AND id % 10000 = 0"
        ),
        format!(
            "INSERT INTO run ({run_columns}, paused) \
             SELECT {large_run}, '{LARGE_RUN}', u.namespace, u.graph, u.revision, 'RUNNING', 1, \
                 '{{}}', {start}, NULL, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', 1 \
             FROM run u JOIN graph g ON g.id = u.graph \
             WHERE u.id < {FIRST_ID} AND g.name = 'fanout'"
        ),
        format!(
            "INSERT INTO state (id, run, node, path, status, due_at, session, fence, ended_at, \
                 outputs, kind, message, attempt, retries, requeues, losses, conflicts, refs, \
                 scopes, created_at, held_back, namespace, delayed) \
             SELECT id, {large_run}, 1, path, status, {start}, NULL, 1, \
                 CASE WHEN status <> 'CREATED' THEN {start} END, \
                 CASE WHEN status = 'SUCCESS' THEN 1 END, \
                 CASE WHEN status = 'ERRORED' THEN \
                     CASE WHEN id % 100000 = 0 THEN 'timeout' ELSE 'trap' END END, \
                 CASE WHEN status = 'ERRORED' THEN \
                     CASE WHEN id % 100000 = 0 THEN 'out of time' ELSE 'division by zero' END END, \
                 1, 0, 0, 0, 0, '[[0,1,0]]', '[]', {start}, \
                 CASE WHEN status = 'CREATED' THEN 1 ELSE 0 END, 1, 0 \
             FROM (SELECT id, path, CASE WHEN id % 1000 = 0 THEN 'ERRORED' \
                 WHEN id % 50000 = 7 THEN 'CREATED' ELSE 'SUCCESS' END AS status FROM path_of) s"
        ),
    ]
}
