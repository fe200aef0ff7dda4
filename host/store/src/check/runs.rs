//! Runs, page by page: the row of each, its store entries, and a walk through its states.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Name, RunId};
use exosphere_domain::start_digest::StartDigest;
use exosphere_domain::state::RunStatus;

use super::catalog::read_graph;
use super::cells::{Reading, check_json_object};
use super::report::{Findings, kind};
use super::snapshot::Snapshot;
use super::state::{StateRow, run_of};
use super::walk::Walk;
use crate::error::StoreError;
use crate::sql;
use crate::text::{Cells, values};

/// Runs of one page. Each page costs a few queries, and holds the graphs of its runs.
const PAGE: i64 = 256;

/// Cached graphs that stay for the next page.
const GRAPHS: usize = 64;

/// A run, with the valid values of its row.
#[derive(Debug, Default)]
pub(super) struct RunRow {
    pub id: i64,
    pub uuid: String,
    pub status: Option<RunStatus>,
    pub revision: i64,
    pub version: i64,
    pub open: i64,
    pub failed: i64,
    pub states: i64,
    pub succeeded: i64,
    pub pruned: i64,
    pub errored: i64,
    pub cancelled: i64,
    pub retries: i64,
    pub requeues: i64,
    pub store_keys: i64,
    pub store_bytes: i64,
    pub store_version: i64,
    pub paused: bool,
    pub unswept: i64,
    pub redrive: i64,
}

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut graphs = Graphs::new();
    let mut after = i64::MIN;
    loop {
        let mut page = Vec::new();
        let see = &mut |cells: &dyn Cells| page.push(RunRow::read(cells, findings));
        snapshot.each(sql::CHECK_RUNS, &values![after, PAGE], see).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.id;
        load(snapshot, &mut graphs, &page).await?;
        stores(snapshot, &page, &graphs, findings).await?;
        states(snapshot, &page, &graphs, findings).await?;
    }
}

impl RunRow {
    fn read(cells: &dyn Cells, findings: &mut Findings) -> Self {
        findings.checked.runs += 1;
        let id = cells.int(0).unwrap_or_default();
        let uuid = cells.text(1).unwrap_or_default();
        let row =
            &mut Reading { cells, table: "run", row: id.to_string(), run: Some(&uuid), findings };
        row.parsed(1, "uuid", |text| Some(RunId(text.parse().ok()?)));
        row.parsed(2, "namespace", |text| text.parse::<Name>().ok());
        row.parsed(7, "inputs", check_json_object);
        row.maybe_parsed(23, "start_key", |text| (!text.is_empty()).then_some(()));
        row.maybe_parsed(26, "start_digest", |text| text.parse::<StartDigest>().ok());
        let paused = row.int(21, "paused").unwrap_or_default();
        if !matches!(paused, 0 | 1) {
            row.wrong("paused", format_args!("is {paused}, and only 0 or 1"));
        }
        let status = row.parsed(5, "status", RunStatus::parse);
        let mut count = |at, column| row.count(at, column).unwrap_or_default();
        let read = RunRow {
            id,
            status,
            revision: count(4, "revision"),
            version: count(6, "version"),
            open: count(9, "open"),
            failed: count(10, "failed"),
            states: count(11, "states"),
            succeeded: count(12, "succeeded"),
            pruned: count(13, "pruned"),
            errored: count(14, "errored"),
            cancelled: count(15, "cancelled"),
            retries: count(16, "retries"),
            requeues: count(17, "requeues"),
            store_keys: count(18, "store_keys"),
            store_bytes: count(19, "store_bytes"),
            store_version: count(20, "store_version"),
            unswept: count(22, "unswept"),
            redrive: count(27, "redrive"),
            paused: paused == 1,
            ..RunRow::default()
        };
        read.stands(row);
        belongs(row);
        RunRow { uuid, ..read }
    }

    /// Checks a run's status against its own counts: invariant 4.
    fn stands(&self, row: &mut Reading<'_>) {
        let version = self.version;
        for (column, event) in [("unswept", self.unswept), ("redrive", self.redrive)] {
            if event > version {
                row.wrong(
                    column,
                    format_args!("is {event}, an event that never was: the last is {version}"),
                );
            }
        }
        let Some(status) = self.status else { return };
        row.maybe_int(8, "ended_at");
        if row.is_there(8) == (status == RunStatus::Running) {
            let is = if row.is_there(8) { "is there" } else { "is missing" };
            row.wrong("ended_at", format_args!("{is} though it is {status}"));
        }
        let by_counts = RunStatus::from_counts(self.open, self.failed);
        if status != RunStatus::Cancelled && status != by_counts {
            let (open, failed) = (self.open, self.failed);
            let message =
                format!("is {status}, and with {open} open and {failed} failed it is {by_counts}");
            row.findings.note(kind!(End, run.status), &row.row, row.run, message);
        }
    }

    /// Returns whether outcomes and counts no longer matter.
    pub(super) fn is_cancelled(&self) -> bool {
        self.status == Some(RunStatus::Cancelled)
    }
}

/// Checks that the rows that a run names exist and are of its namespace.
fn belongs(row: &mut Reading<'_>) {
    let (graph, revision) = (row.int(3, "graph"), row.int(4, "revision"));
    let (id, run) = (row.row.clone(), row.run);
    match (row.maybe_text(24, "namespace"), row.cells.text(2)) {
        (None, _) => {
            let message = "names a graph that is not there";
            row.findings.note(kind!(Stray, run.graph), &id, run, message);
        }
        (Some(other), Ok(namespace)) if other != namespace => {
            let message = format!("is {namespace:?}, and that of its graph is {other:?}");
            row.findings.note(kind!(Namespace, run.namespace), &id, run, message);
        }
        _ => {}
    }
    match (row.maybe_int(25, "revision"), graph, revision) {
        (None, ..) => {
            let message = "names a revision that is not there";
            row.findings.note(kind!(Stray, run.revision), &id, run, message);
        }
        (Some(other), Some(graph), Some(revision)) if other != graph => {
            let message = format!("is {revision}, which is of graph {other} and not of {graph}");
            row.findings.note(kind!(Namespace, run.revision), &id, run, message);
        }
        _ => {}
    }
}

/// Cached graphs by revision; `None` for an invalid body, which is reported elsewhere.
type Graphs = HashMap<i64, Option<Arc<Graph>>>;

/// Loads the graphs of some runs, except those that are cached.
async fn load(
    snapshot: &mut impl Snapshot,
    graphs: &mut Graphs,
    page: &[RunRow],
) -> Result<(), StoreError> {
    if graphs.len() > GRAPHS {
        graphs.clear();
    }
    let see = &mut |cells: &dyn Cells| {
        let Ok(revision) = cells.int(0) else { return };
        graphs.entry(revision).or_insert_with(|| read_graph(&cells.text(1).ok()?).map(Arc::new));
    };
    snapshot.each(sql::CHECK_BODIES, &ends(page), see).await
}

/// Returns the first and the last id of some runs.
fn ends(page: &[RunRow]) -> [crate::text::Value<'static>; 2] {
    let id = |run: Option<&RunRow>| run.map_or(0, |run| run.id);
    values![id(page.first()), id(page.last())]
}

/// Compares the store entries of some runs with the counts in their run rows.
async fn stores(
    snapshot: &mut impl Snapshot,
    page: &[RunRow],
    graphs: &Graphs,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut stores: HashMap<i64, [i64; 3]> = HashMap::new();
    let see = &mut |cells: &dyn Cells| {
        let int = |at| cells.int(at).unwrap_or_default();
        stores.insert(int(0), [int(1), int(2), int(3)]);
    };
    snapshot.each(sql::CHECK_STORES, &ends(page), see).await?;
    for run in page {
        let [keys, bytes, version] = stores.get(&run.id).copied().unwrap_or_default();
        findings.checked.entries += keys.unsigned_abs();
        let mut note = |kind, message| findings.note(kind, run.id, Some(&run.uuid), message);
        if run.store_keys != keys {
            let message = format!("is {}, and its store holds {keys} keys", run.store_keys);
            note(kind!(Store, run.store_keys), message);
        }
        if run.store_bytes != bytes {
            let message = format!("is {}, and its store holds {bytes} bytes", run.store_bytes);
            note(kind!(Store, run.store_bytes), message);
        }
        if run.store_version < version {
            let message = format!("is {}, and an entry has {version}", run.store_version);
            note(kind!(Store, run.store_version), message);
        }
        let over = matches!(run.status, Some(RunStatus::Success | RunStatus::Cancelled));
        let graph = graphs.get(&run.revision).and_then(Option::as_ref);
        if keys > 0 && over && graph.is_some_and(|graph| !graph.store().keep) {
            let message = format!("has {keys} entries of a run that is over and keeps none");
            note(kind!(Store, entry.run), message);
        }
    }
    Ok(())
}

/// Walks through the states of some runs, one run after the other.
async fn states(
    snapshot: &mut impl Snapshot,
    page: &[RunRow],
    graphs: &Graphs,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let graph = |run: &RunRow| graphs.get(&run.revision).cloned().flatten();
    let mut walks: VecDeque<_> = page.iter().map(|run| Walk::new(run, graph(run))).collect();
    let see = &mut |cells: &dyn Cells| {
        // A state without a run is reported elsewhere.
        let Some(run) = run_of(cells) else { return };
        while let Some(before) = walks.pop_front_if(|walk| walk.run().id < run) {
            before.end(findings);
        }
        let Some(walk) = walks.front_mut().filter(|walk| walk.run().id == run) else { return };
        findings.checked.states += 1;
        let row = cells.int(0).unwrap_or_default().to_string();
        let id = Some(walk.run().uuid.as_str());
        let state = &mut Reading { cells, table: "state", row, run: id, findings };
        let state = StateRow::read(state);
        findings.checked.unites += u64::from(state.unite.is_some());
        walk.see(state, findings);
    };
    snapshot.each(sql::CHECK_STATES, &ends(page), see).await?;
    for walk in walks {
        walk.end(findings);
    }
    Ok(())
}
