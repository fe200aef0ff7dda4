//! Model test of the domain against a reference that shares no code with it: random graphs,
//! outcomes and orders, lost hosts, pauses, cancels, manual retries and redrives; then fixed cases.
//!
//! Not here: the store, whose SQL does the work of `engine`.

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
use exosphere_domain::testing::SeededRng;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use crate::engine::Row;
use crate::lockstep::{Lockstep, domain_graph};
use crate::outcomes::{RandomOutcomes, max_fanout};
use crate::random_graph::{arbitrary_graphs, graphs};
use crate::shape::{Graph, Shape};
use crate::simulation::FaultPlan;

/// Maximum number of states of a run, so that many runs can be tried.
const MAX_STATES: u64 = 4000;

/// Returns a proptest configuration of `PROPTEST_CASES` cases, by default `cases`.
fn config(cases: u32) -> ProptestConfig {
    let variable = std::env::var("PROPTEST_CASES").ok();
    let cases = variable.and_then(|variable| variable.parse().ok()).unwrap_or(cases);
    let file = FileFailurePersistence::Direct("tests/model/regressions.txt");
    ProptestConfig {
        failure_persistence: Some(Box::new(file)),
        // A longer run rejects more cases in all; the default limit would abort it.
        max_global_rejects: 1024.max(cases),
        ..ProptestConfig::with_cases(cases)
    }
}

fn begin(graph: &Graph, outcomes: &RandomOutcomes) -> Lockstep {
    let outcomes = outcomes.clone();
    Lockstep::new(graph, Box::new(move |_, key, before| outcomes.draw(key, before)))
}

/// Random graphs, each with the outcomes of its states.
fn runs() -> impl Strategy<Value = (Graph, RandomOutcomes)> {
    let sample = |all: &'static [u32]| prop::sample::select(all);
    let rates = (sample(&[0, 4, 15, 40]), sample(&[0, 5, 25]), sample(&[0, 10, 30]));
    (graphs(15), any::<u64>(), rates).prop_filter_map(
        "the run is too long",
        |(graph, seed, (fails, prunes, repeats))| {
            let fanout = max_fanout(&graph, MAX_STATES)?;
            Some((graph, RandomOutcomes { seed, fails, prunes, repeats, fanout }))
        },
    )
}

/// Random fault plans of a run.
fn fault_plans() -> impl Strategy<Value = FaultPlan> {
    let cancels = prop_oneof![2 => Just(0), 1 => prop::sample::select(&[1, 4, 15][..])];
    (0u32..30, 0u32..12, 0u32..6, cancels).prop_map(|(retries, losses, pauses, cancels)| {
        FaultPlan { retries, losses, pauses, cancels, protects_innocent: false }
    })
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn core_and_reference_stay_in_lockstep((graph, outcomes) in runs(), order: u64, faults in fault_plans()) {
        let mut lockstep = begin(&graph, &outcomes);
        lockstep.simulate(&mut SeededRng::new(order), faults);
        lockstep.compare_end();
    }

    /// The result depends neither on the order of the work, nor on pauses, nor on lost hosts. The
    /// losses here end poison states only.
    #[test]
    fn execution_order_does_not_change_the_result((graph, outcomes) in runs(), orders: [u64; 3], losses in 0u32..30) {
        let steady = FaultPlan { protects_innocent: true, ..FaultPlan::default() };
        let fault_plans = [steady, FaultPlan { pauses: 20, ..steady }, FaultPlan { pauses: 3, losses, ..steady }];
        let mut endings = orders.into_iter().zip(fault_plans).map(|(order, faults)| {
            let mut lockstep = begin(&graph, &outcomes);
            lockstep.simulate(&mut SeededRng::new(order), faults);
            (lockstep.engine.status, lockstep.ending())
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
    fn core_and_reference_accept_the_same_graphs(graph in arbitrary_graphs(8)) {
        let fits = |(at, node): (usize, &shape::Node)| {
            node.unites.as_ref().is_none_or(|unites| graph.may_unite(at, unites.source))
        };
        let fits = graph.nodes.iter().enumerate().all(fits);
        let domain_graph = domain_graph(&graph);
        prop_assert_eq!(domain_graph.is_ok(), fits, "{:#?}", domain_graph);
    }

    #[test]
    fn references_are_valid_on_every_incoming_branch(
        graph in graphs(9),
        node: prop::sample::Index,
        named: prop::sample::Index,
    ) {
        let (node, named) = (node.index(graph.nodes.len()), named.index(graph.nodes.len()));
        let gathers = &Shape::from_graph(&graph).region[node];
        let source = graph.nodes[node].unites.as_ref().map(|unites| unites.source);
        prop_assume!(!gathers.contains(&named) && source != Some(named));
        let is_visible = graph.visible(node).contains(&named);
        let mut graph = graph;
        graph.nodes[node].singles = vec![named];
        let domain_graph = domain_graph(&graph);
        prop_assert_eq!(domain_graph.is_ok(), is_visible, "{:#?}", domain_graph);
    }
}

/// The random cases reach each kind of event often enough.
#[test]
fn random_cases_reach_every_event() {
    let mut runner = TestRunner::deterministic();
    let mut events = BTreeMap::new();
    for order in 0..150 {
        let ((graph, outcomes), faults) =
            (runs(), fault_plans()).new_tree(&mut runner).unwrap().current();
        let mut lockstep = begin(&graph, &outcomes);
        lockstep.simulate(&mut SeededRng::new(order), faults);
        count_events(&lockstep, &mut events);
    }
    for (event, min) in MIN_EVENTS {
        let count = events.get(event).copied().unwrap_or_default();
        assert!(count >= min, "too few {event}: {events:#?}");
    }
}

/// Minimum number of each event in all those runs.
const MIN_EVENTS: [(&str, usize); 24] = [
    ("states", 2000),
    ("nested unites that continued", 150),
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

fn count_events(lockstep: &Lockstep, events: &mut BTreeMap<&str, usize>) {
    let rows = &lockstep.engine.rows;
    let was_closed = |row: &&Row| row.unite.as_ref().is_some_and(|unite| unite.closings > 0);
    let is_nested = |row: &&Row| !row.place.scopes.is_empty();
    let is_blocked = |row: &&Row| row.unite.is_some() && row.status == Status::Errored;
    let counts_twice = |row: &&Row| lockstep.engine.counters(row).len() > 1;
    let mut count_event = |event, count| *events.entry(event).or_insert(0) += count;
    count_event("states", rows.len());
    count_event(
        "nested unites that continued",
        rows.iter().filter(is_nested).filter(was_closed).count(),
    );
    count_event("blocked unites", rows.iter().filter(is_blocked).count());
    count_event("states that count twice", rows.iter().filter(counts_twice).count());
    count_event("runs that failed", usize::from(lockstep.engine.status == RunStatus::Failed));
    count_event("runs that succeeded", usize::from(lockstep.engine.status == RunStatus::Success));
    count_event("runs of more than 40 states", usize::from(rows.len() > 40));
    lockstep.events.iter().for_each(|(event, count)| count_event(event, *count));
}
