//! Requests of callers on their way through the committer: each is answered in time, and
//! withdrawn if it cannot be committed in time.
//!
//! Not here: how an operation is withdrawn (`execution/committer/reply.rs`), and the
//! host's own commits, which wait for the database however long that takes.

use std::time::Duration;

use exosphere_store::{Operation, Reply, StoreError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::error::{Effect, Error, log_internal};
use crate::execution::committer::{Committer, ReplySender};

/// Time within which a request must be committed. Callers are answered within five
/// seconds; the rest is for showing the result.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time within which a caller must be shown the result of its request.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(4_500);

/// A request of a caller, with the time from which its deadlines count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    kind: RequestKind,
    started: Instant,
}

/// A callback for an answer that comes too late for its caller.
pub(crate) type LateCallback = Box<dyn FnOnce(Reply) + Send>;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Start { has_key: bool },
    Cancel,
    Pause,
    Resume,
    Retry,
    Redrive,
    Delete,
}

impl Request {
    pub(crate) fn new(kind: RequestKind) -> Self {
        Request { kind, started: Instant::now() }
    }

    /// Returns the deadline of all work before the answer.
    pub(crate) fn deadline(&self) -> Instant {
        self.started + COMMIT_TIMEOUT
    }

    /// Waits for work that is needed before the commit, and that changes nothing.
    pub(crate) async fn before_commit<T, E: Into<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        match timeout_at(self.deadline(), work).await {
            Ok(result) => result.map_err(|error| match error.into() {
                Error::Unavailable => self.not_done(),
                other => other,
            }),
            Err(_) => Err(self.not_done()),
        }
    }

    /// Waits for host work, which has bounds of its own. The deadlines of the request
    /// move by the time that it takes.
    pub(crate) async fn uncounted<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let result = work.await;
        self.started += started.elapsed();
        result
    }

    /// Commits an operation. It is withdrawn when its time is over or this future is
    /// dropped, as long as no transaction with it may go through.
    pub(crate) async fn commit(
        &self,
        committer: &Committer,
        operation: Operation,
    ) -> Result<Reply, Error> {
        self.commit_with(committer, operation, None).await
    }

    /// Commits an operation that must be followed up however late it is committed. If the
    /// caller was answered that the result is unknown, `late` receives the later answer;
    /// until then the operation is repeated.
    pub(crate) async fn commit_with(
        &self,
        committer: &Committer,
        operation: Operation,
        late: Option<LateCallback>,
    ) -> Result<Reply, Error> {
        let (sender, mut reply) = oneshot::channel();
        let (sender, ticket) = ReplySender::with_ticket(sender);
        let answered = timeout_at(self.deadline(), async {
            if !committer.enqueue_with(operation, sender) {
                return None;
            }
            (&mut reply).await.ok()
        });
        match answered.await {
            Ok(Some(Ok(reply))) => Ok(reply),
            Ok(Some(Err(StoreError::Data(cause)))) => Err(StoreError::Data(cause).into()),
            // The reply comes too late, or the committer has ended.
            _ if ticket.withdraw() => Err(self.not_done()),
            _ => {
                if let Some(late) = late {
                    tokio::spawn(async move {
                        if let Ok(Ok(reply)) = reply.await {
                            late(reply);
                        }
                    });
                }
                Err(self.unknown())
            }
        }
    }

    /// Waits for the result that a caller is shown after the commit.
    pub(crate) async fn after_commit<T>(
        &self,
        wait: Duration,
        run: impl std::fmt::Display,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout_at(self.started + ANSWER_TIMEOUT + wait, work).await {
            Ok(Err(Error::Unavailable)) | Err(_) => Err(Error::Unanswered {
                effect: Effect::Done,
                message: format!(
                    "{}, but the run {run} cannot be shown now: the database does not answer; ask for it later",
                    self.kind.effect_sentence()
                ),
            }),
            Ok(shown) => shown,
        }
    }

    /// Creates the error of a request that has no effect, now or later.
    pub(crate) fn not_done(&self) -> Error {
        let message = format!(
            "not {}: the host is stopping or its database is unavailable; try again",
            self.kind.participle()
        );
        Error::Unanswered { effect: Effect::None, message }
    }

    fn unknown(&self) -> Error {
        let message = format!(
            "not known whether it was {}: the database has not answered in time; {}",
            self.kind.participle(),
            self.kind.remedy()
        );
        Error::Unanswered { effect: Effect::Unknown, message }
    }
}

impl RequestKind {
    fn participle(self) -> &'static str {
        match self {
            RequestKind::Start { .. } => "started",
            RequestKind::Cancel => "cancelled",
            RequestKind::Pause => "paused",
            RequestKind::Resume => "resumed",
            RequestKind::Retry => "retried",
            RequestKind::Redrive => "redriven",
            RequestKind::Delete => "deleted",
        }
    }

    fn effect_sentence(self) -> String {
        format!("it was {}", self.participle())
    }

    fn remedy(self) -> &'static str {
        match self {
            RequestKind::Start { has_key: true } => "repeat it with the same idempotency key",
            RequestKind::Start { has_key: false } => {
                "look for it among the newest runs before you repeat it; \
                 a start with an idempotency key can be repeated safely"
            }
            _ => "repeat it, which does no harm",
        }
    }
}

/// Converts the answer of a commit into the result of the request.
pub(crate) fn expect_done(
    kind: &'static str,
    name: impl ToString,
    reply: Reply,
) -> Result<(), Error> {
    match reply {
        Reply::Done | Reply::ToSweep(_) | Reply::More(_) => Ok(()),
        Reply::Refused(cause) => Err(Error::Conflict(cause)),
        Reply::Missing => Err(Error::not_found(kind, name)),
        Reply::Outdated
        | Reply::Stale
        | Reply::Leftover(_)
        | Reply::Existing(_)
        | Reply::Redriven { .. } => {
            Err(Error::Internal(log_internal(&"a request was answered as another")))
        }
    }
}
