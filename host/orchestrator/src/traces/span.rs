//! Spans: from an ended attempt or run to the message `Span` of OTLP. A span holds no payload and
//! no text of a guest: of a failure it has the kind.
//!
//! Not here: which spans are the parent and the links (`surroundings`), and requests (`request`).

use exosphere_domain::ids::{Millis, RunId};
use exosphere_domain::outcome::AttemptOutcome;
use exosphere_domain::state::RunStatus;
use exosphere_domain::trace::{SpanId, StateDigest};
use exosphere_store::{AttemptEnd, EndedAttempt, EndedRun, ReportedRun};

use super::protobuf::MessageWriter;

/// The numbers of the fields that this module writes, by message: OTLP guarantees that they stay.
mod fields {
    pub mod span {
        pub const TRACE_ID: u32 = 1;
        pub const SPAN_ID: u32 = 2;
        pub const PARENT_SPAN_ID: u32 = 4;
        pub const NAME: u32 = 5;
        pub const KIND: u32 = 6;
        pub const START_TIME: u32 = 7;
        pub const END_TIME: u32 = 8;
        pub const ATTRIBUTES: u32 = 9;
        pub const LINKS: u32 = 13;
        pub const STATUS: u32 = 15;
        pub const FLAGS: u32 = 16;
    }
    pub mod link {
        pub const TRACE_ID: u32 = 1;
        pub const SPAN_ID: u32 = 2;
        pub const FLAGS: u32 = 6;
    }
    pub mod status {
        pub const MESSAGE: u32 = 2;
        pub const CODE: u32 = 3;
    }
    pub mod attribute {
        pub const KEY: u32 = 1;
        pub const VALUE: u32 = 2;
        pub const TEXT: u32 = 1;
        pub const INT: u32 = 3;
    }
}
use fields::{attribute, link, span, status};

/// `SPAN_KIND_INTERNAL`.
const KIND_INTERNAL: u64 = 1;

/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u64 = 2;

/// The trace flags of a sampled span.
const SAMPLED: u32 = 1;

/// The longest path of a state in a span, in bytes: paths of deep runs are cut.
const MAX_STATE_BYTES: usize = 1024;

/// The spans around that of an attempt, and the number of its host.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// The number of the attempt that created the state; `None` for the root, and if it has been
    /// deleted.
    pub creator: Option<u32>,
    /// The spans of a unite's members.
    pub members: Vec<SpanId>,
    /// The number of the host.
    pub host: Option<i64>,
}

/// Encodes the span of an attempt.
pub(super) fn of_attempt(
    run: &ReportedRun,
    attempt: &EndedAttempt,
    around: &Surroundings,
) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(384);
    let mut message = MessageWriter::new(&mut encoded);
    let id = StateDigest::new(run.id, &attempt.path).attempt(attempt.number);
    let creator = StateDigest::of_creator(run.id, &attempt.path).zip(around.creator);
    let parent = creator.map_or_else(|| SpanId::of_run(run.id), |(state, n)| state.attempt(n));
    let name = run.graph.get(attempt.node).map_or("", |node| node.identifier.as_str());
    let times = (attempt.began_at.unwrap_or(attempt.ended_at), attempt.ended_at);
    write_span(&mut message, (run.id, id, Some(parent)), name, times);
    write_run(&mut message, run);
    let state = run.graph.path_text(&attempt.path).unwrap_or_default();
    write_text(&mut message, "exosphere.state", cut(&state));
    write_int(&mut message, "exosphere.attempt", attempt.number.into());
    if let Some(host) = around.host {
        write_int(&mut message, "exosphere.host", host);
    }
    let (outcome, kind) = match attempt.end {
        AttemptEnd::Outcome(outcome, kind) => (outcome.name(), kind),
        AttemptEnd::Cancelled => (RunStatus::Cancelled.as_str(), None),
    };
    write_text(&mut message, "exosphere.outcome", outcome);
    if let Some(usage) = &attempt.usage {
        let int = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        write_int(&mut message, "exosphere.usage.cpu_us", int(usage.cpu_us));
        write_int(&mut message, "exosphere.usage.peak_memory_bytes", int(usage.peak_memory_bytes));
        write_int(&mut message, "exosphere.usage.host_calls", usage.host_calls.into());
        write_int(&mut message, "exosphere.usage.input_bytes", int(usage.input_bytes));
        write_int(&mut message, "exosphere.usage.output_bytes", int(usage.output_bytes));
    }
    if let Some(kind) = kind {
        write_text(&mut message, "error.type", kind.as_str());
    }
    for member in &around.members {
        message.message(span::LINKS, |to| {
            to.bytes(link::TRACE_ID, run.id.0.as_bytes());
            to.bytes(link::SPAN_ID, member.as_bytes());
            to.fixed_32(link::FLAGS, SAMPLED);
        });
    }
    if matches!(attempt.end, AttemptEnd::Outcome(AttemptOutcome::Errored, _)) {
        write_error(&mut message, kind.map_or("", |kind| kind.as_str()));
    }
    encoded
}

/// Encodes the root span of a run.
pub(super) fn of_run(run: &ReportedRun, ended: &EndedRun) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(256);
    let mut message = MessageWriter::new(&mut encoded);
    let times = (ended.created_at, ended.ended_at);
    let ids = (run.id, SpanId::of_run(run.id), None);
    write_span(&mut message, ids, run.graph_name.as_str(), times);
    write_run(&mut message, run);
    write_text(&mut message, "exosphere.run", &run.id.to_string());
    write_text(&mut message, "exosphere.status", ended.status.as_str());
    let missed = ended.missed.map(|kind| kind.as_str());
    if let Some(missed) = missed {
        write_text(&mut message, "exosphere.missed", missed);
    }
    if ended.status == RunStatus::Failed {
        write_error(&mut message, missed.unwrap_or_default());
    }
    encoded
}

/// Writes the fields that every span has.
fn write_span(
    message: &mut MessageWriter<'_>,
    (run, id, parent): (RunId, SpanId, Option<SpanId>),
    name: &str,
    (began_at, ended_at): (Millis, Millis),
) {
    let nanos = |time: Millis| time.max(0).unsigned_abs().saturating_mul(1_000_000);
    message.bytes(span::TRACE_ID, run.0.as_bytes());
    message.bytes(span::SPAN_ID, id.as_bytes());
    if let Some(parent) = parent {
        message.bytes(span::PARENT_SPAN_ID, parent.as_bytes());
    }
    message.bytes(span::NAME, name.as_bytes());
    message.int(span::KIND, KIND_INTERNAL);
    // A span does not end before it begins, whichever clock a time is of.
    message.fixed_64(span::START_TIME, nanos(began_at.min(ended_at)));
    message.fixed_64(span::END_TIME, nanos(ended_at));
    message.fixed_32(span::FLAGS, SAMPLED);
}

fn write_run(message: &mut MessageWriter<'_>, run: &ReportedRun) {
    write_text(message, "exosphere.namespace", run.namespace.as_str());
    write_text(message, "exosphere.graph", run.graph_name.as_str());
    write_int(message, "exosphere.revision", run.revision);
}

fn write_error(message: &mut MessageWriter<'_>, text: &str) {
    message.message(span::STATUS, |to| {
        if !text.is_empty() {
            to.bytes(status::MESSAGE, text.as_bytes());
        }
        to.int(status::CODE, STATUS_ERROR);
    });
}

fn write_text(message: &mut MessageWriter<'_>, key: &str, text: &str) {
    message.message(span::ATTRIBUTES, |to| write_text_attribute(to, key, text));
}

fn write_int(message: &mut MessageWriter<'_>, key: &str, number: i64) {
    message.message(span::ATTRIBUTES, |to| {
        to.bytes(attribute::KEY, key.as_bytes());
        to.message(attribute::VALUE, |value| value.int(attribute::INT, number as u64));
    });
}

/// Writes the fields of an attribute, of a span or of a resource.
pub(super) fn write_text_attribute(to: &mut MessageWriter<'_>, key: &str, text: &str) {
    to.bytes(attribute::KEY, key.as_bytes());
    to.message(attribute::VALUE, |value| value.bytes(attribute::TEXT, text.as_bytes()));
}

/// Cuts the path of a state.
fn cut(state: &str) -> &str {
    let mut end = state.len().min(MAX_STATE_BYTES);
    while !state.is_char_boundary(end) {
        end -= 1;
    }
    &state[..end]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use exosphere_domain::failure::FailureKind;
    use exosphere_domain::graph::testing::GraphBuilder;
    use exosphere_domain::ids::{NodeIx, RunKey, SessionId};
    use exosphere_domain::limits::Usage;
    use exosphere_domain::path::Path;
    use uuid::Uuid;

    use super::*;

    fn run() -> ReportedRun {
        ReportedRun {
            key: RunKey(1),
            id: RunId(Uuid::from_u128(0x0195_b7f0_0000_7000_8000_0000_0000_0001)),
            namespace: "shop".parse().unwrap(),
            graph_name: "words".parse().unwrap(),
            revision: 3,
            graph: Arc::new(GraphBuilder::from_text("U > X; X > W; W(U)").build().unwrap()),
        }
    }

    fn attempt(end: AttemptEnd) -> EndedAttempt {
        EndedAttempt {
            run: RunKey(1),
            node: NodeIx(1),
            path: Path::root().child(70, 0),
            number: 2,
            session: SessionId(1),
            began_at: Some(1_700_000_000_123),
            ended_at: 1_700_000_001_000,
            end,
            usage: Some(Usage { cpu_us: 300, peak_memory_bytes: 1 << 20, ..Usage::default() }),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// These spans were decoded by the messages that the makers of the protocol generate, with every
    /// value in its place; from then on, the bytes stay.
    #[test]
    fn spans_are_what_other_libraries_read() {
        let failed = AttemptEnd::Outcome(AttemptOutcome::Errored, Some(FailureKind::Trap));
        let members = vec![SpanId::of_run(run().id)];
        let around = Surroundings { creator: Some(1), members, host: Some(7) };
        let ended = EndedRun {
            run: RunKey(1),
            status: RunStatus::Failed,
            created_at: 1_700_000_000_000,
            ended_at: 1_700_000_001_000,
            missed: None,
        };
        let span = of_attempt(&run(), &attempt(failed), &around);
        assert_eq!(
            hex(&span),
            "0a100195b7f00000700080000000000000011208fcc209bf0cd7990f2208a43f57bd67d62b862a015830\
             0139c0d47e3dfe9c97174100cac471fe9c97178501010000004a1d0a1365786f7370686572652e6e616d\
             65737061636512060a0473686f704a1a0a0f65786f7370686572652e677261706812070a05776f726473\
             4a180a1265786f7370686572652e7265766973696f6e120218034a1c0a0f65786f7370686572652e7374\
             61746512090a07552e585b37305d4a170a1165786f7370686572652e617474656d7074120218024a140a\
             0e65786f7370686572652e686f7374120218074a1e0a1165786f7370686572652e6f7574636f6d651209\
             0a074552524f5245444a1d0a1665786f7370686572652e75736167652e6370755f7573120318ac024a29\
             0a2165786f7370686572652e75736167652e7065616b5f6d656d6f72795f62797465731204188080404a\
             200a1a65786f7370686572652e75736167652e686f73745f63616c6c73120218004a210a1b65786f7370\
             686572652e75736167652e696e7075745f6279746573120218004a220a1c65786f7370686572652e7573\
             6167652e6f75747075745f6279746573120218004a140a0a6572726f722e7479706512060a0474726170\
             6a210a100195b7f00000700080000000000000011208f32013d2c089583735010000007a081204747261\
             701802"
        );
        assert_eq!(
            hex(&of_run(&run(), &ended)),
            "0a100195b7f00000700080000000000000011208f32013d2c08958372a05776f72647330013900002a36\
             fe9c97174100cac471fe9c97178501010000004a1d0a1365786f7370686572652e6e616d657370616365\
             12060a0473686f704a1a0a0f65786f7370686572652e677261706812070a05776f7264734a180a126578\
             6f7370686572652e7265766973696f6e120218034a370a0d65786f7370686572652e72756e12260a2430\
             313935623766302d303030302d373030302d383030302d3030303030303030303030314a1c0a1065786f\
             7370686572652e73746174757312080a064641494c45447a021802"
        );
    }

    #[test]
    fn a_span_never_ends_before_its_begin() {
        let attempt = EndedAttempt { began_at: Some(i64::MAX), ..attempt(AttemptEnd::Cancelled) };
        let span = of_attempt(&run(), &attempt, &Surroundings::default());
        let nanos = 1_700_000_001_000_u64 * 1_000_000;
        let both = [&[0x39][..], &nanos.to_le_bytes(), &[0x41], &nanos.to_le_bytes()].concat();
        assert!(span.windows(both.len()).any(|bytes| bytes == both), "{span:02x?}");
    }

    #[test]
    fn long_paths_are_cut() {
        assert_eq!(cut(&"a".repeat(MAX_STATE_BYTES + 1)).len(), MAX_STATE_BYTES);
        assert_eq!(cut("split.count[3]"), "split.count[3]");
    }
}
