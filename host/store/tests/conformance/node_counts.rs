//! The counts of a run's nodes on its row.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::node_counts::NodeCounts;
use exosphere_domain::outcome::Outcome;
use exosphere_store::{Control, Operation};

use crate::harness::Harness;
use crate::test_database::Kind;

on_both! {
    the_migration_counts_nodes,
}

async fn counts(harness: &Harness) -> Vec<NodeCounts> {
    let rows = harness.database.rows("SELECT node_counts FROM run ORDER BY id").await;
    let text = |row: Vec<Option<String>>| row.into_iter().next().flatten().unwrap();
    rows.into_iter().map(|row| NodeCounts::decode(&text(row)).unwrap()).collect()
}

/// Runs of an earlier schema have no counts; the migration counts their states.
async fn the_migration_counts_nodes(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X; X > W; W(U)").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 3).await;
    let children = harness.commit_and_claim(fan).await;
    let failure = Failure::new(FailureKind::Permanent, "no");
    for (state, outcome) in children.iter().zip([
        Outcome::Failed(failure),
        Outcome::Prune(None),
        Outcome::Failed(Failure::new(FailureKind::Retryable, "again")),
    ]) {
        let operation = harness.finish_plain(&run.info, state, outcome).await;
        harness.commit_one(operation).await;
    }
    let other = harness.start_of("A > B").await;
    harness.commit_one(Operation::Control(other.info.clone(), Control::Cancel)).await;
    let before = counts(&harness).await;
    harness.database.execute("UPDATE run SET node_counts = ''").await.unwrap();
    let migration = match kind {
        Kind::Sqlite => include_str!("../../../../migrations/sqlite/0011_surface.sql"),
        Kind::Postgres => include_str!("../../../../migrations/postgres/0011_surface.sql"),
    };
    let from = &migration[migration.find("UPDATE run SET node_counts").unwrap()..];
    let update = &from[..from.find("\n\n").unwrap()];
    harness.database.execute(update).await.unwrap();
    assert_eq!(counts(&harness).await, before);
    assert_eq!(before.len(), 2);
}
