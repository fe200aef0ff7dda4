//! Tests that both sets of migrations produce the same schema.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use exosphere_tests::postgres::Postgres;
use sqlx::{Connection, PgConnection};

use super::*;

const MASTER_KEY: [u8; 32] = [7; 32];

/// Columns by table and name, each with whether it may be NULL.
type Columns = BTreeMap<(String, String), bool>;

fn files(kind: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(kind);
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn both_migration_sets_create_equal_tables() {
    assert_eq!(files("sqlite"), files("postgres"));
    assert!(!files("sqlite").is_empty());
    let (columns, indices) = of_sqlite().await;
    let (postgres_columns, postgres_indices) = of_postgres().await;
    assert!(columns.len() > 100 && indices.len() > 5, "{} {}", columns.len(), indices.len());
    assert_eq!(columns, postgres_columns);
    assert_eq!(indices, postgres_indices);
}

/// A database may be opened any number of times, by many hosts concurrently.
#[tokio::test]
async fn concurrent_hosts_open_a_new_postgres() {
    let url = Postgres::shared().unwrap().create_database("opened").unwrap();
    let database = Database::Postgres(url);
    let all = (0..6).map(|_| Store::open(&database, SecretCipher::new(&MASTER_KEY)));
    for opened in futures::future::join_all(all).await {
        opened.unwrap().close().await;
    }
}

async fn of_sqlite() -> (Columns, BTreeSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    Store::open(&Database::Sqlite(file.clone()), SecretCipher::new(&MASTER_KEY))
        .await
        .unwrap()
        .close()
        .await;
    let connection = rusqlite::Connection::open(file).unwrap();
    let columns = "SELECT t.name, c.name, c.\"notnull\" = 0 FROM sqlite_master t, pragma_table_info(t.name) c \
                   WHERE t.type = 'table' AND t.name NOT LIKE '%sqlx%'";
    let mut columns = connection.prepare(columns).unwrap();
    let column = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
    let columns = columns.query_map([], column).unwrap().collect::<Result<_, _>>().unwrap();
    let indices = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
    let mut indices = connection.prepare(indices).unwrap();
    let indices = indices.query_map([], |row| row.get(0)).unwrap();
    (columns, indices.collect::<Result<_, _>>().unwrap())
}

async fn of_postgres() -> (Columns, BTreeSet<String>) {
    let url = Postgres::shared().unwrap().create_database("migrated").unwrap();
    let store = Store::open(&Database::Postgres(url.clone()), SecretCipher::new(&MASTER_KEY)).await;
    store.unwrap().close().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let columns = "SELECT table_name::TEXT, column_name::TEXT, is_nullable = 'YES' FROM information_schema.columns \
                   WHERE table_schema = 'public' AND table_name NOT LIKE '%sqlx%'";
    let columns: Vec<(String, String, bool)> =
        sqlx::query_as(columns).fetch_all(&mut connection).await.unwrap();
    // Indices of constraints are left out.
    let indices = "SELECT c.relname::TEXT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                   WHERE c.relnamespace = 'public'::regnamespace \
                   AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)";
    let indices: Vec<String> =
        sqlx::query_scalar(indices).fetch_all(&mut connection).await.unwrap();
    let columns = columns.into_iter().map(|(table, name, null)| ((table, name), null));
    (columns.collect(), indices.into_iter().collect())
}
