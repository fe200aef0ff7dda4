//! Namespaces as their operators set them up: limits, a share of a host, and
//! what their plugins are granted.

use std::collections::BTreeMap;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Digest, Millis, Name, NamespaceKey};
use exosphere_domain::limits::LimitValues;

use crate::catalog::{json, name, parse};
use crate::error::StoreError;
use crate::rows::corrupt;
use crate::text::{Cells, Tx, values};
use crate::{Store, sql, write};

/// A namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespaceRow {
    /// Its number.
    pub key: NamespaceKey,
    /// Its name.
    pub name: Name,
    /// Limits that are lower than the host's.
    pub limits: LimitValues,
    /// So many of its nodes run at a time on one host, if it has a number of
    /// its own.
    pub slots: Option<u32>,
}

/// What has to be set for something else to be set instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Anything,
    /// What has one of these versions.
    OneOf(Vec<Digest>),
}

impl Expected {
    fn is_met_by(&self, version: &Digest) -> bool {
        match self {
            Expected::Anything => true,
            Expected::OneOf(versions) => versions.contains(version),
        }
    }
}

/// What became of setting something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// It is set.
    Done,
    /// Something else was set than was expected, and still is.
    Unexpected,
}

/// The version of what a plugin is granted.
pub fn grants_version(grants: &Grants) -> Result<Digest, StoreError> {
    Ok(Digest::of(json(grants)?.as_bytes()))
}

/// The version of what an operator says of a namespace.
pub fn settings_version(limits: &LimitValues, slots: Option<u32>) -> Result<Digest, StoreError> {
    Ok(Digest::of(json(&(limits, slots))?.as_bytes()))
}

impl Store {
    /// A namespace, if anything is known of it.
    pub async fn namespace(&self, namespace: &Name) -> Result<Option<NamespaceRow>, StoreError> {
        self.reader.row(sql::NAMESPACE, &values![namespace.as_str()], self::namespace).await
    }

    /// Sets what an operator says of a namespace, if it is now as expected.
    pub async fn set_namespace(
        &self,
        namespace: &Name,
        limits: &LimitValues,
        slots: Option<u32>,
        expected: &Expected,
        now: Millis,
    ) -> Result<Setting, StoreError> {
        let (namespace, expected) = (namespace.clone(), expected.clone());
        let (limits, slots) = (json(limits)?, slots.map(i64::from));
        write!(self, now, |tx| set(tx, &namespace, &limits, slots, &expected))
    }

    /// What the plugins of a namespace are granted, by name.
    pub async fn grants(&self, namespace: &Name) -> Result<BTreeMap<Name, Grants>, StoreError> {
        let rows = self.reader.rows(sql::GRANTS, &values![namespace.as_str()], granted).await?;
        Ok(rows.into_iter().collect())
    }

    /// Sets what the plugins of a name are granted, if it is now as expected:
    /// nothing else afterwards.
    pub async fn set_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        grants: &Grants,
        expected: &Expected,
        now: Millis,
    ) -> Result<Setting, StoreError> {
        let (namespace, plugin) = (namespace.clone(), plugin.clone());
        let body = if *grants == Grants::default() { None } else { Some(json(grants)?) };
        let expected = expected.clone();
        write!(self, now, |tx| grant(tx, &namespace, &plugin, body.as_deref(), &expected))
    }
}

async fn set(
    tx: &mut impl Tx,
    namespace: &Name,
    limits: &str,
    slots: Option<i64>,
    expected: &Expected,
) -> Result<Setting, StoreError> {
    let before = lock(tx, namespace).await?;
    if !expected.is_met_by(&settings_version(&before.limits, before.slots)?) {
        return Ok(Setting::Unexpected);
    }
    tx.execute(sql::SET_NAMESPACE, &values![namespace.as_str(), limits, slots]).await?;
    Ok(Setting::Done)
}

async fn grant(
    tx: &mut impl Tx,
    namespace: &Name,
    plugin: &Name,
    grants: Option<&str>,
    expected: &Expected,
) -> Result<Setting, StoreError> {
    lock(tx, namespace).await?;
    let place = values![namespace.as_str(), plugin.as_str()];
    let before = tx.query(sql::GRANTS_OF, &place, granted).await?.pop();
    let before = before.map(|(_, grants)| grants).unwrap_or_default();
    if !expected.is_met_by(&grants_version(&before)?) {
        return Ok(Setting::Unexpected);
    }
    let now = tx.now();
    match grants {
        Some(grants) => {
            let row = values![namespace.as_str(), plugin.as_str(), grants, now];
            tx.execute(sql::SET_GRANTS, &row).await?
        }
        None => tx.execute(sql::REMOVE_GRANTS, &place).await?,
    };
    Ok(Setting::Done)
}

/// A namespace, made here if it was not there, which nobody else sets up or
/// grants anything in until this transaction is over.
async fn lock(tx: &mut impl Tx, namespace: &Name) -> Result<NamespaceRow, StoreError> {
    let place = values![namespace.as_str()];
    tx.execute(sql::NEW_NAMESPACE, &place).await?;
    let row = tx.query(sql::LOCK_NAMESPACE, &place, self::namespace).await?.pop();
    row.ok_or_else(|| corrupt("namespace", "name", namespace))
}

pub(crate) fn granted(row: &dyn Cells) -> Result<(Name, Grants), StoreError> {
    let plugin = name(row.text(0)?, "capability", "plugin")?;
    let grants = parse(&row.text(1)?, "capability", "grants", &plugin)?;
    Ok((plugin, grants))
}

pub(crate) fn namespace(row: &dyn Cells) -> Result<NamespaceRow, StoreError> {
    let text = row.text(1)?;
    let name = name(text, "namespace", "name")?;
    let small = |slots| u32::try_from(slots).map_err(|_| corrupt("namespace", "slots", &name));
    Ok(NamespaceRow {
        key: NamespaceKey(row.int(0)?),
        limits: parse(&row.text(2)?, "namespace", "limits", &name)?,
        slots: row.maybe_int(3)?.map(small).transpose()?,
        name,
    })
}
