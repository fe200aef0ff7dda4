//! Executions of guests: inputs and outcomes, isolation from each other, slots, and the
//! cache of compiled code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use exosphere_domain::failure::FailureKind;
use exosphere_domain::ids::Digest;
use exosphere_domain::journal::{Entry, Write};
use exosphere_domain::limits::Limit;
use exosphere_domain::outcome::Outcome;
use exosphere_sandbox::{LoadError, Sandbox};
use support::*;

#[tokio::test]
async fn outputs_are_returned_as_written() {
    let bench = Bench::new();
    let done = bench.run(&returns(r#"{ "a": [1, 2] }"#)).await;
    assert_eq!(done.usage.output_bytes, 15);
    assert_eq!(done.usage.peak_memory_bytes, 2 << 16);
    assert_eq!(outputs(done), [r#"{"a":[1,2]}"#]);
    // Returns its inputs.
    let echo = r#"(func (export "execute") (param i32 i32 i32 i32) (result i32)
        (call $return (local.get 2) (local.get 3)))"#;
    let done = bench.run_with(&guest("", echo), |call| call.inputs = r#"{"x":"ü"}"#.into()).await;
    assert_eq!(outputs(done), [r#"{"x":"ü"}"#]);
}

#[tokio::test]
async fn signals_and_failures_are_returned() {
    let bench = Bench::new();
    let requeue = r#"(func (export "execute") (param i32 i32 i32 i32) (result i32)
        (i32.store8 (i32.const 1408) (i32.const 2))
        (i64.store (i32.const 1416) (i64.const 1500))
        (i32.const 1400))"#;
    let done = bench.run(&guest("", requeue)).await;
    assert_eq!(done.outcome, Outcome::RequeueAfter(1500));
    let prune = r#"(func (export "execute") (param i32 i32 i32 i32) (result i32)
        (i32.store8 (i32.const 1408) (i32.const 1))
        (i32.const 1400))"#;
    assert_eq!(bench.run(&guest("", prune)).await.outcome, Outcome::Prune(None));
    for (retryable, kind) in [(0, FailureKind::Permanent), (1, FailureKind::Retryable)] {
        let fails = format!(
            r#"(data (i32.const 4096) "no luck")
            (func (export "execute") (param i32 i32 i32 i32) (result i32)
              (i32.store8 (i32.const 1400) (i32.const 1))
              (i32.store (i32.const 1408) (i32.const 4096))
              (i32.store (i32.const 1412) (i32.const 7))
              (i32.store8 (i32.const 1416) (i32.const {retryable}))
              (i32.const 1400))"#
        );
        let done = bench.run(&guest("", &fails)).await;
        assert_eq!(failure(&done).kind, kind);
        assert_eq!(failure(&done).message, "no luck");
    }
}

#[tokio::test]
async fn store_writes_go_to_the_journal() {
    let bench = Bench::new();
    let text = format!(
        r#"(data (i32.const 4096) "ab") {}"#,
        executing(
            "(call $get (i32.const 4096) (i32.const 1) (i32.const 2000))
             (call $set (i32.const 4097) (i32.const 1)
               (i32.load (i32.const 2004)) (i32.load (i32.const 2008)))
             (call $increment (i32.const 4096) (i32.const 1) (i64.const 2))"
        )
    );
    let entry = Entry { value: "41".into(), version: 3 };
    let stored = Arc::new(Fixed(BTreeMap::from([("a".to_owned(), entry)])));
    let done = bench.run_with(&guest("store", &text), |call| call.store = stored.clone()).await;
    let writes: Vec<_> = done.journal.writes().collect();
    assert_eq!(writes, [("a", &Write::Increment(2)), ("b", &Write::Set("41".into()))]);
    // A failed attempt changes nothing in the store.
    let text = text.replace("(i64.const 2))", "(i64.const 2)) unreachable");
    let done = bench.run_with(&guest("store", &text), |call| call.store = stored).await;
    assert_eq!(failure(&done).kind, FailureKind::Trap);
    assert!(done.journal.is_empty());
}

#[tokio::test]
async fn guests_see_nothing_of_earlier_ones() {
    let bench = Bench::with_slots(1);
    // Returns the data that it finds, and leaves other data.
    let text = r#"(data (i32.const 4096) "{\"n\":0}")
        (func (export "execute") (param i32 i32 i32 i32) (result i32)
          (i32.store8 (i32.const 4101)
            (i32.add (i32.load8_u (i32.const 4101)) (i32.load8_u (i32.const 70000))))
          (i32.store8 (i32.const 70000) (i32.const 1))
          (memory.fill (i32.const 71000) (i32.const 255) (i32.const 50000))
          (call $return (i32.const 4096) (i32.const 7)))"#;
    let plugin = bench.plugin(&guest("", text)).await;
    for _ in 0..5 {
        let done = bench.sandbox.invoke(&plugin, invocation()).await;
        assert_eq!(outputs(done), [r#"{"n":0}"#]);
    }
}

fn sleeping(millis: u64) -> Vec<u8> {
    let nanos = millis * 1_000_000;
    guest("sleep", &executing(&format!("(call $block (call $sleep (i64.const {nanos})))")))
}

#[tokio::test]
async fn guests_beyond_the_slots_wait() {
    let bench = Bench::with_slots(2);
    let plugin = bench.plugin(&sleeping(100)).await;
    let started = Instant::now();
    let calls = (0..6).map(|_| {
        let mut call = invocation();
        // The clock of each execution begins when it has a slot.
        limit(&mut call, Limit::TimeoutMs, 250);
        bench.sandbox.invoke(&plugin, call)
    });
    for done in futures::future::join_all(calls).await {
        assert_eq!(outputs(done), ["{}"]);
    }
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(bench.sandbox.free_instances(), 2);
}

#[tokio::test]
async fn every_slot_holds_the_largest_guest() {
    let bench = Bench::with_slots(3);
    let text = format!(
        "{} {} {}",
        "(memory 1)".repeat(7),
        "(table 100 funcref)".repeat(31),
        executing("(call $block (call $sleep (i64.const 200000000)))")
    );
    let plugin = bench.plugin(&guest("sleep", &text)).await;
    let calls = (0..7).map(|_| bench.sandbox.invoke(&plugin, invocation()));
    for done in futures::future::join_all(calls).await {
        assert_eq!(outputs(done), ["{}"]);
    }
}

#[tokio::test]
async fn a_dropped_call_frees_its_slot() {
    let bench = Bench::with_slots(1);
    let plugin = bench.plugin(&sleeping(3_600_000)).await;
    let call = bench.sandbox.invoke(&plugin, invocation());
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    bench.assert_healthy(1).await;
    let plugin = bench.plugin(&executes("(loop $l (br $l))")).await;
    let call = bench.sandbox.invoke(&plugin, invocation());
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    bench.assert_healthy(1).await;
}

#[tokio::test]
async fn a_cancelled_call_reports_its_usage() {
    let bench = Bench::with_slots(1);
    for (text, spins) in [
        (executing("(call $block (call $sleep (i64.const 3600000000000)))"), false),
        (executing("(loop $l (br $l))"), true),
    ] {
        let plugin = bench.plugin(&guest("sleep", &text)).await;
        let call = invocation();
        let cancel = call.cancel.clone();
        let call = bench.sandbox.invoke(&plugin, call);
        let cancel_later = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel();
            Instant::now()
        };
        let (done, cancelled) = tokio::join!(call, cancel_later);
        assert!(cancelled.elapsed() < Duration::from_millis(100), "{:?}", cancelled.elapsed());
        assert_eq!(done.outcome, Outcome::Released);
        assert_eq!(done.usage.cpu_us > 10_000, spins, "{:?}", done.usage);
        bench.assert_healthy(1).await;
    }
    // An execution that is cancelled before its start ends as it starts.
    let plugin = bench.plugin(&executes("(loop $l (br $l))")).await;
    let call = invocation();
    call.cancel.cancel();
    assert_eq!(bench.sandbox.invoke(&plugin, call).await.outcome, Outcome::Released);
}

#[tokio::test]
async fn a_spinning_guest_lets_others_run() {
    let bench = Bench::with_slots(2);
    let (spin, quick) = (executes("(loop $l (br $l))"), returns("{}"));
    let (spin, quick) = (bench.plugin(&spin).await, bench.plugin(&quick).await);
    // One thread for both, so that the second runs only if the first yields.
    let slow = bench.sandbox.invoke(&spin, invocation());
    let fast = async {
        let started = Instant::now();
        for _ in 0..3 {
            outputs(bench.sandbox.invoke(&quick, invocation()).await);
        }
        started.elapsed()
    };
    let (slow, fast) = futures::future::join(slow, fast).await;
    assert_limit(&slow, "cpu_ms");
    assert!(fast < Duration::from_millis(250), "{fast:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_turn_is_not_billed() {
    // Forty slices of ten milliseconds on each processor are ahead.
    let spinners = 40 * std::thread::available_parallelism().unwrap().get();
    let bench = Arc::new(Bench::with_slots(u32::try_from(spinners).unwrap() + 1));
    let spin = bench.plugin(&executes("(loop $l (br $l))")).await;
    let quick = bench.plugin(&returns("{}")).await;
    let in_turn = |namespace: String| {
        let mut call = invocation();
        call.waited = Duration::from_secs(1);
        call.context.namespace = namespace;
        call
    };
    let mut all = tokio::task::JoinSet::new();
    for number in 0..spinners {
        let (bench, spin) = (bench.clone(), spin.clone());
        let mut call = in_turn(format!("{number:04}"));
        limit(&mut call, Limit::CpuMs, 10_000);
        all.spawn(async move { bench.sandbox.invoke(&spin, call).await });
    }
    while bench.sandbox.free_instances() > 1 {
        tokio::task::yield_now().await;
    }
    let mut late_permit = in_turn("late".to_owned());
    limit(&mut late_permit, Limit::TimeoutMs, 100);
    let done = bench.sandbox.invoke(&quick, late_permit).await;
    let queued = done.queued;
    assert_eq!(outputs(done), ["{}"]);
    assert!(queued > Duration::from_millis(100), "{queued:?}");
    // A cancel ends the wait.
    let cancelled = in_turn("later".to_owned());
    cancelled.cancel.cancel();
    let cancelling = Instant::now();
    let done = bench.sandbox.invoke(&quick, cancelled).await;
    assert_eq!(done.outcome, Outcome::Released);
    assert!(cancelling.elapsed() < Duration::from_millis(200), "{:?}", cancelling.elapsed());
}

async fn restored(sandbox: &Sandbox, digest: Digest) -> bool {
    let unused_fetch = || async { Err::<Vec<u8>, _>(std::io::Error::other("not needed")) };
    sandbox.load(digest, unused_fetch).await.is_ok()
}

#[tokio::test]
async fn tampered_cached_code_is_recompiled() {
    let bench = Bench::new();
    let bytes = returns("{}");
    let digest = bench.sandbox.admit(&bytes).await.unwrap().digest;
    let reopen = |key| sandbox(bench.folder.path(), 2, key);
    let file = || {
        let mut files = std::fs::read_dir(bench.folder.path()).unwrap();
        files.next().unwrap().unwrap().path()
    };
    assert!(restored(&reopen([7; 32]), digest).await);
    let mode = std::os::unix::fs::PermissionsExt::mode(&file().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let valid = std::fs::read(file()).unwrap();
    let mut flipped = valid.clone();
    flipped[valid.len() / 2] ^= 1;
    for invalid in [flipped, valid[..valid.len() / 2].to_vec(), valid[..10].to_vec(), vec![]] {
        std::fs::write(file(), invalid).unwrap();
        let sandbox = reopen([7; 32]);
        assert!(!restored(&sandbox, digest).await, "a damaged file is not run");
        let plugin = load(&sandbox, digest, &bytes).await;
        assert_eq!(outputs(sandbox.invoke(&plugin, invocation()).await), ["{}"]);
        assert_eq!(std::fs::read(file()).unwrap().len(), valid.len(), "it was compiled again");
    }
    assert!(!restored(&reopen([8; 32]), digest).await, "another host's file is not run");
}

/// Cache files that are an endless device, a silent pipe, and a link out of the folder.
#[tokio::test]
async fn non_files_in_the_cache_are_skipped() {
    let bench = Bench::new();
    let bytes = returns("{}");
    let digest = bench.sandbox.admit(&bytes).await.unwrap().digest;
    let path = std::fs::read_dir(bench.folder.path()).unwrap().next().unwrap().unwrap().path();
    let valid = std::fs::read(&path).unwrap();
    let other_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_file.path(), valid).unwrap();
    let fifo = || {
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
    };
    let link = |to: &std::path::Path| std::os::unix::fs::symlink(to, &path).unwrap();
    let tricks: [&dyn Fn(); 3] =
        [&fifo, &|| link(std::path::Path::new("/dev/zero")), &|| link(other_file.path())];
    for trick in tricks {
        std::fs::remove_file(&path).unwrap();
        trick();
        let sandbox = sandbox(bench.folder.path(), 2, [7; 32]);
        assert!(!restored(&sandbox, digest).await);
        load(&sandbox, digest, &bytes).await;
        assert!(path.symlink_metadata().unwrap().is_file(), "it was compiled again");
    }
}

#[tokio::test]
async fn swapped_cache_files_are_not_run() {
    let bench = Bench::new();
    let one = bench.sandbox.admit(&returns(r#"{"a":1}"#)).await.unwrap().digest;
    let path = std::fs::read_dir(bench.folder.path()).unwrap().next().unwrap().unwrap().path();
    let other = Digest::from_content(b"other");
    let name = path.file_name().unwrap().to_str().unwrap();
    let name = name.replace(&one.to_string(), &other.to_string());
    std::fs::rename(&path, path.with_file_name(name)).unwrap();
    assert!(!restored(&sandbox(bench.folder.path(), 2, [7; 32]), other).await);
}

#[tokio::test]
async fn a_plugin_is_fetched_once_and_verified() {
    let bench = Bench::new();
    let bytes = returns("{}");
    let digest = Digest::from_content(&bytes);
    let mismatched =
        bench.sandbox.load(digest, || async { Ok::<_, std::io::Error>(returns("{ }")) });
    assert!(matches!(mismatched.await, Err(LoadError::Digest { .. })));
    let fails = bench.sandbox.load(digest, || async { Err(std::io::Error::other("gone")) });
    assert!(matches!(fails.await, Err(LoadError::Fetch(_))));
    let fetched = AtomicU32::new(0);
    let loads = (0..10).map(|_| {
        bench.sandbox.load(digest, || async {
            fetched.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(bytes.clone())
        })
    });
    for loaded in futures::future::join_all(loads).await {
        assert_eq!(loaded.unwrap().digest(), digest);
    }
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
}
