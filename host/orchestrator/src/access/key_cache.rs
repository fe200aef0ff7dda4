//! A cache of the keys that were used within the last second, with the request rate of each.
//!
//! Not here: reads of the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::access::Access;
use exosphere_domain::api_key::{ApiKey, ApiKeyId};
use exosphere_domain::ids::Millis;
use exosphere_domain::rate_limit::{RateLimit, RateState};
use exosphere_store::ApiKeyRow;
use parking_lot::Mutex;

use super::is_secret_of;
use crate::cache::{Cache, MAX_CACHE_ENTRIES};
use crate::rates::micros_between;

/// Age at which one caller reads the row again, while the others use it.
const REFRESH_AGE: Duration = Duration::from_millis(500);

/// Age at which no caller uses a row. A revocation on another host counts within this time, even if
/// its notification is lost.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Age at which a row counts no longer even while the database is away.
const MAX_OUTAGE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Precision of the recorded time of a key's last use, in milliseconds.
const USE_PRECISION_MS: Millis = 60_000;

/// The cache of keys.
pub(crate) struct KeyCache {
    entries: Cache<ApiKeyId, CachedKey>,
    /// Last uses that are not in the database yet.
    uses: Mutex<HashMap<ApiKeyId, Millis>>,
    begun: Instant,
    /// The time of the last change of any key: rows that were read before it are not used.
    changed_at: Mutex<Option<Instant>>,
}

/// The time of a request, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The host's clock.
    pub now: Millis,
    /// The monotonic clock.
    pub at: Instant,
}

struct CachedKey {
    read_at: Instant,
    is_refreshing: bool,
    row: ApiKeyRow,
    access: Arc<Access>,
    /// The request rate of the key on this host. It outlives a row that is read again.
    rate: Arc<Mutex<RateState>>,
    recorded_at: Millis,
}

/// The refusal of a valid key that is used too often.
#[derive(Debug)]
pub(crate) struct RateExceeded {
    /// The rate of the key.
    pub per_second: u32,
    /// The time until the next request is taken.
    pub wait: Duration,
}

/// The access of a valid key, or its refusal.
pub(crate) type Counted = Result<Arc<Access>, RateExceeded>;

impl Default for KeyCache {
    fn default() -> Self {
        KeyCache {
            entries: Cache::from_entry_count(MAX_CACHE_ENTRIES),
            uses: Mutex::default(),
            begun: Instant::now(),
            changed_at: Mutex::default(),
        }
    }
}

impl KeyCache {
    /// Looks up a key, and counts a request with it. Returns nothing if the cache does not tell
    /// whether the key is valid.
    pub(crate) fn use_cached(
        &self,
        key: &ApiKey,
        time: Moment,
        default_rate: u32,
    ) -> Option<Counted> {
        let counted = self.with_fresh(key.id(), time.at, |entry| {
            let is_valid = is_secret_of(key, &entry.row) && entry.row.is_valid(time.now);
            is_valid.then(|| self.count(entry, time, default_rate))
        });
        counted.flatten()
    }

    /// Returns the access of a key that was valid before; nothing if the cache does not tell.
    pub(crate) fn access(&self, id: ApiKeyId, time: Moment) -> Option<Arc<Access>> {
        let access = self.with_fresh(id, time.at, |entry| {
            entry.row.is_valid(time.now).then(|| entry.access.clone())
        });
        access.flatten()
    }

    /// Returns whether a key was valid when its row was read last, with its secret.
    pub(crate) fn knows(&self, key: &ApiKey) -> bool {
        self.entries.update(&key.id(), |entry| is_secret_of(key, &entry.row)).unwrap_or(false)
    }

    /// Removes a key that is not valid any more.
    pub(crate) fn forget(&self, id: ApiKeyId) {
        self.entries.remove(&id);
    }

    /// Looks at the row of a key, unless it must be read again before it is used.
    fn with_fresh<T>(
        &self,
        id: ApiKeyId,
        at: Instant,
        look: impl FnOnce(&mut CachedKey) -> T,
    ) -> Option<T> {
        let changed_at = *self.changed_at.lock();
        let looked = self.entries.update(&id, |entry| {
            let age = at.saturating_duration_since(entry.read_at);
            let must_refresh = age >= REFRESH_AGE && !entry.is_refreshing;
            let is_outdated = changed_at.is_some_and(|changed_at| changed_at >= entry.read_at);
            if age >= MAX_AGE || must_refresh || is_outdated {
                entry.is_refreshing = true;
                return None;
            }
            Some(look(entry))
        });
        looked.flatten()
    }

    /// Looks up a key that cannot be read again, because the database is away: it is valid if it was
    /// when it was read last, and nothing is known of a change since then.
    pub(crate) fn use_in_outage(
        &self,
        key: &ApiKey,
        time: Moment,
        default_rate: u32,
    ) -> Option<Counted> {
        let Moment { now, at } = time;
        let changed_at = *self.changed_at.lock();
        let counted = self.entries.update(&key.id(), |entry| {
            let age = at.saturating_duration_since(entry.read_at);
            let is_outdated = changed_at.is_some_and(|changed_at| changed_at >= entry.read_at);
            let is_valid = is_secret_of(key, &entry.row) && entry.row.is_valid(now);
            let is_usable = age < MAX_OUTAGE_AGE && !is_outdated && is_valid;
            is_usable.then(|| self.count(entry, time, default_rate))
        });
        counted.flatten()
    }

    /// Caches the row of a valid key that was read at a time, and counts a request with it.
    pub(crate) fn use_row(
        &self,
        row: ApiKeyRow,
        read_at: Instant,
        time: Moment,
        default_rate: u32,
    ) -> Counted {
        let id = row.id;
        let access = self.insert(row, read_at);
        let counted = self.entries.update(&id, |entry| self.count(entry, time, default_rate));
        // Other keys may have taken its place already.
        counted.unwrap_or(Ok(access))
    }

    /// Counts a request with a valid key.
    fn count(&self, entry: &mut CachedKey, time: Moment, default_rate: u32) -> Counted {
        let Moment { now, at } = time;
        if now.saturating_sub(entry.recorded_at) >= USE_PRECISION_MS {
            entry.recorded_at = now;
            self.uses.lock().insert(entry.row.id, now);
        }
        let per_second = entry.row.requests_per_second.unwrap_or(default_rate);
        let limit = RateLimit::new(u64::from(per_second), 1, u64::from(per_second));
        match limit.admit(&mut entry.rate.lock(), micros_between(self.begun, at)) {
            Ok(()) => Ok(entry.access.clone()),
            Err(wait) => Err(RateExceeded { per_second, wait: Duration::from_micros(wait) }),
        }
    }

    /// Caches a row that was read at a time, and returns its access.
    pub(crate) fn insert(&self, row: ApiKeyRow, read_at: Instant) -> Arc<Access> {
        let known = self.entries.update(&row.id, |entry| (entry.rate.clone(), entry.recorded_at));
        let (rate, recorded_at) = known.unwrap_or_default();
        let access = Arc::new(row.access.clone());
        let entry = CachedKey {
            read_at,
            is_refreshing: false,
            access: access.clone(),
            rate,
            recorded_at: recorded_at.max(row.used_at.unwrap_or_default()),
            row,
        };
        self.entries.insert(entry.row.id, entry, 0);
        access
    }

    /// Makes every row be read again before it is used, also one that is being read now. The rates
    /// stay.
    pub(crate) fn expire(&self) {
        *self.changed_at.lock() = Some(Instant::now());
    }

    /// Takes the last uses that are to be recorded.
    pub(crate) fn take_uses(&self) -> Vec<(ApiKeyId, Millis)> {
        self.uses.lock().drain().collect()
    }
}

#[cfg(test)]
mod tests {
    use exosphere_domain::ids::Digest;

    use super::*;

    fn key(seed: u8) -> ApiKey {
        ApiKey::generate(|bytes| bytes.iter_mut().for_each(|byte| *byte = seed))
    }

    fn row(key: &ApiKey) -> ApiKeyRow {
        ApiKeyRow {
            id: key.id(),
            digest: key.digest(),
            access: Access::full(),
            label: String::new(),
            requests_per_second: None,
            created_at: 0,
            expires_at: Some(1_000),
            used_at: None,
            revoked_at: None,
        }
    }

    /// A cache with the key, and a way to look it up at a time.
    struct Fixture {
        cache: KeyCache,
        key: ApiKey,
        begun: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Fixture { cache: KeyCache::default(), key: key(1), begun: Instant::now() }
        }

        fn insert(&self, row: ApiKeyRow, after: Duration) {
            self.cache.insert(row, self.begun + after);
        }

        fn look_up(&self, now: Millis, after: Duration) -> Option<Counted> {
            self.cache.use_cached(&self.key, Moment { now, at: self.begun + after }, 100)
        }

        fn is_valid(&self, now: Millis, after: Duration) -> bool {
            matches!(self.look_up(now, after), Some(Ok(_)))
        }
    }

    #[test]
    fn a_key_is_known_by_its_secret_until_it_is_forgotten() {
        let fixture = Fixture::new();
        assert!(!fixture.cache.knows(&fixture.key));
        fixture.insert(row(&fixture.key), Duration::ZERO);
        assert!(fixture.cache.knows(&fixture.key) && !fixture.is_valid(0, MAX_AGE));
        let guess = ApiKeyRow { digest: key(2).digest(), ..row(&fixture.key) };
        fixture.insert(guess, Duration::ZERO);
        assert!(!fixture.cache.knows(&fixture.key), "the secret is another");
        fixture.insert(row(&fixture.key), Duration::ZERO);
        fixture.cache.forget(fixture.key.id());
        assert!(!fixture.cache.knows(&fixture.key));
    }

    #[test]
    fn a_cached_key_is_valid_for_a_second() {
        let fixture = Fixture::new();
        let row = row(&fixture.key);
        assert!(!fixture.is_valid(0, Duration::ZERO));
        fixture.insert(row.clone(), Duration::ZERO);
        assert!(fixture.is_valid(0, Duration::ZERO));
        assert!(!fixture.is_valid(1_000, Duration::ZERO), "it has expired");
        assert!(!fixture.is_valid(0, REFRESH_AGE), "the first caller reads it again");
        assert!(fixture.is_valid(0, REFRESH_AGE), "the others do not wait");
        assert!(!fixture.is_valid(0, MAX_AGE), "the read has not come back");
        fixture.insert(row, MAX_AGE);
        assert!(fixture.is_valid(0, MAX_AGE));
    }

    #[test]
    fn a_key_stays_known_during_an_outage() {
        let fixture = Fixture::new();
        let known = |now, after| {
            let time = Moment { now, at: fixture.begun + after };
            matches!(fixture.cache.use_in_outage(&fixture.key, time, 100), Some(Ok(_)))
        };
        let row = row(&fixture.key);
        assert!(!known(0, Duration::ZERO), "it was never read");
        fixture.insert(row.clone(), Duration::ZERO);
        assert!(known(0, MAX_OUTAGE_AGE / 2) && !known(0, MAX_OUTAGE_AGE));
        assert!(!known(1_000, Duration::ZERO), "it has expired");
        let other = ApiKeyRow { digest: Digest::from_content(b"other"), ..row.clone() };
        fixture.insert(other, Duration::ZERO);
        assert!(!known(0, Duration::ZERO), "another secret");
        fixture.insert(ApiKeyRow { revoked_at: Some(5), ..row.clone() }, Duration::ZERO);
        assert!(!known(0, Duration::ZERO), "it was revoked");
        fixture.insert(row, Duration::ZERO);
        fixture.cache.expire();
        assert!(!known(0, Duration::ZERO), "it may have changed");
    }

    #[test]
    fn a_change_outdates_rows_but_no_rates() {
        let fixture = Fixture::new();
        let row = ApiKeyRow { requests_per_second: Some(1), ..row(&fixture.key) };
        fixture.insert(row.clone(), Duration::ZERO);
        assert!(fixture.is_valid(0, Duration::ZERO));
        fixture.cache.expire();
        assert!(fixture.look_up(0, Duration::ZERO).is_none());
        // This row was read before the change, too: it counts for its own request alone.
        let time = Moment { now: 0, at: fixture.begun };
        let used = fixture.cache.use_row(row, fixture.begun, time, 100);
        assert!(matches!(used, Err(RateExceeded { per_second: 1, .. })));
        assert!(fixture.look_up(0, Duration::ZERO).is_none());
    }

    #[test]
    fn another_secret_or_a_revocation_is_noticed() {
        let fixture = Fixture::new();
        let row = row(&fixture.key);
        let other = ApiKeyRow { digest: Digest::from_content(b"other"), ..row.clone() };
        fixture.insert(other, Duration::ZERO);
        assert!(!fixture.is_valid(0, Duration::ZERO));
        fixture.insert(ApiKeyRow { revoked_at: Some(5), ..row }, Duration::ZERO);
        assert!(!fixture.is_valid(0, Duration::ZERO));
    }

    #[test]
    fn the_rate_outlives_a_refresh() {
        let fixture = Fixture::new();
        // The next request is taken before the row is read again.
        let row = ApiKeyRow { requests_per_second: Some(4), ..row(&fixture.key) };
        fixture.insert(row.clone(), Duration::ZERO);
        assert!((0..4).all(|_| fixture.is_valid(0, Duration::ZERO)));
        fixture.insert(row, Duration::ZERO);
        let Some(Err(RateExceeded { per_second, wait })) = fixture.look_up(0, Duration::ZERO)
        else {
            panic!("the rate is exceeded");
        };
        assert_eq!(per_second, 4);
        assert!(!fixture.is_valid(0, wait / 2) && fixture.is_valid(0, wait), "{wait:?}");
    }

    #[test]
    fn uses_are_recorded_once_a_minute() {
        let fixture = Fixture::new();
        let row = ApiKeyRow { expires_at: None, ..row(&fixture.key) };
        for now in [USE_PRECISION_MS, USE_PRECISION_MS + 1, 2 * USE_PRECISION_MS - 1] {
            fixture.insert(row.clone(), Duration::ZERO);
            assert!(fixture.is_valid(now, Duration::ZERO));
        }
        let id = fixture.key.id();
        assert_eq!(fixture.cache.take_uses(), [(id, USE_PRECISION_MS)]);
        assert!(fixture.is_valid(2 * USE_PRECISION_MS, Duration::ZERO));
        assert_eq!(fixture.cache.take_uses(), [(id, 2 * USE_PRECISION_MS)]);
        assert_eq!(fixture.cache.take_uses(), []);
    }
}
