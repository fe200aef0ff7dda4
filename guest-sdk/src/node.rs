//! Nodes and plugins made from functions: [`export!`] and its parts.
//!
//! Not here: the WebAssembly side, which is in `bindings`.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Completion, Error, Failure, Reply, Result, schema};

/// A function that can be a node: `fn(Inputs) -> Result<Reply>`, or without inputs
/// `fn() -> Result<Reply>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a node",
    note = "a node is a function `fn(Inputs) -> exosphere_sdk::Result<Outputs>`, or one without inputs",
    note = "`Inputs` derives `Deserialize` and `JsonSchema`, `Outputs` derives `Serialize` and `JsonSchema`"
)]
pub trait Handler<Inputs> {
    /// Returns the JSON Schema of the inputs.
    fn inputs(&self) -> Value;
    /// Returns the JSON Schema of one output.
    fn outputs(&self) -> Value;
    /// Reads the inputs, runs the function, writes the outputs. Takes ownership of the
    /// text, to free it as soon as it is read: memory is limited.
    fn handle(&self, inputs: String) -> Result<Completion>;
}

impl<F, I, R> Handler<(I,)> for F
where
    F: Fn(I) -> Result<R>,
    I: DeserializeOwned + JsonSchema,
    R: Reply,
{
    fn inputs(&self) -> Value {
        schema::of_input::<I>()
    }

    fn outputs(&self) -> Value {
        R::schema()
    }

    fn handle(&self, inputs: String) -> Result<Completion> {
        self(read(inputs)?)?.complete()
    }
}

impl<F, R> Handler<()> for F
where
    F: Fn() -> Result<R>,
    R: Reply,
{
    fn inputs(&self) -> Value {
        schema::empty_object()
    }

    fn outputs(&self) -> Value {
        R::schema()
    }

    fn handle(&self, _inputs: String) -> Result<Completion> {
        self()?.complete()
    }
}

/// Parses inputs from JSON text. The error names the field.
fn read<I: DeserializeOwned>(text: String) -> Result<I> {
    let mut reader = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!(" at `{path}`") };
        Error::permanent(format!("the inputs do not fit the node{place}: {}", error.inner()))
    })
}

/// One node of a plugin, made by [`export!`].
#[derive(Debug)]
pub struct Node {
    name: &'static str,
    doc: &'static [&'static str],
    secrets: &'static [&'static str],
    schemas: fn() -> (Value, Value),
    handle: fn(String) -> Result<Completion>,
}

impl Node {
    /// Creates a node from its parts, for [`export!`].
    #[doc(hidden)]
    pub const fn new(
        name: &'static str,
        doc: &'static [&'static str],
        secrets: &'static [&'static str],
        schemas: fn() -> (Value, Value),
        handle: fn(String) -> Result<Completion>,
    ) -> Self {
        Node { name, doc, secrets, schemas, handle }
    }

    /// Returns the name of the node.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the secrets that the node declared.
    pub fn secrets(&self) -> &'static [&'static str] {
        self.secrets
    }

    fn describe(&self) -> Value {
        let (inputs, outputs) = (self.schemas)();
        let mut node = Map::new();
        node.insert("name".into(), self.name.into());
        if !self.doc.is_empty() {
            let lines: Vec<_> = self.doc.iter().map(|line| line.trim()).collect();
            node.insert("description".into(), lines.join("\n").into());
        }
        node.insert("inputs".into(), inputs);
        node.insert("outputs".into(), outputs);
        if !self.secrets.is_empty() {
            node.insert("secrets".into(), self.secrets.into());
        }
        node.into()
    }
}

/// The nodes that a crate exports, made by [`export!`] as `PLUGIN`.
#[derive(Debug)]
pub struct Plugin {
    nodes: &'static [Node],
}

impl Plugin {
    /// Creates a plugin of these nodes. An invalid or repeated name is a compile error.
    #[doc(hidden)]
    pub const fn new(nodes: &'static [Node]) -> Self {
        let mut at = 0;
        while at < nodes.len() {
            let name = nodes[at].name.as_bytes();
            assert!(
                is_name(name),
                "the name of a node is 1 to 128 letters, digits, '_', '-' or '.', and begins with a \
                 letter, digit or '_'"
            );
            let mut other = 0;
            while other < at {
                assert!(
                    !equal(nodes[other].name.as_bytes(), name),
                    "two nodes of a plugin have the same name"
                );
                other += 1;
            }
            at += 1;
        }
        Plugin { nodes }
    }

    /// Returns the nodes, in the order in which they are exported.
    pub fn nodes(&self) -> &'static [Node] {
        self.nodes
    }

    /// Returns the node with this name.
    pub fn node(&self, name: &str) -> Option<&'static Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Returns the description of the plugin for the host, as JSON text. The schemas
    /// are generated only here, so that executions are not slowed down.
    pub fn describe(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(Node::describe).collect();
        json!({ "nodes": nodes }).to_string()
    }

    /// Executes one node on inputs as JSON text.
    pub fn execute(&self, node: &str, inputs: impl Into<String>) -> Result<Completion, Failure> {
        let Some(found) = self.node(node) else {
            let names: Vec<_> = self.nodes.iter().map(|node| node.name).collect();
            let names = names.join(", ");
            return Err(Error::permanent(format!(
                "this plugin has no node `{node}`; it has {names}"
            ))
            .into());
        };
        (found.handle)(inputs.into()).map_err(Failure::from)
    }
}

const fn is_name(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        let inner = at > 0 && matches!(name[at], b'-' | b'.');
        if !(name[at].is_ascii_alphanumeric() || name[at] == b'_' || inner) {
            return false;
        }
        at += 1;
    }
    !name.is_empty() && name.len() <= 128
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Turns the crate into a plugin of one or several nodes.
///
/// Each node is a function (see `Handler`), whose name is the node's name. A doc
/// comment is the node's description for users, `as` gives the node another name, and
/// `reads` declares the secrets that it may read:
///
/// ```
/// use exosphere_sdk::prelude::*;
///
/// fn tick() -> Result<()> {
///     store::increment("ticks", 1);
///     Ok(())
/// }
///
/// fn pay() -> Result<()> {
///     let key = secrets::get("pay_key").ok_or_else(|| Error::permanent("pay_key is not set"))?;
///     // ...
///     # drop(key);
///     Ok(())
/// }
///
/// export! {
///     /// Counts how often it ran.
///     tick,
///     /// Pays a bill.
///     pay as "pay-bill" reads ["pay_key"],
/// }
/// # fn main() {}
/// ```
///
/// Use the macro once in a crate, in its root. It defines `PLUGIN` there, which
/// the module `testing` runs. On targets other than WebAssembly it does nothing
/// else.
#[macro_export]
macro_rules! export {
    (@name $node:ident) => { stringify!($node) };
    (@name $node:ident $name:literal) => { $name };
    ($(
        $(#[doc = $doc:expr])*
        $node:ident $(as $name:literal)? $(reads [$($secret:literal),* $(,)?])?
    ),+ $(,)?) => {
        /// The nodes of this crate.
        pub static PLUGIN: $crate::Plugin = $crate::Plugin::new(&[$(
            $crate::Node::new(
                $crate::export!(@name $node $($name)?),
                &[$($doc),*],
                &[$($($secret),*)?],
                || ($crate::Handler::inputs(&$node), $crate::Handler::outputs(&$node)),
                |inputs| $crate::Handler::handle(&$node, inputs),
            )
        ),+]);

        #[cfg(target_arch = "wasm32")]
        $crate::__component!();
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::Flow;

    #[derive(Deserialize, JsonSchema)]
    struct In {
        items: Vec<Item>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Item {
        n: i64,
    }

    #[derive(Serialize, JsonSchema)]
    struct Out {
        sum: i64,
    }

    fn add(input: In) -> Result<Out> {
        Ok(Out { sum: input.items.iter().map(|item| item.n).sum() })
    }

    fn nothing() -> Result<Flow<()>> {
        Ok(Flow::empty())
    }

    export! {
        /// Adds numbers.
        ///
        /// All of them.
        add as "add-up" reads ["a", "b"],
        nothing,
    }

    #[test]
    fn a_plugin_describes_its_nodes() {
        let found: Value = serde_json::from_str(&PLUGIN.describe()).unwrap();
        let inputs = json!({
            "type": "object",
            "properties": {"items": {"type": "array", "items": {
                "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
            }}},
            "required": ["items"],
        });
        let outputs = json!({
            "type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"],
        });
        let object = json!({"type": "object"});
        let expected = json!({"nodes": [
            {"name": "add-up", "description": "Adds numbers.\n\nAll of them.",
             "inputs": inputs, "outputs": outputs, "secrets": ["a", "b"]},
            {"name": "nothing", "inputs": object, "outputs": object},
        ]});
        assert_eq!(found, expected);
    }

    #[test]
    fn a_node_is_found_by_its_name() {
        let one = PLUGIN.execute("add-up", r#"{"items": [{"n": 1}, {"n": 2, "more": 3}]}"#);
        assert_eq!(one, Ok(Completion::Outputs(vec!["{\"sum\":3}".into()])));
        assert_eq!(PLUGIN.execute("nothing", "{}"), Ok(Completion::Outputs(vec![])));
        let failure = PLUGIN.execute("add", "{}").unwrap_err();
        assert_eq!(failure.message, "this plugin has no node `add`; it has add-up, nothing");
        assert!(!failure.retryable);
    }

    #[test]
    fn mismatched_inputs_fail_permanently_with_their_path() {
        for (inputs, message) in [
            (
                r#"{"items": [{"n": 1}, {"n": "x"}]}"#,
                "the inputs do not fit the node at `items[1].n`: invalid type: string \"x\", \
                 expected i64 at line 1 column 30",
            ),
            (r#"{}"#, "the inputs do not fit the node: missing field `items` at line 1 column 2"),
            ("[", "the inputs do not fit the node: EOF while parsing a list at line 1 column 1"),
        ] {
            let failure = PLUGIN.execute("add-up", inputs).unwrap_err();
            assert_eq!((failure.message.as_str(), failure.retryable), (message, false));
        }
    }

    #[test]
    fn node_names_are_validated() {
        for valid in ["a", "_x", "a-b.c_9", "9"] {
            assert!(is_name(valid.as_bytes()), "{valid}");
        }
        for invalid in ["", "-a", ".a", "a b", "ä", &"a".repeat(129)] {
            assert!(!is_name(invalid.as_bytes()), "{invalid}");
        }
        assert!(equal(b"ab", b"ab") && !equal(b"ab", b"ac") && !equal(b"a", b"ab"));
    }
}
