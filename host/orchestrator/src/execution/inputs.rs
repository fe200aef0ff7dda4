//! Renders the inputs of a claimed state. It reads only the data that the graph names, and this
//! data can no longer change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use exosphere_domain::failure::Failure;
use exosphere_domain::graph::{Graph, Node, Unites};
use exosphere_domain::ids::{NodeIx, RunKey, StateId};
use exosphere_domain::json::{FieldSet, PickedFields};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::render::{Ended, Gathered, Member, Sources, branches, gather, render};
use exosphere_domain::state::{Place, Ref};
use exosphere_store::{ClaimedState, MemberRow, OutputSize, RunInfo, Store, StoreError};
use serde_json::{Map, Value};

use crate::error::internal;
use crate::execution::claims::ClaimPermit;
use crate::execution::json_budget::JsonBudget;
use crate::inner::HostInner;

/// Maximum bytes of outputs that are read ahead for one batch. Each output may have an equal
/// share; each state reads larger outputs itself.
const MAX_PREFETCH_BYTES: usize = 16 * 1024 * 1024;

/// Maximum bytes of a gather's texts in memory at a time, or one output if that is larger. The
/// fields picked out of them stay, and are bounded by `json_bytes`.
const MAX_PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// Maximum number of outputs that one read asks for.
const MAX_PAGE_OUTPUTS: usize = 10_000;

/// The reason why a state has no inputs.
pub(crate) enum InputError {
    /// The state fails.
    Failed(Failure),
    /// The inputs cannot be read now.
    Unavailable(String),
    Cancelled,
}

impl From<Failure> for InputError {
    fn from(failure: Failure) -> Self {
        InputError::Failed(failure)
    }
}

impl From<StoreError> for InputError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Data(_)
            | StoreError::Quota(_)
            | StoreError::Refused(_)
            | StoreError::Changed => InputError::Failed(internal(&error)),
            StoreError::Contention(cause)
            | StoreError::Unavailable(cause)
            | StoreError::Unknown(cause) => InputError::Unavailable(cause),
        }
    }
}

/// Reads the outputs that some claimed states need, all together. Each state reads the rest
/// itself, and fails if it cannot.
pub(crate) async fn prefetch_outputs(
    inner: &HostInner,
    claimed: &mut [(ClaimedState, ClaimPermit)],
) {
    let mut wanted = Vec::new();
    for (claimed, _) in claimed.iter() {
        let Ok(run) = inner.caches.runs.get(&inner.db.store, claimed.state.run).await else {
            continue;
        };
        let Some(node) = run.graph.get(claimed.state.place.node) else { continue };
        let refs = claimed.state.place.refs.iter();
        wanted.extend(refs.filter(|from| node.singles().contains(&from.node)).copied());
    }
    let pairs: Vec<_> = wanted.iter().map(|from| (from.state, from.output)).collect();
    let share = (MAX_PREFETCH_BYTES / pairs.len().max(1)) as i64;
    let Ok(outputs) = inner.db.store.outputs_at(&pairs, share).await else { return };
    let outputs: HashMap<_, Arc<str>> =
        outputs.into_iter().map(|(at, body)| (at, body.into())).collect();
    for (claimed, _) in claimed {
        for from in &claimed.state.place.refs {
            if let Some(body) = outputs.get(&(from.state, from.output)) {
                claimed.known_outputs.push((*from, body.clone()));
            }
        }
    }
}

/// The sources of a state's inputs.
#[derive(Clone, Copy)]
pub(crate) struct InputSources<'a> {
    pub id: StateId,
    pub place: &'a Place,
    /// Values of the run's store, fixed when the state was created.
    pub store_snapshot: &'a BTreeMap<String, String>,
    /// Outputs that are known without a query.
    pub known_outputs: &'a [(Ref, Arc<str>)],
}

impl<'a> From<&'a ClaimedState> for InputSources<'a> {
    fn from(claimed: &'a ClaimedState) -> Self {
        InputSources {
            id: claimed.state.id,
            place: &claimed.state.place,
            store_snapshot: &claimed.store_snapshot,
            known_outputs: &claimed.known_outputs,
        }
    }
}

/// Renders the inputs of a state. The memory of the sources and of the inputs counts in
/// `json`.
pub(crate) async fn render_inputs(
    store: &Store,
    run: &RunInfo,
    state: InputSources<'_>,
    limits: &Limits,
    json: &mut JsonBudget<'_>,
) -> Result<Map<String, Value>, InputError> {
    let sources = read_sources(store, run, state, json).await?;
    let (node, bytes) = (state.place.node, json.bytes());
    if !json.has_turn() {
        return Ok(render(&run.graph, node, &sources, bytes, limits)?);
    }
    let (graph, limits) = (run.graph.clone(), limits.clone());
    let rendered =
        tokio::task::spawn_blocking(move || render(&graph, node, &sources, bytes, &limits));
    Ok(rendered.await.map_err(|error| internal(&error))??)
}

/// Returns the text of rendered inputs, if it is within the limit.
pub(crate) fn to_text(inputs: &Value, limits: &Limits) -> Result<String, Failure> {
    let text = inputs.to_string();
    if text.len() > limits.size(Limit::InputBytes) {
        return Err(limits.reached(Limit::InputBytes));
    }
    Ok(text)
}

async fn read_sources(
    store: &Store,
    run: &RunInfo,
    state: InputSources<'_>,
    json: &mut JsonBudget<'_>,
) -> Result<Sources, InputError> {
    let place = state.place;
    let node = run.graph.node(place.node);
    let mut sources = Sources { store: state.store_snapshot.clone(), ..Sources::default() };
    if place.node == run.graph.root() {
        let inputs = json.read_value(&run.inputs).await?;
        let Value::Object(inputs) = inputs else {
            return Err(internal(&format!("the inputs of run {} are not an object", run.id)).into());
        };
        sources.start_inputs = Some(inputs);
    }
    let mut picker = FieldPicker { store, graph: &run.graph, node: place.node, json };
    sources.singles = pick_singles(node, state, &mut picker).await?;
    if let Some(unites) = &node.unites
        && (!node.gathers().is_empty() || node.wants_branches())
    {
        let scope = ScopeData::read(run, state.id, node, unites, &mut picker).await?;
        scope.fill(run, place.node, &mut sources);
    }
    Ok(sources)
}

/// Picks the fields that one node names out of the outputs of other nodes. The other
/// fields of an output are read and never built.
struct FieldPicker<'a, 'r> {
    store: &'a Store,
    graph: &'a Arc<Graph>,
    /// The node that names the fields.
    node: NodeIx,
    json: &'a mut JsonBudget<'r>,
}

/// The node and the state of an output.
type Origin = (NodeIx, StateId);

impl FieldPicker<'_, '_> {
    /// Picks the named fields out of some outputs, in their order.
    async fn pick(
        &mut self,
        outputs: Vec<(Origin, impl AsRef<str> + Send + 'static)>,
    ) -> Result<Vec<(Origin, Arc<PickedFields>)>, Failure> {
        let (graph, node) = (self.graph.clone(), self.node);
        let pick = move |(source, _): &Origin, text: &str, remaining: &mut u64| {
            let none = FieldSet::default();
            let fields = graph.node(node).fields(*source).unwrap_or(&none);
            fields.pick(text, remaining).map(Arc::new)
        };
        self.json.read_texts(outputs, pick).await
    }

    /// Picks the named fields out of outputs of which only the sizes are known. It reads a page
    /// at a time, which bounds the texts in memory.
    async fn pick_pages(
        &mut self,
        sizes: Vec<OutputSize>,
        node_of: impl Fn(StateId) -> Option<NodeIx>,
    ) -> Result<Vec<(Origin, Arc<PickedFields>)>, InputError> {
        let mut picked = Vec::new();
        for page in pages(&sizes) {
            self.json.acquire_turn().await;
            self.json.check_deadline()?;
            let keys: Vec<_> = page.iter().map(|size| (size.state, size.number)).collect();
            let mut bodies = self.store.outputs_at(&keys, i64::MAX).await?;
            let mut outputs = Vec::with_capacity(keys.len());
            for (state, number) in keys {
                let body = bodies.remove(&(state, number));
                let body = body.ok_or_else(|| missing_output(state, number))?;
                outputs.extend(node_of(state).map(|node| ((node, state), body)));
            }
            picked.extend(self.pick(outputs).await?);
        }
        Ok(picked)
    }
}

/// Splits outputs into pages of [`MAX_PAGE_BYTES`], or of one output.
fn pages(sizes: &[OutputSize]) -> Vec<&[OutputSize]> {
    let (mut pages, mut rest) = (Vec::new(), sizes);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |size: &&OutputSize| {
            bytes += size.bytes;
            bytes <= MAX_PAGE_BYTES
        };
        let count = rest.iter().take(MAX_PAGE_OUTPUTS).take_while(fits).count().max(1);
        let (page, after) = rest.split_at(count);
        pages.push(page);
        rest = after;
    }
    pages
}

fn missing_output(state: StateId, number: u32) -> Failure {
    internal(&format!("output {number} of state {state} is not stored"))
}

/// Picks the fields that a state's inputs name out of the outputs on its branch.
async fn pick_singles(
    node: &Node,
    state: InputSources<'_>,
    picker: &mut FieldPicker<'_, '_>,
) -> Result<HashMap<NodeIx, Arc<PickedFields>>, InputError> {
    let mut found = HashMap::new();
    for node_ix in node.singles() {
        let from = state.place.refs.iter().find(|from| from.node == *node_ix);
        let from = from.ok_or_else(|| {
            internal(&format!("state {} carries no output of node {}", state.id, node_ix.0))
        })?;
        let origin = (*node_ix, from.state);
        let known = state.known_outputs.iter().find(|(known, _)| known == from);
        let body: Arc<str> = match known {
            Some((_, body)) => body.clone(),
            // An output that was not read ahead is large: one at a time.
            None => {
                picker.json.acquire_turn().await;
                let at = (from.state, from.output);
                let body = picker.store.outputs_at(&[at], i64::MAX).await?.remove(&at);
                body.ok_or_else(|| missing_output(from.state, from.output))?.into()
            }
        };
        let picked = picker.pick(vec![(origin, body)]).await?;
        found.extend(picked.into_iter().map(|((node, _), picked)| (node, picked)));
    }
    Ok(found)
}

/// The outputs and members in the scope of a unite.
struct ScopeData {
    source: NodeIx,
    source_path: exosphere_domain::path::Path,
    branches: u32,
    outputs: Vec<Arc<PickedFields>>,
    members: Vec<Member>,
    gathered: Vec<NodeIx>,
    wants_branches: bool,
}

impl ScopeData {
    async fn read(
        run: &RunInfo,
        unite: StateId,
        node: &Node,
        unites: &Unites,
        picker: &mut FieldPicker<'_, '_>,
    ) -> Result<Self, InputError> {
        let (store, key) = (picker.store, run.key);
        let (state, source_path, branches) = store.source_of(unite).await?;
        let (source, gathered) = (unites.source, node.gathers().to_vec());
        let outputs = if gathered.contains(&source) {
            ScopeData::outputs(state, source, picker).await?
        } else {
            Vec::new()
        };
        let rows = store.members(key, &source_path, &unites.region).await?;
        let mut picked = ScopeData::members(key, &source_path, &gathered, &rows, picker).await?;
        let members = rows.into_iter().map(|row| to_member(row, &mut picked)).collect();
        let wants_branches = node.wants_branches();
        Ok(ScopeData { source, source_path, branches, outputs, members, gathered, wants_branches })
    }

    /// Picks the named fields of the outputs of the execution that is united.
    async fn outputs(
        state: StateId,
        source: NodeIx,
        picker: &mut FieldPicker<'_, '_>,
    ) -> Result<Vec<Arc<PickedFields>>, InputError> {
        let store = picker.store;
        let picked = if store.output_bytes(state).await? > MAX_PAGE_BYTES {
            let sizes = store.output_sizes(state).await?;
            picker.pick_pages(sizes, |_| Some(source)).await?
        } else {
            let bodies = store.outputs_of(state).await?.into_iter();
            picker.pick(bodies.map(|body| ((source, state), body)).collect()).await?
        };
        Ok(picked.into_iter().map(|(_, output)| output).collect())
    }

    /// Picks the named fields of the members' outputs, by state.
    async fn members(
        run: RunKey,
        source_path: &exosphere_domain::path::Path,
        gathered: &[NodeIx],
        rows: &[MemberRow],
        picker: &mut FieldPicker<'_, '_>,
    ) -> Result<HashMap<StateId, Vec<Arc<PickedFields>>>, InputError> {
        let store = picker.store;
        let nodes: HashMap<StateId, NodeIx> = rows.iter().map(|row| (row.id, row.node)).collect();
        let node_of = |state: StateId| nodes.get(&state).copied();
        let all = match store.member_bytes(run, source_path, gathered).await? {
            0 => Vec::new(),
            bytes if bytes > MAX_PAGE_BYTES => {
                let sizes = store.member_sizes(run, source_path, gathered).await?;
                picker.pick_pages(sizes, node_of).await?
            }
            _ => {
                let bodies = store.member_outputs(run, source_path, gathered).await?.into_iter();
                let origin = |(state, body)| Some(((node_of(state)?, state), body));
                picker.pick(bodies.filter_map(origin).collect()).await?
            }
        };
        let mut picked: HashMap<StateId, Vec<_>> = HashMap::new();
        for ((_, state), output) in all {
            picked.entry(state).or_default().push(output);
        }
        Ok(picked)
    }

    fn fill(self, run: &RunInfo, unite: NodeIx, sources: &mut Sources) {
        let graph = &run.graph;
        for node in &self.gathered {
            let entries = if *node == self.source {
                self.outputs.iter().cloned().map(Gathered::Output).collect()
            } else {
                gather(graph, *node, &self.members)
            };
            sources.gathers.insert(*node, entries);
        }
        if self.wants_branches {
            let all = branches(graph, unite, &self.source_path, self.branches, &self.members);
            sources.branches = Some(all);
        }
    }
}

fn to_member(row: MemberRow, picked: &mut HashMap<StateId, Vec<Arc<PickedFields>>>) -> Member {
    let end = match row.failure {
        Some((kind, message)) => Ended::Failed(Failure::new(kind, message)),
        None => Ended::Success(picked.remove(&row.id).unwrap_or_default()),
    };
    Member { node: row.node, path: row.path, end, outputs: row.outputs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_in_bytes() {
        let size = |bytes| OutputSize { state: StateId(1), number: 0, bytes };
        let lengths = |sizes: &[u64]| -> Vec<usize> {
            let sizes: Vec<_> = sizes.iter().copied().map(size).collect();
            pages(&sizes).into_iter().map(<[OutputSize]>::len).collect()
        };
        let half_page = MAX_PAGE_BYTES / 2;
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(
            lengths(&[half_page, half_page, 1, 2 * MAX_PAGE_BYTES, half_page]),
            [2, 1, 1, 1]
        );
        assert_eq!(lengths(&[0; MAX_PAGE_OUTPUTS + 1]), [MAX_PAGE_OUTPUTS, 1]);
    }
}
