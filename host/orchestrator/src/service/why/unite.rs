//! Reasons of unites: their oldest open members, each with its own reason.
//!
//! The members are found from the leaves, the states that are CREATED or QUEUED: each names the
//! unites around it. There is an index of leaves, and none of unites.
//!
//! Not here: the reasons of leaves (`mod`).

use std::collections::BTreeMap;

use exosphere_domain::ids::StateId;
use exosphere_domain::wait_reason::{WaitReason, WaitingMember};
use exosphere_store::OpenState;
use futures::future::BoxFuture;

use super::surroundings::Surroundings;
use crate::Host;
use crate::error::Error;

/// The depth of unites within unites whose members are shown.
pub(super) const MAX_DEPTH: u32 = 3;

/// The number of members that a reason names.
const MAX_MEMBERS: usize = 3;

/// The leaves of each kind that are looked at, the oldest first.
const MAX_LEAVES: u32 = 200;

impl Host {
    /// Reads the oldest leaves of a run.
    pub(super) async fn leaves(&self, around: &Surroundings<'_>) -> Result<Vec<OpenState>, Error> {
        let (store, run) = (&self.inner.db.store, around.info.key);
        let mut leaves = store.queued_states(run, MAX_LEAVES).await?;
        leaves.extend(store.delayed_states(run, MAX_LEAVES).await?);
        leaves.extend(store.ready_states(around.info.namespace_key, run, MAX_LEAVES).await?);
        leaves.sort_by_key(|leaf| (leaf.created_at, leaf.id));
        Ok(leaves)
    }

    /// Returns the reason of the outermost unite around the oldest leaf of a run, and its path.
    pub(super) async fn oldest_unite(
        &self,
        around: &Surroundings<'_>,
    ) -> Result<Option<(WaitReason, String)>, Error> {
        let leaves = self.leaves(around).await?;
        let Some(leaf) = leaves.iter().find(|leaf| !leaf.scopes.is_empty()) else {
            return Ok(None);
        };
        let Some(unite) = self.next_unite(leaf, None).await? else { return Ok(None) };
        let why = self.why_unite(around, &unite, &leaves, MAX_DEPTH).await?;
        Ok(Some((why, around.path_text(&unite))))
    }

    /// Returns the reason of a unite, whose open members are among the leaves and the unites around
    /// them.
    pub(super) fn why_unite<'f>(
        &'f self,
        around: &'f Surroundings<'_>,
        unite: &'f OpenState,
        leaves: &'f [OpenState],
        depth: u32,
    ) -> BoxFuture<'f, Result<WaitReason, Error>> {
        Box::pin(async move {
            let counts = self.inner.db.store.unite_counts(unite.id).await?.unwrap_or_default();
            let oldest = match depth {
                0 => Vec::new(),
                _ => self.oldest_members(around, unite, leaves, depth).await?,
            };
            let count = |count: i64| u64::try_from(count).unwrap_or_default();
            Ok(WaitReason::Unite {
                open: count(counts.open),
                failed: count(counts.failed),
                arrived: count(counts.arrived),
                oldest,
            })
        })
    }

    async fn oldest_members(
        &self,
        around: &Surroundings<'_>,
        unite: &OpenState,
        leaves: &[OpenState],
        depth: u32,
    ) -> Result<Vec<WaitingMember>, Error> {
        let mut members = Vec::new();
        let mut inner = BTreeMap::<StateId, ()>::new();
        let is_within = |leaf: &&OpenState| has_scope(leaf, unite.id);
        for leaf in leaves.iter().filter(is_within) {
            if members.len() == MAX_MEMBERS {
                break;
            }
            let (path, why) = match self.next_unite(leaf, Some(unite)).await? {
                None => (around.path_text(leaf), around.of_leaf(leaf)),
                Some(next) if inner.insert(next.id, ()).is_none() => {
                    let why = self.why_unite(around, &next, leaves, depth - 1).await?;
                    (around.path_text(&next), why)
                }
                // The unite between is named already.
                Some(_) => continue,
            };
            members.push(WaitingMember { path, why });
        }
        Ok(members)
    }

    /// Finds the outermost unite around a leaf, or the next one within another unite.
    async fn next_unite(
        &self,
        leaf: &OpenState,
        within: Option<&OpenState>,
    ) -> Result<Option<OpenState>, Error> {
        let mut next: Option<OpenState> = None;
        for scope in leaf.scopes.iter() {
            let Some(unite) = self.inner.db.store.open_state(scope.state).await? else { continue };
            let is_within = within.is_none_or(|outer| has_scope(&unite, outer.id));
            // The outermost one has the fewest unites around it.
            let is_outer = next.as_ref().is_none_or(|next| unite.scopes.len() < next.scopes.len());
            if is_within && is_outer {
                next = Some(unite);
            }
        }
        Ok(next)
    }
}

/// Returns whether a state is within a unite.
fn has_scope(state: &OpenState, unite: StateId) -> bool {
    state.scopes.iter().any(|scope| scope.state == unite)
}
