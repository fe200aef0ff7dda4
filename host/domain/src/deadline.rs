//! Deadlines of runs: of a whole run, and of its beginning. A run that misses one fails.
//!
//! Not here: the deadline of an attempt (`timeout_ms`, a limit), and when a deadline is looked at.

use crate::ids::Millis;
use crate::state::RunStatus;

/// The longest deadline, in milliseconds: ten years.
pub const MAX_DEADLINE_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// The deadlines of a run, in milliseconds after its start; `None` for one that it does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// By then the run must have ended.
    pub end: Option<Millis>,
    /// By then a state of the run must have begun.
    pub begin: Option<Millis>,
}

impl Deadlines {
    /// Returns the deadlines that are set, each with its kind.
    pub fn iter(self) -> impl Iterator<Item = (DeadlineKind, Millis)> {
        let end = self.end.map(|after| (DeadlineKind::End, after));
        end.into_iter().chain(self.begin.map(|after| (DeadlineKind::Begin, after)))
    }
}

/// The kind of a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadlineKind {
    /// The run must have ended.
    End,
    /// A state of the run must have begun.
    Begin,
}

impl DeadlineKind {
    /// Every kind.
    pub const ALL: [DeadlineKind; 2] = [DeadlineKind::End, DeadlineKind::Begin];

    /// Returns the name of the kind: the reason why a run failed.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadlineKind::End => "deadline",
            DeadlineKind::Begin => "start-by",
        }
    }

    /// Parses the name of a kind.
    pub fn parse(text: &str) -> Option<Self> {
        DeadlineKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The progress of a run, as far as its deadlines depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The status of the run.
    pub status: RunStatus,
    /// Set if a state of the run was claimed, now or earlier.
    pub has_begun: bool,
}

/// The effect of a deadline at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not due yet.
    Early,
    /// It was met, and does not matter any more.
    Met,
    /// The run has missed it, and fails.
    Missed,
}

/// Decides on a deadline of a run that is due at a time.
pub fn judge(kind: DeadlineKind, due_at: Millis, now: Millis, progress: Progress) -> Verdict {
    let is_met = progress.status != RunStatus::Running
        || (kind == DeadlineKind::Begin && progress.has_begun);
    match (is_met, now >= due_at) {
        (true, _) => Verdict::Met,
        (false, false) => Verdict::Early,
        (false, true) => Verdict::Missed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RUNNING: Progress = Progress { status: RunStatus::Running, has_begun: true };
    const WAITING: Progress = Progress { has_begun: false, ..RUNNING };

    #[test]
    fn a_running_run_misses_its_end() {
        for progress in [RUNNING, WAITING] {
            assert_eq!(judge(DeadlineKind::End, 10, 9, progress), Verdict::Early);
            assert_eq!(judge(DeadlineKind::End, 10, 10, progress), Verdict::Missed);
        }
    }

    #[test]
    fn an_ended_run_meets_its_deadlines() {
        for status in [RunStatus::Success, RunStatus::Failed, RunStatus::Cancelled] {
            for kind in DeadlineKind::ALL {
                let progress = Progress { status, has_begun: false };
                assert_eq!(judge(kind, 10, 99, progress), Verdict::Met, "{kind:?} {status}");
            }
        }
    }

    #[test]
    fn a_begun_run_meets_its_begin() {
        assert_eq!(judge(DeadlineKind::Begin, 10, 5, RUNNING), Verdict::Met);
        assert_eq!(judge(DeadlineKind::Begin, 10, 99, RUNNING), Verdict::Met);
        assert_eq!(judge(DeadlineKind::Begin, 10, 9, WAITING), Verdict::Early);
        assert_eq!(judge(DeadlineKind::Begin, 10, 10, WAITING), Verdict::Missed);
    }

    #[test]
    fn kinds_are_read_as_written() {
        for kind in DeadlineKind::ALL {
            assert_eq!(DeadlineKind::parse(kind.as_str()).unwrap(), kind);
        }
        assert_eq!(DeadlineKind::parse("end"), None);
    }

    #[test]
    fn set_deadlines_are_listed() {
        let both = Deadlines { end: Some(2), begin: Some(1) };
        assert_eq!(
            both.iter().collect::<Vec<_>>(),
            [(DeadlineKind::End, 2), (DeadlineKind::Begin, 1)]
        );
        assert_eq!(Deadlines::default().iter().count(), 0);
    }
}
