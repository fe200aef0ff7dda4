//! Hand-written small guests, and a sandbox to run them in.
//!
//! A guest here is a core module that shares a memory with an allocator, and is lifted
//! to the contract by hand, without a toolchain.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::Digest;
use exosphere_domain::journal::Entry;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome::Outcome;
use exosphere_sandbox::{
    AdmissionLimits, Cancel, Compiler, Completion, Context, DEFAULT_CACHE_BYTES, HttpConfig,
    Invocation, Plugin, RunStore, Sandbox, SandboxConfig, Secrets, Unavailable,
};
use futures::future::BoxFuture;

/// A sandbox with few slots and its own cache folder, which is removed with it.
pub struct Bench {
    pub sandbox: Sandbox,
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_slots(4)
    }

    pub fn with_slots(slots: u32) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = sandbox(folder.path(), slots, [7; 32]);
        Bench { sandbox, folder }
    }

    /// Admits and loads a guest that is expected to be valid.
    pub async fn plugin(&self, bytes: &[u8]) -> Arc<Plugin> {
        let admitted = self.sandbox.admit(bytes).await.unwrap();
        load(&self.sandbox, admitted.digest, bytes).await
    }

    /// Admits a guest and runs it once.
    pub async fn run(&self, bytes: &[u8]) -> Completion {
        self.run_with(bytes, |_| {}).await
    }

    pub async fn run_with(&self, bytes: &[u8], change: impl FnOnce(&mut Invocation)) -> Completion {
        let plugin = self.plugin(bytes).await;
        let mut invocation = invocation();
        change(&mut invocation);
        self.sandbox.invoke(&plugin, invocation).await
    }

    /// Asserts that a well-behaved guest runs, and that every slot is free.
    pub async fn assert_healthy(&self, slots: usize) {
        assert_eq!(outputs(self.run(&returns("{}")).await), ["{}"]);
        assert_eq!(self.sandbox.free_instances(), slots);
    }
}

pub fn sandbox(folder: &std::path::Path, slots: u32, cache_key: [u8; 32]) -> Sandbox {
    sandbox_with(folder, slots, cache_key, compiler("compile"))
}

pub fn sandbox_with(
    folder: &std::path::Path,
    slots: u32,
    cache_key: [u8; 32],
    compiler: Compiler,
) -> Sandbox {
    Sandbox::new(SandboxConfig { slots, cache_key, compiler, ..config(folder) }).unwrap()
}

/// Returns the configuration of a sandbox with its code cache in this folder.
pub fn config(folder: &std::path::Path) -> SandboxConfig {
    SandboxConfig {
        slots: 2,
        limits: Limits::default(),
        cache_dir: folder.to_owned(),
        cache_key: [7; 32],
        http: HttpConfig::default(),
        cache_bytes: DEFAULT_CACHE_BYTES,
        compiler: compiler("compile"),
    }
}

/// Returns the test compiler, told to be `behavior`.
pub fn compiler(behavior: &str) -> Compiler {
    Compiler {
        program: env!("CARGO_BIN_EXE_exosphere-test-compiler").into(),
        arguments: vec![behavior.into()],
        limits: AdmissionLimits::default(),
    }
}

pub async fn load(sandbox: &Sandbox, digest: Digest, bytes: &[u8]) -> Arc<Plugin> {
    let bytes = bytes.to_vec();
    sandbox.load(digest, || async { Ok::<_, std::io::Error>(bytes) }).await.unwrap()
}

pub fn invocation() -> Invocation {
    Invocation {
        node: "node".parse().unwrap(),
        inputs: "{}".into(),
        context: Context { state: "run/1".into(), attempt: 1, ..Context::default() },
        store: Arc::new(Fixed::default()),
        secrets: Secrets::default(),
        grants: Arc::default(),
        limits: Limits::default().with(Limit::CpuMs, 300).with(Limit::TimeoutMs, 10_000),
        waited: Duration::ZERO,
        cancel: Cancel::default(),
    }
}

/// Sets a limit of an execution.
pub fn limit(call: &mut Invocation, limit: Limit, value: u64) {
    call.limits = call.limits.clone().with(limit, value);
}

/// A store that does not change.
#[derive(Default)]
pub struct Fixed(pub BTreeMap<String, Entry>);

impl RunStore for Fixed {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        Box::pin(async move { Ok(self.0.get(key).cloned()) })
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        Box::pin(async { Ok(self.0.clone().into_iter().collect()) })
    }
}

pub fn outputs(completion: Completion) -> Vec<String> {
    match completion.outcome {
        Outcome::Outputs(outputs) => outputs,
        other => panic!("expected outputs, not {other:?}"),
    }
}

pub fn failure(completion: &Completion) -> &Failure {
    match &completion.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("expected a failure, not {other:?}"),
    }
}

/// Asserts that an execution failed by the limit of this name.
pub fn assert_limit(completion: &Completion, name: &str) {
    let failure = failure(completion);
    assert_eq!(failure.kind, FailureKind::Limit, "{failure}");
    let details = failure.details.as_ref().unwrap();
    assert_eq!(details["limit"], name, "{failure}");
    assert!(failure.message.contains(&format!("`{name}`")), "{failure}");
}

/// Returns a guest that returns one output.
pub fn returns(output: &str) -> Vec<u8> {
    guest("", &one_output(output))
}

/// Returns the functions of a guest that returns one output.
pub fn one_output(output: &str) -> String {
    format!(
        r#"(data (i32.const 4096) "{}")
           (func (export "execute") (param i32 i32 i32 i32) (result i32)
             (call $return (i32.const 4096) (i32.const {})))"#,
        escaped(output),
        output.len()
    )
}

/// Returns a guest whose `execute` has this body; if the body runs to its end, it
/// returns `{}`.
pub fn executes(body: &str) -> Vec<u8> {
    guest("", &executing(body))
}

pub fn executing(body: &str) -> String {
    format!(
        r#"(func (export "execute") (param i32 i32 i32 i32) (result i32)
             {body}
             (call $return (i32.const 1024) (i32.const 2)))"#
    )
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Builds a component of the contract around the functions of a core module. They have
/// to export `execute`, and find `$return` (of a text: one output), a memory, and the
/// functions that `imports` lowered under "host". The memory below 4096 is in use.
pub fn guest(imports: &str, functions: &str) -> Vec<u8> {
    wat::parse_str(text(imports, functions)).unwrap()
}

pub fn text(imports: &str, functions: &str) -> String {
    let (component, with, lowered) = parts(imports);
    format!(
        r#"(component
  {component}
  (core module $libc
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  {lowered}
  (core module $main
    (import "libc" "memory" (memory 2))
    {with}
    (data (i32.const 1024) "{{}}")
    (data (i32.const 1100) "{{\22nodes\22:[]}}")
    (data (i32.const 1200) "\4c\04\00\00\0c\00\00\00")
    (func (export "describe") (result i32) (i32.const 1200))
    (func $return (param $text i32) (param $len i32) (result i32)
      (i32.store (i32.const 1300) (local.get $text))
      (i32.store (i32.const 1304) (local.get $len))
      (i32.store (i32.const 1416) (i32.const 1300))
      (i32.store (i32.const 1420) (i32.const 1))
      (i32.const 1400))
    {functions})
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    {instance}))
  (type $completion (variant
    (case "outputs" (list string))
    (case "prune" (option string))
    (case "requeue-after" u64)))
  (type $failure (record
    (field "message" string)
    (field "retryable" bool)
    (field "details" (option string))))
  (func $describe (result string)
    (canon lift (core func $main "describe") (memory $memory)))
  (func $execute (param "node" string) (param "inputs" string)
      (result (result $completion (error $failure)))
    (canon lift (core func $main "execute") (memory $memory) (realloc $realloc)))
  ;; Types can be exported beside functions that use them only by a component
  ;; of its own, which takes them in and gives them a name.
  (component $named
    (type $c (variant
      (case "outputs" (list string))
      (case "prune" (option string))
      (case "requeue-after" u64)))
    (type $f (record
      (field "message" string)
      (field "retryable" bool)
      (field "details" (option string))))
    (import "c" (type $ci (eq $c)))
    (import "f" (type $fi (eq $f)))
    (import "d" (func $d (result string)))
    (import "e" (func $e (param "node" string) (param "inputs" string)
      (result (result $ci (error $fi)))))
    (export $ce "completion" (type $c))
    (export $fe "failure" (type $f))
    (export "describe" (func $d))
    (export "execute" (func $e) (func (param "node" string) (param "inputs" string)
      (result (result $ce (error $fe))))))
  (instance $guest (instantiate $named
    (with "c" (type $completion)) (with "f" (type $failure))
    (with "d" (func $describe)) (with "e" (func $execute))))
  (export "exosphere:node/guest@0.1.0" (instance $guest)))"#,
        instance = instance(imports),
    )
}

fn parts(imports: &str) -> (&str, &str, &str) {
    match imports {
        "" => ("", "", ""),
        "log" => (LOG, r#"(import "host" "write" (func $write (param i32 i32 i32)))"#, LOG_LOWERED),
        "store" => (STORE, STORE_CORE, STORE_LOWERED),
        "sleep" => (SLEEP, SLEEP_CORE, SLEEP_LOWERED),
        other => panic!("no such import: {other}"),
    }
}

fn instance(imports: &str) -> &'static str {
    match imports {
        "log" => r#"(with "host" (instance (export "write" (func $write))))"#,
        "store" => {
            r#"(with "host" (instance
                 (export "set" (func $set)) (export "get" (func $get))
                 (export "increment" (func $increment))))"#
        }
        "sleep" => {
            r#"(with "host" (instance
                 (export "sleep" (func $sleep)) (export "block" (func $block))
                 (export "now" (func $now)) (export "drop" (func $drop))))"#
        }
        _ => "",
    }
}

const LOG: &str = r#"
  (import "exosphere:node/log@0.1.0" (instance $log
    (type $l (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "message" string)))))"#;
const LOG_LOWERED: &str =
    r#"(core func $write (canon lower (func $log "write") (memory $memory)))"#;

const STORE: &str = r#"
  (import "exosphere:node/store@0.1.0" (instance $store
    (export "get" (func (param "key" string) (result (option string))))
    (export "set" (func (param "key" string) (param "value" string)))
    (export "increment" (func (param "key" string) (param "by" s64)))))"#;
const STORE_CORE: &str = r#"
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32)))
    (import "host" "increment" (func $increment (param i32 i32 i64)))"#;
const STORE_LOWERED: &str = r#"
  (core func $get (canon lower (func $store "get") (memory $memory) (realloc $realloc)))
  (core func $set (canon lower (func $store "set") (memory $memory)))
  (core func $increment (canon lower (func $store "increment") (memory $memory)))"#;

const SLEEP: &str = r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $q (eq $p)))
    (export "now" (func (result u64)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))"#;
const SLEEP_CORE: &str = r#"
    (import "host" "sleep" (func $sleep (param i64) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "now" (func $now (result i64)))
    (import "host" "drop" (func $drop (param i32)))"#;
const SLEEP_LOWERED: &str = r#"
  (core func $sleep (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $now (canon lower (func $clock "now")))
  (core func $drop (canon resource.drop $pollable))"#;
