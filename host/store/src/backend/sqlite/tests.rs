//! Tests of a full disk and of the size of the log. Not here: a broken disk.

use std::sync::Arc;

use exosphere_domain::filter::RunFilter;

use super::*;
use crate::commit::tests::{name, start, start_with_inputs};
use crate::{
    Batch, Control, Database, HostIdentity, Operation, Reply, RunPageRequest, SecretCipher, Store,
    StoreError,
};

/// Limits the growth of the file to `pages` pages, or removes the limit.
async fn limit_growth(store: &Store, pages: Option<i64>) {
    let crate::Writer::Sqlite(writer) = &store.writer else { panic!("on SQLite") };
    let limit = move |connection: &mut Connection| {
        let has: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let limit = pages.map_or(i64::from(u32::MAX - 1), |pages| has + pages);
        connection.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?;
        Ok(())
    };
    writer.call(limit).await.unwrap();
}

#[tokio::test]
async fn commits_resume_after_disk_full() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::Sqlite(folder.path().join("db"));
    let store = Store::open(&database, SecretCipher::new(&[7; 32])).await.unwrap();
    let session = store.begin_session(&HostIdentity::new("host", "host"), 0).await.unwrap();
    let small = start(&store, session, 10).await;
    let large = start(&store, session, 5_000_000).await;
    let other = start(&store, session, 10).await;
    let page = RunPageRequest { after: None, limit: 9 };
    let runs = async || store.runs(&name(), &RunFilter::default(), page).await.unwrap().items.len();

    limit_growth(&store, Some(3)).await;
    assert_eq!(store.commit(small).await.unwrap().replies, [Reply::Done]);
    for _ in 0..2 {
        let disk_full = store.commit(large.clone()).await;
        assert!(matches!(disk_full, Err(StoreError::Unavailable(_))), "{disk_full:?}");
        assert_eq!(runs().await, 1, "nothing of it");
    }
    // A commit that fits is still written.
    assert_eq!(store.commit(other).await.unwrap().replies, [Reply::Done]);
    limit_growth(&store, None).await;
    let done = store.commit(large).await.unwrap();
    assert_eq!((done.replies, done.claimed.len()), (vec![Reply::Done], 1));
    assert_eq!(runs().await, 3);
    assert_eq!(crate::check(&database).await.unwrap().violations, []);
}

#[tokio::test]
async fn the_log_restarts_under_steady_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store = Store::open(&Database::Sqlite(file.clone()), SecretCipher::new(&[7; 32])).await;
    let store = store.unwrap();
    let session = store.begin_session(&HostIdentity::new("host", "host"), 0).await.unwrap();
    let size = |file: &Path| std::fs::metadata(file).map_or(0, |found| found.len());
    for _ in 0..40 {
        let start = start(&store, session, 5_000_000).await;
        store.commit(start).await.unwrap();
    }
    let log = size(&folder.path().join("db-wal"));
    assert!(log < 150 << 20, "200 MB were written: {log}");
    // The thread copies the rest, while there are no commits.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while size(&file) < 100_000_000 && std::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(size(&file) >= 100_000_000, "{}", size(&file));
}

#[tokio::test]
async fn commits_do_not_rewrite_large_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::Sqlite(folder.path().join("db"));
    let store = Store::open(&database, SecretCipher::new(&[7; 32])).await.unwrap();
    let session = store.begin_session(&HostIdentity::new("host", "host"), 0).await.unwrap();
    let inputs = format!("{{\"text\":\"{}\"}}", "x".repeat(4_000_000));
    let batch = start_with_inputs(&store, session, &inputs, 1_000_000).await;
    let Operation::Start(new) = &batch.operations[0] else { panic!("a start") };
    let run = new.info.clone();
    assert_eq!(store.commit(batch.clone()).await.unwrap().replies, [Reply::Done]);
    let log = || std::fs::metadata(folder.path().join("db-wal")).unwrap().len();
    let before = log();
    for control in [Control::Pause, Control::Resume, Control::Cancel] {
        let operations = Arc::new([Operation::Control(run.clone(), control)]);
        store.commit(Batch { operations, ..batch.clone() }).await.unwrap();
    }
    assert!(log() - before < 400_000, "{} bytes", log() - before);
    let read = store.run_info(run.key).await.unwrap().unwrap();
    assert!(*read.inputs == *inputs);
    let start = store.run_start(run.key).await.unwrap().unwrap();
    assert_eq!(start.store["k"].len(), 1_000_000);
    assert_eq!(crate::check(&database).await.unwrap().violations, []);
}
