//! Lists of runs, in pages, the newest first. A page is found along an index and bounded by the
//! runs that it examines, so that its cost does not grow with the database.
//!
//! Not here: the statements (`sql::run_lists`), and single runs (`views`).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use exosphere_domain::filter::RunFilter;
use exosphere_domain::ids::{Millis, Name, RunId, RunKey};
use exosphere_domain::label::{Label, Labels};
use exosphere_domain::state::RunStatus;
use uuid::Uuid;

use super::views::{Page, RunView, run};
use crate::codec::{read_int, to_json};
use crate::dialect::{Param, Row, params};
use crate::error::{StoreError, corrupt_row};
use crate::{Store, sql};

/// The number of runs after which a page ends that lists those with a label and other conditions.
/// Each costs two or three lookups.
const MAX_EXAMINED_RUNS: i64 = 2000;

/// The place of a run in a list: a page begins after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPlace {
    created_at: Millis,
    run: RunKey,
}

/// A text that is not a cursor of a list of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor of a list of runs; give `next` of the page before")]
pub struct BadCursor;

impl RunPlace {
    /// The place before every run of a list.
    const NEWEST: RunPlace = RunPlace { created_at: Millis::MAX, run: RunKey(i64::MAX) };

    /// Returns the place before all runs that were started before a time.
    fn before(time: Millis) -> Self {
        RunPlace { created_at: time, run: RunKey(i64::MIN) }
    }

    /// Returns the cursor as two parameters.
    fn params(self) -> [Param<'static>; 2] {
        params![self.created_at, self.run.0]
    }
}

impl fmt::Display for RunPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.created_at, self.run.0)
    }
}

impl FromStr for RunPlace {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let number = |text| i64::from_str_radix(text, 16).ok().filter(|number| *number >= 0);
        let parts = text.split_once('.');
        let parts = parts.and_then(|(time, run)| Some((number(time)?, number(run)?)));
        let (created_at, run) = parts.ok_or(BadCursor)?;
        Ok(RunPlace { created_at, run: RunKey(run) })
    }
}

/// The cursor of a list of runs, whose text is opaque to callers: the place of a run, which it names
/// by its id. A run's number would tell how many runs other namespaces start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunCursor {
    created_at: Millis,
    run: RunId,
}

impl fmt::Display for RunCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.created_at, self.run.0.simple())
    }
}

impl FromStr for RunCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (created_at, run) = text.split_once('.').ok_or(BadCursor)?;
        let created_at = i64::from_str_radix(created_at, 16).map_err(|_| BadCursor)?;
        let run = Uuid::parse_str(run).map_err(|_| BadCursor)?;
        if created_at < 0 {
            return Err(BadCursor);
        }
        Ok(RunCursor { created_at, run: RunId(run) })
    }
}

/// A page request for a list of runs.
#[derive(Debug, Clone, Copy)]
pub struct RunPageRequest {
    /// The cursor: the page begins after this run.
    pub after: Option<RunCursor>,
    /// The maximum page size.
    pub limit: u32,
}

/// A run of a list, with its labels.
#[derive(Debug, Clone)]
pub struct ListedRun {
    /// The run.
    pub run: RunView,
    /// The labels of the run.
    pub labels: Labels,
}

/// A part of a list: from a place, which is included, up to another.
struct Range {
    from: RunPlace,
    to: RunPlace,
}

impl Range {
    fn new(filter: &RunFilter, after: Option<RunPlace>) -> Self {
        let from = RunPlace::before(filter.created_after.unwrap_or(Millis::MIN));
        let to = filter.created_before.map_or(RunPlace::NEWEST, RunPlace::before);
        Range { from, to: after.map_or(to, |after| to.min(after)) }
    }
}

impl Store {
    /// Reads a page of a namespace's runs that meet a filter, the newest first. A page may be
    /// shorter than its limit, and even empty, and yet have a cursor.
    pub async fn runs(
        &self,
        namespace: &Name,
        filter: &RunFilter,
        page: RunPageRequest,
    ) -> Result<Page<ListedRun>, StoreError> {
        let after = match page.after {
            Some(cursor) => Some(self.place_of(namespace, cursor).await?),
            None => None,
        };
        let (keys, next) = self.run_keys(namespace, filter, after, page.limit).await?;
        let keys: Vec<i64> = keys.iter().map(|key| key.0).collect();
        let items = self.listed_runs(&keys, &filter.wanted_statuses()).await?;
        let next = match next {
            Some(place) => Some(self.cursor_of(place, &items).await?.to_string()),
            None => None,
        };
        Ok(Page { items, next })
    }

    /// Finds the place of a cursor. If its run was deleted, that is before all runs of the same
    /// millisecond, some of which are listed again.
    async fn place_of(&self, namespace: &Name, cursor: RunCursor) -> Result<RunPlace, StoreError> {
        let id = cursor.run.to_string();
        let run = params![namespace.as_str(), id.as_str()];
        let key = self.reader.row(sql::RUN_KEY, &run, read_int).await?;
        Ok(RunPlace { created_at: cursor.created_at, run: RunKey(key.unwrap_or(i64::MAX)) })
    }

    /// Returns the cursor of a place, whose run is usually the last of the page.
    async fn cursor_of(
        &self,
        place: RunPlace,
        items: &[ListedRun],
    ) -> Result<RunCursor, StoreError> {
        let last = items.last().filter(|last| last.run.key == place.run);
        let run = match last {
            Some(last) => last.run.id,
            None => {
                let ids = self.ids_of(&[place.run.0]).await?;
                // A run that was deleted meanwhile has none.
                ids.first().copied().unwrap_or(RunId(Uuid::nil()))
            }
        };
        Ok(RunCursor { created_at: place.created_at, run })
    }

    /// Finds the keys of a page of runs that meet a filter, the newest first, and the place after the
    /// page; `None` after the last run.
    pub(crate) async fn run_keys(
        &self,
        namespace: &Name,
        filter: &RunFilter,
        after: Option<RunPlace>,
        limit: u32,
    ) -> Result<(Vec<RunKey>, Option<RunPlace>), StoreError> {
        let range = Range::new(filter, after);
        let (found, bound) = match filter.labels.as_slice() {
            [] => (self.runs_by_status(namespace, filter, &range, limit).await?, None),
            [label, others @ ..] => {
                self.runs_by_label(namespace, filter, (label, others), range, limit).await?
            }
        };
        let is_full = found.len() as u64 >= u64::from(limit);
        let next = if is_full { found.last().copied() } else { bound };
        Ok((found.iter().map(|place| place.run).collect(), next))
    }

    /// Lists the ids of the newest runs of a namespace that were created in an interval, at most
    /// `limit`.
    pub async fn run_ids(
        &self,
        namespace: &Name,
        (from, to): (Millis, Millis),
        limit: u32,
    ) -> Result<Vec<RunId>, StoreError> {
        let filter = RunFilter {
            created_after: Some(from),
            created_before: Some(to.saturating_add(1)),
            ..RunFilter::default()
        };
        let range = Range::new(&filter, None);
        let keys = self.runs_by_status(namespace, &filter, &range, limit).await?;
        self.ids_of(&keys.iter().map(|key| key.run.0).collect::<Vec<_>>()).await
    }

    /// Reads the ids of runs by their keys, the newest first.
    async fn ids_of(&self, keys: &[i64]) -> Result<Vec<RunId>, StoreError> {
        let keys = to_json(&keys)?;
        let read = |row: &dyn Row| {
            let text = row.text(0)?;
            Ok(RunId(text.parse().map_err(|_| corrupt_row("run", "uuid", text))?))
        };
        self.reader.rows(sql::RUN_IDS, &params![keys.as_str()], read).await
    }

    /// Finds runs of a namespace, or of one graph, by their statuses.
    async fn runs_by_status(
        &self,
        namespace: &Name,
        filter: &RunFilter,
        range: &Range,
        limit: u32,
    ) -> Result<Vec<RunPlace>, StoreError> {
        let mut params = params![namespace.as_str()].to_vec();
        params.extend(range.from.params());
        params.extend(range.to.params());
        params.push(limit.into());
        let wanted = filter.wanted_statuses();
        params.extend(RunStatus::ALL.map(|it| Param::Int(i64::from(wanted.contains(&it)))));
        let statement = match &filter.graph {
            None => sql::RUNS_BY_STATUS,
            Some(graph) => {
                params.push(graph.as_str().into());
                sql::RUNS_BY_GRAPH
            }
        };
        self.reader.rows(statement, &params, place).await
    }

    /// Finds runs by their labels. Returns also the place at which the page ends if its bound is
    /// reached before its limit.
    async fn runs_by_label(
        &self,
        namespace: &Name,
        filter: &RunFilter,
        (label, others): (&Label, &[Label]),
        mut range: Range,
        limit: u32,
    ) -> Result<(Vec<RunPlace>, Option<RunPlace>), StoreError> {
        let label = params![namespace.as_str(), label.key(), label.value()];
        let params = |range: &Range, limit: i64| {
            let mut params = label.to_vec();
            params.extend(range.from.params());
            params.extend(range.to.params());
            params.push(limit.into());
            params
        };
        let bound_params = params(&range, MAX_EXAMINED_RUNS - 1);
        let bound = self.reader.row(sql::LABEL_BOUND, &bound_params, place).await?;
        range.from = bound.unwrap_or(range.from);
        let statuses = filter.wanted_statuses();
        let statuses = to_json(&statuses)?;
        let others = to_json(&others)?;
        let mut params = params(&range, i64::from(limit));
        params.extend(params![statuses.as_str()]);
        params.extend(params![filter.graph.as_ref().map(Name::as_str), others.as_str()]);
        Ok((self.reader.rows(sql::RUNS_BY_LABEL, &params, place).await?, bound))
    }

    /// Reads the runs of a page with their labels. A run is left out if its status has changed
    /// since the page was found.
    async fn listed_runs(
        &self,
        keys: &[i64],
        wanted: &[RunStatus],
    ) -> Result<Vec<ListedRun>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = to_json(&keys)?;
        let runs = self.reader.rows(sql::RUN_VIEWS, &params![keys.as_str()], run).await?;
        let mut labels = self.labels(&keys).await?;
        let listed = runs.into_iter().filter(|run| wanted.contains(&run.status));
        let listed = listed.map(|run| {
            let labels = labels.remove(&run.key).unwrap_or_default();
            ListedRun { run, labels: labels.into_iter().collect() }
        });
        Ok(listed.collect())
    }

    /// Reads the labels of one run.
    pub(crate) async fn labels_of(&self, run: RunKey) -> Result<Labels, StoreError> {
        let mut labels = self.labels(&to_json(&[run.0])?).await?;
        Ok(labels.remove(&run).unwrap_or_default().into_iter().collect())
    }

    /// Reads the labels of runs, whose keys are a JSON list.
    async fn labels(&self, keys: &str) -> Result<HashMap<RunKey, Vec<Label>>, StoreError> {
        let mut all: HashMap<RunKey, Vec<Label>> = HashMap::new();
        for (run, label) in self.reader.rows(sql::LABELS, &params![keys], label).await? {
            all.entry(run).or_default().push(label);
        }
        Ok(all)
    }
}

/// Reads the place of a run from the columns `created_at, id`.
fn place(row: &dyn Row) -> Result<RunPlace, StoreError> {
    Ok(RunPlace { created_at: row.int(0)?, run: RunKey(row.int(1)?) })
}

/// Reads a label from the columns `run, key, value`.
fn label(row: &dyn Row) -> Result<(RunKey, Label), StoreError> {
    let run = RunKey(row.int(0)?);
    let label = Label::new(&row.text(1)?, &row.text(2)?);
    Ok((run, label.map_err(|_| corrupt_row("label", "key", run.0))?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn places_are_read_as_written() {
        for (created_at, run) in [(0, 0), (1_764_000_000_000, 7), (i64::MAX, i64::MAX)] {
            let place = RunPlace { created_at, run: RunKey(run) };
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for text in ["", ".", "7", "7.", "-1.2", "1.-2", "x.1", "1.2.3", "ffffffffffffffff.1"] {
            assert_eq!(text.parse::<RunPlace>(), Err(BadCursor), "{text}");
        }
    }

    #[test]
    fn cursors_name_runs_by_their_ids() {
        let run = RunId(Uuid::from_u128(7));
        let cursor = RunCursor { created_at: 255, run };
        assert_eq!(cursor.to_string(), format!("ff.{:032x}", 7));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", ".", "ff", "ff.7", "ff.", "-1.00000000000000000000000000000007"] {
            assert_eq!(text.parse::<RunCursor>(), Err(BadCursor), "{text}");
        }
    }
}
