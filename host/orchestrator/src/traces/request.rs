//! The requests to a collector, and its answers: `ExportTraceServiceRequest` and
//! `ExportTraceServiceResponse` of OTLP.
//!
//! Not here: the spans (`span`), and the exchange (`sender`).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::protobuf::{FieldValue, MessageReader, MessageWriter};
use super::span::write_text_attribute;

/// The numbers of fields, by message.
const RESOURCE_SPANS: u32 = 1;
const RESOURCE: u32 = 1;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SCOPE: u32 = 1;
const SCOPE_NAME: u32 = 1;
const SCOPE_VERSION: u32 = 2;
const SPANS: u32 = 2;
const PARTIAL_SUCCESS: u64 = 1;
const REJECTED_SPANS: u64 = 1;
const ERROR_MESSAGE: u64 = 2;

/// The longest message of a collector that is logged, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// The part of a request that is the same in all of them: what sends the spans.
pub(super) struct RequestFrame {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl RequestFrame {
    /// Creates the frame of a host whose resource has these attributes.
    pub(super) fn new(attributes: &[(String, String)]) -> Self {
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        MessageWriter::new(&mut resource).message(RESOURCE, |to| {
            for (key, value) in attributes {
                to.message(RESOURCE_ATTRIBUTES, |to| write_text_attribute(to, key, value));
            }
        });
        MessageWriter::new(&mut scope).message(SCOPE, |to| {
            to.bytes(SCOPE_NAME, b"exosphere");
            to.bytes(SCOPE_VERSION, env!("CARGO_PKG_VERSION").as_bytes());
        });
        RequestFrame { resource, scope }
    }

    /// Encodes a request with encoded spans.
    pub(super) fn request(&self, spans: &[Vec<u8>]) -> Vec<u8> {
        let bytes: usize = spans.iter().map(|span| span.len() + 6).sum();
        let mut request = Vec::with_capacity(bytes + self.resource.len() + self.scope.len() + 16);
        MessageWriter::new(&mut request).message(RESOURCE_SPANS, |to| {
            to.fields(&self.resource);
            to.message(SCOPE_SPANS, |to| {
                to.fields(&self.scope);
                spans.iter().for_each(|span| to.bytes(SPANS, span));
            });
        });
        request
    }
}

/// Compresses a request. Speed counts more than size: the spans of a run are alike.
pub(super) fn gzip(request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(request.len() / 4), Compression::fast());
    encoder.write_all(request)?;
    encoder.finish()
}

/// The spans that a collector has refused in an answer of success.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartialSuccess {
    pub rejected: u64,
    pub message: String,
}

/// Reads what an answer says of refused spans; `None` if it says nothing.
pub(super) fn partial_success(answer: &[u8]) -> Option<PartialSuccess> {
    let partial = MessageReader(answer).find_map(|field| match field {
        (PARTIAL_SUCCESS, FieldValue::Bytes(partial)) => Some(partial),
        _ => None,
    })?;
    let mut found = PartialSuccess { rejected: 0, message: String::new() };
    for field in MessageReader(partial) {
        match field {
            (REJECTED_SPANS, FieldValue::Number(rejected)) => found.rejected = rejected,
            (ERROR_MESSAGE, FieldValue::Bytes(text)) => {
                found.message =
                    String::from_utf8_lossy(text).chars().take(MAX_MESSAGE_CHARS).collect();
            }
            _ => {}
        }
    }
    (found.rejected > 0 || !found.message.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_is_read() {
        assert_eq!(partial_success(&[]), None);
        assert_eq!(partial_success(b"<html>not found</html>"), None);
        let mut answer = Vec::new();
        MessageWriter::new(&mut answer).message(1, |partial| {
            partial.int(1, 3);
            partial.bytes(2, "no".repeat(1_000).as_bytes());
        });
        let found = partial_success(&answer).unwrap();
        assert_eq!((found.rejected, found.message.len()), (3, MAX_MESSAGE_CHARS));
        // A full success may have an empty message.
        assert_eq!(partial_success(&[0x0a, 0]), None);
    }
}
