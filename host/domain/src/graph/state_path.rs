//! Paths of states as people write them: the identifiers from the root on, each with the index of
//! the output by which a branch came to it. `split.count[3]` is the state of `count` that the
//! output 3 of `split` created.
//!
//! Not here: the encoding that a database stores and compares (`crate::path`).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use super::Graph;
use super::problems::{nearest, quoted};
use crate::ids::NodeIx;
use crate::path::{Path, Step};

/// A text that names no state of a graph, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadStatePath(String);

impl Graph {
    /// Formats the path of a state; `None` if the graph has no such path.
    pub fn path_text(&self, path: &Path) -> Option<String> {
        let mut node = self.root();
        let mut text = self.node(node).identifier.to_string();
        for step in path.steps()? {
            let before = self.node(node);
            node = match step {
                Step::Child { edge, .. } => *before.next.get(edge as usize)?,
                Step::Unite(unite) => unite,
            };
            let _ = write!(text, ".{}", self.get(node)?.identifier);
            if let Step::Child { output, .. } = step {
                let _ = write!(text, "[{output}]");
            }
        }
        Some(text)
    }

    /// Formats the path of a state for people, or as it is encoded if the graph has no such path.
    pub fn shown_path(&self, path: &Path) -> String {
        self.path_text(path).unwrap_or_else(|| path.to_string())
    }

    /// Parses the path of a state. An index may be left out if it is 0.
    ///
    /// # Errors
    /// If no state can have that path, with the nearest identifier that continues it.
    pub fn parse_path(&self, text: &str) -> Result<Path, BadStatePath> {
        let mut steps = text.split('.');
        let (root, index) = read_step(steps.next().unwrap_or_default())?;
        let mut node = self.root();
        let identifier = self.node(node).identifier.as_str();
        if root != identifier {
            return Err(self.not_from_root(text, root));
        }
        if index != 0 {
            return Err(BadStatePath(format!(
                "{identifier} is the root of the graph, which runs once; write it without [{index}]"
            )));
        }
        let mut path = Path::root();
        for step in steps {
            let (identifier, output) = read_step(step)?;
            (path, node) = self.take_step(&path, node, (identifier, output))?;
        }
        Ok(path)
    }

    /// Returns the refusal of a path that begins at another identifier, with the path that is meant.
    fn not_from_root(&self, text: &str, first: &str) -> BadStatePath {
        let root = self.node(self.root()).identifier.as_str();
        let mut message =
            format!("the path {} does not begin at {root}, the root of the graph", quoted(text));
        let identifiers = self.nodes().map(|(_, node)| node.identifier.as_str());
        let meant = nearest(first, identifiers);
        match meant.and_then(|meant| Some((meant, self.find(meant)?))) {
            Some((meant, node)) => {
                let rest = text.strip_prefix(first).unwrap_or_default();
                let before = self.identifiers_before(node);
                let _ = write!(message, "; did you mean {before}{meant}{rest}?");
            }
            None => message.push_str("; write identifiers from there on, as split.count[3]"),
        }
        BadStatePath(message)
    }

    /// Returns the identifiers on the shortest way from the root to a node, each with a dot.
    fn identifiers_before(&self, target: NodeIx) -> String {
        let mut ways = BTreeMap::from([(self.root(), String::new())]);
        let mut queue = VecDeque::from([self.root()]);
        while let Some(ix) = queue.pop_front() {
            let node = self.node(ix);
            let way = ways.get(&ix).cloned().unwrap_or_default();
            if ix == target {
                return way;
            }
            let children = node.next.iter().filter(|next| self.node(**next).unites.is_none());
            for next in children.chain(&node.united_by) {
                ways.entry(*next).or_insert_with(|| {
                    queue.push_back(*next);
                    format!("{way}{}.", node.identifier)
                });
            }
        }
        String::new()
    }

    /// Continues a path at `from` by the step to an identifier.
    fn take_step(
        &self,
        path: &Path,
        from: NodeIx,
        (identifier, output): (&str, u32),
    ) -> Result<(Path, NodeIx), BadStatePath> {
        let before = self.node(from);
        let is_named = |ix: &NodeIx| self.node(*ix).identifier.as_str() == identifier;
        if let Some(unite) = before.united_by.iter().copied().find(is_named) {
            if output != 0 {
                return Err(BadStatePath(format!(
                    "{identifier} runs once for all outputs of {}; write it without [{output}]",
                    before.identifier
                )));
            }
            return Ok((path.unite(unite), unite));
        }
        let is_child = |ix: &NodeIx| self.node(*ix).unites.is_none();
        let edge = before.next.iter().position(|ix| is_child(ix) && is_named(ix));
        if let Some((edge, child)) = edge.and_then(|edge| Some((edge, *before.next.get(edge)?))) {
            return Ok((path.child(output, edge as u32), child));
        }
        let children = before.next.iter().filter(|ix| is_child(ix));
        let next: Vec<&str> = children
            .chain(&before.united_by)
            .map(|ix| self.node(*ix).identifier.as_str())
            .collect();
        let mut message = format!("{} does not follow {}", quoted(identifier), before.identifier);
        match nearest(identifier, next.iter().copied()) {
            Some(meant) => {
                let _ = write!(message, "; did you mean {meant}?");
            }
            None if next.is_empty() => message.push_str("; nothing does"),
            None => {
                let _ = write!(message, "; these do: {}", next.join(", "));
            }
        }
        Err(BadStatePath(message))
    }
}

/// Reads `identifier` or `identifier[index]`.
fn read_step(text: &str) -> Result<(&str, u32), BadStatePath> {
    let malformed = || {
        BadStatePath(format!(
            "{} is not a valid part of a path; write identifiers from the root on, as split.count[3]",
            quoted(text)
        ))
    };
    let (identifier, index) = match text.split_once('[') {
        None => (text, 0),
        Some((identifier, rest)) => {
            let digits = rest.strip_suffix(']').ok_or_else(malformed)?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed());
            }
            (identifier, digits.parse().map_err(|_| malformed())?)
        }
    };
    if identifier.is_empty() { Err(malformed()) } else { Ok((identifier, index)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::GraphBuilder;

    fn graph() -> Graph {
        GraphBuilder::from_text("split > count side; count > merge; merge(split) > last")
            .build()
            .unwrap()
    }

    #[test]
    fn a_formatted_path_is_parsed() {
        let graph = graph();
        let merge = graph.find("merge").unwrap();
        let root = Path::root();
        for (path, text) in [
            (root.clone(), "split"),
            (root.child(3, 0), "split.count[3]"),
            (root.child(0, 1), "split.side[0]"),
            (root.unite(merge), "split.merge"),
            (root.unite(merge).child(0, 0), "split.merge.last[0]"),
        ] {
            assert_eq!(graph.path_text(&path).as_deref(), Some(text));
            assert_eq!(graph.parse_path(text), Ok(path));
        }
        assert_eq!(graph.parse_path("split[0].side"), Ok(root.child(0, 1)));
        assert_eq!(
            graph.parse_path("split[0].merge[0].last"),
            graph.parse_path("split.merge.last")
        );
        assert_eq!(graph.path_text(&root.child(0, 7)), None);
        assert_eq!(graph.path_text(&root.unite(NodeIx(70))), None);
    }

    #[test]
    fn invalid_paths_name_the_nearest_identifier() {
        let graph = graph();
        for (text, message) in [
            ("", "not a valid part of a path"),
            ("count", "did you mean split.count?"),
            ("count[3]", "did you mean split.count[3]?"),
            ("cuont[3].x", "did you mean split.count[3].x?"),
            ("last[0]", "did you mean split.merge.last[0]?"),
            ("merge", "did you mean split.merge?"),
            ("splitt.count", "did you mean split.count?"),
            ("split[1]", "write it without [1]"),
            ("split.cuont[1]", "did you mean count?"),
            ("split.xyzxyz", "these do: count, side, merge"),
            ("split.side.count", "nothing does"),
            ("split.merge[2]", "write it without [2]"),
            ("split.count[-1]", "not a valid part"),
            ("split.count[1", "not a valid part"),
            ("split.count[99999999999]", "not a valid part"),
            ("split..count", "not a valid part"),
            ("7", "does not begin at split, the root of the graph; write identifiers"),
        ] {
            let error = graph.parse_path(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
