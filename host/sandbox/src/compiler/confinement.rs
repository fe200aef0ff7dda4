//! The confinement of the compiling process: resource limits of the system, no open
//! files but its pipes, no system calls but those that computing needs.
//!
//! An upload is hostile, and a compiler is large. Whatever a bug in the compiler lets
//! an upload do, it can do to this process only.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

/// The system's limits on a compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// CPU time, in seconds.
    pub cpu_s: u64,
    /// Bytes of address space.
    pub memory_bytes: u64,
}

impl Confinement {
    /// Returns the confinement as arguments of the command line.
    pub fn arguments(&self) -> [String; 2] {
        [self.cpu_s.to_string(), self.memory_bytes.to_string()]
    }

    /// Parses the result of [`Confinement::arguments`].
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Confinement> {
        let mut arguments = arguments.into_iter();
        let mut number = || arguments.next()?.to_str()?.parse().ok();
        let confinement = Confinement { cpu_s: number()?, memory_bytes: number()? };
        arguments.next().is_none().then_some(confinement)
    }
}

/// A missing part of a confinement.
#[derive(Debug)]
pub enum ConfinementError {
    /// This system has no filter of system calls; everything else is in place.
    NoFilter(String),
    /// The resource limits could not be set.
    NoLimits(io::Error),
}

/// The nice value of a compilation, below the priority of the host. Not the lowest
/// priority (19): on a machine whose guests use all of it, an upload would wait until
/// its time is over.
const NICE: i32 = 10;

/// Seconds between the soft and the hard limit of the CPU time. The soft limit sends a signal
/// of its own; the hard limit kills the process without telling why.
const GRACE_S: u64 = 5;

/// Confines this process permanently. Call it before the process starts threads, and
/// before it reads anything.
///
/// # Errors
/// See [`ConfinementError`].
pub fn confine(confinement: &Confinement) -> Result<(), ConfinementError> {
    limit(confinement).map_err(ConfinementError::NoLimits)?;
    filter().map_err(ConfinementError::NoFilter)
}

fn limit(confinement: &Confinement) -> io::Result<()> {
    // Without the nice value, only the host's other work is slower.
    let _ = nice(NICE);
    close_all_else();
    let set = |resource, soft, hard| {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
    };
    let Confinement { cpu_s, memory_bytes } = *confinement;
    set(Resource::Cpu, cpu_s, cpu_s.saturating_add(GRACE_S))?;
    set(Resource::Core, 0, 0)?;
    set(Resource::Fsize, 0, 0)?;
    // The process has its pipes; it never opens another descriptor.
    set(Resource::Nofile, 3, 3)?;
    match set(Resource::As, memory_bytes, memory_bytes) {
        // On other systems this limit is not reliable.
        Err(error) if cfg!(target_os = "linux") => Err(error.into()),
        _ => Ok(()),
    }
}

/// Closes the inherited descriptors. The host's own descriptors are closed on exec, but those
/// that the host inherited from its parent may not be.
fn close_all_else() {
    for number in open_numbers().into_iter().filter(|number| *number > 2) {
        // SAFETY: this process has not opened anything that it still uses, so no code
        // owns the descriptor of this number. It is open: that was checked just now,
        // while there is one thread only.
        #[expect(unsafe_code, reason = "no other code here uses the descriptors")]
        unsafe {
            let is_open = rustix::io::fcntl_getfd(BorrowedFd::borrow_raw(number)).is_ok();
            // The descriptor of the listing itself is closed already.
            is_open.then(|| rustix::io::close(number));
        }
    }
}

fn open_numbers() -> Vec<i32> {
    match std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd")) {
        Ok(listed) => {
            listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        // Without a listing, assume all common numbers.
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

    let text_of = |error: &dyn std::fmt::Display| error.to_string();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| text_of(&error))?;
    let filters = policy().to_string();
    let filters = compile_from_json(filters.as_bytes(), arch).map_err(|error| text_of(&error))?;
    for name in ["old", "few"] {
        let filter = filters.get(name).ok_or("a filter is missing")?;
        apply_filter(filter).map_err(|error| text_of(&error))?;
    }
    Ok(())
}

/// Returns the filters. If two apply to a call, the stricter one counts.
#[cfg(target_os = "linux")]
fn policy() -> serde_json::Value {
    use serde_json::json;

    const EPERM: u32 = 1;
    const ENOSYS: u32 = 38;
    const PROT_EXEC: u64 = 4;
    const CLONE_THREAD: u64 = 0x1_0000;
    const PR_SET_NAME: u64 = 15;

    let always = |name: &str| json!({"syscall": name});
    let allow_if = |name: &str, index: u8, op: serde_json::Value, value: u64| {
        let argument = json!({"index": index, "type": "qword", "op": op, "val": value});
        json!({"syscall": name, "args": [argument]})
    };
    let lacks_bits = |bits: u64| json!({"masked_eq": bits});
    let mut conditional: Vec<_> = [
        // The pipes, the only open files.
        "read",
        "write",
        "writev",
        "close",
        // Memory.
        "brk",
        "munmap",
        "mremap",
        "madvise",
        // Threads and their waits.
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
        // Signals, for what Rust does on a panic or a stack overflow, and for the
        // engine's handlers.
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
    conditional.extend([
        // A thread, never a process. It runs under the same filters.
        allow_if("clone", 0, lacks_bits(CLONE_THREAD), CLONE_THREAD),
        // Compiled code is never run in this process.
        allow_if("mmap", 2, lacks_bits(PROT_EXEC), 0),
        allow_if("mprotect", 2, lacks_bits(PROT_EXEC), 0),
        allow_if("prctl", 0, json!("eq"), PR_SET_NAME),
        // For abort; the process may signal itself only.
        allow_if("tgkill", 0, json!("eq"), u64::from(std::process::id())),
    ]);
    json!({
        // Makes the C library fall back to `clone`, whose flags a filter can see.
        "old": {
            "mismatch_action": "allow",
            "match_action": {"errno": ENOSYS},
            "filter": [always("clone3")],
        },
        "few": {
            "mismatch_action": {"errno": EPERM},
            "match_action": "allow",
            "filter": conditional,
        },
    })
}
