//! Exporters of nodes and the list of plugins, both read without descriptions.

use std::collections::BTreeSet;

use exosphere_domain::ids::{Digest, Name};
use exosphere_domain::node::NodeDescription;
use exosphere_store::{NewPlugin, PageRequest};
use serde_json::json;

use crate::harness::{Harness, name};
use crate::test_database::Kind;

on_both! {
    only_newest_uploads_export_nodes,
    the_migration_finds_exported_nodes,
    plugin_pages_are_bounded_by_node_names,
}

async fn push(
    harness: &Harness,
    (namespace, plugin): (&str, &str),
    bytes: &str,
    nodes: &[&str],
    now: i64,
) {
    let node = |node: &&str| NodeDescription {
        name: name(node),
        description: "with \"quotes\", commas and \u{e4}".to_owned(),
        inputs: json!({"type": "object"}),
        outputs: json!({"type": "object"}),
        secrets: Vec::new(),
    };
    let new = NewPlugin {
        namespace: name(namespace),
        name: name(plugin),
        version: String::new(),
        digest: Digest::from_content(bytes.as_bytes()),
        bytes: bytes.as_bytes().to_vec(),
        nodes: nodes.iter().map(node).collect(),
        imports: vec!["wasi:cli/stdout@0.2.6".to_owned()],
        compile_ms: 1,
    };
    harness.store.push_plugin(new, now).await.unwrap();
}

/// Returns pairs of node and plugin.
async fn exporters(harness: &Harness, namespace: &str, nodes: &[&str]) -> Vec<(String, String)> {
    let nodes: BTreeSet<Name> = nodes.iter().map(|node| name(node)).collect();
    let rows = harness.store.exporters(&name(namespace), &nodes).await.unwrap();
    rows.into_iter().map(|row| (row.node.to_string(), row.plugin.to_string())).collect()
}

async fn only_newest_uploads_export_nodes(kind: Kind) {
    let harness = Harness::new(kind).await;
    push(&harness, ("n", "one"), "a", &["echo", "old"], 1).await;
    push(&harness, ("n", "one"), "b", &["echo", "new"], 2).await;
    push(&harness, ("n", "two"), "b", &["echo", "new"], 3).await;
    push(&harness, ("other", "one"), "c", &["echo", "theirs"], 4).await;
    let pair = |node: &str, plugin: &str| (node.to_owned(), plugin.to_owned());
    let found = exporters(&harness, "n", &["echo", "old", "theirs", "none"]).await;
    assert_eq!(found, [pair("echo", "one"), pair("echo", "two")]);
    assert_eq!(exporters(&harness, "n", &[]).await, []);
    let names = harness.store.node_names(&name("n"), 10).await.unwrap();
    assert_eq!(names, [name("echo"), name("new")]);
    assert_eq!(harness.store.node_names(&name("n"), 1).await.unwrap(), [name("echo")]);
    // Older bytes that were pushed again are the newest upload.
    push(&harness, ("n", "one"), "a", &["echo", "old"], 5).await;
    assert_eq!(exporters(&harness, "n", &["old"]).await, [pair("old", "one")]);
}

/// A database of the previous schema version has no list of exported nodes.
async fn the_migration_finds_exported_nodes(kind: Kind) {
    let harness = Harness::new(kind).await;
    push(&harness, ("n", "one"), "a", &["echo", "old"], 1).await;
    push(&harness, ("n", "two"), "b", &["new"], 2).await;
    let before = harness.database.table("exported").await;
    harness.database.execute("DELETE FROM exported").await.unwrap();
    let migration = match kind {
        Kind::Sqlite => include_str!("../../../../migrations/sqlite/0006_descriptions.sql"),
        Kind::Postgres => include_str!("../../../../migrations/postgres/0006_descriptions.sql"),
    };
    let insert = &migration[migration.find("INSERT").unwrap()..];
    harness.database.execute(insert).await.unwrap();
    assert_eq!(harness.database.table("exported").await, before);
    assert_eq!(before.len(), 3);
}

async fn plugin_pages_are_bounded_by_node_names(kind: Kind) {
    const PLUGINS: usize = 25;
    let harness = Harness::new(kind).await;
    let nodes: Vec<String> = (0..1000).map(|at| format!("n{at:0>99}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    for at in 0..PLUGINS {
        push(&harness, ("n", &format!("p{at:02}")), &at.to_string(), &nodes, 1).await;
    }
    let (mut names, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let request = PageRequest { after, limit: 1000 };
        let page = harness.store.list_plugins(&name("n"), &request).await.unwrap();
        let bytes: usize = page.items.iter().map(|plugin| plugin.nodes.len()).sum();
        assert!(bytes < (1 << 20) + (128 << 10), "{bytes} bytes of node names on a page of 1 MiB");
        sizes.push(page.items.len());
        names.extend(page.items.into_iter().map(|plugin| plugin.name.to_string()));
        let Some(next) = page.next else { break };
        after = Some(name(&next));
    }
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    let expected: Vec<String> = (0..PLUGINS).map(|at| format!("p{at:02}")).collect();
    assert_eq!(names, expected);
}
