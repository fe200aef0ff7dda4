//! Reads of a graph's revisions. Not here: how a revision is made (`catalog`).

use exosphere_domain::ids::{Digest, Millis, Name};

use crate::catalog::{GraphRow, graph};
use crate::codec::read_int;
use crate::dialect::{Row, params};
use crate::error::StoreError;
use crate::reads::views::Page;
use crate::{Store, sql};

/// A revision of a graph, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionEntry {
    /// The number of the revision, from 1.
    pub number: i64,
    /// The digest of the revision's body.
    pub digest: String,
    /// The time at which the revision was created.
    pub created_at: Millis,
    /// Set if it is the current revision of its graph.
    pub is_current: bool,
}

impl Store {
    /// Lists revisions of a graph, the newest first: those before a number, `limit` at most.
    pub async fn revisions(
        &self,
        namespace: &Name,
        name: &Name,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<RevisionEntry>, StoreError> {
        let page = params![namespace.as_str(), name.as_str(), before, limit];
        let items = self.reader.rows(sql::REVISION_LIST, &page, entry).await?;
        let is_full = items.len() as u32 == limit;
        let next = items.last().filter(|last| is_full && last.number > 1);
        let next = next.map(|last| last.number.to_string());
        Ok(Page { items, next })
    }

    /// Returns the bytes of a revision's body; 0 if the revision does not exist.
    pub async fn revision_size(
        &self,
        namespace: &Name,
        name: &Name,
        number: i64,
    ) -> Result<i64, StoreError> {
        let revision = params![namespace.as_str(), name.as_str(), number];
        let size = self.reader.row(sql::REVISION_SIZE, &revision, read_int).await?;
        Ok(size.unwrap_or_default())
    }

    /// Reads a revision of a graph by its number.
    pub async fn revision(
        &self,
        namespace: &Name,
        name: &Name,
        number: i64,
    ) -> Result<Option<GraphRow>, StoreError> {
        let revision = params![namespace.as_str(), name.as_str(), number];
        self.reader.row(sql::GRAPH_REVISION, &revision, graph).await
    }

    /// Returns whether a plugin of a namespace has an upload with a digest.
    pub async fn has_upload(
        &self,
        namespace: &Name,
        plugin: &Name,
        digest: Digest,
    ) -> Result<bool, StoreError> {
        let digest = digest.to_string();
        let upload = params![namespace.as_str(), plugin.as_str(), &digest];
        Ok(self.reader.row(sql::KNOWN_PLUGIN, &upload, read_int).await?.is_some())
    }
}

fn entry(row: &dyn Row) -> Result<RevisionEntry, StoreError> {
    Ok(RevisionEntry {
        number: row.int(0)?,
        digest: row.text(1)?,
        created_at: row.int(2)?,
        is_current: row.int(3)? == 1,
    })
}
