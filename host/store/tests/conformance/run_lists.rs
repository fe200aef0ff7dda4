//! Lists of runs: each filter finds what a scan finds, page after page.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::filter::RunFilter;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::RunKey;
use exosphere_domain::label::{Label, Labels};
use exosphere_domain::state::RunStatus;
use exosphere_store::{
    ClaimMode, Control, ListedRun, NewRun, Operation, Reply, RunCursor, RunInfo, RunPageRequest,
};

use crate::harness::{Harness, Template, fails, outputs};
use crate::test_database::Kind;

on_both! {
    each_filter_finds_what_a_scan_finds,
    a_page_examines_a_bounded_number_of_runs,
    a_list_continues_after_a_deleted_run,
    labels_belong_to_a_new_run_only,
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// Starts a run with labels, and brings it to a status.
async fn run(harness: &Harness, template: &Template, labels: &[&str], end: RunStatus) -> RunKey {
    let mut new = harness.new_run(template).await;
    set_labels(&mut new, labels);
    let info = new.info.clone();
    let root = harness.commit_and_claim(Operation::Start(new.into())).await.remove(0);
    let operation = match end {
        RunStatus::Running => return info.key,
        RunStatus::Success => harness.finish_plain(&info, &root, outputs(1)).await,
        RunStatus::Failed => {
            harness.finish_plain(&info, &root, fails(FailureKind::Permanent)).await
        }
        RunStatus::Cancelled => Operation::Control(info.clone(), Control::Cancel),
    };
    if let Reply::ToSweep(event) = harness.commit_one(operation).await {
        harness.sweep(&info, event, 99).await;
    }
    info.key
}

fn set_labels(new: &mut NewRun, labels: &[&str]) {
    let old = &new.info;
    new.info = RunInfo {
        key: old.key,
        id: old.id,
        namespace: old.namespace.clone(),
        namespace_key: old.namespace_key,
        graph_name: old.graph_name.clone(),
        revision: old.revision,
        revision_id: old.revision_id,
        graph: old.graph.clone(),
        inputs: old.inputs.clone(),
        labels: labels.iter().map(|text| label(text)).collect(),
    }
    .into();
}

/// Lists all runs that meet a filter, in pages of `limit`. Returns the number of pages, too.
async fn list(
    harness: &Harness,
    template: &Template,
    filter: &RunFilter,
    limit: u32,
) -> (Vec<ListedRun>, u32) {
    let (mut all, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let request = RunPageRequest { after, limit };
        let mut page = harness.store.runs(&template.namespace, filter, request).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        all.append(&mut page.items);
        pages += 1;
        let Some(next) = page.next else { return (all, pages) };
        let next: RunCursor = next.parse().unwrap();
        assert!(after != Some(next), "the next page begins elsewhere");
        after = Some(next);
    }
}

async fn each_filter_finds_what_a_scan_finds(kind: Kind) {
    let harness = Harness::new(kind).await;
    let graphs = [
        harness.template(GraphBuilder::from_text("A")).await,
        harness.template(GraphBuilder::from_text("A")).await,
    ];
    let other = harness.template_of("other", GraphBuilder::from_text("A")).await;
    let labels: [&[&str]; 4] = [&[], &["team:a"], &["team:a", "env:prod"], &["team:b", "env:prod"]];
    let mut keys = Vec::new();
    for number in 0..24 {
        let (graph, end) = (&graphs[number % 2], RunStatus::ALL[number / 2 % 4]);
        keys.push(run(&harness, graph, labels[number % 3 + number / 12], end).await);
        if number % 3 == 0 {
            harness.advance(10).await;
        }
    }
    run(&harness, &other, &["team:a"], RunStatus::Running).await;
    let all = list(&harness, &graphs[0], &RunFilter::default(), 1000).await.0;
    assert_eq!(all.len(), keys.len());
    let order = |run: &ListedRun| (run.run.created_at, run.run.key);
    assert!(all.iter().rev().is_sorted_by_key(order), "the newest first");
    let middle = all[12].run.created_at;
    for mut filter in filters(&graphs) {
        for (created_after, created_before) in
            [(None, None), (Some(middle), None), (None, Some(middle)), (Some(middle), Some(middle))]
        {
            (filter.created_after, filter.created_before) = (created_after, created_before);
            let expected: Vec<_> =
                all.iter().filter(|run| meets(run, &filter)).map(|run| run.run.key).collect();
            for limit in [1, 3, 1000] {
                let found = list(&harness, &graphs[0], &filter, limit).await.0;
                let found: Vec<_> = found.iter().map(|run| run.run.key).collect();
                assert_eq!(found, expected, "{filter:?} in pages of {limit}");
            }
        }
    }
    harness.check().await;
}

/// Returns filters with each combination of conditions, but for times.
fn filters(graphs: &[Template; 2]) -> Vec<RunFilter> {
    let statuses: [&[RunStatus]; 4] = [
        &[],
        &[RunStatus::Failed],
        &[RunStatus::Running, RunStatus::Cancelled],
        &[RunStatus::Success],
    ];
    let labels: [&[&str]; 5] =
        [&[], &["team:a"], &["env:prod", "team:a"], &["team:a", "team:b"], &["team:c"]];
    let unknown = "unknown".parse().unwrap();
    let mut filters = Vec::new();
    for statuses in statuses {
        for graph in [None, Some(&graphs[1].name), Some(&unknown)] {
            for labels in labels {
                filters.push(RunFilter {
                    statuses: statuses.to_vec(),
                    graph: graph.cloned(),
                    labels: labels.iter().map(|text| label(text)).collect(),
                    ..RunFilter::default()
                });
            }
        }
    }
    filters
}

/// Returns whether a run meets a filter.
fn meets(listed: &ListedRun, filter: &RunFilter) -> bool {
    let has = |label: &Label| listed.labels.iter().any(|it| it == (label.key(), label.value()));
    let run = &listed.run;
    (filter.statuses.is_empty() || filter.statuses.contains(&run.status))
        && filter.graph.as_ref().is_none_or(|graph| run.graph == *graph)
        && filter.labels.iter().all(has)
        && filter.created_after.is_none_or(|time| run.created_at >= time)
        && filter.created_before.is_none_or(|time| run.created_at < time)
}

/// Runs with a label of which few have another: a page is short, and its cursor continues.
async fn a_page_examines_a_bounded_number_of_runs(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let oldest = run(&harness, &template, &["all:x", "few:x"], RunStatus::Running).await;
    harness.advance(10).await;
    let first = oldest.0 + 10_000;
    let copies = format!(
        "WITH RECURSIVE n (id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM n WHERE id < {}) \
         INSERT INTO run (id, uuid, namespace, graph, revision, status, version, inputs, \
             created_at, ended_at, open, failed, states, succeeded, pruned, errored, cancelled, \
             retries, requeues, store_keys, store_bytes, store_version) \
         SELECT n.id, 'c0c0c0c0-0000-7000-8000-' || CAST(100000000000 + n.id AS TEXT), \
             u.namespace, u.graph, u.revision, 'SUCCESS', 1, '{{}}', \
             u.created_at + 5, u.created_at + 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
         FROM n CROSS JOIN run u WHERE u.id = {}",
        first + 4999,
        oldest.0
    );
    harness.database.execute(&copies).await.unwrap();
    let labels = "INSERT INTO label (run, key, value, namespace, created_at) \
                  SELECT id, 'all', 'x', namespace, created_at FROM run WHERE uuid LIKE 'c0c0c0c0-%'";
    harness.database.execute(labels).await.unwrap();
    let labels = ["all:x", "few:x"].map(label).to_vec();
    let filter = RunFilter { labels, ..RunFilter::default() };
    let request = RunPageRequest { after: None, limit: 50 };
    let page = harness.store.runs(&template.namespace, &filter, request).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_some(), "2,000 of 5,001 runs are examined");
    let (found, pages) = list(&harness, &template, &filter, 50).await;
    assert_eq!(found.iter().map(|run| run.run.key).collect::<Vec<_>>(), [oldest]);
    assert_eq!(pages, 3);
    let running = RunFilter {
        statuses: vec![RunStatus::Running],
        labels: vec![label("all:x")],
        ..RunFilter::default()
    };
    assert_eq!(list(&harness, &template, &running, 50).await.0.len(), 1);
}

/// The run that a cursor names is deleted before the next page is read.
async fn a_list_continues_after_a_deleted_run(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(run(&harness, &template, &[], RunStatus::Success).await);
        harness.advance(10).await;
    }
    let filter = RunFilter::default();
    let page = async |after| {
        let request = RunPageRequest { after, limit: 2 };
        let page = harness.store.runs(&template.namespace, &filter, request).await.unwrap();
        let found = page.items.iter().map(|run| run.run.key).collect::<Vec<_>>();
        (found, page.next.map(|next| next.parse::<RunCursor>().unwrap()))
    };
    let (first, next) = page(None).await;
    assert_eq!(first, [keys[3], keys[2]]);
    let named = harness.store.run_info(keys[2]).await.unwrap().unwrap();
    let deletion = Operation::Control(named.into(), Control::Delete);
    assert_eq!(harness.commit_one(deletion).await, Reply::Done);
    assert_eq!(page(next).await.0, [keys[1], keys[0]]);
}

/// A second start with the same key adds no labels to the first run.
async fn labels_belong_to_a_new_run_only(kind: Kind) {
    let harness = Harness::new(kind).await;
    let template = harness.template(GraphBuilder::from_text("A")).await;
    let mut runs = Vec::new();
    for labels in [["team:a"], ["team:b"]] {
        let mut new = harness.new_run(&template).await;
        new.key = Some("once".into());
        set_labels(&mut new, &labels);
        runs.push(Operation::Start(new.into()));
    }
    let done = harness.commit_ok(runs, ClaimMode::NewOnly(0)).await;
    assert!(matches!(done.replies[..], [Reply::Done, Reply::Existing(_)]), "{:?}", done.replies);
    let all = list(&harness, &template, &RunFilter::default(), 9).await.0;
    let team: Labels = [label("team:a")].into_iter().collect();
    assert_eq!((all.len(), &all[0].labels), (1, &team));
    let info = harness.store.run_info(all[0].run.key).await.unwrap().unwrap();
    assert_eq!(info.labels, team);
    assert_eq!(harness.number("SELECT COUNT(*) FROM label").await, 1);
    harness.check().await;
}
