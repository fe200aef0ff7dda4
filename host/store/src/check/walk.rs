//! A walk through one run in the order of paths, which visits a tree depth first: a state's
//! descendants come directly after it. So a state's ancestors are kept as a stack. When a state is
//! popped, all its children and the members of its unites have been counted.
//!
//! Not here: checks of a state's place against its ancestors; see [`super::ancestry`].

use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{NodeIx, StateId};
use exosphere_domain::node_counts::NodeCounts;
use exosphere_domain::path::{Path, Step};
use exosphere_domain::state::{Counts, RunStatus, Status};

use super::report::{Findings, Kind, MAX_REPORTED_PER_KIND, kind};
use super::run_row::RunRow;
use super::state::{StateRow, UniteRow};

/// A walk through one run.
pub(super) struct Walk<'r> {
    pub(super) run: &'r RunRow,
    /// The run's graph, or `None` if it cannot be read; then only rows are counted.
    pub(super) graph: Option<Arc<Graph>>,
    pub(super) stack: Vec<Frame>,
    /// Stack position of each node's execution.
    pub(super) at: Vec<Option<usize>>,
    totals: RunTotals,
}

/// An ancestor of the current state.
pub(super) struct Frame {
    pub id: i64,
    pub path: Path,
    pub node: Option<NodeIx>,
    /// The step from its parent.
    pub step: Option<Step>,
    pub status: Option<Status>,
    pub outputs: Option<u32>,
    /// Edges that create children, ascending.
    pub edges: Vec<u32>,
    /// The number of its children, present or expected, so far.
    pub children: u64,
    pub unites: Vec<UniteCount>,
    /// True if an ancestor is missing.
    pub is_orphan: bool,
    /// True if a descendant is invalid, so that counts are not certain.
    is_uncertain: bool,
    /// Earlier stack position of the same node, to be restored.
    before: Option<usize>,
}

/// A unite of an execution, with the counts of its members.
pub(super) struct UniteCount {
    pub node: NodeIx,
    pub row: Option<(i64, Option<UniteRow>)>,
    counts: Counts,
    scope_refs: Vec<ScopeRefs>,
}

/// States that name the same row as their unite.
struct ScopeRefs {
    unite: i64,
    count: u64,
    /// The first of the states.
    states: Vec<i64>,
}

/// The totals of a run's states.
#[derive(Default)]
struct RunTotals {
    states: i64,
    by_status: [i64; Status::ALL.len()],
    /// States with an invalid status.
    unknown: i64,
    first_open: Option<i64>,
    retries: i64,
    requeues: i64,
    /// The CPU time of last attempts that count.
    cpu_us: i64,
    /// The largest memory of them.
    memory_bytes: i64,
    nodes: NodeCounts,
    /// States with an invalid node.
    without_node: i64,
    counts: Counts,
    is_uncertain: bool,
    has_root: bool,
}

impl<'r> Walk<'r> {
    pub(super) fn new(run: &'r RunRow, graph: Option<Arc<Graph>>) -> Self {
        let nodes = graph.as_ref().map_or(0, |graph| graph.nodes().len());
        Walk { run, graph, stack: Vec::new(), at: vec![None; nodes], totals: RunTotals::default() }
    }

    pub(super) fn run(&self) -> &'r RunRow {
        self.run
    }

    /// Visits the next state.
    pub(super) fn visit(&mut self, state: StateRow, findings: &mut Findings) {
        self.totals.add(&state);
        self.check_status(&state, findings);
        let (Some(graph), Some(path)) = (self.graph.clone(), state.path.clone()) else {
            return self.mark_uncertain();
        };
        while self.stack.last().is_some_and(|top| !path.as_str().starts_with(top.path.as_str())) {
            self.leave(&graph, findings);
        }
        if let Some(top) = self.stack.last().filter(|top| top.path == path) {
            let message = format!("is {path}, as that of state {} is", top.id);
            return self.report(findings, kind!(Once, state.path), state.id, message);
        }
        self.totals.has_root |= path == Path::root();
        let place = self.check_parent(&graph, &state, &path, findings);
        let Some(node) = place.node else {
            self.enter(Frame::new(&state, path, place.step, place.is_orphan));
            return self.mark_uncertain();
        };
        self.refs(&graph, node, &state, &place, findings);
        self.scopes(&graph, node, &state, findings);
        self.unite(&graph, node, &state, place.step, findings);
        self.count(&graph, node, &state);
        let mut frame = Frame::new(&state, path, place.step, place.is_orphan);
        frame.node = Some(node);
        frame.before = self.at[node.at()].replace(self.stack.len());
        if state.status == Some(Status::Success) {
            frame.expect_successors(&graph, node);
        }
        self.enter(frame);
        self.arrive(&graph, node, &state);
    }

    /// Checks a state's status against its run's.
    fn check_status(&self, state: &StateRow, findings: &mut Findings) {
        let run = self.run;
        if state.status == Some(Status::Cancelled)
            && let Some(status) = run.status.filter(|_| !run.is_stopped())
        {
            let message = format!("is CANCELLED, and its run is {status}");
            self.report(findings, kind!(End, state.status), state.id, message);
        }
        let free =
            state.status == Some(Status::Created) && run.sweep_event == 0 && run.redrive == 0;
        if free && !run.is_stopped() && state.held_back != run.paused {
            let is = if run.paused { "paused" } else { "not paused" };
            let message = format!("is {}, and its run is {is}", i64::from(state.held_back));
            self.report(findings, kind!(HeldBack, state.held_back), state.id, message);
        }
    }

    fn enter(&mut self, frame: Frame) {
        self.stack.push(frame);
    }

    /// Pops the top of the stack, whose descendants have all been visited.
    fn leave(&mut self, graph: &Graph, findings: &mut Findings) {
        let Some(mut frame) = self.stack.pop() else { return };
        let Some(node) = frame.node else { return };
        self.at[node.at()] = frame.before;
        if frame.status != Some(Status::Success) {
            return;
        }
        if let Some(outputs) = frame.outputs {
            let all = u64::from(outputs) * frame.edges.len() as u64;
            self.report_missing_children(graph, &mut frame, all, findings);
        }
        for joined in &frame.unites {
            match joined.row {
                Some((id, row)) => {
                    self.check_scopes(joined, id, findings);
                    if let Some(row) = row.filter(|_| !frame.is_uncertain && !self.run.is_stopped())
                    {
                        self.check_counts(joined.counts, row.counts, id, findings);
                    }
                }
                None => {
                    let path = frame.path.unite(joined.node);
                    let unite = &graph.node(joined.node).identifier;
                    let message = format!("is SUCCESS and lacks the unite {unite} at {path}");
                    self.report(findings, kind!(Children, state.path), frame.id, message);
                }
            }
        }
    }

    /// Reports missing children, from the frame's position up to `until`.
    pub(super) fn report_missing_children(
        &self,
        graph: &Graph,
        frame: &mut Frame,
        end: u64,
        findings: &mut Findings,
    ) {
        let missing = end.saturating_sub(frame.children);
        if missing == 0 {
            return;
        }
        let edges = frame.edges.len() as u64;
        let edge = frame.edges[(frame.children % edges) as usize];
        let output = (frame.children / edges) as u32;
        let path = frame.path.child(output, edge);
        let node = frame.node.and_then(|node| graph.node(node).next.get(edge as usize));
        let node = node.map_or("?", |node| graph.node(*node).identifier.as_str());
        let message = match missing {
            1 => format!("is SUCCESS and lacks the child {node} at {path}"),
            n => format!("is SUCCESS and lacks {n} children in a row, the first {node} at {path}"),
        };
        self.report(findings, kind!(Children, state.path), frame.id, message);
        frame.children = end;
    }

    /// Compares a unite's counts with its members: invariant 5.
    fn check_counts(&self, members: Counts, stored: Counts, id: i64, findings: &mut Findings) {
        let all = [
            (kind!(Count, unite.open), stored.open, members.open),
            (kind!(Count, unite.failed), stored.failed, members.failed),
            (kind!(Count, unite.arrived), stored.arrived, members.arrived),
        ];
        for (kind, stored, members) in all.into_iter().filter(|(_, says, members)| says != members)
        {
            self.report(findings, kind, id, format!("is {stored}, its members count {members}"));
        }
    }

    /// Checks that states below an execution name its unites.
    fn check_scopes(&self, joined: &UniteCount, id: i64, findings: &mut Findings) {
        for scope_refs in joined.scope_refs.iter().filter(|scope_refs| scope_refs.unite != id) {
            let message =
                format!("names the unite {}, and it lies in that of {id}", scope_refs.unite);
            for at in 0..scope_refs.count as usize {
                let state = scope_refs.states.get(at).or(scope_refs.states.last());
                let state = state.copied().unwrap_or_default();
                self.report(findings, kind!(Reference, state.scopes), state, &message);
            }
        }
    }

    /// Marks the frame as uncertain: a row of the run is invalid, so its ancestors cannot be
    /// counted.
    fn mark_uncertain(&mut self) {
        self.totals.is_uncertain = true;
        self.stack.iter_mut().for_each(|frame| frame.is_uncertain = true);
    }

    /// Adds a state to the scopes in which it counts.
    fn count(&mut self, graph: &Graph, node: NodeIx, state: &StateRow) {
        let Some(status) = state.status else { return self.mark_uncertain() };
        let delta = Counts {
            open: i64::from(!status.is_terminal()),
            failed: i64::from(status == Status::Errored),
            arrived: 0,
        };
        let counts_in = &graph.node(node).counts_in;
        if counts_in.is_empty() {
            self.totals.counts += delta;
        }
        for unite in counts_in {
            if let Some(joined) = self.joined(graph, *unite) {
                joined.counts += delta;
            }
        }
    }

    /// Counts the outputs of a state that reach edges into unites.
    fn arrive(&mut self, graph: &Graph, node: NodeIx, state: &StateRow) {
        if state.status != Some(Status::Success) {
            return;
        }
        let Some(outputs) = state.outputs else { return self.mark_uncertain() };
        for unite in graph.node(node).next.iter().filter(|to| graph.node(**to).unites.is_some()) {
            if let Some(joined) = self.joined(graph, *unite) {
                joined.counts.arrived += i64::from(outputs);
            }
        }
    }

    /// Returns the unite at a node that joins an execution on the stack.
    pub(super) fn joined(&mut self, graph: &Graph, unite: NodeIx) -> Option<&mut UniteCount> {
        let source = graph.node(unite).unites.as_ref()?.source;
        let frame = self.stack.get_mut(self.at[source.at()]?)?;
        frame.unites.iter_mut().find(|joined| joined.node == unite)
    }

    pub(super) fn report(
        &self,
        findings: &mut Findings,
        kind: Kind,
        row: i64,
        message: impl std::fmt::Display,
    ) {
        findings.add(kind, row, Some(&self.run.uuid), message);
    }

    /// Ends the walk after the last state.
    pub(super) fn end(mut self, findings: &mut Findings) {
        if let Some(graph) = self.graph.clone() {
            while !self.stack.is_empty() {
                self.leave(&graph, findings);
            }
            self.check_own_counts(findings);
        }
        if !self.totals.has_root && !self.totals.is_uncertain {
            self.report(findings, kind!(Children, run.states), self.run.id, "there is no root");
        }
        self.check_counters(findings);
        self.check_run_ended(findings);
    }

    /// Compares the run's own counts. A cancelled run keeps no counts.
    fn check_own_counts(&self, findings: &mut Findings) {
        let (run, counts) = (self.run, self.totals.counts);
        let mut all = Vec::new();
        if run.is_stopped() {
            if run.sweep_event == 0 {
                all.push((kind!(Count, run.open), run.open, 0));
            }
        } else if !self.totals.is_uncertain {
            all.push((kind!(Count, run.open), run.open, counts.open));
            all.push((kind!(Count, run.failed), run.failed, counts.failed));
        }
        for (kind, stored, members) in all.into_iter().filter(|(_, says, members)| says != members)
        {
            self.report(findings, kind, run.id, format!("is {stored}, its states count {members}"));
        }
    }

    /// Compares the counters that are shown to users.
    fn check_counters(&self, findings: &mut Findings) {
        let (run, totals) = (self.run, &self.totals);
        let mut all = vec![
            (kind!(Total, run.states), run.counters.states, totals.states),
            (kind!(Total, run.requeues), run.counters.requeues, totals.requeues),
        ];
        if totals.unknown == 0 {
            all.extend([
                (
                    kind!(Total, run.succeeded),
                    run.counters.succeeded,
                    totals.with_status(Status::Success),
                ),
                (kind!(Total, run.pruned), run.counters.pruned, totals.with_status(Status::Pruned)),
                (
                    kind!(Total, run.errored),
                    run.counters.errored,
                    totals.with_status(Status::Errored),
                ),
                (
                    kind!(Total, run.cancelled),
                    run.counters.cancelled,
                    totals.with_status(Status::Cancelled),
                ),
            ]);
        }
        for (kind, stored, counted) in all.into_iter().filter(|(_, says, counted)| says != counted)
        {
            self.report(findings, kind, run.id, format!("is {stored}, its states count {counted}"));
        }
        self.check_node_counts(findings);
        // A manual retry starts again from zero, and earlier retries stay counted here.
        if run.counters.retries < totals.retries {
            let message =
                format!("is {}, its states have {} now", run.counters.retries, totals.retries);
            self.report(findings, kind!(Total, run.retries), run.id, message);
        }
        self.check_cost(findings);
    }

    /// Compares the run's cost with that of its states' last attempts. The rest is not kept for each
    /// attempt.
    fn check_cost(&self, findings: &mut Findings) {
        let (run, totals) = (self.run, &self.totals);
        let (cpu_us, memory_bytes) = (run.counters.cpu_us, run.counters.memory_bytes);
        for (kind, stored, least) in [
            (kind!(Total, run.cpu_us), cpu_us, totals.cpu_us),
            (kind!(Total, run.memory_bytes), memory_bytes, totals.memory_bytes),
        ] {
            if stored < least {
                let message =
                    format!("is {stored}, its states have {least} in their last attempts");
                self.report(findings, kind, run.id, message);
            }
        }
    }

    /// Compares the counts of each node.
    fn check_node_counts(&self, findings: &mut Findings) {
        let (run, totals) = (self.run, &self.totals);
        let (Some(recorded), Some(graph)) = (&run.node_counts, &self.graph) else { return };
        if totals.unknown + totals.without_node > 0 {
            return;
        }
        for (at, node) in graph.nodes() {
            let (stored, counted) = (recorded.get(at), totals.nodes.get(at));
            let differing = Status::ALL
                .into_iter()
                .find(|status| stored.with_status(*status) != counted.with_status(*status));
            let Some(status) = differing else { continue };
            let (stored, counted) = (stored.with_status(status), counted.with_status(status));
            let message =
                format!("counts {stored} {status} at {}, and there are {counted}", node.identifier);
            return self.report(findings, kind!(Total, run.node_counts), run.id, message);
        }
    }

    /// Checks that the run ended with its states: invariant 4.
    fn check_run_ended(&self, findings: &mut Findings) {
        let (run, totals) = (self.run, &self.totals);
        let Some(status) = run.status.filter(|_| totals.unknown == 0) else { return };
        let open: i64 = [Status::Waiting, Status::Created, Status::Queued]
            .into_iter()
            .map(|status| totals.with_status(status))
            .sum();
        let message = match status {
            RunStatus::Running if open == 0 => {
                format!("is RUNNING, and all its {} states have ended", totals.states)
            }
            RunStatus::Running => return,
            _ if run.is_stopped() && run.sweep_event > 0 => return,
            _ if open == 0 => return,
            over => {
                let first = totals.first_open.unwrap_or_default();
                format!("is {over}, and {open} of its states are open, the first {first}")
            }
        };
        self.report(findings, kind!(End, run.status), run.id, message);
    }
}

impl Frame {
    fn new(state: &StateRow, path: Path, step: Option<Step>, is_orphan: bool) -> Self {
        Frame {
            id: state.id,
            path,
            node: None,
            step,
            status: state.status,
            outputs: state.outputs,
            edges: Vec::new(),
            children: 0,
            unites: Vec::new(),
            is_orphan,
            is_uncertain: false,
            before: None,
        }
    }

    /// Records the children and unites that a successful state must have.
    fn expect_successors(&mut self, graph: &Graph, node: NodeIx) {
        let node = graph.node(node);
        let makes_children = |to: &NodeIx| graph.node(*to).unites.is_none();
        let edges = node.next.iter().enumerate().filter(|(_, to)| makes_children(to));
        self.edges = edges.map(|(edge, _)| edge as u32).collect();
        self.unites = node.united_by.iter().map(|unite| UniteCount::new(*unite)).collect();
    }
}

impl UniteCount {
    fn new(node: NodeIx) -> Self {
        UniteCount { node, row: None, counts: Counts::default(), scope_refs: Vec::new() }
    }

    /// Records that a state names `unite` as this unite.
    pub(super) fn add_scope_ref(&mut self, unite: StateId, state: i64) {
        let known = self.scope_refs.iter().position(|scope_refs| scope_refs.unite == unite.0);
        // After this many different claims it is certain that all are wrong.
        if known.is_none() && self.scope_refs.len() as u64 > MAX_REPORTED_PER_KIND {
            return;
        }
        let at = known.unwrap_or_else(|| {
            self.scope_refs.push(ScopeRefs { unite: unite.0, count: 0, states: Vec::new() });
            self.scope_refs.len() - 1
        });
        let scope_refs = &mut self.scope_refs[at];
        scope_refs.count += 1;
        if scope_refs.count <= MAX_REPORTED_PER_KIND {
            scope_refs.states.push(state);
        }
    }
}

impl RunTotals {
    fn add(&mut self, state: &StateRow) {
        self.states += 1;
        self.retries += state.retries;
        self.requeues += state.requeues;
        let Some(status) = state.status else {
            self.unknown += 1;
            return;
        };
        self.by_status[status as usize] += 1;
        // The usage of a state that has not ended is that of an attempt before a manual retry.
        if matches!(status, Status::Success | Status::Pruned | Status::Errored) {
            self.cpu_us = self.cpu_us.saturating_add(state.cpu_us);
            self.memory_bytes = self.memory_bytes.max(state.memory_bytes);
        }
        match state.node {
            Some(node) => self.nodes.add(node, status, 1),
            None => self.without_node += 1,
        }
        if !status.is_terminal() {
            self.first_open.get_or_insert(state.id);
        }
    }

    fn with_status(&self, status: Status) -> i64 {
        self.by_status[status as usize]
    }
}
