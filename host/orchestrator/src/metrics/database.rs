//! The figures of the database, read when metrics are asked for, and at most once in five seconds.
//! A scrape waits for them only shortly: those of the last reading serve as well.
//!
//! Not here: the statement (`exosphere_store`, `gauges`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::clock::Clock;
use exosphere_store::DatabaseGauges;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::inner::HostInner;

/// The shortest time between two readings.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// The time after which figures count as unknown.
const MAX_AGE: Duration = Duration::from_secs(30);

/// The longest time that a scrape waits for a reading.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// The latest figures.
#[derive(Default)]
pub(super) struct DatabaseFigures(Mutex<Readings>);

#[derive(Default)]
struct Readings {
    /// The begin of the newest reading.
    began_at: Option<Instant>,
    /// The time and the result of the newest reading that has succeeded.
    last: Option<(Instant, DatabaseGauges)>,
}

impl Readings {
    /// Returns `true` if a reading is due, which begins then.
    fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.began_at.is_none_or(|began_at| now >= began_at + MIN_INTERVAL);
        if is_due {
            self.began_at = Some(now);
        }
        is_due
    }

    fn current(&self, now: Instant) -> Option<DatabaseGauges> {
        self.last.filter(|(at, _)| now < *at + MAX_AGE).map(|(_, figures)| figures)
    }
}

/// Returns the figures of the database, unless they are unknown.
pub(super) async fn read(inner: &Arc<HostInner>) -> Option<DatabaseGauges> {
    let figures = &inner.metrics.database;
    if figures.0.lock().begin(Instant::now()) {
        let inner = inner.clone();
        // The reading continues if the scrape no longer waits for it.
        let reading = tokio::spawn(async move {
            match inner.db.store.database_gauges(inner.db.clock.now()).await {
                Ok(found) => {
                    inner.metrics.database.0.lock().last = Some((Instant::now(), found));
                }
                Err(error) => tracing::debug!(%error, "cannot read the figures of the database"),
            }
        });
        let _ = timeout(MAX_WAIT, reading).await;
    }
    figures.0.lock().current(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_rare_and_expire() {
        let figures = DatabaseGauges { states_due: 1, oldest_due_ms: 2, hosts_alive: 3, bytes: 4 };
        let (mut readings, now) = (Readings::default(), Instant::now());
        assert!(readings.begin(now) && !readings.begin(now));
        assert!(!readings.begin(now + MIN_INTERVAL / 2));
        assert!(readings.begin(now + MIN_INTERVAL));
        assert_eq!(readings.current(now), None);
        readings.last = Some((now, figures));
        assert_eq!(readings.current(now + MAX_AGE / 2), Some(figures));
        assert_eq!(readings.current(now + MAX_AGE), None);
    }
}
