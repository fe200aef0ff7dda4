//! Converts rows to values; no other module does. Rows that no transition could have written are
//! refused, with table, column and row.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::Leased;
use crate::error::StoreError;
use crate::text::Cells;
use exosphere_domain::ids::{Fence, NamespaceKey, NodeIx, RunKey, SessionId, StateId};
use exosphere_domain::json;
use exosphere_domain::path::Path;
use exosphere_domain::state::{Claim, Claimed, Place, Ref, Scope, Status, Tries};

/// Returns the error for a value that no transition could have written.
pub(crate) fn corrupt(table: &str, column: &str, row: impl std::fmt::Display) -> StoreError {
    StoreError::Data(format!("table {table}, column {column}, row {row}: not a value of ours"))
}

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
        json::from_text(text).map_err(|_| corrupt("state", "refs", id))?;
    let refs = triples.into_iter();
    Ok(refs
        .map(|(node, state, output)| Ref { node: NodeIx(node), state: StateId(state), output })
        .collect())
}

pub(crate) fn decode_scopes(text: &str, id: StateId) -> Result<Arc<[Scope]>, StoreError> {
    if text == "[]" {
        return Ok(Arc::from([]));
    }
    let pairs: Vec<(u32, i64)> =
        json::from_text(text).map_err(|_| corrupt("state", "scopes", id))?;
    let scopes = pairs.into_iter();
    Ok(scopes.map(|(unite, state)| Scope { unite: NodeIx(unite), state: StateId(state) }).collect())
}

/// Parses a status from the column `state.status`.
pub(crate) fn status(text: &str, id: StateId) -> Result<Status, StoreError> {
    Status::parse(text).ok_or_else(|| corrupt("state", "status", id))
}

/// Converts a count that is small by construction.
pub(crate) fn small(number: i64, column: &str, id: StateId) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| corrupt("state", column, id))
}

/// Reads a place from the columns `node, path, refs, scopes`, the first at `at`.
pub(crate) fn place(row: &dyn Cells, id: StateId, at: usize) -> Result<Place, StoreError> {
    let path = row.text(at + 1)?;
    Ok(Place {
        node: NodeIx(small(row.int(at)?, "node", id)?),
        path: Path::decode(&path).map_err(|_| corrupt("state", "path", id))?,
        refs: decode_refs(&row.text(at + 2)?, id)?,
        scopes: decode_scopes(&row.text(at + 3)?, id)?,
    })
}

/// Reads a claimed state and the fence under which its start was last recorded, from the columns of
/// `claimed!` in [`crate::sql`].
pub(crate) fn claimed(row: &dyn Cells) -> Result<Held, StoreError> {
    let id = StateId(row.int(0)?);
    let count = |at: usize, column| small(row.int(at)?, column, id);
    let state = Claimed {
        id,
        run: RunKey(row.int(1)?),
        place: place(row, id, 2)?,
        tries: Tries {
            attempt: count(6, "attempt")?,
            retries: count(7, "retries")?,
            requeues: count(8, "requeues")?,
            losses: count(9, "losses")?,
            conflicts: count(10, "conflicts")?,
        },
        claim: Claim { session: SessionId(row.int(11)?), fence: Fence(row.int(12)?) },
    };
    let fixed = fixed(row.maybe_text(13)?, id)?;
    let noted = row.int(14)? == state.claim.fence.0;
    let namespace = NamespaceKey(row.int(15)?);
    Ok(Held { leased: Leased { state, namespace, fixed, known: Vec::new() }, noted })
}

/// A state that a session holds.
pub(crate) struct Held {
    pub leased: Leased,
    /// Set if the host recorded that the execution began.
    pub noted: bool,
}

/// Reads the column `fixed`: store values, as a JSON object of texts.
pub(crate) fn fixed(
    text: Option<String>,
    id: StateId,
) -> Result<BTreeMap<String, String>, StoreError> {
    text.map_or_else(
        || Ok(BTreeMap::new()),
        |text| json::from_text(&text).map_err(|_| corrupt("state", "fixed", id)),
    )
}

/// Reads a row with a single number.
pub(crate) fn number(row: &dyn Cells) -> Result<i64, StoreError> {
    row.int(0)
}

/// Reads a row with a single text.
pub(crate) fn text(row: &dyn Cells) -> Result<String, StoreError> {
    row.text(0)
}
