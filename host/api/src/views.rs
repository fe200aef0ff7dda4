//! Conversions of the host's results to answers. Texts that the store holds are passed on
//! unparsed. Not here: how an answer is sent (`answer`).

use std::collections::BTreeMap;

use exosphere_api_types::{
    AnyJson, AttemptDetails, AttemptLog, Edge, EffectiveSettings, Failure, FieldDiff, GraphApplied,
    GraphDetails, GraphDiff, GraphSummary, HostDetails, Json, Labels, NamespaceDetails,
    NamespaceQuotas, NodeCounts, NodeDiff, Pause, PluginGrants, ResolvedNode, ResultOutput,
    RevisionSummary, RunCounts, RunDetails, RunInputs, RunLogs, RunPause, RunResult, RunSnapshot,
    RunSummary, StateDetails, StateInputs, StateOutputs, StateSummary,
};
use exosphere_orchestrator as host;
use exosphere_orchestrator::domain::graph::{Graph, Node, diff};
use exosphere_orchestrator::domain::ids::{Name, RunId};
use exosphere_orchestrator::domain::limits::Limit;
use exosphere_orchestrator::domain::node_counts::NodeCount;
use exosphere_orchestrator::domain::state::{RunStatus, Status};

/// Converts a number that the database keeps from being negative.
pub(crate) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(crate) fn graph_applied(applied: host::GraphApplied) -> GraphApplied {
    let nodes = applied.graph.nodes().map(|(_, node)| ResolvedNode {
        identifier: node.identifier.to_string(),
        node_name: node.node_name.to_string(),
        plugin: node.plugin.to_string(),
        digest: node.digest.to_string(),
    });
    GraphApplied {
        nodes: nodes.collect(),
        name: applied.name.into(),
        revision: to_u64(applied.revision),
        digest: applied.digest,
        changed: applied.changed,
    }
}

pub(crate) fn graph_summary(graph: host::GraphEntry) -> GraphSummary {
    GraphSummary {
        name: graph.name.into(),
        revision: to_u64(graph.revision),
        created_at: graph.created_at,
        nodes: to_u64(graph.nodes),
    }
}

pub(crate) fn graph_details(graph: host::GraphRow, pause: Option<host::Pause>) -> GraphDetails {
    GraphDetails {
        name: graph.name.into(),
        revision: to_u64(graph.revision.number),
        digest: graph.revision.digest,
        created_at: graph.created_at,
        pause: pause.map(self::pause),
        template: Json::Text(graph.body),
    }
}

pub(crate) fn revision_summary(revision: host::RevisionEntry) -> RevisionSummary {
    RevisionSummary {
        revision: to_u64(revision.number),
        digest: revision.digest,
        created_at: revision.created_at,
        current: revision.is_current,
    }
}

pub(crate) fn graph_diff(name: Name, (from, to): (i64, i64), diff: diff::GraphDiff) -> GraphDiff {
    let fields = |fields: Vec<diff::FieldDiff>| fields.into_iter().map(field_diff).collect();
    let edges = |edges: Vec<diff::Edge>| -> Vec<Edge> {
        edges.into_iter().map(|edge| Edge { from: edge.from, to: edge.to }).collect()
    };
    let node = |node: diff::NodeDiff| NodeDiff {
        identifier: node.identifier,
        fields: fields(node.fields),
    };
    GraphDiff {
        name: name.into(),
        from: to_u64(from),
        to: to_u64(to),
        added: diff.added,
        removed: diff.removed,
        changed: diff.changed.into_iter().map(node).collect(),
        edges_added: edges(diff.edges_added),
        edges_removed: edges(diff.edges_removed),
        settings: fields(diff.settings),
    }
}

fn field_diff(diff: diff::FieldDiff) -> FieldDiff {
    FieldDiff { field: diff.field, from: diff.from.map(AnyJson), to: diff.to.map(AnyJson) }
}

/// Converts a pause of a graph or a namespace.
pub(crate) fn pause(pause: host::Pause) -> Pause {
    Pause { since: pause.since, by: pause.by, reason: pause.reason }
}

fn run_pause(run: host::RunPause) -> RunPause {
    let (of, found) = match run {
        host::RunPause::Run(pause) => ("run", pause),
        host::RunPause::Graph(pause) => ("graph", pause),
        host::RunPause::Namespace(pause) => ("namespace", pause),
    };
    RunPause { of: of.to_owned(), pause: found.map(pause) }
}

pub(crate) fn host_details(found: host::HostView) -> HostDetails {
    HostDetails {
        number: found.number,
        name: found.name,
        version: found.version,
        alive: found.alive,
        first_seen_at: found.first_seen_at,
        started_at: found.started_at,
        ended_at: found.ended_at,
    }
}

pub(crate) fn run_summary(run: host::RunView, labels: Labels) -> RunSummary {
    let counters = run.counters;
    let ended = counters.succeeded + counters.pruned + counters.errored + counters.cancelled;
    RunSummary {
        run: run.id.to_string(),
        graph: run.graph.into(),
        revision: to_u64(run.revision),
        status: run.status.into(),
        // A sweep of a cancelled run may not have taken the flag off yet.
        paused: run.paused && run.status == RunStatus::Running,
        version: run.version,
        created_at: run.created_at,
        due_at: run.due_at,
        ended_at: run.ended_at,
        labels: labels.into(),
        reason: run.missed.map(|kind| kind.as_str().to_owned()),
        deadline_at: run.deadline_at,
        start_by_at: run.start_by_at,
        counts: RunCounts {
            states: to_u64(counters.states),
            open: to_u64(counters.states - ended),
            success: to_u64(counters.succeeded),
            pruned: to_u64(counters.pruned),
            errored: to_u64(counters.errored),
            cancelled: to_u64(counters.cancelled),
            retries: to_u64(counters.retries),
            requeues: to_u64(counters.requeues),
            cpu_us: to_u64(counters.cpu_us),
            peak_memory_bytes: to_u64(counters.memory_bytes),
        },
    }
}

/// Returns a run, and the memory permit to be held until it has been sent.
pub(crate) fn run_details(details: host::RunDetails) -> (RunDetails, Option<host::AnswerPermit>) {
    let host::RunDetails { snapshot, store, permit } = details;
    let RunSnapshot { summary, failures, pause, nodes } = run_snapshot(snapshot);
    (RunDetails { summary, store, failures, pause, nodes }, permit)
}

/// Returns a run without its store.
pub(crate) fn run_snapshot(snapshot: host::RunSnapshot) -> RunSnapshot {
    let host::RunSnapshot { run, labels, graph, failures, pause } = snapshot;
    let id = run.id;
    let failures = failures.into_iter().map(|state| state_summary(id, &graph, state));
    let failures = failures.collect();
    let nodes = graph.nodes().map(|(at, node)| node_counts(node, run.node_counts.get(at)));
    let nodes = nodes.collect();
    let pause = pause.map(run_pause);
    let summary = run_summary(run, labels);
    RunSnapshot { summary, failures, pause, nodes }
}

fn node_counts(node: &Node, count: NodeCount) -> NodeCounts {
    NodeCounts {
        identifier: node.identifier.to_string(),
        waiting: count.waiting,
        active: count.active,
        success: count.succeeded,
        pruned: count.pruned,
        errored: count.errored,
        cancelled: count.cancelled,
        retries: count.retries,
    }
}

/// Returns what a run was started with, and the memory permit to be held until it has been sent.
pub(crate) fn run_inputs(given: host::RunGiven) -> (RunInputs, Option<host::AnswerPermit>) {
    let host::RunGiven { run, start, permit } = given;
    let delay_ms = start.due_at.map(|due| to_u64(due.saturating_sub(start.created_at)));
    let inputs = RunInputs {
        run: run.id.to_string(),
        graph: run.graph_name.to_string(),
        revision: to_u64(run.revision),
        inputs: Json::Text(run.inputs.to_string()),
        store: start.store,
        labels: start.labels.into(),
        idempotency_key: start.key,
        created_at: start.created_at,
        due_at: start.due_at,
        delay_ms,
        started_by: start.started_by,
    };
    (inputs, permit)
}

/// Returns the inputs of a state, and the memory permit to be held until they have been sent.
pub(crate) fn state_inputs(given: host::StateGiven) -> (StateInputs, Option<host::AnswerPermit>) {
    let host::StateGiven { run, graph, path, inputs, permit } = given;
    let state = format!("{run}/{}", graph.shown_path(&path));
    let (inputs, failed) = match inputs {
        Ok(inputs) => (Some(Json::Text(inputs)), None),
        Err(why) => (None, Some(why)),
    };
    let failure = failed.map(|why| Failure {
        kind: why.kind.as_str().to_owned(),
        message: why.message,
        details: why.details.map(|details| Json::Parsed(AnyJson(details))),
    });
    (StateInputs { state, inputs, failure }, permit)
}

/// Returns a page of the logs of a run, and the memory permit to be held until it has been sent.
pub(crate) fn run_logs(page: host::LogPage) -> (RunLogs, Option<host::AnswerPermit>) {
    let host::LogPage { run: _, graph, logs, permit } = page;
    let attempts = logs.items.into_iter().map(|log| AttemptLog {
        path: graph.shown_path(&log.path),
        identifier: graph.get(log.node).map(|node| node.identifier.to_string()),
        attempt: log.attempt,
        ended_at: log.ended_at,
        outcome: log.outcome.name().to_owned(),
        logs: Json::Text(log.logs),
    });
    (RunLogs { attempts: attempts.collect(), next: logs.next }, permit)
}

/// Returns a page of the outputs of a state, and the memory permit to be held until it has been
/// sent.
pub(crate) fn state_outputs(
    page: host::OutputPage,
    path: &str,
) -> (StateOutputs, Option<host::AnswerPermit>) {
    let host::OutputPage { run, graph: _, outputs, next, permit } = page;
    let outputs = outputs.into_iter().map(|output| Json::Text(output.body)).collect();
    let next = next.map(|next| next.number().to_string());
    (StateOutputs { state: format!("{}/{path}", run.id), outputs, next }, permit)
}

/// Returns a page of the result of a run, and the memory permit to be held until it has been sent.
pub(crate) fn run_result(page: host::OutputPage) -> (RunResult, Option<host::AnswerPermit>) {
    let host::OutputPage { run, graph, outputs, next, permit } = page;
    let outputs = outputs.into_iter().map(|output| ResultOutput {
        path: graph.shown_path(&output.path),
        index: output.number,
        output: Json::Text(output.body),
    });
    let result = RunResult {
        run: run.id.to_string(),
        status: run.status.into(),
        outputs: outputs.collect(),
        next: next.map(|next| next.to_string()),
    };
    (result, permit)
}

pub(crate) fn state_summary(run: RunId, graph: &Graph, state: host::StateView) -> StateSummary {
    let node = graph.get(state.node);
    let path = graph.shown_path(&state.path);
    StateSummary {
        state: format!("{run}/{path}"),
        identifier: node.map(|node| node.identifier.to_string()),
        node_name: node.map(|node| node.node_name.to_string()),
        path,
        status: state.status.into(),
        attempt: state.attempt,
        retries: state.retries,
        requeues: state.requeues,
        created_at: state.created_at,
        due_at: (state.status == Status::Created).then_some(state.due_at),
        began_at: state.began_at,
        host: state.host,
        ended_at: state.ended_at,
        output_count: state.outputs,
        output_bytes: state.usage.map(|usage| usage.output_bytes),
        details_bytes: state.details_bytes.map(to_u64),
        failure: state.failure.map(failure),
    }
}

/// Returns a state, and the memory permit to be held until it has been sent.
pub(crate) fn state_details(
    details: host::StateDetails,
) -> (StateDetails, Option<host::AnswerPermit>) {
    let host::StateDetails { run, graph, mut state, outputs, attempts, permit } = details;
    let (usage, data) = (state.usage, state.data.take());
    let details = StateDetails {
        summary: state_summary(run, &graph, state),
        usage,
        outputs: outputs.into_iter().map(Json::Text).collect(),
        data: data.map(Json::Text),
        attempts: attempts.into_iter().map(attempt).collect(),
    };
    (details, permit)
}

fn attempt(attempt: host::AttemptRow) -> AttemptDetails {
    AttemptDetails {
        number: attempt.number,
        began_at: attempt.began_at,
        host: attempt.host,
        ended_at: Some(attempt.ended_at),
        outcome: Some(attempt.outcome.name().to_owned()),
        usage: attempt.usage,
        failure: attempt.failure.map(failure),
        logs: attempt.logs.map_or_else(Json::default, Json::Text),
    }
}

fn failure(failure: host::FailureView) -> Failure {
    Failure {
        kind: failure.kind.as_str().to_owned(),
        message: failure.message,
        details: failure.details.map(Json::<AnyJson>::Text),
    }
}

pub(crate) fn namespace_details(namespace: host::NamespaceDetails) -> NamespaceDetails {
    let host::NamespaceDetails { name, limits, effective, own_slots, slots, version: _, pause: at } =
        namespace;
    let limit_value = |limit: &Limit| (limit.to_string(), effective.get(*limit));
    let effective: BTreeMap<_, _> = Limit::ALL.iter().map(limit_value).collect();
    NamespaceDetails {
        name: name.into(),
        limits: limits.iter().map(|(limit, value)| (limit.name().to_owned(), value)).collect(),
        slots: own_slots,
        effective: EffectiveSettings { limits: effective, slots },
        pause: at.map(pause),
    }
}

pub(crate) fn namespace_quotas(found: host::NamespaceQuotas) -> NamespaceQuotas {
    NamespaceQuotas { quotas: found.quotas, used: found.used }
}

pub(crate) fn plugin_grants(granted: host::PluginGrants) -> PluginGrants {
    PluginGrants { plugin: granted.plugin.into(), grants: granted.grants }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_api_types::{RunStarted, to_text};
    use exosphere_orchestrator::domain::failure::FailureKind;
    use exosphere_orchestrator::domain::graph::testing::GraphBuilder;
    use exosphere_orchestrator::domain::ids::{NodeIx, RunKey, StateId};
    use exosphere_orchestrator::domain::json::{from_value, read_stored};
    use exosphere_orchestrator::domain::label::Label;
    use exosphere_orchestrator::domain::limits;
    use serde_json::json;

    use std::sync::Arc;

    use super::*;
    use crate::plugin_views::capabilities;
    use crate::problem::Problem;
    use exosphere_orchestrator::domain::outcome::AttemptOutcome;
    use exosphere_orchestrator::domain::path::Path;

    const RUN: &str = "0195b7f0-0000-7000-8000-000000000001";

    fn run(status: RunStatus) -> host::RunView {
        host::RunView {
            key: RunKey(1),
            id: RunId(RUN.parse().unwrap()),
            graph: "g".parse().unwrap(),
            revision: 3,
            status,
            paused: false,
            version: 9,
            created_at: 1000,
            due_at: Some(1200),
            ended_at: None,
            missed: None,
            deadline_at: Some(5000),
            start_by_at: None,
            counters: host::RunCounters {
                states: 7,
                succeeded: 1,
                pruned: 1,
                errored: 1,
                retries: 2,
                store_keys: 1,
                cpu_us: 1500,
                memory_bytes: 65536,
                ..host::RunCounters::default()
            },
            node_counts: host::domain::node_counts::NodeCounts::decode("0-0:,4,1,1,1,,2").unwrap(),
        }
    }

    fn state(status: Status, details: Option<&str>) -> host::StateView {
        let failure = host::FailureView {
            kind: FailureKind::InvalidOutput,
            message: "m".to_owned(),
            details: details.map(str::to_owned),
        };
        host::StateView {
            id: StateId(7),
            node: NodeIx(0),
            path: Path::root(),
            status,
            attempt: 2,
            retries: 1,
            requeues: 0,
            created_at: 1000,
            due_at: 1000,
            began_at: Some(1500),
            host: Some(2),
            ended_at: Some(2000),
            outputs: None,
            failure: (status == Status::Errored).then_some(failure),
            data: (status == Status::Pruned).then(|| "[1]".to_owned()),
            usage: None,
            details_bytes: details.map(|details| details.len() as i64),
        }
    }

    fn summary_json(status: &str) -> serde_json::Value {
        json!({
            "state": format!("{RUN}/A"), "identifier": "A", "node_name": "A",
            "path": "A", "due_at": null, "status": status, "attempt": 2, "retries": 1, "requeues": 0,
            "created_at": 1000, "began_at": 1500, "host": 2, "ended_at": 2000, "output_count": null,
            "output_bytes": null, "details_bytes": null, "failure": null,
        })
    }

    fn written(answer: &impl serde::Serialize) -> serde_json::Value {
        read_stored(&String::from_utf8(to_text(answer).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_start_answers_with_the_whole_run() {
        let snapshot = host::RunSnapshot {
            run: run(RunStatus::Running),
            labels: [Label::new("team", "a").unwrap()].into_iter().collect(),
            graph: Arc::new(GraphBuilder::from_text("A").build().unwrap()),
            failures: vec![
                state(Status::Errored, Some("{\"a\":1e400}")),
                state(Status::Errored, None),
            ],
            pause: Some(host::RunPause::Run(None)),
        };
        let store = [("k".to_owned(), "v".to_owned())].into();
        let details = host::RunDetails { snapshot, store, permit: None };
        let details = run_details(details).0;
        let text = to_text(&RunStarted { details, started_before: true }).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(r#""details":{"a":1e400}"#), "not parsed: {text}");
        let text = text.replace("1e400", "1");
        let (mut first, mut second) = (summary_json("ERRORED"), summary_json("ERRORED"));
        first["failure"] = json!({"kind": "invalid-output", "message": "m", "details": {"a": 1}});
        first["details_bytes"] = json!(11);
        second["failure"] = json!({"kind": "invalid-output", "message": "m"});
        let expected = json!({
            "run": RUN, "graph": "g", "revision": 3, "status": "RUNNING", "paused": false,
            "version": 9, "created_at": 1000, "ended_at": null, "labels": {"team": "a"},
            "reason": null, "due_at": 1200, "deadline_at": 5000, "start_by_at": null,
            "counts": {
                "states": 7, "open": 4, "success": 1, "pruned": 1, "errored": 1, "cancelled": 0,
                "retries": 2, "requeues": 0, "cpu_us": 1500, "peak_memory_bytes": 65536,
            },
            "store": {"k": "v"}, "failures": [first, second], "started_before": true,
            "pause": {"of": "run", "pause": null},
            "nodes": [{
                "identifier": "A", "waiting": 0, "active": 4, "success": 1, "pruned": 1,
                "errored": 1, "cancelled": 0, "retries": 2,
            }],
        });
        assert_eq!(read_stored(&text).unwrap(), expected);
    }

    #[test]
    fn state_details_keep_stored_texts() {
        let usage = limits::Usage { cpu_us: 5, ..limits::Usage::default() };
        let attempt = host::AttemptRow {
            number: 1,
            began_at: Some(4),
            host: Some(2),
            ended_at: 5,
            outcome: AttemptOutcome::Errored,
            failure: state(Status::Errored, None).failure,
            logs: Some(r#"[{"level":"info","at":1,"message":"x"}]"#.to_owned()),
            usage: Some(usage),
        };
        let silent = host::AttemptRow { failure: None, logs: None, usage: None, ..attempt.clone() };
        let details = host::StateDetails {
            run: RunId(RUN.parse().unwrap()),
            graph: Arc::new(GraphBuilder::from_text("A").build().unwrap()),
            state: state(Status::Pruned, None),
            outputs: vec!["{\"n\":1}".to_owned(), "{}".to_owned()],
            attempts: vec![attempt, silent],
            permit: None,
        };
        let mut expected = summary_json("PRUNED");
        let usage = json!({
            "cpu_us": 5, "peak_memory_bytes": 0, "host_calls": 0, "input_bytes": 0,
            "output_bytes": 0,
        });
        let failure = json!({"kind": "invalid-output", "message": "m"});
        let rest = json!({
            "usage": null, "outputs": [{"n": 1}, {}], "data": [1],
            "attempts": [
                {"number": 1, "began_at": 4, "host": 2, "ended_at": 5, "outcome": "ERRORED", "usage": usage,
                 "failure": failure, "logs": [{"level": "info", "at": 1, "message": "x"}]},
                {"number": 1, "began_at": 4, "host": 2, "ended_at": 5, "outcome": "ERRORED", "usage": null,
                 "failure": null, "logs": []},
            ],
        });
        expected.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        assert_eq!(written(&state_details(details).0), expected);
    }

    #[test]
    fn capabilities_name_import_or_secret() {
        let web: Name = "web".parse().unwrap();
        let missing = host::domain::grant::Grants::default()
            .missing(&["wasi:http/outgoing-handler@0.2.3".to_owned()], &[web]);
        let all = missing.into_iter().map(|requested| host::Capability {
            requested,
            granted: false,
            remedy: "grant".to_owned(),
        });
        let expected = json!([
            {"import": "wasi:http/outgoing-handler@0.2.3", "needs": "http", "granted": false,
             "grant": "grant"},
            {"secret": "web", "needs": "secrets", "granted": false, "grant": "grant"},
        ]);
        assert_eq!(written(&capabilities(all.collect())), expected);
    }

    #[test]
    fn problems_have_the_documented_shape() {
        let item = |path: &str| host::domain::graph::Problem {
            path: path.to_owned(),
            message: "m".to_owned(),
        };
        let subject = "the graph g".to_owned();
        for error in [
            host::Error::Invalid { subject, problems: vec![item("$.a"), item("$.b")] },
            host::Error::Description { problems: vec![item("$")] },
            host::Error::Unavailable,
        ] {
            let sent = serde_json::to_value(Problem::from(error)).unwrap();
            let read: exosphere_api_types::Problem = from_value(sent.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), sent);
        }
    }
}
