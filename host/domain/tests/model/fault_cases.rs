//! Fixed fault cases: lost hosts, poison states, cancels, pauses and redrives, each by itself.
//!
//! Not here: random faults (`simulation`).

use exosphere_domain::ids::SessionId;
use exosphere_domain::state::{Claim, RunStatus, Status};
use exosphere_domain::testing::SeededRng;

use crate::engine::{Engine, Refusal};
use crate::lockstep::{Lockstep, domain_graph};
use crate::outcomes::ScriptedOutcome;
use crate::reference;
use crate::shape::Graph;
use crate::simulation::FaultPlan;
use crate::unite_cases::{SPLIT, any_ends, finish, run, status};

const FIRST_SESSION: SessionId = SessionId(1);
const SECOND_SESSION: SessionId = SessionId(2);

/// Returns a run whose splitter has returned `branches` outputs.
fn split(branches: u32) -> Engine {
    let mut engine = Engine::new(domain_graph(&Graph::draw(SPLIT)).unwrap());
    let root = claim(&mut engine, "/", FIRST_SESSION);
    assert_eq!(engine.commit(&[(root.0, root.1, ScriptedOutcome::Outputs(branches))]), [true]);
    engine
}

fn index_of(engine: &Engine, key: &str) -> usize {
    engine.rows.iter().position(|row| row.key == key).expect("the state exists")
}

fn claim(engine: &mut Engine, key: &str, session: SessionId) -> (usize, Claim) {
    let at = index_of(engine, key);
    assert!(engine.claimable().contains(&at), "{key} may not be claimed");
    (at, engine.claim(at, session))
}

fn keys_of(engine: &Engine, status: Status) -> Vec<&str> {
    let rows = engine.rows.iter().filter(|row| row.status == status);
    rows.map(|row| row.key.as_str()).collect()
}

#[test]
fn a_reclaimed_state_rejects_its_old_owner() {
    let mut engine = split(2);
    let (at, old) = claim(&mut engine, "/0.0", FIRST_SESSION);
    assert_eq!(engine.reclaim(FIRST_SESSION, 10), [at]);
    assert_eq!(
        engine.commit(&[(at, old, ScriptedOutcome::Outputs(1))]),
        [false],
        "no host has claimed it"
    );
    let (_, new) = claim(&mut engine, "/0.0", SECOND_SESSION);
    assert!(!engine.record_begin(at, old));
    assert_eq!(
        engine.commit(&[(at, old, ScriptedOutcome::Prune)]),
        [false],
        "another host has claimed it"
    );
    assert_eq!(engine.rows[at].status, Status::Queued);
    assert_eq!(engine.commit(&[(at, new, ScriptedOutcome::Released)]), [true]);
    let (_, newest) = claim(&mut engine, "/0.0", SECOND_SESSION);
    assert_eq!(
        engine.commit(&[(at, new, ScriptedOutcome::Prune)]),
        [false],
        "the host has a newer claim"
    );
    let both = [(at, newest, ScriptedOutcome::Outputs(1)), (at, newest, ScriptedOutcome::Prune)];
    assert_eq!(engine.commit(&both), [true, false], "it has ended in the same transaction");
    assert_eq!(engine.rows[at].status, Status::Success);
}

#[test]
fn an_unbegun_suspect_is_not_charged() {
    let mut engine = split(2);
    for losses in 1..=9 {
        let (killer, held) = claim(&mut engine, "/0.0", SECOND_SESSION);
        let (bystander, _) = claim(&mut engine, "/1.0", SECOND_SESSION);
        assert!(engine.record_begin(killer, held));
        assert_eq!(engine.reclaim(SECOND_SESSION, 1), [killer], "one at a time");
        assert_eq!(engine.reclaim(SECOND_SESSION, 5), [bystander]);
        assert_eq!(engine.rows[killer].attempts.host_losses, losses);
        assert_eq!(engine.rows[bystander].attempts.host_losses, 1);
        assert_eq!(engine.rows[bystander].attempts.attempt, 1);
    }
    // The record of the begin ends with the claim.
    let (killer, held) = claim(&mut engine, "/0.0", SECOND_SESSION);
    assert_eq!(engine.reclaim(SECOND_SESSION, 5), [killer]);
    assert_eq!(engine.rows[killer].status, Status::Created);
    assert!(!engine.record_begin(killer, held));
    let (_, held) = claim(&mut engine, "/0.0", SECOND_SESSION);
    assert!(engine.record_begin(killer, held));
    assert_eq!(engine.reclaim(SECOND_SESSION, 5), [killer]);
    let failure = engine.rows[killer].failure.as_ref().unwrap();
    assert_eq!(failure.kind.as_str(), "host-lost");
}

#[test]
fn a_poison_state_fails_alone() {
    let outcomes = |node: &str, key: &str, before| match node {
        "splitter" => ScriptedOutcome::Outputs(8),
        _ if key == "/5.0" && before < 12 => ScriptedOutcome::KillsHost,
        _ => ScriptedOutcome::Outputs(1),
    };
    let mut lockstep = Lockstep::new(&Graph::draw(SPLIT), Box::new(outcomes));
    lockstep.simulate(
        &mut SeededRng::new(3),
        FaultPlan { protects_innocent: true, ..FaultPlan::default() },
    );
    lockstep.compare_end();
    assert_eq!(keys_of(&lockstep.engine, Status::Errored), ["/u2", "/5.0"]);
    assert_eq!(lockstep.events["hosts lost"], 10);
    assert_eq!(lockstep.redrive(), Ok((1, 0)));
    finish(&mut lockstep);
    assert_eq!(lockstep.events["hosts lost"], 12);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
}

#[test]
fn cancel_sweeps_states_in_path_order() {
    let mut engine = split(4);
    let (ended, held) = claim(&mut engine, "/1.0", FIRST_SESSION);
    engine.commit(&[(ended, held, ScriptedOutcome::Outputs(1))]);
    let (late, old) = claim(&mut engine, "/2.0", FIRST_SESSION);
    assert_eq!(engine.cancel(), Ok(()));
    assert_eq!(engine.cancel(), Err(Refusal::Ended));
    assert!(engine.claimable().is_empty());
    assert!(engine.sweep(3), "the root, which has ended, and two more");
    assert_eq!(keys_of(&engine, Status::Cancelled), ["/0.0"]);
    assert_eq!(engine.commit(&[(late, old, ScriptedOutcome::Outputs(1))]), [false]);
    assert!(engine.reclaim(FIRST_SESSION, 5).is_empty());
    assert!(engine.sweep(2));
    assert_eq!(keys_of(&engine, Status::Cancelled), ["/0.0", "/2.0", "/3.0"]);
    assert_eq!(keys_of(&engine, Status::Waiting), ["/u2"], "a unite comes last");
    assert!(!engine.sweep(2));
    assert_eq!(keys_of(&engine, Status::Cancelled), ["/u2", "/0.0", "/2.0", "/3.0"]);
    assert_eq!(keys_of(&engine, Status::Success), ["/", "/1.0"]);
    assert_eq!((engine.status, engine.run.open), (RunStatus::Cancelled, 0));
    assert_eq!(engine.retry(ended), Err(Refusal::Cancelled));
    assert_eq!(engine.redrive(), Err(Refusal::Cancelled));
}

#[test]
fn a_paused_run_only_finishes_running_states() {
    let mut engine = Engine::new(domain_graph(&Graph::draw("a > b")).unwrap());
    let (first, held) = claim(&mut engine, "/", FIRST_SESSION);
    engine.paused = true;
    assert_eq!(engine.commit(&[(first, held, ScriptedOutcome::Outputs(1))]), [true]);
    assert_eq!(keys_of(&engine, Status::Created), ["/0.0"]);
    assert!(engine.claimable().is_empty());
    assert_eq!(engine.status, RunStatus::Running);
    engine.paused = false;
    let (last, held) = claim(&mut engine, "/0.0", FIRST_SESSION);
    engine.paused = true;
    assert_eq!(engine.commit(&[(last, held, ScriptedOutcome::Outputs(1))]), [true]);
    assert_eq!(engine.status, RunStatus::Success, "no open state is left to claim");
}

#[test]
fn redrive_retries_every_failed_state() {
    let mut lockstep = run(&Graph::draw(SPLIT), |node, key, before| match node {
        "splitter" => Some(ScriptedOutcome::Outputs(4)),
        _ => (["/1.0", "/2.0"].contains(&key) && before == 0)
            .then_some(ScriptedOutcome::Fail("permanent")),
    });
    assert_eq!(lockstep.engine.status, RunStatus::Failed);
    assert_eq!(lockstep.redrive(), Ok((2, 0)));
    assert_eq!(lockstep.engine.status, RunStatus::Running);
    assert_eq!(status(&lockstep, "merger"), Status::Waiting);
    finish(&mut lockstep);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
}

#[test]
fn redrive_skips_failures_a_unite_accepted() {
    // W accepted the failure of X; no unite accepted that of S.
    let graph = any_ends(Graph::draw("U > X S; X > W; S; W(U)"), "W");
    let mut lockstep = run(&graph, |node, _, before| {
        (["X", "S"].contains(&node) && before == 0).then_some(ScriptedOutcome::Fail("permanent"))
    });
    assert_eq!(lockstep.engine.status, RunStatus::Failed);
    assert_eq!(lockstep.redrive(), Ok((1, 1)));
    finish(&mut lockstep);
    assert_eq!(lockstep.engine.status, RunStatus::Success);
    assert_eq!(status(&lockstep, "X"), Status::Errored);
    assert_eq!(lockstep.redrive(), Err(reference::Refusal::Nothing));
    assert_eq!(lockstep.engine.status, RunStatus::Success);
}
