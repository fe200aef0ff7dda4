//! Tests of the fence guards in the statements that write. A commit checks its claims before it
//! writes, so an old claim never gets this far: the tests run the statements one by one.
//!
//! Commits themselves are tested in `host/store/tests/conformance`, on both databases.

use exosphere_domain::deadline::Deadlines;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::ids::{Name, RunId};
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::plan::root_state;
use exosphere_tests::postgres::Postgres;

use super::batch::NewRun;
use super::*;
use crate::{Database, HostIdentity, NewPlugin, SecretCipher, Store, in_transaction};

const NO_TEXT: Option<&str> = None;

pub(crate) fn name() -> Name {
    "n".parse().unwrap()
}

/// Uploads every plugin that the nodes of a graph name.
async fn push_uploads(store: &Store, graph: &Graph) {
    for (plugin, digest) in graph.uploads() {
        let new = NewPlugin {
            namespace: name(),
            name: plugin.clone(),
            version: String::new(),
            digest,
            bytes: Vec::new(),
            nodes: Vec::new(),
            imports: Vec::new(),
            compile_ms: 0,
        };
        store.push_plugin(new, 0).await.unwrap();
    }
}

/// Returns a batch that starts a run with `bytes` bytes in its store.
pub(crate) async fn start(store: &Store, session: SessionId, bytes: usize) -> Batch {
    start_with_inputs(store, session, "{}", bytes).await
}

/// Returns a batch that starts a run with these inputs and `bytes` bytes in its store.
pub(crate) async fn start_with_inputs(
    store: &Store,
    session: SessionId,
    inputs: &str,
    bytes: usize,
) -> Batch {
    let graph = Arc::new(GraphBuilder::from_text("A").build().unwrap());
    push_uploads(store, &graph).await;
    let applied = store.apply_graph(&name(), &name(), &graph, &BTreeMap::new(), 0).await.unwrap();
    let key = store.run_key(0).await.unwrap();
    let info = Arc::new(RunInfo {
        key,
        id: RunId(uuid::Uuid::from_u128(key.0 as u128)),
        namespace: name(),
        namespace_key: applied.namespace,
        graph_name: name(),
        revision: applied.revision.number,
        revision_id: applied.revision.id,
        graph: graph.clone(),
        inputs: inputs.into(),
        labels: Default::default(),
    });
    let (root, counts) = root_state(&graph, &store.state_ids(1, 0).await.unwrap());
    let values = BTreeMap::from([("k".to_owned(), "x".repeat(bytes))]);
    let revision = applied.revision.id;
    let limits = Limits::default().with(Limit::StoreKeys, 10);
    let limits = Arc::new(limits.with(Limit::StoreBytes, 100_000_000));
    let new = NewRun {
        info,
        revision,
        is_pinned: false,
        deadlines: Deadlines::default(),
        store: values,
        root,
        counts,
        key: None,
        digest: None,
        started_by: None,
        delay: 0,
        limits,
    };
    Batch {
        operations: Arc::new([Operation::Start(new.into())]),
        range: 0..1,
        session,
        now: 1,
        claim_mode: ClaimMode::NewOnly(1),
        shares: ClaimShares::unbounded(),
        rotation: 0,
        cursors: BTreeMap::new(),
        staged_queues: StagedQueues::default(),
        traces: None,
    }
}

/// Runs a statement for one row: a claim, and the other parameters.
async fn changed(
    store: &Store,
    statement: &'static crate::dialect::Statement,
    (id, session, fence): (i64, i64, i64),
    rest: fn(ParamRows<'static>) -> ParamRows<'static>,
) -> u64 {
    let rows = rest(ParamRows::default().ints([id]).ints([session]).ints([fence]));
    in_transaction!(store, 0, |tx| tx.execute_each(statement, &rows)).unwrap()
}

#[tokio::test]
async fn guarded_writes_reject_an_old_fence() {
    let folder = tempfile::tempdir().unwrap();
    let url = Postgres::shared().unwrap().create_database("guards").unwrap();
    let databases = [Database::Sqlite(folder.path().join("db")), Database::Postgres(url)];
    let finish = |rows: ParamRows<'static>| {
        let rows = rows.texts(["PRUNED"]).all(0).maybe_ints([None]).maybe_texts([NO_TEXT]);
        let rows = rows.maybe_texts([NO_TEXT]).maybe_texts([NO_TEXT]);
        let rows = rows.maybe_ints([None]).maybe_ints([None]);
        rows.maybe_ints([None]).maybe_ints([None]).maybe_ints([None]).maybe_ints([None])
    };
    let repeat = |rows: ParamRows<'static>| (0..8).fold(rows, |rows, _| rows.all(0));
    let record_begin = |rows: ParamRows<'static>| rows;
    for database in databases {
        let store = Store::open(&database, SecretCipher::new(&[7; 32])).await.unwrap();
        let session = store.begin_session(&HostIdentity::new("host", "host"), 0).await.unwrap();
        for (text, rest) in [
            (sql::FINISH, finish as fn(_) -> _),
            (sql::RESCHEDULE, repeat),
            (sql::RECORD_BEGIN, record_begin),
        ] {
            let done = store.commit(start(&store, session, 1).await).await.unwrap();
            let (id, session) = (done.claimed[0].state.id.0, session.0);
            for wrong in
                [(id, session + 1, 1), (id, session, 0), (id, session, 2), (id + 1, session, 1)]
            {
                assert_eq!(changed(&store, text, wrong, rest).await, 0, "{}", text.sqlite);
            }
            assert_eq!(changed(&store, text, (id, session, 1), rest).await, 1);
            // An ended claim has no matching fence.
            let second_change = changed(&store, text, (id, session, 1), rest).await;
            assert_eq!(second_change, u64::from(text.sqlite == sql::RECORD_BEGIN.sqlite));
        }
        store.close().await;
    }
}
