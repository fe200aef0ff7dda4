//! Requests of callers on their way through the committer. Each is answered in time, and
//! is withdrawn before its commit if its caller has gone. So a start that was given up
//! does not begin when the database is back.
//!
//! Not here: the host's own commits, which wait for the database however long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use exosphere_store::{Answer, Member, StoreError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::error::{Effect, Error};
use crate::execution::committer::Committer;

/// Time within which a request must be committed. Callers are answered within five
/// seconds; the rest is for showing the result.
const COMMIT_WITHIN: Duration = Duration::from_secs(4);

/// Time within which a caller must be shown the result of its request.
const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);

/// The channel for the answer to an operation, with the state of its caller.
pub(crate) struct Reply {
    answer: oneshot::Sender<Result<Answer, StoreError>>,
    /// Absent for the host's own operations, which are never withdrawn.
    ticket: Option<Arc<Ticket>>,
}

/// The state of a request between its caller and the committer.
struct Ticket(AtomicU8);

/// The request is in no transaction.
const WAITING: u8 = 0;
/// The request is in a transaction that may go through.
const COMMITTING: u8 = 1;
/// The caller has gone, so the request must not become part of a transaction.
const WITHDRAWN: u8 = 2;
/// The request was in a transaction whose result is unknown.
const IN_DOUBT: u8 = 3;

impl Ticket {
    fn turn(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Reply {
    /// Creates a reply for an operation of the host itself.
    pub(crate) fn internal(answer: oneshot::Sender<Result<Answer, StoreError>>) -> Self {
        Reply { answer, ticket: None }
    }

    /// Returns `true` if the caller has gone, so that the operation must not be
    /// committed.
    pub(crate) fn is_withdrawn(&self) -> bool {
        let Some(ticket) = &self.ticket else { return false };
        self.answer.is_closed() || ticket.0.load(Ordering::Acquire) == WITHDRAWN
    }

    /// Takes the operation into a transaction. Returns `false` if it is withdrawn.
    pub(crate) fn enter(&self) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        // A request in doubt need not be repeated if its caller has gone: it has gone
        // through, or it has not.
        !self.answer.is_closed()
            && (ticket.turn(WAITING, COMMITTING) || ticket.0.load(Ordering::Acquire) != WITHDRAWN)
    }

    /// Takes the operation out of a transaction that has failed.
    pub(crate) fn leave(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.turn(COMMITTING, WAITING);
        }
    }

    /// Notes that the operation was in a transaction whose result is unknown.
    pub(crate) fn doubt(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.turn(COMMITTING, IN_DOUBT);
        }
    }

    /// Sends the answer to the caller.
    pub(crate) fn send(self, answer: Result<Answer, StoreError>) {
        // The caller may have gone.
        let _ = self.answer.send(answer);
    }
}

/// A request of a caller, with the time from which its deadlines count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    asked: Asked,
    begun: Instant,
}

/// A callback for an answer that comes too late for its caller.
pub(crate) type Late = Box<dyn FnOnce(Answer) + Send>;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Start { has_key: bool },
    Cancel,
    Pause,
    Resume,
    Retry,
    Redrive,
}

impl Request {
    pub(crate) fn new(asked: Asked) -> Self {
        Request { asked, begun: Instant::now() }
    }

    /// Returns the deadline of all work before the answer.
    pub(crate) fn until(&self) -> Instant {
        self.begun + COMMIT_WITHIN
    }

    /// Waits for work that is needed before the commit, and that changes nothing.
    pub(crate) async fn before<T, E: Into<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        match timeout_at(self.until(), work).await {
            Ok(done) => done.map_err(|error| match error.into() {
                Error::Unavailable => self.not_done(),
                other => other,
            }),
            Err(_) => Err(self.not_done()),
        }
    }

    /// Waits for host work, which has bounds of its own. The deadlines of the request
    /// move by the time that it takes.
    pub(crate) async fn beside<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let done = work.await;
        self.begun += begun.elapsed();
        done
    }

    /// Commits an operation. It is withdrawn when its time is over or this future is
    /// dropped, as long as no transaction with it may go through.
    pub(crate) async fn commit(
        &self,
        committer: &Committer,
        member: Member,
    ) -> Result<Answer, Error> {
        self.commit_with(committer, member, None).await
    }

    /// Commits an operation that must be followed up however late it is committed. If the
    /// caller was answered that the result is unknown, `late` receives the later answer;
    /// until then the operation is repeated.
    pub(crate) async fn commit_with(
        &self,
        committer: &Committer,
        member: Member,
        late: Option<Late>,
    ) -> Result<Answer, Error> {
        let ticket = Arc::new(Ticket(AtomicU8::new(WAITING)));
        let (reply, mut answer) = oneshot::channel();
        let reply = Reply { answer: reply, ticket: Some(ticket.clone()) };
        let answered = timeout_at(self.until(), async {
            if !committer.hand_over(member, reply) {
                return None;
            }
            (&mut answer).await.ok()
        });
        match answered.await {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(StoreError::Data(why)))) => Err(StoreError::Data(why).into()),
            // Too late, or the committer has ended.
            _ if ticket.turn(WAITING, WITHDRAWN) => Err(self.not_done()),
            _ => {
                if let Some(late) = late {
                    tokio::spawn(async move {
                        if let Ok(Ok(answer)) = answer.await {
                            late(answer);
                        }
                    });
                }
                Err(self.unknown())
            }
        }
    }

    /// Waits for the result that a caller is shown after the commit.
    pub(crate) async fn after<T>(
        &self,
        wait: Duration,
        run: impl std::fmt::Display,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout_at(self.begun + ANSWER_WITHIN + wait, work).await {
            Ok(Err(Error::Unavailable)) | Err(_) => Err(Error::Unanswered {
                effect: Effect::Done,
                words: format!(
                    "{}, but the run {run} cannot be shown now: the database does not answer; ask for it later",
                    self.asked.done()
                ),
            }),
            Ok(shown) => shown,
        }
    }

    /// Creates the error of a request that has no effect, now or later.
    pub(crate) fn not_done(&self) -> Error {
        let words = format!(
            "not {}: the host is stopping or its database is unavailable; try again",
            self.asked.participle()
        );
        Error::Unanswered { effect: Effect::None, words }
    }

    fn unknown(&self) -> Error {
        let words = format!(
            "not known whether it was {}: the database has not answered in time; {}",
            self.asked.participle(),
            self.asked.remedy()
        );
        Error::Unanswered { effect: Effect::Unknown, words }
    }
}

impl Asked {
    fn participle(self) -> &'static str {
        match self {
            Asked::Start { .. } => "started",
            Asked::Cancel => "cancelled",
            Asked::Pause => "paused",
            Asked::Resume => "resumed",
            Asked::Retry => "retried",
            Asked::Redrive => "redriven",
        }
    }

    fn done(self) -> String {
        format!("it was {}", self.participle())
    }

    fn remedy(self) -> &'static str {
        match self {
            Asked::Start { has_key: true } => "repeat it with the same idempotency key",
            Asked::Start { has_key: false } => {
                "look for it among the newest runs before you repeat it; a start with an idempotency key can be repeated safely"
            }
            _ => "repeat it, which does no harm",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> (Reply, Arc<Ticket>, oneshot::Receiver<Result<Answer, StoreError>>) {
        let ticket = Arc::new(Ticket(AtomicU8::new(WAITING)));
        let (answer, receiver) = oneshot::channel();
        (Reply { answer, ticket: Some(ticket.clone()) }, ticket, receiver)
    }

    #[test]
    fn a_withdrawn_request_enters_no_transaction() {
        let (reply, ticket, _receiver) = reply();
        assert!(!reply.is_withdrawn() && ticket.turn(WAITING, WITHDRAWN));
        assert!(reply.is_withdrawn() && !reply.enter());
    }

    #[test]
    fn a_request_being_committed_is_not_withdrawn() {
        let (reply, ticket, _receiver) = reply();
        assert!(reply.enter() && !ticket.turn(WAITING, WITHDRAWN));
        // The transaction has failed.
        reply.leave();
        assert!(ticket.turn(WAITING, WITHDRAWN) && !reply.enter());
    }

    #[test]
    fn a_request_in_doubt_stays_so() {
        let (reply, ticket, _receiver) = reply();
        assert!(reply.enter());
        reply.doubt();
        // The repeat surely fails, but the first transaction may have gone through.
        assert!(reply.enter());
        reply.leave();
        assert!(!ticket.turn(WAITING, WITHDRAWN) && reply.enter());
    }

    #[test]
    fn a_request_without_caller_is_withdrawn() {
        let (reply, _, receiver) = reply();
        assert!(reply.enter());
        drop(receiver);
        assert!(reply.is_withdrawn() && !reply.enter());
    }

    #[test]
    fn what_the_host_commits_is_never_withdrawn() {
        let (answer, receiver) = oneshot::channel();
        let reply = Reply::internal(answer);
        drop(receiver);
        assert!(!reply.is_withdrawn() && reply.enter());
    }
}
