//! Deletion of runs, graphs and plugins.
//!
//! Not here: the removal of what deleted runs leave behind (`execution/removals.rs`).

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Digest, Name, RunId};
use exosphere_domain::plural::counted;
use exosphere_store::{Control, GraphDeletion, MAX_RUNS_WITH_GRAPH, PluginRemoval, Uploads};

use crate::Host;
use crate::error::Error;
use crate::service::request::{LateCallback, Request, RequestKind, expect_done};

/// The result of the deletion of a graph.
#[derive(Debug, Clone, Copy)]
pub struct DeletedGraph {
    /// The number of deleted revisions.
    pub revisions: u64,
    /// The number of ended runs that were deleted with it.
    pub runs: u64,
}

impl Host {
    /// Deletes a run that has ended. Its states are removed later, in pieces.
    pub async fn delete_run(&self, namespace: &Name, id: RunId) -> Result<(), Error> {
        let request = Request::new(RequestKind::Delete);
        let run = request.before_commit(self.run_info(namespace, id)).await?;
        let operation = self.audited(run, "run delete", Control::Delete);
        let late: LateCallback = {
            let inner = self.inner.clone();
            Box::new(move |_| inner.pipeline.removals.wake())
        };
        let committer = &self.inner.pipeline.committer;
        let reply = request.commit_with(committer, operation, Some(late)).await?;
        expect_done("run", id, reply)?;
        self.inner.pipeline.removals.wake();
        Ok(())
    }

    /// Deletes a graph with all its revisions and secrets, and with its ended runs if `with_runs`
    /// says so. It must have no other runs.
    pub async fn delete_graph(
        &self,
        namespace: &Name,
        name: &Name,
        with_runs: bool,
    ) -> Result<DeletedGraph, Error> {
        let inner = &self.inner;
        let now = inner.db.clock.now();
        let deleted = self.store().delete_graph(namespace, name, with_runs, now).await;
        // Also after an error: the transaction may have succeeded.
        inner.caches.graphs.forget(namespace, name);
        inner.pipeline.removals.wake();
        let refused = |message| Err(Error::Conflict(message));
        match deleted? {
            GraphDeletion::Deleted { revisions, runs } => Ok(DeletedGraph { revisions, runs }),
            GraphDeletion::Missing => Err(self.graph_not_found(namespace, name).await?),
            GraphDeletion::Unfinished(runs) => refused(format!(
                "the graph {name} has {}; wait or cancel: \
                 `exosphere run list --graph {name} --status RUNNING` shows what is left",
                counted(runs, "run that has not ended", "runs that have not ended")
            )),
            GraphDeletion::HasRuns(runs) => refused(format!(
                "the graph {name} has {}, which would be deleted with it; \
                 `exosphere graph delete {name} --with-runs` deletes both (in the API, with_runs=true)",
                counted(runs, "ended run", "ended runs")
            )),
            GraphDeletion::TooManyRuns => refused(format!(
                "the graph {name} has more than {MAX_RUNS_WITH_GRAPH} runs; \
                 delete runs first, then the graph"
            )),
        }
    }

    /// Removes uploads of a plugin. Each must be unused: named by no current revision of a graph,
    /// and by the revision of no run.
    pub async fn remove_plugin(
        &self,
        namespace: &Name,
        name: &Name,
        uploads: Uploads,
    ) -> Result<Vec<Digest>, Error> {
        let inner = &self.inner;
        let now = inner.db.clock.now();
        match self.store().remove_plugin(namespace, name, uploads, now).await? {
            PluginRemoval::Removed(digests) => Ok(digests),
            PluginRemoval::Missing => Err(match uploads {
                Uploads::Digest(digest) => {
                    Error::not_found("plugin", format!("{name} with the digest {digest}"))
                }
                Uploads::All | Uploads::Unused => {
                    self.plugin_not_found(namespace, name.as_str()).await?
                }
            }),
            PluginRemoval::Used(digest, graphs) => {
                let graphs =
                    graphs.iter().map(|(graph, revision)| format!("{graph} (revision {revision})"));
                let graphs: Vec<_> = graphs.collect();
                Err(Error::Conflict(format!(
                    "the plugin {name} with the digest {digest} is used by the graphs {}: their \
                     current revisions or those of their runs name it; apply the graphs with another \
                     plugin and delete these runs, or remove only what nothing uses with \
                     `exosphere plugin remove {name} --unused`",
                    graphs.join(", ")
                )))
            }
        }
    }
}
