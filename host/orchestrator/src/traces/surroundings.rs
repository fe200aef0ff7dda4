//! Finds what surrounds the span of an attempt: the attempt that created its state, the members of a
//! unite, and the number of the host. Most of it is known from spans that this host has sent; the
//! rest is read from the database, for many spans at once.
//!
//! Not here: the spans themselves (`span`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use exosphere_domain::graph::Node;
use exosphere_domain::ids::{NodeIx, RunKey, SessionId};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::path::{Path, Step};
use exosphere_domain::trace::{SpanId, StateDigest};
use exosphere_store::{AttemptEnd, CommitReport, EndedAttempt, ReportedRun, Store, StoreError};
use tokio::runtime::Handle;

use super::span::Surroundings;
use crate::database_backoff::{database_backoff, pause};

/// Maximum number of known attempts in each of two generations: 24 bytes each.
const MAX_KNOWN_ATTEMPTS: usize = 32 * 1024;

/// Maximum number of known sessions.
const MAX_KNOWN_SESSIONS: usize = 256;

/// Maximum number of links of a unite: to its first members, in path order.
const MAX_LINKS: u32 = 32;

/// Maximum number of states that one read looks up.
const MAX_STATES_PER_READ: usize = 500;

/// Maximum number of tries of a read while the database is unavailable.
const MAX_READ_TRIES: u32 = 5;

/// Finds the spans and hosts that a span refers to, and remembers them.
pub(super) struct Finder {
    store: Store,
    /// The runtime of the database's connections.
    runtime: Handle,
    known: KnownAttempts,
    hosts: HashMap<SessionId, Option<i64>>,
}

/// The attempts that succeeded, by their states: the newest ones.
#[derive(Default)]
struct KnownAttempts {
    new: HashMap<StateDigest, u32>,
    old: HashMap<StateDigest, u32>,
}

impl KnownAttempts {
    fn insert(&mut self, state: StateDigest, number: u32) {
        if self.new.len() >= MAX_KNOWN_ATTEMPTS {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(state, number);
    }

    fn get(&mut self, state: StateDigest) -> Option<u32> {
        if let Some(number) = self.new.get(&state) {
            return Some(*number);
        }
        // A state with many children stays known.
        let number = *self.old.get(&state)?;
        self.insert(state, number);
        Some(number)
    }
}

impl Finder {
    pub(super) fn new(store: Store, runtime: Handle) -> Self {
        Finder { store, runtime, known: KnownAttempts::default(), hosts: HashMap::new() }
    }

    /// Finds the surroundings of each attempt of a report, in order.
    pub(super) async fn find(
        &mut self,
        report: &CommitReport,
    ) -> Result<Vec<Surroundings>, StoreError> {
        let CommitReport { runs, attempts, .. } = report;
        for attempt in attempts.iter().filter(|attempt| has_succeeded(attempt)) {
            if let Some(run) = runs.get(&attempt.run) {
                self.known.insert(StateDigest::new(run.id, &attempt.path), attempt.number);
            }
        }
        let read = self.read_creators(runs, attempts).await?;
        let mut all = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let mut around = Surroundings::default();
            if let Some(run) = runs.get(&attempt.run) {
                around.creator = StateDigest::of_creator(run.id, &attempt.path)
                    .and_then(|state| read.get(&state).copied().or_else(|| self.known.get(state)));
                around.members = self.members(run, attempt).await?;
            }
            around.host = self.host(attempt.session).await?;
            all.push(around);
        }
        Ok(all)
    }

    /// Reads the attempts that created these states, as far as they are not known. An attempt of a
    /// deleted run has none.
    async fn read_creators(
        &mut self,
        runs: &BTreeMap<RunKey, ReportedRun>,
        attempts: &[EndedAttempt],
    ) -> Result<HashMap<StateDigest, u32>, StoreError> {
        let mut unknown = BTreeSet::new();
        for attempt in attempts {
            let Some(run) = runs.get(&attempt.run) else { continue };
            let Some((creator, _)) = attempt.path.last() else { continue };
            let is_known = StateDigest::of_creator(run.id, &attempt.path)
                .is_some_and(|state| self.known.get(state).is_some());
            if !is_known && let Ok(path) = Path::decode(creator) {
                unknown.insert((attempt.run, path));
            }
        }
        let unknown: Vec<(RunKey, Path)> = unknown.into_iter().collect();
        let mut read = HashMap::new();
        for places in unknown.chunks(MAX_STATES_PER_READ) {
            let (store, places) = (self.store.clone(), Arc::new(places.to_vec()));
            let found = self
                .read(move || {
                    let (store, places) = (store.clone(), places.clone());
                    async move { store.attempts_at(&places).await }
                })
                .await?;
            for state in found {
                let Some(run) = runs.get(&state.run) else { continue };
                let digest = StateDigest::new(run.id, &state.path);
                self.known.insert(digest, state.number);
                read.insert(digest, state.number);
            }
        }
        Ok(read)
    }

    /// Reads the spans of the first members of a unite: the attempts whose outputs have arrived.
    async fn members(
        &mut self,
        run: &ReportedRun,
        attempt: &EndedAttempt,
    ) -> Result<Vec<SpanId>, StoreError> {
        let Some((source, Step::Unite(unite))) = attempt.path.last() else { return Ok(Vec::new()) };
        let Ok(source) = Path::decode(source) else { return Ok(Vec::new()) };
        let leads_in = |(_, node): &(NodeIx, &Node)| node.next.contains(&unite);
        let nodes: Vec<NodeIx> = run.graph.nodes().filter(leads_in).map(|(at, _)| at).collect();
        let (store, key, nodes) = (self.store.clone(), run.key, Arc::new(nodes));
        let found = self
            .read(move || {
                let (store, source, nodes) = (store.clone(), source.clone(), nodes.clone());
                async move { store.successes_below(key, &source, &nodes, MAX_LINKS).await }
            })
            .await?;
        let span = |(path, number): (Path, u32)| StateDigest::new(run.id, &path).attempt(number);
        Ok(found.into_iter().map(span).collect())
    }

    /// Returns the number of the host of a session.
    async fn host(&mut self, session: SessionId) -> Result<Option<i64>, StoreError> {
        if let Some(host) = self.hosts.get(&session) {
            return Ok(*host);
        }
        let store = self.store.clone();
        let host = self
            .read(move || {
                let store = store.clone();
                async move { store.hosts_of(&[session]).await }
            })
            .await?
            .remove(&session);
        if self.hosts.len() >= MAX_KNOWN_SESSIONS {
            self.hosts.clear();
        }
        self.hosts.insert(session, host);
        Ok(host)
    }

    /// Reads from the database, on the runtime of its connections, and again for a short while if
    /// it is unavailable.
    pub(super) async fn read<T, F>(&self, read: impl Fn() -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let mut backoff = database_backoff();
        for _ in 1..MAX_READ_TRIES {
            match self.read_once(&read).await {
                Err(StoreError::Unavailable(_) | StoreError::Contention(_)) => {
                    pause(&mut backoff).await;
                }
                settled => return settled,
            }
        }
        self.read_once(&read).await
    }

    async fn read_once<T, F>(&self, read: &impl Fn() -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let done = self.runtime.spawn(read()).await;
        done.unwrap_or_else(|ended| Err(StoreError::Data(ended.to_string())))
    }
}

fn has_succeeded(attempt: &EndedAttempt) -> bool {
    matches!(attempt.end, AttemptEnd::Outcome(AttemptOutcome::Success, _))
}

#[cfg(test)]
mod tests {
    use exosphere_domain::ids::RunId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn known_attempts_are_bounded() {
        let run = RunId(Uuid::nil());
        let state = |output| StateDigest::new(run, &Path::root().child(output, 0));
        let mut known = KnownAttempts::default();
        let all = 3 * MAX_KNOWN_ATTEMPTS as u32;
        for output in 0..all {
            known.insert(state(output), output);
            // One that is used again and again is kept.
            assert_eq!(known.get(state(0)), Some(0));
        }
        assert!(known.new.len() + known.old.len() <= 2 * MAX_KNOWN_ATTEMPTS);
        assert_eq!(known.get(state(all - 1)), Some(all - 1));
        assert_eq!(known.get(state(1)), None);
    }
}
