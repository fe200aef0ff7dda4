//! Management of API keys, and the audit log.
//!
//! Not here: verification (`access`).

use exosphere_domain::access::{Access, NamespaceScope};
use exosphere_domain::api_key::{ApiKey, ApiKeyId};
use exosphere_domain::clock::Clock;
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::Millis;
use exosphere_store::{
    ApiKeyRow, AuditFilter, AuditRow, KeyCreation, MAX_API_KEYS, NewApiKey, Page, Revocation,
};

use crate::Host;
use crate::error::Error;
use crate::system;

/// The longest label of a key, in characters.
const MAX_LABEL_CHARS: usize = 128;

/// The maximum number of namespaces of a key.
const MAX_NAMESPACES: usize = 1_000;

/// The longest life of a key that expires, in milliseconds: ten years.
const MAX_LIFE_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;

/// A request for a key.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// The label, for people.
    pub label: String,
    /// The rights of the key.
    pub access: Access,
    /// The rate at which a host takes requests with it, if not the default.
    pub requests_per_second: Option<u32>,
    /// The time after which it expires, in milliseconds.
    pub expires_in_ms: Option<u64>,
}

/// A new key. Its secret is nowhere else.
#[derive(Debug)]
pub struct CreatedKey {
    /// The key itself.
    pub key: ApiKey,
    /// The key as it is stored.
    pub row: ApiKeyRow,
}

impl Host {
    /// Creates a key.
    pub async fn create_key(&self, request: KeyRequest) -> Result<CreatedKey, Error> {
        let problems = problems(&request);
        if !problems.is_empty() {
            return Err(Error::Invalid { subject: "the key".to_owned(), problems });
        }
        let now = self.inner.db.clock.now();
        let KeyRequest { label, access, requests_per_second, expires_in_ms } = request;
        let life = expires_in_ms.map(|life| Millis::try_from(life).unwrap_or(Millis::MAX));
        let expires_at = life.map(|life| now.saturating_add(life));
        let key = ApiKey::generate(system::fill_random);
        let (id, digest) = (key.id(), key.digest());
        let new = NewApiKey { id, digest, access, label, requests_per_second, expires_at };
        match self.store().create_api_key(new, now).await? {
            KeyCreation::Done => {}
            KeyCreation::TooMany => {
                return Err(Error::Conflict(format!(
                    "the database has {MAX_API_KEYS} keys, which is the most; keys that were revoked \
                     or have expired are deleted when the audit log no longer keeps their time \
                     (`exosphere serve --audit-days`)"
                )));
            }
        }
        let row = self.inner.db.store.api_key(id).await?;
        Ok(CreatedKey { key, row: row.ok_or_else(|| Error::not_found("key", id))? })
    }

    /// Lists keys in the order of their ids.
    pub async fn keys(
        &self,
        after: Option<ApiKeyId>,
        limit: u32,
    ) -> Result<Page<ApiKeyRow>, Error> {
        let items = self.inner.db.store.api_keys(after, limit).await?;
        let is_last = items.len() < limit as usize;
        let next = items.last().filter(|_| !is_last).map(|row| row.id.to_string());
        Ok(Page { items, next })
    }

    /// Revokes a key for good, on every host within a second.
    pub async fn revoke_key(&self, id: ApiKeyId) -> Result<ApiKeyRow, Error> {
        let inner = &self.inner;
        match self.store().revoke_api_key(id, inner.db.clock.now()).await? {
            Revocation::Done | Revocation::Again => {}
            Revocation::Missing => return Err(Error::not_found("key", id)),
            Revocation::Last => {
                let message = "this is the last key that can create keys; create another first: \
                               `exosphere key create --role admin`";
                return Err(Error::Conflict(message.to_owned()));
            }
        }
        inner.caches.api_keys.expire();
        inner.cluster.notifier.keys_changed();
        let row = inner.db.store.api_key(id).await?;
        row.ok_or_else(|| Error::not_found("key", id))
    }

    /// Lists the audit log, the newest first.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, Error> {
        let items = self.inner.db.store.audit(filter).await?;
        if items.is_empty()
            && filter.before.is_none()
            && let Some(namespace) = &filter.namespace
        {
            self.check_namespace(namespace).await?;
        }
        let is_last = items.len() < filter.limit as usize;
        let next = items.last().filter(|_| !is_last).map(|row| row.id.to_string());
        Ok(Page { items, next })
    }
}

fn problems(request: &KeyRequest) -> Vec<Problem> {
    let KeyRequest { label, access, requests_per_second, expires_in_ms } = request;
    let mut problems = Vec::new();
    let mut add = |path: &str, message: String| {
        problems.push(Problem { path: path.to_owned(), message });
    };
    if label.is_empty()
        || label.chars().count() > MAX_LABEL_CHARS
        || label.chars().any(char::is_control)
    {
        let message = format!(
            "say what the key is for, in 1 to {MAX_LABEL_CHARS} characters without control characters"
        );
        add("$.label", message);
    }
    if let NamespaceScope::Only(names) = &access.namespaces
        && !(1..=MAX_NAMESPACES).contains(&names.len())
    {
        let message = format!("name 1 to {MAX_NAMESPACES} namespaces, or give [\"*\"] for all");
        add("$.namespaces", message);
    }
    if *requests_per_second == Some(0) {
        add("$.requests_per_second", "a rate is at least 1; leave it out for the default".into());
    }
    if expires_in_ms.is_some_and(|life| !(1..=MAX_LIFE_MS).contains(&life)) {
        add("$.expires_in_ms", format!("a key lives 1 to {MAX_LIFE_MS} ms; leave it out for ever"));
    }
    problems
}
