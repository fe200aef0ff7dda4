//! Conversions of plugins to answers: lists, details, and the report of an admission.
//!
//! Not here: other answers (`views`).

use std::sync::Arc;

use exosphere_api_types::{
    Capability, Json, NodeDetails, PluginDetails, PluginReport, PluginSummary,
};
use exosphere_orchestrator as host;
use exosphere_orchestrator::domain::grant::Missing;
use exosphere_orchestrator::domain::ids::Name;

use crate::views::to_u64;

pub(crate) fn plugin_summary(plugin: host::PluginEntry) -> PluginSummary {
    PluginSummary {
        name: plugin.name.into(),
        version: plugin.version,
        digest: plugin.digest.to_string(),
        size: to_u64(plugin.size),
        uploaded_at: plugin.uploaded_at,
        nodes: Json::Text(plugin.nodes),
    }
}

pub(crate) fn plugin_details(plugin: host::PluginRow) -> PluginDetails {
    let nodes = plugin.nodes.into_iter().map(Arc::unwrap_or_clone).map(NodeDetails::from);
    PluginDetails {
        name: plugin.name.into(),
        version: plugin.version,
        digest: plugin.digest.to_string(),
        size: to_u64(plugin.size),
        uploaded_at: Some(plugin.uploaded_at),
        nodes: nodes.collect(),
        imports: plugin.imports,
        compile_ms: to_u64(plugin.compile_ms),
    }
}

pub(crate) fn plugin_checked(name: Name, checked: host::UploadReport) -> PluginReport {
    let host::UploadReport { digest, size, nodes, imports, compile, remarks } = checked;
    let plugin = PluginDetails {
        name: name.into(),
        version: String::new(),
        digest: digest.to_string(),
        size: size as u64,
        uploaded_at: None,
        nodes: nodes.into_iter().map(NodeDetails::from).collect(),
        imports,
        compile_ms: u64::try_from(compile.as_millis()).unwrap_or(u64::MAX),
    };
    plugin_report(plugin, remarks)
}

/// Returns the report on a plugin: its details and the remarks of its admission.
pub(crate) fn plugin_report(plugin: PluginDetails, remarks: host::AdmissionReport) -> PluginReport {
    let host::AdmissionReport { warnings, capabilities: requested } = remarks;
    PluginReport { plugin, capabilities: capabilities(requested), warnings }
}

pub(crate) fn capabilities(requested: Vec<host::Capability>) -> Vec<Capability> {
    let capability = |host::Capability { requested, granted, remedy }| {
        let needs = requested.capability().as_str().to_owned();
        let (import, secret) = match requested {
            Missing::Import { import, .. } => (Some(import), None),
            Missing::Secret(name) => (None, Some(name.into())),
        };
        Capability { import, secret, needs, granted, grant: remedy }
    };
    requested.into_iter().map(capability).collect()
}
