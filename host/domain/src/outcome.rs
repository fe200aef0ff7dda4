//! The outcome of one execution of a state.

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
    /// A failure.
    Failed(Failure),
    /// A store conflict: another state changed a key that the attempt had read
    /// and then wrote.
    Conflict,
    /// The host died, and the state may have ended it. Decided by
    /// [`crate::plan::outcome_of_lost_claim`].
    HostLost,
    /// The state was claimed and never begun: its host is stopping, or died.
    Released,
}
