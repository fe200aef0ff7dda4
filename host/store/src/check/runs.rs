//! Runs, page by page: the row of each, its store entries, and a walk through its states.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::state::RunStatus;

use super::catalog::read_graph;
use super::report::{Findings, kind};
use super::row_reader::{Columns, RowReader};
use super::run_row::RunRow;
use super::snapshot::Snapshot;
use super::state::{StateRow, run_of};
use super::walk::Walk;
use crate::dialect::{Param, Row, params};
use crate::error::StoreError;
use crate::sql;

/// Number of runs on one page. Each page costs a few queries, and holds the graphs of its runs.
const RUNS_PER_PAGE: i64 = 256;

/// Maximum number of cached graphs that stay for the next page.
const MAX_CACHED_GRAPHS: usize = 64;

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut graphs = Graphs::new();
    let mut after = i64::MIN;
    loop {
        let mut page = Vec::new();
        let visit = &mut |row: &dyn Row| page.push(RunRow::read(row, findings));
        snapshot.visit_each(sql::CHECK_RUNS, &params![after, RUNS_PER_PAGE], visit).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.id;
        load(snapshot, &mut graphs, &page).await?;
        stores(snapshot, &page, &graphs, findings).await?;
        states(snapshot, &page, &graphs, findings).await?;
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
    if graphs.len() > MAX_CACHED_GRAPHS {
        graphs.clear();
    }
    let visit = &mut |row: &dyn Row| {
        let Ok(revision) = row.int(0) else { return };
        graphs.entry(revision).or_insert_with(|| read_graph(&row.text(1).ok()?).map(Arc::new));
    };
    snapshot.visit_each(sql::CHECK_RUN_GRAPHS, &ends(page), visit).await
}

/// Returns the first and the last id of some runs.
fn ends(page: &[RunRow]) -> [Param<'static>; 2] {
    let id = |run: Option<&RunRow>| run.map_or(0, |run| run.id);
    params![id(page.first()), id(page.last())]
}

/// Compares the store entries of some runs with the counts in their run rows.
async fn stores(
    snapshot: &mut impl Snapshot,
    page: &[RunRow],
    graphs: &Graphs,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut stores: HashMap<i64, [i64; 3]> = HashMap::new();
    let visit = &mut |row: &dyn Row| {
        let int = |at| row.int(at).unwrap_or_default();
        stores.insert(int(0), [int(1), int(2), int(3)]);
    };
    snapshot.visit_each(sql::CHECK_STORES, &ends(page), visit).await?;
    for run in page {
        let [keys, bytes, version] = stores.get(&run.id).copied().unwrap_or_default();
        findings.checked.entries += keys.unsigned_abs();
        let mut note = |kind, message| findings.add(kind, run.id, Some(&run.uuid), message);
        if run.counters.store_keys != keys {
            let message =
                format!("is {}, and its store holds {keys} keys", run.counters.store_keys);
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
        let has_ended = matches!(run.status, Some(RunStatus::Success | RunStatus::Cancelled));
        let graph = graphs.get(&run.revision).and_then(Option::as_ref);
        if keys > 0 && has_ended && graph.is_some_and(|graph| !graph.store().keep) {
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
    let visit = &mut |row: &dyn Row| {
        // A state without a run is reported elsewhere.
        let Some(run) = run_of(row) else { return };
        while let Some(before) = walks.pop_front_if(|walk| walk.run().id < run) {
            before.end(findings);
        }
        let Some(walk) = walks.front_mut().filter(|walk| walk.run().id == run) else { return };
        findings.checked.states += 1;
        let key = row.int(0).unwrap_or_default().to_string();
        let (run, columns) = (Some(walk.run().uuid.as_str()), sql::CHECK_STATES_COLUMNS);
        let reader = &mut RowReader {
            row,
            columns: Columns::new(columns),
            table: "state",
            key,
            run,
            findings,
        };
        let state = StateRow::read(reader);
        findings.checked.unites += u64::from(state.unite.is_some());
        walk.visit(state, findings);
    };
    snapshot.visit_each(sql::CHECK_STATES, &ends(page), visit).await?;
    for walk in walks {
        walk.end(findings);
    }
    Ok(())
}
