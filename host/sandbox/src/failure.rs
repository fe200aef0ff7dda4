//! Maps a guest's abnormal end to a failure: from wasmtime's many errors to the typed
//! failures of the domain.
//!
//! Not here: failures that the guest itself reports, and the check of its answer
//! (`output`).

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::limits::Limit;
use serde_json::{Value, json};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use crate::guest::http::HEADERS_TOO_LARGE;
use crate::guest::state::GuestState;
use crate::guest::trap::HostTrap;
use crate::limits::memory::Denied;
use crate::sanitize::{clean_line, clean_lines, cut};

/// The phase of the invocation in which the guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Instantiation, in which start functions run.
    Start,
    /// Lookup of the guest's functions and comparison of their types.
    Typecheck,
    /// The call of the guest's function.
    Call,
}

/// Returns the failure for an error of wasmtime.
pub(crate) fn classify(error: &wasmtime::Error, phase: Phase, state: &GuestState) -> Failure {
    if let Some(trap) = error.downcast_ref::<HostTrap>() {
        return from_trap(trap, state);
    }
    if let Some(limit) = state.exceeded_limit() {
        return state.limits.reached(limit);
    }
    if let Some(Trap::StackOverflow) = error.downcast_ref::<Trap>() {
        return overflowed(error, state);
    }
    // A guest that is denied memory mostly ends by a trap or by exit. Only the denied
    // growth tells this from other ends.
    if let Some(denied) = state.memory.denied() {
        let limit = match denied {
            Denied::Memory => Limit::MemoryBytes,
            Denied::Table => Limit::TableElements,
        };
        return with_stderr(state.limits.reached(limit), state);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        let failure = Failure::new(
            FailureKind::Exit,
            format!("the node ended its process by exit({code}); a node returns instead"),
        );
        return with_stderr(failure.with(json!({"code": code})), state);
    }
    if error.downcast_ref::<ResourceTableError>().is_some_and(is_table_full) {
        return state.limits.reached(Limit::Handles);
    }
    if has_too_many_instances(error) {
        return state.limits.reached(Limit::Instances);
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return internal(&format!("{error:#}"), state);
    }
    if let Some(FieldMapError::TotalSizeTooBig) = error.downcast_ref() {
        return with_stderr(Failure::new(FailureKind::Trap, HEADERS_TOO_LARGE), state);
    }
    if is_out_of_lifting(error) {
        let limit = if is_outside_guest(error) { Limit::OutputBytes } else { Limit::LiftedBytes };
        return state.limits.reached(limit);
    }
    match phase {
        Phase::Start if error.downcast_ref::<Trap>().is_none() => Failure::new(
            FailureKind::Trap,
            format!("the component cannot be started: {}", clean_lines(&format!("{error:#}"))),
        ),
        Phase::Call if is_outside_guest(error) => Failure::new(
            FailureKind::InvalidOutput,
            format!("the node broke the contract in giving its answer: {}", root(error)),
        ),
        _ => trapped(error, state),
    }
}

/// Returns the failure of a plugin that does not fit the contract. Admission refuses
/// such plugins, so this is rare.
pub(crate) fn typecheck_failed(error: &wasmtime::Error) -> Failure {
    let cause = clean_lines(cut(&format!("{error:#}"), 1024));
    Failure::new(FailureKind::Trap, format!("the component is not a plugin of this host: {cause}"))
}

/// Returns an internal error. The host's log gets the details with the state's id.
pub(crate) fn internal(cause: &str, state: &GuestState) -> Failure {
    let id = &state.context.state;
    tracing::error!(state = id, cause, "an execution failed by an internal error");
    Failure::new(
        FailureKind::Internal,
        format!("the host could not execute the node; its log says why, under state {id}"),
    )
}

/// Adds the latest denied request to a guest's failure. The denial is the most likely
/// cause, and the next attempt would be denied the request again.
pub(crate) fn with_denial(failure: Failure, cause: &str) -> Failure {
    match failure.kind {
        FailureKind::Retryable | FailureKind::Permanent | FailureKind::Trap | FailureKind::Exit => {
            let message = format!("{}\n(its latest request was denied: {cause})", failure.message);
            Failure { details: failure.details, ..Failure::new(failure.kind, message) }.into_final()
        }
        // The guest ended for another reason.
        _ => failure,
    }
}

fn from_trap(trap: &HostTrap, state: &GuestState) -> Failure {
    match trap {
        HostTrap::Limit(limit) => state.limits.reached(*limit),
        HostTrap::Store(error) => Failure::new(FailureKind::Store, clean_line(&error.to_string())),
        HostTrap::Unavailable(error) => internal(&error.to_string(), state),
    }
}

/// Returns the failure of a guest that trapped, or broke a rule of the component model
/// in a call. The end of its standard error comes first, since it says most.
fn trapped(error: &wasmtime::Error, state: &GuestState) -> Failure {
    let name = root(error);
    let stderr = state.logs.stderr_tail();
    let message = match &stderr {
        Some(stderr) => format!("{stderr}\n({name})"),
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

/// Returns the failure of a guest that ran out of stack: the limit, and the frames.
fn overflowed(error: &wasmtime::Error, state: &GuestState) -> Failure {
    let mut failure = state.limits.reached(Limit::StackBytes);
    if let (Some(details), Some(backtrace)) =
        (&mut failure.details, error.downcast_ref::<WasmBacktrace>())
    {
        details["backtrace"] = frames(backtrace);
    }
    with_stderr(failure, state)
}

fn with_stderr(mut failure: Failure, state: &GuestState) -> Failure {
    if let Some(stderr) = state.logs.stderr_tail() {
        let details = failure.details.get_or_insert_with(|| json!({}));
        details["stderr"] = json!(stderr);
    }
    failure
}

/// Maximum bytes of one frame's text. The names in it come from the guest and may have any
/// length.
const MAX_FRAME_BYTES: usize = 200;

/// Returns the frames of a backtrace, innermost first (wasmtime keeps 20). A recursion
/// becomes one line.
fn frames(backtrace: &WasmBacktrace) -> Value {
    let mut lines: Vec<(String, u32)> = Vec::new();
    // The first line is a heading; each frame's line begins with its number.
    for line in backtrace.to_string().lines().skip(1) {
        let frame = line.split_once(": ").map_or(line, |(_, frame)| frame);
        let frame = clean_line(cut(frame.trim(), MAX_FRAME_BYTES)).replace("<unknown>!", "");
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

/// Returns whether an error occurred while no frame of the guest was on the stack. Then
/// the host was reading the result, or (with a lying allocator) writing the inputs.
fn is_outside_guest(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<Trap>().is_none()
        && error.downcast_ref::<WasmBacktrace>().is_none_or(|trace| trace.frames().is_empty())
}

fn is_table_full(error: &ResourceTableError) -> bool {
    matches!(error, ResourceTableError::Full)
}

/// Returns whether the guest handed over more bytes in one call than its limit. wasmtime has no
/// public type for this error, so its message is compared. A test fails if the message changes.
fn is_out_of_lifting(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

/// Returns whether the component has more core instances than its limit. wasmtime reports this
/// only in its message, too. Its messages about tables and memories differ; admission counts
/// those.
fn has_too_many_instances(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().starts_with("resource limit exceeded: instance count")
}
