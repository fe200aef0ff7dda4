//! Quotas of namespaces: their values, and the counts that uploads and graphs are compared with.
//!
//! Not here: the rate of starts (`exosphere-orchestrator`).

use exosphere_domain::ids::{Digest, Millis, Name};
use exosphere_domain::quota::{Quota, QuotaValues};

use crate::audit::{self, AuditEntry};
use crate::codec::{parse_json, read_int, read_text, to_json};
use crate::dialect::{Statement, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::namespaces::{Expected, Setting, find_or_create};
use crate::{Store, in_transaction, sql};

/// Returns the version of a namespace's quotas, for preconditions.
pub fn quotas_version(quotas: &QuotaValues) -> Result<Digest, StoreError> {
    Ok(Digest::from_content(to_json(quotas)?.as_bytes()))
}

impl Store {
    /// Reads the quotas of a namespace.
    pub async fn quotas(&self, namespace: &Name) -> Result<QuotaValues, StoreError> {
        let text = self.reader.row(sql::QUOTAS, &params![namespace.as_str()], read_text).await?;
        text.map_or_else(|| Ok(QuotaValues::default()), |text| parse(&text, namespace))
    }

    /// Sets the quotas of a namespace, if its current ones meet the precondition.
    pub async fn set_quotas(
        &self,
        namespace: &Name,
        quotas: &QuotaValues,
        expected: &Expected,
        now: Millis,
    ) -> Result<Setting, StoreError> {
        let audit = self.audit_entry("quota set", Some(namespace), namespace);
        let (namespace, expected) = (namespace.clone(), expected.clone());
        let new = (to_json(quotas)?, quotas_version(quotas)?);
        let set =
            in_transaction!(self, now, |tx| set(tx, &namespace, &new, &expected, audit.as_ref()));
        Setting::of(set)
    }

    /// Counts what a namespace uses of a quota. Starts in a minute are counted elsewhere.
    pub async fn quota_use(&self, namespace: &Name, quota: Quota) -> Result<u64, StoreError> {
        let Some(statement) = count_statement(quota) else { return Ok(0) };
        let count = self.reader.row(statement, &params![namespace.as_str()], read_int).await?;
        Ok(to_u64(count))
    }
}

fn parse(text: &str, namespace: &Name) -> Result<QuotaValues, StoreError> {
    parse_json(text, "namespace", "quotas", namespace)
}

fn to_u64(count: Option<i64>) -> u64 {
    count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
}

fn count_statement(quota: Quota) -> Option<&'static Statement> {
    match quota {
        Quota::Plugins => Some(sql::COUNT_PLUGINS),
        Quota::PluginBytes => Some(sql::COUNT_PLUGIN_BYTES),
        Quota::Graphs => Some(sql::COUNT_GRAPHS),
        Quota::Revisions => Some(sql::COUNT_REVISIONS),
        Quota::OpenStates => Some(sql::COUNT_OPEN_STATES),
        Quota::RunsPerMinute => None,
    }
}

async fn set(
    tx: &mut impl Tx,
    namespace: &Name,
    (text, after): &(String, Digest),
    expected: &Expected,
    audit: Option<&AuditEntry>,
) -> Result<(), StoreError> {
    let found = find_or_create(tx, namespace).await?;
    let before = lock(tx, namespace).await?;
    let before = before.ok_or_else(|| corrupt_row("namespace", "name", namespace))?;
    let before = quotas_version(&before)?;
    if !expected.is_met_by(&before, found) {
        // An error, so that a namespace that was created for it does not stay.
        return Err(StoreError::Changed);
    }
    tx.execute(sql::SET_QUOTAS, &params![namespace.as_str(), text]).await?;
    audit::record(tx, audit, Some(&before), Some(after)).await
}

/// Reads the quotas of a namespace and locks them, so that no other transaction uses up the rest.
pub(crate) async fn lock(
    tx: &mut impl Tx,
    namespace: &Name,
) -> Result<Option<QuotaValues>, StoreError> {
    let text = tx.query(sql::LOCK_QUOTAS, &params![namespace.as_str()], read_text).await?.pop();
    text.map(|text| parse(&text, namespace)).transpose()
}

/// Refuses a change that would use so much more of these quotas that one is exceeded.
///
/// # Errors
///
/// [`StoreError::Quota`] with the first one.
pub(crate) async fn charge(
    tx: &mut impl Tx,
    namespace: &Name,
    quotas: &QuotaValues,
    more: &[(Quota, u64)],
) -> Result<(), StoreError> {
    for (quota, more) in more {
        let Some(statement) = count_statement(*quota) else { continue };
        if *more == 0 || quotas.get(*quota).is_none() {
            continue;
        }
        let used = tx.query(statement, &params![namespace.as_str()], read_int).await?.pop();
        if let Some(breach) = quotas.breach(*quota, to_u64(used), *more) {
            return Err(StoreError::Quota(breach));
        }
    }
    Ok(())
}
