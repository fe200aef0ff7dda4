//! `/v1/operator/hosts`: the hosts of a database.

use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::known::or_default;

/// The hosts of a database, by number. Hosts are named by their data folders: a host that starts
/// again on its folder is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostList {
    /// The hosts, at most 1,000.
    pub hosts: Vec<HostDetails>,
    /// The number of states that the answering host has claimed: running, or about to run.
    #[serde(default, deserialize_with = "or_default")]
    pub holding: u32,
}

/// A host of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostDetails {
    /// The number of the host.
    pub number: i64,
    /// The name of the host: `--name`, or that of its machine.
    pub name: String,
    /// The version of its program; empty for a host that has not run for long.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// Set if the host is running: it has not stopped, and its heartbeat is not overdue.
    pub alive: bool,
    /// The time at which the host first started.
    pub first_seen_at: i64,
    /// The time at which the host last started.
    pub started_at: i64,
    /// The time at which the host stopped or was lost; null if neither has been noticed.
    pub ended_at: Option<i64>,
}

impl Typed for HostList {}
