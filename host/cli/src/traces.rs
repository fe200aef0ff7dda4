//! Arguments of `serve` for traces, and the variables of the OpenTelemetry specification that
//! complete them.
//!
//! Not here: spans, and how they are sent (`exosphere-orchestrator`).

use std::path::Path;
use std::time::Duration;

use clap::Args;
use exosphere_domain::trace::SampleRatio;
use exosphere_orchestrator::{DEFAULT_OTLP_TIMEOUT, TraceConfig};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::client::certificates;
use crate::error::Error;

/// The path at which a collector takes spans.
const TRACES_PATH: [&str; 2] = ["v1", "traces"];

/// The protocol that this host speaks, as the specification names it.
const PROTOCOL: &str = "http/protobuf";

/// Where traces go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// The OpenTelemetry collector that gets a span for each attempt and each run:
    /// http://127.0.0.1:4318
    ///
    /// The host sends OTLP/HTTP to the path /v1/traces below it. Without this, the
    /// variables OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT
    /// count; without those, no traces are sent.
    #[arg(long, env = "EXOSPHERE_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true,
          value_parser = collector)]
    otlp_endpoint: Option<Url>,
    /// The part of all runs whose traces are sent, from 0 to 1. Hosts with the same
    /// ratio choose the same runs
    #[arg(long, env = "EXOSPHERE_OTLP_SAMPLE", value_name = "RATIO", default_value = "1")]
    otlp_sample: SampleRatio,
}

impl TraceArgs {
    /// Returns where and how a host of this name sends traces; `None` if it sends none.
    ///
    /// # Errors
    /// If the certificates to trust cannot be read.
    pub fn config(&self, host_name: &str) -> Result<Option<TraceConfig>, Error> {
        let is_set = |value: &String| !value.is_empty();
        self.config_with(host_name, &|name| std::env::var(name).ok().filter(is_set))
    }

    fn config_with(
        &self,
        host_name: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<TraceConfig>, Error> {
        let endpoint = match &self.otlp_endpoint {
            Some(base) => traces_url(base),
            None => match standard_endpoint(variable) {
                Some(url) => url,
                None => return Ok(None),
            },
        };
        let of_traces = |name: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let headers = of_traces("HEADERS").map(|text| headers(&text)).unwrap_or_default();
        let extra_roots = of_traces("CERTIFICATE").map(|file| certificates(Path::new(&file)));
        let config = TraceConfig {
            endpoint,
            headers,
            timeout: of_traces("TIMEOUT").map_or(DEFAULT_OTLP_TIMEOUT, |text| timeout(&text)),
            gzip: of_traces("COMPRESSION").is_none_or(|name| name != "none"),
            extra_roots: extra_roots.transpose()?.unwrap_or_default(),
            attributes: resource(host_name, variable),
            sample: self.otlp_sample,
        };
        tracing::info!(endpoint = config.shown_endpoint(), "traces are sent");
        Ok(Some(config))
    }
}

/// Parses the URL of a collector.
fn collector(text: &str) -> Result<Url, String> {
    let url: Result<Url, _> = text.parse();
    match url {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("give the URL of a collector, such as http://127.0.0.1:4318".to_owned()),
    }
}

/// Returns the URL of a collector that takes spans, by its base URL.
fn traces_url(base: &Url) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
        if !base.path().trim_end_matches('/').ends_with(&TRACES_PATH.join("/")) {
            segments.extend(TRACES_PATH);
        }
    }
    url
}

/// Returns the URL that the variables of the specification name, if they ask for traces.
fn standard_endpoint(variable: &dyn Fn(&str) -> Option<String>) -> Option<Url> {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER")
            .is_some_and(|all| !all.split(',').any(|name| name.trim() == "otlp"));
    let (traces, base) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
    let (name, text) = variable(traces)
        .map(|text| (traces, text))
        .or_else(|| variable(base).map(|text| (base, text)))
        .filter(|_| !is_off)?;
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(protocol) = protocol.filter(|protocol| protocol != PROTOCOL) {
        tracing::warn!(
            protocol,
            "no traces are sent: this host speaks {PROTOCOL} alone; name a collector that takes it \
             with --otlp-endpoint"
        );
        return None;
    }
    match collector(&text) {
        Ok(url) if name == traces => Some(url),
        Ok(url) => Some(traces_url(&url)),
        Err(cause) => {
            tracing::warn!(name, cause, "no traces are sent: the variable is not valid");
            None
        }
    }
}

/// Parses a timeout in milliseconds.
fn timeout(text: &str) -> Duration {
    match text.parse().ok().filter(|ms| *ms > 0) {
        Some(ms) => Duration::from_millis(ms),
        None => {
            let default_ms = DEFAULT_OTLP_TIMEOUT.as_millis();
            tracing::warn!(default_ms, "the timeout of OTLP is not a number of milliseconds");
            DEFAULT_OTLP_TIMEOUT
        }
    }
}

/// Parses headers: `name=value,name=value`, values percent-encoded. They may hold tokens.
fn headers(text: &str) -> HeaderMap {
    let pairs = pairs(text).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        match (HeaderName::try_from(&name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.append(name, value);
            }
            _ => tracing::warn!(name, "a header of OTLP is not valid, and is left out"),
        }
    }
    headers
}

/// Returns the attributes of the resource.
fn resource(host_name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let given = variable("OTEL_RESOURCE_ATTRIBUTES");
    let mut attributes = given.and_then(|text| pairs(&text)).unwrap_or_default();
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        attributes.retain(|(key, _)| key != "service.name");
        attributes.push(("service.name".to_owned(), name));
    }
    let defaults = [
        ("service.name", "exosphere"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", host_name),
    ];
    for (key, value) in defaults {
        if !attributes.iter().any(|(known, _)| known == key) {
            attributes.push((key.to_owned(), value.to_owned()));
        }
    }
    attributes
}

/// Parses a list of pairs: `key=value,key=value`, with percent-encoding. One that is not valid
/// makes the whole list invalid.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let decode =
        |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (decode(key)?, decode(value)?);
        (!key.is_empty()).then_some((key, value))
    };
    let all: Option<Vec<_>> =
        text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect();
    if all.is_none() {
        tracing::warn!(
            "a list of OpenTelemetry is not of the form key=value,key=value; it is left out"
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestArgs {
        #[command(flatten)]
        traces: TraceArgs,
    }

    fn config(line: &str, variables: &[(&str, &str)]) -> Option<TraceConfig> {
        let args = TestArgs::try_parse_from(line.split_whitespace()).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        args.traces.config_with("here", &variable).unwrap()
    }

    fn endpoint(line: &str, variables: &[(&str, &str)]) -> Option<String> {
        config(line, variables).map(|config| config.endpoint.to_string())
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/p/");
    const TRACES: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/as/is");

    #[test]
    fn the_nearest_endpoint_counts() {
        let is = |url: &str| Some(url.to_owned());
        assert_eq!(endpoint("x", &[]), None);
        assert_eq!(endpoint("x", &[BASE]), is("http://base:4318/p/v1/traces"));
        assert_eq!(endpoint("x", &[BASE, TRACES]), is("http://traces:1/as/is"));
        for base in ["http://a:1", "http://a:1/", "http://a:1/v1/traces", "http://a:1/v1/traces/"] {
            let line = format!("x --otlp-endpoint {base}");
            assert_eq!(endpoint(&line, &[BASE, TRACES]), is("http://a:1/v1/traces"), "{base}");
        }
        for invalid in ["a:4318", "ftp://a", "http://", "4318"] {
            let line = format!("x --otlp-endpoint {invalid}");
            assert!(TestArgs::try_parse_from(line.split_whitespace()).is_err(), "{invalid}");
            assert_eq!(endpoint("x", &[(BASE.0, invalid)]), None, "{invalid}");
        }
    }

    #[test]
    fn standard_variables_turn_traces_off() {
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ] {
            assert_eq!(endpoint("x", &[BASE, off]), None, "{off:?}");
            assert!(endpoint("x --otlp-endpoint http://a", &[BASE, off]).is_some(), "{off:?}");
        }
        for on in [
            ("OTEL_SDK_DISABLED", "false"),
            ("OTEL_TRACES_EXPORTER", "console, otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ] {
            assert!(endpoint("x", &[BASE, on]).is_some(), "{on:?}");
        }
    }

    #[test]
    fn headers_of_traces_go_before_others() {
        let all = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a%3D, x-b = 2 ,");
        let found = config("x", &[BASE, all]).unwrap().headers;
        assert_eq!(
            (&found["authorization"], &found["x-b"]),
            (&HeaderValue::from_static("Bearer a="), &HeaderValue::from_static("2"))
        );
        assert!(!format!("{found:?}").contains("Bearer"), "{found:?}");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-c=3,in valid=1");
        let found = config("x", &[BASE, all, own]).unwrap().headers;
        assert_eq!((found.len(), &found["x-c"]), (1, &HeaderValue::from_static("3")));
        let broken = ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b");
        assert!(config("x", &[BASE, broken]).unwrap().headers.is_empty());
    }

    #[test]
    fn a_resource_names_the_service() {
        let of = |variables: &[(&str, &str)]| {
            let mut all = vec![BASE];
            all.extend(variables);
            config("x", &all).unwrap().attributes
        };
        let get = |attributes: &[(String, String)], key: &str| {
            let all: Vec<_> = attributes.iter().filter(|(known, _)| known == key).collect();
            assert_eq!(all.len(), 1, "{key}: {attributes:?}");
            all[0].1.clone()
        };
        let plain = of(&[]);
        assert_eq!(
            (get(&plain, "service.name"), get(&plain, "host.name")),
            ("exosphere".to_owned(), "here".to_owned())
        );
        let given = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,deployment.environment=a%2Cb");
        assert_eq!(get(&of(&[given]), "service.name"), "x");
        let named = of(&[given, ("OTEL_SERVICE_NAME", "shop")]);
        assert_eq!(get(&named, "service.name"), "shop");
        assert_eq!(get(&named, "deployment.environment"), "a,b");
    }

    #[test]
    fn other_settings_have_defaults() {
        let plain = config("x", &[BASE]).unwrap();
        assert_eq!((plain.timeout, plain.gzip), (DEFAULT_OTLP_TIMEOUT, true));
        assert_eq!(plain.sample, SampleRatio::ALL);
        let set = [
            BASE,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ];
        let set = config("x --otlp-sample 0.5", &set).unwrap();
        assert_eq!((set.timeout, set.gzip), (Duration::from_millis(1_500), false));
        assert_ne!(set.sample, SampleRatio::ALL);
        let invalid = ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s");
        assert_eq!(config("x", &[BASE, invalid]).unwrap().timeout, DEFAULT_OTLP_TIMEOUT);
        assert!(TestArgs::try_parse_from(["x", "--otlp-sample", "2"]).is_err());
    }

    #[test]
    fn a_shown_endpoint_holds_no_password() {
        let url = "x --otlp-endpoint https://user:pass@a.example:4318/x?key=secret";
        let shown = config(url, &[]).unwrap().shown_endpoint();
        assert_eq!(shown, "https://a.example:4318/x/v1/traces");
    }
}
