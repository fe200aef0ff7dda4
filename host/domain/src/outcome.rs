//! What came of executing a state once.

use crate::failure::Failure;
use crate::ids::Millis;

/// What came of one execution, before anyone asks what it means for the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Zero or more JSON objects, each as compact text.
    Outputs(Vec<String>),
    /// The branch ends here; JSON text for people to read.
    Prune(Option<String>),
    /// Again, after so many milliseconds.
    RequeueAfter(Millis),
    /// It failed.
    Failed(Failure),
    /// A key that it had read and then wrote was changed by another state.
    Conflict,
    /// Its host is gone, and it may have been what ended it. Decided by
    /// [`crate::plan::lost`].
    HostLost,
    /// It was claimed and never begun: its host is stopping, or is gone.
    Released,
}
