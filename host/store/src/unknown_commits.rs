//! Commits whose end is unknown, because Postgres did not answer the COMMIT. The host repeats such a
//! commit, and the repetition changes nothing if the first one has succeeded. Its counts are kept
//! until Postgres tells how the transaction has ended, so that each change is counted once.
//!
//! Not here: the repetition (`exosphere_orchestrator`, `transaction`), and the claims of a lost
//! commit ([`Store::held_by`](crate::Store::held_by)).

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::commit::batch::Committed;
use crate::commit::commit_counts::RunCommitCounts;
use crate::dialect::{Row, Tx, params};
use crate::error::StoreError;
use crate::sql;

/// Maximum number of commits that are remembered. During an outage each of them is the same batch,
/// of which at most one try has succeeded.
const MAX_COMMITS: usize = 64;

/// The commits of a store whose end is not known.
#[derive(Clone, Default)]
pub(crate) struct UnknownCommits(Arc<Mutex<Commits>>);

#[derive(Default)]
struct Commits {
    /// The commit under way.
    current: Option<Commit>,
    unknown: Vec<Commit>,
    /// Counts of commits that have succeeded, and are not counted yet.
    succeeded: RunCommitCounts,
}

/// A commit with its counts.
struct Commit {
    /// The id of its transaction.
    id: String,
    counts: RunCommitCounts,
}

/// The end of a transaction.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Committed,
    /// The transaction was rolled back, or Postgres does not know it.
    RolledBack,
    /// The server has not noticed yet that its client has gone.
    Pending,
}

impl UnknownCommits {
    fn lock(&self) -> MutexGuard<'_, Commits> {
        self.0.lock()
    }

    /// Asks for the ends of earlier commits, if any is unknown.
    pub(crate) async fn resolve(&self, tx: &mut impl Tx) -> Result<(), StoreError> {
        let unknown: Vec<String> = self.lock().unknown.iter().map(|it| it.id.clone()).collect();
        for id in unknown {
            let ends = tx.query(sql::TRANSACTION_END, &params![id.as_str()], end).await?;
            self.lock().record(&id, ends.into_iter().next().unwrap_or(End::RolledBack));
        }
        Ok(())
    }

    /// Keeps the counts of a transaction that is about to commit.
    pub(crate) fn begin(&self, id: Option<&str>, done: &mut Committed) {
        let counts = std::mem::take(&mut done.commit_counts);
        // What was counted was written, so that the transaction has an id.
        self.lock().current = id.map(|id| Commit { id: id.to_owned(), counts });
    }

    /// Adds the counts to a commit that has succeeded, and keeps those of one that may have.
    pub(crate) fn settle(
        &self,
        committed: Result<Committed, StoreError>,
    ) -> Result<Committed, StoreError> {
        let mut commits = self.lock();
        let current = commits.current.take();
        match committed {
            Ok(mut done) => {
                done.commit_counts = current.map(|commit| commit.counts).unwrap_or_default();
                done.commit_counts.append(&mut commits.succeeded);
                Ok(done)
            }
            Err(error) => {
                let current = current.filter(|_| matches!(error, StoreError::Unknown(_)));
                if commits.unknown.len() < MAX_COMMITS {
                    commits.unknown.extend(current);
                }
                Err(error)
            }
        }
    }
}

impl Commits {
    fn record(&mut self, id: &str, end: End) {
        let found = self.unknown.iter().position(|commit| commit.id == id);
        let Some(at) = found.filter(|_| end != End::Pending) else { return };
        let commit = self.unknown.swap_remove(at);
        if end == End::Committed {
            self.succeeded.extend(commit.counts);
        }
    }
}

fn end(row: &dyn Row) -> Result<End, StoreError> {
    Ok(match row.maybe_text(0)?.as_deref() {
        Some("committed") => End::Committed,
        Some("in progress") => End::Pending,
        _ => End::RolledBack,
    })
}

#[cfg(test)]
mod tests {
    use exosphere_domain::graph::testing::GraphBuilder;
    use exosphere_domain::ids::{NamespaceKey, RunId, RunKey};

    use super::*;
    use crate::commit::tests::name;
    use crate::types::RunInfo;

    fn run_info() -> Arc<RunInfo> {
        Arc::new(RunInfo {
            key: RunKey(1),
            id: RunId(uuid::Uuid::from_u128(1)),
            namespace: name(),
            namespace_key: NamespaceKey(1),
            graph_name: name(),
            revision: 1,
            revision_id: 1,
            graph: Arc::new(GraphBuilder::from_text("A").build().unwrap()),
            inputs: "{}".into(),
            labels: Default::default(),
        })
    }

    fn counted(commits: &UnknownCommits) -> usize {
        commits.settle(Ok(Committed::default())).unwrap().commit_counts.len()
    }

    fn lose(commits: &UnknownCommits, id: &str, error: StoreError) {
        let mut done = Committed::default();
        done.commit_counts.push((run_info(), Default::default()));
        commits.begin(Some(id), &mut done);
        assert!(done.commit_counts.is_empty());
        assert!(commits.settle(Err(error)).is_err());
    }

    #[test]
    fn a_lost_commit_counts_once() {
        let unknown = || StoreError::Unknown("no answer".into());
        let commits = UnknownCommits::default();
        lose(&commits, "7", unknown());
        lose(&commits, "8", unknown());
        lose(&commits, "9", StoreError::Unavailable("refused".into()));
        assert_eq!(counted(&commits), 0, "nothing is known yet");
        commits.lock().record("7", End::Pending);
        commits.lock().record("8", End::RolledBack);
        commits.lock().record("9", End::Committed);
        assert_eq!(counted(&commits), 0);
        commits.lock().record("7", End::Committed);
        commits.lock().record("7", End::Committed);
        assert_eq!((counted(&commits), counted(&commits)), (1, 0));
    }

    #[test]
    fn unknown_commits_are_bounded() {
        let commits = UnknownCommits::default();
        for id in 0..2 * MAX_COMMITS {
            lose(&commits, &id.to_string(), StoreError::Unknown(String::new()));
        }
        assert_eq!(commits.lock().unknown.len(), MAX_COMMITS);
    }
}
