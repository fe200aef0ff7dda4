//! The chaos injector: injects random faults from a seed, and repairs them.
//!
//! Not here: the effects on runs (`load`).

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::cluster::Cluster;
use exosphere_tests::postgres::{Mode, Postgres};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::load::HostUrls;

/// Maximum number of hosts that are down or frozen at a time.
const MAX_HOSTS_OUT: usize = 2;
/// Pause after a restart of Postgres, before the next one.
const MIN_RESTART_INTERVAL: Duration = Duration::from_secs(8);
/// Milliseconds for which a host is frozen: longer than its lease of 10 s.
const FREEZE_MS: std::ops::Range<u64> = 10_500..13_000;
/// Milliseconds for which a dead host stays dead: mostly less than a lease, sometimes more, so that
/// other hosts take over.
const DEAD_MS: [std::ops::Range<u64>; 4] = [0..300, 0..1_000, 500..3_000, 11_000..17_000];
/// Milliseconds from SIGTERM until the injector waits for the end of the host.
const STOP_MS: std::ops::Range<u64> = 1_000..6_000;
/// Milliseconds of a network fault; rarely longer than a lease.
const NETWORK_FAULT_MS: [std::ops::Range<u64>; 4] =
    [200..1_000, 200..1_000, 1_000..3_000, 10_500..12_000];

/// Counts of the injected faults.
#[derive(Debug, Default)]
pub struct FaultCounts {
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

impl FaultCounts {
    /// Checks that the common faults were injected.
    pub fn check_coverage(&self) -> Result<()> {
        let postgres = self.fast + self.immediate;
        let some = [self.kills, self.freezes, postgres, self.cuts, self.delays];
        ensure!(!some.contains(&0), "a common fault was never injected: {self}");
        Ok(())
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills, {} freezes, {} clean stops", self.kills, self.freezes, self.stops)?;
        write!(f, "; Postgres: {} fast and {} immediate restarts", self.fast, self.immediate)?;
        write!(f, "; connections: {} cuts, {} delays", self.cuts, self.delays)?;
        write!(f, ", {} held, {} refusing", self.holds, self.refusals)
    }
}

/// The fault of a host, with its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum HostStatus {
    Up,
    /// SIGTERM was sent; the host is down afterwards.
    Stopping(Instant),
    Down(Instant),
    Frozen(Instant),
}

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
enum Fault {
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
const FAULTS: [(Fault, u32); 9] = [
    (Fault::Kill, 27),
    (Fault::Freeze, 8),
    (Fault::Stop, 6),
    (Fault::Restart, 8),
    (Fault::Cut, 20),
    (Fault::CutAll, 6),
    (Fault::Delay, 14),
    // Other hosts wait up to 5 s for the locks of a host whose connections are held.
    (Fault::Hold, 4),
    (Fault::Refuse, 7),
];

/// The source of faults: it picks them at random and injects them into the cluster.
pub struct FaultInjector<'a> {
    cluster: &'a mut Cluster,
    postgres: &'a Postgres,
    host_urls: &'a HostUrls,
    random: StdRng,
    statuses: Vec<HostStatus>,
    /// The end of each host's network fault, if it has one.
    network_faults: Vec<Option<Instant>>,
    last_restart: Instant,
    from: Instant,
    /// Counts of the faults injected so far.
    pub fault_counts: FaultCounts,
}

impl<'a> FaultInjector<'a> {
    pub fn new(
        cluster: &'a mut Cluster,
        postgres: &'a Postgres,
        host_urls: &'a HostUrls,
        seed: u64,
    ) -> FaultInjector<'a> {
        let hosts = cluster.members().len();
        FaultInjector {
            cluster,
            postgres,
            host_urls,
            random: StdRng::seed_from_u64(seed),
            statuses: vec![HostStatus::Up; hosts],
            network_faults: vec![None; hosts],
            last_restart: Instant::now(),
            from: Instant::now(),
            fault_counts: FaultCounts::default(),
        }
    }

    /// Injects faults until `enough` returns true.
    pub fn drive(&mut self, enough: impl Fn() -> bool) -> Result<()> {
        while !enough() {
            self.repair(|until| until <= Instant::now())?;
            self.check_no_host_ended()?;
            let fault = self.choose();
            self.inject(fault)?;
            let pause = self.random.random_range(250..900);
            std::thread::sleep(Duration::from_millis(pause));
        }
        Ok(())
    }

    /// Repairs all current faults.
    pub fn repair_all(&mut self) -> Result<()> {
        self.repair(|_| true)
    }

    /// Repairs faults whose end matches `due`.
    fn repair(&mut self, due: impl Fn(Instant) -> bool) -> Result<()> {
        for at in 0..self.statuses.len() {
            if self.network_faults[at].is_some_and(&due) {
                self.clear_network_fault(at)?;
            }
            match self.statuses[at] {
                HostStatus::Stopping(until) if due(until) => {
                    // The host needs its connections to release its states.
                    self.clear_network_fault(at)?;
                    let status = self.cluster.member(at).wait()?;
                    ensure!(
                        status.success(),
                        "host {at} ended with an error after SIGTERM: {status}"
                    );
                    self.start(at)?;
                }
                HostStatus::Down(until) if due(until) => self.start(at)?,
                HostStatus::Frozen(until) if due(until) => self.cluster.member(at).thaw()?,
                _ => continue,
            }
            self.statuses[at] = HostStatus::Up;
            self.host_urls.add(at, self.cluster.host(at)?.url());
        }
        Ok(())
    }

    /// Starts a host, and repairs its connection, for which it would wait.
    fn start(&mut self, at: usize) -> Result<()> {
        self.clear_network_fault(at)?;
        self.cluster.member(at).start()
    }

    fn clear_network_fault(&mut self, at: usize) -> Result<()> {
        self.cluster.member(at).proxy()?.clear();
        self.network_faults[at] = None;
        Ok(())
    }

    /// Checks that no host ended by itself: a host survives every fault of its database.
    fn check_no_host_ended(&mut self) -> Result<()> {
        for at in 0..self.statuses.len() {
            if matches!(self.statuses[at], HostStatus::Stopping(_)) {
                continue;
            }
            let ended = self.cluster.member(at).ended()?;
            ensure!(ended.is_none(), "host {at} ended by itself: {ended:?}");
        }
        Ok(())
    }

    fn choose(&mut self) -> Fault {
        let all: u32 = FAULTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.random_range(0..all);
        for (fault, weight) in FAULTS {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return fault,
            }
        }
        Fault::Kill
    }

    fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill | Fault::Freeze | Fault::Stop => self.inject_host_fault(fault),
            Fault::Restart => self.restart_postgres(),
            Fault::CutAll => {
                self.fault_counts.cuts += 1;
                self.cluster.members().iter().try_for_each(|member| {
                    member.proxy()?.cut();
                    Ok(())
                })
            }
            Fault::Cut | Fault::Delay | Fault::Hold | Fault::Refuse => {
                self.inject_network_fault(fault)
            }
        }
    }

    /// Prints a fault and its host, for the analysis of a failure.
    fn log(&self, fault: impl fmt::Debug, at: usize, until: Instant) {
        let (now, until) = (self.from.elapsed(), until.saturating_duration_since(self.from));
        println!("{:7.2} {fault:?} {at} until {:.2}", now.as_secs_f64(), until.as_secs_f64());
    }

    /// Injects a fault into a healthy host, if enough others are healthy.
    fn inject_host_fault(&mut self, fault: Fault) -> Result<()> {
        let at = self.random.random_range(0..self.statuses.len());
        let out = self.statuses.iter().filter(|status| **status != HostStatus::Up).count();
        if self.statuses[at] != HostStatus::Up || out >= MAX_HOSTS_OUT {
            return Ok(());
        }
        self.host_urls.remove(at);
        let until = match fault {
            Fault::Freeze => self.later(&[FREEZE_MS]),
            Fault::Stop => self.later(&[STOP_MS]),
            _ => self.later(&DEAD_MS),
        };
        self.log(fault, at, until);
        self.statuses[at] = match fault {
            Fault::Freeze => {
                self.fault_counts.freezes += 1;
                self.cluster.member(at).freeze()?;
                HostStatus::Frozen(until)
            }
            Fault::Stop => {
                self.fault_counts.stops += 1;
                self.cluster.host(at)?.terminate()?;
                HostStatus::Stopping(until)
            }
            _ => {
                self.fault_counts.kills += 1;
                self.cluster.member(at).kill()?;
                HostStatus::Down(until)
            }
        };
        Ok(())
    }

    fn restart_postgres(&mut self) -> Result<()> {
        if self.last_restart.elapsed() < MIN_RESTART_INTERVAL {
            return Ok(());
        }
        let mode = if self.random.random() { Mode::Fast } else { Mode::Immediate };
        match mode {
            Mode::Fast => self.fault_counts.fast += 1,
            Mode::Immediate => self.fault_counts.immediate += 1,
        }
        self.log(mode, 0, Instant::now());
        self.postgres.stop(mode)?;
        let pause = self.random.random_range(0..1_500);
        std::thread::sleep(Duration::from_millis(pause));
        self.postgres.start_again()?;
        self.last_restart = Instant::now();
        Ok(())
    }

    /// Injects a fault into the connections between a host and Postgres.
    fn inject_network_fault(&mut self, fault: Fault) -> Result<()> {
        let at = self.random.random_range(0..self.statuses.len());
        let until = self.later(&NETWORK_FAULT_MS);
        let delay = Duration::from_millis(self.random.random_range(2..30));
        self.log(fault, at, until);
        let proxy = self.cluster.members()[at].proxy()?;
        match fault {
            Fault::Delay => {
                self.fault_counts.delays += 1;
                proxy.delay(delay);
            }
            Fault::Hold => {
                self.fault_counts.holds += 1;
                proxy.hold();
            }
            Fault::Refuse => {
                self.fault_counts.refusals += 1;
                proxy.refuse();
                proxy.cut();
            }
            _ => {
                self.fault_counts.cuts += 1;
                proxy.cut();
                return Ok(());
            }
        }
        self.network_faults[at] = self.network_faults[at].max(Some(until));
        Ok(())
    }

    fn later(&mut self, choices: &[std::ops::Range<u64>]) -> Instant {
        let range = choices[self.random.random_range(0..choices.len())].clone();
        Instant::now() + Duration::from_millis(self.random.random_range(range))
    }
}
