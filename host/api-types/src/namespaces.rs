//! `/v1/operator/namespaces`: limits and slots.

use std::collections::BTreeMap;

use exosphere_domain::json::Typed;
use exosphere_domain::limits::LimitValues;
use exosphere_domain::quota::QuotaValues;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::pauses::Pause;

/// The settings of a namespace, as an operator sends them. They replace all earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSettings {
    /// The limits of the namespace, by name. Each may be at most the host's [default: none].
    #[serde(default)]
    pub limits: LimitValues,
    /// The slots of the namespace on one host, from 1; null or absent for the host's number.
    #[serde(default)]
    pub slots: Option<u32>,
}

/// A page of the namespaces of a host, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceList {
    /// The namespaces of this page.
    pub namespaces: Vec<NamespaceDetails>,
    /// The cursor of the next page, for `after`; null on the last page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A namespace with its settings. The header `ETag` has their version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceDetails {
    /// The name of the namespace.
    pub name: String,
    /// The limits that an operator has set, by name. A newer host may have limits that a client
    /// does not know.
    pub limits: BTreeMap<String, u64>,
    /// The slots on one host that an operator has set; null if none has.
    pub slots: Option<u32>,
    /// The effective limits and slots on the answering host.
    pub effective: EffectiveSettings,
    /// The pause of the namespace; null if it is not paused, and in a list.
    #[serde(default)]
    pub pause: Option<Pause>,
}

/// The effective limits and slots of a namespace, on the answering host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EffectiveSettings {
    /// The value of every limit, by name. A newer host may have limits that a client does not
    /// know.
    pub limits: BTreeMap<String, u64>,
    /// The number of slots: how many executions of the namespace run at a time.
    pub slots: u32,
}

/// The quotas of a namespace, as an admin sends them. They replace all earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// The quotas of the namespace, by name [default: none].
    #[serde(default)]
    pub quotas: QuotaValues,
}

/// The quotas of a namespace. The header `ETag` has their version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceQuotas {
    /// The quotas that an admin has set, by name.
    pub quotas: QuotaValues,
    /// The use of each of them by the namespace, except of rates.
    #[serde(default)]
    pub used: QuotaValues,
}

impl Typed for QuotaSettings {}
impl Typed for NamespaceQuotas {}
impl Typed for NamespaceSettings {}
impl Typed for NamespaceList {}
impl Typed for NamespaceDetails {}
