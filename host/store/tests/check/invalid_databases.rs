//! A database of another version is refused, and stays unchanged.

use exosphere_store::{CheckError, Database, OpenError, check};
use exosphere_tests::postgres::Postgres;

use crate::harness::{Bed, Kind, Place};
use crate::runs;

#[tokio::test]
async fn missing_databases_are_not_created() {
    let place = Place::new(Kind::Sqlite, "none");
    let refused = check(&place.database).await.unwrap_err();
    assert!(matches!(refused, CheckError::NoFile(_)), "{refused}");
    assert!(refused.to_string().contains("exosphere.db"), "{refused}");
    assert_eq!(std::fs::read_dir(place.folder()).unwrap().count(), 0);
    let there_is_none = Database::Postgres(Postgres::shared().unwrap().url("no-such-database"));
    let refused = check(&there_is_none).await.unwrap_err();
    assert!(matches!(refused, CheckError::Open(OpenError::Open(_))), "{refused}");
    let nonsense = Database::Postgres("there".into());
    assert!(matches!(check(&nonsense).await.unwrap_err(), CheckError::Open(OpenError::Scheme)));
}

#[tokio::test]
async fn foreign_databases_are_rejected() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind, "foreign");
        place.tamper("CREATE TABLE t (n INT)");
        let refused = check(&place.database).await.unwrap_err();
        assert!(matches!(refused, CheckError::Foreign), "{refused}");
        assert_eq!(place.number("SELECT COUNT(*) FROM t"), 0);
    }
    let place = Place::new(Kind::Sqlite, "noise");
    std::fs::write(place.folder().join("exosphere.db"), "noise".repeat(1000)).unwrap();
    let refused = check(&place.database).await.unwrap_err();
    assert!(refused.to_string().contains("not a database"), "{refused}");
}

#[tokio::test]
async fn other_schema_versions_are_rejected() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind, "versions");
        Bed::new(&place).await.close().await;
        let last = place.number("SELECT MAX(version) FROM _sqlx_migrations");
        let older = place.copy("older");
        older.tamper(&format!("DELETE FROM _sqlx_migrations WHERE version = {last}"));
        let refused = check(&older.database).await.unwrap_err();
        assert!(
            matches!(refused, CheckError::Older { has, wants } if wants == last && has < last),
            "{refused}"
        );
        let newer = place.copy("newer");
        newer.tamper(&format!("UPDATE _sqlx_migrations SET version = 99 WHERE version = {last}"));
        let refused = check(&newer.database).await.unwrap_err();
        assert!(matches!(refused, CheckError::Open(OpenError::Newer { version: 99 })), "{refused}");
        let broken = place.copy("broken");
        broken
            .tamper(&format!("UPDATE _sqlx_migrations SET success = FALSE WHERE version = {last}"));
        let refused = check(&broken.database).await.unwrap_err();
        assert!(matches!(refused, CheckError::Otherwise(version) if version == last), "{refused}");
    }
}

/// A check writes nothing. SQLite itself creates an empty log and its index beside a file that
/// nobody has open.
#[tokio::test]
async fn check_writes_nothing() {
    let place = Place::new(Kind::Sqlite, "written");
    let mut bed = Bed::new(&place).await;
    runs::all(&mut bed, &place).await;
    bed.close().await;
    let copy = place.copy("untouched");
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
    let place = Place::new(Kind::Sqlite, "killed");
    let mut bed = Bed::new(&place).await;
    runs::all(&mut bed, &place).await;
    let live = place.check().await;
    let copy = place.copy("left");
    let (log, left) = ("exosphere.db-wal", copy.folder().join("exosphere.db-wal"));
    std::fs::copy(place.folder().join(log), &left).unwrap();
    let before = std::fs::read(&left).unwrap();
    assert!(!before.is_empty());
    assert_eq!(copy.check().await, live);
    assert_eq!(std::fs::read(&left).unwrap(), before, "nothing is written back");
    bed.close().await;
}
