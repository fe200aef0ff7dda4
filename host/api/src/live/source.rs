//! Sources of live views: what a topic reads, when it may have changed, and the text of it.
//!
//! Not here: the pace of the reads, and the readers (`topic`, `reader`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Bytes;
use exosphere_api_types::{RunFilter, RunListChange, RunSnapshot, RunSummary, to_text};
use exosphere_orchestrator::domain::ids::{Name, RunId};
use exosphere_orchestrator::{Error, Host, RunFollower, RunPageRequest, RunsFollower};

use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::views;
use crate::withhold::without_payloads;

/// The subject of a live view. Readers of the same source share one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A run.
    Run { namespace: Name, run: RunId },
    /// The newest runs of a namespace that meet a filter, up to `limit`.
    Runs { namespace: Name, filter: RunFilter, limit: u32 },
}

impl Source {
    pub(super) fn namespace(&self) -> &Name {
        match self {
            Source::Run { namespace, .. } | Source::Runs { namespace, .. } => namespace,
        }
    }

    /// Follows the source from now on.
    pub(super) async fn follow(self, host: &Host) -> Result<Follower, Error> {
        Ok(match self {
            Source::Run { namespace, run } => {
                Follower::Run(Box::new(host.follow_run(&namespace, run).await?))
            }
            Source::Runs { namespace, filter, limit } => {
                let (host, changes) = (host.clone(), host.follow_runs());
                Follower::Runs(RunListFollower { host, namespace, filter, limit, changes })
            }
        })
    }
}

/// A snapshot of a source: an event.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The id of the event: it is another one if the snapshot is.
    pub id: String,
    /// The whole snapshot, as the text of an event.
    pub whole: EventText,
    /// The change since the snapshot with this id.
    pub change: Option<(String, EventText)>,
    /// The runs of a list, from which the next change is computed.
    runs: HashMap<String, RunSummary>,
}

/// The text of an event, for readers who may see payloads and for those who may not.
#[derive(Debug, Clone)]
pub(super) struct EventText {
    pub with_payloads: Bytes,
    pub without_payloads: Bytes,
}

/// The reason why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The host refuses, or its database is away.
    #[error(transparent)]
    Host(#[from] Error),
    /// The snapshot cannot be written as JSON.
    #[error("a snapshot cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The payloads of the snapshot cannot be left out.
    #[error("the payloads of a snapshot cannot be left out")]
    Payloads,
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Host(error) => error.into(),
            error => {
                tracing::error!(%error, "cannot make a live view");
                let message = "internal error: the live view cannot be written; the host's log has \
                               the reason";
                Problem::new(Kind::Internal, message)
            }
        }
    }
}

/// Follows a source.
pub(super) enum Follower {
    Run(Box<RunFollower>),
    Runs(RunListFollower),
}

/// Follows a list of runs.
pub(super) struct RunListFollower {
    host: Host,
    namespace: Name,
    filter: RunFilter,
    limit: u32,
    changes: RunsFollower,
}

impl Follower {
    /// Waits until the source may have changed since it was read.
    pub(super) async fn changed(&mut self) {
        match self {
            Follower::Run(run) => run.changed().await,
            Follower::Runs(list) => list.changes.changed().await,
        }
    }

    /// Reads the source, and returns its snapshot: with what has changed since the one before.
    pub(super) async fn read(&mut self, before: Option<&Snapshot>) -> Result<Snapshot, ReadError> {
        match self {
            Follower::Run(run) => run_snapshot(&views::run_snapshot(run.read().await?)),
            Follower::Runs(list) => {
                // A full page has a next one, which may be empty: with one run more, it is not.
                let page = RunPageRequest { after: None, limit: list.limit + 1 };
                let page = list.host.runs(&list.namespace, &list.filter, page).await?;
                let more = page.next.is_some();
                let runs = page.items.into_iter().take(list.limit as usize);
                let runs = runs.map(|listed| views::run_summary(listed.run, listed.labels));
                list_snapshot(runs.collect(), more, before)
            }
        }
    }
}

fn run_snapshot(run: &RunSnapshot) -> Result<Snapshot, ReadError> {
    let text = to_text(run)?;
    // The version alone does not tell: a namespace is paused without an event of its runs.
    let id = format!("{}-{:016x}", run.summary.version, hash(&text));
    let filtered = without_payloads(&text).ok_or(ReadError::Payloads)?;
    let whole = EventText {
        with_payloads: event("run", &id, &text),
        without_payloads: event("run", &id, &filtered),
    };
    Ok(Snapshot { id, whole, change: None, runs: HashMap::new() })
}

fn list_snapshot(
    runs: Vec<RunSummary>,
    more: bool,
    before: Option<&Snapshot>,
) -> Result<Snapshot, ReadError> {
    let order: Vec<String> = runs.iter().map(|run| run.run.clone()).collect();
    let of_before = before.map(|before| &before.runs);
    let is_known = |run: &&RunSummary| of_before.and_then(|runs| runs.get(&run.run)) == Some(*run);
    let changed = runs.iter().filter(|run| !is_known(run)).cloned().collect();
    let change = to_text(&RunListChange { order: order.clone(), runs: changed, more })?;
    let whole = to_text(&RunListChange { order, runs: runs.clone(), more })?;
    let id = format!("{:016x}", hash(&whole));
    // A list holds no payloads.
    let text = |text: &[u8]| {
        let event = event("runs", &id, text);
        EventText { with_payloads: event.clone(), without_payloads: event }
    };
    let (whole, change) = (text(&whole), before.map(|before| (before.id.clone(), text(&change))));
    let runs = runs.into_iter().map(|run| (run.run.clone(), run)).collect();
    Ok(Snapshot { id, whole, change, runs })
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Returns the text of an event. JSON that the host writes has no line ends.
fn event(kind: &str, id: &str, json: &[u8]) -> Bytes {
    let mut text = format!("id: {id}\nevent: {kind}\ndata: ").into_bytes();
    text.extend_from_slice(json);
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_orchestrator::domain::json::{from_stored, from_value, read_stored};
    use serde_json::json;

    use super::*;

    fn summary(id: &str, version: i64) -> RunSummary {
        let text = json!({"run": id, "graph": "g", "revision": 1, "status": "RUNNING",
            "version": version, "created_at": 1});
        from_value(text).unwrap()
    }

    /// Returns the ids of the order and of the changed runs of an event.
    fn change(text: &EventText) -> (Vec<String>, Vec<String>) {
        let text = std::str::from_utf8(&text.with_payloads).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let change: RunListChange = from_stored(data).unwrap();
        (change.order, change.runs.into_iter().map(|run| run.run).collect())
    }

    #[test]
    fn a_list_event_has_what_changed() {
        let runs = || vec![summary("b", 1), summary("a", 1)];
        let first = list_snapshot(runs(), false, None).unwrap();
        assert_eq!(change(&first.whole).1, ["b", "a"]);
        assert!(first.change.is_none());
        assert_eq!(list_snapshot(runs(), false, Some(&first)).unwrap().id, first.id);
        let runs = vec![summary("c", 1), summary("b", 2)];
        let second = list_snapshot(runs, true, Some(&first)).unwrap();
        let (since, text) = second.change.as_ref().unwrap();
        assert_eq!(*since, first.id);
        assert_eq!(change(text), (vec!["c".into(), "b".into()], vec!["c".into(), "b".into()]));
        let third = list_snapshot(vec![summary("c", 1), summary("b", 3)], true, Some(&second));
        assert_eq!(change(&third.unwrap().change.unwrap().1).1, ["b"]);
    }

    #[test]
    fn an_event_of_a_run_withholds_messages() {
        let run = json!({"run": "a", "graph": "g", "revision": 1, "status": "FAILED", "version": 7,
            "created_at": 1, "failures": [{"state": "a/x", "path": "x", "status": "ERRORED",
            "attempt": 1, "created_at": 1, "failure": {"kind": "permanent", "message": "secret"}}]});
        let run = from_value(run).unwrap();
        let snapshot = run_snapshot(&run).unwrap();
        assert!(snapshot.id.starts_with("7-"));
        assert_eq!(run_snapshot(&run).unwrap().id, snapshot.id);
        let EventText { with_payloads, without_payloads } = snapshot.whole;
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text(&with_payloads).contains("secret"));
        let text = text(&without_payloads);
        assert!(!text.contains("secret") && text.contains("permanent"), "{text}");
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        assert_eq!(read_stored(data).unwrap()["withheld"], json!(["message"]));
    }
}
