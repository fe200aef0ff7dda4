//! Pause, resume and cancel, and the sweeps after them.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::state::RunStatus;
use exosphere_store::{Answer, Member, Unswept, Want};
use serde_json::json;

use crate::harness::{Bed, Run, fails, outputs, pause, sets, sweep};
use crate::test_database::Kind;

on_both! {
    states_of_paused_runs_are_not_claimed,
    rescheduled_states_of_paused_runs_are_parked,
    a_unite_opened_while_paused_is_parked,
    sweeps_are_bounded_and_resume,
    sweeps_of_older_events_are_stale,
    a_finished_run_cannot_be_paused,
    a_cancelled_run_rejects_late_outcomes,
    a_cancel_interrupts_a_pause_sweep,
    a_cancelled_run_clears_its_store,
}

const FANOUT: &str = "U > X; X > W; W(U)";

/// Starts a run whose first state has `count` outputs; none of its states is claimed.
async fn fanned(bed: &Bed, count: usize) -> Run {
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, count).await;
    assert_eq!(bed.one(fan).await, Answer::Done);
    run
}

fn unswept(run: &Run, event: i64) -> Unswept {
    Unswept { run: run.info.key, event, redrive: 0 }
}

async fn parked(bed: &Bed) -> i64 {
    bed.number("SELECT COUNT(*) FROM state WHERE parked = 1").await
}

async fn states_of_paused_runs_are_not_claimed(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = fanned(&bed, 3).await;
    let other = bed.start_of("A").await;
    let released = bed.plainly(&other.info, &other.root, Outcome::Released).await;
    bed.one(released).await;
    let paused = bed.done(vec![pause(&run.info, true)], Want::Claims(9)).await;
    assert_eq!(paused.leased.len(), 1, "of the other run");
    let touched = paused.touched[0];
    assert!(touched.paused && touched.turned && touched.status == RunStatus::Running);
    // Neither before its sweep nor after.
    assert!(bed.claim(9).await.is_empty());
    let Answer::ToSweep(event) = paused.answers[0] else { panic!("{:?}", paused.answers) };
    assert_eq!(bed.store.unswept().await.unwrap(), [unswept(&run, event)]);
    bed.sweep(&run.info, event, 100).await;
    assert_eq!(bed.store.unswept().await.unwrap(), []);
    assert_eq!(parked(&bed).await, 3);
    let done = bed.done(vec![], Want::Claims(9)).await;
    assert!(done.leased.is_empty() && done.next_due.is_none());
    assert_eq!(bed.one(pause(&run.info, true)).await, Answer::Done, "it is already");
    bed.check().await;

    // The run goes on bit by bit: a swept state may be claimed.
    let event = bed.to_sweep(pause(&run.info, false)).await;
    assert!(bed.claim(9).await.is_empty(), "all is parked still");
    let done = bed.done(vec![sweep(&run.info, event, "", 2)], Want::Births(9)).await;
    assert!(matches!(&done.answers[0], Answer::More(_)) && done.more);
    assert_eq!(bed.claim(9).await.len(), 1, "the root, and one child");
    bed.sweep(&run.info, event, 100).await;
    assert_eq!(bed.claim(9).await.len(), 2);
    assert_eq!(parked(&bed).await, 0);
    assert_eq!(bed.one(pause(&run.info, false)).await, Answer::Done, "it is already");
    bed.check().await;
}

async fn rescheduled_states_of_paused_runs_are_parked(kind: Kind) {
    let bed = Bed::new(kind).await;
    let sketch = Sketch::of(FANOUT)
        .with("X", |node| node["retry_policy"] = json!({"max_retries": 1, "backoff_factor": 0}));
    let template = bed.template(sketch).await;
    let run = bed.start(&template).await;
    let (info, root) = (&run.info, &run.root);
    let event = bed.to_sweep(pause(info, true)).await;
    bed.sweep(info, event, 100).await;
    // Executing states may end, and have effects; their children are created, and wait.
    let fan = bed.ends(info, root, outputs(5), sets("k", "v")).await;
    let done = bed.done(vec![fan], Want::Births(9)).await;
    assert_eq!((done.answers, done.leased.len(), done.more), (vec![Answer::Done], 0, false));
    assert_eq!(parked(&bed).await, 5);
    bed.check().await;

    let event = bed.to_sweep(pause(info, false)).await;
    bed.sweep(info, event, 100).await;
    let held = bed.claim(5).await;
    assert_eq!(held.len(), 5);
    let event = bed.to_sweep(pause(info, true)).await;
    let agains = [
        Outcome::Released,
        Outcome::HostLost,
        Outcome::RequeueAfter(1),
        fails(FailureKind::Retryable),
        Outcome::Conflict,
    ];
    for (state, outcome) in held.iter().zip(agains) {
        let member = bed.ends(info, state, outcome, Journal::default()).await;
        let done = bed.done(vec![member], Want::Births(9)).await;
        assert_eq!((done.answers, done.more), (vec![Answer::Done], false));
    }
    assert_eq!(parked(&bed).await, 5, "before the sweep");
    bed.sweep(info, event, 100).await;
    assert_eq!(parked(&bed).await, 5, "and after it");
    bed.pass(1).await;
    assert!(bed.claim(9).await.is_empty());
    bed.check().await;
    let event = bed.to_sweep(pause(info, false)).await;
    bed.sweep(info, event, 2).await;
    assert_eq!(bed.claim(9).await.len(), 5);
    bed.check().await;
}

async fn a_unite_opened_while_paused_is_parked(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.outputs(&run.info, &run.root, 1).await;
    let child = bed.births(fan).await.remove(0);
    let event = bed.to_sweep(pause(&run.info, true)).await;
    bed.sweep(&run.info, event, 9).await;
    let end = bed.outputs(&run.info, &child, 1).await;
    let done = bed.done(vec![end], Want::Births(9)).await;
    assert!(done.leased.is_empty() && !done.more);
    assert_eq!(bed.states().await, "CREATED 1, SUCCESS 2");
    assert_eq!(parked(&bed).await, 1);
    let event = bed.to_sweep(pause(&run.info, false)).await;
    bed.sweep(&run.info, event, 9).await;
    assert_eq!(bed.claim(9).await.len(), 1);
    bed.check().await;
}

async fn sweeps_are_bounded_and_resume(kind: Kind) {
    let bed = Bed::new(kind).await;
    // The root, a unite, and 98 children.
    let run = fanned(&bed, 98).await;
    let event = bed.to_sweep(pause(&run.info, true)).await;
    let mut from = String::new();
    for step in 1..=10 {
        match bed.one(sweep(&run.info, event, &from, 10)).await {
            Answer::More(next) => from = next,
            other => panic!("{step}: {other:?}"),
        }
        // Paths: the root, its children, its unite.
        assert_eq!(parked(&bed).await, (step * 10 - 1).min(98));
    }
    assert_eq!(bed.one(sweep(&run.info, event, &from, 10)).await, Answer::Done);
    assert_eq!(bed.number("SELECT unswept FROM run").await, 0);
    assert_eq!(bed.one(sweep(&run.info, event, "", 10)).await, Answer::Stale);
    // A sweep whose host dies halfway is begun again by the host that finds it, without harm.
    let event = bed.to_sweep(Member::Cancel(run.info.clone())).await;
    for _ in 0..3 {
        bed.one(sweep(&run.info, event, "", 40)).await;
    }
    assert_eq!(bed.number("SELECT cancelled FROM run").await, 39);
    assert_eq!(bed.sweep(&run.info, event, 30).await, 4);
    assert_eq!(bed.number("SELECT cancelled FROM run").await, 99);
    bed.check().await;
}

async fn sweeps_of_older_events_are_stale(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = fanned(&bed, 4).await;
    let first = bed.to_sweep(pause(&run.info, true)).await;
    assert!(matches!(bed.one(sweep(&run.info, first, "", 3)).await, Answer::More(_)));
    let second = bed.to_sweep(pause(&run.info, false)).await;
    assert_eq!(bed.one(sweep(&run.info, first, "", 3)).await, Answer::Stale);
    let third = bed.to_sweep(pause(&run.info, true)).await;
    assert!(first < second && second < third);
    for stale in [first, second] {
        assert_eq!(bed.one(sweep(&run.info, stale, "", 100)).await, Answer::Stale);
    }
    assert_eq!(bed.store.unswept().await.unwrap(), [unswept(&run, third)]);
    assert_eq!(parked(&bed).await, 2, "by the one that was not stale");
    bed.sweep(&run.info, third, 3).await;
    assert_eq!(parked(&bed).await, 4);
    assert!(bed.claim(9).await.is_empty());
    bed.check().await;
}

async fn a_finished_run_cannot_be_paused(kind: Kind) {
    let bed = Bed::new(kind).await;
    let over = bed.start_of("A").await;
    let end = bed.outputs(&over.info, &over.root, 1).await;
    bed.one(end).await;
    let members = |run: &Run| {
        [pause(&run.info, true), pause(&run.info, false), Member::Cancel(run.info.clone())]
    };
    for member in members(&over) {
        let answer = bed.one(member).await;
        assert!(matches!(&answer, Answer::Refused(why) if why.contains("SUCCESS")), "{answer:?}");
    }
    // A state that failed while the run was paused may go on, before it is retried.
    let failed = bed.start_of("A").await;
    let event = bed.to_sweep(pause(&failed.info, true)).await;
    bed.sweep(&failed.info, event, 9).await;
    let end = bed.plainly(&failed.info, &failed.root, fails(FailureKind::Permanent)).await;
    bed.one(end).await;
    assert!(matches!(bed.one(pause(&failed.info, true)).await, Answer::Refused(_)));
    let event = bed.to_sweep(pause(&failed.info, false)).await;
    bed.sweep(&failed.info, event, 9).await;
    let retry = Member::Retry { run: failed.info.clone(), state: failed.root.id };
    assert_eq!(bed.one(retry).await, Answer::Done);
    assert_eq!(bed.claim(9).await.len(), 1);
    bed.check().await;
}

async fn a_cancelled_run_rejects_late_outcomes(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = fanned(&bed, 4).await;
    let held = bed.claim(2).await;
    let cancel = Member::Cancel(run.info.clone());
    // An outcome in the same batch comes before the cancel; one after it is too late.
    let first = bed.outputs(&run.info, &held[0], 1).await;
    let done = bed.done(vec![cancel, first], Want::Claims(9)).await;
    let [Answer::ToSweep(event), Answer::Done] = done.answers[..] else {
        panic!("{:?}", done.answers)
    };
    assert_eq!((done.touched[0].status, done.touched[0].turned), (RunStatus::Cancelled, true));
    assert!(done.leased.is_empty(), "nothing of it is claimed");
    let late = bed.ends(&run.info, &held[1], outputs(1), sets("k", "v")).await;
    assert_eq!(bed.one(late).await, Answer::Stale);
    let lost = bed.plainly(&run.info, &held[1], Outcome::HostLost).await;
    assert_eq!(bed.one(lost).await, Answer::Stale);
    bed.check().await;
    bed.sweep(&run.info, event, 2).await;
    assert_eq!(bed.states().await, "CANCELLED 4, SUCCESS 2");
    let row = bed.place.rows("SELECT status, open, states, succeeded, cancelled, unswept FROM run");
    let row: Vec<_> = row.await.remove(0).into_iter().flatten().collect();
    assert_eq!(row, ["CANCELLED", "0", "6", "2", "4", "0"]);
    for member in [
        Member::Cancel(run.info.clone()),
        bed.redrive(&run.info).await,
        Member::Retry { run: run.info.clone(), state: held[1].id },
        pause(&run.info, true),
    ] {
        let answer = bed.one(member).await;
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    }
    bed.check().await;
}

async fn a_cancel_interrupts_a_pause_sweep(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = fanned(&bed, 8).await;
    let paused = bed.to_sweep(pause(&run.info, true)).await;
    let Answer::More(from) = bed.one(sweep(&run.info, paused, "", 4)).await else { panic!() };
    let cancelled = bed.to_sweep(Member::Cancel(run.info.clone())).await;
    assert_eq!(bed.one(sweep(&run.info, paused, &from, 4)).await, Answer::Stale);
    bed.sweep(&run.info, cancelled, 4).await;
    assert_eq!(bed.states().await, "CANCELLED 9, SUCCESS 1");
    bed.check().await;
    // Both in one batch are one event; only the run's last status counts.
    let other = fanned(&bed, 8).await;
    let members = vec![pause(&other.info, true), Member::Cancel(other.info.clone())];
    let done = bed.done(members, Want::Births(0)).await;
    let [Answer::ToSweep(first), Answer::ToSweep(second)] = done.answers[..] else { panic!() };
    assert_eq!(first, second);
    bed.sweep(&other.info, first, 4).await;
    assert_eq!(bed.states().await, "CANCELLED 18, SUCCESS 2");
    bed.check().await;
}

async fn a_cancelled_run_clears_its_store(kind: Kind) {
    let bed = Bed::new(kind).await;
    let run = bed.start_of(FANOUT).await;
    let fan = bed.ends(&run.info, &run.root, outputs(2), sets("k", "v")).await;
    bed.one(fan).await;
    assert_eq!(bed.number("SELECT COUNT(*) FROM entry").await, 1);
    let event = bed.to_sweep(Member::Cancel(run.info.clone())).await;
    assert_eq!(bed.number("SELECT COUNT(*) FROM entry").await, 0);
    bed.sweep(&run.info, event, 9).await;
    bed.check().await;
}
