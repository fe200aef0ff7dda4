//! Checks the catalog and the counters: plugins, graphs and their revisions, secrets, grants, and
//! the next free numbers. Few rows, each checked by itself.

use exosphere_domain::api_key::ApiKeyId;
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::json::read_stored;
use exosphere_domain::node::NodeDescription;
use exosphere_domain::quota::QuotaValues;

use super::report::{Findings, kind};
use super::row_reader::{Columns, JoinedValue, RowReader, check_json_object, json};
use super::snapshot::Snapshot;
use crate::dialect::{Row, Statement, params};
use crate::error::StoreError;
use crate::secrets::keyring::KeyId;
use crate::sql;

/// A table that is checked row by row.
struct Table {
    name: &'static str,
    rows: &'static Statement,
    /// The columns of the statement; the first is the key of the row.
    columns: &'static [&'static str],
    check: fn(&mut RowReader<'_>),
}

const TABLES: [Table; 11] = [
    Table {
        name: "component",
        rows: sql::CHECK_COMPONENTS,
        columns: &["digest", "nodes", "imports", "size", "bytes", "exported_nodes"],
        check: component,
    },
    Table {
        name: "exported",
        rows: sql::CHECK_EXPORTED,
        columns: &["key", "node", "component_digest"],
        check: exported,
    },
    Table {
        name: "plugin",
        rows: sql::CHECK_PLUGINS,
        columns: &["id", "namespace", "name", "digest", "component_digest"],
        check: plugin,
    },
    Table {
        name: "graph",
        rows: sql::CHECK_GRAPHS,
        columns: &["id", "namespace", "name", "current", "revision_graph"],
        check: graph,
    },
    Table {
        name: "revision",
        rows: sql::CHECK_REVISIONS,
        columns: &["id", "graph", "number", "digest", "body", "graph_id", "uploads"],
        check: revision,
    },
    Table {
        name: "secret",
        rows: sql::CHECK_SECRETS,
        columns: &["key", "namespace", "graph", "name", "key_id"],
        check: secret,
    },
    Table {
        name: "seal",
        rows: sql::CHECK_KEY_CHECKS,
        columns: &["key", "key_id"],
        check: key_check,
    },
    Table {
        name: "namespace",
        rows: sql::CHECK_NAMESPACES,
        columns: &["id", "name", "quotas"],
        check: namespace,
    },
    Table {
        name: "api_key",
        rows: sql::CHECK_API_KEYS,
        columns: &["id", "digest", "namespaces"],
        check: api_key,
    },
    Table {
        name: "capability",
        rows: sql::CHECK_CAPABILITIES,
        columns: &["key", "namespace", "plugin", "grants"],
        check: capability,
    },
    Table {
        name: "number",
        rows: sql::CHECK_NUMBERS,
        columns: &["name", "next", "highest"],
        check: number,
    },
];

pub(super) async fn check(
    snapshot: &mut impl Snapshot,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    for Table { name, rows, columns, check } in TABLES {
        let visit = &mut |row: &dyn Row| {
            let key = row.int(0).map(|id| id.to_string()).or_else(|_| row.text(0));
            let key = key.unwrap_or_else(|_| "?".to_owned());
            check(&mut RowReader {
                row,
                columns: Columns::new(columns),
                table: name,
                key,
                run: None,
                findings,
            });
        };
        snapshot.visit_each(rows, &params![], visit).await?;
    }
    Ok(())
}

/// Checks a component, whose nodes are also in the table `exported`.
fn component(row: &mut RowReader<'_>) {
    row.parsed("digest", |text| text.parse::<Digest>().ok());
    if let Some(nodes) = row.parsed("nodes", json::<Vec<NodeDescription>>) {
        let mut names: Vec<_> = nodes.into_iter().map(|node| node.name).collect();
        names.sort();
        let names: Vec<_> = names.iter().map(Name::as_str).collect();
        let exported = match row.joined_text("exported_nodes") {
            JoinedValue::Value(exported) => Some(exported),
            JoinedValue::Missing => Some(String::new()),
            JoinedValue::Unreadable => None,
        };
        if exported.is_some_and(|exported| exported != names.join(",")) {
            row.report_value("nodes", "are not those that table exported has");
        }
    }
    row.parsed("imports", json::<Vec<String>>);
    if let (Some(size), Some(bytes)) = (row.count("size"), row.int("bytes"))
        && size != bytes
    {
        row.report_value("size", format_args!("is {size}, and it has {bytes} bytes"));
    }
}

/// Checks an exported node.
fn exported(row: &mut RowReader<'_>) {
    row.text("node");
    if matches!(row.joined_text("component_digest"), JoinedValue::Missing) {
        let message = "names a component that does not exist";
        row.findings.add(kind!(Orphan, exported.digest), &row.key, None, message);
    }
}

/// Checks the values of a plugin's row.
fn plugin(row: &mut RowReader<'_>) {
    row.parsed("namespace", name);
    row.parsed("name", name);
    row.parsed("digest", |text| text.parse::<Digest>().ok());
    if matches!(row.joined_text("component_digest"), JoinedValue::Missing) {
        let message = "names a component that does not exist";
        row.findings.add(kind!(Orphan, plugin.digest), &row.key, None, message);
    }
}

/// Checks a graph, whose current revision must be its own.
fn graph(row: &mut RowReader<'_>) {
    row.parsed("namespace", name);
    row.parsed("name", name);
    let (Some(id), Some(current)) = (row.int("id"), row.int("current")) else { return };
    let message = match row.joined_int("revision_graph") {
        JoinedValue::Unreadable => return,
        JoinedValue::Value(graph) if graph == id => return,
        JoinedValue::Value(graph) => format!("is revision {current}, which is of graph {graph}"),
        JoinedValue::Missing => format!("is revision {current}, which does not exist"),
    };
    row.findings.add(kind!(Orphan, graph.current), &row.key, None, message);
}

/// Checks the values of a revision's row.
fn revision(row: &mut RowReader<'_>) {
    row.findings.checked.revisions += 1;
    row.count("number");
    if row.int("graph").is_some() && matches!(row.joined_int("graph_id"), JoinedValue::Missing) {
        let message = "names a graph that does not exist";
        row.findings.add(kind!(Orphan, revision.graph), &row.key, None, message);
    }
    let Some(body) = row.text("body") else { return };
    match read_graph(&body) {
        None => row.report_value("body", "is not a valid graph"),
        Some(graph) => {
            let uploads: Vec<_> = graph.uploads().into_iter().map(upload_name).collect();
            if row.maybe_text("uploads").unwrap_or_default() != uploads.join(",") {
                row.report_value("body", "names other uploads than table revision_plugin");
            }
        }
    }
    let digest = Digest::from_content(body.as_bytes()).to_string();
    if row.text("digest").is_some_and(|stored| stored != digest) {
        row.report_value("digest", "is not that of its body");
    }
}

fn upload_name((plugin, digest): (&Name, Digest)) -> String {
    format!("{plugin}/{digest}")
}

/// Checks the values of a secret's row.
fn secret(row: &mut RowReader<'_>) {
    row.parsed("namespace", name);
    row.parsed("graph", name);
    row.parsed("name", name);
    row.parsed("key_id", KeyId::parse);
}

/// Checks a key check value.
fn key_check(row: &mut RowReader<'_>) {
    // A key check value from before keys had ids has an empty id; a key in use has one.
    row.parsed("key_id", |id| KeyId::parse(id).filter(|_| !id.is_empty()));
}

/// Checks the values of a namespace's row.
fn namespace(row: &mut RowReader<'_>) {
    row.parsed("name", name);
    row.parsed("quotas", json::<QuotaValues>);
}

/// Checks the values of a key's row.
fn api_key(row: &mut RowReader<'_>) {
    row.parsed("id", |text| text.parse::<ApiKeyId>().ok());
    row.parsed("digest", |text| text.parse::<Digest>().ok());
    row.maybe_parsed("namespaces", |text| text.split(',').map(name).collect::<Option<Vec<_>>>());
}

/// Checks the grants of a plugin.
fn capability(row: &mut RowReader<'_>) {
    row.parsed("namespace", name);
    row.parsed("plugin", name);
    row.parsed("grants", check_json_object);
}

/// Checks a counter against the highest number in use.
fn number(row: &mut RowReader<'_>) {
    let (Some(next), JoinedValue::Value(highest)) = (row.int("next"), row.joined_int("highest"))
    else {
        return;
    };
    if next <= highest {
        let message = format!("is {next}, and there is a {highest} already");
        row.findings.add(kind!(Number, number.next), &row.key, None, message);
    }
}

/// Reads the graph in the body of a revision.
pub(super) fn read_graph(body: &str) -> Option<Graph> {
    Graph::from_json(&read_stored(body).ok()?).ok()
}

fn name(text: &str) -> Option<Name> {
    text.parse().ok()
}
