//! Revisions of graphs: list, show, compare, and make an old one current again.
//!
//! Not here: new definitions (`catalog`), and starts of a chosen revision (`start`).

use exosphere_domain::graph::diff::{GraphDiff, diff};
use exosphere_domain::graph::{Applied, Graph};
use exosphere_domain::ids::Name;
use exosphere_sandbox::FairPermit;
use exosphere_store::{Expected, GraphRow, Page, RevisionEntry, StoreError};
use serde_json::Value;

use crate::Host;
use crate::error::{Error, log_internal};
use crate::host_work::{Bounds, Meter, REQUEST_STEPS};
use crate::service::catalog::GraphApplied;
use crate::service::large_json::AnswerPermit;

/// The step budget of a comparison: both graphs are parsed and walked once.
const DIFF_STEPS: u64 = REQUEST_STEPS;

impl Host {
    /// Lists the revisions of a graph, the newest first.
    pub async fn revisions(
        &self,
        namespace: &Name,
        name: &Name,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<RevisionEntry>, Error> {
        let page = self.inner.db.store.revisions(namespace, name, before, limit).await?;
        if page.items.is_empty() && self.inner.db.store.graph_size(namespace, name).await? == 0 {
            return Err(self.graph_not_found(namespace, name).await?);
        }
        Ok(page)
    }

    /// Reads a revision of a graph, with the permit of the answer if that is large.
    pub async fn revision(
        &self,
        namespace: &Name,
        name: &Name,
        number: i64,
    ) -> Result<(GraphRow, Option<AnswerPermit>), Error> {
        let store = &self.inner.db.store;
        let bytes = store.revision_size(namespace, name, number).await?;
        let read = store.revision(namespace, name, number);
        let (found, permit) = self.inner.large_json.read(namespace, bytes, read).await?;
        Ok((found.ok_or_else(|| no_revision(name, number))?, permit))
    }

    /// Compares two revisions of a graph, as host work in a turn of its namespace.
    pub async fn diff_revisions(
        &self,
        namespace: &Name,
        name: &Name,
        (from, to): (i64, i64),
    ) -> Result<(GraphDiff, Option<AnswerPermit>), Error> {
        let store = &self.inner.db.store;
        let bytes = store.revision_size(namespace, name, from).await?
            + store.revision_size(namespace, name, to).await?;
        let read = async {
            let one = store.revision(namespace, name, from).await?;
            let one = one.ok_or_else(|| no_revision(name, from))?;
            let other = store.revision(namespace, name, to).await?;
            let other = other.ok_or_else(|| no_revision(name, to))?;
            Ok::<_, Error>((one, other))
        };
        let ((one, other), permit) = self.inner.large_json.read(namespace, bytes, read).await?;
        let turn = self.inner.host_work.turn(namespace).await;
        let compare = move |_: &Meter| Ok::<_, StoreError>(diff(&one.graph()?, &other.graph()?));
        let done = self.inner.host_work.run(turn, Bounds::steps(DIFF_STEPS), compare).await;
        let done = done.map_err(|lost| Error::Internal(log_internal(&lost)))?.value?;
        Ok((done, permit))
    }

    /// Makes the definition of an old revision the newest revision. It is validated as if it were
    /// applied, with the plugins that it names.
    pub async fn roll_back(
        &self,
        namespace: &Name,
        name: &Name,
        number: i64,
        expected: &Expected,
    ) -> Result<GraphApplied, Error> {
        let turn = self.inner.host_work.turn(namespace).await;
        let (row, _permit) = self.revision(namespace, name, number).await?;
        let graph = row.graph()?;
        drop(row);
        let applied = self.validated_again(namespace, name, graph, turn).await?;
        self.store_graph(namespace, name, applied, expected).await
    }

    /// Validates the definition of an old revision against the present: its uploads, their grants,
    /// the graph's secrets, and the limits.
    async fn validated_again(
        &self,
        namespace: &Name,
        name: &Name,
        graph: Graph,
        turn: Option<FairPermit<Name>>,
    ) -> Result<Applied, Error> {
        for (plugin, digest) in graph.uploads() {
            if !self.inner.db.store.find_upload(namespace, plugin, digest).await? {
                return Err(Error::Conflict(format!(
                    "the plugin {plugin} with the digest {digest}, which this revision names, was \
                     removed; upload it again, or apply the graph with another one"
                )));
            }
        }
        let template = to_template(graph.to_json());
        let catalog = self.named_uploads(namespace, &graph).await?;
        self.validated_with(namespace, name, template, catalog, turn).await
    }
}

/// Returns a stored graph as a template: its digests follow from the catalog.
fn to_template(mut graph: Value) -> Value {
    let nodes = graph.get_mut("nodes").and_then(Value::as_array_mut);
    for node in nodes.into_iter().flatten().filter_map(Value::as_object_mut) {
        node.remove("digest");
    }
    graph
}

fn no_revision(name: &Name, number: i64) -> Error {
    Error::not_found("revision", format!("{name}/{number}"))
}
