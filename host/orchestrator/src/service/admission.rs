//! The admission report of an upload: its contents, the grants that it needs, and
//! warnings for its author.
//!
//! Not here: refusals. The sandbox refuses components, and the domain refuses
//! descriptions of nodes.

use std::time::Duration;

use exosphere_domain::grant::{Grants, Missing};
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::limits::{Limit, Limits, Unit};
use exosphere_domain::node::{NodeDescription, parse_description};
use exosphere_sandbox::{Admitted, ComponentSummary as Facts};

use crate::Host;
use crate::error::{Error, log_internal};
use crate::host_work::{Bounds, DESCRIPTION_STEPS, Meter};

/// A capability that a plugin asks for and that needs a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The import or secret that the plugin asks for.
    pub requested: Missing,
    /// Set if the capability is granted.
    pub granted: bool,
    /// The command by which an operator grants it.
    pub remedy: String,
}

/// The report on a plugin that is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionReport {
    /// Warnings for the author.
    pub warnings: Vec<String>,
    /// Capabilities that need a grant.
    pub capabilities: Vec<Capability>,
}

/// The admission report of an upload that would be admitted.
#[derive(Debug)]
pub struct UploadReport {
    /// The digest of the component.
    pub digest: Digest,
    /// The size of the component, in bytes.
    pub size: usize,
    /// The nodes of the plugin.
    pub nodes: Vec<NodeDescription>,
    /// The imports of the component.
    pub imports: Vec<String>,
    /// The time that the compilation took.
    pub compile: Duration,
    /// Warnings and capabilities.
    pub remarks: AdmissionReport,
}

/// Compilation time from which the author is warned.
const SLOW_COMPILATION: Duration = Duration::from_secs(10);

/// Bytes of strippable sections from which the author is warned.
const STRIPPABLE_WARNING_BYTES: u64 = 64 * 1024;

/// The interface of a plugin.
const GUEST_INTERFACE: &str = "exosphere:node/guest@";

impl Host {
    /// Checks a plugin as if it were pushed. Nothing is stored.
    pub async fn check_plugin(
        &self,
        namespace: &Name,
        name: &Name,
        bytes: &[u8],
    ) -> Result<UploadReport, Error> {
        let candidate = self.inner.sandbox.inspect_upload(namespace.as_str(), bytes).await?;
        let grants = self.grants_of(namespace, name).await?.grants;
        self.report((namespace, name), &grants, candidate.admitted, bytes.len()).await
    }

    /// Builds the report on a plugin that the sandbox admits; `place` is its namespace
    /// and its name.
    pub(crate) async fn report(
        &self,
        place: (&Name, &Name),
        grants: &Grants,
        admitted: Admitted,
        size: usize,
    ) -> Result<UploadReport, Error> {
        let turn = self.inner.host_work.turn(place.0).await;
        let description = admitted.description.clone();
        let parse = move |meter: &Meter| parse_description(&description, meter);
        let done = self.inner.host_work.run(turn, Bounds::steps(DESCRIPTION_STEPS), parse).await;
        let nodes = done.map_err(|lost| Error::Internal(log_internal(&lost)))?.value;
        let nodes = nodes.map_err(|problems| Error::Description { problems })?;
        let Admitted { digest, imports, summary, compile, .. } = admitted;
        let mut warnings = facts_warnings(&summary, &self.inner.settings.limits);
        warnings.extend(node_warning(&nodes));
        warnings.extend(compilation_warning(compile, &summary));
        let capabilities = capabilities(place, grants, &imports, &nodes);
        let remarks = AdmissionReport { warnings, capabilities };
        Ok(UploadReport { digest, size, nodes, imports, compile, remarks })
    }
}

/// Lists the capabilities that a plugin asks for, and marks those that are granted.
fn capabilities(
    (namespace, name): (&Name, &Name),
    grants: &Grants,
    imports: &[String],
    nodes: &[NodeDescription],
) -> Vec<Capability> {
    let secrets: Vec<Name> = nodes.iter().flat_map(|node| node.secrets.clone()).collect();
    let missing = grants.missing(imports, &secrets);
    let all = Grants::default().missing(imports, &secrets).into_iter();
    all.map(|requested| Capability {
        granted: !missing.contains(&requested),
        remedy: requested.remedy(namespace, name),
        requested,
    })
    .collect()
}

fn facts_warnings(facts: &Facts, limits: &Limits) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_required = |name: &str| name.starts_with("component-type") || name == "dylink.0";
    let custom = facts.custom.iter().filter(|section| !is_required(&section.name));
    let bytes: u64 = custom.clone().map(|section| section.bytes).sum();
    if bytes >= STRIPPABLE_WARNING_BYTES {
        let mut largest: Vec<_> = custom.collect();
        largest.sort_by_key(|section| std::cmp::Reverse(section.bytes));
        let named: Vec<_> =
            largest.iter().take(3).map(|section| format!("`{}`", section.name)).collect();
        warnings.push(format!(
            "{bytes} bytes are debug information and other custom sections ({}, ..): build it \
             with `strip = true`, or use `wasm-tools strip`",
            named.join(", ")
        ));
    }
    let extra: Vec<_> =
        facts.exports.iter().filter(|name| !name.starts_with(GUEST_INTERFACE)).collect();
    if let Some(first) = extra.first() {
        warnings.push(format!(
            "it exports {} thing(s) that no host asks for, such as `{first}`",
            extra.len()
        ));
    }
    let memory = limits.get(Limit::MemoryBytes);
    if facts.memory_bytes > memory / 2 {
        warnings.push(format!(
            "it starts with {} of memory, while an attempt may use {} (limit `{}`)",
            Unit::Bytes.show(facts.memory_bytes),
            Unit::Bytes.show(memory),
            Limit::MemoryBytes
        ));
    }
    warnings
}

fn node_warning(nodes: &[NodeDescription]) -> Option<String> {
    let undescribed: Vec<_> =
        nodes.iter().filter(|node| node.description.trim().is_empty()).collect();
    let first = undescribed.first()?;
    Some(format!(
        "{} of {} node(s) have no description for people, such as `{}`",
        undescribed.len(),
        nodes.len(),
        first.name
    ))
}

fn compilation_warning(compile: Duration, facts: &Facts) -> Option<String> {
    (compile >= SLOW_COMPILATION).then(|| {
        format!(
            "it took {} s to compile ({} functions), which each host does once",
            compile.as_secs(),
            facts.functions
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_domain::grant;
    use exosphere_sandbox::CustomSection;

    use super::*;

    #[test]
    fn odd_facts_give_warnings() {
        let section = |name: &str, bytes| CustomSection { name: name.to_owned(), bytes };
        let facts = Facts {
            exports: vec!["exosphere:node/guest@0.1.0".to_owned()],
            custom: vec![section("component-type:x", 1 << 20), section("producers", 300)],
            memory_bytes: 1 << 20,
            ..Facts::default()
        };
        assert_eq!(facts_warnings(&facts, &Limits::default()), Vec::<String>::new());
        let facts = Facts {
            exports: vec!["exports".to_owned(), "exosphere:node/guest@0.1.0".to_owned()],
            custom: vec![section("name", 10), section(".debug_info", 1 << 20)],
            memory_bytes: 100 << 20,
            ..Facts::default()
        };
        let found = facts_warnings(&facts, &Limits::default());
        for (warning, message) in found.iter().zip([".debug_info", "`exports`", "100 MiB"]) {
            assert!(warning.contains(message), "{warning}");
        }
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn capabilities_show_which_are_granted() {
        let name: Name = "web".parse().unwrap();
        let grants = Grants { secrets: [name.clone()].into(), ..Grants::default() };
        let imports =
            ["wasi:http/outgoing-handler@0.2.3".to_owned(), "wasi:cli/stdout@0.2.3".into()];
        let node = NodeDescription {
            name: name.clone(),
            description: String::new(),
            inputs: serde_json::json!({}),
            outputs: serde_json::json!({}),
            secrets: vec![name.clone()],
        };
        let requested = capabilities((&name, &name), &grants, &imports, &[node]);
        let found: Vec<_> = requested
            .iter()
            .map(|capability| (capability.requested.capability(), capability.granted))
            .collect();
        assert_eq!(found, [(grant::Capability::Http, false), (grant::Capability::Secrets, true)]);
        assert!(requested[0].remedy.starts_with("exosphere grant add web --http"));
    }
}
