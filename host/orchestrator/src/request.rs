//! Requests of callers on their way through the committer: each is answered in
//! time, and one whose caller has gone is withdrawn before it is committed. So a
//! start that was given up does not begin when the database is back.
//!
//! Not here: what the host itself has to commit, which waits for its database
//! however long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use exosphere_store::{Answer, Member, StoreError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::committer::Committer;
use crate::error::{Effect, Error};

/// How long a request may be on its way to its commit. Callers are answered
/// within five seconds: the rest is for what they are shown.
const COMMIT_WITHIN: Duration = Duration::from_secs(4);

/// How long a request may take until its caller is shown what came of it.
const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);

/// Where the answer to a member goes, and whether anybody waits for it.
pub(crate) struct Reply {
    answer: oneshot::Sender<Result<Answer, StoreError>>,
    /// None for what the host itself commits: that is never withdrawn.
    ticket: Option<Arc<Ticket>>,
}

/// Where a request stands between its caller and the committer.
struct Ticket(AtomicU8);

/// It is in no transaction.
const WAITING: u8 = 0;
/// It is in a transaction that may go through.
const COMMITTING: u8 = 1;
/// Its caller has gone: it must not become part of a transaction.
const WITHDRAWN: u8 = 2;
/// It was in a transaction of which nobody knows the end.
const IN_DOUBT: u8 = 3;

impl Ticket {
    fn turn(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Reply {
    /// A reply to the host itself.
    pub(crate) fn internal(answer: oneshot::Sender<Result<Answer, StoreError>>) -> Self {
        Reply { answer, ticket: None }
    }

    /// Whether its member may not be committed any more: the caller has gone.
    pub(crate) fn is_withdrawn(&self) -> bool {
        let Some(ticket) = &self.ticket else { return false };
        self.answer.is_closed() || ticket.0.load(Ordering::Acquire) == WITHDRAWN
    }

    /// Takes its member into a transaction. False if it is withdrawn.
    pub(crate) fn enter(&self) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        // One in doubt need not be repeated if nobody waits: it has gone through, or
        // it has not.
        !self.answer.is_closed()
            && (ticket.turn(WAITING, COMMITTING) || ticket.0.load(Ordering::Acquire) != WITHDRAWN)
    }

    /// Takes its member out of a transaction that has not gone through.
    pub(crate) fn leave(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.turn(COMMITTING, WAITING);
        }
    }

    /// Notes that its member was in a transaction of which nobody knows the end.
    pub(crate) fn doubt(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.turn(COMMITTING, IN_DOUBT);
        }
    }

    /// Tells what became of it.
    pub(crate) fn send(self, answer: Result<Answer, StoreError>) {
        // The caller may have gone.
        let _ = self.answer.send(answer);
    }
}

/// A request of a caller, and the time until which it is to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    asked: Asked,
    begun: Instant,
}

/// What is done about an answer that comes too late for its caller.
pub(crate) type Late = Box<dyn FnOnce(Answer) + Send>;

/// What a caller asks for.
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

    /// Until when what comes before the answer may take.
    pub(crate) fn until(&self) -> Instant {
        self.begun + COMMIT_WITHIN
    }

    /// Waits for something that is needed before the commit, and changes nothing.
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

    /// Waits for work of the host's own that has bounds of its own: the request has so
    /// much more time.
    pub(crate) async fn beside<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let done = work.await;
        self.begun += begun.elapsed();
        done
    }

    /// Commits a member. It is withdrawn if its time is over, or if this is
    /// dropped, as long as it is in no transaction that may go through.
    pub(crate) async fn commit(
        &self,
        committer: &Committer,
        member: Member,
    ) -> Result<Answer, Error> {
        self.commit_with(committer, member, None).await
    }

    /// The same for what has to be followed up however late it is committed: `late`
    /// is given the answer that comes after the caller was told that it is not
    /// known. Until then the member is repeated.
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
            // Late, or the committer has ended.
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

    /// Waits for what a caller is shown of what was done.
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

    /// The error of a request that has no effect, now or later.
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
        // It has not gone through.
        reply.leave();
        assert!(ticket.turn(WAITING, WITHDRAWN) && !reply.enter());
    }

    #[test]
    fn a_request_in_doubt_stays_so() {
        let (reply, ticket, _receiver) = reply();
        assert!(reply.enter());
        reply.doubt();
        // It is repeated, and that surely fails: the first time may have gone through.
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
