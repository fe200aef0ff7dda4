//! The logs of runs: pages have each attempt once, whatever the time of its end.

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::outcome::Outcome;
use exosphere_store::{AttemptLog, LogPageRequest, Operation};

use crate::harness::{Harness, Run, outputs};
use crate::test_database::Kind;

on_both! {
    pages_have_each_log_once,
    a_page_of_logs_is_bounded_by_bytes,
}

fn with_logs(operation: Operation, text: &str) -> Operation {
    match operation {
        Operation::Finish(mut finished) => {
            finished.logs = Some(format!("[{{\"message\":\"{text}\"}}]"));
            Operation::Finish(finished)
        }
        other => other,
    }
}

/// Reads the logs of a run, in pages.
async fn read(harness: &Harness, run: &Run, limit: u32) -> Vec<Vec<AttemptLog>> {
    let mut request = LogPageRequest { limit, ..LogPageRequest::default() };
    let mut pages = Vec::new();
    loop {
        let page = harness.store.run_logs(run.info.key, &request).await.unwrap();
        pages.push(page.items);
        let Some(next) = page.next else { return pages };
        request.after = Some(next.parse().unwrap());
    }
}

/// Runs a fanout whose branches log.
async fn logged(harness: &Harness, branches: usize, text: &str) -> Run {
    let run = harness.start_of("U > X").await;
    let fan = harness.finish_with_outputs(&run.info, &run.root, branches).await;
    let states = harness.commit_and_claim(fan).await;
    let mut ends = Vec::new();
    for (number, state) in states.iter().enumerate() {
        let outcome = match number % 3 {
            0 => outputs(1),
            1 => Outcome::Prune(None),
            _ => Outcome::Failed(Failure::new(FailureKind::Permanent, "no")),
        };
        ends.push(with_logs(harness.finish_plain(&run.info, state, outcome).await, text));
    }
    // Half of them end at the same time.
    let rest = ends.split_off(branches / 2);
    harness.commit_ok(ends, exosphere_store::ClaimMode::NewOnly(0)).await;
    for end in rest {
        harness.commit_one(end).await;
    }
    run
}

async fn pages_have_each_log_once(kind: Kind) {
    let harness = Harness::new(kind).await;
    let other = logged(&harness, 5, "other").await;
    let run = logged(&harness, 17, "hi").await;
    let all = read(&harness, &run, 1000).await.concat();
    assert_eq!(all.len(), 17);
    assert!(all.is_sorted_by_key(|log| log.ended_at));
    assert!(all.iter().all(|log| log.logs == r#"[{"message":"hi"}]"# && log.attempt == 1));
    for limit in [1, 2, 5, 16, 17] {
        assert_eq!(read(&harness, &run, limit).await.concat(), all, "{limit}");
    }
    assert_eq!(read(&harness, &other, 1000).await.concat().len(), 5);
    // One state, and the time of an end.
    let last = all.last().unwrap();
    let state = harness.store.state_at(run.info.key, &last.path).await.unwrap();
    let since = Some(last.ended_at);
    let one = LogPageRequest { state, limit: 10, ..LogPageRequest::default() };
    assert_eq!(
        harness.store.run_logs(run.info.key, &one).await.unwrap().items,
        std::slice::from_ref(last)
    );
    let late = LogPageRequest { since, limit: 1000, ..LogPageRequest::default() };
    let late = harness.store.run_logs(run.info.key, &late).await.unwrap().items;
    assert!(late.contains(last) && late.iter().all(|log| log.ended_at == last.ended_at));
}

async fn a_page_of_logs_is_bounded_by_bytes(kind: Kind) {
    let harness = Harness::new(kind).await;
    let run = logged(&harness, 10, &"x".repeat(300 * 1024)).await;
    let pages = read(&harness, &run, 1000).await;
    let sizes: Vec<_> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 10);
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
}
