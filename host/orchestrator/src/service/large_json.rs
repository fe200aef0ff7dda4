//! Permits for large bodies, answers and reads of callers, which bound the memory and the
//! read connections that these take together.
//!
//! Not here: turns at reading JSON; those are of host work ([`crate::host_work`]).

use std::fmt;

use exosphere_domain::ids::Name;
use exosphere_sandbox::{FairPermit, FairSemaphore};

/// Maximum number of large request bodies that arrive at a time, in all and of one namespace.
/// They have their own permits, since a body takes as long as its sender likes.
const MAX_LARGE_BODIES: (u32, u32) = (8, 2);

/// Maximum number of large answers in memory at a time, in all and of one namespace. An answer
/// counts from its reading until the caller has it.
const MAX_LARGE_ANSWERS: (u32, u32) = (8, 2);

/// Maximum number of connections that read something large at a time, in all and for one
/// namespace.
const MAX_LARGE_READS: (u32, u32) = (2, 1);

/// Bytes from which an answer is large.
const LARGE_ANSWER_BYTES: i64 = 256 * 1024;

/// The permit of a large answer, dropped once the answer has been sent.
#[expect(dead_code, reason = "it is held, and dropped")]
pub struct AnswerPermit(FairPermit<Name>);

impl fmt::Debug for AnswerPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerPermit")
    }
}

/// Permits for large bodies, answers and reads.
pub(crate) struct LargeJsonPermits {
    bodies: FairSemaphore<Name>,
    answers: FairSemaphore<Name>,
    reads: FairSemaphore<Name>,
}

impl LargeJsonPermits {
    pub(crate) fn new() -> Self {
        LargeJsonPermits {
            bodies: FairSemaphore::new(MAX_LARGE_BODIES.0),
            answers: FairSemaphore::new(MAX_LARGE_ANSWERS.0),
            reads: FairSemaphore::new(MAX_LARGE_READS.0),
        }
    }

    /// Reads `bytes` for a caller. If they are large, waits for permits of the namespace,
    /// and returns one to hold until the caller has the answer.
    pub(crate) async fn read<T, E>(
        &self,
        namespace: &Name,
        bytes: i64,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Option<AnswerPermit>), E> {
        if bytes <= LARGE_ANSWER_BYTES {
            return Ok((read.await?, None));
        }
        let permit = self.answers.acquire(namespace.clone(), MAX_LARGE_ANSWERS.1).await;
        let _read_permit = self.reads.acquire(namespace.clone(), MAX_LARGE_READS.1).await;
        Ok((read.await?, permit.map(AnswerPermit)))
    }

    /// Waits for a permit of the namespace to receive a large body.
    pub(crate) async fn body(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.bodies.acquire(namespace.clone(), MAX_LARGE_BODIES.1).await
    }
}
