//! How the process that compiles locks itself in: limits of the system,
//! nothing open but its pipes, no system call but those that computing needs.
//!
//! What is compiled is hostile, and a compiler is large. Whatever a bug in it
//! lets an upload do, it can do to this process only.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

/// What a compilation is held to by the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Seconds of CPU time.
    pub cpu_s: u64,
    /// Bytes of address space.
    pub memory_bytes: u64,
}

impl Confinement {
    /// How it is written on the command line.
    pub fn arguments(&self) -> [String; 2] {
        [self.cpu_s.to_string(), self.memory_bytes.to_string()]
    }

    /// Reads what [`Confinement::arguments`] wrote.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Confinement> {
        let mut arguments = arguments.into_iter();
        let mut number = || arguments.next()?.to_str()?.parse().ok();
        let confinement = Confinement { cpu_s: number()?, memory_bytes: number()? };
        arguments.next().is_none().then_some(confinement)
    }
}

/// What is missing of a confinement.
#[derive(Debug)]
pub enum Gap {
    /// This system filters no calls; everything else is in place.
    NoFilter(String),
    /// It could not be set up.
    NoLimits(io::Error),
}

/// So much less is a compilation worth than the host that waits for it. Not
/// the least there is (19): on a machine whose guests use all of it, an upload
/// would wait until its time is over.
const NICE: i32 = 10;

/// Seconds between the end of the CPU time, which is told by a signal of its
/// own, and the moment at which the system kills without telling why.
const GRACE_S: u64 = 5;

/// Locks this process in, for good. To be called before it has threads, and
/// before it reads anything.
///
/// # Errors
/// See [`Gap`].
pub fn confine(confinement: &Confinement) -> Result<(), Gap> {
    limit(confinement).map_err(Gap::NoLimits)?;
    filter().map_err(Gap::NoFilter)
}

fn limit(confinement: &Confinement) -> io::Result<()> {
    // That it cannot be nice harms nobody but the host's other work.
    let _ = nice(NICE);
    close_all_else();
    let set = |resource, soft, hard| {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
    };
    let Confinement { cpu_s, memory_bytes } = *confinement;
    set(Resource::Cpu, cpu_s, cpu_s.saturating_add(GRACE_S))?;
    set(Resource::Core, 0, 0)?;
    set(Resource::Fsize, 0, 0)?;
    // Its pipes are open; nothing else ever will be.
    set(Resource::Nofile, 3, 3)?;
    match set(Resource::As, memory_bytes, memory_bytes) {
        // Elsewhere it is not a limit that one can rely on.
        Err(error) if cfg!(target_os = "linux") => Err(error.into()),
        _ => Ok(()),
    }
}

/// Closes what was inherited: the host's own descriptors close by themselves,
/// but those that the host was given by whoever started it may not.
fn close_all_else() {
    for number in open_numbers().into_iter().filter(|number| *number > 2) {
        // SAFETY: nothing in this process has opened anything that it still
        // uses, so whatever has this number is nobody's. It is open: asked
        // just now, while there is one thread only.
        #[expect(unsafe_code, reason = "the descriptors belong to nobody here")]
        unsafe {
            let is_open = rustix::io::fcntl_getfd(BorrowedFd::borrow_raw(number)).is_ok();
            // The number that the listing had is open no more.
            is_open.then(|| rustix::io::close(number));
        }
    }
}

fn open_numbers() -> Vec<i32> {
    match std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd")) {
        Ok(listed) => {
            listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        // There is nothing to ask: all that there commonly are.
        Err(_) => (0..4096).collect(),
    }
}

#[cfg(not(target_os = "linux"))]
fn filter() -> Result<(), String> {
    Err("there is none on this system".to_owned())
}

/// Installs the filter of system calls.
#[cfg(target_os = "linux")]
fn filter() -> Result<(), String> {
    use seccompiler::{TargetArch, apply_filter, compile_from_json};

    let words = |error: &dyn std::fmt::Display| error.to_string();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| words(&error))?;
    let filters = policy().to_string();
    let filters = compile_from_json(filters.as_bytes(), arch).map_err(|error| words(&error))?;
    for name in ["old", "few"] {
        let filter = filters.get(name).ok_or("a filter is missing")?;
        apply_filter(filter).map_err(|error| words(&error))?;
    }
    Ok(())
}

/// The filters. Of two that apply to a call the stricter one counts.
#[cfg(target_os = "linux")]
fn policy() -> serde_json::Value {
    use serde_json::json;

    const EPERM: u32 = 1;
    const ENOSYS: u32 = 38;
    const PROT_EXEC: u64 = 4;
    const CLONE_THREAD: u64 = 0x1_0000;
    const PR_SET_NAME: u64 = 15;

    let always = |name: &str| json!({"syscall": name});
    let only = |name: &str, index: u8, op: serde_json::Value, value: u64| json!({"syscall": name, "args": [{"index": index, "type": "qword", "op": op, "val": value}]});
    let without = |bits: u64| json!({"masked_eq": bits});
    let mut few: Vec<_> = [
        // Its pipes, the only files there are.
        "read",
        "write",
        "writev",
        "close",
        // Memory.
        "brk",
        "munmap",
        "mremap",
        "madvise",
        // Threads and what they wait by.
        "futex",
        "set_robust_list",
        "rseq",
        "sched_yield",
        "sched_getaffinity",
        "getpid",
        "gettid",
        "nanosleep",
        "clock_nanosleep",
        "clock_gettime",
        "exit",
        "exit_group",
        "clone3",
        // Signals, for what Rust does on a panic or an overflowing stack, and
        // for the engine's handlers.
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sigaltstack",
        "restart_syscall",
        // Seeds of hash maps.
        "getrandom",
    ]
    .into_iter()
    .map(always)
    .collect();
    few.extend([
        // A thread, never a process. It runs under the same filters.
        only("clone", 0, without(CLONE_THREAD), CLONE_THREAD),
        // Nothing that is compiled here is run here.
        only("mmap", 2, without(PROT_EXEC), 0),
        only("mprotect", 2, without(PROT_EXEC), 0),
        only("prctl", 0, json!("eq"), PR_SET_NAME),
        // To abort; to signal nobody else.
        only("tgkill", 0, json!("eq"), u64::from(std::process::id())),
    ]);
    json!({
        // The C library then uses `clone`, whose flags a filter can see.
        "old": {
            "mismatch_action": "allow",
            "match_action": {"errno": ENOSYS},
            "filter": [always("clone3")],
        },
        "few": {
            "mismatch_action": {"errno": EPERM},
            "match_action": "allow",
            "filter": few,
        },
    })
}
