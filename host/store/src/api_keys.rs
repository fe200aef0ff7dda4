//! Keys of the API: what a database knows of them. That does not suffice to use one.
//!
//! Not here: the text of a key (`exosphere_domain::api_key`), and its verification
//! (`exosphere-orchestrator`).

use exosphere_domain::access::{Access, NamespaceScope};
use exosphere_domain::api_key::ApiKeyId;
use exosphere_domain::ids::{Digest, Millis, Name};

use crate::audit::{self, AuditEntry};
use crate::codec::read_int;
use crate::dialect::{Cursor, ParamRows, Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::id_blocks::reserve;
use crate::{Store, in_transaction, sql};

/// The maximum number of keys of a database, revoked ones included.
pub const MAX_API_KEYS: i64 = 10_000;

/// A key to store.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// The id of the key.
    pub id: ApiKeyId,
    /// The digest of its secret.
    pub digest: Digest,
    /// The rights of the key.
    pub access: Access,
    /// The label, for people.
    pub label: String,
    /// The rate at which a host takes requests with it, if not the default.
    pub requests_per_second: Option<u32>,
    /// The time from which it is refused.
    pub expires_at: Option<Millis>,
}

/// A stored key.
#[derive(Debug, Clone)]
pub struct ApiKeyRow {
    /// The id of the key.
    pub id: ApiKeyId,
    /// The digest of its secret.
    pub digest: Digest,
    /// The rights of the key.
    pub access: Access,
    /// The label, for people.
    pub label: String,
    /// The rate at which a host takes requests with it, if not the default.
    pub requests_per_second: Option<u32>,
    /// The time at which it was created.
    pub created_at: Millis,
    /// The time from which it is refused.
    pub expires_at: Option<Millis>,
    /// The time of its last use, to the minute.
    pub used_at: Option<Millis>,
    /// The time at which it was revoked.
    pub revoked_at: Option<Millis>,
}

impl ApiKeyRow {
    /// Returns whether the key is valid at a time.
    pub fn is_valid(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// The result of storing a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCreation {
    /// The key was stored.
    Done,
    /// The database has as many keys as it may have.
    TooMany,
}

/// The result of revoking a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The key is revoked.
    Done,
    /// It was revoked before.
    Again,
    /// There is no such key.
    Missing,
    /// It is the last key that can create keys.
    Last,
}

impl Store {
    /// Reads a key, if it exists.
    pub async fn api_key(&self, id: ApiKeyId) -> Result<Option<ApiKeyRow>, StoreError> {
        self.reader.row(sql::API_KEY, &params![id.as_str()], read).await
    }

    /// Lists up to `limit` keys in the order of their ids.
    pub async fn api_keys(
        &self,
        after: Option<ApiKeyId>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRow>, StoreError> {
        let after = after.as_ref().map_or("", ApiKeyId::as_str);
        self.reader.rows(sql::API_KEYS, &params![after, limit], read).await
    }

    /// Counts the keys of the database, revoked ones included.
    pub async fn count_api_keys(&self) -> Result<i64, StoreError> {
        Ok(self.reader.row(sql::COUNT_API_KEYS, &[], read_int).await?.unwrap_or_default())
    }

    /// Stores a key.
    pub async fn create_api_key(
        &self,
        new: NewApiKey,
        now: Millis,
    ) -> Result<KeyCreation, StoreError> {
        let audit = self.audit_entry("key create", None, new.id.as_str());
        in_transaction!(self, now, |tx| create(tx, &new, audit.as_ref(), MAX_API_KEYS))
    }

    /// Stores the first key of a database. Returns `false` if it has keys already: one of several
    /// hosts that start together succeeds.
    pub async fn create_first_api_key(
        &self,
        new: NewApiKey,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let created = in_transaction!(self, now, |tx| create(tx, &new, None, 1))?;
        Ok(created == KeyCreation::Done)
    }

    /// Revokes a key for good.
    pub async fn revoke_api_key(
        &self,
        id: ApiKeyId,
        now: Millis,
    ) -> Result<Revocation, StoreError> {
        let audit = self.audit_entry("key revoke", None, id.as_str());
        in_transaction!(self, now, |tx| revoke(tx, id, audit.as_ref()))
    }

    /// Deletes the keys that were revoked or have expired before a time; returns their number.
    pub async fn expire_api_keys(&self, before: Millis, now: Millis) -> Result<u64, StoreError> {
        in_transaction!(self, now, |tx| expire(tx, before))
    }

    /// Records the last use of keys.
    pub async fn record_key_uses(
        &self,
        uses: Vec<(ApiKeyId, Millis)>,
        now: Millis,
    ) -> Result<(), StoreError> {
        in_transaction!(self, now, |tx| record_uses(tx, &uses))
    }
}

async fn expire(tx: &mut impl Tx, before: Millis) -> Result<u64, StoreError> {
    lock(tx).await?;
    tx.execute(sql::EXPIRE_API_KEYS, &params![before]).await
}

async fn record_uses(tx: &mut impl Tx, uses: &[(ApiKeyId, Millis)]) -> Result<(), StoreError> {
    let rows = ParamRows::default()
        .texts(uses.iter().map(|(id, _)| id.as_str()))
        .ints(uses.iter().map(|(_, at)| *at));
    tx.execute_each(sql::USE_API_KEYS, &rows).await.map(drop)
}

async fn create(
    tx: &mut impl Tx,
    new: &NewApiKey,
    audit: Option<&AuditEntry>,
    max_keys: i64,
) -> Result<KeyCreation, StoreError> {
    lock(tx).await?;
    let count = tx.query(sql::COUNT_API_KEYS, &[], read_int).await?.pop().unwrap_or_default();
    if count >= max_keys {
        return Ok(KeyCreation::TooMany);
    }
    let Access { role, namespaces, payloads } = &new.access;
    let namespaces = match namespaces {
        NamespaceScope::All => None,
        NamespaceScope::Only(names) => {
            let names: Vec<_> = names.iter().map(Name::as_str).collect();
            Some(names.join(","))
        }
    };
    let digest = new.digest.to_string();
    let now = tx.now();
    let row = params![
        new.id.as_str(),
        &digest,
        role.as_str(),
        namespaces.as_deref(),
        i64::from(*payloads),
        &new.label,
        new.requests_per_second.map(i64::from),
        now,
        new.expires_at,
    ];
    tx.execute(sql::NEW_API_KEY, &row).await?;
    audit::record(tx, audit, None, None).await?;
    Ok(KeyCreation::Done)
}

async fn revoke(
    tx: &mut impl Tx,
    id: ApiKeyId,
    audit: Option<&AuditEntry>,
) -> Result<Revocation, StoreError> {
    lock(tx).await?;
    let now = tx.now();
    let Some(row) = tx.query(sql::API_KEY, &params![id.as_str()], read).await?.pop() else {
        return Ok(Revocation::Missing);
    };
    if row.revoked_at.is_some() {
        return Ok(Revocation::Again);
    }
    let params = params![id.as_str(), now];
    let others = tx.query(sql::OTHER_ADMIN_KEYS, &params, read_int).await?.pop();
    if others.unwrap_or_default() == 0 {
        return Ok(Revocation::Last);
    }
    tx.execute(sql::REVOKE_API_KEY, &params).await?;
    audit::record(tx, audit, None, None).await?;
    Ok(Revocation::Done)
}

/// Makes the transactions that count keys follow each other: each takes no number, which locks
/// the row of the numbers of hosts.
async fn lock(tx: &mut impl Tx) -> Result<(), StoreError> {
    reserve(tx, "host", 0).await.map(drop)
}

fn read(row: &dyn Row) -> Result<ApiKeyRow, StoreError> {
    let columns = &mut Cursor::new(row, "api_key");
    let id: String = columns.next("id")?;
    let corrupt = |column| corrupt_row("api_key", column, &id);
    let digest: String = columns.next("digest")?;
    let digest: Digest = digest.parse().map_err(|_| corrupt("digest"))?;
    let role: String = columns.next("role")?;
    let namespaces = match columns.next::<Option<String>>("namespaces")? {
        None => NamespaceScope::All,
        Some(names) => {
            let names: Result<_, _> = names.split(',').map(str::parse).collect();
            NamespaceScope::Only(names.map_err(|_| corrupt("namespaces"))?)
        }
    };
    let payloads = columns.next("payloads")?;
    Ok(ApiKeyRow {
        digest,
        access: Access { role: role.parse().map_err(|_| corrupt("role"))?, namespaces, payloads },
        label: columns.next("label")?,
        requests_per_second: columns.next("requests_per_second")?,
        created_at: columns.next("created_at")?,
        expires_at: columns.next("expires_at")?,
        used_at: columns.next("used_at")?,
        revoked_at: columns.next("revoked_at")?,
        id: id.parse().map_err(|_| corrupt("id"))?,
    })
}
