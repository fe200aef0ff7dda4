//! Lookups of runs, states, graphs and namespaces by the names that callers give, and what a
//! refusal suggests if there is none.
//!
//! Not here: names of other namespaces. A refusal suggests only what the caller may list.

use exosphere_domain::graph::problems::{nearest, nearest_within};
use exosphere_domain::ids::{Millis, Name, RunId, StateId};
use exosphere_domain::path::Path;
use exosphere_domain::run_ref::{RunPrefix, RunRef};
use exosphere_store::{PageRequest, RunInfo};

use crate::Host;
use crate::error::Error;

/// Maximum number of runs among which a prefix is looked up.
const MAX_EXAMINED_RUNS: u32 = 10_000;

/// Maximum difference between the time in a run's id, by the clock of its host, and that of its
/// row, by the clock of the database.
const MAX_CLOCK_DIFFERENCE_MS: Millis = 60 * 60 * 1000;

/// Maximum number of names or ids that are searched for a suggestion.
const MAX_SUGGESTED: u32 = 1_000;

/// Maximum number of runs that an ambiguous prefix is answered with.
const MAX_CANDIDATES: usize = 10;

/// Maximum number of mistyped digits in an id that is suggested.
const MAX_MISTYPED_DIGITS: usize = 2;

impl Host {
    /// Finds the run that a caller means.
    pub async fn find_run(&self, namespace: &Name, reference: &RunRef) -> Result<RunId, Error> {
        match reference {
            RunRef::Id(id) => Ok(*id),
            RunRef::Latest => {
                let newest = self.inner.db.store.run_ids(namespace, (0, Millis::MAX), 1).await?;
                match newest.first() {
                    Some(id) => Ok(*id),
                    None => Err(self.run_not_found(namespace, reference).await?),
                }
            }
            RunRef::Prefix(prefix) => self.find_run_by_prefix(namespace, prefix).await,
        }
    }

    async fn find_run_by_prefix(
        &self,
        namespace: &Name,
        prefix: &RunPrefix,
    ) -> Result<RunId, Error> {
        let (from, to) = prefix.times();
        let (from, to) = (
            from.saturating_sub(MAX_CLOCK_DIFFERENCE_MS),
            to.saturating_add(MAX_CLOCK_DIFFERENCE_MS),
        );
        let ids = self.inner.db.store.run_ids(namespace, (from, to), MAX_EXAMINED_RUNS).await?;
        let found: Vec<RunId> = ids.into_iter().filter(|id| prefix.matches(*id)).collect();
        match found.as_slice() {
            [] => {
                let reference = RunRef::Prefix(prefix.clone());
                Err(self.run_not_found(namespace, &reference).await?)
            }
            [id] => Ok(*id),
            several => {
                let mut names: Vec<String> =
                    several.iter().take(MAX_CANDIDATES).map(RunId::to_string).collect();
                if several.len() > MAX_CANDIDATES {
                    names.push(format!("and {} more", several.len() - MAX_CANDIDATES));
                }
                Err(Error::Conflict(format!(
                    "several runs begin with {prefix}; give more digits of one: {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Finds the state at a path of a run, as people write it.
    pub(crate) async fn find_state(
        &self,
        run: &RunInfo,
        text: &str,
    ) -> Result<(StateId, Path), Error> {
        let missing = |hint: String| Error::NotFound { kind: "state", name: text.into(), hint };
        let path = run.graph.parse_path(text).map_err(|why| missing(format!(": {why}")))?;
        let found = self.inner.db.store.state_at(run.key, &path).await?;
        let hint = || format!("; list them with `exosphere run states {}`", run.id);
        Ok((found.ok_or_else(|| missing(hint()))?, path))
    }

    /// Refuses a namespace in which nothing is.
    pub(crate) async fn check_namespace(&self, namespace: &Name) -> Result<(), Error> {
        if self.inner.db.store.knows_namespace(namespace).await? {
            return Ok(());
        }
        Err(Error::not_found("namespace", namespace))
    }

    /// Returns the refusal of a run that does not exist, with the nearest id.
    pub(crate) async fn run_not_found(
        &self,
        namespace: &Name,
        reference: &RunRef,
    ) -> Result<Error, Error> {
        self.check_namespace(namespace).await?;
        let name = reference.to_string();
        let mut hint = "; list runs with `exosphere run list`".to_owned();
        if let RunRef::Id(_) = reference {
            let newest =
                self.inner.db.store.run_ids(namespace, (0, Millis::MAX), MAX_SUGGESTED).await?;
            let ids: Vec<String> = newest.iter().map(RunId::to_string).collect();
            let ids = ids.iter().map(String::as_str);
            if let Some(meant) = nearest_within(&name, ids, MAX_MISTYPED_DIGITS) {
                hint = format!("; did you mean {meant}?");
            }
        }
        Ok(Error::NotFound { kind: "run", name, hint })
    }

    /// Returns the refusal of a graph that does not exist, with the nearest name.
    pub(crate) async fn graph_not_found(
        &self,
        namespace: &Name,
        graph: &Name,
    ) -> Result<Error, Error> {
        self.check_namespace(namespace).await?;
        let part = PageRequest { after: None, limit: MAX_SUGGESTED };
        let graphs = self.inner.db.store.list_graphs(namespace, &part).await?.items;
        let names = graphs.iter().map(|graph| graph.name.as_str());
        let hint = suggestion(graph.as_str(), names, "exosphere graph list");
        Ok(Error::NotFound { kind: "graph", name: graph.to_string(), hint })
    }

    /// Returns the refusal of a plugin that does not exist, with the nearest name.
    pub(crate) async fn plugin_not_found(
        &self,
        namespace: &Name,
        plugin: &str,
    ) -> Result<Error, Error> {
        self.check_namespace(namespace).await?;
        let part = PageRequest { after: None, limit: MAX_SUGGESTED };
        let plugins = self.inner.db.store.list_plugins(namespace, &part).await?.items;
        let names = plugins.iter().map(|plugin| plugin.name.as_str());
        let hint = suggestion(plugin, names, "exosphere plugin list");
        Ok(Error::NotFound { kind: "plugin", name: plugin.to_owned(), hint })
    }
}

/// Returns the end of a refusal: the nearest known name, or the command that lists all.
pub(crate) fn suggestion<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    command: &str,
) -> String {
    match nearest(name, known) {
        Some(meant) => format!("; did you mean {meant}?"),
        None => format!("; list them with `{command}`"),
    }
}
