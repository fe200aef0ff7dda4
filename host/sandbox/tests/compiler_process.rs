//! The compiling process: its limits, the operations that its confinement forbids, and
//! its certain end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exosphere_domain::reason::Reason;
use exosphere_sandbox::{AdmissionError, AdmissionLimits, CompileLimit, Compiler, Sandbox};
use support::*;
use tempfile::TempDir;

/// Creates a sandbox with a compiler that does `behavior` under these limits.
fn bench(behavior: &str, limits: AdmissionLimits) -> (Sandbox, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let compiler = Compiler { limits, ..compiler(behavior) };
    (sandbox_with(folder.path(), 1, [7; 32], compiler), folder)
}

async fn end(behavior: &str, limits: AdmissionLimits) -> AdmissionError {
    let (sandbox, _folder) = bench(behavior, limits);
    sandbox.inspect_upload("n", &returns("{}")).await.unwrap_err()
}

fn limits(change: impl FnOnce(&mut AdmissionLimits)) -> AdmissionLimits {
    let mut limits = AdmissionLimits::default();
    change(&mut limits);
    limits
}

/// Lists the children of this process that run with the argument `behavior`, with their process
/// states.
fn children(behavior: &str) -> Vec<(u32, char)> {
    let own_pid = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            let (pid, rest) = stat.split_once(' ')?;
            let mut fields = rest.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?.chars().next()?;
            let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let is_target = state == 'Z' || line.split('\0').nth(1) == Some(behavior);
            (fields.next()? == own_pid && is_target).then_some((pid.parse().ok()?, state))
        })
        .collect()
}

async fn until<T>(event: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "timed out: {event}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_compile_limit_is_enforced() {
    let second = |limits: &mut AdmissionLimits| limits.compile_cpu_s = 1;
    let error = end("spin", limits(second)).await;
    assert_eq!(error, AdmissionError::TooCostly { limit: CompileLimit::Cpu, value: 1 });
    for part in ["1 s", "`compile_cpu_s`", "--compile-cpu-seconds"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(error.reason(), Some(Reason::CompileCpuLimit));

    let memory_bytes = 256 * 1024 * 1024;
    let error = end("eat", limits(|limits| limits.compile_memory_bytes = memory_bytes)).await;
    assert_eq!(
        error,
        AdmissionError::TooCostly { limit: CompileLimit::Memory, value: memory_bytes }
    );
    for part in ["256 MiB", "`compile_memory_bytes`", "--compile-memory-bytes"] {
        assert!(error.to_string().contains(part), "{error}");
    }

    let started = Instant::now();
    let error = end("hang", limits(|limits| limits.compile_wall_s = 1)).await;
    assert_eq!(error, AdmissionError::TooCostly { limit: CompileLimit::Wall, value: 1 });
    assert!(started.elapsed() < Duration::from_secs(10));

    let error = end("babble", limits(|limits| limits.code_bytes = 1 << 20)).await;
    assert_eq!(error, AdmissionError::TooCostly { limit: CompileLimit::Code, value: 1 << 20 });
}

#[tokio::test]
async fn any_compiler_failure_is_a_refusal() {
    let wall = || limits(|limits| limits.compile_wall_s = 5);
    for (behavior, reason) in [
        ("nonsense", None),
        ("leave", Some(Reason::CompilerFailed)),
        ("shout", Some(Reason::CompileTimeLimit)),
    ] {
        let refused = end(behavior, wall()).await;
        assert_eq!(refused.reason(), reason, "{behavior}: {refused}");
    }
    let (mut missing, folder) = (compiler("compile"), tempfile::tempdir().unwrap());
    missing.program = folder.path().join("nothing");
    let sandbox = sandbox_with(folder.path(), 1, [7; 32], missing);
    let refused = sandbox.inspect_upload("n", &returns("{}")).await.unwrap_err();
    assert!(matches!(refused, AdmissionError::Internal { .. }), "{refused}");
}

#[tokio::test]
async fn a_killed_compiler_is_retried_once() {
    let refused = end("killed", AdmissionLimits::default()).await;
    assert_eq!(refused, AdmissionError::Killed { times: 2 });
    let folder = tempfile::tempdir().unwrap();
    let mode = format!("killed-once={}", folder.path().join("once").display());
    let sandbox = sandbox_with(&folder.path().join("code"), 1, [7; 32], compiler(&mode));
    sandbox.inspect_upload("n", &returns("{}")).await.unwrap();
    assert!(folder.path().join("once").exists(), "it was killed once");
}

#[tokio::test]
async fn a_confined_compiler_reaches_nothing() {
    const EPERM: &str = "1";
    let refused = end("probe", AdmissionLimits::default()).await;
    let report = refused.to_string();
    let results: BTreeMap<&str, &str> =
        report.split([' ', ';']).filter_map(|word| word.split_once('=')).collect();
    assert_eq!(results["confined"], "Ok(())", "{report}");
    assert_eq!(results["environment"], "RAYON_NUM_THREADS", "{report}");
    assert_eq!(results["thread"], "0", "it has threads: {report}");
    for call in [
        "tcp", "listen", "udp", "pair", "read", "write", "remove", "list", "fork", "exec",
        "signal", "execute",
    ] {
        assert_eq!(results[call], EPERM, "{call}: {report}");
    }
}

#[tokio::test]
async fn the_compiler_inherits_only_its_pipes() {
    // Like a descriptor that a careless parent process left to the host: not closed
    // when another program is started.
    let file = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    assert!(file.as_raw_fd() > 2);
    let (sandbox, _folder) = bench("open-hang", AdmissionLimits::default());
    let bytes = returns("{}");
    let check = sandbox.inspect_upload("n", &bytes);
    let descriptors = until("its descriptors", || {
        let (pid, _) = *children("open-hang").first()?;
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut open: Vec<_> =
            open.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        open.sort();
        (open == ["0", "1", "2"])
            .then(|| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap())
    });
    let limits = tokio::select! {
        ended = check => panic!("{ended:?}"),
        limits = descriptors => limits,
    };
    let soft_limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(soft_limit("Max cpu time"), "60");
    assert_eq!(soft_limit("Max address space"), "4294967296");
    assert_eq!(soft_limit("Max core file size"), "0");
    assert_eq!(soft_limit("Max file size"), "0");
    assert_eq!(soft_limit("Max open files"), "3");
}

/// A namespace with one upload waits for only one upload of a namespace with many.
#[tokio::test]
async fn namespaces_take_turns_at_the_compiler() {
    let (sandbox, _folder) = bench("compile", AdmissionLimits::default());
    let plugins: Vec<_> = (0..6).map(|n| returns(&format!("{{\"n\":{n}}}"))).collect();
    let namespace = ["many", "many", "many", "many", "many", "one"];
    let mut checks: futures::stream::FuturesUnordered<_> = namespace
        .iter()
        .zip(&plugins)
        .map(|(namespace, bytes)| async {
            sandbox.inspect_upload(namespace, bytes).await.map(|_| *namespace).unwrap()
        })
        .collect();
    let mut order = Vec::new();
    while let Some(namespace) = futures::StreamExt::next(&mut checks).await {
        order.push(namespace);
    }
    let at = order.iter().position(|namespace| *namespace == "one").unwrap();
    assert!(at <= 2, "{order:?}");
}

/// One test, since it counts this process's children.
#[tokio::test]
async fn a_dropped_compilation_leaves_no_zombie() {
    let (sandbox, _folder) = bench("drop-hang", AdmissionLimits::default());
    let bytes = returns("{}");
    for _ in 0..3 {
        let check = sandbox.inspect_upload("n", &bytes);
        tokio::select! {
            ended = check => panic!("{ended:?}"),
            () = until("a start", || (!children("drop-hang").is_empty()).then_some(())) => {}
        }
        until("its end", || children("drop-hang").is_empty().then_some(())).await;
    }
}

/// The host is killed, so that it cannot clean up.
#[test]
fn the_compiler_ends_with_the_host() {
    let compiler = compiler("compile");
    // The intermediate process starts the compilation, as a host does, and dies.
    let mut host =
        Command::new(&compiler.program).arg("host").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(host.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The process that adopts it may reap it late.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    assert!(alive());
    host.kill().unwrap();
    host.wait().unwrap();
    let started = Instant::now();
    while alive() {
        assert!(started.elapsed() < Duration::from_secs(10), "the compilation lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
