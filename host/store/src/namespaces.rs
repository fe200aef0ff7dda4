//! Namespaces as their operators set them up: limits, a share of a host, and
//! what their plugins are granted.

use std::collections::BTreeMap;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::{Millis, Name, NamespaceKey};
use exosphere_domain::limits::LimitValues;

use crate::catalog::{json, name, parse};
use crate::error::StoreError;
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

impl Store {
    /// A namespace, if anything is known of it.
    pub async fn namespace(&self, namespace: &Name) -> Result<Option<NamespaceRow>, StoreError> {
        self.reader.row(sql::NAMESPACE, &values![namespace.as_str()], read).await
    }

    /// All namespaces, by name.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceRow>, StoreError> {
        self.reader.rows(sql::NAMESPACES, &[], read).await
    }

    /// Sets what an operator says of a namespace.
    pub async fn set_namespace(
        &self,
        namespace: &Name,
        limits: &LimitValues,
        slots: Option<u32>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (namespace, limits, slots) = (namespace.clone(), json(limits)?, slots.map(i64::from));
        write!(self, now, |tx| set(tx, &namespace, &limits, slots))
    }

    /// What the plugins of a namespace are granted, by name.
    pub async fn grants(&self, namespace: &Name) -> Result<BTreeMap<Name, Grants>, StoreError> {
        let read = |row: &dyn Cells| {
            let plugin = name(row.text(0)?, "capability", "plugin")?;
            let grants = parse(&row.text(1)?, "capability", "grants", &plugin)?;
            Ok((plugin, grants))
        };
        let rows = self.reader.rows(sql::GRANTS, &values![namespace.as_str()], read).await?;
        Ok(rows.into_iter().collect())
    }

    /// Sets what the plugins of a name are granted: nothing else afterwards.
    pub async fn set_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        grants: &Grants,
        now: Millis,
    ) -> Result<(), StoreError> {
        let (namespace, plugin) = (namespace.clone(), plugin.clone());
        let body = if *grants == Grants::default() { None } else { Some(json(grants)?) };
        write!(self, now, |tx| grant(tx, &namespace, &plugin, body.as_deref()))
    }
}

async fn set(
    tx: &mut impl Tx,
    namespace: &Name,
    limits: &str,
    slots: Option<i64>,
) -> Result<(), StoreError> {
    tx.execute(sql::NEW_NAMESPACE, &values![namespace.as_str()]).await?;
    tx.execute(sql::SET_NAMESPACE, &values![namespace.as_str(), limits, slots]).await.map(drop)
}

async fn grant(
    tx: &mut impl Tx,
    namespace: &Name,
    plugin: &Name,
    grants: Option<&str>,
) -> Result<(), StoreError> {
    let (namespace, plugin) = (namespace.as_str(), plugin.as_str());
    tx.execute(sql::NEW_NAMESPACE, &values![namespace]).await?;
    let now = tx.now();
    match grants {
        Some(grants) => tx.execute(sql::SET_GRANTS, &values![namespace, plugin, grants, now]).await,
        None => tx.execute(sql::REMOVE_GRANTS, &values![namespace, plugin]).await,
    }
    .map(drop)
}

fn read(row: &dyn Cells) -> Result<NamespaceRow, StoreError> {
    let text = row.text(1)?;
    let name = name(text, "namespace", "name")?;
    let small =
        |slots| u32::try_from(slots).map_err(|_| crate::rows::corrupt("namespace", "slots", &name));
    Ok(NamespaceRow {
        key: NamespaceKey(row.int(0)?),
        limits: parse(&row.text(2)?, "namespace", "limits", &name)?,
        slots: row.maybe_int(3)?.map(small).transpose()?,
        name,
    })
}
