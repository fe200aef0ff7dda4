//! The HTTP client: one call, and its answer or an [`Error`] that tells which side failed.
//!
//! Not here: the types of the answers (`exosphere-api-types`).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use exosphere_api_types::Problem;
use exosphere_domain::api_key::ApiKey;
use exosphere_domain::ids::Name;
use exosphere_domain::json::{Typed, check_stored, from_stored, read_stored};
use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use reqwest::{Certificate, Method, StatusCode, Url, redirect};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::credentials;
use crate::error::Error;
use crate::no_answer::{root_cause, unanswered, unreachable};
use crate::sanitize;

/// Timeout for the connection to a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for an answer. A long poll lasts up to 30 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for an upload: the host compiles it before it answers.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest answer that is read, in bytes. The longest answers of a host are the
/// outputs of a state, at most 32 MiB.
const MAX_ANSWER_BYTES: u64 = 128 * 1024 * 1024;
/// The largest file of certificates that is read, in bytes.
const MAX_CERTIFICATE_BYTES: u64 = 1024 * 1024;
/// The number of tries of a read-modify-write. A try fails only because a concurrent
/// change succeeded.
const MAX_CHANGE_TRIES: u32 = 20;

/// The reason of a refusal: nothing is in the namespace.
pub const NO_NAMESPACE: &str = "no-namespace";

/// The files by which client and host trust each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// The file with the key, if the command line names one.
    pub key_file: Option<&'a Path>,
    /// The file with certificates to trust besides those of the system.
    pub tls_ca: Option<&'a Path>,
}

/// A client of one host and one namespace.
pub struct Client {
    http: Http,
    host: Url,
    namespace: Name,
}

impl Client {
    /// Creates a client of the host at the URL `host`, with the key that is given or found.
    /// Nothing is sent yet.
    pub fn new(host: &str, namespace: &Name, trust: Trust<'_>) -> Result<Self, Error> {
        let host = parse_host(host)?;
        let key = credentials::find(trust.key_file, is_loopback(&host))?;
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Http::builder()
            .user_agent(concat!("exosphere/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            // The API has no redirects: a redirect would lead to another server.
            .redirect(redirect::Policy::none());
        if let Some(key) = &key {
            http = http.default_headers(authorization(key)?);
        }
        if let Some(file) = trust.tls_ca {
            http = http.tls_certs_merge(certificates(file)?);
        }
        if is_loopback(&host) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Error::Failed(root_cause(&error)))?;
        Ok(Client { http, host, namespace: namespace.clone() })
    }

    /// Starts a call of `/v1/namespaces/{namespace}/{path}`. The segments are names,
    /// numbers and ids: none is `.` or `..`.
    pub fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        self.to(method, &["v1", "namespaces", self.namespace.as_str()], path)
    }

    /// Starts a call of `/v1/operator/namespaces/{namespace}/{path}`.
    pub fn operator(&self, method: Method, path: &[&str]) -> Call<'_> {
        self.to(method, &["v1", "operator", "namespaces", self.namespace.as_str()], path)
    }

    /// Starts a call of `/v1/operator/{path}`, which concerns all namespaces.
    pub fn of_all(&self, method: Method, path: &[&str]) -> Call<'_> {
        self.to(method, &["v1", "operator"], path)
    }

    /// Reads a setting, changes it and writes it back with `If-Match`; makes the namespace if it
    /// does not exist. On a concurrent change it starts again, so that no change is lost.
    pub fn change<S: Typed + Default, T: Serialize>(
        &self,
        path: &[&str],
        change: impl Fn(S) -> Result<T, Error>,
    ) -> Result<Answer, Error> {
        let mut tries = 0;
        loop {
            let (now, version) = match self.operator(Method::GET, path).send() {
                Ok(now) => (now.read()?, now.version),
                Err(error) if error.is_reason(NO_NAMESPACE) => (S::default(), None),
                Err(error) => return Err(error),
            };
            let call = self.operator(Method::PUT, path).json(&change(now)?);
            tries += 1;
            match call.on_version(version).send() {
                Err(Error::Refused { problem, .. })
                    if problem.status == StatusCode::PRECONDITION_FAILED.as_u16()
                        && tries < MAX_CHANGE_TRIES => {}
                done => return done,
            }
        }
    }

    fn to(&self, method: Method, root: &[&str], path: &[&str]) -> Call<'_> {
        let mut url = self.host.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(root);
            segments.extend(path);
        }
        Call { client: self, request: self.http.request(method, url), streams: false }
    }
}

/// A call that has not been sent.
pub struct Call<'a> {
    client: &'a Client,
    request: RequestBuilder,
    /// The body is streamed, not held in memory.
    streams: bool,
}

impl Call<'_> {
    /// Adds query parameters; those without a value are left out.
    pub fn query(self, parameters: &[(&str, Option<String>)]) -> Self {
        let present: Vec<_> = parameters.iter().filter(|(_, value)| value.is_some()).collect();
        Call { request: self.request.query(&present), ..self }
    }

    /// Sets a value as the JSON body.
    pub fn json(self, body: &impl Serialize) -> Self {
        Call { request: self.request.json(body), ..self }
    }

    /// Sets bytes as the JSON body without checking them: the host validates.
    pub fn json_text(self, body: Vec<u8>) -> Self {
        Call { request: self.request.header(CONTENT_TYPE, "application/json").body(body), ..self }
    }

    /// Sends the call only if `version` is still current; without a version, only if there is no
    /// setting yet.
    pub fn on_version(self, version: Option<HeaderValue>) -> Self {
        let request = match version {
            Some(version) => self.request.header(IF_MATCH, version),
            None => self.request.header(IF_NONE_MATCH, "*"),
        };
        Call { request, ..self }
    }

    /// Sets the timeout of the call.
    pub fn within(self, time: Duration) -> Self {
        Call { request: self.request.timeout(time), ..self }
    }

    /// Sets a file as the body, to be streamed.
    pub fn wasm(self, body: File) -> Self {
        let request = self.request.header(CONTENT_TYPE, "application/wasm");
        Call { request: request.body(body).timeout(UPLOAD_TIMEOUT), streams: true, ..self }
    }

    /// Continues a stream of events after one.
    pub fn last_event(self, id: Option<&str>) -> Self {
        match id {
            Some(id) => Call { request: self.request.header("Last-Event-ID", id), ..self },
            None => self,
        }
    }

    /// Sends the call and waits for the answer.
    pub fn send(self) -> Result<Answer, Error> {
        let host = self.client.host.clone();
        let response = self.open()?;
        let version = response.headers().get(ETAG).cloned();
        let text = read(response).map_err(|error| unanswered(&host, &error))??;
        Answer::new(text, version, &host)
    }

    /// Sends the call, and returns the answer as a stream.
    pub fn stream(self) -> Result<impl Read, Error> {
        self.open()
    }

    /// Sends the call, and returns the response, unless it is a refusal.
    fn open(self) -> Result<Response, Error> {
        let host = &self.client.host;
        let response = self.request.send().map_err(|error| {
            if self.streams {
                // A streamed body fails with a write error that does not tell why the host
                // stopped reading. A call without a body learns the reason.
                let request = self.client.http.get(host.clone()).send();
                unreachable(host, request.err().as_ref().unwrap_or(&error))
            } else if error.is_connect() {
                unreachable(host, &error)
            } else {
                unanswered(host, &error)
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = read(response).map_err(|error| unanswered(host, &error))??;
        let problem: Problem = from_stored(&text).unwrap_or_default();
        let mut problem = Problem { status: status.as_u16(), ..problem };
        if problem.title.is_empty() && problem.detail.is_empty() {
            problem.title = format!("{host} answered {status}");
        }
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                Err(Error::Unavailable { problem: Box::new(problem), json: sanitize::json(&text) })
            }
            _ if status.is_client_error() => {
                Err(Error::Refused { problem: Box::new(problem), json: sanitize::json(&text) })
            }
            _ => Err(Error::Internal(problem.to_string())),
        }
    }
}

/// A host's answer to a successful call: valid JSON.
#[derive(Debug)]
pub struct Answer {
    text: String,
    /// The `ETag` of the answer, if it shows a setting.
    version: Option<HeaderValue>,
}

impl Answer {
    fn new(text: String, version: Option<HeaderValue>, host: &Url) -> Result<Self, Error> {
        match check_stored(&text) {
            Ok(_) => Ok(Answer { text, version }),
            Err(error) => Err(Error::Internal(format!(
                "the answer of {host} is not valid JSON: {error}; check that an Exosphere host \
                 listens there"
            ))),
        }
    }

    /// Creates one answer from the joined values of several answers.
    pub fn from_value(value: &serde_json::Value) -> Self {
        Answer { text: value.to_string(), version: None }
    }

    /// Returns the `ETag` of the answer, if it has one.
    pub fn version(&self) -> Option<HeaderValue> {
        self.version.clone()
    }

    /// Returns the JSON as the host sent it, safe for a terminal.
    pub fn json(&self) -> String {
        sanitize::json(&self.text)
    }

    /// Parses the answer as a type of `exosphere-api-types`.
    pub fn read<T: Typed>(&self) -> Result<T, Error> {
        from_stored(&self.text).map_err(|error| unexpected(&error))
    }

    /// Returns the names of the members that the host has left out, because the key may not see
    /// payloads.
    pub fn withheld(&self) -> Vec<String> {
        let withheld = self.text.contains(r#""withheld":["#).then(|| self.value().ok());
        let names = withheld
            .flatten()
            .and_then(|mut answer| answer.get_mut("withheld")?.as_array().cloned());
        names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    }

    /// Refuses an answer from which the host has left out what the command shows.
    pub fn require(&self, member: &str) -> Result<(), Error> {
        if self.withheld().iter().any(|withheld| withheld == member) {
            return Err(Error::Failed(format!(
                "this key may not see payloads, so the host has left out the {member}; an admin can \
                 create another key: `exosphere key create --payloads`"
            )));
        }
        Ok(())
    }

    /// Parses the answer as JSON of any shape.
    pub fn value(&self) -> Result<serde_json::Value, Error> {
        read_stored(&self.text).map_err(|error| unexpected(&error))
    }
}

fn unexpected(error: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!(
        "the answer of the host is not what this client expects: {error}; use a client of the \
         host's version"
    ))
}

/// Reads an answer up to its size limit. The outer error is the connection's.
fn read(response: Response) -> Result<Result<String, Error>, std::io::Error> {
    let mut bytes = Vec::new();
    response.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_ANSWER_BYTES {
        let limit = MAX_ANSWER_BYTES / (1024 * 1024);
        return Ok(Err(Error::Internal(format!(
            "the answer of the host is longer than {limit} MiB"
        ))));
    }
    Ok(String::from_utf8(bytes)
        .map_err(|_| Error::Internal("the answer of the host is not UTF-8 text".to_owned())))
}

/// Reads the certificates of a file.
pub fn certificates(file: &Path) -> Result<Vec<Certificate>, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::Failed(format!("cannot take certificates from {}: {error}", file.display()))
    };
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(|error| failed(&error))?;
    open.take(MAX_CERTIFICATE_BYTES).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    let certificates = Certificate::from_pem_bundle(&bytes).map_err(|error| failed(&error))?;
    if certificates.is_empty() {
        return Err(failed(&"it has none in PEM format"));
    }
    Ok(certificates)
}

/// Returns the header with a key.
fn authorization(key: &ApiKey) -> Result<HeaderMap, Error> {
    let text = Zeroizing::new(format!("Bearer {}", key.expose()));
    let value = HeaderValue::from_str(&text);
    let mut value = value.map_err(|error| Error::Failed(error.to_string()))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn parse_host(host: &str) -> Result<Url, Error> {
    // HOST:PORT alone would parse as a URL whose scheme is the host.
    let whole = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let url: Url = whole.parse().map_err(|error| {
        Error::Usage(format!(
            "--host {host:?} is not a valid URL: {error}; give one like http://127.0.0.1:7070"
        ))
    })?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(Error::Usage(format!(
            "--host {host:?} is not an http:// or https:// URL; give one like http://127.0.0.1:7070"
        ))),
    }
}

/// Returns whether the host is this machine, which a proxy cannot reach for the client.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_http_url() {
        for invalid in ["", "ftp://example.com", "http://", "https://", "a b:7070", ":7070"] {
            let error = parse_host(invalid).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{invalid}");
        }
        assert!(parse_host("http://[::1]:7070").is_ok());
        for (given, url) in [
            ("127.0.0.1:7070", "http://127.0.0.1:7070/"),
            ("localhost:7070", "http://localhost:7070/"),
            ("build-host", "http://build-host/"),
            ("[::1]:7070", "http://[::1]:7070/"),
        ] {
            assert_eq!(parse_host(given).unwrap().as_str(), url);
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let at = |host: &str| is_loopback(&host.parse().unwrap());
        assert!(at("http://127.0.0.1:1") && at("http://localhost") && at("http://[::1]:7070"));
        assert!(!at("http://10.0.0.1") && !at("http://localhost.example.com"));
    }

    #[test]
    fn a_path_stays_below_its_namespace() {
        let namespace: Name = "team".parse().unwrap();
        for host in ["http://h:1", "http://h:1/", "http://h:1/behind/a/proxy/"] {
            let client = Client::new(host, &namespace, Trust::default()).unwrap();
            let call = client.call(Method::GET, &["graphs", "a b/c?d"]);
            let call = call.query(&[("limit", Some("1&x".to_owned())), ("after", None)]);
            let url = call.request.build().unwrap().url().to_string();
            let end = "/v1/namespaces/team/graphs/a%20b%2Fc%3Fd?limit=1%26x";
            assert_eq!(url, format!("{}{end}", host.trim_end_matches('/')));
        }
    }
}
