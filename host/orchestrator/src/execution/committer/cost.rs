//! The lane of each operation, and its cost in a commit, in bytes.

use exosphere_domain::plan::{RescheduleReason, Transition};
use exosphere_store::{Control, Finished, NewRun, Operation, RedrivePart, Stage};

use super::lanes::{Lane, LaneCost};

/// The cost of one row without its texts, in bytes. It is an estimate of the text that
/// a commit writes in the time of one row (10 µs, by the whole fanout of
/// docs/internals/performance-log.md).
pub(crate) const ROW_BYTES: u64 = 2 << 10;

/// The number of states up to which a redrive of a bulk operation shares a batch with others of it.
const MAX_ROWS_OF_SMALL_REDRIVE: u64 = 8;

/// Returns the lane and the cost of an operation.
pub(crate) fn lane_and_cost(operation: &Operation) -> LaneCost {
    let (lane, run, cost) = match operation {
        Operation::Start(new) => (Lane::Control, &new.info, start(new)),
        Operation::Finish(finished) => (Lane::End, &finished.run, finish(finished)),
        Operation::Stage(piece) => (Lane::End, &piece.run, stage(piece)),
        Operation::Control(run, control) => {
            let (lane, rows) = of_control(control);
            (lane, run, ROW_BYTES.saturating_mul(rows))
        }
    };
    LaneCost { lane, namespace: run.namespace_key, run: run.key, cost }
}

/// Returns the lane of a control operation and the maximum number of rows that it writes.
fn of_control(control: &Control) -> (Lane, u64) {
    match control {
        Control::Cancel | Control::Pause | Control::Resume | Control::Expire(_) => {
            (Lane::Urgent, 1)
        }
        Control::FollowGraph => (Lane::Control, 1),
        Control::Begin(_) | Control::Retry(_) | Control::Delete => (Lane::Control, 1),
        Control::Redrive(RedrivePart::Begin | RedrivePart::End { .. }) => (Lane::Control, 1),
        Control::Redrive(RedrivePart::Whole(states) | RedrivePart::Some { states, .. }) => {
            (Lane::Background, states.len() as u64)
        }
        Control::Unstage(leftover) => (Lane::Background, 2 * u64::from(leftover.limit)),
        Control::Sweep { limit, .. } => (Lane::Background, u64::from(*limit)),
        Control::Audited(control, _) => {
            let (lane, rows) = of_control(control);
            (lane, rows + 1)
        }
        // No caller waits for it.
        Control::Bulk(step) => match of_control(&step.change) {
            (Lane::Urgent, rows) => (Lane::Control, rows + 1),
            (Lane::Background, rows) if rows <= MAX_ROWS_OF_SMALL_REDRIVE => {
                (Lane::Control, rows + 1)
            }
            (lane, rows) => (lane, rows + 1),
        },
    }
}

/// Returns the cost of a start: the row of the run, that of its first state, and those of its
/// store.
fn start(new: &NewRun) -> u64 {
    let store: usize = new.store.iter().map(|(key, value)| key.len() + value.len()).sum();
    rows(2 + new.store.len()) + bytes(new.info.inputs.len() + store)
}

/// Returns the cost of the end of an execution: the row of the state, and all that its end writes.
fn finish(finished: &Finished) -> u64 {
    let logs = finished.logs.as_ref().map_or(0, String::len);
    let writes = finished.journal.bytes();
    rows(1 + finished.journal.writes().count()) + bytes(logs + writes) + end(finished)
}

fn stage(piece: &Stage) -> u64 {
    let text: usize = piece.outputs.iter().map(String::len).sum();
    rows(piece.outputs.len() + piece.children.len()) + bytes(text)
}

/// Returns the cost of an end without the row of its state: outputs, children,
/// failures.
pub(crate) fn end(finished: &Finished) -> u64 {
    match &finished.changes.end {
        Transition::Success { outputs, children, unites } => {
            let text: usize = outputs.iter().map(String::len).sum();
            rows(outputs.len() + children.len() + 2 * unites.len()) + bytes(text)
        }
        Transition::Pruned { data } => bytes(data.as_ref().map_or(0, String::len)),
        Transition::Reschedule { reason: RescheduleReason::Failed(failure), .. }
        | Transition::Errored { failure } => {
            // The message is written twice: with the state and with the attempt.
            rows(1) + 2 * bytes(failure.message.len())
        }
        Transition::Reschedule { .. } => rows(1),
    }
}

fn rows(count: usize) -> u64 {
    bytes(count).saturating_mul(ROW_BYTES)
}

fn bytes(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use exosphere_domain::deadline::Deadlines;
    use exosphere_domain::graph::testing::GraphBuilder;
    use exosphere_domain::ids::{
        BulkId, Fence, NamespaceKey, NodeIx, RunId, RunKey, SessionId, StateId,
    };
    use exosphere_domain::journal::Journal;
    use exosphere_domain::limits::Limits;
    use exosphere_domain::path::Path;
    use exosphere_domain::plan::{Changes, Deltas, root_state};
    use exosphere_domain::state::{AttemptCounts, Claim, Claimed, Place};
    use exosphere_store::{BulkStep, RunInfo};

    use exosphere_domain::testing::SameId;

    use super::*;

    const MIB: usize = 1 << 20;

    /// Builds the end of an execution.
    pub(in crate::execution::committer) fn ended(end: Transition) -> Finished {
        let name = || "n".parse().unwrap();
        let run = Arc::new(RunInfo {
            key: RunKey(1),
            id: RunId(uuid::Uuid::nil()),
            namespace: name(),
            namespace_key: NamespaceKey(7),
            graph_name: name(),
            revision: 1,
            revision_id: 1,
            graph: Arc::new(GraphBuilder::from_text("A").build().unwrap()),
            inputs: "{}".into(),
            labels: Default::default(),
        });
        let place =
            Place { node: NodeIx(0), path: Path::root(), refs: Vec::new(), scopes: Arc::from([]) };
        let claim = Claim { session: SessionId(1), fence: Fence(1) };
        let state = Claimed {
            id: StateId(1),
            run: run.key,
            place,
            attempts: AttemptCounts::default(),
            claim,
        };
        Finished {
            run,
            state,
            changes: Changes { end, counts: Deltas::new() },
            journal: Journal::default(),
            logs: None,
            usage: None,
            began_at: None,
            jitter: 0.0,
            limits: Arc::new(Limits::default()),
            staged: None,
        }
    }

    fn cost(finished: Finished) -> usize {
        let lane_cost = lane_and_cost(&Operation::Finish(Box::new(finished)));
        assert_eq!((lane_cost.lane, lane_cost.namespace), (Lane::End, NamespaceKey(7)));
        lane_cost.cost as usize
    }

    #[test]
    fn requests_go_ahead_of_ends() {
        let run = ended(Transition::Pruned { data: None }).run;
        let lane = |operation: Operation| lane_and_cost(&operation).lane;
        let control = |control| lane(Operation::Control(run.clone(), control));
        for urgent in [Control::Cancel, Control::Pause, Control::Resume] {
            assert_eq!(control(urgent), Lane::Urgent);
        }
        assert_eq!(control(Control::Retry(StateId(1))), Lane::Control);
        let bulk = |change| {
            let (bulk, page, ended_before) = (BulkId(uuid::Uuid::nil()), 0, None);
            control(Control::Bulk(BulkStep { bulk, page, ended_before, change }.into()))
        };
        let redrive = |states| Control::Redrive(RedrivePart::Whole(vec![StateId(1); states]));
        assert_eq!(bulk(Control::Cancel), Lane::Control, "no caller waits for it");
        assert_eq!((bulk(redrive(1)), bulk(redrive(250))), (Lane::Control, Lane::Background));
        let (root, counts) = root_state(&run.graph, &SameId);
        let new = NewRun {
            info: run,
            revision: 1,
            is_pinned: false,
            deadlines: Deadlines::default(),
            store: BTreeMap::new(),
            root,
            counts,
            key: None,
            digest: None,
            started_by: None,
            delay: 0,
            limits: Arc::new(Limits::default()),
        };
        assert_eq!(lane(Operation::Start(new.into())), Lane::Control);
    }

    #[test]
    fn outputs_logs_and_writes_have_a_cost() {
        let pruned = || ended(Transition::Pruned { data: None });
        assert!(cost(pruned()) < MIB / 100);
        let outputs = vec!["x".repeat(MIB); 3];
        let success = Transition::Success { outputs, children: Vec::new(), unites: Vec::new() };
        assert!(cost(ended(success)) > 3 * MIB);
        let mut logs = pruned();
        logs.logs = Some("x".repeat(MIB));
        assert!(cost(logs) > MIB);
        let mut writes = pruned();
        writes.journal.set("k", "x".repeat(MIB)).unwrap();
        assert!(cost(writes) > MIB);
    }

    #[test]
    fn a_cancelled_end_costs_almost_nothing() {
        let outputs = vec!["x".repeat(MIB); 3];
        let success = Transition::Success { outputs, children: Vec::new(), unites: Vec::new() };
        let mut finished = ended(success);
        finished.logs = Some("x".repeat(MIB));
        finished.strip();
        assert!(cost(finished) < MIB / 100);
    }
}
