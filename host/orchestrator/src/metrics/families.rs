//! Every metric of a host, with its name, its help text and its labels. `docs/reference/metrics.md`
//! lists them; a test holds the page to what a host serves.
//!
//! Not here: the metrics of the API (`exosphere-api`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exosphere_domain::failure::FailureKind;
use exosphere_domain::limits::Limit;
use exosphere_store::DatabaseGauges;

use super::graphs::{ENDS, GraphCounters, LabelledGraph};
use super::text::{Families, Series, encode};
use super::{Metrics, process};
use crate::inner::HostInner;
use crate::traces::TraceCounts;

/// Returns the text of all metrics.
pub(super) fn text(inner: Arc<HostInner>, figures: Option<DatabaseGauges>) -> String {
    let graphs = inner.metrics.graphs.lock().all();
    encode(move |families| {
        write_host(families, &inner)?;
        write_pipeline(families, &inner.metrics)?;
        write_graphs(families, &graphs)?;
        write_database(families, &inner, figures)?;
        process::write(families, inner.metrics.started_at)
    })
}

fn write_host(families: &mut Families<'_, '_>, inner: &HostInner) -> fmt::Result {
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    families.info("exosphere_build_info", "The version of the host; always 1.", &labels)?;
    let help = "1 if the host claims states and takes requests, 0 if it stops or cannot work.";
    families.gauge("exosphere_ready", help, f64::from(u8::from(inner.readiness().is_ok())))?;
    let slots = inner.settings.slots;
    families.gauge("exosphere_slots", "Number of slots of the host.", f64::from(slots))?;
    let used = slots.saturating_sub(inner.pipeline.executor.free_slots());
    families.gauge("exosphere_slots_used", "Number of slots in use.", f64::from(used))?;
    let claimed = f64::from(inner.pipeline.committer.claimed());
    let help = "States that the host has claimed: running, or about to run.";
    families.gauge("exosphere_states_claimed", help, claimed)?;
    let help =
        "Sessions of other hosts that this host has expired, because their heartbeats failed.";
    families.counter("exosphere_sessions_lost", help, read(&inner.metrics.sessions_lost))?;
    let help = "Lines of the log that were dropped, because standard error could not be written.";
    let dropped = read(&inner.metrics.dropped_log_lines);
    families.counter("exosphere_log_lines_dropped", help, dropped)?;
    let TraceCounts { sent, dropped } = inner.traces.counts();
    let help = "Spans of traces that a collector has taken.";
    families.counter("exosphere_spans_sent", help, sent)?;
    let help = "Spans of traces that were dropped, or that a collector has refused.";
    families.counter("exosphere_spans_dropped", help, dropped)
}

fn write_pipeline(families: &mut Families<'_, '_>, metrics: &Metrics) -> fmt::Result {
    let help = "Time from which a state is due until a host claims it.";
    families.histogram("exosphere_claim_wait_seconds", help, &metrics.claim_wait)?;
    let help = "Time for which a claimed state waits for a slot.";
    families.histogram("exosphere_slot_wait_seconds", help, &metrics.slot_wait)?;
    let help = "Time of an attempt in the sandbox.";
    families.histogram("exosphere_invoke_seconds", help, &metrics.invoke)?;
    let help = "Time of a transaction that has succeeded.";
    families.histogram("exosphere_commit_seconds", help, &metrics.commit)?;
    let help = "Number of operations of a transaction that has succeeded.";
    families.histogram("exosphere_commit_batch", help, &metrics.commit_batch)?;
    let help = "Transactions that have failed because the database was unavailable.";
    families.counter("exosphere_commit_failures", help, read(&metrics.commit_failures))?;
    let help = "Attempts that have reached a limit.";
    families.counters("exosphere_limit_breaches", help, |series| {
        for (limit, count) in Limit::ALL.iter().zip(&metrics.breaches) {
            series.count(&[("limit", limit.name())], read(count))?;
        }
        Ok(())
    })
}

fn write_graphs(families: &mut Families<'_, '_>, graphs: &[LabelledGraph]) -> fmt::Result {
    let mut by_graph = |name, help, add: fn(&mut Series<'_>, GraphLabels<'_>) -> fmt::Result| {
        families.counters(name, help, |series| {
            let mut graphs = graphs.iter().map(|(namespace, graph, counters)| GraphLabels {
                labels: [("namespace", namespace), ("graph", graph)],
                counters,
            });
            graphs.try_for_each(|graph| add(series, graph))
        })
    };
    by_graph("exosphere_runs_started", "Runs that were started.", |series, graph| {
        series.count(&graph.labels, read(&graph.counters.started))
    })?;
    by_graph("exosphere_runs_ended", "Runs that have ended.", |series, graph| {
        for (status, count) in ENDS.iter().zip(&graph.counters.ended) {
            series.count(&graph.with([("status", status.as_str())]), read(count))?;
        }
        Ok(())
    })?;
    let help =
        "States that have ended for good. Those that errored have the kind of their failure.";
    by_graph("exosphere_states_ended", help, |series, graph| {
        let GraphCounters { succeeded, pruned, cancelled, .. } = graph.counters;
        for (outcome, count) in
            [("success", succeeded), ("pruned", pruned), ("cancelled", cancelled)]
        {
            series.count(&graph.with([("outcome", outcome)]), read(count))?;
        }
        let errored = |kind| graph.with([("outcome", "errored"), ("kind", kind)]);
        counts_by_kind(series, &graph.counters.errored, errored)
    })?;
    let help = "Failed attempts after which the state runs again, by the kind of the failure.";
    by_graph("exosphere_attempts_retried", help, |series, graph| {
        counts_by_kind(series, &graph.counters.retried, |kind| graph.with([("kind", kind)]))
    })?;
    let help = "Executions after which the state asked to run again later.";
    by_graph("exosphere_states_requeued", help, |series, graph| {
        series.count(&graph.labels, read(&graph.counters.requeued))
    })?;
    let help = "CPU time of attempts that have ended.";
    by_graph("exosphere_guest_cpu_seconds", help, |series, graph| {
        series.seconds(&graph.labels, read(&graph.counters.cpu_us) as f64 / 1e6)
    })?;
    families.histograms(
        "exosphere_run_seconds",
        "Time from the start of a run to its end.",
        |series| {
            graphs.iter().try_for_each(|(namespace, graph, counters)| {
                let labels = [("namespace", namespace.as_str()), ("graph", graph)];
                series.histogram(&labels, &counters.run_seconds)
            })
        },
    )
}

/// Writes the figures of the database, which are left out while they are unknown.
fn write_database(
    families: &mut Families<'_, '_>,
    inner: &HostInner,
    figures: Option<DatabaseGauges>,
) -> fmt::Result {
    let is_up = f64::from(u8::from(inner.database_health().is_ok()));
    families.gauge("exosphere_db_up", "1 if the database answers this host, else 0.", is_up)?;
    let Some(DatabaseGauges { states_due, oldest_due_ms, hosts_alive, bytes }) = figures else {
        return Ok(());
    };
    let help =
        "States of the database that are due and not claimed. They are counted up to 100,000.";
    families.gauge("exosphere_states_due", help, states_due as f64)?;
    let help = "Time for which the oldest of these states has been due.";
    families.gauge("exosphere_oldest_due_seconds", help, oldest_due_ms as f64 / 1_000.0)?;
    let help = "Hosts of the database that are alive.";
    families.gauge("exosphere_hosts_alive", help, hosts_alive as f64)?;
    families.gauge("exosphere_db_bytes", "Size of the database.", bytes as f64)
}

/// A graph with its labels.
#[derive(Clone, Copy)]
struct GraphLabels<'g> {
    labels: [(&'static str, &'g str); 2],
    counters: &'g GraphCounters,
}

impl<'g> GraphLabels<'g> {
    /// Returns the labels of the graph, and further ones.
    fn with<const N: usize>(
        &self,
        more: [(&'static str, &'g str); N],
    ) -> Vec<(&'static str, &'g str)> {
        self.labels.into_iter().chain(more).collect()
    }
}

/// Adds the counters of those kinds that have occurred.
fn counts_by_kind<'k>(
    series: &mut Series<'_>,
    counts: &[AtomicU64],
    labels: impl Fn(&'k str) -> Vec<(&'static str, &'k str)>,
) -> fmt::Result {
    for (kind, count) in FailureKind::ALL.iter().zip(counts) {
        let count = read(count);
        if count > 0 {
            series.count(&labels(kind.as_str()), count)?;
        }
    }
    Ok(())
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
