//! The outcome of one execution of a state, and that of an attempt as it is
//! recorded.

use crate::failure::Failure;
use crate::ids::Millis;

/// The outcome of one execution, before the plan decides its effect on the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Zero or more JSON objects, each as compact text.
    Outputs(Vec<String>),
    /// The branch ends here; the data is JSON text for people.
    Prune(Option<String>),
    /// A requeue, after this delay in milliseconds.
    RequeueAfter(Millis),
    /// A failure, from the guest or found by the host.
    Failed(Failure),
    /// A store conflict: another state changed a key that the attempt had read
    /// and then wrote.
    Conflict,
    /// The host died, perhaps because of the state. Decided by
    /// [`crate::plan::outcome_of_lost_claim`].
    HostLost,
    /// The state was claimed and never begun: its host is stopping, or died.
    Released,
}

/// The outcome of an attempt, as its record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// The attempt returned outputs.
    Success,
    /// The attempt ended its branch.
    Pruned,
    /// The attempt requeued its state.
    Requeued,
    /// The attempt failed, whether or not the state is retried.
    Errored,
}

impl AttemptOutcome {
    /// Every outcome, in the order above.
    pub const ALL: [AttemptOutcome; 4] = [
        AttemptOutcome::Success,
        AttemptOutcome::Pruned,
        AttemptOutcome::Requeued,
        AttemptOutcome::Errored,
    ];

    /// Returns the outcome's name in the API: that of the status of a state which ends so.
    pub fn name(self) -> &'static str {
        match self {
            AttemptOutcome::Errored => "ERRORED",
            other => other.as_str(),
        }
    }

    /// Returns the outcome's name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptOutcome::Success => "SUCCESS",
            AttemptOutcome::Pruned => "PRUNED",
            AttemptOutcome::Requeued => "REQUEUED",
            AttemptOutcome::Errored => "FAILED",
        }
    }

    /// Parses the name of an outcome in the database.
    pub fn parse(text: &str) -> Option<Self> {
        AttemptOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}
