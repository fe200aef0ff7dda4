//! Reasons of unites: their oldest open members, each with its own reason.
//!
//! The members are found from the leaves, the states that are CREATED or QUEUED: each names the
//! unites around it. There is an index of leaves, and none of unites. Everything is read first, in a
//! few statements, and then decided.
//!
//! Not here: the reasons of leaves (`mod`).

use std::collections::{BTreeSet, HashMap};

use exosphere_domain::ids::StateId;
use exosphere_domain::state::Counts;
use exosphere_domain::wait_reason::{WaitReason, WaitingMember};
use exosphere_store::{LeafKind, OpenState};

use super::wait_context::WaitContext;
use crate::Host;
use crate::error::Error;

/// The depth of unites within unites whose members are shown.
const MAX_DEPTH: u32 = 3;

/// The number of members that a reason names.
const MAX_MEMBERS: usize = 3;

/// The leaves of each kind that are looked at, the oldest first.
const MAX_LEAVES: u32 = 200;

/// The oldest leaves of a run, and the unites around them.
pub(super) struct Unites {
    leaves: Vec<OpenState>,
    states: HashMap<StateId, OpenState>,
    counts: HashMap<StateId, Counts>,
}

impl Unites {
    /// Reads the oldest leaves of a run and the unites around them, and one more unite if it is
    /// given.
    pub(super) async fn read(
        host: &Host,
        context: &WaitContext<'_>,
        unite: Option<StateId>,
    ) -> Result<Unites, Error> {
        let (store, run) = (&host.inner.db.store, context.info.key);
        let mut leaves = store.ready_states(context.info.namespace_key, run, MAX_LEAVES).await?;
        for kind in [LeafKind::Claimed, LeafKind::Delayed, LeafKind::HeldBack] {
            leaves.extend(store.leaves(run, kind, MAX_LEAVES).await?);
        }
        leaves.sort_by_key(|leaf| (leaf.created_at, leaf.id));
        let scopes = leaves.iter().flat_map(|leaf| leaf.scopes.iter().map(|scope| scope.state));
        let ids: BTreeSet<StateId> = scopes.chain(unite).collect();
        let ids: Vec<StateId> = ids.into_iter().collect();
        let states = store.open_states(&ids).await?.into_iter();
        let states = states.map(|state| (state.id, state)).collect();
        let counts = store.unite_counts(&ids).await?.into_iter().collect();
        Ok(Unites { leaves, states, counts })
    }

    /// Returns the outermost unite around the oldest leaf that has one.
    pub(super) fn outermost(&self) -> Option<&OpenState> {
        self.leaves.iter().find_map(|leaf| self.next(leaf, None))
    }

    /// Returns the reason of a unite, whose open members are among the leaves and the unites around
    /// them.
    pub(super) fn why(&self, context: &WaitContext<'_>, unite: &OpenState) -> WaitReason {
        self.why_within(context, unite, MAX_DEPTH)
    }

    fn why_within(&self, context: &WaitContext<'_>, unite: &OpenState, depth: u32) -> WaitReason {
        let Counts { open, failed, arrived } =
            self.counts.get(&unite.id).copied().unwrap_or_default();
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        let oldest = self.oldest_members(context, unite, depth);
        let (open, failed, arrived) = (count(open), count(failed), count(arrived));
        WaitReason::Unite { open, failed, arrived, oldest }
    }

    fn oldest_members(
        &self,
        context: &WaitContext<'_>,
        unite: &OpenState,
        depth: u32,
    ) -> Vec<WaitingMember> {
        let mut named = BTreeSet::new();
        let within = self.leaves.iter().filter(|leaf| has_scope(leaf, unite.id));
        let member = |leaf| match self.next(leaf, Some(unite)) {
            None => Some((leaf, context.of_leaf(leaf))),
            // The unite between is one member, whatever it has within.
            Some(next) if named.insert(next.id) => {
                Some((next, self.why_within(context, next, depth - 1)))
            }
            Some(_) => None,
        };
        let members = within.filter(|_| depth > 0).filter_map(member).take(MAX_MEMBERS);
        members.map(|(state, why)| WaitingMember { path: context.path(state), why }).collect()
    }

    /// Finds the outermost unite around a leaf, or the next one within another unite.
    fn next(&self, leaf: &OpenState, within: Option<&OpenState>) -> Option<&OpenState> {
        let unites = leaf.scopes.iter().filter_map(|scope| self.states.get(&scope.state));
        let inner = unites.filter(|unite| within.is_none_or(|outer| has_scope(unite, outer.id)));
        // The outermost one has the fewest unites around it.
        inner.min_by_key(|unite| unite.scopes.len())
    }
}

/// Returns whether a state is within a unite.
fn has_scope(state: &OpenState, unite: StateId) -> bool {
    state.scopes.iter().any(|scope| scope.state == unite)
}
