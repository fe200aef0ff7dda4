//! Pauses of graphs and namespaces, and the reason why a run is paused.
//!
//! Not here: pauses of single runs (`run_control`), and how runs follow (`execution/pauses.rs`).

use exosphere_domain::change_reason::check_reason;
use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Name;
use exosphere_domain::state::RunStatus;
use exosphere_store::{GraphPause, NewPause, Pause, RunInfo, RunView};

use crate::Host;
use crate::error::Error;
use crate::execution::pauses;
use crate::service::namespaces::NamespaceDetails;

/// The pause of a run: its own, or that of its graph or namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunPause {
    /// The run itself is paused. A pause from before the database recorded them is unknown.
    Run(Option<Pause>),
    /// The graph of the run is paused.
    Graph(Option<Pause>),
    /// The namespace of the run is paused.
    Namespace(Option<Pause>),
}

impl Host {
    /// Pauses a graph: none of the states of its runs is claimed from then on, and new runs wait.
    pub async fn pause_graph(
        &self,
        namespace: &Name,
        name: &Name,
        reason: &str,
    ) -> Result<Option<Pause>, Error> {
        let pause = self.new_pause(reason)?;
        self.change_graph_pause(namespace, name, Some(&pause)).await
    }

    /// Resumes a paused graph, and the runs that were paused with it.
    pub async fn resume_graph(
        &self,
        namespace: &Name,
        name: &Name,
    ) -> Result<Option<Pause>, Error> {
        self.change_graph_pause(namespace, name, None).await
    }

    async fn change_graph_pause(
        &self,
        namespace: &Name,
        name: &Name,
        pause: Option<&NewPause>,
    ) -> Result<Option<Pause>, Error> {
        let (store, now) = (self.store(), self.inner.db.clock.now());
        let changed = store.pause_graph(namespace, name, pause, now).await;
        // Also after an error: the transaction may have succeeded.
        self.inner.pipeline.pauses.wake();
        match changed? {
            GraphPause::Missing => Err(self.graph_not_found(namespace, name).await?),
            GraphPause::Changed(_) | GraphPause::Unchanged => {
                Ok(store.pause_of_graph(namespace, name).await?)
            }
        }
    }

    /// Returns the pause of a graph, if it is paused.
    pub async fn graph_pause(&self, namespace: &Name, name: &Name) -> Result<Option<Pause>, Error> {
        Ok(self.inner.db.store.pause_of_graph(namespace, name).await?)
    }

    /// Pauses a namespace: none of its states is claimed on any host, and new runs wait.
    pub async fn pause_namespace(
        &self,
        namespace: &Name,
        reason: &str,
    ) -> Result<NamespaceDetails, Error> {
        let pause = self.new_pause(reason)?;
        self.change_namespace_pause(namespace, Some(&pause)).await
    }

    /// Resumes a paused namespace.
    pub async fn resume_namespace(&self, namespace: &Name) -> Result<NamespaceDetails, Error> {
        self.change_namespace_pause(namespace, None).await
    }

    async fn change_namespace_pause(
        &self,
        namespace: &Name,
        pause: Option<&NewPause>,
    ) -> Result<NamespaceDetails, Error> {
        // A mistyped name would leave the meant namespace as it is, and make another one.
        self.check_namespace(namespace).await?;
        let (store, now) = (self.store(), self.inner.db.clock.now());
        let changed = store.pause_namespace(namespace, pause, now).await;
        pauses::read_namespaces(&self.inner).await?;
        changed?;
        self.namespace(namespace).await
    }

    /// Returns the pause of a run, if it is paused in any way.
    pub(crate) async fn pause_of_run(
        &self,
        info: &RunInfo,
        run: &RunView,
    ) -> Result<Option<RunPause>, Error> {
        let store = &self.inner.db.store;
        if run.status != RunStatus::Running {
            return Ok(None);
        }
        if run.paused {
            if !store.find_pause_with_graph(run.key).await? {
                return Ok(Some(RunPause::Run(store.own_pause_of_run(run.key).await?)));
            }
            let pause = store.pause_of_graph(&info.namespace, &info.graph_name).await?;
            return Ok(Some(RunPause::Graph(pause)));
        }
        if self.inner.pipeline.pauses.is_paused(info.namespace_key) {
            let pause = store.pause_of_namespace(&info.namespace).await?;
            return Ok(Some(RunPause::Namespace(pause)));
        }
        Ok(None)
    }

    /// Returns the caller's pause, after checking its reason.
    fn new_pause(&self, reason: &str) -> Result<NewPause, Error> {
        check_reason(reason).map_err(|message| Error::invalid("the pause", "$.reason", message))?;
        Ok(NewPause { by: self.key_id(), reason: reason.to_owned() })
    }
}
