//! Lists of graphs, plugins, namespaces and grants, in pages, read from dedicated columns. Not
//! here: lists of runs and states (`run_list`, `state_list`), and long values: bodies of graphs, descriptions of
//! plugins.

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Digest, Millis, Name};
use exosphere_domain::json::check_stored;

use super::views::Page;
use crate::codec::to_name;
use crate::dialect::{Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::namespaces::{NamespaceRow, granted, namespace};
use crate::{Store, sql};

/// Bytes of node names, or grants, at which a page ends.
const MAX_PAGE_BYTES: i64 = 1024 * 1024;

/// A page request for a list in the order of names.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// The cursor: the page begins after this name.
    pub after: Option<Name>,
    /// The maximum page size.
    pub limit: u32,
}

impl PageRequest {
    /// Returns the cursor as text; every name sorts after ''.
    fn after(&self) -> &str {
        self.after.as_ref().map_or("", Name::as_str)
    }

    /// Builds a page, with a cursor if there may be more. `is_cut` says that it ended early.
    fn page<T>(&self, items: Vec<T>, is_cut: bool, last: fn(&T) -> &Name) -> Page<T> {
        let may_go_on = items.len() as u64 >= u64::from(self.limit) || is_cut;
        let next = items.last().filter(|_| may_go_on).map(|item| last(item).to_string());
        Page { items, next }
    }
}

/// A graph, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphEntry {
    /// The name of the graph.
    pub name: Name,
    /// The number of the current revision.
    pub revision: i64,
    /// The time at which the current revision was created.
    pub created_at: Millis,
    /// The number of nodes.
    pub nodes: i64,
}

/// A plugin, as a list shows it: the newest upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginEntry {
    /// The name of the plugin.
    pub name: Name,
    /// The version label.
    pub version: String,
    /// The digest of the plugin's bytes.
    pub digest: Digest,
    /// The time of the latest upload.
    pub uploaded_at: Millis,
    /// The size of the component, in bytes.
    pub size: i64,
    /// The names of the plugin's nodes: JSON text.
    pub nodes: String,
}

impl Store {
    /// Lists graphs of a namespace.
    pub async fn list_graphs(
        &self,
        namespace: &Name,
        part: &PageRequest,
    ) -> Result<Page<GraphEntry>, StoreError> {
        let page_params = params![namespace.as_str(), part.after(), part.limit];
        let items = self.reader.rows(sql::GRAPH_LIST, &page_params, graph).await?;
        Ok(part.page(items, false, |graph| &graph.name))
    }

    /// Lists plugins of a namespace.
    pub async fn list_plugins(
        &self,
        namespace: &Name,
        part: &PageRequest,
    ) -> Result<Page<PluginEntry>, StoreError> {
        let page_params = params![namespace.as_str(), part.after(), part.limit, MAX_PAGE_BYTES];
        let items = self.reader.rows(sql::PLUGIN_LIST, &page_params, plugin).await?;
        let bytes: usize = items.iter().map(|plugin| plugin.nodes.len()).sum();
        Ok(part.page(items, bytes as i64 >= MAX_PAGE_BYTES, |plugin| &plugin.name))
    }

    /// Lists namespaces in the order of their names.
    pub async fn list_namespaces(
        &self,
        part: &PageRequest,
    ) -> Result<Page<NamespaceRow>, StoreError> {
        let page_params = params![part.after(), part.limit];
        let items = self.reader.rows(sql::NAMESPACE_LIST, &page_params, namespace).await?;
        Ok(part.page(items, false, |namespace| &namespace.name))
    }

    /// Lists the grants of a namespace's plugins.
    pub async fn list_grants(
        &self,
        namespace: &Name,
        part: &PageRequest,
    ) -> Result<Page<(Name, Grants)>, StoreError> {
        let page_params = params![namespace.as_str(), part.after(), part.limit, MAX_PAGE_BYTES];
        let read = |row: &dyn Row| Ok((granted(row)?, row.int(2)?));
        let rows = self.reader.rows(sql::GRANT_LIST, &page_params, read).await?;
        let is_cut = rows.iter().map(|(_, bytes)| bytes).sum::<i64>() >= MAX_PAGE_BYTES;
        let items = rows.into_iter().map(|(granted, _)| granted).collect();
        Ok(part.page(items, is_cut, |(plugin, _)| plugin))
    }

    /// Reads the grants of the plugins with this name.
    pub async fn grants_of(&self, namespace: &Name, plugin: &Name) -> Result<Grants, StoreError> {
        let params = params![namespace.as_str(), plugin.as_str()];
        let found = self.reader.row(sql::GRANTS_OF, &params, granted).await?;
        Ok(found.map(|(_, grants)| grants).unwrap_or_default())
    }
}

fn graph(row: &dyn Row) -> Result<GraphEntry, StoreError> {
    Ok(GraphEntry {
        name: to_name(row.text(0)?, "graph", "name")?,
        revision: row.int(1)?,
        created_at: row.int(2)?,
        nodes: row.int(3)?,
    })
}

fn plugin(row: &dyn Row) -> Result<PluginEntry, StoreError> {
    let digest = row.text(2)?;
    let nodes = row.text(5)?;
    check_stored(&nodes).map_err(|_| corrupt_row("plugin", "node_names", &digest))?;
    Ok(PluginEntry {
        name: to_name(row.text(0)?, "plugin", "name")?,
        version: row.text(1)?,
        digest: digest.parse().map_err(|_| corrupt_row("plugin", "digest", &digest))?,
        uploaded_at: row.int(3)?,
        size: row.int(4)?,
        nodes,
    })
}
