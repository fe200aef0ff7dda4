//! Lists of graphs, plugins, namespaces and grants, a page at a time, from columns
//! of their own. Not here: lists of runs and states (`view`), and whatever is
//! long: bodies of graphs, descriptions of plugins.

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Digest, Millis, Name};
use exosphere_domain::json::check_stored;

use crate::catalog::name;
use crate::error::StoreError;
use crate::namespaces::{NamespaceRow, granted, namespace};
use crate::rows::corrupt;
use crate::text::{Cells, values};
use crate::view::Page;
use crate::{Store, sql};

/// Bytes of a page's node names, or grants: where they are reached, the page ends.
const PAGE_BYTES: i64 = 1024 * 1024;

/// A part of a list, in the order of names.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The name after which it begins.
    pub after: Option<Name>,
    /// The most items in it.
    pub most: u32,
}

impl Part {
    /// Every name lies after ''.
    fn after(&self) -> &str {
        self.after.as_ref().map_or("", Name::as_str)
    }

    /// A page of items, the last of which is called so. It may have ended early.
    fn page<T>(&self, items: Vec<T>, is_cut: bool, last: fn(&T) -> &Name) -> Page<T> {
        let may_go_on = items.len() as u64 >= u64::from(self.most) || is_cut;
        let next = items.last().filter(|_| may_go_on).map(|item| last(item).to_string());
        Page { items, next }
    }
}

/// A graph, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphEntry {
    /// Its name.
    pub name: Name,
    /// The number of its current revision.
    pub revision: i64,
    /// When that was made.
    pub created_at: Millis,
    /// Nodes that it has.
    pub nodes: i64,
}

/// A plugin, as it is listed: its newest upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginEntry {
    /// Its name.
    pub name: Name,
    /// Its label.
    pub version: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// When it was uploaded last.
    pub uploaded_at: Millis,
    /// Bytes.
    pub size: i64,
    /// The names of its nodes: JSON text.
    pub nodes: String,
}

impl Store {
    /// Lists graphs of a namespace.
    pub async fn list_graphs(
        &self,
        namespace: &Name,
        part: &Part,
    ) -> Result<Page<GraphEntry>, StoreError> {
        let wanted = values![namespace.as_str(), part.after(), part.most];
        let items = self.reader.rows(sql::GRAPH_LIST, &wanted, graph).await?;
        Ok(part.page(items, false, |graph| &graph.name))
    }

    /// Lists plugins of a namespace.
    pub async fn list_plugins(
        &self,
        namespace: &Name,
        part: &Part,
    ) -> Result<Page<PluginEntry>, StoreError> {
        let wanted = values![namespace.as_str(), part.after(), part.most, PAGE_BYTES];
        let items = self.reader.rows(sql::PLUGIN_LIST, &wanted, plugin).await?;
        let bytes: usize = items.iter().map(|plugin| plugin.nodes.len()).sum();
        Ok(part.page(items, bytes as i64 >= PAGE_BYTES, |plugin| &plugin.name))
    }

    /// Lists namespaces.
    pub async fn list_namespaces(&self, part: &Part) -> Result<Page<NamespaceRow>, StoreError> {
        let wanted = values![part.after(), part.most];
        let items = self.reader.rows(sql::NAMESPACE_LIST, &wanted, namespace).await?;
        Ok(part.page(items, false, |namespace| &namespace.name))
    }

    /// Lists what plugins of a namespace are granted.
    pub async fn list_grants(
        &self,
        namespace: &Name,
        part: &Part,
    ) -> Result<Page<(Name, Grants)>, StoreError> {
        let wanted = values![namespace.as_str(), part.after(), part.most, PAGE_BYTES];
        let read = |row: &dyn Cells| Ok((granted(row)?, row.int(2)?));
        let rows = self.reader.rows(sql::GRANT_LIST, &wanted, read).await?;
        let is_cut = rows.iter().map(|(_, bytes)| bytes).sum::<i64>() >= PAGE_BYTES;
        let items = rows.into_iter().map(|(granted, _)| granted).collect();
        Ok(part.page(items, is_cut, |(plugin, _)| plugin))
    }

    /// Reads what the plugins of one name are granted.
    pub async fn grants_of(&self, namespace: &Name, plugin: &Name) -> Result<Grants, StoreError> {
        let place = values![namespace.as_str(), plugin.as_str()];
        let found = self.reader.row(sql::GRANTS_OF, &place, granted).await?;
        Ok(found.map(|(_, grants)| grants).unwrap_or_default())
    }
}

fn graph(row: &dyn Cells) -> Result<GraphEntry, StoreError> {
    Ok(GraphEntry {
        name: name(row.text(0)?, "graph", "name")?,
        revision: row.int(1)?,
        created_at: row.int(2)?,
        nodes: row.int(3)?,
    })
}

fn plugin(row: &dyn Cells) -> Result<PluginEntry, StoreError> {
    let digest = row.text(2)?;
    let nodes = row.text(5)?;
    check_stored(&nodes).map_err(|_| corrupt("plugin", "node_names", &digest))?;
    Ok(PluginEntry {
        name: name(row.text(0)?, "plugin", "name")?,
        version: row.text(1)?,
        digest: digest.parse().map_err(|_| corrupt("plugin", "digest", &digest))?,
        uploaded_at: row.int(3)?,
        size: row.int(4)?,
        nodes,
    })
}
