//! Arguments of `serve` that protect its API: keys, TLS, and the address to listen on.
//!
//! Not here: verification of keys (`exosphere-orchestrator`), and TLS itself (`exosphere-api`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use exosphere_api::Tls;
use exosphere_orchestrator::DEFAULT_REQUESTS_PER_KEY;

use crate::error::Error;

/// The protection of the API.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct Exposure {
    /// Ask for no keys: everyone on this machine may do everything. Only for the loopback
    #[arg(long, env = "EXOSPHERE_NO_AUTH")]
    no_auth: bool,
    /// The certificate chain, as PEM: the API speaks HTTPS. A changed file is read
    /// again within two seconds
    #[arg(long, env = "EXOSPHERE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, as PEM
    #[arg(long, env = "EXOSPHERE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen beyond the loopback without TLS, where a proxy in front has it
    ///
    /// Keys and payloads cross the network in clear text.
    #[arg(long, env = "EXOSPHERE_INSECURE_HTTP", conflicts_with = "tls_cert")]
    insecure_http: bool,
    /// The number of requests a second with one key, unless the key has a rate of
    /// its own
    #[arg(long, env = "EXOSPHERE_REQUESTS_PER_KEY", value_name = "N",
          default_value_t = DEFAULT_REQUESTS_PER_KEY, value_parser = value_parser!(u32).range(1..))]
    pub requests_per_key: u32,
    /// The number of days for which the audit log is kept
    #[arg(long, env = "EXOSPHERE_AUDIT_DAYS", value_name = "DAYS", default_value_t = 366,
          value_parser = value_parser!(u32).range(1..=36_600))]
    audit_days: u32,
}

impl Exposure {
    /// Refuses an address that would expose the API.
    pub fn check(&self, listen: SocketAddr) -> Result<(), Error> {
        if listen.ip().is_loopback() {
            return Ok(());
        }
        if self.no_auth {
            return Err(Error::Usage(format!(
                "--no-auth is for the loopback alone, and {listen} is reachable from other \
                 machines: leave it out, and make keys with `exosphere key create`"
            )));
        }
        if self.tls_cert.is_none() && !self.insecure_http {
            return Err(Error::Usage(format!(
                "refused to listen on {listen} without TLS: keys and payloads would cross the \
                 network in clear text. Give a certificate: `exosphere serve --listen {listen} \
                 --tls-cert cert.pem --tls-key key.pem`; or add --insecure-http if a proxy in \
                 front has TLS"
            )));
        }
        Ok(())
    }

    /// Loads the certificate, if the API speaks HTTPS.
    pub fn tls(&self) -> Result<Option<Tls>, Error> {
        let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let tls = Tls::load(cert.clone(), key.clone());
        tls.map(Some).map_err(|error| Error::Start(error.to_string()))
    }

    /// Returns whether the API asks for keys. Warns if it does not.
    pub fn asks_for_keys(&self) -> bool {
        if self.no_auth {
            tracing::warn!(
                "--no-auth: the API asks for no keys; every process on this machine may do everything"
            );
        }
        !self.no_auth
    }

    /// Returns the time for which the audit log is kept.
    pub fn audit_retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.audit_days) * 24 * 60 * 60)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestArgs {
        #[command(flatten)]
        exposure: Exposure,
    }

    #[test]
    fn exposed_addresses_need_tls_or_a_flag() {
        let check = |line: &str, listen: &str| {
            let args = TestArgs::try_parse_from(line.split_whitespace()).unwrap();
            args.exposure.check(listen.parse().unwrap()).map_err(|error| error.to_string())
        };
        for local in ["127.0.0.1:1", "[::1]:1"] {
            assert_eq!(check("x", local), Ok(()));
            assert_eq!(check("x --no-auth", local), Ok(()));
        }
        for exposed in ["0.0.0.0:7070", "[::]:7070", "10.0.0.1:7070"] {
            let message = check("x", exposed).unwrap_err();
            let command = format!("serve --listen {exposed} --tls-cert");
            assert!(message.contains(&command) && message.contains("--insecure-http"), "{message}");
            assert!(check("x --no-auth --insecure-http", exposed).is_err());
            assert_eq!(check("x --insecure-http", exposed), Ok(()));
            assert_eq!(check("x --tls-cert c --tls-key k", exposed), Ok(()));
        }
        for invalid in
            ["x --tls-cert c", "x --tls-key k", "x --tls-cert c --tls-key k --insecure-http"]
        {
            assert!(TestArgs::try_parse_from(invalid.split_whitespace()).is_err(), "{invalid}");
        }
    }
}
