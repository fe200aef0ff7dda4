//! The pure core against a reference model that shares no code with it: random graphs, outcomes and
//! orders, several hosts of which some are lost, pauses, cancels, manual retries and redrives. Then
//! fixed cases.
//!
//! Not here: the store, whose SQL does what `engine` does in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod unite_cases;
mod lockstep;
mod engine;
mod outcomes;
mod simulation;
mod random_graph;
mod reference;
mod shape;
mod fault_cases;

use std::collections::BTreeMap;

use exosphere_domain::state::{RunStatus, Status};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use crate::engine::Row;
use crate::lockstep::{Duel, real};
use crate::outcomes::{Dice, Fates, fanout_within};
use crate::random_graph::{graphs, wild_graphs};
use crate::shape::{Graph, Shape};
use crate::simulation::Trouble;

/// Maximum of states of a run, so that many runs can be tried.
const MOST_STATES: u64 = 4000;

/// A proptest configuration of `cases` cases, or as many as `PROPTEST_CASES` says.
fn config(cases: u32) -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok();
    let cases = said.and_then(|said| said.parse().ok()).unwrap_or(cases);
    let file = FileFailurePersistence::Direct("tests/model/regressions.txt");
    ProptestConfig {
        failure_persistence: Some(Box::new(file)),
        // With a lower limit a long run is given up, since it rejects more cases in all.
        max_global_rejects: 1024.max(cases),
        ..ProptestConfig::with_cases(cases)
    }
}

fn begin(graph: &Graph, fates: &Fates) -> Duel {
    let fates = fates.clone();
    Duel::begin(graph, Box::new(move |_, key, before| fates.draw(key, before)))
}

/// Random graphs, each with the fates of its states.
fn runs() -> impl Strategy<Value = (Graph, Fates)> {
    let often = |all: &'static [u32]| prop::sample::select(all);
    let rates = (often(&[0, 4, 15, 40]), often(&[0, 5, 25]), often(&[0, 10, 30]));
    (graphs(15), any::<u64>(), rates).prop_filter_map(
        "the run is too long",
        |(graph, seed, (fails, prunes, repeats))| {
            let fanout = fanout_within(&graph, MOST_STATES)?;
            Some((graph, Fates { seed, fails, prunes, repeats, fanout }))
        },
    )
}

/// Random troubles of a run.
fn troubles() -> impl Strategy<Value = Trouble> {
    let cancels = prop_oneof![2 => Just(0), 1 => prop::sample::select(&[1, 4, 15][..])];
    (0u32..30, 0u32..12, 0u32..6, cancels).prop_map(|(retries, losses, pauses, cancels)| Trouble {
        retries,
        losses,
        pauses,
        cancels,
        is_just: false,
    })
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn core_and_reference_stay_in_lockstep((graph, fates) in runs(), order: u64, trouble in troubles()) {
        let mut duel = begin(&graph, &fates);
        duel.play(&mut Dice::new(order), trouble);
        duel.compare_end();
    }

    /// The end depends neither on the order of the work, nor on pauses, nor on lost hosts. The
    /// losses here end no state that is not to blame.
    #[test]
    fn execution_order_does_not_change_the_result((graph, fates) in runs(), orders: [u64; 3], losses in 0u32..30) {
        let still = Trouble { is_just: true, ..Trouble::default() };
        let troubles = [still, Trouble { pauses: 20, ..still }, Trouble { pauses: 3, losses, ..still }];
        let mut endings = orders.into_iter().zip(troubles).map(|(order, trouble)| {
            let mut duel = begin(&graph, &fates);
            duel.play(&mut Dice::new(order), trouble);
            (duel.engine.status, duel.ending())
        });
        let first = endings.next();
        for other in endings {
            prop_assert_eq!(first.as_ref(), Some(&other));
        }
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn core_and_reference_accept_the_same_graphs(graph in wild_graphs(8)) {
        let fits = |(at, node): (usize, &shape::Node)| {
            node.unites.as_ref().is_none_or(|unites| graph.may_unite(at, unites.source))
        };
        let fits = graph.nodes.iter().enumerate().all(fits);
        let real = real(&graph);
        prop_assert_eq!(real.is_ok(), fits, "{:#?}", real);
    }

    #[test]
    fn references_are_valid_on_every_incoming_branch(
        graph in graphs(9),
        node: prop::sample::Index,
        named: prop::sample::Index,
    ) {
        let (node, named) = (node.index(graph.nodes.len()), named.index(graph.nodes.len()));
        let gathers = &Shape::of(&graph).region[node];
        let source = graph.nodes[node].unites.as_ref().map(|unites| unites.source);
        prop_assume!(!gathers.contains(&named) && source != Some(named));
        let may = graph.sees(node).contains(&named);
        let mut graph = graph;
        graph.nodes[node].singles = vec![named];
        let real = real(&graph);
        prop_assert_eq!(real.is_ok(), may, "{:#?}", real);
    }
}

/// The random cases must reach every kind of event often enough.
#[test]
fn random_cases_reach_every_event() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::new();
    for order in 0..150 {
        let ((graph, fates), trouble) =
            (runs(), troubles()).new_tree(&mut runner).unwrap().current();
        let mut duel = begin(&graph, &fates);
        duel.play(&mut Dice::new(order), trouble);
        count_events(&duel, &mut met);
    }
    for (what, least) in LEAST {
        let count = met.get(what).copied().unwrap_or_default();
        assert!(count >= least, "too few {what}: {met:#?}");
    }
}

/// Minimum number of each event in all those runs.
const LEAST: [(&str, usize); 24] = [
    ("states", 2000),
    ("nested unites that went on", 150),
    ("blocked unites", 40),
    ("states that count twice", 50),
    ("runs that failed", 10),
    ("runs that succeeded", 40),
    ("runs of more than 40 states", 20),
    ("retries", 80),
    ("retries too late", 80),
    ("redrives", 25),
    ("redrives of several", 10),
    ("redrives of a part", 10),
    ("redrives refused", 50),
    ("hosts lost", 300),
    ("states lost for the first time", 400),
    ("suspects charged", 150),
    ("suspects let off", 60),
    ("states that lost too many hosts", 10),
    ("late outcomes refused", 400),
    ("late outcomes taken", 50),
    ("pauses", 100),
    ("runs that ended while paused", 4),
    ("cancels", 20),
    ("outcomes after a cancel", 20),
];

fn count_events(duel: &Duel, met: &mut BTreeMap<&str, usize>) {
    let rows = &duel.engine.rows;
    let went_on = |row: &&Row| row.unite.as_ref().is_some_and(|unite| unite.opened > 0);
    let is_nested = |row: &&Row| !row.place.scopes.is_empty();
    let is_blocked = |row: &&Row| row.unite.is_some() && row.status == Status::Errored;
    let counts_twice = |row: &&Row| duel.engine.counters(row).len() > 1;
    let mut meet = |what, count| *met.entry(what).or_insert(0) += count;
    meet("states", rows.len());
    meet("nested unites that went on", rows.iter().filter(is_nested).filter(went_on).count());
    meet("blocked unites", rows.iter().filter(is_blocked).count());
    meet("states that count twice", rows.iter().filter(counts_twice).count());
    meet("runs that failed", usize::from(duel.engine.status == RunStatus::Failed));
    meet("runs that succeeded", usize::from(duel.engine.status == RunStatus::Success));
    meet("runs of more than 40 states", usize::from(rows.len() > 40));
    duel.met.iter().for_each(|(what, count)| meet(what, *count));
}
