//! The one who commits: gathers what is waiting into one transaction, and
//! hands on what that claims. The next batch gathers while the last one is
//! synced. It also keeps count of what this host holds, and knows when the
//! next state is due; nothing here polls.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exosphere_domain::clock::Clock;
use exosphere_domain::ids::Millis;
use exosphere_domain::plan::give_up;
use exosphere_store::{Answer, Batch, Committed, Finished, Member, StoreError, Want};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::Parts;
use crate::error::internal;

/// The most members of one batch: more would only make the others wait.
const MAX_BATCH: usize = 512;

/// Submissions that may wait; who submits more waits too.
const QUEUE: usize = 4096;

/// How long to wait for a database that is unavailable: from, and up to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Room for one state that this host holds. Whoever drops it frees it, and
/// the committer learns of it.
pub(crate) struct Lease {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.freed.notify_one();
    }
}

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

/// Hands members to the one who commits.
pub(crate) struct Committer {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    capacity: u32,
    stopping: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
}

enum Message {
    Submit { member: Member, lease: Option<Lease>, reply: Option<Reply> },
    Drain(oneshot::Sender<()>),
}

/// The work of committing, before it is begun.
pub(crate) struct Work {
    queue: mpsc::Receiver<Message>,
    room: Arc<Semaphore>,
    freed: Arc<Notify>,
    stopping: Arc<AtomicBool>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Committer {
    /// A committer for a host that holds up to `capacity` states.
    pub(crate) fn new(capacity: u32) -> (Self, Work) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(capacity as usize));
        let stopping = Arc::new(AtomicBool::new(false));
        let trouble = Arc::new(Mutex::new(None));
        let work = Work {
            queue,
            room: room.clone(),
            freed: Arc::new(Notify::new()),
            stopping: stopping.clone(),
            trouble: trouble.clone(),
        };
        (Committer { queue: sender, room, capacity, stopping, trouble }, work)
    }

    /// Commits a member and tells what became of it.
    pub(crate) async fn submit(&self, member: Member) -> Result<Answer, StoreError> {
        let stopped = || StoreError::Unavailable("the host is stopping".into());
        let (reply, answer) = oneshot::channel();
        let message = Message::Submit { member, lease: None, reply: Some(reply) };
        self.queue.send(message).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Commits the end of an execution. The lease ends with it.
    pub(crate) async fn finish(&self, finished: Finished, lease: Lease) {
        let member = Member::Finish(Box::new(finished));
        let message = Message::Submit { member, lease: Some(lease), reply: None };
        // A committer that is gone means a host that is gone: the next one
        // takes the state back.
        let _ = self.queue.send(message).await;
    }

    /// Claims nothing more, and waits until nothing is held.
    pub(crate) async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let (done, drained) = oneshot::channel();
        if self.queue.send(Message::Drain(done)).await.is_ok() {
            let _ = drained.await;
        }
    }

    pub(crate) fn health(&self) -> Result<(), String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn holding(&self) -> u32 {
        self.capacity - self.room.available_permits() as u32
    }
}

impl Work {
    /// Begins, in a task of its own that ends with the drain.
    pub(crate) fn start(self, parts: Arc<Parts>) {
        let capacity = self.room.available_permits();
        let street = Street { parts, work: self, more: true, next_due: None, capacity };
        tokio::spawn(street.run());
    }
}

/// The committer at work.
struct Street {
    parts: Arc<Parts>,
    work: Work,
    /// Whether there may be more to claim that is due.
    more: bool,
    next_due: Option<Millis>,
    capacity: usize,
}

/// What goes into one commit.
#[derive(Default)]
struct Gathered {
    members: Vec<Member>,
    replies: Vec<Option<Reply>>,
    leases: Vec<Lease>,
}

impl Street {
    async fn run(mut self) {
        let mut draining: Option<oneshot::Sender<()>> = None;
        loop {
            let mut gathered = Gathered::default();
            let mut message = self.wait().await;
            while let Some(next) = message {
                match next {
                    Message::Drain(done) => draining = Some(done),
                    Message::Submit { member, lease, reply } => {
                        gathered.members.push(member);
                        gathered.replies.push(reply);
                        gathered.leases.extend(lease);
                    }
                }
                let full = gathered.members.len() >= MAX_BATCH;
                message = if full { None } else { self.work.queue.try_recv().ok() };
            }
            self.commit(gathered).await;
            let idle = self.work.room.available_permits() == self.capacity;
            if idle
                && self.work.queue.is_empty()
                && let Some(done) = draining.take()
            {
                let _ = done.send(());
                return;
            }
        }
    }

    fn stopping(&self) -> bool {
        self.work.stopping.load(Ordering::Relaxed)
    }

    /// Waits for something to do: a message, or that something is due.
    async fn wait(&mut self) -> Option<Message> {
        let room = self.work.room.available_permits() > 0;
        if self.more && room && !self.stopping() {
            return self.work.queue.try_recv().ok();
        }
        let now = self.parts.clock.now();
        let due = self.next_due.filter(|_| room && !self.stopping());
        let due = async {
            match due {
                Some(due) => {
                    let left = due.saturating_sub(now).max(0).unsigned_abs();
                    tokio::time::sleep(Duration::from_millis(left)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = self.work.queue.recv() => message,
            // Room matters to who wants to claim, and to who waits for the end.
            () = self.work.freed.notified(), if !room || self.stopping() => None,
            () = due => None,
        }
    }

    /// Commits what was gathered, tells who waits, hands on what was claimed.
    async fn commit(&mut self, gathered: Gathered) {
        let Gathered { members, replies, leases } = gathered;
        let members: Arc<[Member]> = members.into();
        let want = self.want(leases.len());
        if members.is_empty() && !matches!(want, Want::Claims(1..)) {
            return;
        }
        let committed = self.commit_range(&members, 0..members.len(), want).await;
        // Room is made before it is taken again: only this task takes it.
        drop(leases);
        self.note(&committed.done, want);
        self.parts.watchers.tell(&committed.done.touched);
        for (reply, answer) in replies.into_iter().zip(committed.answers) {
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        }
        let leased = committed.done.leased.into_iter().filter_map(|leased| {
            let permit = self.work.room.clone().try_acquire_owned().ok()?;
            let freed = self.work.freed.clone();
            Some((leased, Lease { permit: Some(permit), freed }))
        });
        crate::executor::dispatch(&self.parts, leased.collect());
    }

    /// What this commit may claim: everything that is due while there may be
    /// more of that, so that others get their turn, else what it creates.
    fn want(&self, freed: usize) -> Want {
        let free = (self.work.room.available_permits() + freed) as u32;
        let due = self.next_due.is_some_and(|due| due <= self.parts.clock.now());
        match self.stopping() {
            true => Want::Births(0),
            false if self.more || due => Want::Claims(free),
            false => Want::Births(free),
        }
    }

    fn note(&mut self, done: &Committed, want: Want) {
        match want {
            Want::Claims(1..) => {
                self.more = done.more;
                if !done.more {
                    self.next_due = done.next_due;
                    return;
                }
            }
            _ => self.more |= done.more,
        }
        self.next_due = [self.next_due, done.next_due].into_iter().flatten().min();
    }

    /// Commits some members. What the data of one of them spoil is tried in
    /// halves, so that its neighbours never notice.
    async fn commit_range(
        &self,
        members: &Arc<[Member]>,
        range: Range<usize>,
        want: Want,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ranges = VecDeque::from([(range, want)]);
        while let Some((range, want)) = ranges.pop_front() {
            match self.try_commit(members, range.clone(), want).await {
                Ok(mut done) => {
                    outcome.answers.extend(done.answers.drain(..).map(Ok));
                    outcome.add(done);
                }
                Err(why) if range.len() <= 1 => match &members[range] {
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
                },
                Err(_) => {
                    let middle = range.start + range.len() / 2;
                    ranges.push_front((middle..range.end, Want::Births(0)));
                    ranges.push_front((range.start..middle, Want::Births(0)));
                }
            }
        }
        outcome
    }

    /// Ends a state as `internal` whose outcome cannot be committed.
    async fn fail_alone(&self, finished: &Finished, why: &str) -> Committed {
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
        }));
        let members: Arc<[Member]> = [member].into();
        self.try_commit(&members, 0..1, Want::Births(0)).await.unwrap_or_else(|why| {
            tracing::error!(why, state = %finished.state.id, "a state cannot be ended");
            Committed::default()
        })
    }

    fn trouble(&self, why: Option<String>) {
        *self.work.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// One transaction, repeated for as long as the database is unavailable.
    /// Fails on bad data only.
    async fn try_commit(
        &self,
        members: &Arc<[Member]>,
        range: Range<usize>,
        want: Want,
    ) -> Result<Committed, String> {
        let mut pause = BACKOFF.0;
        loop {
            let batch = Batch {
                members: members.clone(),
                range: range.clone(),
                session: self.parts.session,
                now: self.parts.clock.now(),
                want,
                store_limits: (self.parts.limits.store_keys, self.parts.limits.store_bytes),
            };
            match self.parts.store.commit(batch).await {
                Ok(done) => {
                    self.trouble(None);
                    return Ok(done);
                }
                Err(StoreError::Data(why)) => return Err(why),
                Err(StoreError::Unavailable(why)) => {
                    tracing::error!(why, "the database is unavailable; trying again");
                    self.trouble(Some(why));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

/// What one or several transactions came to.
#[derive(Default)]
struct Outcome {
    answers: Vec<Result<Answer, StoreError>>,
    done: Committed,
}

impl Outcome {
    fn add(&mut self, done: Committed) {
        self.done.leased.extend(done.leased);
        self.done.touched.extend(done.touched);
        self.done.more |= done.more;
        self.done.next_due = [self.done.next_due, done.next_due].into_iter().flatten().min();
    }
}
