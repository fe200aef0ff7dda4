//! Fixed cases of trouble with runs and hosts: each kind by itself.
//!
//! Not here: chance, but for the order in which a run is played.

use exosphere_domain::ids::SessionId;
use exosphere_domain::state::{Claim, RunStatus, Status};

use crate::engine::{Engine, Refusal};
use crate::lockstep::{Duel, real};
use crate::outcomes::{Dice, Fate};
use crate::reference;
use crate::shape::Graph;
use crate::simulation::Trouble;
use crate::unite_cases::{SPLIT, any_ends, finish, run, status};

const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

/// Returns a run whose splitter has returned `branches` outputs.
fn split(branches: u32) -> Engine {
    let mut engine = Engine::begin(real(&Graph::draw(SPLIT)).unwrap());
    let root = claim(&mut engine, "/", FIRST);
    assert_eq!(engine.commit(&[(root.0, root.1, Fate::Outputs(branches))]), [true]);
    engine
}

fn at(engine: &Engine, key: &str) -> usize {
    engine.rows.iter().position(|row| row.key == key).expect("it is there")
}

fn claim(engine: &mut Engine, key: &str, session: SessionId) -> (usize, Claim) {
    let at = at(engine, key);
    assert!(engine.claimable().contains(&at), "{key} may not be claimed");
    (at, engine.claim(at, session))
}

fn all(engine: &Engine, status: Status) -> Vec<&str> {
    let rows = engine.rows.iter().filter(|row| row.status == status);
    rows.map(|row| row.key.as_str()).collect()
}

#[test]
fn a_reclaimed_state_rejects_its_old_owner() {
    let mut engine = split(2);
    let (at, old) = claim(&mut engine, "/0.0", FIRST);
    assert_eq!(engine.reclaim(FIRST, 10), [at]);
    assert_eq!(engine.commit(&[(at, old, Fate::Outputs(1))]), [false], "nobody holds it");
    let (_, new) = claim(&mut engine, "/0.0", SECOND);
    assert!(!engine.take_up(at, old));
    assert_eq!(engine.commit(&[(at, old, Fate::Prune)]), [false], "another host holds it");
    assert_eq!(engine.rows[at].status, Status::Queued);
    assert_eq!(engine.commit(&[(at, new, Fate::Released)]), [true]);
    let (_, newest) = claim(&mut engine, "/0.0", SECOND);
    assert_eq!(engine.commit(&[(at, new, Fate::Prune)]), [false], "it holds it by another claim");
    let both = [(at, newest, Fate::Outputs(1)), (at, newest, Fate::Prune)];
    assert_eq!(engine.commit(&both), [true, false], "it has ended in this very transaction");
    assert_eq!(engine.rows[at].status, Status::Success);
}

#[test]
fn an_unbegun_suspect_is_not_charged() {
    let mut engine = split(2);
    for losses in 1..=9 {
        let (killer, its) = claim(&mut engine, "/0.0", SECOND);
        let (beside, _) = claim(&mut engine, "/1.0", SECOND);
        assert!(engine.take_up(killer, its));
        assert_eq!(engine.reclaim(SECOND, 1), [killer], "one at a time");
        assert_eq!(engine.reclaim(SECOND, 5), [beside]);
        assert_eq!(engine.rows[killer].tries.losses, losses);
        assert_eq!(engine.rows[beside].tries.losses, 1);
        assert_eq!(engine.rows[beside].tries.attempt, 1);
    }
    // The note of the begin is forgotten with the claim.
    let (killer, its) = claim(&mut engine, "/0.0", SECOND);
    assert_eq!(engine.reclaim(SECOND, 5), [killer]);
    assert_eq!(engine.rows[killer].status, Status::Created);
    assert!(!engine.take_up(killer, its));
    let (_, its) = claim(&mut engine, "/0.0", SECOND);
    assert!(engine.take_up(killer, its));
    assert_eq!(engine.reclaim(SECOND, 5), [killer]);
    let failure = engine.rows[killer].failure.as_ref().unwrap();
    assert_eq!(failure.kind.as_str(), "host-lost");
}

#[test]
fn a_poison_state_fails_alone() {
    let fates = |node: &str, key: &str, before| match node {
        "splitter" => Fate::Outputs(8),
        _ if key == "/5.0" && before < 12 => Fate::KillsHost,
        _ => Fate::Outputs(1),
    };
    let mut duel = Duel::begin(&Graph::draw(SPLIT), Box::new(fates));
    duel.play(&mut Dice::new(3), Trouble { is_just: true, ..Trouble::default() });
    duel.compare_end();
    assert_eq!(all(&duel.engine, Status::Errored), ["/u2", "/5.0"]);
    assert_eq!(duel.met["hosts lost"], 10);
    assert_eq!(duel.redrive(), Ok((1, 0)));
    finish(&mut duel);
    assert_eq!(duel.met["hosts lost"], 12);
    assert_eq!(duel.engine.status, RunStatus::Success);
}

#[test]
fn cancel_sweeps_states_in_path_order() {
    let mut engine = split(4);
    let (ended, its) = claim(&mut engine, "/1.0", FIRST);
    engine.commit(&[(ended, its, Fate::Outputs(1))]);
    let (late, old) = claim(&mut engine, "/2.0", FIRST);
    assert_eq!(engine.cancel(), Ok(()));
    assert_eq!(engine.cancel(), Err(Refusal::Over));
    assert!(engine.claimable().is_empty());
    assert!(engine.sweep(3), "the root, which has ended, and two more");
    assert_eq!(all(&engine, Status::Cancelled), ["/0.0"]);
    assert_eq!(engine.commit(&[(late, old, Fate::Outputs(1))]), [false]);
    assert!(engine.reclaim(FIRST, 5).is_empty());
    assert!(engine.sweep(2));
    assert_eq!(all(&engine, Status::Cancelled), ["/0.0", "/2.0", "/3.0"]);
    assert_eq!(all(&engine, Status::Waiting), ["/u2"], "a unite comes last");
    assert!(!engine.sweep(2));
    assert_eq!(all(&engine, Status::Cancelled), ["/u2", "/0.0", "/2.0", "/3.0"]);
    assert_eq!(all(&engine, Status::Success), ["/", "/1.0"]);
    assert_eq!((engine.status, engine.run.open), (RunStatus::Cancelled, 0));
    assert_eq!(engine.retry(ended), Err(Refusal::Cancelled));
    assert_eq!(engine.redrive(), Err(Refusal::Cancelled));
}

#[test]
fn a_paused_run_only_finishes_running_states() {
    let mut engine = Engine::begin(real(&Graph::draw("a > b")).unwrap());
    let (first, its) = claim(&mut engine, "/", FIRST);
    engine.paused = true;
    assert_eq!(engine.commit(&[(first, its, Fate::Outputs(1))]), [true]);
    assert_eq!(all(&engine, Status::Created), ["/0.0"]);
    assert!(engine.claimable().is_empty());
    assert_eq!(engine.status, RunStatus::Running);
    engine.paused = false;
    let (last, its) = claim(&mut engine, "/0.0", FIRST);
    engine.paused = true;
    assert_eq!(engine.commit(&[(last, its, Fate::Outputs(1))]), [true]);
    assert_eq!(engine.status, RunStatus::Success, "nothing is open that could be claimed");
}

#[test]
fn redrive_retries_every_failed_state() {
    let mut duel = run(&Graph::draw(SPLIT), |node, key, before| match node {
        "splitter" => Some(Fate::Outputs(4)),
        _ => (["/1.0", "/2.0"].contains(&key) && before == 0).then_some(Fate::Fail("permanent")),
    });
    assert_eq!(duel.engine.status, RunStatus::Failed);
    assert_eq!(duel.redrive(), Ok((2, 0)));
    assert_eq!(duel.engine.status, RunStatus::Running);
    assert_eq!(status(&duel, "merger"), Status::Waiting);
    finish(&mut duel);
    assert_eq!(duel.engine.status, RunStatus::Success);
}

#[test]
fn redrive_skips_failures_a_unite_accepted() {
    // X of W is made up for, and S beside it is not.
    let graph = any_ends(Graph::draw("U > X S; X > W; S; W(U)"), "W");
    let mut duel = run(&graph, |node, _, before| {
        (["X", "S"].contains(&node) && before == 0).then_some(Fate::Fail("permanent"))
    });
    assert_eq!(duel.engine.status, RunStatus::Failed);
    assert_eq!(duel.redrive(), Ok((1, 1)));
    finish(&mut duel);
    assert_eq!(duel.engine.status, RunStatus::Success);
    assert_eq!(status(&duel, "X"), Status::Errored);
    assert_eq!(duel.redrive(), Err(reference::Refusal::Nothing));
    assert_eq!(duel.engine.status, RunStatus::Success);
}
