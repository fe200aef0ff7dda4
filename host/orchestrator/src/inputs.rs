//! From a claimed state to its rendered inputs: reads what the graph says it
//! needs, and no more. What it reads can no longer change.

use std::collections::HashMap;
use std::sync::Arc;

use exosphere_domain::failure::Failure;
use exosphere_domain::graph::{Node, Unites};
use exosphere_domain::ids::{NodeIx, StateId};
use exosphere_domain::inputs::{Ended, Gathered, Member, Sources, branches, gather, render};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_store::{Leased, MemberRow, RunInfo, Store, StoreError};
use serde_json::{Map, Value};

use crate::Parts;
use crate::error::internal;
use crate::reading::{Reading, stored};
use crate::room::Lease;

/// Bytes of outputs that are read ahead for one batch, at most. Each output may
/// have its share; larger ones are read by each state itself.
const AHEAD_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a gather's texts from which on it takes a turn to read them.
const LARGE_BYTES: u64 = 256 * 1024;

/// Why a state has no inputs.
pub(crate) enum NoInputs {
    /// It fails.
    Failed(Failure),
    /// They cannot be read now.
    Unavailable(String),
    /// They are not wanted any more.
    Cancelled,
}

impl From<Failure> for NoInputs {
    fn from(failure: Failure) -> Self {
        NoInputs::Failed(failure)
    }
}

impl From<StoreError> for NoInputs {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Data(_) => NoInputs::Failed(internal(&error)),
            StoreError::Contention(why) | StoreError::Unavailable(why) => {
                NoInputs::Unavailable(why)
            }
        }
    }
}

/// Reads the outputs that some claimed states need, all at once. What cannot be
/// read here is read, or failed for, by each state itself.
pub(crate) async fn read_ahead(parts: &Parts, leased: &mut [(Leased, Lease)]) {
    let mut wanted = Vec::new();
    for (leased, _) in leased.iter() {
        let Ok(run) = parts.runs.get(&parts.store, leased.state.run).await else { continue };
        let Some(node) = run.graph.get(leased.state.place.node) else { continue };
        let refs = leased.state.place.refs.iter();
        wanted.extend(refs.filter(|from| node.singles().contains(&from.node)).copied());
    }
    let pairs: Vec<_> = wanted.iter().map(|from| (from.state, from.output)).collect();
    let share = (AHEAD_BYTES / pairs.len().max(1)) as i64;
    let Ok(outputs) = parts.store.outputs_at(&pairs, share).await else { return };
    let outputs: HashMap<_, Arc<str>> =
        outputs.into_iter().map(|(at, body)| (at, body.into())).collect();
    for (leased, _) in leased {
        for from in &leased.state.place.refs {
            if let Some(body) = outputs.get(&(from.state, from.output)) {
                leased.known.push((*from, body.clone()));
            }
        }
    }
}

/// The inputs of a state, or why there are none. What they are made of, and
/// they themselves, are in the `reading`.
pub(crate) async fn inputs(
    store: &Store,
    run: &RunInfo,
    leased: &Leased,
    limits: &Limits,
    reading: &mut Reading<'_>,
) -> Result<Map<String, Value>, NoInputs> {
    let sources = sources(store, run, leased, limits, reading).await?;
    Ok(render(&run.graph, leased.state.place.node, &sources, reading.weight(), limits)?)
}

/// The text of rendered inputs, if it is within the limit.
pub(crate) fn text(inputs: &Value, limits: &Limits) -> Result<String, Failure> {
    let text = inputs.to_string();
    match text.len() > limits.size(Limit::InputBytes) {
        true => Err(limits.reached(Limit::InputBytes)),
        false => Ok(text),
    }
}

async fn sources(
    store: &Store,
    run: &RunInfo,
    leased: &Leased,
    limits: &Limits,
    reading: &mut Reading<'_>,
) -> Result<Sources, NoInputs> {
    let place = &leased.state.place;
    let node = run.graph.node(place.node);
    let mut sources = Sources { store: leased.fixed.clone(), ..Sources::default() };
    if place.node == run.graph.root() {
        sources.given = Some(reading.value(&run.inputs).await?);
    }
    sources.singles = singles(store, node, leased, reading).await?;
    if let Some(unites) = &node.unites
        && (!node.gathers().is_empty() || node.wants_branches())
    {
        let below = Below::read(store, run, leased, node, unites, limits, reading).await?;
        below.fill(run, leased, &mut sources);
    }
    Ok(sources)
}

/// The outputs on the state's branch that its inputs name.
async fn singles(
    store: &Store,
    node: &Node,
    leased: &Leased,
    reading: &mut Reading<'_>,
) -> Result<HashMap<NodeIx, Arc<Value>>, NoInputs> {
    let mut found = HashMap::new();
    let mut missing = Vec::new();
    for wanted in node.singles() {
        let from = leased.state.place.refs.iter().find(|from| from.node == *wanted);
        let from = from.ok_or_else(|| {
            internal(&format!("state {} carries no output of node {}", leased.state.id, wanted.0))
        })?;
        match leased.known.iter().find(|(known, _)| known == from) {
            Some((_, body)) => {
                found.insert(*wanted, Arc::new(reading.value(body).await?));
            }
            None => missing.push(*from),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    // What was not read ahead is large.
    reading.is_large().await;
    let pairs: Vec<_> = missing.iter().map(|from| (from.state, from.output)).collect();
    let outputs = store.outputs_at(&pairs, i64::MAX).await?;
    for from in missing {
        let body = outputs.get(&(from.state, from.output)).ok_or_else(|| {
            internal(&format!("output {} of state {} is not stored", from.output, from.state))
        })?;
        found.insert(from.node, Arc::new(reading.value(body).await?));
    }
    Ok(found)
}

/// What lies below a unite.
struct Below {
    source: NodeIx,
    above: exosphere_domain::path::Path,
    branches: u32,
    outputs: Vec<Arc<Value>>,
    members: Vec<Member>,
    wanted: Vec<NodeIx>,
    wants_branches: bool,
}

impl Below {
    async fn read(
        store: &Store,
        run: &RunInfo,
        leased: &Leased,
        node: &Node,
        unites: &Unites,
        limits: &Limits,
        reading: &mut Reading<'_>,
    ) -> Result<Self, NoInputs> {
        let (key, unite) = (run.key, leased.state.id);
        let (source, above, branches) = store.source_of(unite).await?;
        let wanted = node.gathers().to_vec();
        let own = wanted.contains(&unites.source);
        let mut bytes = store.member_bytes(key, &above, &wanted).await?;
        if own {
            bytes += store.output_bytes(source).await?;
        }
        // This bounds what is read; rendering has a bound of its own.
        if bytes > limits.get(Limit::InputBytes).saturating_mul(2) {
            return Err(limits.reached(Limit::InputBytes).into());
        }
        if bytes > LARGE_BYTES {
            reading.is_large().await;
        }
        let outputs = match own {
            true => reading.values(&store.outputs_of(source).await?).await?,
            false => Vec::new(),
        };
        let rows = store.members(key, &above, &unites.region).await?;
        let mut bodies = store.member_outputs(key, &above, &wanted).await?;
        reading.room(bodies.values().flatten().map(String::as_str)).await?;
        let members =
            rows.into_iter().map(|row| member(row, &mut bodies)).collect::<Result<_, _>>()?;
        let wants_branches = node.wants_branches();
        let source = unites.source;
        let outputs = outputs.into_iter().map(Arc::new).collect();
        Ok(Below { source, above, branches, outputs, members, wanted, wants_branches })
    }

    fn fill(self, run: &RunInfo, leased: &Leased, sources: &mut Sources) {
        let graph = &run.graph;
        for node in &self.wanted {
            let entries = match *node == self.source {
                true => self.outputs.iter().cloned().map(Gathered::Output).collect(),
                false => gather(graph, *node, &self.members),
            };
            sources.gathers.insert(*node, entries);
        }
        if self.wants_branches {
            let unite = leased.state.place.node;
            let all = branches(graph, unite, &self.above, self.branches, &self.members);
            sources.branches = Some(all);
        }
    }
}

fn member(row: MemberRow, bodies: &mut HashMap<StateId, Vec<String>>) -> Result<Member, Failure> {
    let end = match row.failure {
        Some((kind, message)) => Ended::Failed(Failure::new(kind, message)),
        None => Ended::Success(values(&bodies.remove(&row.id).unwrap_or_default())?),
    };
    Ok(Member { node: row.node, path: row.path, end, outputs: row.outputs })
}

fn values(bodies: &[String]) -> Result<Vec<Arc<Value>>, Failure> {
    bodies.iter().map(|body| stored(body).map(Arc::new)).collect()
}
