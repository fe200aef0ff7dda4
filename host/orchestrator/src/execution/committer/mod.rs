//! The committer: collects waiting operations into one transaction and passes its effects
//! on (`dispatcher`). It collects the next batch while the last one is synced, and knows
//! when the next state is due; nothing here polls.
//!
//! It has its own thread, so that it waits neither for executions and requests nor, on
//! SQLite, for another thread to write.
//!
//! Not here: the commit queue (`committer/queue.rs`), and its order
//! (`committer/lanes.rs`).

mod budget;
mod lanes;
mod queue;
mod weight;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::{Millis, NamespaceKey, RunKey};
use exosphere_domain::plan::give_up;
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    Answer, Batch, Committed, Finished, Leased, Member, RunShare, Shares, StoreError, Touched, Want,
};
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use budget::Charge;
pub(crate) use queue::BATCH_BYTES;
use queue::{Queue, Taken, Waiting};
pub(crate) use weight::{ROW_BYTES, end as weight_of_end};

use crate::error::internal;
use crate::execution::claims::{ClaimPermit, ClaimTable, HeldStates};
use crate::execution::dispatcher::{self, CommitEffects, DispatchMessage};
use crate::service::request::Reply;
use crate::{HELD_PER_SLOT, Parts};

/// The shortest and the longest backoff while the database is unavailable.
pub(crate) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(2));

/// Conflicts in a row up to which a transaction is retried at once. After more, the
/// database counts as unavailable.
const CONTENTIONS: u32 = 20;

/// A handle that submits operations to the commit loop.
pub(crate) struct Committer {
    queue: Arc<Queue>,
    room: Arc<ClaimTable>,
    stopping: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
}

/// A hint from outside the commit loop that states may be due.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkHint {
    /// The current time, by the clock of the database if that is shared.
    pub now: Option<Millis>,
    /// The time at which a state is due, by that clock.
    pub due: Option<Millis>,
    /// Set if a state may be due already.
    pub work: bool,
}

/// The parts of the commit loop, before it starts.
pub(crate) struct CommitLoopSeed {
    queue: Arc<Queue>,
    room: Arc<ClaimTable>,
    stopping: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Committer {
    /// Creates a committer for a host that claims up to `capacity` states.
    pub(crate) fn new(capacity: u32) -> (Self, CommitLoopSeed) {
        let queue = Arc::new(Queue::new());
        let room = Arc::new(ClaimTable::new(capacity));
        let stopping = Arc::new(AtomicBool::new(false));
        let trouble = Arc::new(Mutex::new(None));
        let work = CommitLoopSeed {
            queue: queue.clone(),
            room: room.clone(),
            stopping: stopping.clone(),
            trouble: trouble.clone(),
        };
        (Committer { queue, room, stopping, trouble }, work)
    }

    /// Commits an operation and returns the answer.
    pub(crate) async fn submit(&self, member: Member) -> Result<Answer, StoreError> {
        self.enqueue(member).await
    }

    /// Queues an operation at once; the returned future waits for the answer. Operations
    /// of one run in one lane are committed in the order of these calls.
    pub(crate) fn enqueue(
        &self,
        member: Member,
    ) -> impl Future<Output = Result<Answer, StoreError>> + use<> {
        let stopped = || StoreError::Unavailable("the host is stopping".into());
        let (reply, answer) = oneshot::channel();
        // A closed queue drops the reply.
        let _ = self.queue.push(member, Some(Reply::internal(reply)));
        async move { answer.await.map_err(|_| stopped())? }
    }

    /// Queues an operation with a reply. Returns `false` if the host is stopping.
    pub(crate) fn hand_over(&self, member: Member, reply: Reply) -> bool {
        self.queue.push(member, Some(reply)).is_ok()
    }

    /// Commits the end of an execution, once its bytes fit into the budget of its
    /// namespace. Until then the execution keeps its slot. The claim permit ends with the
    /// commit.
    pub(crate) async fn finish(&self, finished: Finished, lease: ClaimPermit) {
        let member = Member::Finish(Box::new(finished));
        // If the committer has ended, so has the host, and the next host reclaims the
        // state.
        let _ = self.queue.push_end(member, lease, None).await;
    }

    /// Commits the end of an execution like [`Committer::finish`], and returns the
    /// answer.
    pub(crate) async fn finish_and_tell(
        &self,
        finished: Finished,
        lease: ClaimPermit,
    ) -> Result<Answer, StoreError> {
        let stopped = || StoreError::Unavailable("the host is stopping".into());
        let member = Member::Finish(Box::new(finished));
        let (reply, answer) = oneshot::channel();
        self.queue
            .push_end(member, lease, Some(Reply::internal(reply)))
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Drops waiting results of runs that were cancelled, here or on another host.
    pub(crate) fn heed(&self, runs: &[Touched]) {
        drop_cancelled(&self.queue, runs);
    }

    /// Passes a work hint to the commit loop.
    pub(crate) fn look(&self, look: WorkHint) {
        self.queue.look(look);
    }

    /// Notes that the database may hold a claim that this host has lost track of.
    pub(crate) fn lose(&self) {
        self.room.set_astray();
    }

    /// Stops claiming, and waits until no claimed state is left.
    pub(crate) async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let (done, drained) = oneshot::channel();
        self.queue.drain(done);
        let _ = drained.await;
    }

    /// Makes the committer panic.
    #[cfg(test)]
    pub(crate) fn break_down(&self) {
        self.queue.break_down();
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn holding(&self) -> u32 {
        self.room.taken()
    }

    /// Returns the number of claimed states by namespace and run.
    pub(crate) fn held(&self) -> HeldStates {
        self.room.numbers()
    }

    /// Returns `true` once the host has begun to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl CommitLoopSeed {
    /// Starts the commit loop on its own thread, which ends with the drain.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub(crate) fn start(self, parts: Arc<Parts>) -> std::io::Result<()> {
        let times = (Instant::now(), parts.clock.now());
        let commit_loop = CommitLoop {
            results: dispatcher::start(parts.clone()),
            host: Handle::current(),
            parts,
            work: self,
            more: true,
            next_due: None,
            times,
            full: BTreeSet::new(),
            full_runs: BTreeSet::new(),
            turn: 0,
            cursors: BTreeMap::new(),
            gone_through: true,
        };
        let guard = commit_loop.parts.lifeline.guard("the committer");
        // The thread has its own runtime, so that an answer of Postgres need not wait for
        // a worker that executes.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("committer".into());
        let work = move || {
            if runtime.block_on(commit_loop.run()) {
                guard.end();
            }
        };
        thread.spawn(work).map(drop)
    }
}

/// Drops waiting results of runs that are cancelled now.
fn drop_cancelled(queue: &Queue, runs: &[Touched]) {
    let cancelled = |run: &&Touched| run.turned && run.status == RunStatus::Cancelled;
    runs.iter().filter(cancelled).for_each(|touched| queue.cancel(touched.run));
}

/// Closes the queue, so that waiting callers learn that no commit follows.
impl Drop for CommitLoop {
    fn drop(&mut self) {
        self.work.queue.close();
    }
}

/// The commit loop, with the state of its pacing.
struct CommitLoop {
    parts: Arc<Parts>,
    work: CommitLoopSeed,
    /// The channel to the dispatcher.
    results: mpsc::UnboundedSender<DispatchMessage>,
    /// The runtime for work other than commits. A connection belongs to the runtime that
    /// made it, and the committer's runtime ends before the host.
    host: Handle,
    /// Set if more due states may be left to claim.
    more: bool,
    /// The time at which the next state is due, by the clock of [`WorkHint::now`].
    next_due: Option<Millis>,
    /// The last known time by that clock, with the instant at which it was read.
    times: (Instant, Millis),
    /// Namespaces that have more due states than their quota here allows now.
    full: BTreeSet<NamespaceKey>,
    /// Runs that have more due states than their quota here allows now.
    full_runs: BTreeSet<(NamespaceKey, RunKey)>,
    /// The number of commits, from which each claim takes the namespace that it serves
    /// first.
    turn: usize,
    /// Round-robin cursors: where the next claim continues among the runs of each
    /// namespace.
    cursors: BTreeMap<NamespaceKey, RunKey>,
    /// Set if the last transaction is known to have succeeded.
    gone_through: bool,
}

/// The operations of one commit, with their replies, claim permits and charges.
#[derive(Default)]
struct Gathered {
    members: Vec<Member>,
    replies: Vec<Option<Reply>>,
    leases: Vec<ClaimPermit>,
    /// The charges of these operations, held until they are committed.
    charges: Vec<Charge>,
}

impl From<Vec<Waiting>> for Gathered {
    fn from(taken: Vec<Waiting>) -> Self {
        let mut gathered = Gathered::default();
        for Waiting { member, lease, reply, charge } in taken {
            gathered.members.push(member);
            gathered.replies.push(reply);
            gathered.leases.extend(lease);
            gathered.charges.extend(charge);
        }
        gathered
    }
}

impl CommitLoop {
    /// Commits until the host is drained. Returns `false` if the loop cannot continue
    /// before that.
    async fn run(mut self) -> bool {
        let mut draining: Option<oneshot::Sender<()>> = None;
        loop {
            self.wait().await;
            let Taken { mut members, looks, drain } = self.work.queue.take();
            members.retain(|waiting| !waiting.is_withdrawn());
            draining = drain.or(draining);
            looks.into_iter().for_each(|look| self.look(look));
            let gathered = Gathered::from(members);
            if !self.commit(gathered).await {
                // A host that delivers no effects cannot work, and must stop claiming.
                tracing::error!(
                    "what commits come to is not handed on; the host has to be restarted"
                );
                return false;
            }
            if self.work.room.take_astray() {
                self.give_back_unknown().await;
            }
            if self.work.room.taken() == 0
                && self.work.queue.is_empty()
                && let Some(done) = draining.take()
            {
                self.parts.store.end_commits().await;
                let _ = self.results.send(DispatchMessage::Drained(done));
                return true;
            }
        }
    }

    fn stopping(&self) -> bool {
        self.work.stopping.load(Ordering::Relaxed)
    }

    /// Returns the current time, by the clock of [`WorkHint::now`].
    fn now(&self) -> Millis {
        let since = Millis::try_from(self.times.0.elapsed().as_millis()).unwrap_or(Millis::MAX);
        self.times.1.saturating_add(since)
    }

    fn look(&mut self, look: WorkHint) {
        if let Some(now) = look.now {
            self.times = (Instant::now(), now);
        }
        self.more |= look.work;
        self.next_due = [self.next_due, look.due].into_iter().flatten().min();
    }

    /// Waits for work: an operation, a due state, or a claim permit to claim it with.
    async fn wait(&mut self) {
        let room = self.free() > 0;
        let may_claim = room && !self.stopping();
        let at_once = ((self.more || self.has_room_again()) && may_claim)
            || self.work.room.is_astray()
            || !self.work.queue.is_empty();
        if at_once {
            return;
        }
        let left = self.next_due.filter(|_| may_claim).map(|due| due.saturating_sub(self.now()));
        let due = async {
            match left {
                Some(left) => {
                    let left = Duration::from_millis(left.max(0).unsigned_abs());
                    tokio::time::sleep(left).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.work.queue.arrived() => {}
            // Free claim permits matter to a loop that wants to claim or that drains.
            () = self.work.room.changed(), if !room || self.stopping() || !self.more => {}
            () = due => {}
        }
    }

    /// Returns how many more states may be claimed, by the prefetch target and the claim
    /// table.
    fn free(&self) -> u32 {
        let room = &self.work.room;
        self.parts.prefetch.total_now().saturating_sub(room.taken()).min(room.free())
    }

    /// Computes the remaining quota of each namespace and run, as if `freed` were
    /// released.
    fn shares(&self, freed: &[ClaimPermit]) -> Shares {
        let parts = &self.parts;
        let held = |slots: u32| slots.saturating_mul(HELD_PER_SLOT);
        let own = parts.tenants.all_slots();
        let most = held(parts.slots_of(None));
        let mut shares = Shares {
            most,
            left: own
                .into_iter()
                .map(|(key, own)| (key, held(parts.slots_of(Some(own)))))
                .collect(),
            runs: HashMap::new(),
        };
        let targets = parts.targets().namespaces;
        shares.left.extend(targets.iter().map(|(namespace, target)| (*namespace, target.held)));
        let mut numbers = self.work.room.numbers();
        freed.iter().for_each(|lease| numbers.remove(lease));
        for (namespace, of_it) in numbers.namespaces {
            let left = shares.left.entry(namespace).or_insert(most);
            *left = left.saturating_sub(of_it.total);
            let target = targets.get(&namespace);
            for (run, held) in of_it.runs {
                let most = target.map_or(u32::MAX, |target| target.of(run));
                shares.runs.insert(run, RunShare { held, left: most.saturating_sub(held) });
            }
        }
        shares
    }

    /// Returns `true` if a namespace or run that had used up its quota has room again.
    fn has_room_again(&self) -> bool {
        if self.full.is_empty() && self.full_runs.is_empty() {
            return false;
        }
        self.has_room_by(&self.shares(&[]))
    }

    fn has_room_by(&self, shares: &Shares) -> bool {
        let has_room = |namespace: &NamespaceKey| shares.room(*namespace) > 0;
        self.full.iter().any(has_room)
            || self
                .full_runs
                .iter()
                .any(|(namespace, run)| has_room(namespace) && shares.run_room(*run) > 0)
    }

    /// Commits a batch and passes its effects to the dispatcher. Returns `false` if the
    /// dispatcher has ended.
    async fn commit(&mut self, gathered: Gathered) -> bool {
        let Gathered { members, replies, leases, charges } = gathered;
        let members: Arc<[Member]> = members.into();
        let shares = self.shares(&leases);
        self.turn = self.turn.wrapping_add(1);
        let want = self.want(leases.len(), &shares);
        if members.is_empty() && !matches!(want, Want::Claims(1..)) {
            return true;
        }
        let begun = Instant::now();
        let Outcome { answers, mut done } =
            self.commit_range((&members, &replies), 0..members.len(), want, &shares).await;
        tracing::trace!(members = members.len(), took = ?begun.elapsed(), "committed");
        // Claim permits are released before new ones are acquired; only this loop
        // acquires them.
        drop((leases, members, charges));
        self.note(&done, want);
        drop_cancelled(&self.work.queue, &done.touched);
        let leased = std::mem::take(&mut done.leased);
        let leased = leased.into_iter().filter_map(|state| self.take(state)).collect();
        let answers = replies.into_iter().zip(answers);
        let answers = answers.filter_map(|(reply, answer)| Some((reply?, answer))).collect();
        let result = Box::new(CommitEffects { done, answers, leased });
        self.results.send(DispatchMessage::Committed(result)).is_ok()
    }

    /// Acquires a claim permit for a state. If none is free, which would be an internal
    /// error, the state is given back.
    fn take(&self, state: Leased) -> Option<(Leased, ClaimPermit)> {
        let lease = self.work.room.take(&state);
        if lease.is_none() {
            self.work.room.set_astray();
        }
        Some((state, lease?))
    }

    /// Decides which states this commit may claim. While more may be due, it claims due
    /// states, so that other runs get their turn; otherwise it claims those that it
    /// creates.
    fn want(&self, freed: usize, shares: &Shares) -> Want {
        let room = &self.work.room;
        let held = room.taken().saturating_sub(freed as u32);
        let target = self.parts.prefetch.total_now().saturating_sub(held);
        let free = target.min(room.free() + freed as u32);
        let due = self.next_due.is_some_and(|due| due <= self.now()) || self.has_room_by(shares);
        match self.stopping() {
            true => Want::Births(0),
            false if self.more || due => Want::Claims(free),
            false => Want::Births(free),
        }
    }

    fn note(&mut self, done: &Committed, want: Want) {
        if done.now > 0 {
            self.times = (Instant::now(), done.now);
        }
        match want {
            Want::Claims(1..) => {
                self.full.clone_from(&done.full);
                self.full_runs.clone_from(&done.full_runs);
                self.cursors.clone_from(&done.cursors);
                self.more = done.more;
                if !done.more {
                    self.next_due = done.next_due;
                    return;
                }
            }
            _ => {
                self.full.extend(&done.full);
                self.full_runs.extend(&done.full_runs);
                self.more |= done.more;
            }
        }
        self.next_due = [self.next_due, done.next_due].into_iter().flatten().min();
    }

    /// Gives back states that the database holds for this host without its knowledge. A
    /// commit that seemed to fail went through, and its claims were never delivered.
    async fn give_back_unknown(&mut self) {
        let (parts, room) = (self.parts.clone(), self.work.room.clone());
        let unknown = async move { crate::cluster::recovery::unknown(&parts, &room).await };
        let unknown = self.host.spawn(unknown).await.unwrap_or_else(|ended| {
            Err(StoreError::Unavailable(format!("the look for them ended early: {ended}")))
        });
        match unknown {
            Ok(members) if members.is_empty() => {}
            Ok(members) => {
                tracing::info!(states = members.len(), "gave back states that were held unknown");
                let members: Arc<[Member]> = members.into();
                let range = 0..members.len();
                let shares = self.shares(&[]);
                self.commit_range((&members, &[]), range, Want::Births(0), &shares).await;
                self.more = true;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for states that are held unknown yet");
                tokio::time::sleep(BACKOFF.0).await;
                self.work.room.set_astray();
            }
        }
    }

    /// Commits a range of operations. If the data of one makes the transaction fail,
    /// halves of the range are tried, so that the other operations succeed.
    async fn commit_range(
        &mut self,
        (members, replies): (&Arc<[Member]>, &[Option<Reply>]),
        range: Range<usize>,
        want: Want,
        shares: &Shares,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ranges = VecDeque::from([(range, want)]);
        while let Some((range, want)) = ranges.pop_front() {
            let tried = self.try_commit((members, replies), range.clone(), want, shares).await;
            let why = match tried {
                Ok(mut done) => {
                    outcome.answers.extend(done.answers.drain(..).map(Ok));
                    outcome.add(done);
                    continue;
                }
                Err(Halt::Withdrawn(at)) => {
                    // Makes the loop commit again, which shows whether the database is
                    // available.
                    outcome.done.more = true;
                    if range.len() == 1 {
                        outcome.answers.push(Err(StoreError::Unavailable("withdrawn".into())));
                        continue;
                    }
                    let rest = [range.start..at, at..at + 1, at + 1..range.end];
                    let rest = rest.into_iter().rev().filter(|range| !range.is_empty());
                    rest.for_each(|range| ranges.push_front((range, Want::Births(0))));
                    continue;
                }
                Err(Halt::Data(why)) => why,
            };
            // The halves claim nothing, so they do not report which states are due.
            outcome.done.more |= matches!(want, Want::Claims(1..));
            if range.len() > 1 {
                let middle = range.start + range.len() / 2;
                ranges.push_front((middle..range.end, Want::Births(0)));
                ranges.push_front((range.start..middle, Want::Births(0)));
                continue;
            }
            match &members[range] {
                [Member::Finish(finished)] => {
                    let done = self.fail_alone(finished, &why).await;
                    outcome.answers.push(Ok(Answer::Done));
                    outcome.add(done);
                }
                [_] => outcome.answers.push(Err(StoreError::Data(why))),
                _ => {
                    tracing::error!(why, "a claim failed");
                    tokio::time::sleep(BACKOFF.1).await;
                }
            }
        }
        outcome
    }

    /// Ends a state whose outcome cannot be committed, with an `internal` failure.
    async fn fail_alone(&mut self, finished: &Finished, why: &str) -> Committed {
        let failure = internal(&format!("the outcome of state {} {why}", finished.state.id));
        let changes = match give_up(&finished.run.graph, &finished.state, failure) {
            Ok(changes) => changes,
            Err(misfit) => {
                tracing::error!(%misfit, state = %finished.state.id, "a state cannot be ended");
                return Committed::default();
            }
        };
        let member = Member::Finish(Box::new(Finished {
            run: finished.run.clone(),
            state: finished.state.clone(),
            changes,
            journal: Default::default(),
            logs: None,
            usage: finished.usage,
            jitter: finished.jitter,
            limits: finished.limits.clone(),
            staged: None,
        }));
        let members: Arc<[Member]> = [member].into();
        let shares = self.shares(&[]);
        let tried = self.try_commit((&members, &[]), 0..1, Want::Births(0), &shares).await;
        tried.unwrap_or_else(|why| {
            tracing::error!(?why, state = %finished.state.id, "a state cannot be ended");
            Committed::default()
        })
    }

    fn trouble(&self, why: Option<String>) {
        *self.work.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Commits a batch. An empty batch may have nothing to write and so proves nothing of
    /// a full disk; after a failure, a test write goes first.
    async fn commit_or_prove(&self, batch: Batch) -> Result<Committed, StoreError> {
        let (store, session) = (&self.parts.store, batch.session);
        if batch.range.is_empty() && !self.gone_through && !store.is_shared() {
            store.prove_writable(session, batch.now).await?;
        }
        store.commit(batch).await
    }

    /// Runs one transaction, and repeats it for as long as the database is unavailable.
    /// Halts at bad data, and at an operation that was withdrawn meanwhile.
    async fn try_commit(
        &mut self,
        (members, replies): (&Arc<[Member]>, &[Option<Reply>]),
        range: Range<usize>,
        want: Want,
        shares: &Shares,
    ) -> Result<Committed, Halt> {
        let (mut pause, mut contentions) = (BACKOFF.0, 0);
        let of_range = || replies.get(range.clone()).unwrap_or_default().iter();
        loop {
            let withdrawn = |reply: &Option<Reply>| reply.as_ref().is_some_and(|it| !it.enter());
            if let Some(at) = of_range().position(withdrawn) {
                return Err(Halt::Withdrawn(range.start + at));
            }
            let batch = Batch {
                members: members.clone(),
                range: range.clone(),
                session: self.parts.session.current(),
                now: self.parts.clock.now(),
                want,
                shares: shares.clone(),
                turn: self.turn,
                cursors: self.cursors.clone(),
            };
            // A panic is an internal error, and counts as an error of the data that
            // caused it.
            let commit = AssertUnwindSafe(self.commit_or_prove(batch)).catch_unwind().await;
            let commit =
                commit.unwrap_or_else(|_| Err(StoreError::Data("made the host panic".into())));
            match &commit {
                Ok(_) => {}
                Err(StoreError::Unknown(_)) => of_range().flatten().for_each(Reply::doubt),
                Err(_) => of_range().flatten().for_each(Reply::leave),
            }
            let why = match commit {
                Ok(done) => {
                    self.trouble(None);
                    self.parts.probe.committed();
                    if !std::mem::replace(&mut self.gone_through, true) {
                        tracing::info!("the database is available again");
                        self.work.room.set_astray();
                        // Notifications of other hosts were missed meanwhile.
                        self.more = true;
                    }
                    return Ok(done);
                }
                Err(StoreError::Data(why)) => return Err(Halt::Data(why)),
                Err(StoreError::Contention(_)) if contentions < CONTENTIONS => {
                    contentions += 1;
                    continue;
                }
                Err(
                    StoreError::Contention(why)
                    | StoreError::Unavailable(why)
                    | StoreError::Unknown(why),
                ) => why,
            };
            tracing::error!(why, "the database is unavailable; trying again");
            self.gone_through = false;
            self.trouble(Some(why));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

/// The reason for which a transaction is not repeated.
#[derive(Debug)]
enum Halt {
    /// The data of one of the operations makes the transaction fail.
    Data(String),
    /// The operation at this index was withdrawn.
    Withdrawn(usize),
}

/// The combined result of one or several transactions.
#[derive(Default)]
struct Outcome {
    answers: Vec<Result<Answer, StoreError>>,
    done: Committed,
}

impl Outcome {
    fn add(&mut self, done: Committed) {
        self.done.now = self.done.now.max(done.now);
        self.done.leased.extend(done.leased);
        self.done.touched.extend(done.touched);
        self.done.ended.extend(done.ended);
        self.done.more |= done.more;
        self.done.full.extend(done.full);
        self.done.full_runs.extend(done.full_runs);
        self.done.added |= done.added;
        self.done.cursors.extend(done.cursors);
        self.done.next_due = [self.done.next_due, done.next_due].into_iter().flatten().min();
    }
}
