//! Arguments for the connections of the API, and the division of the process's file
//! descriptors. Not here: the connections themselves, which are in `exosphere-api`.

use std::time::Duration;

use clap::{Args, value_parser};
use exosphere_api::ConnectionLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Default number of connections of the API.
const DEFAULT_CONNECTIONS: u32 = 1024;

/// File descriptors for the host's own needs: databases, files, the compiler's pipes.
const OWN_DESCRIPTORS: u64 = 64;

/// File descriptors per slot: a node may have a request under way, and a name lookup
/// for the next one.
const DESCRIPTORS_PER_SLOT: u64 = 2;

/// The least number of connections, whatever the system allows.
const MIN_CONNECTIONS: u64 = 16;

/// How many connections the API has, and how long each may wait for its peer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub struct Connections {
    /// The most connections of the API. When they are used up, the one that was
    /// idle for the longest time is closed for a new one.
    ///
    /// There are fewer if the system gives the process fewer descriptors
    /// (`ulimit -n`): some are kept back for the host's own needs.
    #[arg(long, env = "EXOSPHERE_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS,
          value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// The most of them of one peer: an IPv4 address, or a /64 network of IPv6
    /// [default: half of all]
    #[arg(long, env = "EXOSPHERE_CONNECTIONS_PER_PEER", value_name = "N",
          value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections_per_peer: Option<u32>,
    /// The most time for the headers of a request to come in.
    #[arg(long, env = "EXOSPHERE_HEADER_SECONDS", default_value_t = 10, value_name = "SECONDS",
          value_parser = value_parser!(u64).range(1..=3600))]
    header_seconds: u64,
    /// The most time between two requests on one connection.
    #[arg(long, env = "EXOSPHERE_IDLE_SECONDS", default_value_t = 60, value_name = "SECONDS",
          value_parser = value_parser!(u64).range(1..=3600))]
    idle_seconds: u64,
}

impl Connections {
    /// Returns the connection limits, reduced to the descriptors of the process.
    pub fn limits(&self, descriptors: u64, slots: u32) -> ConnectionLimits {
        let kept_back = OWN_DESCRIPTORS + DESCRIPTORS_PER_SLOT * u64::from(slots);
        let left = descriptors.saturating_sub(kept_back).max(MIN_CONNECTIONS);
        let wanted = u64::from(self.connections);
        if wanted > left {
            tracing::warn!(
                descriptors,
                connections = left,
                "the limit of descriptors (ulimit -n) allows fewer connections than --connections"
            );
        }
        let in_all = usize::try_from(wanted.min(left)).unwrap_or(usize::MAX);
        let of_one_peer = self.connections_per_peer.map_or(in_all.div_ceil(2), |n| n as usize);
        ConnectionLimits {
            in_all,
            of_one_peer: of_one_peer.min(in_all),
            header: Duration::from_secs(self.header_seconds),
            idle: Duration::from_secs(self.idle_seconds),
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
            tracing::warn!(%error, "cannot raise the limit of descriptors (ulimit -n)");
            current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        connections: Connections,
    }

    #[test]
    fn descriptors_are_kept_back_for_the_host() {
        let of = |line: &str, descriptors, slots| {
            let line = Line::try_parse_from(line.split_whitespace()).unwrap();
            let limits = line.connections.limits(descriptors, slots);
            (limits.in_all, limits.of_one_peer)
        };
        assert_eq!(of("x", 1 << 20, 64), (1024, 512));
        assert_eq!(of("x", 1024, 64), (832, 416));
        assert_eq!(of("x", 100, 64), (16, 8));
        assert_eq!(of("x --connections 7", 1024, 64), (7, 4));
        assert_eq!(of("x --connections 7 --connections-per-peer 9", 1024, 64), (7, 7));
    }
}
