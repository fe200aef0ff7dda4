//! The facts on which the reasons of a run's states depend, read once: the run, its pause, the slots of its
//! namespace on this host, and the other hosts.
//!
//! Not here: the decision (`mod`).

use exosphere_domain::clock::Clock;
use exosphere_domain::graph::Node;
use exosphere_domain::ids::{Millis, SessionId};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::state::RunStatus;
use exosphere_domain::wait_reason::WaitReason;
use exosphere_store::{OpenState, RunInfo, RunView};

use crate::Host;
use crate::error::Error;
use crate::service::pauses::RunPause;

/// The most ready states of a namespace that are counted.
const MAX_READY: u32 = 10_000;

/// The facts on which the reasons of a run's states depend.
pub(super) struct WaitContext<'r> {
    pub host: &'r Host,
    pub info: &'r RunInfo,
    pub run: &'r RunView,
    pub now: Millis,
    /// The session of this host.
    pub session: SessionId,
    /// The pause, as the reason of the states that it holds back.
    pub pause: Option<WaitReason>,
    /// The states of the run that are CREATED or QUEUED.
    pub active: u64,
    /// Set if no host claims states.
    pub has_no_host: bool,
    /// The slots of the namespace that are taken on this host, and its share of them.
    pub used: u32,
    pub share: u32,
    /// The slots of this host, and the free ones.
    pub slots: u32,
    pub free: u32,
    /// The ready states of the namespace, at least about as many as this run has.
    pub ready: u64,
    limits: Limits,
}

impl<'r> WaitContext<'r> {
    pub(super) async fn read(
        host: &'r Host,
        info: &'r RunInfo,
        run: &'r RunView,
    ) -> Result<WaitContext<'r>, Error> {
        let (inner, namespace) = (&host.inner, info.namespace_key);
        let own = inner.caches.namespaces.get(&inner.db.store, &info.namespace).await?;
        let pause = host.pause_of_run(info, run).await?;
        let has_no_host = host.is_stopping() && {
            let hosts = inner.db.store.hosts().await?;
            // This one is among them until it has stopped.
            hosts.iter().filter(|host| host.alive).count() <= 1
        };
        let claims = inner.pipeline.committer.claim_counts();
        let claimed = claims.namespaces.get(&namespace).map_or(0, |claims| claims.total);
        let waiting = inner.pipeline.executor.waiting_of(namespace);
        let used = claimed.saturating_sub(waiting);
        let ready = inner.db.store.ready_count(namespace, MAX_READY).await?;
        // The children of a wide end have a queue of their own, and are not counted there.
        let active = info.graph.nodes().map(|(at, _)| run.node_counts.get(at).active).sum::<u64>();
        let ready = ready.max(active.saturating_sub(u64::from(used)).min(u64::from(MAX_READY)));
        // States are due by the clock of the database.
        let now = if inner.db.store.is_shared() {
            inner.db.store.latest_time().await?
        } else {
            inner.db.clock.now()
        };
        Ok(WaitContext {
            host,
            info,
            run,
            now,
            session: inner.cluster.session.current(),
            pause: pause.map(paused),
            active,
            has_no_host,
            used,
            share: inner.settings.slots_of(inner.caches.namespaces.slots(namespace)),
            slots: inner.settings.slots,
            free: inner.pipeline.executor.free_slots(),
            ready,
            limits: inner.settings.attempt_limits(&info.namespace, &own.limits),
        })
    }

    /// Returns the reason of all open states, if they are being ended with their run.
    pub(super) fn cancelling(&self) -> Option<WaitReason> {
        let counters = &self.run.counters;
        let ended = counters.succeeded + counters.pruned + counters.errored + counters.cancelled;
        let left = u64::try_from(counters.states - ended).unwrap_or_default();
        let of = u64::try_from(counters.states).unwrap_or_default();
        let is_over = self.run.status != RunStatus::Running;
        (is_over && left > 0).then_some(WaitReason::Cancelling { left, of })
    }

    /// Returns the path of a state as people write it.
    pub(super) fn path(&self, state: &OpenState) -> String {
        self.info.graph.shown_path(&state.path)
    }

    /// Returns the longest time of an attempt at a node, in milliseconds.
    pub(super) fn timeout(&self, node: &Node) -> Millis {
        let mut limits = self.limits.clone();
        self.info.graph.lower(node, &mut limits);
        Millis::try_from(limits.time(Limit::TimeoutMs).as_millis()).unwrap_or(Millis::MAX)
    }
}

fn paused(pause: RunPause) -> WaitReason {
    let (of, pause) = match pause {
        RunPause::Run(pause) => ("run", pause),
        RunPause::Graph(pause) => ("graph", pause),
        RunPause::Namespace(pause) => ("namespace", pause),
    };
    WaitReason::Paused {
        of: of.to_owned(),
        since: pause.as_ref().map(|pause| pause.since),
        by: pause.as_ref().and_then(|pause| pause.by.clone()),
        because: pause.map(|pause| pause.reason),
    }
}
