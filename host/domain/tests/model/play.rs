//! Hosts at work on a run, and what befalls them and it, by lot: who claims and
//! begins what, which host is lost, when someone pauses, cancels, retries.
//!
//! Not here: what any of it is to bring about. Both sides are told alike, and
//! `duel` compares them.

use exosphere_domain::ids::SessionId;
use exosphere_domain::state::{Claim, RunStatus, Status};

use crate::duel::Duel;
use crate::fates::{Dice, Fate};
use crate::reference::{Loss, Refusal};

/// So many hosts work on a run.
const HOSTS: usize = 3;

/// No run needs as many steps. One that does hangs.
const MOST_STEPS: u32 = 200_000;

/// One more lost host than so many ends a state.
const MOST_LOSSES: u32 = 9;

/// What may befall a run beside the fates of its states.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// So many manual retries and redrives.
    pub retries: u32,
    /// So many hosts are lost by chance.
    pub losses: u32,
    /// So many pauses.
    pub pauses: u32,
    /// At so many steps in a hundred someone cancels.
    pub cancels: u32,
    /// Whether no host is lost as long as that would end a state which is not
    /// to blame.
    pub is_just: bool,
}

/// A claim as its host remembers it.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// The state.
    pub at: usize,
    /// What the engine knows it by.
    pub claim: Claim,
    /// What the reference knows it by.
    pub ticket: u64,
    /// Whether it is being executed.
    pub begun: bool,
}

/// The hosts, and what is left of earlier ones.
pub struct Hosts {
    up: Vec<Host>,
    /// Claims that are still believed in by hosts that were cut off, or told
    /// for a second time by hosts that had no answer.
    late: Vec<Hold>,
    /// Lost sessions of which something may be left to reclaim.
    lost: Vec<SessionId>,
    sessions: i64,
}

struct Host {
    session: SessionId,
    holds: Vec<Hold>,
}

impl Hosts {
    /// Hosts that hold nothing yet.
    pub fn begin() -> Self {
        let mut hosts = Hosts { up: Vec::new(), late: Vec::new(), lost: Vec::new(), sessions: 0 };
        hosts.up = (0..HOSTS).map(|_| hosts.start()).collect();
        hosts
    }

    fn start(&mut self) -> Host {
        self.sessions += 1;
        Host { session: SessionId(self.sessions), holds: Vec::new() }
    }

    /// The claims of all hosts, each with its host: those being executed, or
    /// those that wait for it.
    fn holds(&self, begun: bool) -> Vec<(usize, Hold)> {
        let of = |(at, host): (usize, &Host)| {
            host.holds.iter().map(move |&hold| (at, hold)).collect::<Vec<_>>()
        };
        let all = self.up.iter().enumerate().flat_map(of);
        all.filter(|(_, hold)| hold.begun == begun).collect()
    }

    fn forget(&mut self, hold: &Hold) {
        self.up.iter_mut().for_each(|host| host.holds.retain(|held| held.ticket != hold.ticket));
    }
}

/// What is done at a step.
#[derive(Debug, Clone, Copy)]
enum Work {
    Claim,
    Begin,
    Finish,
    Reclaim,
    Late,
}

impl Duel {
    /// Runs until nothing is left to do, in an order by lot, beset by trouble.
    pub fn play(&mut self, dice: &mut Dice, mut trouble: Trouble) {
        for _ in 0..MOST_STEPS {
            let goes_on = match self.engine.status {
                RunStatus::Cancelled => self.wind_up(dice),
                _ => self.step(dice, &mut trouble),
            };
            self.compare();
            if !goes_on {
                return;
            }
        }
        panic!("the run does not end");
    }

    fn step(&mut self, dice: &mut Dice, trouble: &mut Trouble) -> bool {
        if self.is_beset(dice, trouble) || self.work(dice, trouble.is_just) {
            return true;
        }
        // Nothing is left to do, unless someone makes work.
        if self.engine.paused && self.engine.status == RunStatus::Running {
            self.pause(false);
            return true;
        }
        if trouble.retries > 0 {
            trouble.retries -= 1;
            self.heal(dice);
            return true;
        }
        assert_eq!(self.cancel(), Err(Refusal::Over));
        self.meet_if(self.engine.paused, "runs that ended while paused");
        false
    }

    /// What befalls the run and its hosts at a step, if anything does.
    fn is_beset(&mut self, dice: &mut Dice, trouble: &mut Trouble) -> bool {
        if dice.percent(trouble.cancels) {
            self.cancel_all();
        } else if trouble.retries > 0 && dice.percent(4) {
            trouble.retries -= 1;
            self.heal(dice);
        } else if trouble.losses > 0 && dice.percent(8) {
            let holds = |&host: &usize| !self.hosts.up[host].holds.is_empty();
            let busy: Vec<_> = (0..HOSTS).filter(holds).collect();
            if busy.is_empty() {
                return false;
            }
            trouble.losses -= 1;
            let late = self.lose(dice.pick(&busy), trouble.is_just);
            self.hosts.late.extend(late.into_iter().filter(|_| dice.percent(70)));
        } else if self.engine.paused && dice.percent(8) {
            self.pause(false);
        } else if !self.engine.paused && trouble.pauses > 0 && dice.percent(6) {
            trouble.pauses -= 1;
            self.pause(true);
            self.meet("pauses");
        } else {
            return false;
        }
        true
    }

    /// One piece of work, if there is any.
    fn work(&mut self, dice: &mut Dice, is_just: bool) -> bool {
        let claimable = self.engine.claimable();
        let (held, begun) = (self.hosts.holds(false), self.hosts.holds(true));
        let kinds = [
            (Work::Claim, !claimable.is_empty()),
            (Work::Begin, !held.is_empty()),
            (Work::Finish, !begun.is_empty()),
            (Work::Reclaim, !self.hosts.lost.is_empty()),
            (Work::Late, !self.hosts.late.is_empty()),
        ];
        let kinds: Vec<_> = kinds.into_iter().filter(|kind| kind.1).map(|kind| kind.0).collect();
        if kinds.is_empty() {
            return false;
        }
        match dice.pick(&kinds) {
            Work::Claim => self.claim(claimable, dice),
            Work::Begin => self.begin_some(held, dice),
            Work::Finish => self.finish(begun, dice, is_just),
            Work::Reclaim => self.reclaim(dice),
            Work::Late => self.speak_late(dice),
        }
        true
    }

    /// A host claims some of what is to run.
    fn claim(&mut self, mut claimable: Vec<usize>, dice: &mut Dice) {
        dice.shuffle(&mut claimable);
        claimable.truncate(1 + dice.below(3));
        let host = &mut self.hosts.up[dice.below(HOSTS)];
        for at in claimable {
            let claim = self.engine.claim(at, host.session);
            let ticket = self.reference.claim(self.twins[at], host.session.0);
            host.holds.push(Hold { at, claim, ticket, begun: false });
        }
    }

    /// Hosts begin to execute some of what they hold.
    fn begin_some(&mut self, mut held: Vec<(usize, Hold)>, dice: &mut Dice) {
        dice.shuffle(&mut held);
        held.truncate(1 + dice.below(3));
        for (host, hold) in held {
            assert!(self.take_up(&hold), "a host that was not lost has lost its claim");
            let holds = self.hosts.up[host].holds.iter_mut();
            holds.filter(|held| held.ticket == hold.ticket).for_each(|held| held.begun = true);
        }
    }

    fn take_up(&mut self, hold: &Hold) -> bool {
        let holds = self.engine.take_up(hold.at, hold.claim);
        let ought = self.reference.take_up(self.twins[hold.at], hold.ticket);
        assert_eq!(holds, ought, "whether {} may be begun", self.engine.rows[hold.at].key);
        holds
    }

    /// Some executions come to something. If a host dies of one, that is all.
    fn finish(&mut self, mut begun: Vec<(usize, Hold)>, dice: &mut Dice, is_just: bool) {
        dice.shuffle(&mut begun);
        begun.truncate(if dice.percent(50) { 1 } else { 1 + dice.below(6) });
        let kills = |(_, hold): &&(usize, Hold)| self.fate(hold.at) == Fate::KillsHost;
        if let Some(&(host, hold)) = begun.iter().find(kills) {
            self.came[hold.at] += 1;
            self.lose(host, is_just);
            return;
        }
        let mut batch: Vec<_> = begun.into_iter().map(|(_, hold)| hold).collect();
        batch.iter().for_each(|hold| self.hosts.forget(hold));
        let again: Vec<_> = batch.iter().copied().filter(|_| dice.percent(10)).collect();
        if dice.percent(30) {
            batch.extend(self.late(dice));
            dice.shuffle(&mut batch);
        }
        self.commit(&batch);
        self.hosts.late.extend(again);
    }

    /// Someone speaks late, and nobody else with them. It may be early enough.
    fn speak_late(&mut self, dice: &mut Dice) {
        if let Some(hold) = self.late(dice) {
            let before = self.came[hold.at];
            self.commit(&[hold]);
            self.meet_if(self.came[hold.at] > before, "late outcomes taken");
        }
    }

    /// What a claim that may no longer hold has to say. One that was not begun
    /// is begun now, if it holds, and has something to say later.
    fn late(&mut self, dice: &mut Dice) -> Option<Hold> {
        if self.hosts.late.is_empty() {
            return None;
        }
        let at = dice.below(self.hosts.late.len());
        let hold = self.hosts.late.swap_remove(at);
        if hold.begun {
            return (self.fate(hold.at) != Fate::KillsHost).then_some(hold);
        }
        // Its loss would come too late for `spare`.
        if self.is_tried(&hold) {
            return None;
        }
        // A host that is to execute what is under no suspicion asks nobody.
        let may = self.take_up(&hold) || dice.percent(50);
        self.hosts.late.extend(may.then_some(Hold { begun: true, ..hold }));
        None
    }

    /// A host is lost, and another takes its place. Returns what it held.
    fn lose(&mut self, host: usize, is_just: bool) -> Vec<Hold> {
        if is_just {
            self.spare(host);
        }
        let new = self.hosts.start();
        let lost = std::mem::replace(&mut self.hosts.up[host], new);
        self.hosts.lost.push(lost.session);
        self.meet("hosts lost");
        lost.holds
    }

    /// Lets a host say at the last moment what came of the innocent that its
    /// loss would end.
    fn spare(&mut self, host: usize) {
        let is_spared = |hold: &&Hold| {
            hold.begun && self.is_tried(hold) && self.fate(hold.at) != Fate::KillsHost
        };
        let spared: Vec<_> = self.hosts.up[host].holds.iter().filter(is_spared).copied().collect();
        spared.iter().for_each(|hold| self.hosts.forget(hold));
        self.commit(&spared);
    }

    /// Whether another loss would end a state.
    fn is_tried(&self, hold: &Hold) -> bool {
        self.reference.execs[self.twins[hold.at]].losses >= MOST_LOSSES
    }

    /// What a lost host held is ended, a bounded part of it at a time.
    fn reclaim(&mut self, dice: &mut Dice) {
        let lost = dice.below(self.hosts.lost.len());
        let session = self.hosts.lost[lost];
        let most = 1 + dice.below(6);
        let ended = self.engine.reclaim(session, most);
        for &at in &ended {
            let what = match self.reference.lose(self.twins[at], session.0) {
                Loss::First => "states lost for the first time",
                Loss::Again => "suspects charged",
                Loss::Last => "states that lost too many hosts",
                Loss::LetOff => "suspects let off",
            };
            self.meet(what);
        }
        if ended.len() < most {
            self.hosts.lost.swap_remove(lost);
            assert_eq!(self.reference.held_by(session.0), 0, "a lost host still holds something");
        }
    }

    /// Retries by hand one state, mostly one that failed, now and then any; or
    /// all that failed.
    fn heal(&mut self, dice: &mut Dice) {
        let failed = |&at: &usize| self.engine.rows[at].status == Status::Errored;
        let failed: Vec<_> = (0..self.engine.rows.len()).filter(failed).collect();
        if dice.percent(if failed.is_empty() { 10 } else { 25 }) {
            let Ok((retried, too_late)) = self.redrive() else {
                return self.meet("redrives refused");
            };
            self.meet("redrives");
            self.meet_if(retried > 1, "redrives of several");
            return self.meet_if(too_late > 0, "redrives of a part");
        }
        let at = match failed.is_empty() || dice.percent(10) {
            true => dice.below(self.engine.rows.len()),
            false => dice.pick(&failed),
        };
        match self.retry(at) {
            Ok(()) => self.meet("retries"),
            Err(Refusal::WentOn) => self.meet("retries too late"),
            Err(_) => {}
        }
    }

    /// Someone cancels. From then on, all that hosts hold is late.
    fn cancel_all(&mut self) {
        if self.cancel().is_err() {
            return;
        }
        self.meet("cancels");
        for host in &mut self.hosts.up {
            self.hosts.late.append(&mut host.holds);
        }
    }

    /// A cancelled run: its states end, while hosts go on telling what nobody
    /// wants to know, and people ask for what is refused.
    fn wind_up(&mut self, dice: &mut Dice) -> bool {
        assert!(self.engine.claimable().is_empty(), "a cancelled run is claimed from");
        if self.swept && self.hosts.late.is_empty() && self.hosts.lost.is_empty() {
            self.refuse_all(dice);
            return false;
        }
        match dice.below(8) {
            0 => self.refuse_all(dice),
            1 if !self.hosts.lost.is_empty() => self.reclaim_nothing(),
            2..4 => self.speak_late(dice),
            4.. if !self.swept => {
                let most = 1 + dice.below(1 + self.engine.rows.len() / 3);
                self.swept = !self.engine.sweep(most);
                self.reference.sweep(most);
            }
            _ => {}
        }
        true
    }

    /// What lost hosts held is no longer theirs to lose.
    fn reclaim_nothing(&mut self) {
        for session in std::mem::take(&mut self.hosts.lost) {
            assert!(self.engine.reclaim(session, 6).is_empty(), "it is the sweep's");
        }
    }

    fn refuse_all(&mut self, dice: &mut Dice) {
        let at = dice.below(self.engine.rows.len());
        assert_eq!(self.retry(at), Err(Refusal::Cancelled));
        assert_eq!(self.redrive(), Err(Refusal::Cancelled));
        assert_eq!(self.cancel(), Err(Refusal::Over));
    }
}
