//! The counters of graphs. The busiest graphs have series of their own, and all others share the
//! series `other`, so that the number of series is bounded whatever callers do.
//!
//! The first graphs get series as they come. Once all series are taken, a graph that has none may
//! replace another at the end of a period, and few do: a change of series costs the monitoring
//! system, too. The shown graphs are shared out fairly between namespaces, so that a namespace with
//! many graphs hides no other one.
//!
//! Not here: names and help texts (`families`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::{Name, NamespaceKey};
use exosphere_domain::state::RunStatus;
use exosphere_store::{CommitCounts, RunInfo};

use super::histogram::{Histogram, RUN_SECONDS};

/// Maximum number of graphs with series of their own.
pub(crate) const MAX_GRAPHS: usize = 200;

/// Maximum number of graphs without series whose work is counted.
const MAX_CANDIDATES: usize = 200;

/// The time after which a graph may replace another.
const PERIOD: Duration = Duration::from_secs(10 * 60);

/// Maximum number of graphs that are replaced after a period.
const MAX_REPLACED: usize = 2;

/// The labels `namespace` and `graph` of the graphs without series of their own. A graph that has
/// these names itself is one of them.
const OTHER: &str = "other";

/// The terminal statuses of a run, in the order of their counters.
pub(crate) const ENDS: [RunStatus; 3] =
    [RunStatus::Success, RunStatus::Failed, RunStatus::Cancelled];

/// The counters of one graph, or of all that have none of their own.
#[derive(Debug)]
pub(crate) struct GraphCounters {
    pub started: AtomicU64,
    /// Runs by status, in the order of [`ENDS`].
    pub ended: [AtomicU64; ENDS.len()],
    pub run_seconds: Histogram,
    pub succeeded: AtomicU64,
    pub pruned: AtomicU64,
    pub cancelled: AtomicU64,
    /// States by the kind of their failure.
    pub errored: [AtomicU64; FailureKind::ALL.len()],
    /// Retried attempts by the kind of their failure.
    pub retried: [AtomicU64; FailureKind::ALL.len()],
    pub requeued: AtomicU64,
    pub cpu_us: AtomicU64,
}

impl Default for GraphCounters {
    fn default() -> Self {
        GraphCounters {
            started: AtomicU64::default(),
            ended: Default::default(),
            run_seconds: Histogram::new(RUN_SECONDS),
            succeeded: AtomicU64::default(),
            pruned: AtomicU64::default(),
            cancelled: AtomicU64::default(),
            errored: Default::default(),
            retried: Default::default(),
            requeued: AtomicU64::default(),
            cpu_us: AtomicU64::default(),
        }
    }
}

impl GraphCounters {
    fn add(&self, counts: &CommitCounts) {
        let add = |counter: &AtomicU64, count: u64| {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        add(&self.started, u64::from(counts.started));
        if let Some((status, millis)) = counts.ended {
            let at = ENDS.iter().position(|end| *end == status);
            at.into_iter().for_each(|at| add(&self.ended[at], 1));
            self.run_seconds.observe(millis as f64 / 1_000.0);
        }
        add(&self.succeeded, u64::from(counts.succeeded));
        add(&self.pruned, u64::from(counts.pruned));
        add(&self.cancelled, u64::from(counts.cancelled));
        for at in 0..FailureKind::ALL.len() {
            add(&self.errored[at], u64::from(counts.errored[at]));
            add(&self.retried[at], u64::from(counts.retried[at]));
        }
        add(&self.requeued, u64::from(counts.requeued));
        add(&self.cpu_us, counts.cpu_us);
    }
}

/// Returns the work of a commit in a run, by which the busiest graphs are found.
fn work(counts: &CommitCounts) -> u64 {
    let states = counts.succeeded + counts.pruned + counts.requeued;
    let failed: u32 = counts.errored.iter().chain(&counts.retried).sum();
    u64::from(states) + u64::from(failed) + u64::from(counts.started)
}

fn is_other(run: &RunInfo) -> bool {
    [&run.namespace, &run.graph_name].iter().all(|name| name.as_str() == OTHER)
}

/// A graph with series of its own.
struct Shown {
    namespace: Name,
    counters: Arc<GraphCounters>,
    /// The work of this period.
    work: u64,
}

/// A graph without series of its own.
struct Candidate {
    namespace: Name,
    work: u64,
}

/// A graph within the database.
type GraphKey = (NamespaceKey, Name);

/// The counters of all graphs.
pub(crate) struct GraphTable {
    shown: HashMap<NamespaceKey, HashMap<Name, Shown>>,
    count: usize,
    other: Arc<GraphCounters>,
    candidates: HashMap<GraphKey, Candidate>,
    period_began: Instant,
}

/// The labels `namespace` and `graph` of a graph with its counters.
pub(crate) type LabelledGraph = (String, String, Arc<GraphCounters>);

impl GraphTable {
    pub(crate) fn new(now: Instant) -> Self {
        GraphTable {
            shown: HashMap::new(),
            count: 0,
            other: Arc::default(),
            candidates: HashMap::new(),
            period_began: now,
        }
    }

    /// Counts what a commit changed in a run of a graph.
    pub(crate) fn add(&mut self, run: &RunInfo, counts: &CommitCounts, now: Instant) {
        let work = work(counts);
        let of_namespace = self.shown.get_mut(&run.namespace_key);
        if let Some(shown) = of_namespace.and_then(|graphs| graphs.get_mut(&run.graph_name)) {
            shown.work += work;
            return shown.counters.add(counts);
        }
        if is_other(run) {
            return self.other.add(counts);
        }
        if self.count < MAX_GRAPHS {
            let counters = self.show(run.namespace_key, &run.namespace, &run.graph_name);
            return counters.add(counts);
        }
        self.other.add(counts);
        if work > 0 {
            self.add_candidate(run, work);
        }
        if now.saturating_duration_since(self.period_began) >= PERIOD {
            self.period_began = now;
            self.end_period();
        }
    }

    /// Returns every graph with series, in the order of names, and `other`.
    pub(crate) fn all(&self) -> Vec<LabelledGraph> {
        let mut all: Vec<LabelledGraph> = self
            .shown
            .values()
            .flatten()
            .map(|(graph, shown)| {
                (shown.namespace.to_string(), graph.to_string(), shown.counters.clone())
            })
            .collect();
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all.push((OTHER.to_owned(), OTHER.to_owned(), self.other.clone()));
        all
    }

    fn show(&mut self, key: NamespaceKey, namespace: &Name, graph: &Name) -> Arc<GraphCounters> {
        self.count += 1;
        let counters = Arc::<GraphCounters>::default();
        let shown = Shown { namespace: namespace.clone(), counters: counters.clone(), work: 0 };
        self.shown.entry(key).or_default().insert(graph.clone(), shown);
        counters
    }

    /// Counts the work of a graph without series. If there are too many, the work of each is
    /// lowered (Misra and Gries): a graph with more than its share of the work stays, and no
    /// number of others hides it.
    fn add_candidate(&mut self, run: &RunInfo, work: u64) {
        let key = (run.namespace_key, run.graph_name.clone());
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.work += work;
        } else if self.candidates.len() < MAX_CANDIDATES {
            let namespace = run.namespace.clone();
            self.candidates.insert(key, Candidate { namespace, work });
        } else {
            self.candidates.retain(|_, candidate| {
                candidate.work = candidate.work.saturating_sub(work);
                candidate.work > 0
            });
        }
    }

    /// Replaces some graphs, and begins to count work from 0.
    fn end_period(&mut self) {
        let candidates = std::mem::take(&mut self.candidates);
        let mut candidates: Vec<_> = candidates.into_iter().collect();
        candidates.sort_by(|(a, of_a), (b, of_b)| (of_b.work, a).cmp(&(of_a.work, b)));
        let mut replaced = 0;
        for ((namespace, graph), candidate) in candidates {
            if replaced == MAX_REPLACED {
                break;
            }
            let Some((key, victim)) = self.replaceable(namespace, candidate.work) else { continue };
            self.hide(key, &victim);
            self.show(namespace, &candidate.namespace, &graph);
            replaced += 1;
        }
        self.shown.values_mut().flatten().for_each(|(_, shown)| shown.work = 0);
    }

    /// Finds the graph that a candidate of a namespace may replace. A namespace with fewer shown
    /// graphs takes one from that with the most; else the candidate must have done twice the work.
    fn replaceable(&self, namespace: NamespaceKey, work: u64) -> Option<GraphKey> {
        let own = self.shown.get(&namespace).map_or(0, HashMap::len);
        let largest = self.shown.iter().max_by_key(|(key, graphs)| (graphs.len(), **key));
        let largest = largest.filter(|(_, graphs)| graphs.len() >= own + 2).map(|(key, _)| *key);
        let in_reach = self.shown.iter().filter(|(key, _)| largest.is_none_or(|it| it == **key));
        let graphs = in_reach
            .flat_map(|(key, graphs)| graphs.iter().map(|(graph, it)| (it.work, *key, graph)));
        let (least, key, graph) = graphs.min()?;
        let may_replace = largest.is_some() || work > least.saturating_mul(2);
        may_replace.then(|| (key, graph.clone()))
    }

    /// Ends the series of a graph. Its counts end with them: added to `other`, they would look
    /// like work that is done at this moment.
    fn hide(&mut self, key: NamespaceKey, graph: &Name) {
        if let Some(graphs) = self.shown.get_mut(&key) {
            self.count -= usize::from(graphs.remove(graph).is_some());
            if graphs.is_empty() {
                self.shown.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn run(namespace: i64, graph: &str) -> RunInfo {
        RunInfo {
            namespace: format!("n{namespace}").parse().unwrap(),
            namespace_key: NamespaceKey(namespace),
            graph_name: graph.parse().unwrap(),
            ..crate::lifeline::tests::run()
        }
    }

    struct Fixture {
        table: GraphTable,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let now = Instant::now();
            Fixture { table: GraphTable::new(now), now }
        }

        fn work(&mut self, namespace: i64, graph: &str, succeeded: u32) {
            let counts = CommitCounts { succeeded, ..CommitCounts::default() };
            self.table.add(&run(namespace, graph), &counts, self.now);
        }

        fn fill(&mut self, namespace: i64, graphs: usize) {
            (0..graphs).for_each(|graph| self.work(namespace, &format!("g{graph}"), 10));
        }

        /// Ends the period by the work of a graph without series.
        fn end_period(&mut self) {
            self.now += PERIOD;
            self.work(99, "last", 0);
        }

        fn has(&self, namespace: i64, graph: &str) -> bool {
            let graph = graph.parse::<Name>().unwrap();
            self.table.shown.get(&NamespaceKey(namespace)).is_some_and(|it| it.contains_key(&graph))
        }

        fn total(&self) -> u64 {
            let all = self.table.all();
            all.iter().map(|(.., it)| it.succeeded.load(Ordering::Relaxed)).sum()
        }
    }

    #[test]
    fn series_are_bounded_and_complete() {
        let mut all = Fixture::new();
        all.fill(1, 3 * MAX_GRAPHS);
        assert_eq!(all.table.all().len(), MAX_GRAPHS + 1);
        assert_eq!(all.total(), 3 * MAX_GRAPHS as u64 * 10);
        assert!(all.table.candidates.len() <= MAX_CANDIDATES);
    }

    #[test]
    fn a_busier_graph_replaces_an_idle_one() {
        let mut all = Fixture::new();
        all.fill(1, MAX_GRAPHS);
        all.end_period();
        (1..MAX_GRAPHS).for_each(|graph| all.work(1, &format!("g{graph}"), 10));
        all.work(1, "busy", 5);
        assert!(!all.has(1, "busy"), "not before the end of the period");
        all.end_period();
        assert!(all.has(1, "busy") && !all.has(1, "g0"));
        assert_eq!(all.table.count, MAX_GRAPHS);
    }

    #[test]
    fn a_small_namespace_is_shown() {
        let mut all = Fixture::new();
        all.fill(1, MAX_GRAPHS);
        all.work(2, "small", 1);
        all.end_period();
        assert!(all.has(2, "small"));
    }

    #[test]
    fn many_graphs_replace_few_series() {
        let mut all = Fixture::new();
        all.fill(1, MAX_GRAPHS);
        all.end_period();
        for graph in 0..10_000 {
            all.work(1, &format!("spam{graph}"), 1_000);
        }
        all.end_period();
        let kept = (0..MAX_GRAPHS).filter(|graph| all.has(1, &format!("g{graph}"))).count();
        assert_eq!(kept, MAX_GRAPHS - MAX_REPLACED);
    }

    #[test]
    fn other_graphs_do_not_hide_a_busy_one() {
        let mut all = Fixture::new();
        all.fill(1, MAX_GRAPHS);
        all.end_period();
        for graph in 0..1_000 {
            all.work(1, &format!("spam{graph}"), 1);
            all.work(1, "busy", 10);
        }
        all.end_period();
        assert!(all.has(1, "busy"));
    }

    #[test]
    fn a_graph_named_other_shares_its_series() {
        let mut table = GraphTable::new(Instant::now());
        let name = |text: &str| text.parse::<Name>().unwrap();
        let info = RunInfo { namespace: name("other"), graph_name: name("other"), ..run(1, "g") };
        table.add(&info, &CommitCounts { pruned: 1, ..CommitCounts::default() }, Instant::now());
        let all = table.all();
        assert_eq!((all.len(), all[0].2.pruned.load(Ordering::Relaxed)), (1, 1));
    }
}
