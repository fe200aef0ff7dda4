//! The reply to an operation, and the ticket by which its caller withdraws it. If its caller
//! has gone, an operation is withdrawn before its commit, and never while a transaction with it
//! may still succeed. So an abandoned start does not begin when the database is back.
//!
//! Not here: deadlines (`service::request`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use exosphere_store::{Reply, StoreError};
use tokio::sync::oneshot;

/// The channel for the reply to an operation, with the state of its caller.
pub(crate) struct ReplySender {
    channel: oneshot::Sender<Result<Reply, StoreError>>,
    /// Absent for the host's own operations, which are never withdrawn.
    ticket: Option<Arc<Ticket>>,
}

/// The state of a request between its caller and the committer.
pub(crate) struct Ticket(AtomicU8);

/// The request is in no transaction.
const WAITING: u8 = 0;
/// The request is in a transaction that may succeed.
const COMMITTING: u8 = 1;
/// The caller has gone, so the request must not become part of a transaction.
const WITHDRAWN: u8 = 2;
/// The request was in a transaction whose result is unknown.
const IN_DOUBT: u8 = 3;

impl Ticket {
    /// Withdraws the request. Returns `false` if it is in a transaction, or was in one
    /// whose result is unknown.
    pub(crate) fn withdraw(&self) -> bool {
        self.change(WAITING, WITHDRAWN)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
    }
}

impl ReplySender {
    /// Creates a reply for an operation of the host itself.
    pub(crate) fn internal(channel: oneshot::Sender<Result<Reply, StoreError>>) -> Self {
        ReplySender { channel, ticket: None }
    }

    /// Creates a reply for a caller, who can withdraw the operation by the ticket.
    pub(crate) fn with_ticket(
        channel: oneshot::Sender<Result<Reply, StoreError>>,
    ) -> (Self, Arc<Ticket>) {
        let ticket = Arc::new(Ticket(AtomicU8::new(WAITING)));
        (ReplySender { channel, ticket: Some(ticket.clone()) }, ticket)
    }

    /// Returns `true` if the caller has gone, so that the operation must not be
    /// committed.
    pub(crate) fn is_withdrawn(&self) -> bool {
        let Some(ticket) = &self.ticket else { return false };
        self.channel.is_closed() || ticket.is_withdrawn()
    }

    /// Takes the operation into a transaction. Returns `false` if it is withdrawn.
    pub(crate) fn enter(&self) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        // A request in doubt need not be repeated if its caller has gone: its first transaction
        // has already succeeded or failed.
        !self.channel.is_closed() && (ticket.change(WAITING, COMMITTING) || !ticket.is_withdrawn())
    }

    /// Takes the operation out of a transaction that has failed.
    pub(crate) fn leave(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.change(COMMITTING, WAITING);
        }
    }

    /// Records that the operation was in a transaction whose result is unknown.
    pub(crate) fn mark_in_doubt(&self) {
        if let Some(ticket) = &self.ticket {
            ticket.change(COMMITTING, IN_DOUBT);
        }
    }

    /// Sends the reply to the caller.
    pub(crate) fn send(self, reply: Result<Reply, StoreError>) {
        // The caller may have gone.
        let _ = self.channel.send(reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> (ReplySender, Arc<Ticket>, oneshot::Receiver<Result<Reply, StoreError>>) {
        let (channel, receiver) = oneshot::channel();
        let (sender, ticket) = ReplySender::with_ticket(channel);
        (sender, ticket, receiver)
    }

    #[test]
    fn a_withdrawn_request_enters_no_transaction() {
        let (sender, ticket, _receiver) = sender();
        assert!(!sender.is_withdrawn() && ticket.withdraw());
        assert!(sender.is_withdrawn() && !sender.enter());
    }

    #[test]
    fn a_request_being_committed_is_not_withdrawn() {
        let (sender, ticket, _receiver) = sender();
        assert!(sender.enter() && !ticket.withdraw());
        // The transaction has failed.
        sender.leave();
        assert!(ticket.withdraw() && !sender.enter());
    }

    #[test]
    fn a_request_in_doubt_stays_so() {
        let (sender, ticket, _receiver) = sender();
        assert!(sender.enter());
        sender.mark_in_doubt();
        // The repeat fails for certain, but the first transaction may have succeeded.
        assert!(sender.enter());
        sender.leave();
        assert!(!ticket.withdraw() && sender.enter());
    }

    #[test]
    fn a_request_without_caller_is_withdrawn() {
        let (sender, _, receiver) = sender();
        assert!(sender.enter());
        drop(receiver);
        assert!(sender.is_withdrawn() && !sender.enter());
    }

    #[test]
    fn internal_operations_are_never_withdrawn() {
        let (channel, receiver) = oneshot::channel();
        let sender = ReplySender::internal(channel);
        drop(receiver);
        assert!(!sender.is_withdrawn() && sender.enter());
    }
}
