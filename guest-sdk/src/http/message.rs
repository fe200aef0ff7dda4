//! Messages between this crate and the host: a request that is ready to be sent, and the
//! response to it.

use std::time::Duration;

use super::url::Url;

/// A request that is ready to be sent.
pub(crate) struct Outgoing {
    pub(crate) method: String,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(String, String)>,
    /// The value of the header `Idempotency-Key`, unless the host sends its own.
    pub(crate) idempotency_key: Option<String>,
    pub(crate) body: Option<Vec<u8>>,
    /// The time until the whole response must be there.
    pub(crate) timeout: Option<Duration>,
    /// The most bytes of the response's body.
    pub(crate) max_bytes: usize,
}

/// The response to a request, with its whole body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Incoming {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Returns the value of the first header with this name.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.as_str())
}
