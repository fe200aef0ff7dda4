//! The audit log: a row per change that a caller made, in the transaction of the change.
//!
//! Not here: starts of runs, each of which names its key in `run.started_by`.

use std::sync::Arc;

use exosphere_domain::access::Actor;
use exosphere_domain::ids::{Digest, Millis, Name};

use crate::codec::to_name;
use crate::dialect::{Cursor, Row, Tx, params};
use crate::error::StoreError;
use crate::{Store, in_transaction, sql};

/// A row of the audit log, before the change.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    actor: Arc<Actor>,
    action: &'static str,
    namespace: Option<Name>,
    object: String,
}

impl AuditEntry {
    /// Returns the id of the caller's key, if it has one.
    pub(crate) fn key(&self) -> Option<String> {
        self.actor.key.map(|key| key.to_string())
    }
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The number of the row.
    pub id: i64,
    /// The time of the change.
    pub at: Millis,
    /// The id of the caller's key.
    pub key: Option<String>,
    /// The address of the caller.
    pub address: Option<String>,
    /// The change: `graph apply`, `run cancel`..
    pub action: String,
    /// The namespace of the changed object, if it is in one.
    pub namespace: Option<Name>,
    /// The changed object.
    pub object: String,
    /// The digest of the object before the change.
    pub before: Option<String>,
    /// The digest of the object after the change.
    pub after: Option<String>,
}

/// A filter and a page of the audit log.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// The cursor: only rows before this number.
    pub before: Option<i64>,
    /// Only changes with this key.
    pub key: Option<String>,
    /// Only changes in this namespace.
    pub namespace: Option<Name>,
    /// Only changes of this kind.
    pub action: Option<String>,
    /// The maximum number of rows.
    pub limit: u32,
}

impl Store {
    /// Returns a handle to the same database whose changes are recorded as those of a caller.
    pub fn on_behalf_of(&self, actor: Arc<Actor>) -> Store {
        Store { actor: Some(actor), ..self.clone() }
    }

    /// Returns the row for a change by the caller of this handle, if it has one.
    pub fn audit_entry(
        &self,
        action: &'static str,
        namespace: Option<&Name>,
        object: impl ToString,
    ) -> Option<AuditEntry> {
        let actor = self.actor.clone()?;
        Some(AuditEntry {
            actor,
            action,
            namespace: namespace.cloned(),
            object: object.to_string(),
        })
    }

    /// Records a change whose own transaction could not.
    pub async fn record_audit(&self, entry: AuditEntry, now: Millis) -> Result<(), StoreError> {
        in_transaction!(self, now, |tx| record(tx, Some(&entry), None, None))
    }

    /// Lists the audit log, the newest first.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let params = params![
            filter.before.unwrap_or(i64::MAX),
            filter.key.as_deref().unwrap_or_default(),
            filter.namespace.as_ref().map_or("", Name::as_str),
            filter.action.as_deref().unwrap_or_default(),
            filter.limit,
        ];
        self.reader.rows(sql::AUDIT_LIST, &params, read).await
    }

    /// Deletes up to `limit` rows from before a time; returns their number.
    pub async fn expire_audit(
        &self,
        before: Millis,
        limit: u32,
        now: Millis,
    ) -> Result<u64, StoreError> {
        in_transaction!(self, now, |tx| expire(tx, before, limit))
    }
}

async fn expire(tx: &mut impl Tx, before: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.execute(sql::EXPIRE_AUDIT, &params![before, limit]).await
}

/// Records a change with the digests of the object before and after it. Without an entry, it does
/// nothing.
pub(crate) async fn record(
    tx: &mut impl Tx,
    entry: Option<&AuditEntry>,
    before: Option<&Digest>,
    after: Option<&Digest>,
) -> Result<(), StoreError> {
    let Some(AuditEntry { actor, action, namespace, object }) = entry else { return Ok(()) };
    let address = actor.address.map(|address| address.to_string());
    let (before, after) = (before.map(Digest::to_string), after.map(Digest::to_string));
    let now = tx.now();
    let row = params![
        now,
        actor.key.as_ref().map(|key| key.as_str()),
        address.as_deref(),
        *action,
        namespace.as_ref().map(Name::as_str),
        object,
        before.as_deref(),
        after.as_deref(),
    ];
    tx.execute(sql::AUDIT, &row).await.map(drop)
}

fn read(row: &dyn Row) -> Result<AuditRow, StoreError> {
    let columns = &mut Cursor::new(row, "audit");
    let (id, at) = (columns.next("id")?, columns.next("at")?);
    let (key, address) = (columns.next("key")?, columns.next("address")?);
    let action = columns.next("action")?;
    let namespace = columns.next::<Option<String>>("namespace")?;
    Ok(AuditRow {
        id,
        at,
        key,
        address,
        action,
        namespace: namespace.map(|name| to_name(name, "audit", "namespace")).transpose()?,
        object: columns.next("object")?,
        before: columns.next("before")?,
        after: columns.next("after")?,
    })
}
