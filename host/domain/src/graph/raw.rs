//! Parses the form of a template: JSON becomes plain data, and every mistake of form is
//! recorded. All readable parts are kept for later checks.
//!
//! Not here: retry policies ([`crate::retry`]), and meaning: names are resolved later.

use std::collections::BTreeMap;

use serde_json::Value;

use super::limit_fields::{read_limit, read_limits};
use super::problems::{
    Object, Problems, array, boolean, element, kind, member, parsed, quoted, string,
};
use super::{MaxFailed, OnEmpty, StoreConfig, Strategy};
use crate::ids::{Digest, Name};
use crate::journal;
use crate::limits::{Limit, LimitValues};
use crate::retry::RetryPolicy;
use crate::template::Template;

/// The maximum number of nodes of a graph.
pub const MAX_NODES: usize = 1_000;

/// The maximum number of edges of a graph.
pub const MAX_EDGES: usize = 10_000;

/// The maximum number of edges that leave one node.
pub const MAX_NEXT_NODES: usize = 100;

/// The maximum number of required keys, and of default values, of a store.
pub const MAX_STORE_KEYS: usize = 1_000;

/// The maximum number of secrets of a graph.
pub const MAX_SECRETS: usize = 100;

/// The longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Identifiers reserved for placeholders.
pub const RESERVED: [&str; 2] = ["store", "unite"];

/// Keys of a template.
pub const GRAPH_KEYS: [&str; 6] =
    ["nodes", "retry_policy", "store_config", "secrets", "triggers", "limits"];

/// Keys of a node in a template.
pub const NODE_KEYS: [&str; 10] = [
    "node_name",
    "identifier",
    "plugin",
    "inputs",
    "next_nodes",
    "unites",
    "retry_policy",
    "timeout_ms",
    "limits",
    "namespace",
];

/// Keys of a unite.
pub const UNITE_KEYS: [&str; 4] = ["identifier", "strategy", "max_failed", "on_empty"];

/// Keys of a store's configuration.
pub const STORE_KEYS: [&str; 3] = ["required_keys", "default_values", "keep"];

/// The form of the JSON that is read.
pub enum Form<'a> {
    /// A template that a user wrote for a graph of this namespace.
    Template(&'a Name),
    /// A revision that [`super::Graph::to_json`] wrote: every node has a plugin
    /// and a digest, and there are no secrets.
    Revision,
}

/// A graph, as far as it could be read.
pub struct RawGraph {
    pub nodes: Vec<RawNode>,
    pub store: StoreConfig,
    /// A secret's new value; `None` for a secret to be removed.
    pub secrets: BTreeMap<Name, Option<String>>,
    pub limits: LimitValues,
}

/// A node, as far as it could be read.
pub struct RawNode {
    /// The node's path in the template.
    pub path: String,
    pub identifier: Option<Name>,
    pub node_name: Option<Name>,
    pub plugin: Option<Name>,
    pub digest: Option<Digest>,
    /// Templates of the inputs; `None` for an input that could not be read.
    pub inputs: BTreeMap<String, Option<Template>>,
    /// Targets of the edges; `None` for a target that could not be read.
    pub next: Vec<Option<Name>>,
    pub unites: Option<RawUnites>,
    pub retry: RetryPolicy,
    /// The node's own limits; the timeout is one of them.
    pub limits: LimitValues,
}

/// A unite's settings, as far as they could be read.
pub struct RawUnites {
    pub source: Option<Name>,
    pub strategy: Strategy,
    pub on_empty: OnEmpty,
}

/// Reads a graph. Returns `None` if its nodes could not be read.
pub fn read(value: &Value, form: &Form<'_>, problems: &mut Problems) -> Option<RawGraph> {
    let keys: &[&str] = match form {
        Form::Template(_) => &GRAPH_KEYS,
        Form::Revision => &["nodes", "store_config", "limits"],
    };
    let object = Object::read(value, "$", keys, problems)?;
    let retry = match object.get("retry_policy") {
        None => RetryPolicy::default(),
        Some(policy) => {
            RetryPolicy::read(policy, &object.at("retry_policy"), &RetryPolicy::default(), problems)
        }
    };
    let store = object
        .get("store_config")
        .map(|config| read_store(config, &object.at("store_config"), problems))
        .unwrap_or_default();
    let secrets = object
        .get("secrets")
        .map(|secrets| read_secrets(secrets, &object.at("secrets"), problems))
        .unwrap_or_default();
    let limits = object
        .get("limits")
        .map(|limits| read_limits(limits, &object.at("limits"), &[], problems))
        .unwrap_or_default();
    if let Some(triggers) = object.read_as("triggers", problems, array) {
        for at in 0..triggers.len() {
            let path = element(&object.at("triggers"), at);
            problems.add(path, "this version runs no triggers; remove it");
        }
    }
    let list = object.require("nodes", problems, array)?;
    if list.is_empty() || list.len() > MAX_NODES {
        let message = format!("a graph has from 1 to {MAX_NODES} nodes, and this {}", list.len());
        problems.add(object.at("nodes"), message);
        return None;
    }
    let node = |(at, node)| read_node(node, element("$.nodes", at), form, &retry, problems);
    let nodes: Vec<_> = list.iter().enumerate().map(node).collect();
    if nodes.iter().map(|node| node.next.len()).sum::<usize>() > MAX_EDGES {
        problems.add("$.nodes", format!("a graph has at most {MAX_EDGES} edges"));
        return None;
    }
    Some(RawGraph { nodes, store, secrets, limits })
}

fn read_node(
    value: &Value,
    path: String,
    form: &Form<'_>,
    graph_retry: &RetryPolicy,
    problems: &mut Problems,
) -> RawNode {
    let mut node = RawNode {
        path,
        identifier: None,
        node_name: None,
        plugin: None,
        digest: None,
        inputs: BTreeMap::new(),
        next: Vec::new(),
        unites: None,
        retry: graph_retry.clone(),
        limits: LimitValues::default(),
    };
    let keys = NODE_KEYS.map(|key| match (key, form) {
        ("namespace", Form::Revision) => "digest",
        (key, _) => key,
    });
    let Some(object) = Object::read(value, node.path.clone(), &keys, problems) else {
        return node;
    };
    node.node_name = object.require("node_name", problems, parsed);
    node.identifier = object.require("identifier", problems, identifier);
    match form {
        Form::Template(namespace) => {
            node.plugin = object.read_as("plugin", problems, parsed);
            check_namespace(&object, namespace, problems);
        }
        Form::Revision => {
            node.plugin = object.require("plugin", problems, parsed);
            node.digest = object.require("digest", problems, parsed);
        }
    }
    if let Some(inputs) = object.get("inputs") {
        node.inputs = read_inputs(inputs, &object.at("inputs"), problems);
    }
    if let Some(list) = object.read_as("next_nodes", problems, next_nodes) {
        node.next = read_next(list, &object.at("next_nodes"), problems);
    }
    if let Some(unites) = object.get("unites") {
        node.unites = Some(read_unites(unites, &object.at("unites"), problems));
    }
    if let Some(policy) = object.get("retry_policy") {
        node.retry = RetryPolicy::read(policy, &object.at("retry_policy"), graph_retry, problems);
    }
    node.limits = read_node_limits(&object, problems);
    node
}

/// Reads the limits of a node: its `limits`, and the timeout beside them.
fn read_node_limits(object: &Object<'_>, problems: &mut Problems) -> LimitValues {
    const TIMEOUT: Limit = Limit::TimeoutMs;
    let overrides = object
        .get("limits")
        .map(|limits| read_limits(limits, &object.at("limits"), &[TIMEOUT], problems))
        .unwrap_or_default();
    let timeout = read_limit(object, TIMEOUT, problems).map(|millis| (TIMEOUT, millis));
    overrides.iter().chain(timeout).collect()
}

fn identifier(value: &Value) -> Result<Name, String> {
    let name: Name = parsed(value)?;
    match name.as_str() {
        reserved if RESERVED.contains(&reserved) => {
            Err(format!("the identifier {reserved:?} is reserved for placeholders; use another"))
        }
        dotted if dotted.contains('.') => {
            Err("an identifier has no '.', since placeholders are split there; use '_'".to_owned())
        }
        _ => Ok(name),
    }
}

fn check_namespace(object: &Object<'_>, namespace: &Name, problems: &mut Problems) {
    if let Some(namespace_text) = object.read_as("namespace", problems, string)
        && namespace_text != namespace.as_str()
    {
        let quoted_text = quoted(namespace_text);
        problems.add(
            object.at("namespace"),
            format!(
                "this is {quoted_text}, but the graph is in the namespace \"{namespace}\"; nothing \
                crosses, so remove it"
            ),
        );
    }
}

fn read_inputs(
    value: &Value,
    path: &str,
    problems: &mut Problems,
) -> BTreeMap<String, Option<Template>> {
    let Value::Object(map) = value else {
        problems.add(path, format!("this is {}, and must be an object", kind(value)));
        return BTreeMap::new();
    };
    let mut read = |(key, value): (&String, &Value)| {
        let template = Template::parse(value, &member(path, key)).map_err(|errors| {
            errors.into_iter().for_each(|error| problems.add(error.path, error.message));
        });
        (key.clone(), template.ok())
    };
    map.iter().map(&mut read).collect()
}

fn next_nodes(value: &Value) -> Result<&Vec<Value>, String> {
    let list = array(value)?;
    if list.len() <= MAX_NEXT_NODES {
        Ok(list)
    } else {
        Err(format!("at most {MAX_NEXT_NODES} edges can leave one node"))
    }
}

fn read_next(list: &[Value], path: &str, problems: &mut Problems) -> Vec<Option<Name>> {
    let mut next: Vec<Option<Name>> = Vec::new();
    for (at, value) in list.iter().enumerate() {
        let name = parsed::<Name>(value);
        match &name {
            Err(message) => problems.add(element(path, at), message),
            Ok(name) if next.contains(&Some(name.clone())) => {
                problems.add(element(path, at), format!("\"{name}\" is listed twice; remove one"));
            }
            Ok(_) => {}
        }
        next.push(name.ok());
    }
    next
}

fn read_unites(value: &Value, path: &str, problems: &mut Problems) -> RawUnites {
    let mut unites =
        RawUnites { source: None, strategy: Strategy::AllSuccess, on_empty: OnEmpty::default() };
    let Some(object) = Object::read(value, path, &UNITE_KEYS, problems) else {
        return unites;
    };
    unites.source = object.require("identifier", problems, parsed);
    let max_failed = object.read_as("max_failed", problems, max_failed);
    match object.read_as("strategy", problems, string) {
        None | Some("ALL_SUCCESS") if object.get("max_failed").is_some() => {
            let message = "only the strategy ALL_DONE takes \"max_failed\"; set it, or remove this";
            problems.add(object.at("max_failed"), message);
        }
        None | Some("ALL_SUCCESS") => {}
        Some("ALL_DONE") => {
            unites.strategy = Strategy::AllDone(max_failed.unwrap_or(MaxFailed::Any));
        }
        Some(other) => {
            unknown_word(&object, "strategy", other, &["ALL_SUCCESS", "ALL_DONE"], problems)
        }
    }
    match object.read_as("on_empty", problems, string) {
        None | Some("PRUNE") => {}
        Some("RUN") => unites.on_empty = OnEmpty::Run,
        Some(other) => unknown_word(&object, "on_empty", other, &["PRUNE", "RUN"], problems),
    }
    unites
}

fn unknown_word(
    object: &Object<'_>,
    key: &str,
    word: &str,
    known: &[&str],
    problems: &mut Problems,
) {
    problems.add_unknown(
        object.at(key),
        format_args!("{} is not known here", quoted(word)),
        word,
        known.iter().copied(),
        format_args!("it is one of {}", known.join(", ")),
    );
}

fn max_failed(value: &Value) -> Result<MaxFailed, String> {
    let invalid =
        || "this must be a whole number, or a percentage from \"0%\" to \"100%\"".to_owned();
    match value {
        Value::String(text) => text
            .strip_suffix('%')
            .filter(|number| number.starts_with(|c: char| c.is_ascii_digit()))
            .and_then(|number| number.parse().ok())
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(MaxFailed::Percent)
            .ok_or_else(invalid),
        _ => {
            let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
            count.map(MaxFailed::Count).ok_or_else(invalid)
        }
    }
}

fn read_store(value: &Value, path: &str, problems: &mut Problems) -> StoreConfig {
    let mut store = StoreConfig::default();
    let Some(object) = Object::read(value, path, &STORE_KEYS, problems) else {
        return store;
    };
    let required = object.read_as("required_keys", problems, array).map_or(&[][..], Vec::as_slice);
    for (at, key) in required.iter().enumerate().take(MAX_STORE_KEYS) {
        let checked = string(key).and_then(|key| store_key(key).map(|()| key.to_owned()));
        match checked {
            Ok(key) => store.required_keys.push(key),
            Err(message) => problems.add(element(&object.at("required_keys"), at), message),
        }
    }
    // Sorted, because later checks search it.
    store.required_keys.sort();
    store.required_keys.dedup();
    let too_many = |count| count > MAX_STORE_KEYS;
    if too_many(required.len()) {
        problems.add(object.at("required_keys"), format!("at most {MAX_STORE_KEYS} keys"));
    }
    if let Some(values) = object.get("default_values") {
        store.default_values = read_store_values(values, &object.at("default_values"), problems);
        if too_many(store.default_values.len()) {
            problems.add(object.at("default_values"), format!("at most {MAX_STORE_KEYS} keys"));
        }
    }
    store.keep = object.read_as("keep", problems, boolean).unwrap_or_default();
    store
}

fn store_key(key: &str) -> Result<(), String> {
    journal::check_key(key).map_err(|error| error.to_string())
}

/// Reads store values from a template or a start request: an object of strings.
pub fn read_store_values(
    value: &Value,
    path: &str,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let Value::Object(map) = value else {
        problems.add(path, format!("this is {}, and must be an object of strings", kind(value)));
        return BTreeMap::new();
    };
    let mut values = BTreeMap::new();
    for (key, value) in map {
        let path = member(path, key);
        if let Err(message) = store_key(key) {
            problems.add(path, message);
            continue;
        }
        match value {
            Value::String(text) => _ = values.insert(key.clone(), text.clone()),
            Value::Number(_) | Value::Bool(_) => {
                let message =
                    format!("store values are strings; put quotes around it: \"{value}\"");
                problems.add(path, message);
            }
            _ => {
                problems.add(path, format!("this is {}, and store values are strings", kind(value)))
            }
        }
    }
    values
}

fn read_secrets(
    value: &Value,
    path: &str,
    problems: &mut Problems,
) -> BTreeMap<Name, Option<String>> {
    let Value::Object(map) = value else {
        problems.add(path, format!("this is {}, and must be an object of strings", kind(value)));
        return BTreeMap::new();
    };
    if map.len() > MAX_SECRETS {
        problems.add(path, format!("a graph has at most {MAX_SECRETS} secrets"));
        return BTreeMap::new();
    }
    let mut secrets = BTreeMap::new();
    for (key, value) in map {
        // Messages here must not repeat a value.
        let path = member(path, key);
        let name: Name = match key.parse() {
            Ok(name) => name,
            Err(error) => {
                problems.add(path, error.to_string());
                continue;
            }
        };
        // An unreadable secret is kept as an entry, so that it is reported
        // once.
        let secret = match value {
            Value::Null => None,
            Value::String(text) if text.len() <= MAX_SECRET_BYTES => Some(text.clone()),
            Value::String(_) => {
                problems.add(path, format!("a secret has at most {MAX_SECRET_BYTES} bytes"));
                Some(String::new())
            }
            other => {
                problems.add(path, format!("this is {}, and secrets are strings", kind(other)));
                Some(String::new())
            }
        };
        secrets.insert(name, secret);
    }
    secrets
}
