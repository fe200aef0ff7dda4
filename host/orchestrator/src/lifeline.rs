//! The lifeline of a host: it fails as soon as a task or thread ends that the host cannot
//! live without. Health tells of that at once, and the process ends, so that a supervisor
//! starts another.
//!
//! Not here: what ends the process (the command `serve` does).

use std::sync::Arc;

use tokio::sync::watch;

/// Why the host cannot go on, if that is so.
#[derive(Default)]
pub(crate) struct Lifeline {
    failed: watch::Sender<Option<String>>,
}

/// Held by a task or thread for as long as it works. Dropped in any other way than by
/// [`Guard::end`], a panic among them, it fails the lifeline.
pub(crate) struct Guard {
    lifeline: Arc<Lifeline>,
    of: &'static str,
    ended: bool,
}

impl Lifeline {
    /// Guards a task or thread, named for people.
    pub(crate) fn guard(self: &Arc<Self>, of: &'static str) -> Guard {
        Guard { lifeline: self.clone(), of, ended: false }
    }

    /// Waits until the host cannot go on; returns the reason.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Returns the reason why the host cannot go on.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }
}

impl Guard {
    /// Ends the work in good order.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let why = format!("{} has ended; the host has to be restarted", self.of);
        self.lifeline.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let why = lifeline.failed().await;
        assert!(why.contains("the committer has ended"), "{why}");
        assert_eq!(lifeline.health(), Err(why));
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
