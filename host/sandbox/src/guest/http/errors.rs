//! Maps the errors of an exchange to the error codes of WASI, and explains them.

use std::io;

use wasmtime_wasi_http::Error;

/// Explains an error to the guest's author, with a remedy.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::DestinationIpProhibited => "its host leads to an address that is not on the \
            public internet; the operator of this host can allow its network: `exosphere serve \
            --http-allow-net NETWORK`"
            .to_owned(),
        Error::ConfigurationError => {
            "https cannot be used on this host; its log says why".to_owned()
        }
        other => other.to_string(),
    }
}

/// Maps an error of the HTTP exchange to an error code of WASI.
pub(super) fn from_hyper(error: hyper::Error) -> Error {
    let source = std::error::Error::source(&error);
    // The body of the request ended the exchange.
    if let Some(host_error) = source.and_then(|source| source.downcast_ref::<Error>()) {
        return match host_error {
            Error::HttpRequestBodySize(size) => Error::HttpRequestBodySize(*size),
            _ => Error::HttpProtocolError,
        };
    }
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    let is_cut_short = io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof);
    if is_cut_short || error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else {
        Error::ConnectionTerminated
    }
}

/// Maps a connect error to an error code of WASI.
pub(super) fn from_connect(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Error::DestinationUnavailable
        }
        _ => Error::ConnectionTerminated,
    }
}

/// Maps a TLS error to an error code of WASI.
pub(super) fn from_tls(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}
