//! Namespaces as operators configure them: limits, slots on a host, and grants of their plugins.

use std::collections::BTreeMap;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Digest, Millis, Name, NamespaceKey};
use exosphere_domain::limits::LimitValues;

use crate::audit::{self, AuditEntry};
use crate::codec::{parse_json, read_int, to_json, to_name};
use crate::dialect::{Row, Tx, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, in_transaction, sql};

/// The namespace that is there before anything is in it.
const DEFAULT_NAMESPACE: &str = "default";

/// A namespace with its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespaceRow {
    /// The key of the namespace's row.
    pub key: NamespaceKey,
    /// The name of the namespace.
    pub name: Name,
    /// Limits that are lower than the host's.
    pub limits: LimitValues,
    /// The cap on concurrent executions on one host, if the operator set one for this namespace.
    pub slots: Option<u32>,
}

/// The precondition of a write: which current value it may replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any value, or none.
    Anything,
    /// Any value. The settings of a namespace exist with it, even if they are empty.
    Existing,
    /// No value.
    Absent,
    /// A value with one of these versions.
    OneOf(Vec<Digest>),
}

impl Expected {
    /// Returns whether a version meets the precondition, given as text; `None` if there is no
    /// value yet.
    pub(crate) fn is_met_by_text(&self, version: Option<&str>) -> bool {
        match self {
            Expected::Anything => true,
            Expected::Existing => version.is_some(),
            Expected::Absent => version.is_none(),
            Expected::OneOf(versions) => version
                .and_then(|version| version.parse().ok())
                .is_some_and(|version| versions.contains(&version)),
        }
    }

    /// Returns whether the version of a setting meets the precondition. Without a namespace, the
    /// version is that of empty settings.
    pub(crate) fn is_met_by(&self, version: &Digest, namespace: Found) -> bool {
        match self {
            Expected::Anything => true,
            Expected::Existing => namespace == Found::Known,
            Expected::Absent => namespace == Found::Created,
            Expected::OneOf(versions) => versions.contains(version),
        }
    }
}

/// The state of a namespace before a transaction that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It was there.
    Known,
    /// The transaction has created it.
    Created,
}

/// The result of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The value was set.
    Done,
    /// The precondition failed, and the current value stays.
    Unexpected,
}

impl Setting {
    /// Returns the result of the transaction of a conditional write.
    pub(crate) fn of(written: Result<(), StoreError>) -> Result<Setting, StoreError> {
        match written {
            Ok(()) => Ok(Setting::Done),
            Err(StoreError::Changed) => Ok(Setting::Unexpected),
            Err(error) => Err(error),
        }
    }
}

/// Returns the version of a plugin's grants, for preconditions.
pub fn grants_version(grants: &Grants) -> Result<Digest, StoreError> {
    Ok(Digest::from_content(to_json(grants)?.as_bytes()))
}

/// Returns the version of a namespace's settings, for preconditions.
pub fn settings_version(limits: &LimitValues, slots: Option<u32>) -> Result<Digest, StoreError> {
    Ok(Digest::from_content(to_json(&(limits, slots))?.as_bytes()))
}

impl Store {
    /// Reads a namespace, if it is known.
    pub async fn namespace(&self, namespace: &Name) -> Result<Option<NamespaceRow>, StoreError> {
        self.reader.row(sql::NAMESPACE, &params![namespace.as_str()], self::namespace).await
    }

    /// Returns whether a namespace is the default one, or has settings, graphs, plugins or grants.
    pub async fn knows_namespace(&self, namespace: &Name) -> Result<bool, StoreError> {
        if namespace.as_str() == DEFAULT_NAMESPACE {
            return Ok(true);
        }
        let params = params![namespace.as_str()];
        Ok(self.reader.row(sql::NAMESPACE_IN_USE, &params, read_int).await?.is_some())
    }

    /// Sets the limits and slots of a namespace, if its current settings meet the precondition.
    pub async fn set_namespace(
        &self,
        namespace: &Name,
        limits: &LimitValues,
        slots: Option<u32>,
        expected: &Expected,
        now: Millis,
    ) -> Result<Setting, StoreError> {
        let (namespace, expected) = (namespace.clone(), expected.clone());
        let (limits, slots) = (to_json(limits)?, slots.map(i64::from));
        let audit = self.audit_entry("namespace set", Some(&namespace), &namespace);
        let set = in_transaction!(self, now, |tx| {
            set(tx, &namespace, (&limits, slots), &expected, audit.as_ref())
        });
        Setting::of(set)
    }

    /// Reads the grants of a namespace's plugins, by plugin name.
    pub async fn grants(&self, namespace: &Name) -> Result<BTreeMap<Name, Grants>, StoreError> {
        let rows = self.reader.rows(sql::GRANTS, &params![namespace.as_str()], granted).await?;
        Ok(rows.into_iter().collect())
    }

    /// Replaces the grants of the plugins with this name, if the current grants meet the
    /// precondition.
    pub async fn set_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        grants: &Grants,
        expected: &Expected,
        now: Millis,
    ) -> Result<Setting, StoreError> {
        let (namespace, plugin) = (namespace.clone(), plugin.clone());
        let body = if *grants == Grants::default() { None } else { Some(to_json(grants)?) };
        let expected = expected.clone();
        let after = grants_version(grants)?;
        let audit = self.audit_entry("grant set", Some(&namespace), &plugin);
        let set = in_transaction!(self, now, |tx| {
            grant(tx, (&namespace, &plugin), (body.as_deref(), &after), &expected, audit.as_ref())
        });
        Setting::of(set)
    }
}

async fn set(
    tx: &mut impl Tx,
    namespace: &Name,
    (limits, slots): (&str, Option<i64>),
    expected: &Expected,
    audit: Option<&AuditEntry>,
) -> Result<(), StoreError> {
    let found = find_or_create(tx, namespace).await?;
    let before = lock(tx, namespace).await?;
    let version = settings_version(&before.limits, before.slots)?;
    if !expected.is_met_by(&version, found) {
        // An error, so that a namespace that was created for it does not stay.
        return Err(StoreError::Changed);
    }
    tx.execute(sql::SET_NAMESPACE, &params![namespace.as_str(), limits, slots]).await?;
    let after = lock(tx, namespace).await?;
    let after = settings_version(&after.limits, after.slots)?;
    audit::record(tx, audit, Some(&version), Some(&after)).await
}

async fn grant(
    tx: &mut impl Tx,
    (namespace, plugin): (&Name, &Name),
    (grants, after): (Option<&str>, &Digest),
    expected: &Expected,
    audit: Option<&AuditEntry>,
) -> Result<(), StoreError> {
    let found = find_or_create(tx, namespace).await?;
    lock(tx, namespace).await?;
    let params = params![namespace.as_str(), plugin.as_str()];
    let before = tx.query(sql::GRANTS_OF, &params, granted).await?.pop();
    let before = before.map(|(_, grants)| grants).unwrap_or_default();
    let before = grants_version(&before)?;
    if !expected.is_met_by(&before, found) {
        // An error, so that a namespace that was created for it does not stay.
        return Err(StoreError::Changed);
    }
    let now = tx.now();
    match grants {
        Some(grants) => {
            let row = params![namespace.as_str(), plugin.as_str(), grants, now];
            tx.execute(sql::SET_GRANTS, &row).await?
        }
        None => tx.execute(sql::REMOVE_GRANTS, &params).await?,
    };
    audit::record(tx, audit, Some(&before), Some(after)).await
}

/// Creates a namespace if it is missing.
pub(crate) async fn find_or_create(
    tx: &mut impl Tx,
    namespace: &Name,
) -> Result<Found, StoreError> {
    let params = params![namespace.as_str()];
    let is_known = namespace.as_str() == DEFAULT_NAMESPACE
        || !tx.query(sql::NAMESPACE_IN_USE, &params, read_int).await?.is_empty();
    let created = tx.execute(sql::NEW_NAMESPACE, &params).await?;
    // Another transaction may have created it meanwhile.
    Ok(if is_known || created == 0 { Found::Known } else { Found::Created })
}

/// Locks a namespace. Until this transaction ends, no other transaction configures it or sets its
/// grants.
async fn lock(tx: &mut impl Tx, namespace: &Name) -> Result<NamespaceRow, StoreError> {
    let params = params![namespace.as_str()];
    let row = tx.query(sql::LOCK_NAMESPACE, &params, self::namespace).await?.pop();
    row.ok_or_else(|| corrupt_row("namespace", "name", namespace))
}

pub(crate) fn granted(row: &dyn Row) -> Result<(Name, Grants), StoreError> {
    let plugin = to_name(row.text(0)?, "capability", "plugin")?;
    let grants = parse_json(&row.text(1)?, "capability", "grants", &plugin)?;
    Ok((plugin, grants))
}

pub(crate) fn namespace(row: &dyn Row) -> Result<NamespaceRow, StoreError> {
    let text = row.text(1)?;
    let name = to_name(text, "namespace", "name")?;
    let to_u32 = |slots| u32::try_from(slots).map_err(|_| corrupt_row("namespace", "slots", &name));
    Ok(NamespaceRow {
        key: NamespaceKey(row.int(0)?),
        limits: parse_json(&row.text(2)?, "namespace", "limits", &name)?,
        slots: row.maybe_int(3)?.map(to_u32).transpose()?,
        name,
    })
}
