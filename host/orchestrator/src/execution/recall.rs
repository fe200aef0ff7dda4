//! Gives back claimed states that have waited too long for a slot, because the host holds more
//! than the targets allow after executions proved slow. They can be claimed again, by a host
//! with free slots or after states of other runs.
//!
//! Not here: the targets; that is `prefetch`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::ids::{NamespaceKey, RunKey};

use crate::execution::claims::ClaimCounts;
use crate::execution::prefetch::Targets;
use crate::inner::HostInner;

/// Check interval, while more states are claimed than executed.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Time that a state has waited for a slot before it is given back: longer than any wait
/// that the prefetch targets allow.
const RECALL_AFTER: Duration = Duration::from_millis(100);

/// Starts the task that recalls claimed states.
pub(crate) fn start(inner: &Arc<HostInner>) {
    tokio::spawn(run(inner.clone()));
}

async fn run(inner: Arc<HostInner>) {
    loop {
        inner.pipeline.prefetch.claimed().await;
        while inner.pipeline.committer.claimed() > inner.pipeline.prefetch.running() {
            if inner.pipeline.committer.is_stopping() {
                return;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
            recall(&inner);
        }
        if inner.pipeline.committer.is_stopping() {
            return;
        }
    }
}

/// Withdraws states beyond the targets from the queues for slots.
fn recall(inner: &HostInner) {
    let Some(cutoff) = Instant::now().checked_sub(RECALL_AFTER) else { return };
    let surplus = surplus(&inner.pipeline.committer.claim_counts(), &inner.targets());
    let mut released = 0;
    for (namespace, Surplus { runs, rest }) in surplus.namespaces {
        let mut of_namespace = 0;
        for (run, states) in runs {
            of_namespace += inner.pipeline.executor.withdraw(namespace, Some(run), states, cutoff);
        }
        let rest = rest.saturating_sub(of_namespace);
        of_namespace += inner.pipeline.executor.withdraw(namespace, None, rest, cutoff);
        released += of_namespace;
    }
    for namespace in surplus.by_size {
        let rest = surplus.total.saturating_sub(released);
        released += inner.pipeline.executor.withdraw(namespace, None, rest, cutoff);
    }
    if released > 0 {
        tracing::debug!(states = released, "gave back states that cannot begin soon");
    }
}

/// The numbers of claimed states beyond the targets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Surpluses {
    total: u32,
    namespaces: HashMap<NamespaceKey, Surplus>,
    /// Namespaces, those with the most claimed states first.
    by_size: Vec<NamespaceKey>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Surplus {
    runs: HashMap<RunKey, u32>,
    /// Surplus of the namespace, that of its runs included.
    rest: u32,
}

fn surplus(held: &ClaimCounts, targets: &Targets) -> Surpluses {
    let mut all = Surpluses {
        total: held.total().saturating_sub(targets.total),
        by_size: held.namespaces.keys().copied().collect(),
        ..Surpluses::default()
    };
    let size = |namespace: &NamespaceKey| held.namespaces[namespace].total;
    all.by_size.sort_by_key(|namespace| std::cmp::Reverse((size(namespace), *namespace)));
    for (namespace, claims) in &held.namespaces {
        // A namespace that executes nothing has just begun, or has no slot to wait for.
        let Some(target) = targets.namespaces.get(namespace) else { continue };
        let excess = |(run, held): (&RunKey, &u32)| {
            Some((*run, held.checked_sub(target.get(*run)).filter(|excess| *excess > 0)?))
        };
        let runs = claims.runs.iter().filter_map(excess).collect();
        let rest = claims.total.saturating_sub(target.held);
        all.namespaces.insert(*namespace, Surplus { runs, rest });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::claims::NamespaceClaims;
    use crate::execution::prefetch::Target;

    #[test]
    fn surplus_is_counted_on_every_level() {
        let (a, b, idle) = (NamespaceKey(1), NamespaceKey(2), NamespaceKey(3));
        let claims = |runs: &[(i64, u32)]| NamespaceClaims {
            total: runs.iter().map(|(_, held)| held).sum(),
            runs: runs.iter().map(|(run, held)| (RunKey(*run), *held)).collect(),
        };
        let namespaces = [
            (a, claims(&[(1, 10), (2, 3), (9, 2)])),
            (b, claims(&[(3, 4)])),
            (idle, claims(&[(4, 9)])),
        ];
        let held = ClaimCounts { namespaces: namespaces.into() };
        let target = |held, idle_run, runs: &[(i64, u32)]| Target {
            held,
            idle_run,
            runs: runs.iter().map(|(run, limit)| (RunKey(*run), *limit)).collect(),
        };
        let namespaces =
            [(a, target(12, 1, &[(1, 8), (2, 3)])), (b, target(4, 1, &[(3, 4)]))].into();
        let found = surplus(&held, &Targets { total: 20, namespaces });
        assert_eq!((found.total, found.by_size), (8, vec![a, idle, b]));
        let surplus_a = Surplus { runs: [(RunKey(1), 2), (RunKey(9), 1)].into(), rest: 3 };
        let surplus_b = Surplus { runs: HashMap::new(), rest: 0 };
        assert_eq!(found.namespaces, [(a, surplus_a), (b, surplus_b)].into());
    }
}
