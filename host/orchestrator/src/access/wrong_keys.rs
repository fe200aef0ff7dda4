//! Slows down callers with wrong keys, and logs them once a minute. An address may send some
//! wrong keys; after that, each of its requests with a key that the cache does not know waits.
//! A key that was right before, even if its row is to be read again, does not, so that no caller
//! locks out a neighbour.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use exosphere_domain::rate_limit::{Micros, RateLimit};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::AccessError;
use crate::rates::Rates;

/// Wrong keys that an address may send without delay: this many per second after a burst.
const WRONG_KEYS_PER_SECOND: u64 = 1;
const WRONG_KEYS_BURST: u64 = 20;

/// Delay of a request of an address that has sent too many wrong keys.
const DELAY: Duration = Duration::from_secs(1);

/// Maximum number of requests that wait. It bounds the queries that wrong keys cause.
const MAX_DELAYED: usize = 64;

/// Interval between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The addresses that send wrong keys.
pub(crate) struct WrongKeys {
    addresses: Rates<IpAddr>,
    limit: RateLimit,
    delayed: Semaphore,
    log: Mutex<Log>,
}

/// The requests since the last log line.
struct Log {
    count: u64,
    at: Option<Instant>,
}

impl Default for WrongKeys {
    fn default() -> Self {
        WrongKeys {
            addresses: Rates::default(),
            limit: RateLimit::new(WRONG_KEYS_PER_SECOND, 1, WRONG_KEYS_BURST),
            delayed: Semaphore::new(MAX_DELAYED),
            log: Mutex::new(Log { count: 0, at: None }),
        }
    }
}

impl WrongKeys {
    /// Counts a request with a wrong key for the log.
    pub(crate) fn note(&self, address: IpAddr) {
        if let Some(count) = self.log.lock().count(Instant::now()) {
            tracing::warn!(
                count,
                latest = %address,
                "requests with wrong keys were refused; the next ones are logged in a minute"
            );
        }
    }

    /// Logs the requests that no line has counted yet, a minute after the last line.
    pub(crate) fn log_rest(&self) {
        if let Some(count) = self.log.lock().rest(Instant::now()) {
            tracing::warn!(count, "requests with wrong keys were refused since the last line");
        }
    }

    /// Counts a request with a wrong key, and waits if its address has sent too many.
    pub(crate) async fn refuse(&self, address: IpAddr) -> Result<(), AccessError> {
        self.note(address);
        if self.count(peer(address), self.addresses.now()) { Ok(()) } else { self.wait().await }
    }

    /// Waits if an address has sent too many wrong keys. Returns whether it did.
    pub(crate) async fn delay(&self, address: IpAddr) -> Result<bool, AccessError> {
        if !self.exceeds(peer(address), self.addresses.now()) {
            return Ok(false);
        }
        self.wait().await.inspect_err(|_| self.note(address)).map(|()| true)
    }

    /// Counts a wrong key of an address, and returns whether it may send one.
    fn count(&self, peer: IpAddr, now: Micros) -> bool {
        self.addresses.admit(&peer, &self.limit, now).is_ok()
    }

    /// Returns whether an address has sent too many wrong keys.
    fn exceeds(&self, peer: IpAddr, now: Micros) -> bool {
        self.addresses.exceeds(&peer, &self.limit, now)
    }

    async fn wait(&self) -> Result<(), AccessError> {
        let _permit = self.delayed.try_acquire().map_err(|_| AccessError::TooManyWrong)?;
        tokio::time::sleep(DELAY).await;
        Ok(())
    }
}

impl Log {
    /// Counts a request. Returns the number to log, at most once a minute.
    fn count(&mut self, at: Instant) -> Option<u64> {
        self.count += 1;
        self.rest(at)
    }

    /// Returns the number to log, if there is one and the last line is a minute old.
    fn rest(&mut self, at: Instant) -> Option<u64> {
        let is_recent = |last| at.saturating_duration_since(last) < LOG_INTERVAL;
        if self.count == 0 || self.at.is_some_and(is_recent) {
            return None;
        }
        self.at = Some(at);
        Some(std::mem::take(&mut self.count))
    }
}

/// Returns the address that counts: IPv6 addresses of one /64 network are one customer's.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn many_wrong_keys_are_delayed() {
        let wrong = WrongKeys::default();
        for _ in 0..WRONG_KEYS_BURST {
            assert!(!wrong.exceeds(address(1), 0) && wrong.count(address(1), 0));
        }
        assert!(wrong.exceeds(address(1), 0) && !wrong.count(address(1), 0));
        assert!(!wrong.exceeds(address(2), 0), "another address");
        // Time makes up for them at the rate.
        let later = WRONG_KEYS_BURST * 1_000_000;
        assert!(!wrong.exceeds(address(1), later) && wrong.count(address(1), later));
    }

    #[tokio::test]
    async fn the_number_of_delayed_requests_is_bounded() {
        let wrong = WrongKeys::default();
        let _waiting: Vec<_> = (0..MAX_DELAYED).map(|_| wrong.delayed.try_acquire()).collect();
        assert!(matches!(wrong.wait().await, Err(AccessError::TooManyWrong)));
    }

    #[test]
    fn a_network_counts_as_one_address() {
        let [a, b, c]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2:1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(peer(a), peer(b));
        assert_ne!(peer(a), peer(c));
        assert_eq!(peer("::ffff:10.0.0.1".parse().unwrap()), address(1));
    }

    #[test]
    fn wrong_keys_are_logged_once_a_minute() {
        let (mut log, begun) = (Log { count: 0, at: None }, Instant::now());
        assert_eq!(log.count(begun), Some(1));
        for _ in 0..4 {
            assert_eq!(log.count(begun + LOG_INTERVAL / 2), None);
        }
        assert_eq!(log.count(begun + LOG_INTERVAL), Some(5));
        // What came after the last line is logged without another request.
        assert_eq!(log.rest(begun + 3 * LOG_INTERVAL), None);
        assert_eq!(log.count(begun + LOG_INTERVAL), None);
        assert_eq!(log.rest(begun + 3 * LOG_INTERVAL), Some(1));
    }
}
