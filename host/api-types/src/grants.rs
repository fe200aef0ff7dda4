//! `/v1/operator/namespaces/{namespace}/grants`: grants of plugins. The body of a request is
//! a [`Grants`].

use exosphere_domain::grant::Grants;
use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of the grants of a namespace, by name of plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantList {
    /// The grants of this page.
    pub grants: Vec<PluginGrants>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// The grants of the plugins of one name. The header `ETag` has their version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginGrants {
    /// The name of the plugins. The grants hold for every upload under it, also for later ones.
    pub plugin: String,
    /// The grants of the plugins.
    pub grants: Grants,
}

impl Typed for GrantList {}
impl Typed for PluginGrants {}
