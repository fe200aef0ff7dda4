//! A test database of either kind, with direct access to its tables.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use exosphere_store::Database;
use exosphere_tests::postgres::Postgres;
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, PgPool, Row, SqlitePool};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The kind of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A new database.
pub struct TestDatabase {
    pub kind: Kind,
    pub location: Database,
    connections: OnceCell<Connections>,
    _folder: TempDir,
}

/// The test's own connections, opened on first use.
enum Connections {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// The rows of a table by primary key, each with its columns as text.
pub type Table = BTreeMap<Vec<String>, BTreeMap<String, Option<String>>>;

/// The next number for a database name.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    pub fn new(kind: Kind) -> TestDatabase {
        let folder = tempfile::tempdir().unwrap();
        let location = match kind {
            Kind::Sqlite => Database::Sqlite(folder.path().join("exosphere.db")),
            Kind::Postgres => {
                let name = format!("conformance_{}", NEXT_NUMBER.fetch_add(1, Ordering::Relaxed));
                Database::Postgres(Postgres::shared().unwrap().create_database(&name).unwrap())
            }
        };
        TestDatabase { kind, location, connections: OnceCell::new(), _folder: folder }
    }

    async fn connections(&self) -> &Connections {
        self.connections
            .get_or_init(|| async {
                match &self.location {
                    Database::Sqlite(file) => {
                        let options = SqliteConnectOptions::new().filename(file);
                        let pool = SqlitePoolOptions::new().max_connections(1);
                        Connections::Sqlite(pool.connect_with(options).await.unwrap())
                    }
                    Database::Postgres(url) => {
                        let pool = PgPoolOptions::new().max_connections(1);
                        Connections::Postgres(pool.connect(url).await.unwrap())
                    }
                }
            })
            .await
    }

    /// Runs a statement. Returns the number of changed rows, or the error.
    pub async fn execute(&self, sql: &str) -> Result<u64, String> {
        let statement = AssertSqlSafe(sql.to_owned());
        match self.connections().await {
            Connections::Sqlite(pool) => {
                let done = sqlx::query(statement).execute(pool).await;
                done.map(|done| done.rows_affected()).map_err(|error| error.to_string())
            }
            Connections::Postgres(pool) => {
                let done = sqlx::query(statement).execute(pool).await;
                done.map(|done| done.rows_affected()).map_err(|error| error.to_string())
            }
        }
    }

    /// Returns the rows of a query, all columns as text.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let statement = AssertSqlSafe(sql.to_owned());
        match self.connections().await {
            Connections::Sqlite(pool) => {
                let rows = sqlx::query(statement).fetch_all(pool).await;
                let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
                // SQLite returns any value as text.
                let cells = |row: &SqliteRow| {
                    (0..row.len()).map(|at| row.get_unchecked(at)).collect::<Vec<_>>()
                };
                rows.iter().map(cells).collect()
            }
            Connections::Postgres(pool) => {
                let rows = sqlx::query(statement).fetch_all(pool).await;
                let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
                let cell = |row: &PgRow, at| match row.try_get::<Option<i64>, _>(at) {
                    Ok(number) => number.map(|number| number.to_string()),
                    Err(_) => row.try_get::<Option<String>, _>(at).unwrap_or_else(|_| {
                        let bytes = row.get::<Option<Vec<u8>>, _>(at);
                        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                    }),
                };
                let cells = |row| (0..PgRow::len(row)).map(|at| cell(row, at)).collect();
                rows.iter().map(cells).collect()
            }
        }
    }

    /// Returns the one text of a query.
    pub async fn text(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        rows.into_iter().flatten().next().flatten().unwrap_or_else(|| panic!("{sql}: nothing"))
    }

    /// Returns the one number of a query.
    pub async fn number(&self, sql: &str) -> i64 {
        let text = self.text(sql).await;
        text.parse().unwrap_or_else(|_| panic!("{sql}: {text}"))
    }

    /// Returns the names of the store's own tables.
    pub async fn tables(&self) -> Vec<String> {
        let sql = match self.kind {
            Kind::Sqlite => {
                "SELECT name FROM sqlite_master WHERE type = 'table' \
                 AND name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY name"
            }
            Kind::Postgres => {
                "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public' \
                 AND tablename NOT LIKE '\\_sqlx%' ORDER BY tablename"
            }
        };
        self.rows(sql).await.into_iter().flatten().flatten().collect()
    }

    /// Returns the columns of a table, those of its primary key first.
    pub async fn columns(&self, table: &str) -> (Vec<String>, usize) {
        let sql = match self.kind {
            Kind::Sqlite => format!("SELECT name, pk FROM pragma_table_info('{table}')"),
            Kind::Postgres => format!(
                "SELECT c.column_name::TEXT, COALESCE(k.ordinal_position, 0)::BIGINT FROM information_schema.columns c \
                 LEFT JOIN information_schema.key_column_usage k ON k.table_name = c.table_name \
                 AND k.column_name = c.column_name AND k.constraint_name = '{table}_pkey' \
                 WHERE c.table_schema = 'public' AND c.table_name = '{table}'"
            ),
        };
        let mut columns: Vec<(i64, String)> = self
            .rows(&sql)
            .await
            .into_iter()
            .map(|row| (row[1].as_deref().unwrap().parse().unwrap(), row[0].clone().unwrap()))
            .map(|(key, name)| (if key == 0 { i64::MAX } else { key }, name))
            .collect();
        columns.sort();
        let keys = columns.iter().filter(|(key, _)| *key < i64::MAX).count();
        (columns.into_iter().map(|(_, name)| name).collect(), keys)
    }

    /// Returns all rows of a table.
    pub async fn table(&self, table: &str) -> Table {
        let (columns, keys) = self.columns(table).await;
        let rows = self.rows(&format!("SELECT {} FROM {table}", columns.join(", "))).await;
        let row = |row: Vec<Option<String>>| {
            let key = row[..keys].iter().flatten().cloned().collect();
            (key, columns.iter().cloned().zip(row).collect())
        };
        rows.into_iter().map(row).collect()
    }

    /// Shifts all stored times back, which simulates a later clock. For Postgres, whose clock a
    /// test cannot set.
    pub async fn shift_times_back(&self, millis: i64) {
        for table in self.tables().await {
            let (columns, _) = self.columns(&table).await;
            let times = columns.iter().filter(|column| is_time(column));
            let earlier: Vec<_> = times.map(|time| format!("{time} = {time} - {millis}")).collect();
            if !earlier.is_empty() {
                self.execute(&format!("UPDATE {table} SET {}", earlier.join(", "))).await.unwrap();
            }
        }
    }
}

/// Returns whether a column is a point in time.
pub fn is_time(column: &str) -> bool {
    column.ends_with("_at")
}
