//! Random operations of hosts and users, in random order, many of them too late.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exosphere_domain::deadline::Deadlines;
use exosphere_domain::ids::{IdSource, RunId, RunKey, SessionId, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{ids_needed, outcome_of_lost_claim, plan, root_state};
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_domain::testing::SeededRng;
use exosphere_store::{
    ClaimMode, Committed, Control, Finished, NewRun, Operation, RedrivePart, Reply, RunInfo,
};

use super::database_pair::DatabasePair;
use super::outcomes::{self, QUARTER_HOUR_MS};
use crate::harness::{Template, pause, sweep};

/// Returns limits of a run's store that are reached often.
fn limits() -> Arc<Limits> {
    let limits = Limits::default().with(Limit::StoreKeys, 6);
    Arc::new(limits.with(Limit::StoreBytes, 200))
}

/// Minimum number of open runs, below which further ones are started.
const RUNS: usize = 12;

/// Maximum number of ended executions that may be committed again.
const MAX_PAST_CLAIMS: usize = 50;

pub struct RandomOps {
    pub databases: DatabasePair,
    /// Operations so far.
    pub operations: usize,
    rng: SeededRng,
    templates: Vec<Template>,
    runs: BTreeMap<RunKey, Arc<RunInfo>>,
    /// Runs that may still be running.
    live: Vec<RunKey>,
    sessions: Vec<SessionId>,
    held: Vec<Claimed>,
    past: Vec<Claimed>,
    sweeps: Vec<(RunKey, i64, String)>,
    /// Partial redrives that were open when last read.
    redrives: Vec<(RunKey, i64)>,
    answer_counts: BTreeMap<&'static str, usize>,
}

/// Consecutive state ids.
struct ConsecutiveIds(Cell<i64>);

impl IdSource for ConsecutiveIds {
    fn next(&self) -> StateId {
        StateId(self.0.replace(self.0.get() + 1))
    }
}

/// A batch in preparation, with the claims, runs and sweeps that it took.
#[derive(Default)]
struct PendingBatch {
    operations: Vec<Operation>,
    taken: Vec<Claimed>,
    started: Vec<Arc<RunInfo>>,
    swept: Vec<(usize, RunKey, i64, String)>,
}

impl RandomOps {
    pub async fn new(databases: DatabasePair, seed: u64) -> RandomOps {
        let mut templates = Vec::new();
        for (at, builder) in outcomes::builders().iter().enumerate() {
            let namespace = if at % 3 == 0 { "m" } else { "n" };
            templates.push(databases.template(namespace, &format!("g{at}"), builder).await);
        }
        let sessions = vec![databases.begin_session().await];
        RandomOps {
            databases,
            operations: 0,
            rng: SeededRng::new(seed),
            templates,
            runs: BTreeMap::new(),
            live: Vec::new(),
            sessions,
            held: Vec::new(),
            past: Vec::new(),
            sweeps: Vec::new(),
            redrives: Vec::new(),
            answer_counts: BTreeMap::new(),
        }
    }

    /// Formats the number of operations, runs and answers.
    pub fn answer_counts(&self) -> String {
        format!("{} members, {} runs: {:?}", self.operations, self.runs.len(), self.answer_counts)
    }

    /// Commits one transaction, and sometimes does other work before it.
    pub async fn step(&mut self) {
        match self.rng.below(60) {
            0 => self.sessions.push(self.databases.begin_session().await),
            1 => {
                let session = *self.rng.pick(&self.sessions).unwrap();
                self.databases.end_session(session).await;
            }
            2 | 3 => {
                let quarters = 1 + self.rng.below(6) as i64;
                self.databases.advance(quarters * QUARTER_HOUR_MS).await;
            }
            4 => self.reclaim().await,
            5 => {
                let run = self.pick_run();
                if let Some(run) = run {
                    self.databases.compare_reads(&run).await;
                }
            }
            6 => self.find_unswept().await,
            7 => self.commit_invalid_batch().await,
            _ => {}
        }
        let mut pending = PendingBatch::default();
        for _ in 0..1 + self.rng.below(8) {
            self.add(&mut pending).await;
        }
        self.commit(pending).await;
    }

    async fn commit(&mut self, pending: PendingBatch) {
        let claim_mode = match self.rng.below(4) {
            0 => ClaimMode::NewOnly(0),
            1 => ClaimMode::NewOnly(self.rng.below(8) as u32),
            _ => ClaimMode::AllDue(self.rng.below(8) as u32),
        };
        let recent = self.sessions.len().saturating_sub(3);
        let session = *self.rng.pick(&self.sessions[recent..]).unwrap();
        self.operations += pending.operations.len().max(1);
        let PendingBatch { operations, taken, started, swept } = pending;
        let as_request = |(at, operation): (usize, &Operation)| match operation {
            Operation::Control(
                run,
                Control::Cancel
                | Control::Pause
                | Control::Resume
                | Control::Redrive(RedrivePart::End { .. }),
            ) => Some((at, run.key)),
            _ => None,
        };
        let requests: Vec<_> = operations.iter().enumerate().filter_map(as_request).collect();
        match self.databases.commit(session, operations, claim_mode).await {
            Some(done) => {
                self.past.extend(taken);
                let excess = self.past.len().saturating_sub(MAX_PAST_CLAIMS);
                self.past.drain(..excess);
                self.runs.extend(started.into_iter().map(|run| (run.key, run)));
                self.record(done, requests, swept);
            }
            None => {
                *self.answer_counts.entry("refused whole").or_default() += 1;
                self.held.extend(taken);
            }
        }
    }

    fn record(
        &mut self,
        done: Committed,
        sweep_requests: Vec<(usize, RunKey)>,
        swept: Vec<(usize, RunKey, i64, String)>,
    ) {
        self.held.extend(done.claimed.into_iter().map(|claimed| claimed.state));
        for run in &done.run_updates {
            self.live.retain(|known| *known != run.run);
            if run.status == RunStatus::Running {
                self.live.push(run.run);
            }
        }
        for (at, run) in sweep_requests {
            if let Reply::ToSweep(event) = done.replies[at] {
                self.sweeps.push((run, event, String::new()));
            }
        }
        for (at, run, event, from) in swept {
            match &done.replies[at] {
                Reply::More(next) => self.sweeps.push((run, event, next.clone())),
                // A host may repeat a sweep whose answer it did not get.
                _ if self.rng.percent(20) => self.sweeps.push((run, event, from)),
                _ => {}
            }
        }
        for answer in &done.replies {
            *self.answer_counts.entry(reply_name(answer)).or_default() += 1;
        }
    }

    /// Adds a random operation.
    async fn add(&mut self, pending: &mut PendingBatch) {
        if self.live.len() < RUNS && self.rng.percent(12) || self.runs.is_empty() {
            let new = self.start().await;
            pending.started.push(new.info.clone());
            pending.operations.push(Operation::Start(new.into()));
            return;
        }
        let run = self.pick_run();
        match self.rng.below(100) {
            // An execution ends.
            0..75 => {
                let Some(state) = self.rng.take(&mut self.held) else { return };
                pending.operations.push(self.end(&state).await);
                pending.taken.push(state);
            }
            // The execution has ended before, or was taken from its host.
            75..80 => {
                let Some(state) = self.rng.pick(&self.past).cloned() else { return };
                pending.operations.push(self.end(&state).await);
            }
            80..84 => {
                let from = if self.rng.percent(80) { &self.held } else { &self.past };
                let Some(state) = self.rng.pick(from).cloned() else { return };
                let run = self.runs[&state.run].clone();
                pending.operations.push(Operation::Control(run, Control::Begin(Box::new(state))));
            }
            84 => {
                pending.operations.extend(run.map(|run| Operation::Control(run, Control::Cancel)))
            }
            85..88 => {
                let paused = self.rng.percent(50);
                pending.operations.extend(run.map(|run| pause(&run, paused)));
            }
            88..95 => self.sweep(pending),
            95..98 => pending.operations.extend(self.retry().await),
            _ => {
                let Some(run) = run else { return };
                pending.operations.push(self.redrive(run).await);
            }
        }
    }

    /// Returns a run, mostly a running one.
    fn pick_run(&mut self) -> Option<Arc<RunInfo>> {
        let live = self.rng.percent(80);
        let known = self.rng.pick(&self.live).filter(|_| live).copied();
        let any = self.rng.below(self.runs.len().max(1));
        let run = known.or_else(|| self.runs.keys().nth(any).copied());
        run.map(|run| self.runs[&run].clone())
    }

    async fn start(&mut self) -> NewRun {
        let rng = &mut self.rng;
        let template = rng.pick(&self.templates).unwrap().clone();
        let key = self.databases.run_key().await;
        let info = Arc::new(RunInfo {
            key,
            id: RunId(uuid::Uuid::from_u128(key.0 as u128)),
            namespace: template.namespace,
            namespace_key: template.namespace_key,
            graph_name: template.name,
            revision: 1,
            revision_id: template.revision,
            graph: template.graph.clone(),
            inputs: format!("{{\"at\": {}}}", key.0).into(),
            labels: Default::default(),
        });
        let ids = ConsecutiveIds(Cell::new(self.databases.numbers(1).await.0));
        let (root, counts) = root_state(&template.graph, &ids);
        let mut store = BTreeMap::new();
        for key in ["a", "n", "\u{1}0"] {
            if rng.percent(40) {
                store.insert(key.to_owned(), rng.below(1000).to_string());
            }
        }
        let key = rng.percent(50).then(|| format!("key {}", rng.below(40)));
        let delay = [0, 0, 0, QUARTER_HOUR_MS, 5 * QUARTER_HOUR_MS][rng.below(5)];
        let (revision, limits) = (template.revision, limits());
        NewRun {
            info,
            revision,
            is_pinned: false,
            deadlines: Deadlines::default(),
            store,
            root,
            counts,
            key,
            digest: None,
            started_by: None,
            delay,
            limits,
        }
    }

    async fn end(&mut self, state: &Claimed) -> Operation {
        let is_root = state.place.path.as_str().is_empty();
        let outcome = outcomes::outcome(&mut self.rng, is_root);
        let mut journal = Journal::default();
        if self.rng.percent(35) {
            let entries = self.databases.entries(state.run).await;
            journal = outcomes::journal(&mut self.rng, &entries);
        }
        self.finish_with(state, outcome, journal).await
    }

    async fn finish_with(
        &mut self,
        state: &Claimed,
        outcome: Outcome,
        journal: Journal,
    ) -> Operation {
        let run = self.runs[&state.run].clone();
        let needed = ids_needed(&run.graph, state, &outcome);
        let ids = ConsecutiveIds(Cell::new(self.databases.numbers(needed).await.0));
        let jitter = if self.rng.percent(50) { 0.5 } else { 0.0 };
        let changes = plan(&run.graph, state, outcome, jitter, &ids).unwrap();
        let (logs, usage) = (outcomes::logs(&mut self.rng), outcomes::usage(&mut self.rng));
        let state = state.clone();
        Operation::Finish(Box::new(Finished {
            run,
            state,
            changes,
            journal,
            logs,
            usage,
            began_at: None,
            jitter,
            limits: limits(),
            staged: None,
        }))
    }

    fn sweep(&mut self, pending: &mut PendingBatch) {
        let Some((run, event, from)) = self.rng.take(&mut self.sweeps) else { return };
        let max = 1 + self.rng.below(12) as u32;
        let operation = sweep(&self.runs[&run], event, &from, max);
        pending.swept.push((pending.operations.len(), run, event, from));
        pending.operations.push(operation);
    }

    /// Retries a failed state, or any other.
    async fn retry(&mut self) -> Option<Operation> {
        let errored = self.databases.errored().await;
        let (run, state) = if self.rng.percent(85) {
            *self.rng.pick(&errored)?
        } else {
            self.rng.pick(&self.past).map(|state| (state.run, state.id))?
        };
        Some(Operation::Control(self.runs[&run].clone(), Control::Retry(state)))
    }

    /// Redrives a run as a whole or in parts.
    async fn redrive(&mut self, run: Arc<RunInfo>) -> Operation {
        let errored = self.databases.errored().await.into_iter();
        let mut states: Vec<_> =
            errored.filter(|(of, _)| *of == run.key).map(|(_, state)| state).collect();
        states.truncate(1 + self.rng.below(5));
        let redrive_event =
            self.redrives.iter().find(|(of, _)| *of == run.key).map(|(_, event)| *event);
        let part = match (self.rng.below(4), redrive_event) {
            (0, Some(event)) => RedrivePart::End { event },
            (_, Some(event)) => RedrivePart::Some { event, states },
            (0 | 1, None) => RedrivePart::Begin,
            (_, None) => RedrivePart::Whole(states),
        };
        Operation::Control(run, Control::Redrive(part))
    }

    /// Reclaims the states of a lost session, whose host may still commit.
    async fn reclaim(&mut self) {
        let lost_sessions = self.databases.lost_sessions().await;
        let Some(session) = self.rng.pick(&lost_sessions).copied() else { return };
        let max = 1 + self.rng.below(10) as u32;
        let mut pending = PendingBatch::default();
        for held in self.databases.held_by(session, StateId(0), max).await {
            let outcome = outcome_of_lost_claim(held.state.attempts, held.has_begun);
            pending
                .operations
                .push(self.finish_with(&held.state, outcome, Journal::default()).await);
        }
        self.commit(pending).await;
    }

    /// Finds pending sweeps, as a starting host does.
    async fn find_unswept(&mut self) {
        let known: BTreeSet<_> = self.sweeps.iter().map(|(run, ..)| *run).collect();
        let sweep_event = self.databases.pending_sweeps().await;
        let redrives = sweep_event.iter().filter(|it| it.redrive > 0);
        self.redrives = redrives.map(|it| (it.run, it.redrive)).collect();
        let left = sweep_event.into_iter().filter(|it| it.event > 0 && !known.contains(&it.run));
        self.sweeps.extend(left.map(|it| (it.run, it.event, String::new())));
    }

    /// Commits a batch with an invalid operation in it.
    async fn commit_invalid_batch(&mut self) {
        let Some(taken) = self.rng.pick(&self.held).map(|state| state.id) else { return };
        let mut pending = PendingBatch::default();
        for _ in 0..1 + self.rng.below(4) {
            self.add(&mut pending).await;
        }
        let mut invalid_start = self.start().await;
        (invalid_start.root.id, invalid_start.key) = (taken, None);
        pending.operations.push(Operation::Start(invalid_start.into()));
        self.commit(pending).await;
    }
}

fn reply_name(answer: &Reply) -> &'static str {
    match answer {
        Reply::Done => "done",
        Reply::ToSweep(_) => "to sweep",
        Reply::More(_) => "more",
        Reply::Redriven { .. } => "redriven",
        Reply::Existing(_) => "known",
        Reply::Outdated => "outdated",
        Reply::Stale => "stale",
        Reply::Leftover(_) => "leftover",
        Reply::Refused(_) => "refused",
        Reply::Missing => "missing",
    }
}
