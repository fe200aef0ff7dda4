//! Invalid databases: the check rejects missing, foreign, older and newer ones, and changes none.

use exosphere_store::{CheckError, Database, OpenError, check};
use exosphere_tests::postgres::Postgres;

use crate::harness::{Harness, Kind, TestDatabase};
use crate::runs;

#[tokio::test]
async fn missing_databases_are_not_created() {
    let database = TestDatabase::new(Kind::Sqlite, "none");
    let refused = check(&database.location).await.unwrap_err();
    assert!(matches!(refused, CheckError::NoFile(_)), "{refused}");
    assert!(refused.to_string().contains("exosphere.db"), "{refused}");
    assert_eq!(std::fs::read_dir(database.folder()).unwrap().count(), 0);
    let missing = Database::Postgres(Postgres::shared().unwrap().url("no-such-database"));
    let refused = check(&missing).await.unwrap_err();
    assert!(matches!(refused, CheckError::Open(OpenError::Open(_))), "{refused}");
    let invalid = Database::Postgres("there".into());
    assert!(matches!(check(&invalid).await.unwrap_err(), CheckError::Open(OpenError::Scheme)));
}

#[tokio::test]
async fn foreign_databases_are_rejected() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind, "foreign");
        database.tamper("CREATE TABLE t (n INT)");
        let refused = check(&database.location).await.unwrap_err();
        assert!(matches!(refused, CheckError::Foreign), "{refused}");
        assert_eq!(database.number("SELECT COUNT(*) FROM t"), 0);
    }
    let database = TestDatabase::new(Kind::Sqlite, "noise");
    std::fs::write(database.folder().join("exosphere.db"), "noise".repeat(1000)).unwrap();
    let refused = check(&database.location).await.unwrap_err();
    assert!(refused.to_string().contains("not a database"), "{refused}");
}

#[tokio::test]
async fn other_schema_versions_are_rejected() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind, "versions");
        Harness::new(&database).await.close().await;
        let last = database.number("SELECT MAX(version) FROM _sqlx_migrations");
        let older = database.copy("older");
        older.tamper(&format!("DELETE FROM _sqlx_migrations WHERE version = {last}"));
        let refused = check(&older.location).await.unwrap_err();
        assert!(
            matches!(refused, CheckError::Older { has, expected } if expected == last && has < last),
            "{refused}"
        );
        let newer = database.copy("newer");
        newer.tamper(&format!("UPDATE _sqlx_migrations SET version = 99 WHERE version = {last}"));
        let refused = check(&newer.location).await.unwrap_err();
        assert!(matches!(refused, CheckError::Open(OpenError::Newer { version: 99 })), "{refused}");
        let broken = database.copy("broken");
        broken
            .tamper(&format!("UPDATE _sqlx_migrations SET success = FALSE WHERE version = {last}"));
        let refused = check(&broken.location).await.unwrap_err();
        assert!(matches!(refused, CheckError::Otherwise(version) if version == last), "{refused}");
    }
}

/// A check writes nothing. SQLite itself creates an empty log and its index beside a file that
/// is not open.
#[tokio::test]
async fn check_writes_nothing() {
    let database = TestDatabase::new(Kind::Sqlite, "written");
    let mut harness = Harness::new(&database).await;
    runs::all(&mut harness, &database).await;
    harness.close().await;
    let copy = database.copy("untouched");
    let file = copy.folder().join("exosphere.db");
    let before = std::fs::read(&file).unwrap();
    assert_eq!(copy.check().await.violations, []);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let log = std::fs::metadata(copy.folder().join("exosphere.db-wal"));
    assert!(log.is_ok_and(|log| log.len() == 0));
}

/// A killed host leaves data in the write-ahead log, which the check reads, too.
#[tokio::test]
async fn check_reads_the_write_ahead_log() {
    let database = TestDatabase::new(Kind::Sqlite, "killed");
    let mut harness = Harness::new(&database).await;
    runs::all(&mut harness, &database).await;
    let live = database.check().await;
    let copy = database.copy("left");
    let (log, left) = ("exosphere.db-wal", copy.folder().join("exosphere.db-wal"));
    std::fs::copy(database.folder().join(log), &left).unwrap();
    let before = std::fs::read(&left).unwrap();
    assert!(!before.is_empty());
    assert_eq!(copy.check().await, live);
    assert_eq!(std::fs::read(&left).unwrap(), before, "nothing is written back");
    harness.close().await;
}
