//! Compares two SQLite clients in a bare pipeline: rusqlite with prepared statements, and sqlx
//! with one bulk statement for each table (`json_each`). As in a group commit, each transaction
//! ends k states, creates k claimed ones, and is synced to disk.
//!
//! docs/internals/performance-log.md has the figures and the choice.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use rusqlite::params;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

const TABLE: &str = "CREATE TABLE state (id INTEGER PRIMARY KEY, run BIGINT, path TEXT, status TEXT, session BIGINT, \
                     fence BIGINT, refs TEXT, ended_at BIGINT); \
                     CREATE UNIQUE INDEX state_path ON state (run, path); \
                     CREATE INDEX state_held ON state (session) WHERE status = 'QUEUED'; \
                     CREATE TABLE run (id INTEGER PRIMARY KEY, open BIGINT); INSERT INTO run VALUES (1, 0);";
const ROUND: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("| states in a transaction | rusqlite, states/s | sqlx in bulk, states/s | ratio |");
    println!("|---|---|---|---|");
    for batch in [1, 16, 64, 256] {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            figures[0].push(by_rusqlite(batch));
            figures[1].push(runtime.block_on(by_sqlx(batch)));
        }
        let [rusqlite, sqlx] = figures.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[ROUNDS / 2]
        });
        println!("| {batch} | {rusqlite:.0} | {sqlx:.0} | {:.2} |", rusqlite / sqlx);
    }
}

fn by_rusqlite(batch: i64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = rusqlite::Connection::open(folder.path().join("db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
        )
        .unwrap();
    connection.execute_batch(TABLE).unwrap();
    let mut done = 0;
    let started = Instant::now();
    while started.elapsed() < ROUND {
        let tx = connection.transaction().unwrap();
        for id in done..done + batch {
            let end = "UPDATE state SET status = 'SUCCESS', session = NULL, ended_at = ?2 WHERE \
             id = ?1 AND status = 'QUEUED' AND session = 1 AND fence = 1";
            tx.prepare_cached(end).unwrap().execute(params![id, 1]).unwrap();
            let begin = "INSERT INTO state (id, run, path, status, session, fence, refs) VALUES \
             (?1, 1, ?2, 'QUEUED', 1, 1, '[[0,1,0]]')";
            tx.prepare_cached(begin)
                .unwrap()
                .execute(params![id + batch, format!("{id:08}")])
                .unwrap();
        }
        tx.prepare_cached("UPDATE run SET open = open + ?1 WHERE id = 1")
            .unwrap()
            .execute([batch])
            .unwrap();
        tx.commit().unwrap();
        done += batch;
    }
    done as f64 / started.elapsed().as_secs_f64()
}

async fn by_sqlx(batch: i64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("db"))
        .create_if_missing(true)
        .page_size(16384)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection: SqliteConnection = options.connect().await.unwrap();
    sqlx::raw_sql(TABLE).execute(&mut connection).await.unwrap();
    let mut done = 0;
    let started = Instant::now();
    while started.elapsed() < ROUND {
        let ends: Vec<i64> = (done..done + batch).collect();
        let begins: Vec<(i64, String)> =
            ends.iter().map(|id| (id + batch, format!("{id:08}"))).collect();
        let mut tx = connection.begin().await.unwrap();
        sqlx::query(
            "UPDATE state SET status = 'SUCCESS', session = NULL, ended_at = 1 WHERE id \
         IN (SELECT value FROM json_each($1)) AND status = 'QUEUED' AND session = 1 AND fence = \
         1 RETURNING id",
        )
        .bind(serde_json::to_string(&ends).unwrap())
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO state (id, run, path, status, session, fence, refs) SELECT \
         json_extract(value, '$[0]'), 1, json_extract(value, '$[1]'), 'QUEUED', 1, 1, \
         '[[0,1,0]]' FROM json_each($1)",
        )
        .bind(serde_json::to_string(&begins).unwrap())
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query("UPDATE run SET open = open + $1 WHERE id = 1")
            .bind(batch)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        done += batch;
    }
    done as f64 / started.elapsed().as_secs_f64()
}
