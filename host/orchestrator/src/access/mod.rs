//! Verification of API keys. A key that was used within the last second costs no query: the
//! cache holds its row, and a change on another host reaches it by a notification, or at the
//! latest when the row is read again.
//!
//! Not here: the role that a request needs (`exosphere-api`), and the management of keys
//! (`service::keys`).

pub(crate) mod admin_key;
pub(crate) mod key_cache;
pub(crate) mod upkeep;
mod wrong_keys;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::access::{Access, Actor};
use exosphere_domain::api_key::{ApiKey, MalformedKey};
use exosphere_domain::clock::Clock;
use exosphere_store::ApiKeyRow;
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use crate::Host;
use crate::error::{Effect, Error};
use key_cache::{Counted, KeyCache, Moment, RateExceeded};
pub(crate) use wrong_keys::WrongKeys;

/// The longest wait for the row of a key whose last known row would do.
const OUTAGE_WAIT: Duration = Duration::from_millis(500);

/// A caller whose key is valid.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The caller, for the audit log.
    pub actor: Arc<Actor>,
    /// The rights of the caller.
    pub access: Arc<Access>,
}

/// The reason why a caller is refused.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The text is not a key.
    #[error("{0}")]
    Malformed(MalformedKey),
    /// No key has this id and this secret.
    #[error("this key is not valid on this host")]
    Wrong,
    /// The key was revoked.
    #[error("this key was revoked")]
    Revoked,
    /// The key has expired.
    #[error("this key has expired")]
    Expired,
    /// The address has sent too many wrong keys, and too many such requests wait already.
    #[error("too many wrong keys came from this address")]
    TooManyWrong,
    /// The key is used more often than it may be.
    #[error("this key may send {per_second} requests a second, and sent more")]
    TooManyRequests {
        /// The rate of the key.
        per_second: u32,
        /// The time until the next request is taken.
        wait: Duration,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Failed(Error),
}

impl Host {
    /// Verifies a key from the cache alone. Returns `None` if that does not suffice.
    pub fn verify_cached(
        &self,
        text: &str,
        address: IpAddr,
    ) -> Option<Result<Caller, AccessError>> {
        self.look_up(text, address, KeyCache::use_cached)
    }

    /// Verifies a key by what was known of it, if the database is away.
    pub fn verify_in_outage(
        &self,
        text: &str,
        address: IpAddr,
    ) -> Option<Result<Caller, AccessError>> {
        self.inner.database_health().is_err().then(|| self.verify_last_known(text, address))?
    }

    /// Verifies a key, also if the database does not answer within [`OUTAGE_WAIT`]: then by what
    /// was known of it.
    ///
    /// # Errors
    ///
    /// If the key is not valid, or is used too often, or nothing is known of it.
    pub async fn verify_soon(&self, text: &str, address: IpAddr) -> Result<Caller, AccessError> {
        match timeout(OUTAGE_WAIT, self.verify(text, address)).await {
            Ok(Err(AccessError::Failed(error))) => {
                let last_known = self.verify_last_known(text, address);
                last_known.unwrap_or(Err(AccessError::Failed(error)))
            }
            Ok(verified) => verified,
            Err(_) => match self.verify_last_known(text, address) {
                Some(verified) => verified,
                None => self.verify(text, address).await,
            },
        }
    }

    fn verify_last_known(
        &self,
        text: &str,
        address: IpAddr,
    ) -> Option<Result<Caller, AccessError>> {
        self.look_up(text, address, KeyCache::use_in_outage)
    }

    /// Verifies a key from the cache, by one of the ways to look it up.
    fn look_up(
        &self,
        text: &str,
        address: IpAddr,
        use_key: fn(&KeyCache, &ApiKey, Moment, u32) -> Option<Counted>,
    ) -> Option<Result<Caller, AccessError>> {
        let key: ApiKey = text.parse().ok()?;
        let time = Moment { now: self.inner.db.clock.now(), at: Instant::now() };
        let keys = &self.inner.caches.api_keys;
        let counted = use_key(keys, &key, time, self.inner.settings.requests_per_key)?;
        Some(caller(&key, counted, address))
    }

    /// Verifies a key. The answer to a wrong one is delayed if its address has sent several.
    ///
    /// # Errors
    ///
    /// If the key is not valid, or is used too often, or the database cannot be asked.
    pub async fn verify(&self, text: &str, address: IpAddr) -> Result<Caller, AccessError> {
        let inner = &self.inner;
        let wrong = &inner.wrong_keys;
        let key: ApiKey = match text.parse() {
            Ok(key) => key,
            Err(malformed) => {
                wrong.refuse(address).await?;
                return Err(AccessError::Malformed(malformed));
            }
        };
        if let Some(verified) = self.verify_cached(text, address) {
            return verified;
        }
        // Before the query, so that an address cannot make the host ask without end. The holder of
        // a key that was valid shares the address, and not the delay.
        let was_valid = inner.caches.api_keys.knows(&key);
        let is_delayed = !was_valid && wrong.delay(address).await?;
        let read_at = Instant::now();
        let row = inner.db.store.api_key(key.id()).await;
        let row = row.map_err(|error| AccessError::Failed(not_verified(error.into())))?;
        let now = inner.db.clock.now();
        match row.ok_or(AccessError::Wrong).and_then(|row| check(&key, row, now)) {
            Ok(row) => {
                let (time, rate) =
                    (Moment { now, at: Instant::now() }, inner.settings.requests_per_key);
                let used = inner.caches.api_keys.use_row(row, read_at, time, rate);
                caller(&key, used, address)
            }
            Err(refusal) => {
                // Also if its row was removed. A wrong secret removes nothing.
                if was_valid {
                    inner.caches.api_keys.forget(key.id());
                }
                if is_delayed {
                    wrong.note(address);
                } else {
                    wrong.refuse(address).await?;
                }
                Err(refusal)
            }
        }
    }

    /// Returns a handle to this host that works for a caller: its changes are recorded as those of
    /// the caller.
    pub fn on_behalf_of(&self, caller: Caller) -> Host {
        Host { inner: self.inner.clone(), caller: Some(caller) }
    }

    /// Returns whether the caller of this handle still has the key and the rights with which its
    /// request began. A long stream asks for it once a second.
    pub async fn is_still_admitted(&self) -> bool {
        let Some(caller) = &self.caller else { return true };
        let Some(id) = caller.actor.key else { return true };
        let (inner, read_at) = (&self.inner, Instant::now());
        let time = Moment { now: inner.db.clock.now(), at: read_at };
        if let Some(access) = inner.caches.api_keys.access(id, time) {
            return access == caller.access;
        }
        match inner.db.store.api_key(id).await {
            Ok(Some(row)) if row.is_valid(time.now) => {
                inner.caches.api_keys.insert(row, read_at) == caller.access
            }
            Ok(_) => false,
            // The database is away, so that nothing can be read with the key either.
            Err(_) => true,
        }
    }

    /// Returns whether the caller of this handle may see payloads.
    pub fn may_show_payloads(&self) -> bool {
        self.caller.as_ref().is_none_or(|caller| caller.access.payloads)
    }
}

/// Returns the caller with a valid key whose request was counted.
fn caller(
    key: &ApiKey,
    counted: Result<Arc<Access>, RateExceeded>,
    address: IpAddr,
) -> Result<Caller, AccessError> {
    let access = counted.map_err(|RateExceeded { per_second, wait }| {
        AccessError::TooManyRequests { per_second, wait }
    })?;
    let actor = Actor { key: Some(key.id()), address: Some(address) };
    Ok(Caller { actor: Arc::new(actor), access })
}

/// Returns the error of a request whose key could not be looked up: it has had no effect.
fn not_verified(error: Error) -> Error {
    match error {
        Error::Unavailable => Error::Unanswered {
            effect: Effect::None,
            message: "not done: the database of the host does not answer, so it cannot verify the \
                      key; repeat the request"
                .to_owned(),
        },
        other => other,
    }
}

/// Compares a key with its row.
fn check(key: &ApiKey, row: ApiKeyRow, now: i64) -> Result<ApiKeyRow, AccessError> {
    if !is_secret_of(key, &row) {
        return Err(AccessError::Wrong);
    }
    // Only the holder of the secret learns these.
    if row.revoked_at.is_some() {
        return Err(AccessError::Revoked);
    }
    if !row.is_valid(now) {
        return Err(AccessError::Expired);
    }
    Ok(row)
}

/// Returns whether a key has the secret of a row, in constant time.
fn is_secret_of(key: &ApiKey, row: &ApiKeyRow) -> bool {
    key.digest().as_bytes().ct_eq(row.digest.as_bytes()).into()
}
