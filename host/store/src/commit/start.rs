//! Runs that begin. Their rows come first of all: who waits here for another
//! host's start with the same key holds no other lock yet.

use exosphere_domain::ids::RunId;
use exosphere_domain::journal::Journal;

use super::{Answer, Member, NewRun, Street};
use crate::entries::Clash;
use crate::error::StoreError;
use crate::rows::{corrupt, number};
use crate::sql;
use crate::text::{Cells, Rows, Tx, values};

impl<'b> Street<'b> {
    pub(super) async fn begin_runs(
        &mut self,
        tx: &mut impl Tx,
        members: &[Member],
    ) -> Result<(), StoreError> {
        let mut new: Vec<&NewRun> = members
            .iter()
            .filter_map(|member| match member {
                Member::Start(new) => Some(&**new),
                _ => None,
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        // In one order for all hosts, so that no two wait for each other.
        new.sort_by_key(|new| (&new.info.namespace, &new.key));
        let ids: Vec<String> = new.iter().map(|new| new.info.id.to_string()).collect();
        let rows = Rows::default()
            .ints(new.iter().map(|new| new.info.key.0))
            .texts(ids.iter().map(String::as_str))
            .texts(new.iter().map(|new| new.info.namespace.as_str()))
            .ints(new.iter().map(|new| new.revision))
            .texts(new.iter().map(|new| &*new.info.inputs))
            .all(self.now)
            .maybe_texts(new.iter().map(|new| new.key.as_deref()));
        let begun = tx.query_each(sql::NEW_RUN, &rows, number).await?;
        for (new, id) in new.iter().zip(&ids) {
            if !begun.contains(&new.info.key.0) {
                let answer = first(tx, new, id).await?;
                self.known.insert(new.info.key, answer);
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, new: &'b NewRun) -> Result<Answer, StoreError> {
        let run = new.info.key;
        if let Some(answer) = self.known.remove(&run) {
            return Ok(answer);
        }
        let mut journal = Journal::default();
        for (key, value) in &new.store {
            let set = journal.set(key, value.clone());
            set.map_err(|error| StoreError::Data(error.to_string()))?;
        }
        let touching = self.change(run)?;
        match touching.entries.plan(&touching.tally, &journal, &new.limits) {
            Ok(plan) => touching.entries.apply(&mut touching.tally, plan),
            Err(Clash::Conflict | Clash::Broken(_)) => {
                return Err(StoreError::Data("the store values break its limits".into()));
            }
        }
        // The row began with one open state, so that its CHECK held.
        touching.tally.open = new.counts.open;
        self.create(run, &new.root, new.delay, &[])?;
        Ok(Answer::Done)
    }
}

/// What is in the way of a new run: the run itself, if a commit that seemed to
/// fail went through; or one with the same key; or that its revision is not the
/// current one.
async fn first(tx: &mut impl Tx, new: &NewRun, id: &str) -> Result<Answer, StoreError> {
    let read = |row: &dyn Cells| Ok((row.text(0)?, row.text(1)?));
    let place = values![id, new.info.namespace.as_str(), new.key.as_deref()];
    let found = tx.query(sql::FIRST_RUN, &place, read).await?;
    match found.into_iter().next() {
        Some((first, _)) if first == id => Ok(Answer::Done),
        Some((first, graph)) => Ok(Answer::Known {
            run: RunId(first.parse().map_err(|_| corrupt("run", "uuid", &first))?),
            graph: graph.parse().map_err(|_| corrupt("graph", "name", &graph))?,
        }),
        None => Ok(Answer::Outdated),
    }
}
