//! Errors of calls that a host did not answer: which side failed, and what to do.
//!
//! Not here: refusals, which are answers (`client`).

use std::error::Error as StdError;

use reqwest::Url;
use rustls::{CertificateError, InvalidMessage};

use crate::error::Error;

/// Returns the error of a call that reached no host.
pub fn unreachable(host: &Url, error: &(dyn StdError + 'static)) -> Error {
    let remedy = remedy(host, error).unwrap_or_else(|| {
        "start a host with `exosphere serve`, or name another with --host or EXOSPHERE_HOST"
            .to_owned()
    });
    Error::Unreachable(format!("no answer from {}: {}\n{remedy}", shown(host), root_cause(error)))
}

/// Returns the error of a call that a host may have carried out.
pub fn unanswered(host: &Url, error: &(dyn StdError + 'static)) -> Error {
    // What is no HTTP carried nothing out.
    if remedy(host, error).is_some() {
        return unreachable(host, error);
    }
    Error::Unanswered(format!(
        "no answer from {}: {}; the host may have carried out the request",
        shown(host),
        root_cause(error)
    ))
}

/// Returns the remedy of a client and a host that do not agree on TLS.
fn remedy(host: &Url, error: &(dyn StdError + 'static)) -> Option<String> {
    let rest = host.as_str().strip_prefix(host.scheme()).unwrap_or_default();
    let rest = rest.trim_end_matches('/');
    if host.scheme() == "http" {
        let is_no_http = cause::<hyper::Error>(error).is_some_and(hyper::Error::is_parse);
        let words = "this is no HTTP, and may be TLS: name the host as";
        return is_no_http.then(|| format!("{words} --host https{rest}"));
    }
    match cause::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(
            "the system does not trust the host's certificate: name a file with a certificate that \
             does, or with its own, by --tls-ca or EXOSPHERE_TLS_CA"
                .to_owned(),
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("name the host with --host by a name that its certificate has".to_owned()),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some(format!("this is no TLS: name the host as --host http{rest}, if it has none"))
        }
        _ => None,
    }
}

/// Finds a cause by its type. An error of input and output may hold one.
fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

fn shown(host: &Url) -> &str {
    host.as_str().trim_end_matches('/')
}

/// Returns the innermost cause: the outer ones only say that a request failed.
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
