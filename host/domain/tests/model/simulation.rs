//! A randomized simulation: hosts that claim and begin states or are lost, and users that pause,
//! cancel and retry.
//!
//! Not here: the expected effects. Engine and reference receive the same calls, and `lockstep`
//! compares them.

use exosphere_domain::ids::SessionId;
use exosphere_domain::state::{Claim, RunStatus, Status};
use exosphere_domain::testing::SeededRng;

use crate::lockstep::Lockstep;
use crate::outcomes::ScriptedOutcome;
use crate::reference::{Loss, Refusal};

/// Number of hosts that work on a run.
const HOSTS: usize = 3;

/// Maximum number of steps of a run; a run with more hangs.
const MAX_STEPS: u32 = 200_000;

/// Number of losses that a state survives; one more ends it.
const MAX_LOSSES: u32 = 9;

/// The faults of a run, beside the outcomes of its states.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultPlan {
    /// Maximum number of manual retries and redrives.
    pub retries: u32,
    /// Maximum number of hosts lost at random.
    pub losses: u32,
    /// Maximum number of pauses.
    pub pauses: u32,
    /// Percentage of steps at which the run is cancelled.
    pub cancels: u32,
    /// True if no host loss may end an innocent state.
    pub protects_innocent: bool,
}

/// A claim, as its host remembers it.
#[derive(Debug, Clone, Copy)]
pub struct HostClaim {
    /// The state's index.
    pub at: usize,
    /// The claim, as the engine knows it.
    pub claim: Claim,
    /// The ticket, as the reference knows it.
    pub ticket: u64,
    /// True if the state is being executed.
    pub begin_recorded: bool,
}

/// The hosts, and the claims and sessions of earlier hosts.
pub struct Hosts {
    running: Vec<Host>,
    /// Late claims: those of a frozen host, and those whose commit a host repeats.
    late: Vec<HostClaim>,
    /// Lost sessions that may have states to reclaim.
    lost: Vec<SessionId>,
    sessions: i64,
}

struct Host {
    session: SessionId,
    claims: Vec<HostClaim>,
}

impl Hosts {
    /// Creates hosts without claims.
    pub fn new() -> Self {
        let mut hosts =
            Hosts { running: Vec::new(), late: Vec::new(), lost: Vec::new(), sessions: 0 };
        hosts.running = (0..HOSTS).map(|_| hosts.start()).collect();
        hosts
    }

    fn start(&mut self) -> Host {
        self.sessions += 1;
        Host { session: SessionId(self.sessions), claims: Vec::new() }
    }

    /// Returns the claims of all hosts, each with its host: the begun ones or the waiting ones.
    fn claims(&self, begin_recorded: bool) -> Vec<(usize, HostClaim)> {
        let claims_of = |(at, host): (usize, &Host)| {
            host.claims.iter().map(move |&hold| (at, hold)).collect::<Vec<_>>()
        };
        let all = self.running.iter().enumerate().flat_map(claims_of);
        all.filter(|(_, hold)| hold.begin_recorded == begin_recorded).collect()
    }

    fn forget(&mut self, hold: &HostClaim) {
        self.running
            .iter_mut()
            .for_each(|host| host.claims.retain(|held| held.ticket != hold.ticket));
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

impl Lockstep {
    /// Simulates the run in random order, with faults, until nothing is left to do.
    pub fn simulate(&mut self, rng: &mut SeededRng, mut faults: FaultPlan) {
        for _ in 0..MAX_STEPS {
            let is_running = match self.engine.status {
                RunStatus::Cancelled => self.finish_cancelled(rng),
                _ => self.step(rng, &mut faults),
            };
            self.compare();
            if !is_running {
                return;
            }
        }
        panic!("the run does not end");
    }

    fn step(&mut self, rng: &mut SeededRng, faults: &mut FaultPlan) -> bool {
        if self.inject_fault(rng, faults) || self.work(rng, faults.protects_innocent) {
            return true;
        }
        // Nothing is left to do until a user acts.
        if self.engine.paused && self.engine.status == RunStatus::Running {
            self.pause(false);
            return true;
        }
        if faults.retries > 0 {
            faults.retries -= 1;
            self.retry_or_redrive(rng);
            return true;
        }
        assert_eq!(self.cancel(), Err(Refusal::Ended));
        self.count_event_if(self.engine.paused, "runs that ended while paused");
        false
    }

    /// Injects a fault at random. Returns whether it did.
    fn inject_fault(&mut self, rng: &mut SeededRng, faults: &mut FaultPlan) -> bool {
        if rng.percent(faults.cancels) {
            self.cancel_run();
        } else if faults.retries > 0 && rng.percent(4) {
            faults.retries -= 1;
            self.retry_or_redrive(rng);
        } else if faults.losses > 0 && rng.percent(8) {
            let has_claims = |&host: &usize| !self.hosts.running[host].claims.is_empty();
            let busy: Vec<_> = (0..HOSTS).filter(has_claims).collect();
            if busy.is_empty() {
                return false;
            }
            faults.losses -= 1;
            let lost_claims = self.lose_host(*rng.pick(&busy).unwrap(), faults.protects_innocent);
            self.hosts.late.extend(lost_claims.into_iter().filter(|_| rng.percent(70)));
        } else if self.engine.paused && rng.percent(8) {
            self.pause(false);
        } else if !self.engine.paused && faults.pauses > 0 && rng.percent(6) {
            faults.pauses -= 1;
            self.pause(true);
            self.count_event("pauses");
        } else {
            return false;
        }
        true
    }

    /// Performs one piece of work. Returns whether there was any.
    fn work(&mut self, rng: &mut SeededRng, protects_innocent: bool) -> bool {
        let claimable = self.engine.claimable();
        let (waiting, recorded) = (self.hosts.claims(false), self.hosts.claims(true));
        let kinds = [
            (Work::Claim, !claimable.is_empty()),
            (Work::Begin, !waiting.is_empty()),
            (Work::Finish, !recorded.is_empty()),
            (Work::Reclaim, !self.hosts.lost.is_empty()),
            (Work::Late, !self.hosts.late.is_empty()),
        ];
        let kinds: Vec<_> = kinds.into_iter().filter(|kind| kind.1).map(|kind| kind.0).collect();
        if kinds.is_empty() {
            return false;
        }
        match rng.pick(&kinds).unwrap() {
            Work::Claim => self.claim(claimable, rng),
            Work::Begin => self.begin_some(waiting, rng),
            Work::Finish => self.finish(recorded, rng, protects_innocent),
            Work::Reclaim => self.reclaim(rng),
            Work::Late => self.commit_late_claim(rng),
        }
        true
    }

    /// Lets a host claim some of the due states.
    fn claim(&mut self, mut claimable: Vec<usize>, rng: &mut SeededRng) {
        rng.shuffle(&mut claimable);
        claimable.truncate(1 + rng.below(3));
        let host = &mut self.hosts.running[rng.below(HOSTS)];
        for at in claimable {
            let claim = self.engine.claim(at, host.session);
            let ticket = self.reference.claim(self.reference_indices[at], host.session.0);
            host.claims.push(HostClaim { at, claim, ticket, begin_recorded: false });
        }
    }

    /// Lets hosts begin some of their claimed states.
    fn begin_some(&mut self, mut waiting: Vec<(usize, HostClaim)>, rng: &mut SeededRng) {
        rng.shuffle(&mut waiting);
        waiting.truncate(1 + rng.below(3));
        for (host, hold) in waiting {
            assert!(self.record_begin(&hold), "a host that was not lost lost its claim");
            let claims = self.hosts.running[host].claims.iter_mut();
            claims
                .filter(|held| held.ticket == hold.ticket)
                .for_each(|held| held.begin_recorded = true);
        }
    }

    fn record_begin(&mut self, hold: &HostClaim) -> bool {
        let actual = self.engine.record_begin(hold.at, hold.claim);
        let expected = self.reference.record_begin(self.reference_indices[hold.at], hold.ticket);
        assert_eq!(actual, expected, "whether {} may be begun", self.engine.rows[hold.at].key);
        actual
    }

    /// Ends some executions. If one of them kills its host, only that happens.
    fn finish(
        &mut self,
        mut claims: Vec<(usize, HostClaim)>,
        rng: &mut SeededRng,
        protects_innocent: bool,
    ) {
        rng.shuffle(&mut claims);
        claims.truncate(if rng.percent(50) { 1 } else { 1 + rng.below(6) });
        let kills = |(_, hold): &&(usize, HostClaim)| {
            self.next_outcome(hold.at) == ScriptedOutcome::KillsHost
        };
        if let Some(&(host, hold)) = claims.iter().find(kills) {
            self.outcome_counts[hold.at] += 1;
            self.lose_host(host, protects_innocent);
            return;
        }
        let mut batch: Vec<_> = claims.into_iter().map(|(_, hold)| hold).collect();
        batch.iter().for_each(|hold| self.hosts.forget(hold));
        let repeated: Vec<_> = batch.iter().copied().filter(|_| rng.percent(10)).collect();
        if rng.percent(30) {
            batch.extend(self.take_late_claim(rng));
            rng.shuffle(&mut batch);
        }
        self.commit(&batch);
        self.hosts.late.extend(repeated);
    }

    /// Commits a late claim, alone in its batch. It may still hold.
    fn commit_late_claim(&mut self, rng: &mut SeededRng) {
        if let Some(hold) = self.take_late_claim(rng) {
            let before = self.outcome_counts[hold.at];
            self.commit(&[hold]);
            self.count_event_if(self.outcome_counts[hold.at] > before, "late outcomes taken");
        }
    }

    /// Takes a late claim, which may no longer hold, and returns it if its execution ends now. A
    /// claim that was not begun is begun now if it holds, and ends later.
    fn take_late_claim(&mut self, rng: &mut SeededRng) -> Option<HostClaim> {
        if self.hosts.late.is_empty() {
            return None;
        }
        let at = rng.below(self.hosts.late.len());
        let hold = self.hosts.late.swap_remove(at);
        if hold.begin_recorded {
            return (self.next_outcome(hold.at) != ScriptedOutcome::KillsHost).then_some(hold);
        }
        // `commit_innocent` could no longer commit it before its host is lost.
        if self.is_at_loss_limit(&hold) {
            return None;
        }
        // A host executes a state that is not a suspect without recording the begin.
        let executes = self.record_begin(&hold) || rng.percent(50);
        self.hosts.late.extend(executes.then_some(HostClaim { begin_recorded: true, ..hold }));
        None
    }

    /// Loses a host and replaces it. Returns the claims that it had.
    fn lose_host(&mut self, host: usize, protects_innocent: bool) -> Vec<HostClaim> {
        if protects_innocent {
            self.commit_innocent(host);
        }
        let new = self.hosts.start();
        let lost = std::mem::replace(&mut self.hosts.running[host], new);
        self.hosts.lost.push(lost.session);
        self.count_event("hosts lost");
        lost.claims
    }

    /// Commits, just before a host is lost, its innocent executions that the loss would end.
    fn commit_innocent(&mut self, host: usize) {
        let is_protected = |hold: &&HostClaim| {
            hold.begin_recorded
                && self.is_at_loss_limit(hold)
                && self.next_outcome(hold.at) != ScriptedOutcome::KillsHost
        };
        let protected: Vec<_> =
            self.hosts.running[host].claims.iter().filter(is_protected).copied().collect();
        protected.iter().for_each(|hold| self.hosts.forget(hold));
        self.commit(&protected);
    }

    /// Returns whether another loss would end a state.
    fn is_at_loss_limit(&self, hold: &HostClaim) -> bool {
        self.reference.execs[self.reference_indices[hold.at]].losses >= MAX_LOSSES
    }

    /// Reclaims the states of a lost host, a bounded number at a time.
    fn reclaim(&mut self, rng: &mut SeededRng) {
        let lost = rng.below(self.hosts.lost.len());
        let session = self.hosts.lost[lost];
        let max = 1 + rng.below(6);
        let ended = self.engine.reclaim(session, max);
        for &at in &ended {
            let event = match self.reference.lose_host(self.reference_indices[at], session.0) {
                Loss::First => "states lost for the first time",
                Loss::Again => "suspects charged",
                Loss::Last => "states that lost too many hosts",
                Loss::LetOff => "suspects let off",
            };
            self.count_event(event);
        }
        if ended.len() < max {
            self.hosts.lost.swap_remove(lost);
            assert_eq!(self.reference.held_by(session.0), 0, "a lost host still holds something");
        }
    }

    /// Retries one state manually, mostly a failed one; or redrives the run.
    fn retry_or_redrive(&mut self, rng: &mut SeededRng) {
        let failed = |&at: &usize| self.engine.rows[at].status == Status::Errored;
        let failed: Vec<_> = (0..self.engine.rows.len()).filter(failed).collect();
        if rng.percent(if failed.is_empty() { 10 } else { 25 }) {
            let Ok((retried, too_late)) = self.redrive() else {
                return self.count_event("redrives refused");
            };
            self.count_event("redrives");
            self.count_event_if(retried > 1, "redrives of several");
            return self.count_event_if(too_late > 0, "redrives of a part");
        }
        let at = if failed.is_empty() || rng.percent(10) {
            rng.below(self.engine.rows.len())
        } else {
            *rng.pick(&failed).unwrap()
        };
        match self.retry(at) {
            Ok(()) => self.count_event("retries"),
            Err(Refusal::UnitePassed) => self.count_event("retries too late"),
            Err(_) => {}
        }
    }

    /// Cancels the run. From then on, all claims of hosts are late.
    fn cancel_run(&mut self) {
        if self.cancel().is_err() {
            return;
        }
        self.count_event("cancels");
        for host in &mut self.hosts.running {
            self.hosts.late.append(&mut host.claims);
        }
    }

    /// Finishes a cancelled run: sweeps its states, commits late outcomes, and makes requests that
    /// are rejected.
    fn finish_cancelled(&mut self, rng: &mut SeededRng) -> bool {
        assert!(self.engine.claimable().is_empty(), "a state of a cancelled run is claimable");
        if self.swept && self.hosts.late.is_empty() && self.hosts.lost.is_empty() {
            self.assert_requests_rejected(rng);
            return false;
        }
        match rng.below(8) {
            0 => self.assert_requests_rejected(rng),
            1 if !self.hosts.lost.is_empty() => self.assert_nothing_reclaimed(),
            2..4 => self.commit_late_claim(rng),
            4.. if !self.swept => {
                let max = 1 + rng.below(1 + self.engine.rows.len() / 3);
                self.swept = !self.engine.sweep(max);
                self.reference.sweep(max);
            }
            _ => {}
        }
        true
    }

    /// Asserts that the states of lost hosts are left to the sweep.
    fn assert_nothing_reclaimed(&mut self) {
        for session in std::mem::take(&mut self.hosts.lost) {
            assert!(self.engine.reclaim(session, 6).is_empty(), "the sweep ends them");
        }
    }

    fn assert_requests_rejected(&mut self, rng: &mut SeededRng) {
        let at = rng.below(self.engine.rows.len());
        assert_eq!(self.retry(at), Err(Refusal::Cancelled));
        assert_eq!(self.redrive(), Err(Refusal::Cancelled));
        assert_eq!(self.cancel(), Err(Refusal::Ended));
    }
}
