//! Guests that exceed their limits: each attempt ends in a typed failure, and other
//! guests are not affected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use exosphere_domain::failure::FailureKind;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_sandbox::{Sandbox, SandboxConfig};
use support::*;

#[tokio::test]
async fn a_loop_ends_at_the_cpu_limit() {
    let bench = Bench::new();
    let done = bench.run(&executes("(loop $l (br $l))")).await;
    assert_limit(&done, "cpu_ms");
    let used = Duration::from_micros(done.usage.cpu_us);
    assert!(used >= Duration::from_millis(300) && used < Duration::from_secs(1), "{used:?}");
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn a_looping_start_function_is_refused() {
    let bench = Bench::new();
    let text = format!("{} (func $s (loop $l (br $l))) (start $s)", one_output("{}"));
    let refused = bench.sandbox.admit(&guest("", &text)).await.unwrap_err();
    assert!(refused.to_string().contains("`cpu_ms`"), "{refused}");
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn recursion_ends_at_the_stack_limit() {
    let bench = Bench::new();
    let text = format!("(func $deep (call $deep) (call $deep)) {}", executing("(call $deep)"));
    let done = bench.run(&guest("", &text)).await;
    assert_limit(&done, "stack_bytes");
    let details = failure(&done).details.as_ref().unwrap();
    assert!(details["backtrace"][1].as_str().unwrap().contains(" times)"), "{details}");
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn the_operator_sets_the_stack_limit() {
    let text = format!(
        "(func $deep (param i32) (result i32)
            (if (result i32) (local.get 0)
                (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))
                (else (i32.const 0)))) {}",
        executing("(drop (call $deep (i32.const 10000)))")
    );
    let with_stack = |stack| async move {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::default().with(Limit::StackBytes, stack);
        let sandbox = Sandbox::new(SandboxConfig { limits, ..config(folder.path()) }).unwrap();
        Bench { sandbox, folder }
    };
    assert_limit(&with_stack(64 * 1024).await.run(&guest("", &text)).await, "stack_bytes");
    assert_eq!(outputs(with_stack(4 << 20).await.run(&guest("", &text)).await), ["{}"]);
}

#[tokio::test]
async fn a_trap_names_the_memory_limit() {
    let bench = Bench::new();
    let grow = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    let growth_trap = bench.run(&executes(&format!("{grow} unreachable"))).await;
    assert_limit(&growth_trap, "memory_bytes");
    let max = Limits::default().get(Limit::MemoryBytes);
    assert!(growth_trap.usage.peak_memory_bytes <= max, "{:?}", growth_trap.usage);
    assert!(growth_trap.usage.peak_memory_bytes > max - (2 << 20), "{:?}", growth_trap.usage);
    // If the guest handles the denial, it continues.
    assert_eq!(outputs(bench.run(&executes(grow)).await), ["{}"]);
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn memories_are_limited_together() {
    let bench = Bench::new();
    // 64 MiB fit in each of two memories (except for their initial pages), but not in
    // both together.
    let text = format!(
        "(memory $other 1) {}",
        executing(
            "(if (i32.eq (memory.grow 0 (i32.const 1020)) (i32.const -1)) (then unreachable))
             (if (i32.eq (memory.grow $other (i32.const 1030)) (i32.const -1)) (then unreachable))"
        )
    );
    let bytes = guest("", &text);
    assert_limit(&bench.run(&bytes).await, "memory_bytes");
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn tables_are_limited() {
    let bench = Bench::new();
    let text = format!(
        "(table $t 1 funcref) {}",
        executing(
            "(if (i32.eq (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const -1))
               (then unreachable))"
        )
    );
    assert_limit(&bench.run(&guest("", &text)).await, "table_elements");
}

/// The host recognizes this limit by the engine's message.
#[tokio::test]
async fn core_instances_are_limited() {
    let bench = Bench::new();
    // One instance is the allocator, the other has the functions.
    let bytes = returns("{}");
    let with_instances =
        |max| bench.run_with(&bytes, move |call| limit(call, Limit::Instances, max));
    let done = with_instances(1).await;
    assert_limit(&done, "instances");
    assert!(failure(&done).message.contains("--limit instances=.."), "{}", failure(&done));
    assert_eq!(outputs(with_instances(2).await), ["{}"]);
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn a_blocked_call_ends_at_the_timeout() {
    let bench = Bench::new();
    let bytes = guest("sleep", &executing("(call $block (call $sleep (i64.const 3600000000000)))"));
    let started = Instant::now();
    let done = bench.run_with(&bytes, |call| limit(call, Limit::TimeoutMs, 200)).await;
    let failure = failure(&done);
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(failure.message.contains("200 ms"), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(done.usage.cpu_us < 100_000, "waiting is no work: {:?}", done.usage);
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn handles_are_limited() {
    let bench = Bench::new();
    let bytes = guest(
        "sleep",
        &executing("(loop $l (drop (call $sleep (i64.const 3600000000000))) (br $l))"),
    );
    let done = bench.run(&bytes).await;
    assert_limit(&done, "handles");
}

#[tokio::test]
async fn a_log_flood_is_not_a_failure() {
    let bench = Bench::new();
    let write = "(call $write (i32.const 1) (i32.const 4096) (i32.const 12))";
    let text = format!(
        r#"(data (i32.const 4096) "\1b[31mred\08\nx") {}"#,
        executing(&format!(
            "(local $i i32)
             (loop $l {write} (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const 5000))))"
        ))
    );
    let done = bench.run(&guest("log", &text)).await;
    assert_eq!(done.outcome, Outcome::Outputs(vec!["{}".into()]));
    assert_eq!(done.logs.len(), 1001);
    assert_eq!(done.logs[0].message, "red");
    assert!(done.logs[500].message.contains("cut here"), "{:?}", done.logs[500]);
    assert!(done.logs[999].message == "red" && done.logs[1000].message == "x", "the end is kept");
    assert_eq!(done.usage.host_calls, 5000);
}

#[tokio::test]
async fn host_and_wasi_calls_are_limited() {
    let bench = Bench::new();
    let limited = |call: &mut exosphere_sandbox::Invocation| limit(call, Limit::HostCalls, 1000);
    let flood =
        executing("(loop $l (call $write (i32.const 1) (i32.const 0) (i32.const 0)) (br $l))");
    let done = bench.run_with(&guest("log", &flood), limited).await;
    assert_limit(&done, "host_calls");
    assert_eq!(done.usage.host_calls, 1001);

    let flood = executing("(loop $l (call $drop (call $sleep (i64.const 1))) (br $l))");
    assert_limit(&bench.run_with(&guest("sleep", &flood), limited).await, "host_calls");
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn arguments_of_host_functions_are_limited() {
    let bench = Bench::new();
    let grow = "(drop (memory.grow (i32.const 200)))";
    let write = |len: u32| {
        let call = format!("(call $write (i32.const 1) (i32.const 0) (i32.const {len}))");
        guest("log", &executing(&format!("{grow} {call}")))
    };
    assert_limit(&bench.run(&write(5 << 20)).await, "lifted_bytes");
    let fits = bench.run(&write(3 << 20)).await;
    assert_eq!(fits.outcome, Outcome::Outputs(vec!["{}".into()]));
}

#[tokio::test]
async fn outputs_are_limited() {
    let bench = Bench::new();
    let text = "(func (export \"execute\") (param i32 i32 i32 i32) (result i32)
        (drop (memory.grow (i32.const 1000)))
        (call $return (i32.const 8192) (i32.const LEN)))";
    let returning = |len: u32| guest("", &text.replace("LEN", &len.to_string()));
    assert_limit(&bench.run(&returning(5 << 20)).await, "output_bytes_each");
    assert_limit(&bench.run(&returning(60 << 20)).await, "output_bytes");
    let done = bench.run(&returning(100)).await;
    assert_eq!(failure(&done).kind, FailureKind::InvalidOutput);
    let done = bench.run(&returning(u32::MAX)).await;
    assert_eq!(failure(&done).kind, FailureKind::InvalidOutput, "{:?}", done.outcome);
    let many = r#"(func (export "execute") (param i32 i32 i32 i32) (result i32)
        (drop (call $return (i32.const 1024) (i32.const 2)))
        (i32.store (i32.const 1420) (i32.const 12))
        (i32.const 1400))"#;
    let limited = |call: &mut exosphere_sandbox::Invocation| limit(call, Limit::Outputs, 10);
    assert_limit(&bench.run_with(&guest("", many), limited).await, "outputs");
}

#[tokio::test]
async fn invalid_utf8_is_an_invalid_output() {
    let bench = Bench::new();
    let text = r#"(data (i32.const 4096) "\ff\fe")
        (func (export "execute") (param i32 i32 i32 i32) (result i32)
          (call $return (i32.const 4096) (i32.const 2)))"#;
    let done = bench.run(&guest("", text)).await;
    assert_eq!(failure(&done).kind, FailureKind::InvalidOutput, "{:?}", done.outcome);
}

#[tokio::test]
async fn inputs_are_limited() {
    let bench = Bench::new();
    let done = bench
        .run_with(&returns("{}"), |call| {
            call.inputs = "x".repeat(100);
            limit(call, Limit::InputBytes, 99);
        })
        .await;
    assert_limit(&done, "input_bytes");
}

#[tokio::test]
async fn the_store_is_limited() {
    let bench = Bench::new();
    let text = |body: &str| {
        let data = r#"(data (i32.const 4096) "ab.\00\c3\a4")"#;
        guest("store", &format!("{data} {}", executing(body)))
    };
    let set = |key: &str, len: u32| {
        text(&format!("(call $set {key} (i32.const 8192) (i32.const {len}))"))
    };
    let a = "(i32.const 4096) (i32.const 1)";
    let fits = bench.run(&set(a, 64 << 10)).await;
    assert_eq!(fits.journal.written_keys(), 1);
    assert_limit(&bench.run(&set(a, (64 << 10) + 1)).await, "store_value_bytes");
    let limited = |call: &mut exosphere_sandbox::Invocation| limit(call, Limit::StoreBytes, 1000);
    assert_limit(&bench.run_with(&set(a, 1000), limited).await, "store_bytes");
    for pair in ["(i32.const 4096) (i32.const 0)", "(i32.const 4096) (i32.const 3)"] {
        let done = bench.run(&set(pair, 1)).await;
        assert_eq!(failure(&done).kind, FailureKind::Store, "{:?}", done.outcome);
        assert!(done.journal.is_empty());
    }
    let no_keys = |call: &mut exosphere_sandbox::Invocation| limit(call, Limit::StoreKeys, 0);
    assert_limit(&bench.run_with(&set(a, 1), no_keys).await, "store_keys");
}

#[tokio::test]
async fn a_lying_allocator_fails_the_attempt() {
    let bench = Bench::new();
    // The allocator belongs to the guest; if it returns an address outside of the
    // memory, the host refuses to write there.
    let bytes = text("", &one_output("{}"))
        .replace("(local.set $at (i32.and", "(return (i32.const -8)) (local.set $at (i32.and");
    let bytes = wat::parse_str(bytes).unwrap();
    let plugin = bench.plugin(&bytes).await;
    let done = bench.sandbox.invoke(&plugin, invocation()).await;
    assert_eq!(failure(&done).kind, FailureKind::InvalidOutput, "{:?}", done.outcome);
    bench.assert_healthy(4).await;
}
