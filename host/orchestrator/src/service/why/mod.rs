//! "Why is it waiting?": finds the reason of a state, and counts the reasons of a run.
//!
//! Not here: the reasons and their words (`exosphere_domain::wait_reason`).

mod unite;
mod wait_context;

use std::collections::BTreeMap;

use exosphere_domain::ids::{Millis, Name, RunId};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::state::{RunStatus, Status};
use exosphere_domain::wait_reason::{ReasonCount, RunWhy, StateWhy, WaitReason};
use exosphere_store::{Holder, LeafKind, OpenState};

use crate::Host;
use crate::error::Error;
use unite::Unites;
use wait_context::WaitContext;

/// The number of claimed states of a run that are looked at: more than its hosts can hold.
const MAX_QUEUED: u32 = 10_000;

/// The number of states that wait for a time and are looked at one by one.
const MAX_DELAYED: u32 = 5_000;

impl Host {
    /// Returns the reason why a state waits.
    pub async fn why_state(
        &self,
        namespace: &Name,
        id: RunId,
        path: &str,
    ) -> Result<StateWhy, Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let (state, _) = self.find_state(&info, path).await?;
        let state = self.inner.db.store.open_states(&[state]).await?.pop();
        let state = state.ok_or_else(|| Error::not_found("state", path))?;
        let context = WaitContext::read(self, &info, &run).await?;
        let why = self.reason_of(&context, &state).await?;
        let path = context.path(&state);
        let sentence = match &why {
            Some(why) => format!("{path} {}", why.sentence(context.now)),
            None => format!("{path} has ended: {}", state.status.as_str()),
        };
        Ok(StateWhy { path, status: state.status.as_str().to_owned(), why, sentence })
    }

    /// Counts the reasons why the open states of a run wait.
    pub async fn why_run(&self, namespace: &Name, id: RunId) -> Result<RunWhy, Error> {
        let run = self.run_view(namespace, id).await?;
        let info = self.inner.caches.runs.get(&self.inner.db.store, run.key).await?;
        let context = WaitContext::read(self, &info, &run).await?;
        let mut reasons = Reasons::default();
        let unexamined = self.count_reasons(&context, &mut reasons).await?;
        let reasons = reasons.into_list();
        let sentence = sentence_of_run(&context, &reasons, unexamined);
        let (run, status) = (id.to_string(), run.status.as_str().to_owned());
        Ok(RunWhy { run, status, reasons, unexamined, sentence })
    }

    /// Counts the reasons of a run's open states. Returns the number of states that wait for a time
    /// and were not looked at.
    async fn count_reasons(
        &self,
        context: &WaitContext<'_>,
        reasons: &mut Reasons,
    ) -> Result<u64, Error> {
        let (store, run) = (&self.inner.db.store, context.info.key);
        let nodes = context.info.graph.nodes();
        let waiting: u64 = nodes.map(|(at, _)| context.run.node_counts.get(at).waiting).sum();
        if let Some(ending) = context.cancelling() {
            reasons.add(ending, || None, context.active + waiting);
            return Ok(0);
        }
        let queued = store.leaves(run, LeafKind::Claimed, MAX_QUEUED).await?;
        let mut left = context.active.saturating_sub(queued.len() as u64);
        for state in &queued {
            reasons.add(context.of_leaf(state), || Some(context.path(state)), 1);
        }
        let mut unexamined = 0;
        if context.pause.is_none() {
            let later = store.leaves(run, LeafKind::Delayed, MAX_DELAYED).await?;
            for state in &later {
                reasons.add(context.of_leaf(state), || Some(context.path(state)), 1);
            }
            let mut all = later.len() as u64;
            if all == u64::from(MAX_DELAYED) {
                all = store.delayed_count(run).await?;
                unexamined = all.saturating_sub(later.len() as u64);
            }
            left = left.saturating_sub(all);
        }
        if left > 0 {
            let first = self.first_unclaimed(context).await?;
            let example = || first.map(|state| context.path(&state));
            let why = context.pause.clone().unwrap_or_else(|| context.of_ready(context.now));
            reasons.add(why, example, left);
        }
        if waiting > 0 {
            let unites = Unites::read(self, context, None).await?;
            let unite = unites.outermost();
            let why = match unite {
                Some(unite) => unites.why(context, unite),
                // No leaf was read: all of them are in the queues of wide ends.
                None => WaitReason::Unite {
                    open: context.active,
                    failed: 0,
                    arrived: 0,
                    oldest: Vec::new(),
                },
            };
            reasons.add(why, || unite.map(|unite| context.path(unite)), waiting);
        }
        Ok(unexamined)
    }

    /// Finds a state that is ready, or one that a pause holds back.
    async fn first_unclaimed(&self, context: &WaitContext<'_>) -> Result<Option<OpenState>, Error> {
        let (store, run) = (&self.inner.db.store, context.info.key);
        let mut first = store.ready_states(context.info.namespace_key, run, 1).await?;
        for kind in [LeafKind::HeldBack, LeafKind::Delayed] {
            if first.is_empty() && context.pause.is_some() {
                first = store.leaves(run, kind, 1).await?;
            }
        }
        Ok(first.pop())
    }

    /// Returns the reason of a state; `None` if it has ended.
    async fn reason_of(
        &self,
        context: &WaitContext<'_>,
        state: &OpenState,
    ) -> Result<Option<WaitReason>, Error> {
        match state.status {
            Status::Success | Status::Pruned | Status::Errored | Status::Cancelled => Ok(None),
            _ if context.cancelling().is_some() => Ok(context.cancelling()),
            Status::Waiting => {
                let unites = Unites::read(self, context, Some(state.id)).await?;
                Ok(Some(unites.why(context, state)))
            }
            Status::Created | Status::Queued => Ok(Some(context.of_leaf(state))),
        }
    }
}

impl WaitContext<'_> {
    /// Returns the reason of a state that is CREATED or QUEUED.
    fn of_leaf(&self, state: &OpenState) -> WaitReason {
        match &state.holder {
            Some(holder) if state.status == Status::Queued => self.of_claimed(state, holder),
            _ => match &self.pause {
                Some(pause) => pause.clone(),
                None if state.due_at > self.now => self.of_delayed(state),
                None => self.of_ready(state.due_at),
            },
        }
    }

    fn of_claimed(&self, state: &OpenState, holder: &Holder) -> WaitReason {
        let Holder { session, host, is_alive, ended_at, claimed_at } = holder.clone();
        if !is_alive {
            return WaitReason::HostLost { host, since: ended_at };
        }
        // Only its own host knows that a claimed state waits for a slot.
        if session == self.session && self.host.inner.pipeline.executor.is_waiting(state.id) {
            return self.of_ready(state.due_at);
        }
        let node = self.info.graph.get(state.node);
        let deadline_at = claimed_at.zip(node).map(|(at, node)| at + self.timeout(node));
        WaitReason::Running { host, since: claimed_at, deadline_at }
    }

    fn of_delayed(&self, state: &OpenState) -> WaitReason {
        let until = state.due_at;
        match state.last {
            None => WaitReason::Delayed { until },
            Some((AttemptOutcome::Requeued, _)) => WaitReason::Requeued { until },
            Some((_, after)) => {
                let node = self.info.graph.get(state.node);
                let max_retries = node.map_or(0, |node| node.retry.max_retries);
                WaitReason::Backoff { retry: state.retries, max_retries, until, after }
            }
        }
    }

    /// Returns the reason of a state that is ready.
    fn of_ready(&self, since: Millis) -> WaitReason {
        let (used, share, slots, ready) = (self.used, self.share, self.slots, self.ready);
        if self.has_no_host {
            WaitReason::NoHost
        } else if used >= share {
            WaitReason::NamespaceShare { used, slots: share, ready }
        } else if self.free == 0 {
            WaitReason::NoSlot { slots, ready }
        } else {
            WaitReason::Due { since }
        }
    }
}

/// The reasons of a run's states, counted by their kinds.
#[derive(Default)]
struct Reasons(BTreeMap<&'static str, ReasonCount>);

impl Reasons {
    fn add(&mut self, why: WaitReason, example: impl FnOnce() -> Option<String>, states: u64) {
        if states == 0 {
            return;
        }
        let new = |why| ReasonCount { states: 0, example: example(), why };
        self.0.entry(why.kind()).or_insert_with(|| new(why)).states += states;
    }

    /// Returns the reasons, the most frequent first.
    fn into_list(self) -> Vec<ReasonCount> {
        let mut list: Vec<_> = self.0.into_values().collect();
        list.sort_by_key(|reason| std::cmp::Reverse(reason.states));
        list
    }
}

fn sentence_of_run(context: &WaitContext<'_>, reasons: &[ReasonCount], unexamined: u64) -> String {
    let status = context.run.status;
    match reasons {
        [] if status != RunStatus::Running => format!("the run has ended: {}", status.as_str()),
        [] => format!("the run of {} is about to change", context.info.graph_name),
        [only] if only.states == 1 => {
            let subject = only.example.as_deref().unwrap_or("its only open state");
            format!("{subject} {}", only.why.sentence(context.now))
        }
        several => {
            let parts = several.iter().map(|count| {
                let state = if count.states == 1 { "state is" } else { "states are" };
                format!("{} {state} {}", count.states, count.why.of_several(context.now))
            });
            let mut sentence = parts.collect::<Vec<_>>().join("; ");
            if unexamined > 0 {
                sentence.push_str(&format!("; {unexamined} more wait for a later time"));
            }
            sentence
        }
    }
}
