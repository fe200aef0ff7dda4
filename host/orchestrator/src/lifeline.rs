//! The lifeline of a host: it fails as soon as a task or thread ends without which the host
//! cannot continue. Health reports that immediately, and the process ends, so that a supervisor
//! starts another.
//!
//! Not here: the end of the process (the command `serve`).

use std::sync::Arc;

use tokio::sync::watch;

/// The reason why the host cannot continue, if there is one.
#[derive(Default)]
pub(crate) struct Lifeline {
    failed: watch::Sender<Option<String>>,
}

/// A guard that a task or thread holds for as long as it works. If it is dropped other
/// than by [`Guard::end`], as in a panic, the lifeline fails.
pub(crate) struct Guard {
    lifeline: Arc<Lifeline>,
    subject: &'static str,
    ended: bool,
}

impl Lifeline {
    /// Creates the guard of a task or thread, which `subject` names for people.
    pub(crate) fn guard(self: &Arc<Self>, subject: &'static str) -> Guard {
        Guard { lifeline: self.clone(), subject, ended: false }
    }

    /// Waits until the host cannot continue; returns the reason.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone()) {
            Some(cause) => cause,
            None => std::future::pending().await,
        }
    }

    /// Returns the reason why the host cannot continue.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }
}

impl Guard {
    /// Ends the work without a failure.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let cause = format!("{} has ended; the host has to be restarted", self.subject);
        self.lifeline.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(cause);
            first
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use exosphere_domain::graph::testing::GraphBuilder;
    use exosphere_domain::ids::{NamespaceKey, RunId, RunKey};
    use exosphere_store::{Control, Operation, RunInfo};

    use super::*;
    use crate::{Config, Host};

    #[tokio::test]
    async fn a_panicking_committer_fails_the_lifeline() {
        let lifeline = Arc::new(Lifeline::default());
        let guard = lifeline.guard("the committer");
        assert_eq!(lifeline.health(), Ok(()));
        let committer = std::thread::spawn(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert!(committer.join().is_err());
        let cause = lifeline.failed().await;
        assert!(cause.contains("the committer has ended"), "{cause}");
        assert_eq!(lifeline.health(), Err(cause));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_broken_committer_fails_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { slots: 1, namespace_slots: 1, ..Config::new(folder.path()) };
        let host = Host::start(config).await.unwrap();
        assert_eq!(host.health(), Ok(()));
        host.inner.pipeline.committer.break_down();
        let cause = tokio::time::timeout(Duration::from_secs(5), host.failed()).await.unwrap();
        assert!(cause.contains("the committer has ended"), "{cause}");
        assert_eq!(host.health(), Err(cause));
        // No caller waits forever.
        let operation = Operation::Control(Arc::new(run()), Control::Cancel);
        assert!(host.inner.pipeline.committer.submit(operation).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stopped_host_fails_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { slots: 1, namespace_slots: 1, ..Config::new(folder.path()) };
        let host = Host::start(config).await.unwrap();
        host.stop().await.unwrap();
        assert_eq!(host.inner.lifeline.health(), Ok(()));
    }

    pub(crate) fn run() -> RunInfo {
        let name = || "n".parse().unwrap();
        RunInfo {
            key: RunKey(1),
            id: RunId(uuid::Uuid::nil()),
            namespace: name(),
            namespace_key: NamespaceKey(1),
            graph_name: name(),
            revision: 1,
            revision_id: 1,
            graph: Arc::new(GraphBuilder::from_text("A").build().unwrap()),
            inputs: "{}".into(),
            labels: Default::default(),
        }
    }

    #[tokio::test]
    async fn an_orderly_end_fails_nothing() {
        let lifeline = Arc::new(Lifeline::default());
        lifeline.guard("the committer").end();
        assert_eq!(lifeline.health(), Ok(()));
        let failed = std::pin::pin!(lifeline.failed());
        assert!(futures::poll!(failed).is_pending());
    }
}
