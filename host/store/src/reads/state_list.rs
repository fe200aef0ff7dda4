//! Lists of a run's states, in pages, in path order. A page is found along an index and bounded by
//! the states that it examines, so that its cost does not grow with the run.
//!
//! Not here: the statements (`sql::states`), and single states (`views`).

use exosphere_domain::failure::FailureKind;
use exosphere_domain::filter::{MESSAGE_FILTER_CHARS, StateFilter};
use exosphere_domain::ids::{NodeIx, RunKey};
use exosphere_domain::path::Path;

use super::views::{Page, StateView, state};
use crate::codec::{node_list, read_text, to_json};
use crate::dialect::{Param, Statement, params};
use crate::error::StoreError;
use crate::{Store, sql};

/// The number of states that a page examines. A filter may skip all of them: the page is short
/// then, and its cursor continues.
const MAX_EXAMINED_STATES: i64 = 5000;

/// Bytes of failure messages and details at which a page ends, because any number of callers may
/// read a page slowly.
const MAX_PAGE_BYTES: i64 = 256 * 1024;

/// A text that sorts after every path.
const AFTER_ALL_PATHS: &str = "\u{7f}";

/// A page request for a list of states.
#[derive(Debug, Clone, Default)]
pub struct StatePageRequest {
    /// The cursor: the page begins after this path.
    pub after: Option<Path>,
    /// The maximum page size.
    pub limit: u32,
    /// Set if the page shows the details of failures.
    pub has_details: bool,
}

/// The index by which a list goes: its statement, and the one that finds the bound of a page.
struct StateIndex<'f> {
    states: &'static Statement,
    bound: &'static Statement,
    /// The value that the index is searched for, if it is one of failures.
    value: Option<&'f str>,
}

impl<'f> StateIndex<'f> {
    /// Chooses the index that finds the fewest states.
    fn of(filter: &'f StateFilter, message: Option<&'f str>) -> Self {
        let kind = filter.kind.map(FailureKind::as_str);
        let (states, bound, value) = match (message, kind) {
            (Some(_), _) => (sql::STATES_OF_MESSAGE, sql::STATES_OF_MESSAGE_BOUND, message),
            (None, Some(_)) => (sql::STATES_OF_KIND, sql::STATES_OF_KIND_BOUND, kind),
            _ if filter.is_of_failures() => (sql::ERRORED_STATES, sql::ERRORED_STATES_BOUND, None),
            _ => (sql::STATES, sql::STATES_BOUND, None),
        };
        StateIndex { states, bound, value }
    }
}

impl Store {
    /// Reads a page of a run's states that meet a filter, in path order. `node` is the node that
    /// the filter's identifier names. A page may be shorter than its limit, and even empty, and
    /// yet have a cursor.
    pub async fn states(
        &self,
        run: RunKey,
        filter: &StateFilter,
        node: Option<NodeIx>,
        page: &StatePageRequest,
    ) -> Result<Page<StateView>, StoreError> {
        let message: Option<String> = filter
            .message
            .as_ref()
            .map(|message| message.chars().take(MESSAGE_FILTER_CHARS).collect());
        let index = StateIndex::of(filter, message.as_deref());
        // Every path sorts after '', except the root's, which is ''.
        let after = page.after.as_ref().map(Path::as_str);
        let from = after.unwrap_or_default();
        let mut bound_params = params![run.0, from, after, MAX_EXAMINED_STATES - 1].to_vec();
        bound_params.extend(index.value.map(Param::Text));
        let bound = self.reader.row(index.bound, &bound_params, read_text).await?;
        let statuses = match filter.statuses.as_slice() {
            [] => None,
            statuses => Some(to_json(&statuses)?),
        };
        let nodes = node.map(|node| node_list(&[node]));
        let list_params = params![
            run.0,
            nodes.as_deref(),
            statuses.as_deref(),
            from,
            after,
            page.limit,
            MAX_PAGE_BYTES,
            bound.as_deref().unwrap_or(AFTER_ALL_PATHS),
            filter.kind.map(FailureKind::as_str),
            message.as_deref(),
            i64::from(page.has_details),
        ];
        let items = self.reader.rows(index.states, &list_params, state).await?;
        let bytes: usize =
            items.iter().filter_map(|state| Some(state.failure.as_ref()?.bytes())).sum();
        let is_full = items.len() as u64 >= u64::from(page.limit) || bytes as i64 >= MAX_PAGE_BYTES;
        let next = match items.last() {
            Some(last) if is_full => Some(last.path.as_str().to_owned()),
            _ => bound,
        };
        Ok(Page { items, next })
    }
}
