//! Converts columns to values and back; no other module does. Rows that no transition could have
//! written are refused, with table, column and row.

use std::collections::BTreeMap;
use std::sync::Arc;

use exosphere_domain::ids::{
    Fence, Millis, Name, NamespaceKey, NodeIx, RunKey, SessionId, StateId,
};
use exosphere_domain::json::{Typed, from_stored, from_text};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::Path;
use exosphere_domain::state::{AttemptCounts, Claim, Claimed, Place, Ref, Scope, Status};

use crate::dialect::{Cursor, Row};
use crate::error::{StoreError, corrupt_row};
use crate::secrets::keyring::KeyId;
use crate::types::ClaimedState;

pub(crate) fn encode_refs(refs: &[Ref]) -> String {
    encode(refs.iter().map(|r| format!("[{},{},{}]", r.node.0, r.state.0, r.output)))
}

pub(crate) fn encode_scopes(scopes: &[Scope]) -> String {
    encode(scopes.iter().map(|s| format!("[{},{}]", s.unite.0, s.state.0)))
}

fn encode(items: impl Iterator<Item = String>) -> String {
    let mut text = String::from("[");
    for item in items {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&item);
    }
    text.push(']');
    text
}

pub(crate) fn decode_refs(text: &str, id: StateId) -> Result<Vec<Ref>, StoreError> {
    let triples: Vec<(u32, i64, u32)> =
        from_text(text).map_err(|_| corrupt_row("state", "refs", id))?;
    let refs = triples.into_iter();
    Ok(refs
        .map(|(node, state, output)| Ref { node: NodeIx(node), state: StateId(state), output })
        .collect())
}

pub(crate) fn decode_scopes(text: &str, id: StateId) -> Result<Arc<[Scope]>, StoreError> {
    if text == "[]" {
        return Ok(Arc::from([]));
    }
    let pairs: Vec<(u32, i64)> = from_text(text).map_err(|_| corrupt_row("state", "scopes", id))?;
    let scopes = pairs.into_iter();
    Ok(scopes.map(|(unite, state)| Scope { unite: NodeIx(unite), state: StateId(state) }).collect())
}

/// Parses a status from the column `state.status`.
pub(crate) fn to_status(text: &str, id: StateId) -> Result<Status, StoreError> {
    Status::parse(text).ok_or_else(|| corrupt_row("state", "status", id))
}

/// Parses an outcome from the column `attempt.outcome` of a state.
pub(crate) fn to_outcome(text: &str, id: StateId) -> Result<AttemptOutcome, StoreError> {
    AttemptOutcome::parse(text).ok_or_else(|| corrupt_row("attempt", "outcome", id))
}

/// Converts a count that is small by construction.
pub(crate) fn to_u32(number: i64, column: &str, id: StateId) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| corrupt_row("state", column, id))
}

/// Reads the place of a state from the columns `node, path, refs, scopes`.
pub(crate) fn read_place(columns: &mut Cursor<'_>, id: StateId) -> Result<Place, StoreError> {
    let (node, path) = (columns.next("node")?, columns.next::<String>("path")?);
    let (refs, scopes) = (columns.next::<String>("refs")?, columns.next::<String>("scopes")?);
    Ok(Place {
        node: NodeIx(node),
        path: Path::decode(&path).map_err(|_| corrupt_row("state", "path", id))?,
        refs: decode_refs(&refs, id)?,
        scopes: decode_scopes(&scopes, id)?,
    })
}

/// Reads a claimed state and the fence under which its start was last recorded, from the columns of
/// `claimed!` in [`crate::sql`].
pub(crate) fn read_claimed(row: &dyn Row) -> Result<HeldState, StoreError> {
    claimed(&mut Cursor::new(row, "state"))
}

/// Reads a claimed state as [`read_claimed`] does, and the time of its claim from the next column.
pub(crate) fn read_held(row: &dyn Row) -> Result<(HeldState, Option<Millis>), StoreError> {
    let columns = &mut Cursor::new(row, "state");
    Ok((claimed(columns)?, columns.next("began_at")?))
}

fn claimed(columns: &mut Cursor<'_>) -> Result<HeldState, StoreError> {
    let id = StateId(columns.next("id")?);
    let state = Claimed {
        id,
        run: RunKey(columns.next("run")?),
        place: read_place(columns, id)?,
        attempts: AttemptCounts {
            attempt: columns.next("attempt")?,
            retries: columns.next("retries")?,
            requeues: columns.next("requeues")?,
            host_losses: columns.next("losses")?,
            conflicts: columns.next("conflicts")?,
        },
        claim: Claim {
            session: SessionId(columns.next("session")?),
            fence: Fence(columns.next("fence")?),
        },
    };
    let store_snapshot = store_snapshot(columns.next("store_snapshot")?, id)?;
    let has_begun = columns.next::<i64>("begun_fence")? == state.claim.fence.0;
    let namespace = NamespaceKey(columns.next("namespace")?);
    let (due_at, known_outputs) = (columns.next("due_at")?, Vec::new());
    let claimed = ClaimedState { state, namespace, store_snapshot, due_at, known_outputs };
    Ok(HeldState { claimed, has_begun })
}

/// A state that a session holds.
pub(crate) struct HeldState {
    pub claimed: ClaimedState,
    /// Set if the host recorded that the execution began.
    pub has_begun: bool,
}

/// Parses the column `store_snapshot`: the values of the run's store when the state was created,
/// as a JSON object of texts.
pub(crate) fn store_snapshot(
    text: Option<String>,
    id: StateId,
) -> Result<BTreeMap<String, String>, StoreError> {
    text.map_or_else(
        || Ok(BTreeMap::new()),
        |text| from_text(&text).map_err(|_| corrupt_row("state", "store_snapshot", id)),
    )
}

/// Formats the column `store_snapshot`.
pub(crate) fn encode_snapshot(
    values: &BTreeMap<String, String>,
) -> Result<Option<String>, StoreError> {
    if values.is_empty() { Ok(None) } else { to_json(values).map(Some) }
}

/// Reads a row with a single number.
pub(crate) fn read_int(row: &dyn Row) -> Result<i64, StoreError> {
    row.int(0)
}

/// Reads a row with a single text.
pub(crate) fn read_text(row: &dyn Row) -> Result<String, StoreError> {
    row.text(0)
}

pub(crate) fn to_name(text: String, table: &str, column: &str) -> Result<Name, StoreError> {
    text.parse().map_err(|_| corrupt_row(table, column, text))
}

pub(crate) fn to_key_id(text: String) -> Result<KeyId, StoreError> {
    KeyId::parse(&text).ok_or_else(|| corrupt_row("secret", "key_id", text))
}

/// Parses a column of JSON text.
pub(crate) fn parse_json<T: Typed>(
    text: &str,
    table: &str,
    column: &str,
    row: impl std::fmt::Display,
) -> Result<T, StoreError> {
    from_stored(text).map_err(|_| corrupt_row(table, column, row))
}

/// Formats a value of this crate as JSON text.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Data(error.to_string()))
}

/// Formats nodes as a JSON list, the form that statements take.
pub(crate) fn node_list(nodes: &[NodeIx]) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
    format!("[{}]", nodes.join(","))
}

/// Returns a text that sorts right after a path, before all paths below it.
pub(crate) fn after_path(path: &str) -> String {
    format!("{path}!")
}
