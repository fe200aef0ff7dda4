//! Settings by operators: limits and slots of namespaces, and grants of plugins.

use exosphere_domain::clock::Clock;
use exosphere_domain::grant::Grants;
use exosphere_domain::graph::Problem;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::limits::{LimitValues, Limits};
use exosphere_store::{
    Expected, NamespaceRow, Page, PageRequest, Pause, Setting, settings_version,
};

use crate::Host;
use crate::error::Error;

/// A namespace with its settings.
#[derive(Debug, Clone)]
pub struct NamespaceDetails {
    /// The name of the namespace.
    pub name: Name,
    /// The limits that an operator has set.
    pub limits: LimitValues,
    /// The limits of its attempts on this host.
    pub effective: Limits,
    /// The slots on one host, if an operator has set them.
    pub own_slots: Option<u32>,
    /// The slots on this host.
    pub slots: u32,
    /// The version of the limits and slots, for conditional updates.
    pub version: Digest,
    /// The pause of the namespace, if it is paused; not in a list.
    pub pause: Option<Pause>,
}

/// The grants of the plugins of one name.
#[derive(Debug, Clone)]
pub struct PluginGrants {
    /// The name of the plugins.
    pub plugin: Name,
    /// The grants of the plugins.
    pub grants: Grants,
    /// The version of the grants, for conditional updates.
    pub version: Digest,
}

impl PluginGrants {
    fn new(plugin: Name, grants: Grants) -> Result<Self, Error> {
        let version = exosphere_store::grants_version(&grants)?;
        Ok(PluginGrants { plugin, grants, version })
    }
}

/// New settings of a namespace.
#[derive(Debug, Clone, Default)]
pub struct NamespaceSettings {
    /// The limits of the namespace.
    pub limits: LimitValues,
    /// The slots on one host; if absent, the host's default for a namespace.
    pub slots: Option<u32>,
}

impl Host {
    /// Lists namespaces in the order of their names.
    pub async fn namespaces(&self, part: &PageRequest) -> Result<Page<NamespaceDetails>, Error> {
        let Page { items, next } = self.inner.db.store.list_namespaces(part).await?;
        let details = |row: NamespaceRow| self.details(row.name, row.limits, row.slots);
        Ok(Page { items: items.into_iter().map(details).collect::<Result<_, _>>()?, next })
    }

    /// Returns a namespace that exists.
    pub async fn show_namespace(&self, name: &Name) -> Result<NamespaceDetails, Error> {
        self.check_namespace(name).await?;
        self.namespace(name).await
    }

    /// Returns a namespace. An unused one has the default settings.
    pub async fn namespace(&self, name: &Name) -> Result<NamespaceDetails, Error> {
        let row = self.inner.db.store.namespace(name).await?;
        let (limits, slots) = row.map(|row| (row.limits, row.slots)).unwrap_or_default();
        let pause = self.inner.db.store.pause_of_namespace(name).await?;
        Ok(NamespaceDetails { pause, ..self.details(name.clone(), limits, slots)? })
    }

    fn details(
        &self,
        name: Name,
        limits: LimitValues,
        own_slots: Option<u32>,
    ) -> Result<NamespaceDetails, Error> {
        let effective = self.inner.settings.attempt_limits(&name, &limits);
        let slots = self.inner.settings.slots_of(own_slots);
        let version = settings_version(&limits, own_slots)?;
        let pause = None;
        Ok(NamespaceDetails { name, limits, effective, own_slots, slots, version, pause })
    }

    /// Sets limits and slots of a namespace, if its version is as expected. Absent
    /// settings are reset to the host's defaults.
    pub async fn set_namespace(
        &self,
        name: &Name,
        settings: NamespaceSettings,
        expected: &Expected,
    ) -> Result<NamespaceDetails, Error> {
        let inner = &self.inner;
        let NamespaceSettings { limits, slots } = settings;
        let mut problems: Vec<Problem> = limits
            .iter()
            .filter_map(|(limit, value)| {
                let message = inner.settings.limits.forbids(limit, value)?;
                Some(Problem { path: format!("$.limits.{limit}"), message })
            })
            .collect();
        if slots == Some(0) {
            let message = "a namespace has at least 1 slot; leave it out for the host's own number";
            problems.push(Problem { path: "$.slots".into(), message: message.into() });
        }
        if !problems.is_empty() {
            return Err(Error::Invalid { subject: format!("the settings of {name}"), problems });
        }
        let now = inner.db.clock.now();
        let set = self.store().set_namespace(name, &limits, slots, expected, now).await?;
        if set == Setting::Unexpected {
            return Err(Error::Changed { subject: format!("what is set for {name}"), it: "it" });
        }
        inner.caches.namespaces.forget(name);
        self.namespace(name).await
    }

    /// Lists the grants of a namespace, by name of plugin.
    pub async fn grants(
        &self,
        namespace: &Name,
        part: &PageRequest,
    ) -> Result<Page<PluginGrants>, Error> {
        let Page { items, next } = self.inner.db.store.list_grants(namespace, part).await?;
        if items.is_empty() && part.after.is_none() {
            self.check_namespace(namespace).await?;
        }
        let granted = |(plugin, grants)| PluginGrants::new(plugin, grants);
        Ok(Page { items: items.into_iter().map(granted).collect::<Result<_, _>>()?, next })
    }

    /// Returns the grants of the plugins of one name, in a namespace that exists.
    pub async fn show_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
    ) -> Result<PluginGrants, Error> {
        let found = self.grants_of(namespace, plugin).await?;
        if found.grants == Grants::default() {
            self.check_namespace(namespace).await?;
        }
        Ok(found)
    }

    /// Returns the grants of the plugins of one name. The first plugin makes its namespace.
    pub async fn grants_of(&self, namespace: &Name, plugin: &Name) -> Result<PluginGrants, Error> {
        PluginGrants::new(plugin.clone(), self.inner.db.store.grants_of(namespace, plugin).await?)
    }

    /// Removes the grants of the plugins of one name, if their version is as expected.
    pub async fn remove_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        expected: &Expected,
    ) -> Result<PluginGrants, Error> {
        self.check_namespace(namespace).await?;
        self.set_grants(namespace, plugin, Grants::default(), expected).await
    }

    /// Replaces the grants of the plugins of one name, if their version is as expected. The
    /// plugin need not be uploaded yet.
    pub async fn set_grants(
        &self,
        namespace: &Name,
        plugin: &Name,
        grants: Grants,
        expected: &Expected,
    ) -> Result<PluginGrants, Error> {
        let inner = &self.inner;
        grants.check().map_err(|cause| Error::Invalid {
            subject: format!("the grants of {plugin}"),
            problems: cause
                .into_iter()
                .map(|message| Problem { path: "$".into(), message })
                .collect(),
        })?;
        let now = inner.db.clock.now();
        let set = self.store().set_grants(namespace, plugin, &grants, expected, now).await?;
        if set == Setting::Unexpected {
            return Err(Error::Changed { subject: format!("the grants of {plugin}"), it: "them" });
        }
        inner.caches.namespaces.forget(namespace);
        PluginGrants::new(plugin.clone(), grants)
    }
}
