//! Lists of a run's states: each filter finds what a scan finds, page after page.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::filter::StateFilter;
use exosphere_domain::ids::{NodeIx, RunKey};
use exosphere_domain::outcome::Outcome;
use exosphere_domain::path::Path;
use exosphere_domain::state::Status;
use exosphere_store::{StatePageRequest, StateView};
use serde_json::json;

use crate::harness::{Harness, Run, outputs};
use crate::test_database::Kind;

on_both! {
    each_filter_finds_what_a_scan_finds,
    a_page_examines_a_bounded_number_of_states,
    details_are_read_on_demand_only,
}

/// Lists all states that meet a filter, in pages of `limit`. Returns the number of pages, too.
async fn list(
    harness: &Harness,
    run: RunKey,
    filter: &StateFilter,
    node: Option<NodeIx>,
    limit: u32,
) -> (Vec<StateView>, u32) {
    let (mut all, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let request = StatePageRequest { after: after.clone(), limit, has_details: false };
        let mut page = harness.store.states(run, filter, node, &request).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        all.append(&mut page.items);
        pages += 1;
        let Some(next) = page.next else { return (all, pages) };
        let next = Path::decode(&next).unwrap();
        assert!(after.is_none_or(|after| next > after), "a cursor goes on");
        after = Some(next);
    }
}

/// Starts a fanout whose branches end in each way.
async fn mixed(harness: &Harness) -> Run {
    let run = harness.start_of("U > X; X > Y").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, 28).await;
    let long = "x".repeat(70);
    for (number, state) in harness.commit_and_claim(fan).await.iter().enumerate() {
        let failure = |kind, message: &str| Outcome::Failed(Failure::new(kind, message));
        let outcome = match number % 7 {
            0 => outputs(1),
            1 => Outcome::Prune(Some("[1]".into())),
            2 => failure(FailureKind::Permanent, "no"),
            3 => failure(FailureKind::InvalidInput, "no"),
            4 => failure(FailureKind::InvalidInput, &format!("{long}{number}")),
            5 => failure(FailureKind::Permanent, &format!("ä{number}")),
            _ => continue,
        };
        let operation = harness.finish_plain(&run.info, state, outcome).await;
        harness.commit_one(operation).await;
    }
    run
}

async fn each_filter_finds_what_a_scan_finds(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = mixed(&harness).await;
    let key = run.info.key;
    let all = list(&harness, key, &StateFilter::default(), None, 1000).await.0;
    assert_eq!(all.len(), 1 + 28 + 4);
    assert!(all.iter().is_sorted_by_key(|state| &state.path));
    let long = "x".repeat(64);
    let statuses: [&[Status]; 5] = [
        &[],
        &[Status::Errored],
        &[Status::Created],
        &[Status::Success, Status::Pruned],
        &[Status::Errored, Status::Queued],
    ];
    let messages = [None, Some("no"), Some("ä12"), Some(long.as_str()), Some("none")];
    for statuses in statuses {
        for kind in [None, Some(FailureKind::InvalidInput), Some(FailureKind::Trap)] {
            for message in messages {
                for node in [None, Some(NodeIx(1)), Some(NodeIx(2))] {
                    let filter = StateFilter {
                        statuses: statuses.to_vec(),
                        kind,
                        message: message.map(str::to_owned),
                        identifier: None,
                    };
                    let expected: Vec<_> = all
                        .iter()
                        .filter(|state| meets(state, &filter, node))
                        .map(|state| state.id)
                        .collect();
                    for limit in [2, 1000] {
                        let found = list(&harness, key, &filter, node, limit).await.0;
                        let found: Vec<_> = found.iter().map(|state| state.id).collect();
                        assert_eq!(found, expected, "{filter:?} {node:?} in pages of {limit}");
                    }
                }
            }
        }
    }
    harness.check().await;
}

/// Returns whether a state meets a filter.
fn meets(state: &StateView, filter: &StateFilter, node: Option<NodeIx>) -> bool {
    let failure = state.failure.as_ref();
    let start = |text: &str| text.chars().take(64).collect::<String>();
    let has_message =
        |message: &String| failure.is_some_and(|failure| start(&failure.message) == start(message));
    (filter.statuses.is_empty() || filter.statuses.contains(&state.status))
        && filter.kind.is_none_or(|kind| failure.is_some_and(|failure| failure.kind == kind))
        && filter.message.as_ref().is_none_or(has_message)
        && node.is_none_or(|node| state.node == node)
}

/// One state in many has another status: pages are short, and their cursors continue.
async fn a_page_examines_a_bounded_number_of_states(kind: Kind) {
    const BRANCHES: usize = 11_000;
    let harness = Harness::new(kind).await;
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, BRANCHES).await;
    harness.commit_one(fan).await;
    let claimed = harness.claim(1).await.remove(0);
    let filter = StateFilter { statuses: vec![Status::Queued], ..StateFilter::default() };
    let (found, pages) = list(&harness, run.info.key, &filter, None, 50).await;
    assert_eq!(found.iter().map(|state| state.id).collect::<Vec<_>>(), [claimed.id]);
    assert_eq!(pages, 3, "5,000 states a page");
    let (found, pages) =
        list(&harness, run.info.key, &StateFilter::default(), Some(NodeIx(1)), 1000).await;
    assert_eq!((found.len(), pages), (BRANCHES, 12), "full pages, and the end");
}

async fn details_are_read_on_demand_only(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = harness.start_of("A").await;
    let failure = Failure::new(FailureKind::Permanent, "no").with(json!({"a": 1}));
    let end = harness.finish_plain(&run.info, &run.root, Outcome::Failed(failure)).await;
    harness.commit_one(end).await;
    for has_details in [false, true] {
        let request = StatePageRequest { after: None, limit: 1, has_details };
        let filter = StateFilter::errored();
        let page = harness.store.states(run.info.key, &filter, None, &request).await.unwrap();
        let state = &page.items[0];
        assert_eq!(state.details_bytes, Some(7));
        let details = state.failure.as_ref().unwrap().details.as_deref();
        assert_eq!(details, has_details.then_some("{\"a\":1}"));
    }
}
