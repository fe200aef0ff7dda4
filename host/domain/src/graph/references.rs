//! References of a node's inputs, by node index: outputs of nodes, store keys, the
//! branches of a unite.
//!
//! Not here: whether a node may see an output that it refers to; see
//! [`super::visibility`].

use std::collections::BTreeSet;

use super::problems::{Problems, member};
use super::raw::RawGraph;
use super::resolve::NodeIndex;
use crate::template::Placeholder;

/// The references of one node's inputs.
#[derive(Default)]
pub struct References {
    /// The nodes whose outputs the inputs refer to, each with the path of one such input.
    pub outputs: Vec<(usize, String)>,
    /// The store keys that the inputs refer to, ascending.
    pub store_keys: Vec<String>,
    /// True if the inputs refer to the branches of the unite.
    pub branches: bool,
}

/// Collects the references of every node. Records a problem for each that does
/// not resolve.
pub fn collect(raw: &RawGraph, index: &NodeIndex<'_>, problems: &mut Problems) -> Vec<References> {
    (0..raw.nodes.len()).map(|ix| references_of(raw, ix, index, problems)).collect()
}

fn references_of(
    raw: &RawGraph,
    ix: usize,
    index: &NodeIndex<'_>,
    problems: &mut Problems,
) -> References {
    let node = &raw.nodes[ix];
    let inputs = format!("{}.inputs", node.path);
    let mut found = References::default();
    let mut store_keys = BTreeSet::new();
    for (name, template) in &node.inputs {
        let path = member(&inputs, name);
        // A repeated placeholder is one reference, and one mistake.
        let placeholders: BTreeSet<_> =
            template.iter().flat_map(|template| template.placeholders()).collect();
        let mut named = BTreeSet::new();
        for placeholder in placeholders {
            match placeholder {
                Placeholder::Output { identifier, .. } => {
                    if named.insert(identifier)
                        && let Some(target) = index.find(identifier, path.clone(), problems)
                    {
                        found.outputs.push((target, path.clone()));
                    }
                }
                Placeholder::Store { key } => {
                    check_store_key(raw, key, &path, problems);
                    store_keys.insert(key.clone());
                }
                Placeholder::Branches { .. } if node.unites.is_none() => {
                    let message = "only a unite has branches; this node has no \"unites\"";
                    problems.add(path.clone(), message);
                }
                Placeholder::Branches { .. } => found.branches = true,
            }
        }
    }
    found.store_keys = store_keys.into_iter().collect();
    found
}

fn check_store_key(raw: &RawGraph, key: &str, path: &str, problems: &mut Problems) {
    let store = &raw.store;
    let required = store.required_keys.binary_search_by(|known| known.as_str().cmp(key)).is_ok();
    if required || store.default_values.contains_key(key) {
        return;
    }
    let known = store.required_keys.iter().chain(store.default_values.keys());
    problems.add_unknown(
        path,
        format_args!("the store key {key:?} is neither a required key nor a default one"),
        key,
        known.map(String::as_str),
        "add it to store_config",
    );
}
