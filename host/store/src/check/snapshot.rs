//! A snapshot of a database, read row by row over one connection. Not here: which rows are read.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use rusqlite::{Connection as Sqlite, OpenFlags};
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::CheckError;
use crate::backend::arguments::bind;
use crate::backend::postgres::options;
use crate::dialect::{Param, Row, Statement, params};
use crate::error::{OpenError, StoreError};
use crate::sql;

/// A callback for each row of a query.
pub(super) type RowVisitor<'a> = dyn FnMut(&dyn Row) + Send + 'a;

/// A reader of rows in one read transaction. A row is dropped before the next is read, so that
/// memory does not grow with the result. On SQLite the futures are ready immediately.
pub(super) trait Snapshot: Send {
    /// Returns the migrations of this version for this database.
    fn migrator(&self) -> Migrator;

    /// Passes each row of a query to `visit`.
    fn visit_each<'a>(
        &'a mut self,
        statement: &'static Statement,
        params: &'a [Param<'a>],
        visit: &'a mut RowVisitor<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// A read transaction on a SQLite file.
pub(super) struct SqliteSnapshot(Sqlite);

/// Time to wait for a host that has just opened the file and may lock it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl SqliteSnapshot {
    pub(super) fn open(file: &Path) -> Result<Self, CheckError> {
        if !file.is_file() {
            return Err(CheckError::NoFile(file.display().to_string()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |error: rusqlite::Error| StoreError::from(error);
        let connection = Sqlite::open_with_flags(file, flags).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        let setup = "PRAGMA query_only = ON; PRAGMA cache_size = -65536; BEGIN";
        connection.execute_batch(setup).map_err(open)?;
        Ok(SqliteSnapshot(connection))
    }

    fn visit_rows(
        &self,
        statement: &'static Statement,
        params: &[Param<'_>],
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), StoreError> {
        let mut prepared = self.0.prepare_cached(statement.sqlite)?;
        for (at, param) in params.iter().enumerate() {
            prepared.raw_bind_parameter(at + 1, param)?;
        }
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next()? {
            visit(row);
        }
        Ok(())
    }
}

impl Snapshot for SqliteSnapshot {
    fn migrator(&self) -> Migrator {
        sqlx::migrate!("../../migrations/sqlite")
    }

    fn visit_each<'a>(
        &'a mut self,
        statement: &'static Statement,
        params: &'a [Param<'a>],
        visit: &'a mut RowVisitor<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(std::future::ready(self.visit_rows(statement, params, visit)))
    }
}

/// A read transaction on Postgres.
pub(super) struct PgSnapshot(PgConnection);

impl PgSnapshot {
    pub(super) async fn open(url: &str) -> Result<Self, CheckError> {
        // The idle timeout is for frozen hosts; a check may be slow.
        let options = options(url)?.application_name("exosphere check").options([
            ("idle_in_transaction_session_timeout", "0"),
            ("default_transaction_read_only", "on"),
        ]);
        let mut connection = options.connect().await.map_err(OpenError::Open)?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        sqlx::raw_sql(begin).execute(&mut connection).await.map_err(StoreError::from)?;
        Ok(PgSnapshot(connection))
    }

    pub(super) async fn close(self) {
        let _ = self.0.close().await;
    }
}

impl Snapshot for PgSnapshot {
    fn migrator(&self) -> Migrator {
        sqlx::migrate!("../../migrations/postgres")
    }

    fn visit_each<'a>(
        &'a mut self,
        statement: &'static Statement,
        params: &'a [Param<'a>],
        visit: &'a mut RowVisitor<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let query = bind(sqlx::query(statement.postgres), params);
            let mut rows = query.fetch(&mut self.0);
            while let Some(row) = rows.try_next().await? {
                visit(&row);
            }
            Ok(())
        })
    }
}

/// Refuses a database with another schema version.
pub(super) async fn ensure_current_schema(snapshot: &mut impl Snapshot) -> Result<(), CheckError> {
    let mut tables = 0;
    let count = &mut |row: &dyn Row| tables = row.int(0).unwrap_or_default();
    snapshot.visit_each(sql::MIGRATED, &params![], count).await?;
    if tables == 0 {
        return Err(CheckError::Foreign);
    }
    let mut applied = Vec::new();
    let visit = &mut |row: &dyn Row| {
        let migration = (row.int(0), row.bytes(1), row.int(2));
        if let (Ok(version), Ok(checksum), Ok(ended)) = migration {
            applied.push((version, checksum, ended == 1));
        }
    };
    snapshot.visit_each(sql::MIGRATIONS, &params![], visit).await?;
    let migrator = snapshot.migrator();
    for (version, checksum, ended) in &applied {
        let known = migrator.iter().find(|known| known.version == *version);
        let known = known.ok_or(OpenError::Newer { version: *version })?;
        if !ended || *known.checksum != **checksum {
            return Err(CheckError::Otherwise(*version));
        }
    }
    let has = applied.iter().map(|(version, ..)| *version).max().unwrap_or_default();
    let expected = migrator.iter().map(|known| known.version).max().unwrap_or_default();
    let is_applied = |version| applied.iter().any(|(has, ..)| *has == version);
    if migrator.iter().all(|known| is_applied(known.version)) {
        Ok(())
    } else {
        Err(CheckError::Older { has, expected })
    }
}
