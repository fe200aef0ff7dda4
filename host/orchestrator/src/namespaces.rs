//! What operators set: limits and shares of namespaces, and what plugins are
//! granted in them.

use exosphere_domain::clock::Clock;
use exosphere_domain::grant::Grants;
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::limits::{LimitValues, Limits};
use exosphere_store::{Expected, NamespaceRow, Page, Part, Setting, settings_version};

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
    /// Which limits and number of its own were set.
    pub version: Digest,
}

/// What the plugins of a name are granted.
#[derive(Debug, Clone)]
pub struct PluginGrants {
    /// The plugins' name.
    pub plugin: Name,
    /// What they are granted.
    pub grants: Grants,
    /// Which grants these are.
    pub version: Digest,
}

impl PluginGrants {
    fn new(plugin: Name, grants: Grants) -> Result<Self, Error> {
        let version = exosphere_store::grants_version(&grants)?;
        Ok(PluginGrants { plugin, grants, version })
    }
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
    /// Lists the namespaces that there are.
    pub async fn namespaces(&self, part: &Part) -> Result<Page<NamespaceDetails>, Error> {
        let Page { items, next } = self.parts.store.list_namespaces(part).await?;
        let details = |row: NamespaceRow| self.details(row.name, row.limits, row.slots);
        Ok(Page { items: items.into_iter().map(details).collect::<Result<_, _>>()?, next })
    }

    /// A namespace. One that nobody has used is as any.
    pub async fn namespace(&self, name: &Name) -> Result<NamespaceDetails, Error> {
        let row = self.parts.store.namespace(name).await?;
        let (limits, slots) = row.map(|row| (row.limits, row.slots)).unwrap_or_default();
        self.details(name.clone(), limits, slots)
    }

    fn details(
        &self,
        name: Name,
        limits: LimitValues,
        own_slots: Option<u32>,
    ) -> Result<NamespaceDetails, Error> {
        let effective = self.parts.allowed(&name, &limits);
        let slots = self.parts.slots_of(own_slots);
        let version = settings_version(&limits, own_slots)?;
        Ok(NamespaceDetails { name, limits, effective, own_slots, slots, version })
    }

    /// Sets a namespace up, if it is now as expected: what is not said is as the
    /// host has it.
    pub async fn set_namespace(
        &self,
        name: &Name,
        settings: NamespaceSettings,
        expected: &Expected,
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
        let now = parts.clock.now();
        let set = parts.store.set_namespace(name, &limits, slots, expected, now).await?;
        if set == Setting::Unexpected {
            return Err(Error::Changed { what: format!("what is set for {name}"), it: "it" });
        }
        parts.tenants.forget(name);
        self.namespace(name).await
    }

    /// Lists what the plugins of a namespace are granted, by name.
    pub async fn grants(&self, namespace: &Name, part: &Part) -> Result<Page<PluginGrants>, Error> {
        let Page { items, next } = self.parts.store.list_grants(namespace, part).await?;
        let granted = |(plugin, grants)| PluginGrants::new(plugin, grants);
        Ok(Page { items: items.into_iter().map(granted).collect::<Result<_, _>>()?, next })
    }

    /// What the plugins of a name are granted.
    pub async fn grants_of(&self, namespace: &Name, plugin: &Name) -> Result<PluginGrants, Error> {
        PluginGrants::new(plugin.clone(), self.parts.store.grants_of(namespace, plugin).await?)
    }

    /// Sets what the plugins of a name are granted, if it is now as expected:
    /// this, and nothing else. It need not be uploaded yet.
    pub async fn set_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        grants: Grants,
        expected: &Expected,
    ) -> Result<PluginGrants, Error> {
        let parts = &self.parts;
        grants.check().map_err(|why| Error::Invalid {
            what: format!("the grants of {plugin}"),
            problems: why
                .into_iter()
                .map(|message| Problem { path: "$".into(), message })
                .collect(),
        })?;
        let now = parts.clock.now();
        let set = parts.store.set_grants(namespace, plugin, &grants, expected, now).await?;
        if set == Setting::Unexpected {
            return Err(Error::Changed { what: format!("the grants of {plugin}"), it: "them" });
        }
        parts.tenants.forget(namespace);
        PluginGrants::new(plugin.clone(), grants)
    }
}

impl Parts {
    /// What an attempt may use in a namespace with these limits of its own.
    pub(crate) fn allowed(&self, namespace: &Name, own: &LimitValues) -> Limits {
        let mut limits = Limits::clone(&self.limits);
        limits.lower_for(namespace, own);
        limits
    }

    /// So many nodes of a namespace run here at a time.
    pub(crate) fn slots_of(&self, own: Option<u32>) -> u32 {
        own.unwrap_or(self.namespace_slots).clamp(1, self.slots)
    }
}
