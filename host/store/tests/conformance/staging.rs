//! Staging: an end in pieces. A staged piece does not count, and cannot be seen, before the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::End;
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_store::{Answer, Finished, Leftover, Member, Stage, Staged, StateFilter, Want};
use serde_json::json;

use crate::harness::{Bed, Run, pause, sets};
use crate::test_database::Kind;

on_both! {
    a_staged_finish_is_invisible_until_committed,
    a_repeated_piece_is_written_once,
    a_stale_fence_stages_nothing,
    a_leftover_is_removed_in_pieces,
    a_cancelled_run_counts_no_staged_state,
    a_paused_run_parks_staged_states,
    staged_children_read_the_final_store,
    a_failed_staged_finish_leaves_a_leftover,
    staged_children_are_claimed_round_robin,
    a_piece_out_of_order_is_rejected,
}

const FANOUT: &str = "U > X; X > W; W(U)";

/// An end in pieces: the pieces, and the end itself.
struct InPieces {
    pieces: Vec<Stage>,
    end: Finished,
}

/// Ends an execution with `count` outputs, `each` in a piece.
async fn in_pieces(bed: &Bed, run: &Run, state: &Claimed, count: usize, each: usize) -> InPieces {
    let Member::Finish(end) = bed.outputs(&run.info, state, count).await else { panic!() };
    cut(*end, each)
}

fn cut(mut end: Finished, each: usize) -> InPieces {
    let new_states = end.changes.end.new_states();
    let End::Success { outputs, children, .. } = &mut end.changes.end else { panic!() };
    let (outputs, children) = (std::mem::take(outputs), std::mem::take(children));
    let staged = Staged { pieces: 0, outputs: outputs.len(), children: children.len() };
    let mut pieces = Vec::new();
    for (at, children) in children.chunks(each).enumerate() {
        let first = at * each;
        let some = outputs.iter().skip(first).take(each).cloned().collect();
        pieces.push(Stage {
            run: end.run.clone(),
            state: end.state.clone(),
            piece: at as u32,
            first: first as u32,
            outputs: some,
            children: children.to_vec(),
            new_states,
            limits: end.limits.clone(),
        });
    }
    end.staged = Some(Staged { pieces: pieces.len() as u32, ..staged });
    InPieces { pieces, end }
}

fn stage(piece: Stage) -> Member {
    Member::Stage(Box::new(piece))
}

fn finish(end: Finished) -> Member {
    Member::Finish(Box::new(end))
}

fn unstage(run: &Run, state: &Claimed, most: u32) -> Member {
    let (state, fence) = (state.id, state.claim.fence);
    Member::Unstage(Leftover { run: run.info.clone(), state, fence, most })
}

/// Returns the same piece once more.
fn again(piece: &Stage) -> Stage {
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

async fn seen(bed: &Bed, run: &Run) -> usize {
    let filter = StateFilter { most: 999, ..StateFilter::default() };
    bed.store.states(run.info.key, &filter).await.unwrap().items.len()
}

/// Claims and ends states until none are left.
async fn drive(bed: &Bed, run: &Run, mut held: Vec<Claimed>) {
    while !held.is_empty() {
        let mut ends = Vec::new();
        for state in &held {
            ends.push(bed.outputs(&run.info, state, 1).await);
        }
        let done = bed.done(ends, Want::Births(99)).await;
        held = done.leased.into_iter().map(|leased| leased.state).collect();
        held.extend(bed.claim(99).await);
    }
}

async fn a_staged_finish_is_invisible_until_committed(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let InPieces { pieces, end } = in_pieces(&bed, &run, &run.root, 10, 4).await;
    let (child, mut members) = (pieces[0].children[0].id, Vec::new());
    for piece in pieces {
        members.push(stage(piece));
        let done = bed.done(std::mem::take(&mut members), Want::Claims(9)).await;
        assert_eq!((done.answers, done.leased.len()), (vec![Answer::Done], 0));
        assert!(!done.more && done.next_due.is_none(), "nothing is to be claimed");
        assert_eq!(seen(&bed, &run).await, 1, "the root");
        assert!(bed.store.state(run.info.key, child).await.unwrap().is_none());
        assert!(bed.store.outputs_page(run.root.id, 0, 9).await.unwrap().is_empty());
        assert_eq!(bed.number("SELECT states FROM run").await, 1);
        bed.check().await;
    }
    assert_eq!(bed.store.leftovers().await.unwrap(), []);
    let done = bed.done(vec![finish(end)], Want::Births(9)).await;
    assert_eq!((done.answers, done.leased.len(), done.more), (vec![Answer::Done], 0, true));
    assert_eq!(seen(&bed, &run).await, 12);
    assert_eq!(bed.store.outputs_page(run.root.id, 0, 99).await.unwrap().len(), 10);
    assert_eq!(bed.number("SELECT states FROM run").await, 12);
    bed.check().await;
    let done = bed.done(vec![], Want::Claims(99)).await;
    let namespace = run.info.namespace_key;
    assert!(done.leased.len() == 10 && done.leased.iter().all(|it| it.namespace == namespace));
    bed.check().await;
    let held = done.leased.into_iter().map(|leased| leased.state).collect();
    drive(&bed, &run, held).await;
    assert_eq!(bed.states().await, "SUCCESS 12");
    assert_eq!(bed.text("SELECT status FROM run").await, "SUCCESS");
    bed.check().await;
}

/// The host did not learn that the first commit succeeded.
async fn a_repeated_piece_is_written_once(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let InPieces { pieces, end } = in_pieces(&bed, &run, &run.root, 6, 3).await;
    for piece in pieces {
        assert_eq!(bed.one(stage(again(&piece))).await, Answer::Done);
        assert_eq!(bed.one(stage(piece)).await, Answer::Done);
    }
    assert_eq!(bed.one(finish(end)).await, Answer::Done);
    assert_eq!(bed.number("SELECT COUNT(*) FROM output").await, 6);
    bed.check().await;
    let held = bed.claim(99).await;
    drive(&bed, &run, held).await;
    bed.check().await;
}

async fn a_piece_out_of_order_is_rejected(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let InPieces { mut pieces, mut end } = in_pieces(&bed, &run, &run.root, 6, 3).await;
    let last = pieces.remove(1);
    assert_eq!(bed.one(stage(last)).await, Answer::Stale);
    assert_eq!(bed.one(stage(pieces.remove(0))).await, Answer::Done);
    // An end whose pieces are incomplete does not count.
    assert!(bed.commit(vec![finish(again_without(&mut end))], Want::Births(0)).await.is_err());
    assert_eq!(bed.states().await, "CREATED 3, QUEUED 1");
    bed.check().await;
}

/// Returns the same end without outputs of its own: all of them are in its pieces.
fn again_without(end: &mut Finished) -> Finished {
    Finished {
        run: end.run.clone(),
        state: end.state.clone(),
        changes: end.changes.clone(),
        journal: end.journal.clone(),
        logs: None,
        usage: None,
        jitter: 0.0,
        limits: end.limits.clone(),
        staged: end.staged,
    }
}

async fn a_stale_fence_stages_nothing(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let old = in_pieces(&bed, &run, &run.root, 6, 3).await;
    assert_eq!(bed.one(stage(again(&old.pieces[0]))).await, Answer::Done);
    let lost = bed.plainly(&run.info, &run.root, Outcome::HostLost).await;
    bed.one(lost).await;
    assert_eq!(bed.one(stage(again(&old.pieces[1]))).await, Answer::Stale);
    let held = bed.claim(1).await.remove(0);
    assert_eq!(bed.one(stage(again(&old.pieces[1]))).await, Answer::Stale);
    assert_eq!(bed.one(finish(old.end)).await, Answer::Stale);
    let InPieces { pieces, end } = in_pieces(&bed, &run, &held, 6, 3).await;
    let fence = run.root.claim.fence;
    assert_eq!(bed.one(stage(again(&pieces[0]))).await, Answer::Leftover(fence));
    bed.check().await;
    assert_eq!(bed.one(unstage(&run, &run.root, 99)).await, Answer::Done);
    for piece in pieces {
        assert_eq!(bed.one(stage(piece)).await, Answer::Done);
        // It is not a leftover: the request to remove it comes too late.
        assert_eq!(bed.one(unstage(&run, &run.root, 99)).await, Answer::Done);
        assert_eq!(bed.one(unstage(&run, &held, 99)).await, Answer::Stale);
    }
    assert_eq!(bed.one(finish(end)).await, Answer::Done);
    let held = bed.claim(99).await;
    drive(&bed, &run, held).await;
    assert_eq!(bed.states().await, "SUCCESS 8");
    bed.check().await;
}

async fn a_leftover_is_removed_in_pieces(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    for piece in in_pieces(&bed, &run, &run.root, 10, 5).await.pieces {
        bed.one(stage(piece)).await;
    }
    assert_eq!(bed.store.leftovers().await.unwrap(), []);
    let lost = bed.plainly(&run.info, &run.root, Outcome::HostLost).await;
    bed.one(lost).await;
    let leftover = (run.root.id, run.info.key, run.root.claim.fence);
    assert_eq!(bed.store.leftovers().await.unwrap(), [leftover]);
    assert_eq!(bed.store.staged(run.root.id).await.unwrap(), Some(leftover));
    for _ in 0..2 {
        let answer = bed.one(unstage(&run, &run.root, 4)).await;
        assert!(matches!(answer, Answer::More(_)), "{answer:?}");
        bed.check().await;
    }
    assert_eq!(bed.one(unstage(&run, &run.root, 4)).await, Answer::Done);
    assert_eq!(bed.store.leftovers().await.unwrap(), []);
    assert_eq!(bed.number("SELECT COUNT(*) FROM output").await, 0);
    assert_eq!(bed.states().await, "CREATED 1");
    // The next attempt has fewer outputs, and the same paths.
    let held = bed.claim(1).await;
    let narrow = bed.outputs(&run.info, &held[0], 2).await;
    let children = bed.births(narrow).await;
    drive(&bed, &run, children).await;
    assert_eq!(bed.states().await, "SUCCESS 4");
    bed.check().await;
}

async fn a_cancelled_run_counts_no_staged_state(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let InPieces { mut pieces, end } = in_pieces(&bed, &run, &run.root, 10, 5).await;
    let last = pieces.remove(1);
    bed.one(stage(pieces.remove(0))).await;
    let event = bed.to_sweep(Member::Cancel(run.info.clone())).await;
    assert_eq!(bed.one(stage(last)).await, Answer::Stale);
    assert_eq!(bed.one(finish(end)).await, Answer::Stale);
    bed.check().await;
    bed.sweep(&run.info, event, 3).await;
    assert_eq!(bed.number("SELECT cancelled FROM run").await, 1);
    assert_eq!(bed.states().await, "CANCELLED 1, CREATED 5");
    assert_eq!(bed.store.leftovers().await.unwrap().len(), 1);
    bed.check().await;
    assert_eq!(bed.one(unstage(&run, &run.root, 99)).await, Answer::Done);
    assert_eq!(bed.states().await, "CANCELLED 1");
    assert_eq!(bed.number("SELECT COUNT(*) FROM output").await, 0);
    bed.check().await;

    // A state that ended in pieces is cancelled like any other.
    let run = bed.start_of(FANOUT).await;
    let InPieces { pieces, end } = in_pieces(&bed, &run, &run.root, 10, 5).await;
    for piece in pieces {
        bed.one(stage(piece)).await;
    }
    bed.one(finish(end)).await;
    bed.claim(3).await;
    let event = bed.to_sweep(Member::Cancel(run.info.clone())).await;
    bed.sweep(&run.info, event, 4).await;
    assert_eq!(bed.states().await, "CANCELLED 12, SUCCESS 1");
    assert!(bed.claim(99).await.is_empty());
    bed.check().await;
}

async fn a_paused_run_parks_staged_states(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let InPieces { mut pieces, end } = in_pieces(&bed, &run, &run.root, 10, 5).await;
    let last = pieces.remove(1);
    bed.one(stage(pieces.remove(0))).await;
    let event = bed.to_sweep(pause(&run.info, true)).await;
    bed.sweep(&run.info, event, 3).await;
    bed.one(stage(last)).await;
    bed.check().await;
    let event = bed.to_sweep(finish(end)).await;
    assert!(bed.claim(99).await.is_empty());
    bed.check().await;
    bed.sweep(&run.info, event, 3).await;
    assert_eq!(bed.number("SELECT COUNT(*) FROM state WHERE parked = 1").await, 10);
    bed.check().await;
    let event = bed.to_sweep(pause(&run.info, false)).await;
    bed.sweep(&run.info, event, 3).await;
    let held = bed.claim(99).await;
    assert_eq!(held.len(), 10);
    drive(&bed, &run, held).await;
    assert_eq!(bed.text("SELECT status FROM run").await, "SUCCESS");
    bed.check().await;
}

/// Another state may have changed the store after the pieces were written.
async fn staged_children_read_the_final_store(kind: Kind) {
    let bed = Bed::new(kind).await;
    let sketch = Sketch::of("A > U B; U > X Y")
        .store(json!({"default_values": {"k": "first"}}))
        .input("X", "v", "${{ store.k }}");
    let template = bed.template(sketch).await;
    let mut new = bed.new_run(&template).await;
    new.store = BTreeMap::from([("k".to_owned(), "first".to_owned())]);
    let info = new.info.clone();
    let mut done = bed.done(vec![Member::Start(new.into())], Want::Births(1)).await;
    let run = Run { info, root: done.leased.remove(0).state };
    let fork = bed.outputs(&run.info, &run.root, 1).await;
    let both = bed.births(fork).await;
    let (wide, other) = (&both[0], &both[1]);
    let InPieces { pieces, end } = in_pieces(&bed, &run, wide, 4, 4).await;
    for piece in pieces {
        bed.one(stage(piece)).await;
    }
    let sets = bed.ends(&run.info, other, crate::harness::outputs(0), sets("k", "second")).await;
    bed.one(sets).await;
    assert_eq!(bed.one(finish(end)).await, Answer::Done);
    let done = bed.done(vec![], Want::Claims(99)).await;
    assert_eq!(done.leased.len(), 8);
    let node = |name: &str| {
        template.graph.nodes().find(|(_, it)| it.identifier.as_str() == name).unwrap().0
    };
    for leased in &done.leased {
        let fixed = leased.fixed.get("k").map(String::as_str);
        let is_x = leased.state.place.node == node("X");
        assert_eq!(fixed, is_x.then_some("second"), "{leased:?}");
    }
    let held = done.leased.into_iter().map(|leased| leased.state).collect();
    bed.check().await;
    drive(&bed, &run, held).await;
    bed.check().await;
}

async fn a_failed_staged_finish_leaves_a_leftover(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let few = Arc::new(Limits::default().with(Limit::RunStates, 11));
    let InPieces { mut pieces, mut end } = in_pieces(&bed, &run, &run.root, 10, 5).await;
    let mut refused = again(&pieces[0]);
    refused.limits = few.clone();
    let answer = bed.one(stage(refused)).await;
    assert!(matches!(&answer, Answer::Refused(why) if why.contains("run_states")), "{answer:?}");
    // The run has more states at the end than when the pieces were staged.
    for piece in pieces.drain(..) {
        bed.one(stage(piece)).await;
    }
    end.limits = few;
    assert_eq!(bed.one(finish(end)).await, Answer::Leftover(run.root.claim.fence));
    assert_eq!(bed.text("SELECT kind FROM state WHERE status = 'ERRORED'").await, "limit");
    assert_eq!(bed.store.leftovers().await.unwrap().len(), 1);
    bed.check().await;
    assert_eq!(bed.one(unstage(&run, &run.root, 99)).await, Answer::Done);
    assert_eq!(bed.states().await, "ERRORED 1");
    let run = bed.store.run(&run.info.namespace, run.info.id).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Failed);
    bed.check().await;
}

/// A namespace gets no larger share by staging more, and neither waits for the other.
async fn staged_children_are_claimed_round_robin(kind: Kind) {
    let bed = Bed::new(kind).await;
    let mut runs = Vec::new();
    for whose in ["a", "a", "b"] {
        let template = bed.template_of(whose, Sketch::of("U > X")).await;
        let run = bed.start(&template).await;
        let InPieces { pieces, end } = in_pieces(&bed, &run, &run.root, 40, 20).await;
        for piece in pieces {
            bed.one(stage(piece)).await;
        }
        bed.one(finish(end)).await;
        runs.push(run.info.key);
    }
    let held = bed.claim(40).await;
    let of = |run| held.iter().filter(|state| state.run == run).count();
    assert_eq!(runs.iter().map(|run| of(*run)).collect::<Vec<_>>(), [10, 10, 20]);
    assert_eq!(bed.claim(99).await.len(), 80, "all the rest");
    bed.check().await;
}
