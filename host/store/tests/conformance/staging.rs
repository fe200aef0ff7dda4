//! Staging: a finish in pieces. A staged piece is invisible and not counted until the finish.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::filter::StateFilter;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::Transition;
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_store::{
    Batch, ClaimMode, Control, Finished, Leftover, Operation, Reply, Stage, Staged, StagedQueues,
    StatePageRequest,
};
use serde_json::json;

use crate::harness::{Harness, Run, pause, sets};
use crate::test_database::Kind;

on_both! {
    a_staged_finish_is_invisible_until_committed,
    a_repeated_piece_is_written_once,
    a_stale_fence_stages_nothing,
    a_leftover_is_removed_in_pieces,
    a_cancelled_run_counts_no_staged_state,
    a_pause_holds_back_staged_states,
    staged_children_read_the_final_store,
    a_failed_staged_finish_leaves_a_leftover,
    staged_children_are_claimed_round_robin,
    a_piece_out_of_order_is_rejected,
    unknown_staged_queues_follow_the_known,
}

const FANOUT: &str = "U > X; X > W; W(U)";

/// A finish in pieces: the pieces, and the finish itself.
struct InPieces {
    pieces: Vec<Stage>,
    end: Finished,
}

/// Returns the finish of an execution with `count` outputs, `each` in a piece.
async fn in_pieces(
    harness: &Harness,
    run: &Run,
    state: &Claimed,
    count: usize,
    each: usize,
) -> InPieces {
    let Operation::Finish(end) = harness.finish_with_outputs(&run.info, state, count).await else {
        panic!()
    };
    into_pieces(*end, each)
}

fn into_pieces(mut end: Finished, each: usize) -> InPieces {
    let new_states = end.changes.end.new_states();
    let Transition::Success { outputs, children, .. } = &mut end.changes.end else { panic!() };
    let (outputs, children) = (std::mem::take(outputs), std::mem::take(children));
    let staged = Staged { pieces: 0, outputs: outputs.len(), children: children.len() };
    let mut pieces = Vec::new();
    for (at, children) in children.chunks(each).enumerate() {
        let first = at * each;
        let piece_outputs = outputs.iter().skip(first).take(each).cloned().collect();
        pieces.push(Stage {
            run: end.run.clone(),
            state: end.state.clone(),
            piece: at as u32,
            first: first as u32,
            outputs: piece_outputs,
            children: children.to_vec(),
            new_states,
            limits: end.limits.clone(),
        });
    }
    end.staged = Some(Staged { pieces: pieces.len() as u32, ..staged });
    InPieces { pieces, end }
}

fn stage(piece: Stage) -> Operation {
    Operation::Stage(Box::new(piece))
}

fn finish(end: Finished) -> Operation {
    Operation::Finish(Box::new(end))
}

fn unstage(run: &Run, state: &Claimed, limit: u32) -> Operation {
    let (state, fence) = (state.id, state.claim.fence);
    Operation::Control(run.info.clone(), Control::Unstage(Leftover { state, fence, limit }))
}

/// Copies a piece.
fn copy_piece(piece: &Stage) -> Stage {
    let Stage { run, state, piece, first, outputs, children, new_states, limits } = piece;
    Stage {
        run: run.clone(),
        state: state.clone(),
        piece: *piece,
        first: *first,
        outputs: outputs.clone(),
        children: children.clone(),
        new_states: *new_states,
        limits: limits.clone(),
    }
}

async fn seen(harness: &Harness, run: &Run) -> usize {
    let request = StatePageRequest { limit: 999, ..StatePageRequest::default() };
    let filter = StateFilter::default();
    harness.store.states(run.info.key, &filter, None, &request).await.unwrap().items.len()
}

/// Claims and ends states until none are left.
async fn drive(harness: &Harness, run: &Run, mut held: Vec<Claimed>) {
    while !held.is_empty() {
        let mut ends = Vec::new();
        for state in &held {
            ends.push(harness.finish_with_outputs(&run.info, state, 1).await);
        }
        let done = harness.commit_ok(ends, ClaimMode::NewOnly(99)).await;
        held = done.claimed.into_iter().map(|claimed| claimed.state).collect();
        held.extend(harness.claim(99).await);
    }
}

async fn a_staged_finish_is_invisible_until_committed(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let InPieces { pieces, end } = in_pieces(&harness, &run, &run.root, 10, 4).await;
    let (child, mut operations) = (pieces[0].children[0].id, Vec::new());
    for piece in pieces {
        operations.push(stage(piece));
        let done = harness.commit_ok(std::mem::take(&mut operations), ClaimMode::AllDue(9)).await;
        assert_eq!((done.replies, done.claimed.len()), (vec![Reply::Done], 0));
        assert!(!done.more_due && done.next_due.is_none(), "no state is claimable");
        assert_eq!(seen(&harness, &run).await, 1, "the root");
        assert!(harness.store.state(run.info.key, child).await.unwrap().is_none());
        assert!(harness.store.outputs_page(run.root.id, 0, 9).await.unwrap().is_empty());
        assert_eq!(harness.number("SELECT states FROM run").await, 1);
        harness.check().await;
    }
    assert_eq!(harness.store.leftovers().await.unwrap(), []);
    let done = harness.commit_ok(vec![finish(end)], ClaimMode::NewOnly(9)).await;
    assert_eq!((done.replies, done.claimed.len(), done.more_due), (vec![Reply::Done], 0, true));
    assert_eq!(seen(&harness, &run).await, 12);
    assert_eq!(harness.store.outputs_page(run.root.id, 0, 99).await.unwrap().len(), 10);
    assert_eq!(harness.number("SELECT states FROM run").await, 12);
    harness.check().await;
    let done = harness.commit_ok(vec![], ClaimMode::AllDue(99)).await;
    let namespace = run.info.namespace_key;
    assert!(done.claimed.len() == 10 && done.claimed.iter().all(|it| it.namespace == namespace));
    harness.check().await;
    let held = done.claimed.into_iter().map(|claimed| claimed.state).collect();
    drive(&harness, &run, held).await;
    assert_eq!(harness.states().await, "SUCCESS 12");
    assert_eq!(harness.text("SELECT status FROM run").await, "SUCCESS");
    harness.check().await;
}

/// The host did not learn that the first commit succeeded.
async fn a_repeated_piece_is_written_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let InPieces { pieces, end } = in_pieces(&harness, &run, &run.root, 6, 3).await;
    for piece in pieces {
        assert_eq!(harness.commit_one(stage(copy_piece(&piece))).await, Reply::Done);
        assert_eq!(harness.commit_one(stage(piece)).await, Reply::Done);
    }
    assert_eq!(harness.commit_one(finish(end)).await, Reply::Done);
    assert_eq!(harness.number("SELECT COUNT(*) FROM output").await, 6);
    harness.check().await;
    let held = harness.claim(99).await;
    drive(&harness, &run, held).await;
    harness.check().await;
}

async fn a_piece_out_of_order_is_rejected(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let InPieces { mut pieces, mut end } = in_pieces(&harness, &run, &run.root, 6, 3).await;
    let last = pieces.remove(1);
    assert_eq!(harness.commit_one(stage(last)).await, Reply::Stale);
    assert_eq!(harness.commit_one(stage(pieces.remove(0))).await, Reply::Done);
    // A finish whose pieces are incomplete is rejected.
    assert!(
        harness.commit(vec![finish(again_without(&mut end))], ClaimMode::NewOnly(0)).await.is_err()
    );
    assert_eq!(harness.states().await, "CREATED 3, QUEUED 1");
    harness.check().await;
}

/// Returns the same finish once more; its outputs are in the pieces.
fn again_without(end: &mut Finished) -> Finished {
    Finished {
        run: end.run.clone(),
        state: end.state.clone(),
        changes: end.changes.clone(),
        journal: end.journal.clone(),
        logs: None,
        usage: None,
        began_at: None,
        jitter: 0.0,
        limits: end.limits.clone(),
        staged: end.staged,
    }
}

async fn a_stale_fence_stages_nothing(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let old_pieces = in_pieces(&harness, &run, &run.root, 6, 3).await;
    assert_eq!(harness.commit_one(stage(copy_piece(&old_pieces.pieces[0]))).await, Reply::Done);
    let lost = harness.finish_plain(&run.info, &run.root, Outcome::HostLost).await;
    harness.commit_one(lost).await;
    assert_eq!(harness.commit_one(stage(copy_piece(&old_pieces.pieces[1]))).await, Reply::Stale);
    let held = harness.claim(1).await.remove(0);
    assert_eq!(harness.commit_one(stage(copy_piece(&old_pieces.pieces[1]))).await, Reply::Stale);
    assert_eq!(harness.commit_one(finish(old_pieces.end)).await, Reply::Stale);
    let InPieces { pieces, end } = in_pieces(&harness, &run, &held, 6, 3).await;
    let fence = run.root.claim.fence;
    assert_eq!(harness.commit_one(stage(copy_piece(&pieces[0]))).await, Reply::Leftover(fence));
    harness.check().await;
    assert_eq!(harness.commit_one(unstage(&run, &run.root, 99)).await, Reply::Done);
    for piece in pieces {
        assert_eq!(harness.commit_one(stage(piece)).await, Reply::Done);
        // The state is staged again: a late removal of the leftover changes nothing.
        assert_eq!(harness.commit_one(unstage(&run, &run.root, 99)).await, Reply::Done);
        assert_eq!(harness.commit_one(unstage(&run, &held, 99)).await, Reply::Stale);
    }
    assert_eq!(harness.commit_one(finish(end)).await, Reply::Done);
    let held = harness.claim(99).await;
    drive(&harness, &run, held).await;
    assert_eq!(harness.states().await, "SUCCESS 8");
    harness.check().await;
}

async fn a_leftover_is_removed_in_pieces(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    for piece in in_pieces(&harness, &run, &run.root, 10, 5).await.pieces {
        harness.commit_one(stage(piece)).await;
    }
    assert_eq!(harness.store.leftovers().await.unwrap(), []);
    let lost = harness.finish_plain(&run.info, &run.root, Outcome::HostLost).await;
    harness.commit_one(lost).await;
    let leftover = (run.root.id, run.info.key, run.root.claim.fence);
    assert_eq!(harness.store.leftovers().await.unwrap(), [leftover]);
    assert_eq!(harness.store.staged(run.root.id).await.unwrap(), Some(leftover));
    for _ in 0..2 {
        let answer = harness.commit_one(unstage(&run, &run.root, 4)).await;
        assert!(matches!(answer, Reply::More(_)), "{answer:?}");
        harness.check().await;
    }
    assert_eq!(harness.commit_one(unstage(&run, &run.root, 4)).await, Reply::Done);
    assert_eq!(harness.store.leftovers().await.unwrap(), []);
    assert_eq!(harness.number("SELECT COUNT(*) FROM output").await, 0);
    assert_eq!(harness.states().await, "CREATED 1");
    // The next attempt has fewer outputs, and the same paths.
    let held = harness.claim(1).await;
    let small_fanout = harness.finish_with_outputs(&run.info, &held[0], 2).await;
    let children = harness.commit_and_claim(small_fanout).await;
    drive(&harness, &run, children).await;
    assert_eq!(harness.states().await, "SUCCESS 4");
    harness.check().await;
}

async fn a_cancelled_run_counts_no_staged_state(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let InPieces { mut pieces, end } = in_pieces(&harness, &run, &run.root, 10, 5).await;
    let last = pieces.remove(1);
    harness.commit_one(stage(pieces.remove(0))).await;
    let event =
        harness.commit_for_sweep(Operation::Control(run.info.clone(), Control::Cancel)).await;
    assert_eq!(harness.commit_one(stage(last)).await, Reply::Stale);
    assert_eq!(harness.commit_one(finish(end)).await, Reply::Stale);
    harness.check().await;
    harness.sweep(&run.info, event, 3).await;
    assert_eq!(harness.number("SELECT cancelled FROM run").await, 1);
    assert_eq!(harness.states().await, "CANCELLED 1, CREATED 5");
    assert_eq!(harness.store.leftovers().await.unwrap().len(), 1);
    harness.check().await;
    assert_eq!(harness.commit_one(unstage(&run, &run.root, 99)).await, Reply::Done);
    assert_eq!(harness.states().await, "CANCELLED 1");
    assert_eq!(harness.number("SELECT COUNT(*) FROM output").await, 0);
    harness.check().await;

    // A state that ended in pieces is cancelled like any other.
    let run = harness.start_of(FANOUT).await;
    let InPieces { pieces, end } = in_pieces(&harness, &run, &run.root, 10, 5).await;
    for piece in pieces {
        harness.commit_one(stage(piece)).await;
    }
    harness.commit_one(finish(end)).await;
    harness.claim(3).await;
    let event =
        harness.commit_for_sweep(Operation::Control(run.info.clone(), Control::Cancel)).await;
    harness.sweep(&run.info, event, 4).await;
    assert_eq!(harness.states().await, "CANCELLED 12, SUCCESS 1");
    assert!(harness.claim(99).await.is_empty());
    harness.check().await;
}

async fn a_pause_holds_back_staged_states(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let InPieces { mut pieces, end } = in_pieces(&harness, &run, &run.root, 10, 5).await;
    let last = pieces.remove(1);
    harness.commit_one(stage(pieces.remove(0))).await;
    let event = harness.commit_for_sweep(pause(&run.info, true)).await;
    harness.sweep(&run.info, event, 3).await;
    harness.commit_one(stage(last)).await;
    harness.check().await;
    let event = harness.commit_for_sweep(finish(end)).await;
    assert!(harness.claim(99).await.is_empty());
    harness.check().await;
    harness.sweep(&run.info, event, 3).await;
    assert_eq!(harness.number("SELECT COUNT(*) FROM state WHERE held_back = 1").await, 10);
    harness.check().await;
    let event = harness.commit_for_sweep(pause(&run.info, false)).await;
    harness.sweep(&run.info, event, 3).await;
    let held = harness.claim(99).await;
    assert_eq!(held.len(), 10);
    drive(&harness, &run, held).await;
    assert_eq!(harness.text("SELECT status FROM run").await, "SUCCESS");
    harness.check().await;
}

/// Another state may have changed the store after the pieces were written.
async fn staged_children_read_the_final_store(kind: Kind) {
    let harness = Harness::new(kind).await;
    let builder = GraphBuilder::from_text("A > U B; U > X Y")
        .store(json!({"default_values": {"k": "first"}}))
        .input("X", "v", "${{ store.k }}");
    let template = harness.template(builder).await;
    let mut new = harness.new_run(&template).await;
    new.store = BTreeMap::from([("k".to_owned(), "first".to_owned())]);
    let info = new.info.clone();
    let mut done =
        harness.commit_ok(vec![Operation::Start(new.into())], ClaimMode::NewOnly(1)).await;
    let run = Run { info, root: done.claimed.remove(0).state };
    let fork = harness.finish_with_outputs(&run.info, &run.root, 1).await;
    let both = harness.commit_and_claim(fork).await;
    let (wide, other) = (&both[0], &both[1]);
    let InPieces { pieces, end } = in_pieces(&harness, &run, wide, 4, 4).await;
    for piece in pieces {
        harness.commit_one(stage(piece)).await;
    }
    let sets =
        harness.finish(&run.info, other, crate::harness::outputs(0), sets("k", "second")).await;
    harness.commit_one(sets).await;
    assert_eq!(harness.commit_one(finish(end)).await, Reply::Done);
    let done = harness.commit_ok(vec![], ClaimMode::AllDue(99)).await;
    assert_eq!(done.claimed.len(), 8);
    let node = |name: &str| {
        template.graph.nodes().find(|(_, it)| it.identifier.as_str() == name).unwrap().0
    };
    for claimed in &done.claimed {
        let store_snapshot = claimed.store_snapshot.get("k").map(String::as_str);
        let is_x = claimed.state.place.node == node("X");
        assert_eq!(store_snapshot, is_x.then_some("second"), "{claimed:?}");
    }
    let held = done.claimed.into_iter().map(|claimed| claimed.state).collect();
    harness.check().await;
    drive(&harness, &run, held).await;
    harness.check().await;
}

async fn a_failed_staged_finish_leaves_a_leftover(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of(FANOUT).await;
    let limits = Arc::new(Limits::default().with(Limit::RunStates, 11));
    let InPieces { mut pieces, mut end } = in_pieces(&harness, &run, &run.root, 10, 5).await;
    let mut refused = copy_piece(&pieces[0]);
    refused.limits = limits.clone();
    let answer = harness.commit_one(stage(refused)).await;
    assert!(matches!(&answer, Reply::Refused(cause) if cause.contains("run_states")), "{answer:?}");
    // The run has more states at the end than when the pieces were staged.
    for piece in pieces.drain(..) {
        harness.commit_one(stage(piece)).await;
    }
    end.limits = limits;
    assert_eq!(harness.commit_one(finish(end)).await, Reply::Leftover(run.root.claim.fence));
    assert_eq!(harness.text("SELECT kind FROM state WHERE status = 'ERRORED'").await, "limit");
    assert_eq!(harness.store.leftovers().await.unwrap().len(), 1);
    harness.check().await;
    assert_eq!(harness.commit_one(unstage(&run, &run.root, 99)).await, Reply::Done);
    assert_eq!(harness.states().await, "ERRORED 1");
    let run = harness.store.run(&run.info.namespace, run.info.id).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Failed);
    harness.check().await;
}

/// A namespace gets no larger share by staging more, and no namespace waits for another.
async fn staged_children_are_claimed_round_robin(kind: Kind) {
    let harness = Harness::new(kind).await;
    let mut runs = Vec::new();
    for namespace_name in ["a", "a", "b"] {
        let template = harness.template_of(namespace_name, GraphBuilder::from_text("U > X")).await;
        let run = harness.start(&template).await;
        let InPieces { pieces, end } = in_pieces(&harness, &run, &run.root, 40, 20).await;
        for piece in pieces {
            harness.commit_one(stage(piece)).await;
        }
        harness.commit_one(finish(end)).await;
        runs.push(run.info.key);
    }
    let held = harness.claim(40).await;
    let claimed_of = |run| held.iter().filter(|state| state.run == run).count();
    assert_eq!(runs.iter().map(|run| claimed_of(*run)).collect::<Vec<_>>(), [10, 10, 20]);
    assert_eq!(harness.claim(99).await.len(), 80, "all the rest");
    harness.check().await;
}

/// Starts a run with four staged children, and commits its end with the known queues. Returns the
/// run and the queues that are known then.
async fn start_staged(harness: &Harness, known: StagedQueues) -> (Run, StagedQueues) {
    let run = harness.start_of("U > X").await;
    let InPieces { pieces, end } = in_pieces(harness, &run, &run.root, 4, 4).await;
    for piece in pieces {
        harness.commit_one(stage(piece)).await;
    }
    let batch = harness.batch(vec![finish(end)], ClaimMode::NewOnly(0));
    let done = harness.store.commit(Batch { staged_queues: known, ..batch }).await.unwrap();
    (run, done.staged_queues)
}

async fn unknown_staged_queues_follow_the_known(kind: Kind) {
    let harness = Harness::new(kind).await;
    let mut known = StagedQueues::default();
    let mut runs = Vec::new();
    let claim = async |max, known: &mut StagedQueues, runs: &[Run]| {
        let batch = harness.batch(Vec::new(), ClaimMode::AllDue(max));
        let batch = Batch { staged_queues: known.clone(), ..batch };
        let done = harness.store.commit(batch).await.unwrap();
        known.clone_from(&done.staged_queues);
        let claimed_of = |run: &Run| {
            done.claimed.iter().filter(|claimed| claimed.state.run == run.info.key).count()
        };
        (runs.iter().map(claimed_of).collect::<Vec<_>>(), known.queues.len())
    };
    let (run, now_known) = start_staged(&harness, known.clone()).await;
    runs.push(run);
    assert!(now_known.queues.is_empty(), "a host that knows of no queue looks for all");
    assert_eq!(claim(1, &mut known, &runs).await, (vec![1], 1));
    // The commit of another host, which this host does not know of.
    runs.push(start_staged(&harness, StagedQueues::default()).await.0);
    assert_eq!(claim(2, &mut known, &runs).await, (vec![2, 0], 1));
    assert_eq!(claim(2, &mut known, &runs).await, (vec![1, 1], 1), "the known one is exhausted");
    let (run, known_by_end) = start_staged(&harness, known.clone()).await;
    runs.push(run);
    assert_eq!(known_by_end.queues.len(), 2);
    assert_eq!(claim(2, &mut known_by_end.clone(), &runs).await, (vec![0, 1, 1], 2));
    assert_eq!(claim(99, &mut known, &runs).await, (vec![0, 2, 3], 1), "both, in two looks");
    assert_eq!(claim(99, &mut known, &runs).await, (vec![0, 0, 0], 0));
    harness.check().await;
}
