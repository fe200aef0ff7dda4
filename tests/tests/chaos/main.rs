//! Chaos: random faults for a minute, without an effect on results. Hosts die and freeze, Postgres
//! crashes, connections are cut. `fault_injector` injects the faults; `load` starts the runs and checks
//! their results.
//!
//! `SEED=..` repeats the choices of a run, `CHAOS_SECONDS=..` makes it longer.

mod fault_injector;
mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::cluster::{Cluster, Setup};
use exosphere_tests::postgres::Postgres;

use fault_injector::FaultInjector;
use load::{HostUrls, Load, Totals};

const HOSTS: usize = 4;
const SLOTS: u32 = 8;
/// Minimum number of states that must have been run.
const STATES: u64 = 20_000;
/// Number of runs under way at a time.
const CONCURRENT_RUNS: usize = 8;
/// Extra time for a slow machine, to reach [`STATES`] and the end of the last run.
const EXTRA_TIME: Duration = Duration::from_secs(120);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tests the load itself, whose errors would look like those of a host.
#[test]
fn the_load_passes_without_faults() -> Result<()> {
    let host = Host::start()?;
    load::prepare(&host)?;
    let host_urls = HostUrls::of_one(&host);
    let now = Instant::now();
    let load = Load::new(&host_urls, 0, now, now + EXTRA_TIME);
    load.run(0, 0)?;
    let totals = load.into_totals();
    println!("{} states in {} executions", totals.states, totals.executions);
    ensure!(totals.runs == 1 && totals.executions > totals.states);
    Ok(())
}

#[test]
fn chaos_changes_no_result_or_effect() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the seed is printed, and can be given")]
    let seed = number("SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(60));
    println!("SEED={seed}");
    let postgres = Postgres::start()?;
    let setup = Setup { slots: SLOTS, proxied: true, ..Setup::default() };
    let mut cluster = Cluster::start(&postgres, "chaos", &vec![setup; HOSTS])?;
    let tested = chaos(&postgres, &mut cluster, seed, time);
    tested.inspect_err(|_| cluster.report_failure(&postgres))
}

fn chaos(postgres: &Postgres, cluster: &mut Cluster, seed: u64, time: Duration) -> Result<()> {
    load::prepare(cluster.host(0)?)?;
    let host_urls = HostUrls::from_cluster(cluster)?;
    let from = Instant::now();
    let load = Load::new(&host_urls, seed, from + time, from + time + EXTRA_TIME);
    let mut injector = FaultInjector::new(cluster, postgres, &host_urls, seed);
    std::thread::scope(|scope| -> Result<()> {
        let load = &load;
        let runner = |at| scope.spawn(move || load.runs(at, STATES));
        let runners: Vec<_> = (0..CONCURRENT_RUNS).map(runner).collect();
        let driven = injector.drive(|| {
            let done = from.elapsed() >= time && load.states() >= STATES;
            done || load.has_failed()
        });
        // A failure needs the repair, too: the runners wait for hosts that are down.
        let repaired = injector.repair_all();
        if driven.is_err() || repaired.is_err() {
            load.stop();
        }
        for runner in runners {
            join(runner)?;
        }
        driven.and(repaired)
    })?;
    let elapsed = from.elapsed();
    let fault_counts = injector.fault_counts;
    let totals = load.into_totals();
    report(cluster, &totals, &fault_counts, elapsed)?;
    cluster.check()?;
    ensure!(totals.states >= STATES, "only {} states in {elapsed:?}", totals.states);
    Ok(())
}

fn join(runner: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    runner.join().ok().context("a runner panicked")?
}

/// Prints the counts, and checks that the faults were injected.
fn report(
    cluster: &Cluster,
    totals: &Totals,
    fault_counts: &fault_injector::FaultCounts,
    elapsed: Duration,
) -> Result<()> {
    let mut executions = 0;
    for member in cluster.members() {
        executions += member.executions()?.len() as u64;
    }
    println!(
        "{:.0} s: {} runs of {} states, {executions} executions; {} without faults",
        elapsed.as_secs_f64(),
        totals.runs,
        totals.states,
        totals.executions,
    );
    println!("{fault_counts}");
    ensure!(executions > totals.executions, "no state was executed again");
    fault_counts.check_coverage()
}
