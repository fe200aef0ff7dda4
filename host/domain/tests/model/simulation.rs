//! Random play: hosts that claim and begin states or are lost, and users that pause, cancel and
//! retry.
//!
//! Not here: the expected effects. Engine and reference receive the same calls, and `duel` compares
//! them.

use exosphere_domain::ids::SessionId;
use exosphere_domain::state::{Claim, RunStatus, Status};

use crate::lockstep::Duel;
use crate::outcomes::{Dice, Fate};
use crate::reference::{Loss, Refusal};

/// Hosts that work on a run.
const HOSTS: usize = 3;

/// Maximum of steps. No run needs as many; one that does hangs.
const MOST_STEPS: u32 = 200_000;

/// Losses that a state survives; one more ends it.
const MOST_LOSSES: u32 = 9;

/// The troubles of a run, beside the fates of its states.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Maximum of manual retries and redrives.
    pub retries: u32,
    /// Maximum of hosts lost at random.
    pub losses: u32,
    /// Maximum of pauses.
    pub pauses: u32,
    /// Percentage of steps at which the run is cancelled.
    pub cancels: u32,
    /// True if no host may be lost when its loss would end a state that is not to blame.
    pub is_just: bool,
}

/// A claim, as its host remembers it.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// The state's index.
    pub at: usize,
    /// The claim, as the engine knows it.
    pub claim: Claim,
    /// The ticket, as the reference knows it.
    pub ticket: u64,
    /// True if the state is being executed.
    pub begun: bool,
}

/// The hosts, and the claims and sessions of earlier hosts.
pub struct Hosts {
    up: Vec<Host>,
    /// Late claims: a cut-off host still believes in them, or a host without an answer repeats
    /// them.
    late: Vec<Hold>,
    /// Lost sessions that may have states to reclaim.
    lost: Vec<SessionId>,
    sessions: i64,
}

struct Host {
    session: SessionId,
    holds: Vec<Hold>,
}

impl Hosts {
    /// Creates hosts without claims.
    pub fn begin() -> Self {
        let mut hosts = Hosts { up: Vec::new(), late: Vec::new(), lost: Vec::new(), sessions: 0 };
        hosts.up = (0..HOSTS).map(|_| hosts.start()).collect();
        hosts
    }

    fn start(&mut self) -> Host {
        self.sessions += 1;
        Host { session: SessionId(self.sessions), holds: Vec::new() }
    }

    /// Returns the claims of all hosts, each with its host: the begun ones or the waiting ones.
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

/// A kind of work done at a step.
#[derive(Debug, Clone, Copy)]
enum Work {
    Claim,
    Begin,
    Finish,
    Reclaim,
    Late,
}

impl Duel {
    /// Plays the run in random order, with troubles, until nothing is left to do.
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
        // Nothing is left to do until a user acts.
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

    /// Lets a trouble befall the run or its hosts, perhaps. Returns whether one did.
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

    /// Does one piece of work, if there is any. Returns whether there was.
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

    /// Lets a host claim some of the due states.
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

    /// Lets hosts begin some of their claimed states.
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

    /// Ends some executions. If one of them kills its host, only that happens.
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

    /// Commits a late claim, alone in its batch. It may still hold.
    fn speak_late(&mut self, dice: &mut Dice) {
        if let Some(hold) = self.late(dice) {
            let before = self.came[hold.at];
            self.commit(&[hold]);
            self.meet_if(self.came[hold.at] > before, "late outcomes taken");
        }
    }

    /// Takes a late claim, which may no longer hold, and returns it if its execution ends now. A
    /// claim that was not begun is begun now if it holds, and ends later.
    fn late(&mut self, dice: &mut Dice) -> Option<Hold> {
        if self.hosts.late.is_empty() {
            return None;
        }
        let at = dice.below(self.hosts.late.len());
        let hold = self.hosts.late.swap_remove(at);
        if hold.begun {
            return (self.fate(hold.at) != Fate::KillsHost).then_some(hold);
        }
        // Losing its host would come too late for `spare`.
        if self.is_tried(&hold) {
            return None;
        }
        // A host does not ask before it executes a state that is not a suspect.
        let may = self.take_up(&hold) || dice.percent(50);
        self.hosts.late.extend(may.then_some(Hold { begun: true, ..hold }));
        None
    }

    /// Loses a host and replaces it. Returns the claims that it had.
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

    /// Lets a host commit, just before its loss, the innocent executions that the loss would end.
    fn spare(&mut self, host: usize) {
        let is_spared = |hold: &&Hold| {
            hold.begun && self.is_tried(hold) && self.fate(hold.at) != Fate::KillsHost
        };
        let spared: Vec<_> = self.hosts.up[host].holds.iter().filter(is_spared).copied().collect();
        spared.iter().for_each(|hold| self.hosts.forget(hold));
        self.commit(&spared);
    }

    /// Returns whether another loss would end a state.
    fn is_tried(&self, hold: &Hold) -> bool {
        self.reference.execs[self.twins[hold.at]].losses >= MOST_LOSSES
    }

    /// Reclaims the states of a lost host, a bounded number at a time.
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

    /// Retries one state manually, mostly a failed one, now and then any; or redrives the run.
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

    /// Cancels the run. From then on, all claims of hosts are late.
    fn cancel_all(&mut self) {
        if self.cancel().is_err() {
            return;
        }
        self.meet("cancels");
        for host in &mut self.hosts.up {
            self.hosts.late.append(&mut host.holds);
        }
    }

    /// Winds up a cancelled run: its states end, hosts go on to commit late outcomes, and users
    /// make requests that are refused.
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

    /// Checks that the states of lost hosts were left to the sweep.
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
