//! The outputs of a state in pages, and the result of a run: the outputs of its last states.
//!
//! A page has a bounded number of outputs and of bytes. A search for last states examines a bounded
//! number of states, so that a page of a large run may be short and still have a next one.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Name, NodeIx, RunId, StateId};
use exosphere_domain::path::Path;
use exosphere_store::{OutputSize, ResultState, RunView};

use crate::Host;
use crate::error::{Error, log_internal};
use crate::service::large_json::AnswerPermit;

/// Maximum bytes of the outputs of a page, or one output if that is larger.
const MAX_PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// One output of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputView {
    /// The path of the state.
    pub path: Path,
    /// The index of the output in its state.
    pub number: u32,
    /// The output: JSON text.
    pub body: String,
}

/// The position of an output in a run: the path of its state, and its index there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputCursor {
    path: Path,
    number: u32,
}

/// A text that is not a valid cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor; use `next` of the page before")]
pub struct BadOutputCursor;

impl fmt::Display for OutputCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.path.as_str())
    }
}

impl FromStr for OutputCursor {
    type Err = BadOutputCursor;

    fn from_str(text: &str) -> Result<Self, BadOutputCursor> {
        let (number, path) = text.split_once('.').ok_or(BadOutputCursor)?;
        let number = number.parse().map_err(|_| BadOutputCursor)?;
        Ok(OutputCursor { path: Path::decode(path).map_err(|_| BadOutputCursor)?, number })
    }
}

/// A page of outputs of a run.
#[derive(Debug)]
pub struct OutputPage {
    /// The run.
    pub run: RunView,
    /// The graph of the run.
    pub graph: Arc<Graph>,
    /// The outputs, in the order of the paths of their states.
    pub outputs: Vec<OutputView>,
    /// The position of the next page; none on the last one.
    pub next: Option<OutputCursor>,
    /// Permit to hold until the page has been sent, if it is large.
    pub permit: Option<AnswerPermit>,
}

/// Outputs that a page may have, in order, and the position after all of them.
struct Wanted {
    outputs: Vec<(StateId, Path, u32)>,
    next: Option<OutputCursor>,
}

impl Host {
    /// Reads a page of the outputs of one state.
    pub async fn state_outputs(
        &self,
        namespace: &Name,
        id: RunId,
        path: &str,
        (after, limit): (u32, u32),
    ) -> Result<OutputPage, Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let (id, path) = self.find_state(&info, path).await?;
        let state = self.inner.db.store.state(info.key, id).await?;
        let outputs = state.and_then(|state| state.outputs).unwrap_or_default();
        let state = ResultState { id, path: path.clone(), outputs, is_end: false };
        let from = OutputCursor { path, number: after };
        let wanted = want(vec![state], &from, limit);
        self.output_page(namespace, run, info.graph.clone(), wanted).await
    }

    /// Reads a page of the result of a run: the outputs of the states at nodes that nothing follows,
    /// so far.
    pub async fn run_result(
        &self,
        namespace: &Name,
        id: RunId,
        from: OutputCursor,
        limit: u32,
    ) -> Result<OutputPage, Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let last = info.graph.nodes().filter(|(_, node)| node.next.is_empty());
        let last: Vec<NodeIx> = last.map(|(ix, _)| ix).collect();
        let store = &self.inner.db.store;
        // The first state may have been read to its end, and one more tells whether there is more.
        let max_states = limit.saturating_add(2);
        let states = store.result_states(info.key, &last, &from.path, max_states).await?;
        let wanted = want(states, &from, limit);
        self.output_page(namespace, run, info.graph.clone(), wanted).await
    }

    async fn output_page(
        &self,
        namespace: &Name,
        run: RunView,
        graph: Arc<Graph>,
        wanted: Wanted,
    ) -> Result<OutputPage, Error> {
        let store = &self.inner.db.store;
        let keys: Vec<_> = wanted.outputs.iter().map(|(id, _, number)| (*id, *number)).collect();
        let sizes = store.output_sizes_at(&keys).await?;
        let (bytes, wanted) = cut(wanted, &sizes);
        let keys: Vec<_> = wanted.outputs.iter().map(|(id, _, number)| (*id, *number)).collect();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let read = store.outputs_at(&keys, i64::MAX);
        let (mut bodies, permit) = self.inner.large_json.read(namespace, bytes, read).await?;
        let outputs = wanted.outputs.into_iter().map(|(id, path, number)| {
            let body = bodies.remove(&(id, number)).ok_or_else(|| {
                let why = format!("output {number} of state {id} is not stored");
                Error::Internal(log_internal(&why))
            })?;
            Ok(OutputView { path, number, body })
        });
        let outputs = outputs.collect::<Result<_, Error>>()?;
        Ok(OutputPage { run, graph, outputs, next: wanted.next, permit })
    }
}

/// Lists the outputs of some states from a position on, at most `limit`.
fn want(states: Vec<ResultState>, from: &OutputCursor, limit: u32) -> Wanted {
    let mut outputs = Vec::new();
    for state in states {
        let first = if state.path == from.path { from.number } else { 0 };
        for number in first..state.outputs {
            if outputs.len() as u64 == u64::from(limit) {
                return Wanted { outputs, next: Some(OutputCursor { path: state.path, number }) };
            }
            outputs.push((state.id, state.path.clone(), number));
        }
        if state.is_end {
            let next = OutputCursor { number: state.outputs.max(first), path: state.path };
            return Wanted { outputs, next: Some(next) };
        }
    }
    Wanted { outputs, next: None }
}

/// Cuts a page where it would have too many bytes, and returns its bytes.
fn cut(mut wanted: Wanted, sizes: &[OutputSize]) -> (u64, Wanted) {
    let sizes: HashMap<_, _> =
        sizes.iter().map(|size| ((size.state, size.number), size.bytes)).collect();
    let mut bytes = 0;
    for (at, (id, path, number)) in wanted.outputs.iter().enumerate() {
        let size = sizes.get(&(*id, *number)).copied().unwrap_or_default();
        if at > 0 && bytes + size > MAX_PAGE_BYTES {
            wanted.next = Some(OutputCursor { path: path.clone(), number: *number });
            wanted.outputs.truncate(at);
            return (bytes, wanted);
        }
        bytes += size;
    }
    (bytes, wanted)
}

impl OutputCursor {
    /// Returns the index of the output in its state.
    pub fn number(&self) -> u32 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: i64, outputs: u32, is_end: bool) -> ResultState {
        ResultState { id: StateId(id), path: Path::root().child(id as u32, 0), outputs, is_end }
    }

    fn numbers(wanted: &Wanted) -> Vec<(i64, u32)> {
        wanted.outputs.iter().map(|(id, _, number)| (id.0, *number)).collect()
    }

    #[test]
    fn pages_continue_where_they_were_cut() {
        let states = || vec![state(1, 2, false), state(2, 3, false)];
        let first = want(states(), &OutputCursor::default(), 3);
        assert_eq!(numbers(&first), [(1, 0), (1, 1), (2, 0)]);
        let next = first.next.unwrap();
        assert_eq!(next.to_string().parse(), Ok(next.clone()));
        let second = want(vec![state(2, 3, false)], &next, 3);
        assert_eq!((numbers(&second), second.next), (vec![(2, 1), (2, 2)], None));
    }

    #[test]
    fn a_search_that_ended_early_goes_on() {
        let page = want(vec![state(1, 1, false), state(9, 0, true)], &OutputCursor::default(), 3);
        let next = page.next.unwrap();
        assert_eq!((next.path, next.number), (state(9, 0, true).path, 0));
        // The state at which the last search ended ends this one, too, if nothing follows.
        let last = want(
            vec![state(9, 2, true)],
            &OutputCursor { number: 2, path: state(9, 0, true).path },
            3,
        );
        assert_eq!(last.next.unwrap().number, 2);
    }

    #[test]
    fn a_page_is_cut_by_bytes() {
        let size = |number, bytes| OutputSize { state: StateId(1), number, bytes };
        let page = || want(vec![state(1, 3, false)], &OutputCursor::default(), 9);
        let (bytes, cut_page) = cut(page(), &[size(0, 9 << 20), size(1, 1), size(2, 1)]);
        assert_eq!((bytes, numbers(&cut_page)), (9 << 20, vec![(1, 0)]));
        assert_eq!(cut_page.next.unwrap().number, 1);
        assert_eq!(cut(page(), &[size(0, 1), size(1, 1), size(2, 1)]).1.next, None);
    }
}
