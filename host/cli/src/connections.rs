//! Arguments for the connections of the API, and the division of the process's file
//! descriptors. Not here: the connections themselves, which are in `exosphere-api`.

use std::time::Duration;

use clap::{Args, value_parser};
use exosphere_api::ConnectionLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Default number of connections of the API.
const DEFAULT_CONNECTIONS: u32 = 1024;

/// Number of file descriptors for the host's own needs: databases, files, the compiler's pipes.
const RESERVED_DESCRIPTORS: u64 = 64;

/// Number of file descriptors per slot: a node may have a request under way, and a name lookup
/// for the next one.
const DESCRIPTORS_PER_SLOT: u64 = 2;

/// The minimum number of connections, even if the system allows fewer descriptors.
const MIN_CONNECTIONS: u64 = 16;

/// Limits on the connections of the API.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub struct Connections {
    /// The maximum number of connections of the API. At the limit, the host closes
    /// the connection with the longest idle time for a new one.
    ///
    /// There are fewer if the process has too few file descriptors (`ulimit -n`):
    /// the host reserves some for its own needs.
    #[arg(long, env = "EXOSPHERE_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS,
          value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// The maximum number of connections per peer: an IPv4 address, or a /64 network
    /// of IPv6 [default: half of all]
    #[arg(long, env = "EXOSPHERE_CONNECTIONS_PER_PEER", value_name = "N",
          value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections_per_peer: Option<u32>,
    /// The timeout for the headers of a request, in seconds.
    #[arg(long, env = "EXOSPHERE_HEADER_SECONDS", default_value_t = 10, value_name = "SECONDS",
          value_parser = value_parser!(u64).range(1..=3600))]
    header_seconds: u64,
    /// The timeout between two requests on one connection, in seconds.
    #[arg(long, env = "EXOSPHERE_IDLE_SECONDS", default_value_t = 60, value_name = "SECONDS",
          value_parser = value_parser!(u64).range(1..=3600))]
    idle_seconds: u64,
}

impl Connections {
    /// Returns the connection limits, reduced to the descriptors of the process.
    pub fn limits(&self, descriptors: u64, slots: u32) -> ConnectionLimits {
        let reserved = RESERVED_DESCRIPTORS + DESCRIPTORS_PER_SLOT * u64::from(slots);
        let left = descriptors.saturating_sub(reserved).max(MIN_CONNECTIONS);
        let required = u64::from(self.connections);
        if required > left {
            tracing::warn!(
                descriptors,
                connections = left,
                "the limit of file descriptors (ulimit -n) allows fewer connections than --connections; raise it"
            );
        }
        let max_connections = usize::try_from(required.min(left)).unwrap_or(usize::MAX);
        let max_per_peer =
            self.connections_per_peer.map_or(max_connections.div_ceil(2), |n| n as usize);
        ConnectionLimits {
            max_connections,
            max_per_peer: max_per_peer.min(max_connections),
            header_timeout: Duration::from_secs(self.header_seconds),
            idle_timeout: Duration::from_secs(self.idle_seconds),
        }
    }
}

/// Raises the limit of file descriptors as far as the system allows, and returns it.
pub fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of file descriptors (ulimit -n)");
            current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestArgs {
        #[command(flatten)]
        connections: Connections,
    }

    #[test]
    fn descriptors_are_reserved_for_the_host() {
        let limits_of = |line: &str, descriptors, slots| {
            let line = TestArgs::try_parse_from(line.split_whitespace()).unwrap();
            let limits = line.connections.limits(descriptors, slots);
            (limits.max_connections, limits.max_per_peer)
        };
        assert_eq!(limits_of("x", 1 << 20, 64), (1024, 512));
        assert_eq!(limits_of("x", 1024, 64), (832, 416));
        assert_eq!(limits_of("x", 100, 64), (16, 8));
        assert_eq!(limits_of("x --connections 7", 1024, 64), (7, 4));
        assert_eq!(limits_of("x --connections 7 --connections-per-peer 9", 1024, 64), (7, 7));
    }
}
