//! The configuration of traces.

use std::time::Duration;

use exosphere_domain::trace::SampleRatio;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Url};

/// The timeout of a request to a collector, unless the operator sets it.
pub const DEFAULT_OTLP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how a host sends its traces.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// The URL that takes spans, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: Url,
    /// Headers of each request, which may hold secrets.
    pub headers: HeaderMap,
    /// The timeout of a request.
    pub timeout: Duration,
    /// Set if requests are compressed.
    pub gzip: bool,
    /// Certificates to trust besides those of the system.
    pub extra_roots: Vec<Certificate>,
    /// The attributes of the resource: the name of the service, and others.
    pub attributes: Vec<(String, String)>,
    /// The part of all runs whose traces are sent.
    pub sample: SampleRatio,
}

impl TraceConfig {
    /// Returns the address of the collector for people: a URL may hold a password.
    pub fn shown_endpoint(&self) -> String {
        let mut url = self.endpoint.clone();
        // Neither fails for a URL with a host.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        url.to_string()
    }
}
