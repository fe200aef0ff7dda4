//! Checks a state's place against its ancestors: its parent and node, the outputs and unites
//! that it names, and, for a unite, its scope and whether it continued in time. Not here: the
//! stack.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::Graph;
use exosphere_domain::ids::NodeIx;
use exosphere_domain::path::{Path, Step};
use exosphere_domain::state::{Place, Ref, Status};
use exosphere_domain::unite::{UniteDecision, close};

use super::report::{Findings, Kind, kind};
use super::state::{StateRow, UniteRow};
use super::walk::Walk;

/// A state's place.
pub(super) struct Found {
    /// The node that the path leads to, or else the node that the row names.
    pub node: Option<NodeIx>,
    pub step: Option<Step>,
    /// True if the state's parent is missing.
    pub is_orphan: bool,
}

impl Walk<'_> {
    /// Checks a state against its parent, which is invariant 1 seen from the child.
    pub(super) fn check_parent(
        &mut self,
        graph: &Graph,
        state: &StateRow,
        path: &Path,
        findings: &mut Findings,
    ) -> Found {
        let named = state.node.filter(|node| graph.get(*node).is_some());
        let Some((parent_path, step)) = path.last() else {
            let node = self.check_node(graph, state, Some(graph.root()), findings);
            return Found { node, step: None, is_orphan: false };
        };
        let has_parent = self.stack.last().is_some_and(|top| top.path.as_str() == parent_path);
        if !has_parent {
            let above = Path::decode(parent_path).unwrap_or_default();
            let message = format!("is {path}, and there is no state at {above}");
            self.report(findings, kind!(Parent, state.path), state.id, message);
            return Found { node: named, step: Some(step), is_orphan: true };
        }
        let target = self.admit(graph, state, path, step, findings);
        let node = self.check_node(graph, state, target, findings).or(named);
        Found { node, step: Some(step), is_orphan: false }
    }

    /// Checks that the path leads to the state's node.
    fn check_node(
        &self,
        graph: &Graph,
        state: &StateRow,
        target: Option<NodeIx>,
        findings: &mut Findings,
    ) -> Option<NodeIx> {
        let child_node = target?;
        if let Some(named) = state.node.filter(|named| *named != child_node) {
            let name = &graph.node(child_node).identifier;
            let message =
                format!("is {}, and its path leads to {} ({name})", named.0, child_node.0);
            self.report(findings, kind!(Parent, state.node), state.id, message);
        }
        Some(child_node)
    }

    /// Adds a child of the top of the stack, and returns the node that its step leads to.
    fn admit(
        &mut self,
        graph: &Graph,
        state: &StateRow,
        path: &Path,
        step: Step,
        findings: &mut Findings,
    ) -> Option<NodeIx> {
        let mut parent = self.stack.pop()?;
        let node = parent.node.map(|node| graph.node(node));
        let mut refuse = |message: String| {
            let message = format!("is {path}, and {message}");
            self.report(findings, kind!(Parent, state.path), state.id, message);
        };
        if let Some(status) = parent.status.filter(|status| *status != Status::Success) {
            refuse(format!("its parent, state {}, is {status}", parent.id));
        }
        let target = match step {
            Step::Child { output, edge } => {
                let target = node.and_then(|node| node.next.get(edge as usize)).copied();
                let joins = target.is_some_and(|to| graph.node(to).unites.is_some());
                if node.is_some() && (target.is_none() || joins) {
                    refuse(format!("no child comes of edge {edge}"));
                } else if *path != parent.path.child(output, edge) {
                    refuse("that is not how it is written".into());
                } else if let Some(outputs) = parent.outputs.filter(|outputs| output >= *outputs) {
                    refuse(format!("its parent, state {}, has {outputs} outputs", parent.id));
                } else if let Ok(at) = parent.edges.binary_search(&edge) {
                    let at = u64::from(output) * parent.edges.len() as u64 + at as u64;
                    self.report_missing_children(graph, &mut parent, at, findings);
                    parent.children = at + 1;
                }
                target.filter(|_| !joins)
            }
            Step::Unite(unite) => {
                let is_united = node.is_none_or(|node| node.united_by.contains(&unite));
                if !is_united {
                    refuse(format!("node {} unites no execution of its parent's", unite.0));
                } else if *path != parent.path.unite(unite) {
                    refuse("that is not how it is written".into());
                } else if let Some(joined) = parent.unites.iter_mut().find(|j| j.node == unite) {
                    joined.row = Some((state.id, state.unite));
                }
                node.and(Some(unite)).filter(|_| is_united)
            }
        };
        self.stack.push(parent);
        target
    }

    /// Checks the outputs that a state comes from.
    pub(super) fn refs(
        &self,
        graph: &Graph,
        node: NodeIx,
        state: &StateRow,
        found: &Found,
        findings: &mut Findings,
    ) {
        let Some(refs) = &state.refs else { return };
        let carries = &graph.node(node).carries;
        if !refs.iter().map(|known| known.node).eq(carries.iter().copied()) {
            let names = names(refs.iter().map(|known| known.node));
            let message = format!(
                "names {names}, and its node carries {}",
                self::names(carries.iter().copied())
            );
            return self.report(findings, kind!(Reference, state.refs), state.id, message);
        }
        for known in refs {
            if let Some(message) = self.reference_problem(graph, *known, found) {
                self.report(findings, kind!(Reference, state.refs), state.id, message);
            }
        }
    }

    fn reference_problem(&self, graph: &Graph, known: Ref, found: &Found) -> Option<String> {
        let Ref { node, state, output } = known;
        let name = &graph.node(node).identifier;
        let Some(at) = self.at[node.at()] else {
            // A missing ancestor is reported for that ancestor.
            let is_orphan = found.is_orphan || self.stack.iter().any(|frame| frame.is_orphan);
            return (!is_orphan).then(|| format!("names state {state}, and no {name} is above"));
        };
        let ancestor = &self.stack[at];
        if ancestor.id != state.0 {
            return Some(format!("names state {state}, and the {name} above is {}", ancestor.id));
        }
        // The step with which the state's path continues from there.
        let next_step = self.stack.get(at + 1).map_or(found.step, |next| next.step);
        match (next_step, ancestor.outputs) {
            (Some(Step::Child { output: on, .. }), _) if on != output => {
                Some(format!("names output {output} of state {state}, and comes from {on}"))
            }
            (_, Some(outputs)) if output >= outputs => {
                Some(format!("names output {output} of state {state}, which has {outputs}"))
            }
            _ => None,
        }
    }

    /// Collects the unites around a state. They are verified after the unites have been read, which
    /// is after their members.
    pub(super) fn scopes(
        &mut self,
        graph: &Graph,
        node: NodeIx,
        state: &StateRow,
        findings: &mut Findings,
    ) {
        let Some(scopes) = &state.scopes else { return };
        let around = &graph.node(node).scopes;
        if !scopes.iter().map(|scope| scope.unite).eq(around.iter().copied()) {
            let names = names(scopes.iter().map(|scope| scope.unite));
            let message = format!(
                "names {names}, and its node lies in {}",
                self::names(around.iter().copied())
            );
            return self.report(findings, kind!(Reference, state.scopes), state.id, message);
        }
        for scope in scopes {
            match self.joined(graph, scope.unite) {
                Some(joined) => joined.add_scope_ref(scope.state, state.id),
                // A source that is missing or not a success is reported for that source.
                None => continue,
            }
        }
    }

    /// Checks a unite against the execution that it joins, and that no other state has a unite's
    /// columns: invariant 2.
    pub(super) fn unite(
        &self,
        graph: &Graph,
        node: NodeIx,
        state: &StateRow,
        step: Option<Step>,
        findings: &mut Findings,
    ) {
        let mut note = |kind: Kind, message: String| self.report(findings, kind, state.id, message);
        let is_unite = graph.node(node).unites.is_some();
        if !is_unite {
            if state.unite.is_some() {
                note(kind!(Unite, unite.state), "is of a state that is not a unite".into());
            }
            if state.status == Some(Status::Waiting) {
                note(kind!(Unite, state.status), "is WAITING, and it is not a unite".into());
            }
            if state.kind == Some(FailureKind::Blocked) {
                note(kind!(Unite, state.kind), "is blocked, and it is not a unite".into());
            }
            return;
        }
        let Some(row) = state.unite else {
            return note(kind!(Unite, unite.state), "is missing, and its state is a unite".into());
        };
        if let (Some(Step::Unite(_)), Some(parent)) = (step, self.stack.last()) {
            if row.source != parent.id {
                let message =
                    format!("is {}, and its path leads on from {}", row.source, parent.id);
                note(kind!(Unite, unite.source), message);
            }
            if let Some(outputs) = parent.outputs.filter(|n| i64::from(*n) != row.branches) {
                let message = format!("is {}, and its source has {outputs} outputs", row.branches);
                note(kind!(Unite, unite.branches), message);
            }
        }
        if let Some((kind, message)) = status_error(graph, node, state, row) {
            note(kind, message);
        }
    }
}

/// Returns the error in a unite's status, as judged by its counts.
fn status_error(
    graph: &Graph,
    node: NodeIx,
    state: &StateRow,
    row: UniteRow,
) -> Option<(Kind, String)> {
    let (status, open) = (state.status?, row.counts.open);
    match status {
        Status::Cancelled => return None,
        Status::Waiting if open == 0 => {
            let message = "is 0, and it is WAITING: nothing will wake it";
            return Some((kind!(Unite, unite.open), message.into()));
        }
        Status::Waiting => return None,
        _ if open > 0 => {
            return Some((kind!(Unite, unite.open), format!("is {open}, and it is {status}")));
        }
        _ => {}
    }
    let end_status = match status {
        Status::Errored if state.kind == Some(FailureKind::Blocked) => UniteDecision::Block,
        Status::Pruned if state.fence == 0 => UniteDecision::Prune,
        _ => UniteDecision::Run,
    };
    let place = Place {
        node,
        path: state.path.clone()?,
        refs: Vec::new(),
        scopes: state.scopes.clone()?.into(),
    };
    let (was_to, _) = close(graph, &place, row.counts, u32::try_from(row.branches).ok()?).ok()?;
    let message = format!("is {status}, and by its counts it was to {}", name_of(was_to));
    (end_status != was_to).then_some((kind!(Unite, state.status), message))
}

fn name_of(closing: UniteDecision) -> &'static str {
    match closing {
        UniteDecision::Run => "run",
        UniteDecision::Prune => "be pruned",
        UniteDecision::Block => "be blocked",
    }
}

/// Lists nodes by their numbers.
fn names(nodes: impl Iterator<Item = NodeIx>) -> String {
    let nodes: Vec<String> = nodes.map(|node| node.0.to_string()).collect();
    if nodes.is_empty() { "no node".into() } else { format!("node {}", nodes.join(", ")) }
}
