//! The chaos driver: injects random faults from a seed, and repairs them.
//!
//! Not here: the effects on runs (`load`).

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::cluster::Cluster;
use exosphere_tests::postgres::{Mode, Postgres};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::load::Roster;

/// Maximum of hosts down or frozen at a time.
const OUT_AT_ONCE: usize = 2;
/// Pause after a restart of Postgres, before the next one.
const POSTGRES_REST: Duration = Duration::from_secs(8);
/// Milliseconds for which a host is frozen: longer than its lease of 10 s.
const FREEZE_MS: std::ops::Range<u64> = 10_500..13_000;
/// Milliseconds for which a dead host stays dead: mostly less than a lease, sometimes more, so that
/// other hosts take over.
const DEAD_MS: [std::ops::Range<u64>; 4] = [0..300, 0..1_000, 500..3_000, 11_000..17_000];
/// Milliseconds from SIGTERM until the driver waits for the end of the host.
const STOP_MS: std::ops::Range<u64> = 1_000..6_000;
/// Milliseconds of a network fault; rarely longer than a lease.
const BAD_MS: [std::ops::Range<u64>; 4] = [200..1_000, 200..1_000, 1_000..3_000, 10_500..12_000];

/// Counts of the injected faults.
#[derive(Debug, Default)]
pub struct Harm {
    kills: usize,
    freezes: usize,
    stops: usize,
    fast: usize,
    immediate: usize,
    cuts: usize,
    delays: usize,
    holds: usize,
    refusals: usize,
}

impl Harm {
    /// Checks that the common faults were injected.
    pub fn must_be_some(&self) -> Result<()> {
        let postgres = self.fast + self.immediate;
        let some = [self.kills, self.freezes, postgres, self.cuts, self.delays];
        ensure!(!some.contains(&0), "this was no chaos: {self}");
        Ok(())
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills, {} freezes, {} clean stops", self.kills, self.freezes, self.stops)?;
        write!(f, "; Postgres: {} fast and {} immediate restarts", self.fast, self.immediate)?;
        write!(f, "; lines: {} cuts, {} delays", self.cuts, self.delays)?;
        write!(f, ", {} held, {} refusing", self.holds, self.refusals)
    }
}

/// The fault of a host, with its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Up,
    /// SIGTERM was sent; the host is down afterwards.
    Stopping(Instant),
    Down(Instant),
    Frozen(Instant),
}

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Kill,
    Freeze,
    Stop,
    Restart,
    Cut,
    CutAll,
    Delay,
    Hold,
    Refuse,
}

/// Each kind of fault with its weight.
const DEEDS: [(Deed, u32); 9] = [
    (Deed::Kill, 27),
    (Deed::Freeze, 8),
    (Deed::Stop, 6),
    (Deed::Restart, 8),
    (Deed::Cut, 20),
    (Deed::CutAll, 6),
    (Deed::Delay, 14),
    // Other hosts wait up to 5 s for the locks of a host whose line is dead.
    (Deed::Hold, 4),
    (Deed::Refuse, 7),
];

/// The driver of the chaos.
pub struct Driver<'a> {
    cluster: &'a mut Cluster,
    postgres: &'a Postgres,
    roster: &'a Roster,
    random: StdRng,
    fates: Vec<Fate>,
    /// The end of each host's network fault, if it has one.
    lines: Vec<Option<Instant>>,
    rested: Instant,
    from: Instant,
    /// Counts of the faults injected so far.
    pub harm: Harm,
}

impl<'a> Driver<'a> {
    pub fn new(
        cluster: &'a mut Cluster,
        postgres: &'a Postgres,
        roster: &'a Roster,
        seed: u64,
    ) -> Driver<'a> {
        let hosts = cluster.members().len();
        Driver {
            cluster,
            postgres,
            roster,
            random: StdRng::seed_from_u64(seed),
            fates: vec![Fate::Up; hosts],
            lines: vec![None; hosts],
            rested: Instant::now(),
            from: Instant::now(),
            harm: Harm::default(),
        }
    }

    /// Injects faults until `enough` returns true.
    pub fn drive(&mut self, enough: impl Fn() -> bool) -> Result<()> {
        while !enough() {
            self.mend(|until| until <= Instant::now())?;
            self.nobody_ended_by_itself()?;
            let deed = self.choose();
            self.act(deed)?;
            let pause = self.random.random_range(250..900);
            std::thread::sleep(Duration::from_millis(pause));
        }
        Ok(())
    }

    /// Repairs everything.
    pub fn mend_all(&mut self) -> Result<()> {
        self.mend(|_| true)
    }

    /// Repairs faults whose end matches `due`.
    fn mend(&mut self, due: impl Fn(Instant) -> bool) -> Result<()> {
        for at in 0..self.fates.len() {
            if self.lines[at].is_some_and(&due) {
                self.clear_line(at)?;
            }
            match self.fates[at] {
                Fate::Stopping(until) if due(until) => {
                    // The host's states may have to cross a bad line first.
                    self.clear_line(at)?;
                    let status = self.cluster.member(at).wait()?;
                    ensure!(status.success(), "host {at} was stopped and ended badly: {status}");
                    self.start(at)?;
                }
                Fate::Down(until) if due(until) => self.start(at)?,
                Fate::Frozen(until) if due(until) => self.cluster.member(at).thaw()?,
                _ => continue,
            }
            self.fates[at] = Fate::Up;
            self.roster.enter(at, self.cluster.host(at)?.url());
        }
        Ok(())
    }

    /// Starts a host, and repairs its connection, for which it would wait.
    fn start(&mut self, at: usize) -> Result<()> {
        self.clear_line(at)?;
        self.cluster.member(at).start()
    }

    fn clear_line(&mut self, at: usize) -> Result<()> {
        self.cluster.member(at).proxy()?.clear();
        self.lines[at] = None;
        Ok(())
    }

    /// Checks that no host ended by itself: a host survives every fault of its database.
    fn nobody_ended_by_itself(&mut self) -> Result<()> {
        for at in 0..self.fates.len() {
            if matches!(self.fates[at], Fate::Stopping(_)) {
                continue;
            }
            let ended = self.cluster.member(at).ended()?;
            ensure!(ended.is_none(), "host {at} ended by itself: {ended:?}");
        }
        Ok(())
    }

    fn choose(&mut self) -> Deed {
        let all: u32 = DEEDS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.random_range(0..all);
        for (deed, weight) in DEEDS {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return deed,
            }
        }
        Deed::Kill
    }

    fn act(&mut self, deed: Deed) -> Result<()> {
        match deed {
            Deed::Kill | Deed::Freeze | Deed::Stop => self.strike(deed),
            Deed::Restart => self.restart_postgres(),
            Deed::CutAll => {
                self.harm.cuts += 1;
                self.cluster.members().iter().try_for_each(|member| {
                    member.proxy()?.cut();
                    Ok(())
                })
            }
            Deed::Cut | Deed::Delay | Deed::Hold | Deed::Refuse => self.disturb(deed),
        }
    }

    /// Prints a fault and its host, for the analysis of a failure.
    fn tell(&self, deed: impl fmt::Debug, at: usize, until: Instant) {
        let (now, until) = (self.from.elapsed(), until.saturating_duration_since(self.from));
        println!("{:7.2} {deed:?} {at} until {:.2}", now.as_secs_f64(), until.as_secs_f64());
    }

    /// Injects a fault into a healthy host, if enough others are healthy.
    fn strike(&mut self, deed: Deed) -> Result<()> {
        let at = self.random.random_range(0..self.fates.len());
        let out = self.fates.iter().filter(|fate| **fate != Fate::Up).count();
        if self.fates[at] != Fate::Up || out >= OUT_AT_ONCE {
            return Ok(());
        }
        self.roster.leave(at);
        let until = match deed {
            Deed::Freeze => self.later(&[FREEZE_MS]),
            Deed::Stop => self.later(&[STOP_MS]),
            _ => self.later(&DEAD_MS),
        };
        self.tell(deed, at, until);
        self.fates[at] = match deed {
            Deed::Freeze => {
                self.harm.freezes += 1;
                self.cluster.member(at).freeze()?;
                Fate::Frozen(until)
            }
            Deed::Stop => {
                self.harm.stops += 1;
                self.cluster.host(at)?.terminate()?;
                Fate::Stopping(until)
            }
            _ => {
                self.harm.kills += 1;
                self.cluster.member(at).kill()?;
                Fate::Down(until)
            }
        };
        Ok(())
    }

    fn restart_postgres(&mut self) -> Result<()> {
        if self.rested.elapsed() < POSTGRES_REST {
            return Ok(());
        }
        let mode = if self.random.random() { Mode::Fast } else { Mode::Immediate };
        match mode {
            Mode::Fast => self.harm.fast += 1,
            Mode::Immediate => self.harm.immediate += 1,
        }
        self.tell(mode, 0, Instant::now());
        self.postgres.stop(mode)?;
        let pause = self.random.random_range(0..1_500);
        std::thread::sleep(Duration::from_millis(pause));
        self.postgres.start_again()?;
        self.rested = Instant::now();
        Ok(())
    }

    /// Injects a fault into the connections between a host and Postgres.
    fn disturb(&mut self, deed: Deed) -> Result<()> {
        let at = self.random.random_range(0..self.fates.len());
        let until = self.later(&BAD_MS);
        let delay = Duration::from_millis(self.random.random_range(2..30));
        self.tell(deed, at, until);
        let proxy = self.cluster.members()[at].proxy()?;
        match deed {
            Deed::Delay => {
                self.harm.delays += 1;
                proxy.delay(delay);
            }
            Deed::Hold => {
                self.harm.holds += 1;
                proxy.hold();
            }
            Deed::Refuse => {
                self.harm.refusals += 1;
                proxy.refuse();
                proxy.cut();
            }
            _ => {
                self.harm.cuts += 1;
                proxy.cut();
                return Ok(());
            }
        }
        self.lines[at] = self.lines[at].max(Some(until));
        Ok(())
    }

    fn later(&mut self, choices: &[std::ops::Range<u64>]) -> Instant {
        let range = choices[self.random.random_range(0..choices.len())].clone();
        Instant::now() + Duration::from_millis(self.random.random_range(range))
    }
}
