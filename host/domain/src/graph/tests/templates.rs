//! Tests of every rule of a template: a change that breaks the rule, and the expected message.

use super::*;
use crate::limits::Limit;

#[test]
fn an_ungranted_capability_names_its_grant_command() {
    let template = json!({"nodes": [{"node_name": "fetch", "identifier": "a", "next_nodes": []}]});
    let found = problem_lines(&template);
    let expected = [
        "$.nodes[0]: \"fetch\" of the plugin \"web\" cannot be used: it imports \
         `wasi:http/outgoing-handler@0.2.6`, for which it has no grant of `http`; an operator \
         grants it by `exosphere grant add web --http \"GET https://host/\" --namespace default`",
        "$.nodes[0]: \"fetch\" of the plugin \"web\" cannot be used: it imports \
         `wasi:config/store@0.2.0`, for which it has no grant of `config`; an operator grants it \
         by `exosphere grant add web --config KEY=VALUE --namespace default`",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_worked_example_is_valid() {
    let applied = apply(&example()).unwrap();
    let graph = &applied.graph;
    assert_eq!(applied.secrets.len(), 1);
    assert!(!graph.to_json().to_string().contains("hush"));
    assert_eq!(Graph::from_json(&graph.to_json()).as_ref(), Ok(graph));

    let [splitter, worker, merger] =
        ["splitter", "worker", "merger"].map(|name| graph.find(name).unwrap());
    assert_eq!(graph.root(), splitter);
    assert_eq!(graph.node(splitter).united_by, [merger]);
    assert_eq!(graph.node(worker).counts_in, [merger]);
    assert_eq!(graph.node(worker).singles(), [splitter]);
    assert_eq!(graph.node(worker).carries, [splitter]);
    assert_eq!(graph.node(worker).retry.max_retries, 5);
    assert_eq!(graph.node(worker).retry.backoff_factor, 2000);
    assert_eq!(graph.node(worker).limits.get(Limit::TimeoutMs), Some(10_000));
    assert_eq!(graph.node(merger).gathers(), [worker]);
    assert_eq!(graph.node(merger).singles(), []);
    assert_eq!(graph.node(merger).unites.as_ref().unwrap().region, [worker]);
    assert!(graph.reaches(splitter, merger) && !graph.reaches(merger, splitter));
    assert!(graph.leaves_gap(splitter, worker) && !graph.leaves_gap(worker, merger));
}

#[test]
fn a_null_secret_is_removed_if_unread() {
    let mut template = example();
    template["secrets"]["old"] = Value::Null;
    let applied = apply(&template).unwrap();
    let set = |name: &str| applied.secrets.get(&name.parse::<Name>().unwrap()).unwrap().is_some();
    assert_eq!((set("api_key"), set("old")), (true, false));
    template["secrets"]["api_key"] = Value::Null;
    let expected = "$.nodes[2]: \"merge\" reads the secret \"api_key\", which this removes; \
        leave it, or remove the node";
    assert_eq!(problem_lines(&template), [expected]);
}

/// Changes the example at JSON pointers; `null` removes the key.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut template = example();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match template.pointer_mut(parent).unwrap() {
            Value::Object(map) if value.is_null() => _ = map.remove(key),
            Value::Object(map) => _ = map.insert(key.to_owned(), value.clone()),
            Value::Array(list) if key == "-" => list.push(value.clone()),
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{pointer}"),
        }
    }
    template
}

#[test]
fn one_mistake_is_one_problem() {
    let table = [
        // Form.
        ("/triger", json!([]), "$.triger: unknown key \"triger\"; did you mean \"triggers\"?"),
        ("/nodes", json!([]), "$.nodes: a graph has from 1 to 1000 nodes, and this 0"),
        ("/nodes", json!(3), "$.nodes: this is a number, and must be an array"),
        (
            "/nodes/1/next_node",
            json!([]),
            "$.nodes[1].next_node: unknown key \"next_node\"; did you mean \"next_nodes\"?",
        ),
        (
            "/nodes/1/digest",
            json!("00"),
            "$.nodes[1].digest: unknown key \"digest\"; known keys: node_name, identifier, \
             plugin, inputs, next_nodes, unites, retry_policy, timeout_ms, limits, namespace",
        ),
        (
            "/nodes/1/namespace",
            json!("other"),
            "$.nodes[1].namespace: this is \"other\", but the graph is in the namespace \
             \"default\"; nothing crosses, so remove it",
        ),
        (
            "/nodes/1/timeout_ms",
            json!(0),
            "$.nodes[1].timeout_ms: this must be a whole number from 1 to 86400000",
        ),
        (
            "/nodes/1/timeout_ms",
            json!(86_400_001),
            "$.nodes[1].timeout_ms: this must be a whole number from 1 to 86400000",
        ),
        (
            "/nodes/1/timeout_ms",
            json!(30_001),
            "$.nodes[1].timeout_ms: limits can only be lowered: 30001 ms is more than 30 s \
             (`timeout_ms`); the operator of the host can raise it: `exosphere serve --limit \
             timeout_ms=..`",
        ),
        (
            "/nodes/1/limits",
            json!({"memory_byte": 1}),
            "$.nodes[1].limits.memory_byte: unknown key \"memory_byte\"; did you mean \"memory_bytes\"?",
        ),
        (
            "/nodes/1/limits",
            json!({"timeout_ms": 5}),
            "$.nodes[1].limits.timeout_ms: `timeout_ms` stands beside `limits`; move it there",
        ),
        (
            "/limits",
            json!({"cpu_ms": 0}),
            "$.limits.cpu_ms: this must be a whole number from 1 to 86400000",
        ),
        (
            "/limits",
            json!({"timeout_ms": 9_999}),
            "$.nodes[1].timeout_ms: limits can only be lowered: 10 s is more than 9999 ms \
             (`timeout_ms`); it was set by `limits.timeout_ms` of the graph",
        ),
        (
            "/nodes/1/retry_policy/strategy",
            json!("LINAER"),
            "$.nodes[1].retry_policy.strategy: there is no retry strategy \"LINAER\"; did you mean \"LINEAR\"?",
        ),
        (
            "/retry_policy/exponent",
            json!("2"),
            "$.retry_policy.exponent: this is a string, and must be a number from 1 to 1000",
        ),
        (
            "/triggers",
            json!([{"type": "CRON"}]),
            "$.triggers[0]: this version runs no triggers; remove it",
        ),
        (
            "/secrets/api_key",
            json!(17),
            "$.secrets.api_key: this is a number, and secrets are strings",
        ),
        (
            "/secrets/api_key",
            json!(null),
            "$.nodes[2]: \"merge\" reads the secret \"api_key\", which is not set; add \"api_key\" to \"secrets\"",
        ),
        (
            "/secrets/api_kye",
            json!("hush"),
            "$.secrets.api_kye: no node of this graph declares the secret \"api_kye\"; did you mean \"api_key\"?",
        ),
        (
            "/secrets/other",
            json!("hush"),
            "$.secrets.other: no node of this graph declares the secret \"other\"; leave it out",
        ),
        (
            "/store_config/default_values/batch_size",
            json!(100),
            "$.store_config.default_values.batch_size: store values are strings; put quotes around it: \"100\"",
        ),
        (
            "/store_config/required_keys/0",
            json!("a.b"),
            "$.store_config.required_keys[0]: \"a.b\" is not a store key: use 1 to 512 bytes with \
             neither '.' nor NUL among them",
        ),
        (
            "/store_config/keep",
            json!("yes"),
            "$.store_config.keep: this is a string, and must be true or false",
        ),
        // Identifiers and edges.
        (
            "/nodes/2/identifier",
            json!("splitter"),
            "$.nodes[2].identifier: $.nodes[0] is called \"splitter\" too; every node needs its \
             own\n$.nodes[1].next_nodes[0]: no node has the identifier \"merger\"; use the \
             identifier of a node of this graph",
        ),
        (
            "/nodes/1/next_nodes/0",
            json!("merge"),
            "$.nodes[1].next_nodes[0]: no node has the identifier \"merge\"; did you mean \"merger\"?",
        ),
        (
            "/nodes/0/next_nodes/-",
            json!("worker"),
            "$.nodes[0].next_nodes[1]: \"worker\" is listed twice; remove one",
        ),
        (
            "/nodes/2/next_nodes/-",
            json!("worker"),
            "$.nodes: the edges form a cycle: worker → merger → worker; a graph has none",
        ),
        (
            "/nodes/2/next_nodes/-",
            json!("merger"),
            "$.nodes: the edges form a cycle: merger → merger; a graph has none",
        ),
        (
            "/nodes/2/next_nodes/-",
            json!("splitter"),
            "$.nodes: the edges form a cycle: splitter → worker → merger → splitter; a graph has none",
        ),
        (
            "/nodes/1/next_nodes",
            json!([]),
            "$.nodes[2].unites: nothing leads to this unite; name it in the next_nodes of the nodes it joins",
        ),
        // Unites.
        (
            "/nodes/2/unites/identifier",
            json!("spliter"),
            "$.nodes[2].unites.identifier: no node has the identifier \"spliter\"; did you mean \"splitter\"?",
        ),
        (
            "/nodes/2/unites/identifier",
            json!("merger"),
            "$.nodes[2].unites.identifier: a node cannot unite its own branches; name an earlier one",
        ),
        (
            "/nodes/2/unites/strategy",
            json!("ALL_SUCESS"),
            "$.nodes[2].unites.strategy: \"ALL_SUCESS\" is not known here; did you mean \"ALL_SUCCESS\"?",
        ),
        (
            "/nodes/2/unites/max_failed",
            json!(3),
            "$.nodes[2].unites.max_failed: only the strategy ALL_DONE takes \"max_failed\"; set it, or remove this",
        ),
        (
            "/nodes/2/unites/on_empty",
            json!("SKIP"),
            "$.nodes[2].unites.on_empty: \"SKIP\" is not known here; it is one of PRUNE, RUN",
        ),
        // Nodes.
        (
            "/nodes/1/node_name",
            json!("cuont"),
            "$.nodes[1].node_name: no plugin exports a node \"cuont\"; did you mean \"count\"?",
        ),
        (
            "/nodes/1/plugin",
            json!("txt"),
            "$.nodes[1].plugin: the plugin \"txt\" does not export a node \"count\"; did you mean \"text\"?",
        ),
        (
            "/nodes/-",
            json!({"node_name": "open", "identifier": "stray"}),
            "$.nodes[0]: nothing leads to \"splitter\", nor to \"stray\"; a graph begins at \
             exactly one node, so connect or remove the others\n$.nodes[3]: nothing leads to \
             \"stray\", nor to \"splitter\"; a graph begins at exactly one node, so connect or \
             remove the others",
        ),
        // Inputs.
        (
            "/nodes/0/inputs",
            json!({}),
            "$.nodes[0].inputs: \"split\" requires the input \"text\"; give it",
        ),
        (
            "/nodes/0/inputs/txet",
            json!("x"),
            "$.nodes[0].inputs.txet: \"split\" has no input \"txet\"; did you mean \"text\"?",
        ),
        (
            "/nodes/0/inputs/size",
            json!(0),
            "$.nodes[0].inputs.size: this does not fit the input's schema: $.size: 0 is less than the minimum of 1",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ splitter.outputs.chunks }}"),
            "$.nodes[1].inputs.chunk: ${{ splitter.outputs.chunks }}: the outputs of \"split\" \
             have no field \"chunks\" there; did you mean \"chunk\"?",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ splitter.outputs.chunk.0 }}"),
            "$.nodes[1].inputs.chunk: ${{ splitter.outputs.chunk.0 }}: the outputs of \"split\" \
             have no field \"0\" there; nothing lies below that place",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ splitter.outputs.meta.indx }}"),
            "$.nodes[1].inputs.chunk: ${{ splitter.outputs.meta.indx }}: the outputs of \
             \"split\" have no field \"indx\" there; did you mean \"index\"?",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ spliter.outputs.chunk }}"),
            "$.nodes[1].inputs.chunk: no node has the identifier \"spliter\"; did you mean \"splitter\"?",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ splitter.chunk }}"),
            "$.nodes[1].inputs.chunk: the placeholder at character 1: after the identifier comes \
             \".outputs.\" and a field, as in ${{ splitter.outputs.field }}, but \"chunk\" was \
             found",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ store.batchsize }}"),
            "$.nodes[1].inputs.chunk: the store key \"batchsize\" is neither a required key nor \
             a default one; did you mean \"batch_size\"?",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ unite.branches }}"),
            "$.nodes[1].inputs.chunk: only a unite has branches; this node has no \"unites\"",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ worker.outputs.counts }}"),
            "$.nodes[1].inputs.chunk: \"worker\" cannot refer to its own outputs; name an earlier node",
        ),
        (
            "/nodes/1/inputs/chunk",
            json!("${{ merger.outputs.top.0.index }}"),
            "$.nodes[1].inputs.chunk: \"merger\" comes after \"worker\", so there is no output of it yet",
        ),
    ];
    for (pointer, value, expected) in table {
        assert_eq!(problem_lines(&changed(&[(pointer, value)])).join("\n"), expected, "{pointer}");
    }
}

#[test]
fn valid_variants_are_accepted() {
    let table = [
        ("/nodes/1/namespace", json!("default")),
        ("/nodes/1/plugin", json!("text")),
        ("/limits", json!({"memory_bytes": 1_000, "timeout_ms": 20_000})),
        ("/nodes/1/limits", json!({"cpu_ms": 20})),
        ("/triggers", json!([])),
        ("/store_config", Value::Null),
        ("/nodes/1/inputs/chunk", json!("at ${{ store.batch_size }} of ${{ store.cursor }}")),
        ("/nodes/1/inputs/chunk", json!("${{ splitter.outputs.meta.index }}")),
        ("/nodes/2/inputs/counts", json!("${{ unite.branches }}")),
        ("/nodes/2/inputs/counts", json!("${{ worker.outputs.counts.anything.below }}")),
        (
            "/nodes/2/unites",
            json!({"identifier": "splitter", "strategy": "ALL_DONE", "max_failed": "12.5%", "on_empty": "RUN"}),
        ),
        (
            "/nodes/2/unites",
            json!({"identifier": "splitter", "strategy": "ALL_DONE", "max_failed": 2}),
        ),
        ("/nodes/0/node_name", json!("open")),
    ];
    for (pointer, value) in table {
        let applied = apply(&changed(&[(pointer, value)]));
        let graph = applied.unwrap_or_else(|problems| panic!("{pointer}: {problems:?}")).graph;
        assert_eq!(Graph::from_json(&graph.to_json()), Ok(graph), "{pointer}");
    }
}

#[test]
fn names_of_nodes_reserved_missing_or_ambiguous() {
    let problems_of = |node: Value| problem_lines(&json!({"nodes": [node]})).join("\n");
    assert_eq!(
        problems_of(json!({"node_name": "open", "identifier": "store"})),
        "$.nodes[0].identifier: the identifier \"store\" is reserved for placeholders; use another"
    );
    assert_eq!(
        problems_of(json!({"node_name": "open", "identifier": "a.b"})),
        "$.nodes[0].identifier: an identifier has no '.', since placeholders are split there; use '_'"
    );
    assert_eq!(
        problems_of(json!({})),
        "$.nodes[0]: the key \"node_name\" is missing\n$.nodes[0]: the key \"identifier\" is missing"
    );
    assert_eq!(
        problems_of(json!({"node_name": "twice", "identifier": "a"})),
        "$.nodes[0]: several plugins export a node \"twice\": one, two; say which, as \"plugin\""
    );
    assert_eq!(problems_of(json!({"node_name": "twice", "identifier": "a", "plugin": "two"})), "");
    assert_eq!(
        problems_of(json!({"node_name": "notify", "identifier": "a"})),
        "$.nodes[0]: \"notify\" reads the secret \"api_key\", which is not set; add \"api_key\" to \"secrets\""
    );
}

#[test]
fn six_mistakes_are_six_problems() {
    let template = changed(&[
        ("/retry_polcy", json!({})),
        ("/nodes/0/inputs/text", json!(17)),
        ("/nodes/1/node_name", json!("counter")),
        ("/nodes/1/inputs/chunk", json!("${{ splitter.outputs.chunck }}")),
        ("/nodes/1/next_nodes/0", json!("mergr")),
        ("/nodes/2/unites/strategy", json!("ANY")),
    ]);
    let found = problem_lines(&template);
    let paths: Vec<_> = found.iter().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(
        paths,
        [
            "$.retry_polcy",
            "$.nodes[2].unites.strategy",
            "$.nodes[1].node_name",
            "$.nodes[0].inputs.text",
            "$.nodes[1].inputs.chunk",
            "$.nodes[1].next_nodes[0]",
        ],
        "{found:#?}"
    );
}

#[test]
fn a_cycle_and_unknown_node_are_reported() {
    let template = changed(&[
        ("/nodes/1/next_nodes", json!(["merger", "nowhere"])),
        ("/nodes/2/next_nodes", json!(["worker"])),
    ]);
    let found = problem_lines(&template);
    assert!(found.iter().any(|line| line.contains("nowhere")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("form a cycle")), "{found:#?}");
}

#[test]
fn the_number_of_problems_is_bounded() {
    let nodes: Vec<_> = (0..MAX_NODES).map(|_| json!({"odd": 1})).collect();
    let found = problem_lines(&json!({ "nodes": nodes }));
    assert_eq!(found.len(), problems::MAX_PROBLEMS + 1);
    assert_eq!(found.last().unwrap(), "$: and 2500 more problems");
}
