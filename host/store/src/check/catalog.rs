//! Checks the catalog and the counters: plugins, graphs and their revisions, secrets, grants, and
//! the next free numbers. Few rows, each checked by itself.

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::json::read_stored;
use exosphere_domain::node::NodeDescription;

use super::cells::{Reading, check_json_object, json};
use super::report::{Findings, kind};
use super::snapshot::Snapshot;
use crate::error::StoreError;
use crate::keyring::KeyId;
use crate::sql;
use crate::text::{Cells, Text, values};

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    each(snapshot, findings, sql::CHECK_COMPONENTS, "component", component).await?;
    each(snapshot, findings, sql::CHECK_EXPORTED, "exported", exported).await?;
    each(snapshot, findings, sql::CHECK_PLUGINS, "plugin", plugin).await?;
    each(snapshot, findings, sql::CHECK_GRAPHS, "graph", graph).await?;
    each(snapshot, findings, sql::CHECK_REVISIONS, "revision", revision).await?;
    each(snapshot, findings, sql::CHECK_SECRETS, "secret", secret).await?;
    each(snapshot, findings, sql::CHECK_SEALS, "seal", seal).await?;
    each(snapshot, findings, sql::CHECK_NAMESPACES, "namespace", namespace).await?;
    each(snapshot, findings, sql::CHECK_CAPABILITIES, "capability", capability).await?;
    each(snapshot, findings, sql::CHECK_NUMBERS, "number", number).await
}

/// Checks each row of a table, whose key is the first column.
async fn each(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
    text: &'static Text,
    table: &'static str,
    look: fn(&mut Reading<'_>),
) -> Result<(), StoreError> {
    let see = &mut |cells: &dyn Cells| {
        let row = cells.int(0).map(|id| id.to_string()).or_else(|_| cells.text(0));
        let row = row.unwrap_or_default();
        look(&mut Reading { cells, table, row, run: None, findings });
    };
    snapshot.each(text, &values![], see).await
}

/// Checks a component: `digest, nodes, imports, size, actual bytes, names in table exported`.
fn component(row: &mut Reading<'_>) {
    row.parsed(0, "digest", |text| text.parse::<Digest>().ok());
    if let Some(nodes) = row.parsed(1, "nodes", json::<Vec<NodeDescription>>) {
        let mut names: Vec<_> = nodes.into_iter().map(|node| node.name).collect();
        names.sort();
        let names: Vec<_> = names.iter().map(Name::as_str).collect();
        if row.maybe_text(5, "nodes").unwrap_or_default() != names.join(",") {
            row.wrong("nodes", "are not those that table exported has");
        }
    }
    row.parsed(2, "imports", json::<Vec<String>>);
    if let (Some(size), Some(bytes)) = (row.count(3, "size"), row.int(4, "bytes"))
        && size != bytes
    {
        row.wrong("size", format_args!("is {size}, and it has {bytes} bytes"));
    }
}

/// Checks an exported node: `key, digest of its component`.
fn exported(row: &mut Reading<'_>) {
    if row.maybe_text(1, "digest").is_none() {
        let message = "names a component that is not there";
        row.findings.note(kind!(Stray, exported.digest), &row.row, None, message);
    }
}

/// Checks a plugin: `id, namespace, name, digest, digest of its component`.
fn plugin(row: &mut Reading<'_>) {
    row.parsed(1, "namespace", name);
    row.parsed(2, "name", name);
    row.parsed(3, "digest", |text| text.parse::<Digest>().ok());
    if row.maybe_text(4, "digest").is_none() {
        let message = "names a component that is not there";
        row.findings.note(kind!(Stray, plugin.digest), &row.row, None, message);
    }
}

/// Checks a graph: `id, namespace, name, current, graph of the current revision`.
fn graph(row: &mut Reading<'_>) {
    row.parsed(1, "namespace", name);
    row.parsed(2, "name", name);
    let (Some(id), Some(current)) = (row.int(0, "id"), row.int(3, "current")) else { return };
    let message = match row.maybe_int(4, "current") {
        Some(graph) if graph == id => return,
        Some(graph) => format!("is revision {current}, which is of graph {graph}"),
        None => format!("is revision {current}, which is not there"),
    };
    row.findings.note(kind!(Stray, graph.current), &row.row, None, message);
}

/// Checks a revision: `id, graph, number, digest, body, its graph`.
fn revision(row: &mut Reading<'_>) {
    row.findings.checked.revisions += 1;
    row.count(2, "number");
    if row.maybe_int(5, "graph").is_none() {
        let message = "names a graph that is not there";
        row.findings.note(kind!(Stray, revision.graph), &row.row, None, message);
    }
    let Some(body) = row.text(4, "body") else { return };
    if read_graph(&body).is_none() {
        row.wrong("body", "is no graph of ours");
    }
    let digest = Digest::of(body.as_bytes()).to_string();
    if row.text(3, "digest").is_some_and(|said| said != digest) {
        row.wrong("digest", "is not that of its body");
    }
}

/// Checks a secret: `key, namespace, graph, name, key_id`.
fn secret(row: &mut Reading<'_>) {
    row.parsed(1, "namespace", name);
    row.parsed(2, "graph", name);
    row.parsed(3, "name", name);
    row.parsed(4, "key_id", KeyId::parse);
}

/// Checks a key check value: `key, key_id`.
fn seal(row: &mut Reading<'_>) {
    // A key check value from before keys had ids has an empty id; a key in use has one.
    row.parsed(1, "key_id", |id| KeyId::parse(id).filter(|_| !id.is_empty()));
}

/// Checks a namespace: `id, name`.
fn namespace(row: &mut Reading<'_>) {
    row.parsed(1, "name", name);
}

/// Checks grants: `key, namespace, plugin, grants`.
fn capability(row: &mut Reading<'_>) {
    row.parsed(1, "namespace", name);
    row.parsed(2, "plugin", name);
    row.parsed(3, "grants", check_json_object);
}

/// Checks a counter: `name, next, the highest number in use`.
fn number(row: &mut Reading<'_>) {
    let (Some(next), Some(highest)) = (row.int(1, "next"), row.int(2, "next")) else { return };
    if next <= highest {
        let message = format!("is {next}, and there is a {highest} already");
        row.findings.note(kind!(Number, number.next), &row.row, None, message);
    }
}

/// Reads the graph in the body of a revision.
pub(super) fn read_graph(body: &str) -> Option<Graph> {
    Graph::from_json(&read_stored(body).ok()?).ok()
}

fn name(text: &str) -> Option<Name> {
    text.parse().ok()
}
