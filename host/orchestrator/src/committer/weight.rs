//! The lane and the weight of a member: what it costs the commit that writes it, in
//! bytes.

use exosphere_domain::plan::{Again, End};
use exosphere_store::{Finished, Member, NewRun, RedrivePart, Stage};

use super::lanes::{Label, Lane};

/// The weight of one row beside the texts in it, in bytes: to write a row takes about as
/// long as to write 2 KiB of text (measured on both databases, docs/performance.md).
pub(crate) const ROW_BYTES: u64 = 2 << 10;

/// Where a member belongs in the queue.
pub(crate) fn label(member: &Member) -> Label {
    let (lane, run, weight) = match member {
        Member::Start(new) => (Lane::Control, &new.info, start(new)),
        Member::Finish(finished) => (Lane::End, &finished.run, finish(finished)),
        Member::Stage(piece) => (Lane::End, &piece.run, stage(piece)),
        Member::Unstage(leftover) => {
            let rows = 2 * u64::from(leftover.most);
            (Lane::Background, &leftover.run, ROW_BYTES.saturating_mul(rows))
        }
        Member::Cancel(run) | Member::Pause { run, .. } => (Lane::Urgent, run, ROW_BYTES),
        Member::Begin { run, .. } | Member::Retry { run, .. } => (Lane::Control, run, ROW_BYTES),
        Member::Redrive { run, part } => match part {
            RedrivePart::Begin | RedrivePart::End { .. } => (Lane::Control, run, ROW_BYTES),
            RedrivePart::Whole(states) | RedrivePart::Some { states, .. } => {
                (Lane::Background, run, rows(states.len()))
            }
        },
        Member::Sweep { run, most, .. } => {
            (Lane::Background, run, ROW_BYTES.saturating_mul(u64::from(*most)))
        }
    };
    Label { lane, namespace: run.namespace_key, run: run.key, weight }
}

/// Two rows, of the run and of its first state, and those of its store.
fn start(new: &NewRun) -> u64 {
    let store: usize = new.store.iter().map(|(key, value)| key.len() + value.len()).sum();
    rows(2 + new.store.len()) + bytes(new.info.inputs.len() + store)
}

/// The row of the state, and what its end brings with it.
fn finish(finished: &Finished) -> u64 {
    let logs = finished.logs.as_ref().map_or(0, String::len);
    let writes = finished.journal.bytes();
    rows(1 + finished.journal.writes().count()) + bytes(logs + writes) + end(finished)
}

fn stage(piece: &Stage) -> u64 {
    let text: usize = piece.outputs.iter().map(String::len).sum();
    rows(piece.outputs.len() + piece.children.len()) + bytes(text)
}

/// Weighs what an end writes beside the row of its state: outputs, children, failures.
pub(crate) fn end(finished: &Finished) -> u64 {
    match &finished.changes.end {
        End::Success { outputs, children, unites } => {
            let text: usize = outputs.iter().map(String::len).sum();
            rows(outputs.len() + children.len() + 2 * unites.len()) + bytes(text)
        }
        End::Pruned { data } => bytes(data.as_ref().map_or(0, String::len)),
        End::Again { why: Again::Failed(failure), .. } | End::Errored { failure } => {
            // Once with the state, and once with the attempt.
            rows(1) + 2 * bytes(failure.message.len())
        }
        End::Again { .. } => rows(1),
    }
}

fn rows(count: usize) -> u64 {
    bytes(count).saturating_mul(ROW_BYTES)
}

fn bytes(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
