//! What people do with runs: start, cancel, retry by hand.

use std::sync::Arc;

use exosphere_domain::graph::check_start;
use exosphere_domain::ids::{Name, RunId, StateId};
use exosphere_domain::plan::begin;
use exosphere_store::{Answer, Member, NewRun, RunInfo};
use serde_json::Value;

use crate::ambient::fresh_id;
use crate::error::{Error, log_internal};
use crate::read::RunDetails;
use crate::{Host, recovery};

impl Host {
    /// Starts a run of a graph's current revision.
    pub async fn start_run(
        &self,
        namespace: &Name,
        graph_name: &Name,
        inputs: Option<&Value>,
        store: Option<&Value>,
    ) -> Result<RunDetails, Error> {
        let parts = &self.parts;
        let row = self.graph(namespace, graph_name).await?;
        let graph = parts.graphs.get(&row)?;
        let root = graph.node(graph.root());
        let described = self.description(root.digest, &root.node_name).await?;
        let start = check_start(&graph, &described, inputs, store, &parts.limits)
            .map_err(|problems| Error::Invalid { what: "the start request".into(), problems })?;
        let (first, counts) = begin(&graph, parts.store.ids());
        let info = Arc::new(RunInfo {
            key: parts.store.new_run_key(),
            id: RunId(fresh_id()),
            namespace: namespace.clone(),
            graph_name: graph_name.clone(),
            revision: row.revision.number,
            graph,
            inputs: Value::Object(start.inputs).to_string().into(),
        });
        parts.runs.keep(info.clone());
        let id = info.id;
        let new =
            NewRun { info, revision: row.revision.id, store: start.store, root: first, counts };
        done("graph", graph_name, parts.committer.submit(Member::Start(new)).await)?;
        self.run(namespace, id).await
    }

    /// Cancels a run: nothing of it has effects any more, and what runs of it
    /// is stopped.
    pub async fn cancel_run(&self, namespace: &Name, id: RunId) -> Result<RunDetails, Error> {
        let run = self.info(namespace, id).await?;
        done("run", id, self.parts.committer.submit(Member::Cancel(run.clone())).await)?;
        self.parts.executor.abort(run.key);
        recovery::sweep(self.parts.clone(), run).await;
        self.run(namespace, id).await
    }

    /// Lets a failed state run again.
    pub async fn retry_state(
        &self,
        namespace: &Name,
        id: RunId,
        state: StateId,
    ) -> Result<RunDetails, Error> {
        let run = self.info(namespace, id).await?;
        let member = Member::Retry { run, state };
        done("state", state, self.parts.committer.submit(member).await)?;
        self.run(namespace, id).await
    }

    /// What never changes of a run, if it is of this namespace.
    pub(crate) async fn info(&self, namespace: &Name, id: RunId) -> Result<Arc<RunInfo>, Error> {
        let found = self.parts.store.run(namespace, id).await?;
        let key = found.ok_or_else(|| Error::not_found("run", id))?.key;
        Ok(self.parts.runs.get(&self.parts.store, key).await?)
    }
}

/// What a commit's answer means to who asked.
fn done(
    what: &'static str,
    name: impl ToString,
    answer: Result<Answer, exosphere_store::StoreError>,
) -> Result<(), Error> {
    match answer? {
        Answer::Done | Answer::More(_) => Ok(()),
        Answer::Refused(why) => Err(Error::Conflict(why)),
        Answer::Missing => Err(Error::not_found(what, name)),
        Answer::Stale => Err(Error::Internal(log_internal(&"a request was answered as stale"))),
    }
}
