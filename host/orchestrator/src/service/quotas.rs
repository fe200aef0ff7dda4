//! Quotas of namespaces: their settings, and the rate and number of what a namespace starts.
//!
//! Not here: uploads and graphs, whose own transactions check their quotas (`exosphere-store`).

use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::quota::{Quota, QuotaBreach, QuotaValues};
use exosphere_domain::rate_limit::RateLimit;
use exosphere_store::{Expected, Setting, StoreError, quotas_version};

use crate::Host;
use crate::cache::namespaces::NamespaceLimits;
use crate::error::Error;
use crate::rates::Rates;

/// Time after which a caller may find fewer open states.
const OPEN_STATES_RETRY: Duration = Duration::from_secs(5);

/// The quotas of a namespace.
#[derive(Debug, Clone)]
pub struct NamespaceQuotas {
    /// The quotas that an admin has set.
    pub quotas: QuotaValues,
    /// The use of each of them by the namespace.
    pub used: QuotaValues,
    /// The version of the quotas, for conditional updates.
    pub version: Digest,
}

/// The rates at which namespaces start runs on this host.
#[derive(Default)]
pub(crate) struct StartRates(Rates<Name>);

impl StartRates {
    /// Counts a start, or returns how long to wait for the next one.
    fn admit(&self, namespace: &Name, per_minute: u64) -> Result<(), Duration> {
        let limit = RateLimit::new(per_minute, 60, per_minute);
        self.0.admit(namespace, &limit, self.0.now()).map_err(Duration::from_micros)
    }
}

impl Host {
    /// Returns the quotas of a namespace.
    pub async fn quotas(&self, namespace: &Name) -> Result<NamespaceQuotas, Error> {
        let store = &self.inner.db.store;
        let quotas = store.quotas(namespace).await?;
        if quotas.is_empty() {
            self.check_namespace(namespace).await?;
        }
        let mut used = Vec::new();
        for (quota, _) in quotas.iter() {
            if quota != Quota::RunsPerMinute {
                used.push((quota, store.quota_use(namespace, quota).await?));
            }
        }
        let version = quotas_version(&quotas)?;
        Ok(NamespaceQuotas { quotas, used: used.into_iter().collect(), version })
    }

    /// Replaces the quotas of a namespace, if their version is as expected.
    pub async fn set_quotas(
        &self,
        namespace: &Name,
        quotas: &QuotaValues,
        expected: &Expected,
    ) -> Result<NamespaceQuotas, Error> {
        let now = self.inner.db.clock.now();
        let set = self.store().set_quotas(namespace, quotas, expected, now).await?;
        if set == Setting::Unexpected {
            let subject = format!("the quotas of {namespace}");
            return Err(Error::Changed { subject, it: "them" });
        }
        self.inner.caches.namespaces.forget(namespace);
        self.quotas(namespace).await
    }

    /// Refuses a start that a quota of the namespace forbids.
    pub(crate) async fn charge_start(
        &self,
        namespace: &Name,
        settings: &NamespaceLimits,
    ) -> Result<(), Error> {
        if settings.quotas.is_empty() {
            return Ok(());
        }
        let refused = |breach, remedy, wait| {
            let (namespace, retry_after) = (namespace.clone(), Some(wait));
            Err(Error::Quota { namespace, breach, remedy, retry_after })
        };
        if settings.quotas.get(Quota::OpenStates).is_some() {
            let used = self.inner.db.store.quota_use(namespace, Quota::OpenStates).await?;
            if let Some(breach) = settings.quotas.breach(Quota::OpenStates, used, 1) {
                return refused(breach, "wait for the end of runs", OPEN_STATES_RETRY);
            }
        }
        if let Some(value) = settings.quotas.get(Quota::RunsPerMinute) {
            let breach = QuotaBreach { quota: Quota::RunsPerMinute, value, used: value };
            if value == 0 {
                return refused(breach, "use another namespace", Duration::from_secs(60));
            }
            if let Err(wait) = self.inner.start_rates.admit(namespace, value) {
                return refused(breach, "wait", wait);
            }
        }
        Ok(())
    }
}

/// Names the namespace of a breach that a transaction found.
pub(crate) fn breached(namespace: &Name, remedy: &'static str, error: StoreError) -> Error {
    match error {
        StoreError::Quota(breach) => {
            Error::Quota { namespace: namespace.clone(), breach, remedy, retry_after: None }
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_have_a_rate_per_namespace() {
        let rates = StartRates::default();
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        assert_eq!([rates.admit(&a, 2), rates.admit(&a, 2)], [Ok(()), Ok(())]);
        let wait = rates.admit(&a, 2).unwrap_err();
        assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(30), "{wait:?}");
        assert_eq!(rates.admit(&b, 2), Ok(()));
    }
}
