//! What became of a guest that did not return: from the many ways in which
//! wasmtime says so to the typed failures of the domain.
//!
//! Failures that the guest itself reports are not here, nor is the check of
//! what it returned (`output`).

use std::time::Duration;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::journal::StoreError;
use exosphere_domain::limits::Limits;
use serde_json::{Value, json};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::host::{Host, MAX_HANDLES};
use crate::limiter::Denied;
use crate::store::Unavailable;
use crate::text::{clean_line, clean_lines, cut};

/// A limit that an attempt reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Memory,
    Table,
    Cpu,
    HostCalls,
    Handles,
    Input,
    Lifted,
    OutputBytes,
    OutputEach,
    Outputs,
    StoreKeys,
    StoreValue,
    StoreBytes,
}

impl Limit {
    /// What was too much, the limit's name, its value as a number and as text.
    fn describe(self, limits: &Limits) -> (&'static str, &'static str, u64, String) {
        let size = |what, name, bytes| (what, name, bytes, size(bytes));
        let count = |what, name, n: u64| (what, name, n, n.to_string());
        match self {
            Limit::Memory => size("memory", "memory_bytes", limits.memory_bytes),
            Limit::Table => count("table elements", "table_elements", limits.table_elements),
            Limit::Cpu => {
                let millis = u64::try_from(limits.cpu.as_millis()).unwrap_or(u64::MAX);
                ("CPU time", "cpu", millis, duration(limits.cpu))
            }
            Limit::HostCalls => {
                count("calls of host functions", "host_calls", limits.host_calls.into())
            }
            Limit::Handles => count("open handles", "handles", MAX_HANDLES as u64),
            Limit::Input => size("bytes of inputs", "input_bytes", limits.input_bytes),
            Limit::Lifted => {
                size("bytes in one call of a host function", "lifted_bytes", LIFTED_BYTES as u64)
            }
            Limit::OutputBytes => size("bytes of all outputs", "output_bytes", limits.output_bytes),
            Limit::OutputEach => {
                size("bytes of one output", "output_bytes_each", limits.output_bytes_each)
            }
            Limit::Outputs => count("number of outputs", "outputs", limits.outputs.into()),
            Limit::StoreKeys => count("keys in the store", "store_keys", limits.store_keys.into()),
            Limit::StoreValue => size(
                "bytes of one value in the store",
                "store_value_bytes",
                limits.store_value_bytes,
            ),
            Limit::StoreBytes => size("bytes in the store", "store_bytes", limits.store_bytes),
        }
    }

    /// The failure of an attempt that reached this limit.
    pub(crate) fn failure(self, limits: &Limits) -> Failure {
        let (what, name, number, text) = self.describe(limits);
        Failure::new(
            FailureKind::Limit,
            format!(
                "too much: {what}; the limit is {text} (`{name}`). Let the node do less, or ask \
                 the operator of the host to raise the limit"
            ),
        )
        .with(json!({"limit": name, "value": number}))
    }
}

/// Bytes that a guest may hand to a host function in one call.
pub(crate) const LIFTED_BYTES: usize = 4 * 1024 * 1024;

/// Why a host function ends the guest. Travels through wasmtime as an error,
/// and is found again by its type.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("limit reached: {0:?}")]
    Limit(Limit),
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Unavailable(Unavailable),
}

/// What the guest was at when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its instances were made; its start functions ran.
    Start,
    /// Its functions were looked up, and their types compared.
    Fit,
    /// Its function was called.
    Call,
}

/// The failure that an error of wasmtime stands for.
pub(crate) fn judge(error: &wasmtime::Error, phase: Phase, host: &Host) -> Failure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stopped(stop, host);
    }
    if host.has_called_too_often() {
        return Limit::HostCalls.failure(&host.limits);
    }
    if let Some(Trap::StackOverflow) = error.downcast_ref::<Trap>() {
        return trapped(error, host);
    }
    // A guest that is denied memory mostly gives up by a trap or by exit. It is
    // told apart only by what it was denied.
    if let Some(denied) = host.limiter.denied() {
        let limit = match denied {
            Denied::Memory => Limit::Memory,
            Denied::Table => Limit::Table,
        };
        return with_words(limit.failure(&host.limits), host);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        let failure = Failure::new(
            FailureKind::Exit,
            format!("the node ended its process by exit({code}); a node returns instead"),
        );
        return with_words(failure.with(json!({"code": code})), host);
    }
    if error.downcast_ref::<ResourceTableError>().is_some_and(is_full) {
        return Limit::Handles.failure(&host.limits);
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return internal(&format!("{error:#}"), host);
    }
    if is_out_of_lifting(error) {
        let limit = if is_outside(error) { Limit::OutputBytes } else { Limit::Lifted };
        return limit.failure(&host.limits);
    }
    match phase {
        Phase::Start if error.downcast_ref::<Trap>().is_none() => Failure::new(
            FailureKind::Trap,
            format!("the component cannot be started: {}", clean_lines(&format!("{error:#}"))),
        ),
        Phase::Call if is_outside(error) => Failure::new(
            FailureKind::InvalidOutput,
            format!("the node broke the contract in giving its answer: {}", root(error)),
        ),
        _ => trapped(error, host),
    }
}

/// The failure of a guest that was not done in time.
pub(crate) fn timed_out(after: Duration) -> Failure {
    let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    Failure::new(
        FailureKind::Timeout,
        format!("the node did not end within {} (its `timeout_ms`)", duration(after)),
    )
    .with(json!({"timeout_ms": millis}))
}

/// The failure of a plugin that does not fit the contract. Such a one is
/// refused at upload, so this is seldom seen.
pub(crate) fn misfit(error: &wasmtime::Error) -> Failure {
    let why = clean_lines(cut(&format!("{error:#}"), 1024));
    Failure::new(FailureKind::Trap, format!("the component is no plugin of this host: {why}"))
}

/// A mistake of the host: the words go to its log, with the state's name.
pub(crate) fn internal(words: &str, host: &Host) -> Failure {
    let state = &host.context.state;
    tracing::error!(state, words, "an execution failed by the host's fault");
    Failure::new(
        FailureKind::Internal,
        format!("the host could not execute the node; its log says why, under state {state}"),
    )
}

fn stopped(stop: &Stop, host: &Host) -> Failure {
    match stop {
        Stop::Limit(limit) => limit.failure(&host.limits),
        Stop::Store(error) => Failure::new(FailureKind::Store, clean_line(&error.to_string())),
        Stop::Unavailable(error) => internal(&error.to_string(), host),
    }
}

/// The failure of a guest that trapped, or broke a rule of the component model
/// in a call. Its own last words come first; they say most.
fn trapped(error: &wasmtime::Error, host: &Host) -> Failure {
    let name = root(error);
    let words = host.logs.last_words();
    let message = match &words {
        Some(words) => format!("{words}\n({name})"),
        None => format!("the node trapped: {name}"),
    };
    let mut details = json!({"trap": name});
    if let Some(trap) = error.downcast_ref::<Trap>() {
        details["trap"] = json!(format!("{trap:?}"));
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        details["backtrace"] = frames(backtrace);
    }
    Failure::new(FailureKind::Trap, message).with(details)
}

fn with_words(mut failure: Failure, host: &Host) -> Failure {
    if let Some(words) = host.logs.last_words() {
        let details = failure.details.get_or_insert_with(|| json!({}));
        details["stderr"] = json!(words);
    }
    failure
}

/// Bytes of one frame's text. Names come from the guest, of any length.
const FRAME_BYTES: usize = 200;

/// The frames of a backtrace, innermost first (wasmtime keeps 20). A recursion
/// is one line.
fn frames(backtrace: &WasmBacktrace) -> Value {
    let mut lines: Vec<(String, u32)> = Vec::new();
    // The first line is a heading; the others begin with the frame's number.
    for line in backtrace.to_string().lines().skip(1) {
        let frame = line.split_once(": ").map_or(line, |(_, frame)| frame);
        let frame = clean_line(cut(frame.trim(), FRAME_BYTES)).replace("<unknown>!", "");
        match lines.last_mut() {
            Some((last, times)) if *last == frame => *times += 1,
            _ => lines.push((frame, 1)),
        }
    }
    let text = |(frame, times): (String, u32)| match times {
        1 => Value::String(frame),
        _ => Value::String(format!("{frame} ({times} times)")),
    };
    lines.into_iter().map(text).collect()
}

fn root(error: &wasmtime::Error) -> String {
    clean_lines(cut(&error.root_cause().to_string(), 1024))
}

/// Whether an error came up while no frame of the guest was on the stack: its
/// function had returned and the result was being read, or (a lying allocator)
/// its inputs were being written.
fn is_outside(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<Trap>().is_none()
        && error.downcast_ref::<WasmBacktrace>().is_none_or(|trace| trace.frames().is_empty())
}

fn is_full(error: &ResourceTableError) -> bool {
    matches!(error, ResourceTableError::Full)
}

/// Whether the guest handed over more bytes at once than it may. wasmtime has
/// no public type for this error, so its words have to do; a test holds us to
/// them.
fn is_out_of_lifting(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = KIB * KIB;
    match bytes {
        _ if bytes >= MIB && bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ if bytes >= KIB && bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}

fn duration(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_names_itself_and_its_value() {
        let failure = Limit::Memory.failure(&Limits::default());
        assert_eq!(failure.kind, FailureKind::Limit);
        assert!(failure.message.contains("128 MiB (`memory_bytes`)"), "{failure}");
        assert_eq!(
            failure.details,
            Some(json!({"limit": "memory_bytes", "value": 134_217_728u64}))
        );
        assert!(Limit::Cpu.failure(&Limits::default()).message.contains("5 s (`cpu`)"));
    }
}
