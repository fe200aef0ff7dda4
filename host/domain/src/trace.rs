//! Ids of traces and spans, derived from runs, states and attempts alone: every host derives the
//! same ids, and a span that is sent twice has the same id twice.
//!
//! Not here: what a span contains, and how it is sent (`exosphere_orchestrator`, `traces`).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::ids::RunId;
use crate::path::Path;

/// The id of a span within its trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// Returns the id of the root span of a run.
    pub fn of_run(run: RunId) -> Self {
        SpanId::from_digest(&[b"run", run.0.as_bytes()])
    }

    /// Returns the bytes of the id.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    fn from_digest(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        parts.iter().for_each(|part| digest.update(part));
        let digest = digest.finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        // An id of zeros is invalid.
        id[7] |= u8::from(id == [0; 8]);
        SpanId(id)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A digest of a state's run and path, from which the ids of its attempts' spans are derived. It is
/// short, however long the path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateDigest([u8; 16]);

impl StateDigest {
    /// Computes the digest of a state by its run and path.
    pub fn new(run: RunId, path: &Path) -> Self {
        StateDigest::at(run, path.as_str())
    }

    /// Computes the digest of the state that created the one at `path`; `None` for the root.
    pub fn of_creator(run: RunId, path: &Path) -> Option<Self> {
        path.last().map(|(creator, _)| StateDigest::at(run, creator))
    }

    fn at(run: RunId, path: &str) -> Self {
        let digest = Sha256::new().chain_update(run.0.as_bytes()).chain_update(path).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        StateDigest(bytes)
    }

    /// Returns the id of the span of an attempt.
    pub fn attempt(self, number: u32) -> SpanId {
        SpanId::from_digest(&[b"attempt", &self.0, &number.to_be_bytes()])
    }
}

/// Returns the header `traceparent` (W3C Trace Context) of requests within a span of a run.
pub fn traceparent(run: RunId, span: SpanId, is_sampled: bool) -> String {
    format!("00-{}-{span}-{:02x}", run.0.simple(), u8::from(is_sampled))
}

/// Returns whether a text is a header `traceparent` of the version 00.
pub fn is_traceparent(text: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|digit| *digit != b'0');
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'-').collect();
    let [b"00", trace, span, flags] = parts[..] else { return false };
    (trace.len(), span.len(), flags.len()) == (32, 16, 2)
        && is_id(trace)
        && is_id(span)
        && is_hex(flags)
}

/// The random bits of a run's id that decide whether its trace is sampled: the lowest ones, as W3C
/// Trace Context has them.
const RANDOM_BITS: u32 = 56;

/// The part of all runs whose traces are sent. It depends on the id of a run alone, so that all
/// hosts agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRatio {
    /// A trace is sampled if its random bits are at least this number.
    threshold: u64,
}

/// A text that is not a sample ratio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a ratio: use a number from 0 to 1, such as 0.1 for a tenth of all runs")]
pub struct BadSampleRatio(String);

impl SampleRatio {
    /// The ratio that samples every run.
    pub const ALL: SampleRatio = SampleRatio { threshold: 0 };

    /// Returns whether the trace of a run is sampled.
    pub fn includes(self, run: RunId) -> bool {
        let random = run.0.as_u128() & ((1 << RANDOM_BITS) - 1);
        random >= u128::from(self.threshold)
    }
}

impl FromStr for SampleRatio {
    type Err = BadSampleRatio;

    fn from_str(text: &str) -> Result<Self, BadSampleRatio> {
        let ratio: Option<f64> = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        let ratio = ratio.ok_or_else(|| BadSampleRatio(text.chars().take(32).collect()))?;
        let all = (1_u64 << RANDOM_BITS) as f64;
        Ok(SampleRatio { threshold: ((1.0 - ratio) * all) as u64 })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::NodeIx;

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    #[test]
    fn spans_of_attempts_have_own_ids() {
        let path = Path::root().child(3, 0);
        let state = StateDigest::new(run(7), &path);
        let ids = [
            state.attempt(1),
            state.attempt(2),
            StateDigest::new(run(8), &path).attempt(1),
            StateDigest::new(run(7), &Path::root()).attempt(1),
            SpanId::of_run(run(7)),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{id}");
        }
        // Collectors keep spans longer than a version of this program lives.
        assert_eq!(state.attempt(1).to_string(), "83791836dab8c9ba");
    }

    #[test]
    fn a_creator_is_the_state_above() {
        let source = Path::root().child(3, 0);
        let of = |path: &Path| StateDigest::of_creator(run(1), path);
        assert_eq!(of(&Path::root()), None);
        assert_eq!(of(&source), Some(StateDigest::new(run(1), &Path::root())));
        assert_eq!(of(&source.unite(NodeIx(2))), Some(StateDigest::new(run(1), &source)));
    }

    #[test]
    fn a_traceparent_is_valid() {
        let of_run = traceparent(run(0xabc), SpanId::of_run(run(1)), true);
        assert!(
            of_run.starts_with("00-00000000000000000000000000000abc-") && of_run.ends_with("-01")
        );
        assert!(is_traceparent(of_run.as_bytes()));
        let id = "0123456789abcdef";
        assert!(is_traceparent(format!("00-{id}{id}-{id}-00").as_bytes()));
        for invalid in [
            format!("01-{id}{id}-{id}-00"),
            format!("00-{id}{id}-{id}"),
            format!("00-{id}{id}-{id}-00-"),
            format!("00-{id}{id}-{id}-0g"),
            format!("00-{id}{id}-0000000000000000-00"),
            format!("00-{}-{id}-00", "0".repeat(32)),
            format!("00-{id}{id}-{}-00", id.to_uppercase()),
            format!("00-{id}-{id}-00"),
            String::new(),
        ] {
            assert!(!is_traceparent(invalid.as_bytes()), "{invalid}");
        }
    }

    #[test]
    fn a_ratio_samples_its_part() {
        let step = (1_u128 << RANDOM_BITS) / 1_000;
        let sampled = |text: &str| {
            let ratio: SampleRatio = text.parse().unwrap();
            (0..1_000).filter(|n| ratio.includes(run((99 << 80) | (n * step)))).count()
        };
        assert_eq!((sampled("0"), sampled("1"), sampled("1.0")), (0, 1_000, 1_000));
        assert!((249..=251).contains(&sampled("0.25")), "{}", sampled("0.25"));
        assert!(SampleRatio::ALL.includes(run(0)));
        for invalid in ["", "-0.1", "1.01", "NaN", "10%"] {
            assert!(invalid.parse::<SampleRatio>().is_err(), "{invalid}");
        }
    }
}
