//! Starts runs. Their rows are inserted before all other writes. A transaction that waits here for
//! another host's start with the same key must not hold any other lock yet.
//!
//! Not here: whether a repeated start is the same request (`start_digest` of the domain).

use exosphere_domain::ids::{Name, RunId, RunKey};
use exosphere_domain::journal::Journal;

use super::CommitTx;
use super::batch::{ExistingRun, NewRun, Operation, Reply};
use super::store_entries::WriteConflict;
use crate::codec::{encode_snapshot, read_int};
use crate::dialect::{ParamRows, Row, Statement, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// The longest inputs, in bytes, that stand in the row of the run, and the longest store of its
/// start: one page of SQLite. Every commit writes that row again, so longer ones have their own.
const MAX_INLINE_BYTES: usize = 8 << 10;

impl<'b> CommitTx<'b> {
    pub(super) async fn insert_runs(
        &mut self,
        tx: &mut impl Tx,
        operations: &[Operation],
    ) -> Result<(), StoreError> {
        let mut new: Vec<&NewRun> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Start(new) => Some(&**new),
                _ => None,
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        // All hosts use the same order, so that no two wait for each other.
        new.sort_by_key(|new| (&new.info.namespace, &new.key));
        let ids: Vec<String> = new.iter().map(|new| new.info.id.to_string()).collect();
        let digest = |new: &&NewRun| new.digest.as_ref().map(ToString::to_string);
        let digests: Vec<_> = new.iter().map(digest).collect();
        let stores = new.iter().map(|new| encode_snapshot(&new.store));
        let stores = stores.collect::<Result<Vec<_>, _>>()?;
        let rows = ParamRows::default()
            .ints(new.iter().map(|new| new.info.key.0))
            .texts(ids.iter().map(String::as_str))
            .texts(new.iter().map(|new| new.info.namespace.as_str()))
            .ints(new.iter().map(|new| new.revision))
            .texts(
                new.iter().map(|new| Some(&*new.info.inputs).filter(is_inline).unwrap_or_default()),
            )
            .all(self.now)
            .maybe_texts(new.iter().map(|new| new.key.as_deref()))
            .maybe_texts(digests.iter().map(Option::as_deref))
            .ints(new.iter().map(|new| i64::from(new.is_pinned)))
            .ints(new.iter().map(|new| self.now.saturating_add(new.delay.max(0))))
            .maybe_texts(stores.iter().map(|store| store.as_deref().filter(is_inline)))
            .maybe_texts(new.iter().map(|new| new.started_by.as_deref()));
        let inserted = tx.query_each(sql::NEW_RUN, &rows, read_int).await?;
        for (new, id) in new.iter().zip(&ids) {
            if !inserted.contains(&new.info.key.0) {
                let answer = answer_existing(tx, new, id).await?;
                self.existing_runs.insert(new.info.key, answer);
            }
        }
        let is_inserted = |run: &RunKey| inserted.contains(&run.0);
        let inputs = new.iter().map(|new| (new.info.key, &*new.info.inputs));
        insert_large(tx, sql::NEW_INPUTS, inputs.filter(|(run, _)| is_inserted(run))).await?;
        let stores = new.iter().zip(&stores);
        let stores = stores.filter_map(|(new, store)| Some((new.info.key, store.as_deref()?)));
        insert_large(tx, sql::NEW_START_STORE, stores.filter(|(run, _)| is_inserted(run))).await
    }

    pub(super) fn start(&mut self, new: &'b NewRun) -> Result<Reply, StoreError> {
        let run = new.info.key;
        if let Some(answer) = self.existing_runs.remove(&run) {
            return Ok(answer);
        }
        let mut journal = Journal::default();
        for (key, value) in &new.store {
            let set = journal.set(key, value.clone());
            set.map_err(|error| StoreError::Data(error.to_string()))?;
        }
        let loaded = self.change(run)?;
        loaded.commit_counts.started = true;
        match loaded.entries.plan(&loaded.row, &journal, &new.limits) {
            Ok(plan) => loaded.entries.apply(&mut loaded.row, plan),
            Err(WriteConflict::Conflict | WriteConflict::Broken(_)) => {
                return Err(StoreError::Data("the store values break its limits".into()));
            }
        }
        // The row was inserted with one open state, so that its CHECK held.
        loaded.row.open = new.counts.open;
        self.create_state(run, &new.root, new.delay, &[])?;
        if !new.info.labels.is_empty() {
            self.rows.labelled.push(new);
        }
        Ok(Reply::Done)
    }
}

/// Returns `true` if a text stands in the row of its run.
fn is_inline(text: &&str) -> bool {
    text.len() <= MAX_INLINE_BYTES
}

/// Inserts those texts of runs that do not stand in the rows of the runs.
async fn insert_large<'t>(
    tx: &mut impl Tx,
    statement: &'static Statement,
    texts: impl Iterator<Item = (RunKey, &'t str)>,
) -> Result<(), StoreError> {
    let large: Vec<_> = texts.filter(|(_, text)| !is_inline(text)).collect();
    if large.is_empty() {
        return Ok(());
    }
    let rows = ParamRows::default()
        .ints(large.iter().map(|(run, _)| run.0))
        .texts(large.iter().map(|(_, text)| *text));
    tx.execute_each(statement, &rows).await.map(drop)
}

/// Finds why a new run was not inserted. It may exist already, because a commit that seemed to
/// fail has succeeded. Otherwise another run has its key, or its revision is not the current
/// one.
async fn answer_existing(tx: &mut impl Tx, new: &NewRun, id: &str) -> Result<Reply, StoreError> {
    let params = params![id, new.info.namespace.as_str(), new.key.as_deref()];
    let found = tx.query(sql::CONFLICTING_RUN, &params, read_existing).await?;
    Ok(match found.into_iter().next() {
        Some(first) if first.run == new.info.id => Reply::Done,
        Some(first) => Reply::Existing(first),
        None => Reply::Outdated,
    })
}

/// Reads a run from the columns `uuid, graph, start_digest`.
fn read_existing(row: &dyn Row) -> Result<ExistingRun, StoreError> {
    let (run, graph) = (row.text(0)?, row.text(1)?);
    let digest = row.maybe_text(2)?.map(|digest| digest.parse()).transpose();
    Ok(ExistingRun {
        digest: digest.map_err(|_| corrupt_row("run", "start_digest", &run))?,
        graph: graph.parse().map_err(|_| corrupt_row("graph", "name", &graph))?,
        run: RunId(run.parse().map_err(|_| corrupt_row("run", "uuid", &run))?),
    })
}

impl Store {
    /// Finds the run that an idempotency key of a namespace has started.
    pub async fn started_with(
        &self,
        namespace: &Name,
        key: &str,
    ) -> Result<Option<ExistingRun>, StoreError> {
        self.reader.row(sql::STARTED_WITH, &params![namespace.as_str(), key], read_existing).await
    }
}
