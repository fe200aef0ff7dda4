//! What operators set: limits and shares of namespaces, and what plugins are
//! granted in them.

use exosphere_domain::clock::Clock;
use exosphere_domain::grant::Grants;
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::Name;
use exosphere_domain::limits::{Level, LimitValues, Limits};

use crate::error::Error;
use crate::{Host, Parts};

/// A namespace as its operators set it up.
#[derive(Debug, Clone)]
pub struct NamespaceDetails {
    /// Its name.
    pub name: Name,
    /// The limits that were set for it.
    pub limits: LimitValues,
    /// What its attempts may use at most, on this host.
    pub effective: Limits,
    /// How many of its nodes run at a time on one host, if that was set.
    pub own_slots: Option<u32>,
    /// How many of its nodes run at a time on this host.
    pub slots: u32,
}

/// What an operator wants a namespace to be.
#[derive(Debug, Clone, Default)]
pub struct NamespaceSettings {
    /// Its limits.
    pub limits: LimitValues,
    /// How many of its nodes run at a time on one host; nothing: as many as the
    /// host gives everyone.
    pub slots: Option<u32>,
}

impl Host {
    /// The namespaces that there are.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceDetails>, Error> {
        let rows = self.parts.store.namespaces().await?;
        let details =
            |row: exosphere_store::NamespaceRow| self.details(row.name, row.limits, row.slots);
        Ok(rows.into_iter().map(details).collect())
    }

    /// A namespace. One that nobody has used is as any.
    pub async fn namespace(&self, name: &Name) -> Result<NamespaceDetails, Error> {
        let row = self.parts.store.namespace(name).await?;
        let (limits, slots) = row.map(|row| (row.limits, row.slots)).unwrap_or_default();
        Ok(self.details(name.clone(), limits, slots))
    }

    fn details(&self, name: Name, limits: LimitValues, own_slots: Option<u32>) -> NamespaceDetails {
        let effective = self.parts.allowed(&limits);
        let slots = self.parts.slots_of(own_slots);
        NamespaceDetails { name, limits, effective, own_slots, slots }
    }

    /// Sets a namespace up: what is not said is as the host has it.
    pub async fn set_namespace(
        &self,
        name: &Name,
        settings: NamespaceSettings,
    ) -> Result<NamespaceDetails, Error> {
        let parts = &self.parts;
        let NamespaceSettings { limits, slots } = settings;
        let mut problems: Vec<Problem> = limits
            .iter()
            .filter_map(|(limit, value)| {
                let message = parts.limits.forbids(limit, value)?;
                Some(Problem { path: format!("$.limits.{limit}"), message })
            })
            .collect();
        if slots == Some(0) {
            let message = "a namespace has at least 1 slot; leave it out for the host's own number";
            problems.push(Problem { path: "$.slots".into(), message: message.into() });
        }
        if !problems.is_empty() {
            return Err(Error::Invalid { what: format!("the settings of {name}"), problems });
        }
        parts.store.set_namespace(name, &limits, slots, parts.clock.now()).await?;
        parts.tenants.forget(name);
        self.namespace(name).await
    }

    /// What the plugins of a namespace are granted, by name.
    pub async fn grants(&self, namespace: &Name) -> Result<Vec<(Name, Grants)>, Error> {
        Ok(self.parts.store.grants(namespace).await?.into_iter().collect())
    }

    /// What the plugins of a name are granted.
    pub async fn grants_of(&self, namespace: &Name, plugin: &Name) -> Result<Grants, Error> {
        Ok(self.parts.store.grants(namespace).await?.remove(plugin).unwrap_or_default())
    }

    /// Sets what the plugins of a name are granted: this, and nothing else. It
    /// need not be uploaded yet.
    pub async fn set_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        grants: Grants,
    ) -> Result<Grants, Error> {
        let parts = &self.parts;
        grants.check().map_err(|why| Error::Invalid {
            what: format!("the grants of {plugin}"),
            problems: why
                .into_iter()
                .map(|message| Problem { path: "$".into(), message })
                .collect(),
        })?;
        parts.store.set_grants(namespace, plugin, &grants, parts.clock.now()).await?;
        parts.tenants.forget(namespace);
        Ok(grants)
    }
}

impl Parts {
    /// What an attempt may use in a namespace with these limits of its own.
    pub(crate) fn allowed(&self, own: &LimitValues) -> Limits {
        let mut limits = Limits::clone(&self.limits);
        limits.lower_all(Level::Namespace, own);
        limits
    }

    /// So many nodes of a namespace run here at a time.
    pub(crate) fn slots_of(&self, own: Option<u32>) -> u32 {
        own.unwrap_or(self.namespace_slots).clamp(1, self.slots)
    }
}
