//! A history: random calls of hosts and users, in any order, many of them too late.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exosphere_domain::ids::{Ids, RunId, RunKey, SessionId, StateId};
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::plan::{numbers_needed, outcome_of_lost_claim, plan, root_state};
use exosphere_domain::state::{Claimed, RunStatus};
use exosphere_store::{Answer, Committed, Finished, Member, NewRun, RedrivePart, RunInfo, Want};

use super::fates::{self, Dice, QUARTER};
use super::pair::Pair;
use crate::bed::{Template, pause, sweep};

/// Returns the limits of a run's store: small, so that they are reached often.
fn limits() -> Arc<Limits> {
    let limits = Limits::default().with(Limit::StoreKeys, 6);
    Arc::new(limits.with(Limit::StoreBytes, 200))
}

/// Minimum of open runs, below which further ones are started.
const RUNS: usize = 12;

/// Maximum of ended executions that are remembered, to be committed again.
const REMEMBERED: usize = 50;

pub struct History {
    pub pair: Pair,
    /// Operations so far.
    pub operations: usize,
    dice: Dice,
    templates: Vec<Template>,
    runs: BTreeMap<RunKey, Arc<RunInfo>>,
    /// Runs that are not known to be over.
    live: Vec<RunKey>,
    sessions: Vec<SessionId>,
    held: Vec<Claimed>,
    past: Vec<Claimed>,
    sweeps: Vec<(RunKey, i64, String)>,
    /// Redrives in parts that were open at the last look.
    redrives: Vec<(RunKey, i64)>,
    told: BTreeMap<&'static str, usize>,
}

/// Consecutive numbers from one on.
struct From(Cell<i64>);

impl Ids for From {
    fn next(&self) -> StateId {
        StateId(self.0.replace(self.0.get() + 1))
    }
}

/// A batch in preparation, with the claims, runs and sweeps that it took from the history.
#[derive(Default)]
struct Making {
    members: Vec<Member>,
    taken: Vec<Claimed>,
    started: Vec<Arc<RunInfo>>,
    swept: Vec<(usize, RunKey, i64, String)>,
}

impl History {
    pub async fn begin(pair: Pair, seed: u64) -> History {
        let mut templates = Vec::new();
        for (at, sketch) in fates::sketches().iter().enumerate() {
            let namespace = if at % 3 == 0 { "m" } else { "n" };
            templates.push(pair.template(namespace, &format!("g{at}"), sketch).await);
        }
        let sessions = vec![pair.begin_session().await];
        History {
            pair,
            operations: 0,
            dice: Dice(seed),
            templates,
            runs: BTreeMap::new(),
            live: Vec::new(),
            sessions,
            held: Vec::new(),
            past: Vec::new(),
            sweeps: Vec::new(),
            redrives: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Returns how often each answer was given.
    pub fn told(&self) -> String {
        format!("{} members, {} runs: {:?}", self.operations, self.runs.len(), self.told)
    }

    /// Commits one transaction, and now and then does something beside it.
    pub async fn step(&mut self) {
        match self.dice.below(60) {
            0 => self.sessions.push(self.pair.begin_session().await),
            1 => {
                let session = *self.dice.pick(&self.sessions).unwrap();
                self.pair.end_session(session).await;
            }
            2 | 3 => {
                let quarters = 1 + self.dice.below(6) as i64;
                self.pair.pass(quarters * QUARTER).await;
            }
            4 => self.take_back().await,
            5 => {
                let run = self.some_run();
                if let Some(run) = run {
                    self.pair.read_alike(&run).await;
                }
            }
            6 => self.find_unswept().await,
            7 => self.whole_or_nothing().await,
            _ => {}
        }
        let mut making = Making::default();
        for _ in 0..1 + self.dice.below(8) {
            self.add(&mut making).await;
        }
        self.commit(making).await;
    }

    async fn commit(&mut self, making: Making) {
        let want = match self.dice.below(4) {
            0 => Want::Births(0),
            1 => Want::Births(self.dice.below(8) as u32),
            _ => Want::Claims(self.dice.below(8) as u32),
        };
        let recent = self.sessions.len().saturating_sub(3);
        let session = *self.dice.pick(&self.sessions[recent..]).unwrap();
        self.operations += making.members.len().max(1);
        let Making { members, taken, started, swept } = making;
        let of_people = |(at, member): (usize, &Member)| match member {
            Member::Cancel(run)
            | Member::Pause { run, .. }
            | Member::Redrive { run, part: RedrivePart::End { .. } } => Some((at, run.key)),
            _ => None,
        };
        let asked: Vec<_> = members.iter().enumerate().filter_map(of_people).collect();
        match self.pair.commit(session, members, want).await {
            Some(done) => {
                self.past.extend(taken);
                let late = self.past.len().saturating_sub(REMEMBERED);
                self.past.drain(..late);
                self.runs.extend(started.into_iter().map(|run| (run.key, run)));
                self.note(done, asked, swept);
            }
            None => {
                *self.told.entry("refused whole").or_default() += 1;
                self.held.extend(taken);
            }
        }
    }

    fn note(
        &mut self,
        done: Committed,
        asked: Vec<(usize, RunKey)>,
        swept: Vec<(usize, RunKey, i64, String)>,
    ) {
        self.held.extend(done.leased.into_iter().map(|leased| leased.state));
        for run in &done.touched {
            self.live.retain(|known| *known != run.run);
            if run.status == RunStatus::Running {
                self.live.push(run.run);
            }
        }
        for (at, run) in asked {
            if let Answer::ToSweep(event) = done.answers[at] {
                self.sweeps.push((run, event, String::new()));
            }
        }
        for (at, run, event, from) in swept {
            match &done.answers[at] {
                Answer::More(next) => self.sweeps.push((run, event, next.clone())),
                // A host that gets no answer asks again, once in a while.
                _ if self.dice.percent(20) => self.sweeps.push((run, event, from)),
                _ => {}
            }
        }
        for answer in &done.answers {
            *self.told.entry(word(answer)).or_default() += 1;
        }
    }

    /// Adds a random operation.
    async fn add(&mut self, making: &mut Making) {
        if self.live.len() < RUNS && self.dice.percent(12) || self.runs.is_empty() {
            let new = self.start().await;
            making.started.push(new.info.clone());
            making.members.push(Member::Start(new.into()));
            return;
        }
        let run = self.some_run();
        match self.dice.below(100) {
            // An execution ends.
            0..75 => {
                let Some(state) = self.dice.take(&mut self.held) else { return };
                making.members.push(self.end(&state).await);
                making.taken.push(state);
            }
            // The execution has ended before, or was taken from its host.
            75..80 => {
                let Some(state) = self.dice.pick(&self.past).cloned() else { return };
                making.members.push(self.end(&state).await);
            }
            80..84 => {
                let from = if self.dice.percent(80) { &self.held } else { &self.past };
                let Some(state) = self.dice.pick(from).cloned() else { return };
                let run = self.runs[&state.run].clone();
                making.members.push(Member::Begin { run, state: Box::new(state) });
            }
            84 => making.members.extend(run.map(Member::Cancel)),
            85..88 => {
                let paused = self.dice.percent(50);
                making.members.extend(run.map(|run| pause(&run, paused)));
            }
            88..95 => self.sweep(making),
            95..98 => making.members.extend(self.retry().await),
            _ => {
                let Some(run) = run else { return };
                making.members.push(self.redrive(run).await);
            }
        }
    }

    /// Returns a run, mostly one that is not over.
    fn some_run(&mut self) -> Option<Arc<RunInfo>> {
        let live = self.dice.percent(80);
        let known = self.dice.pick(&self.live).filter(|_| live).copied();
        let any = self.dice.below(self.runs.len().max(1));
        let run = known.or_else(|| self.runs.keys().nth(any).copied());
        run.map(|run| self.runs[&run].clone())
    }

    async fn start(&mut self) -> NewRun {
        let dice = &mut self.dice;
        let template = dice.pick(&self.templates).unwrap().clone();
        let key = self.pair.run_key().await;
        let info = Arc::new(RunInfo {
            key,
            id: RunId(uuid::Uuid::from_u128(key.0 as u128)),
            namespace: template.namespace,
            namespace_key: template.namespace_key,
            graph_name: template.name,
            revision: 1,
            graph: template.graph.clone(),
            inputs: format!("{{\"at\": {}}}", key.0).into(),
        });
        let ids = From(Cell::new(self.pair.numbers(1).await.0));
        let (root, counts) = root_state(&template.graph, &ids);
        let mut store = BTreeMap::new();
        for key in ["a", "n", "\u{1}0"] {
            if dice.percent(40) {
                store.insert(key.to_owned(), dice.below(1000).to_string());
            }
        }
        let key = dice.percent(50).then(|| format!("key {}", dice.below(40)));
        let delay = [0, 0, 0, QUARTER, 5 * QUARTER][dice.below(5)];
        let (revision, limits) = (template.revision, limits());
        NewRun { info, revision, store, root, counts, key, digest: None, delay, limits }
    }

    async fn end(&mut self, state: &Claimed) -> Member {
        let is_root = state.place.path.as_str().is_empty();
        let outcome = fates::outcome(&mut self.dice, is_root);
        let mut journal = Journal::default();
        if self.dice.percent(35) {
            let entries = self.pair.entries(state.run).await;
            journal = fates::journal(&mut self.dice, &entries);
        }
        self.ends_so(state, outcome, journal).await
    }

    async fn ends_so(&mut self, state: &Claimed, outcome: Outcome, journal: Journal) -> Member {
        let run = self.runs[&state.run].clone();
        let needed = numbers_needed(&run.graph, state, &outcome);
        let ids = From(Cell::new(self.pair.numbers(needed).await.0));
        let jitter = if self.dice.percent(50) { 0.5 } else { 0.0 };
        let changes = plan(&run.graph, state, outcome, jitter, &ids).unwrap();
        let (logs, usage) = (fates::logs(&mut self.dice), fates::usage(&mut self.dice));
        let state = state.clone();
        Member::Finish(Box::new(Finished {
            run,
            state,
            changes,
            journal,
            logs,
            usage,
            jitter,
            limits: limits(),
            staged: None,
        }))
    }

    fn sweep(&mut self, making: &mut Making) {
        let Some((run, event, from)) = self.dice.take(&mut self.sweeps) else { return };
        let most = 1 + self.dice.below(12) as u32;
        let member = sweep(&self.runs[&run], event, &from, most);
        making.swept.push((making.members.len(), run, event, from));
        making.members.push(member);
    }

    /// Retries a state that failed, or one that did not.
    async fn retry(&mut self) -> Option<Member> {
        let errored = self.pair.errored().await;
        let (run, state) = match self.dice.percent(85) {
            true => *self.dice.pick(&errored)?,
            false => self.dice.pick(&self.past).map(|state| (state.run, state.id))?,
        };
        Some(Member::Retry { run: self.runs[&run].clone(), state })
    }

    /// Redrives a run, whole or in parts, with failed states and others.
    async fn redrive(&mut self, run: Arc<RunInfo>) -> Member {
        let errored = self.pair.errored().await.into_iter();
        let mut states: Vec<_> =
            errored.filter(|(of, _)| *of == run.key).map(|(_, state)| state).collect();
        states.truncate(1 + self.dice.below(5));
        let begun = self.redrives.iter().find(|(of, _)| *of == run.key).map(|(_, event)| *event);
        let part = match (self.dice.below(4), begun) {
            (0, Some(event)) => RedrivePart::End { event },
            (_, Some(event)) => RedrivePart::Some { event, states },
            (0 | 1, None) => RedrivePart::Begin,
            (_, None) => RedrivePart::Whole(states),
        };
        Member::Redrive { run, part }
    }

    /// Finds the claims of lost sessions. Their hosts may come back all the same.
    async fn take_back(&mut self) {
        let lost_sessions = self.pair.lost_sessions().await;
        let Some(session) = self.dice.pick(&lost_sessions).copied() else { return };
        let most = 1 + self.dice.below(10) as u32;
        let mut making = Making::default();
        for held in self.pair.held_by(session, StateId(0), most).await {
            let outcome = outcome_of_lost_claim(held.state.tries, held.noted);
            making.members.push(self.ends_so(&held.state, outcome, Journal::default()).await);
        }
        self.commit(making).await;
    }

    /// Looks for sweeps that were left, as a host does at its start.
    async fn find_unswept(&mut self) {
        let known: BTreeSet<_> = self.sweeps.iter().map(|(run, ..)| *run).collect();
        let unswept = self.pair.unswept().await;
        let redrives = unswept.iter().filter(|it| it.redrive > 0);
        self.redrives = redrives.map(|it| (it.run, it.redrive)).collect();
        let left = unswept.into_iter().filter(|it| it.event > 0 && !known.contains(&it.run));
        self.sweeps.extend(left.map(|it| (it.run, it.event, String::new())));
    }

    /// Commits a batch with an invalid operation in it.
    async fn whole_or_nothing(&mut self) {
        let Some(taken) = self.dice.pick(&self.held).map(|state| state.id) else { return };
        let mut making = Making::default();
        for _ in 0..1 + self.dice.below(4) {
            self.add(&mut making).await;
        }
        let mut bad = self.start().await;
        (bad.root.id, bad.key) = (taken, None);
        making.members.push(Member::Start(bad.into()));
        self.commit(making).await;
    }
}

fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Done => "done",
        Answer::ToSweep(_) => "to sweep",
        Answer::More(_) => "more",
        Answer::Redriven { .. } => "redriven",
        Answer::Known(_) => "known",
        Answer::Outdated => "outdated",
        Answer::Stale => "stale",
        Answer::Leftover(_) => "leftover",
        Answer::Refused(_) => "refused",
        Answer::Missing => "missing",
    }
}
