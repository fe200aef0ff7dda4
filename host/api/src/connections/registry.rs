//! The registry of open connections: it enforces the total limit and that per peer, and
//! picks the idle connection to close for a new one. Not here: the traffic on them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::activity::Activity;

/// The number of connections that are accepted beyond the limit while all others are busy, for
/// health, metrics and cancels only.
pub(crate) const RESERVED_CONNECTIONS: usize = 16;

/// A peer: an IPv4 address, or for IPv6 its /64 network, the usual share of one customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer(IpAddr);

impl Peer {
    pub(crate) fn from_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Peer(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address => Peer(address),
        }
    }
}

/// The open connections of a host. Clones share their state.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Shared>);

struct Shared {
    max_connections: usize,
    max_per_peer: usize,
    open: Mutex<Open>,
    /// Notified after each closed connection.
    closed: Notify,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Connection>,
    by_peer: HashMap<Peer, usize>,
    reserved: usize,
    next: u64,
}

struct Connection {
    peer: Peer,
    activity: Arc<Activity>,
    close: Arc<Notify>,
    is_reserved: bool,
    is_closing: bool,
}

/// The decision on a new connection.
pub(crate) enum Admission {
    /// The connection was registered.
    Open(ConnectionPermit),
    /// The connection can be registered once an idle one, which is closing, has closed.
    Wait,
    /// The connection is refused: every connection that it could replace is busy.
    Refused,
}

/// The registration of one connection, removed on drop.
pub(crate) struct ConnectionPermit {
    registry: Registry,
    number: u64,
    pub activity: Arc<Activity>,
    pub close: Arc<Notify>,
    pub is_reserved: bool,
}

impl Registry {
    pub(crate) fn new(max_connections: usize, max_per_peer: usize) -> Self {
        let open = Mutex::default();
        Registry(Arc::new(Shared { max_connections, max_per_peer, open, closed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock()
    }

    /// Registers a new connection. If its peer, or the host as a whole, is at the limit, an
    /// idle connection is asked to close; if none is idle, a reserved slot is used.
    pub(crate) fn admit(&self, peer: Peer, activity: impl Fn(bool) -> Activity) -> Admission {
        let mut open = self.lock();
        let ordinary = open.connections.len() - open.reserved;
        let of_peer = open.by_peer.get(&peer).copied().unwrap_or_default();
        let crowd = if of_peer >= self.0.max_per_peer { Some(peer) } else { None };
        if ordinary < self.0.max_connections && crowd.is_none() {
            return Admission::Open(self.register(&mut open, peer, activity(false), false));
        }
        if open.close_idle(|connection| {
            !connection.is_reserved && crowd.is_none_or(|peer| connection.peer == peer)
        }) {
            return Admission::Wait;
        }
        if open.reserved < RESERVED_CONNECTIONS {
            return Admission::Open(self.register(&mut open, peer, activity(true), true));
        }
        if open.close_idle(|connection| connection.is_reserved) {
            Admission::Wait
        } else {
            Admission::Refused
        }
    }

    fn register(
        &self,
        open: &mut Open,
        peer: Peer,
        activity: Activity,
        is_reserved: bool,
    ) -> ConnectionPermit {
        let (activity, close) = (Arc::new(activity), Arc::new(Notify::new()));
        let number = open.next;
        open.next += 1;
        if is_reserved {
            open.reserved += 1;
        } else {
            *open.by_peer.entry(peer).or_default() += 1;
        }
        let connection = Connection {
            peer,
            activity: activity.clone(),
            close: close.clone(),
            is_reserved,
            is_closing: false,
        };
        open.connections.insert(number, connection);
        ConnectionPermit { registry: self.clone(), number, activity, close, is_reserved }
    }

    /// Closes an idle connection, because the process has no file descriptor left.
    pub(crate) fn close_any(&self) {
        self.lock().close_idle(|_| true);
    }

    /// Waits until a connection has closed.
    pub(crate) async fn closed(&self) {
        self.0.closed.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }
}

impl Open {
    /// Closes the connection with the longest idle time, of the peer with the most connections.
    /// Returns false if none is idle.
    fn close_idle(&mut self, may_close: impl Fn(&Connection) -> bool) -> bool {
        let idle = self.connections.iter().filter(|(_, it)| !it.is_closing && may_close(it));
        let idle = idle.filter_map(|(number, it)| {
            let crowd = self.by_peer.get(&it.peer).copied().unwrap_or_default();
            let since: Instant = it.activity.idle_since()?;
            Some((std::cmp::Reverse(crowd), since, *number))
        });
        let Some((_, _, number)) = idle.min() else { return false };
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_closing = true;
            connection.close.notify_one();
        }
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.registry.lock();
        if let Some(removed) = open.connections.remove(&self.number) {
            if removed.is_reserved {
                open.reserved -= 1;
            } else if let Some(count) = open.by_peer.get_mut(&removed.peer) {
                *count -= 1;
                if *count == 0 {
                    open.by_peer.remove(&removed.peer);
                }
            }
        }
        drop(open);
        self.registry.0.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use futures::FutureExt;

    use super::super::activity::Timeouts;
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::from_address(text.parse().unwrap())
    }

    fn admit(registry: &Registry, from: &str) -> Option<ConnectionPermit> {
        let minute = Duration::from_secs(60);
        let activity = |_| Activity::new(Timeouts { header: minute, idle: minute });
        match registry.admit(peer(from), activity) {
            Admission::Open(permit) => Some(permit),
            Admission::Wait | Admission::Refused => None,
        }
    }

    fn is_asked_to_close(permit: &ConnectionPermit) -> bool {
        permit.close.notified().now_or_never().is_some()
    }

    #[test]
    fn an_ipv6_peer_is_a_network() {
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }

    #[test]
    fn a_full_host_closes_its_oldest_idle() {
        let registry = Registry::new(3, 2);
        let mut permits = Vec::new();
        for from in ["10.0.0.1", "10.0.0.2", "10.0.0.2"] {
            permits.push(admit(&registry, from).unwrap());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(admit(&registry, "10.0.0.3").is_none(), "it waits for another to close");
        assert!(!is_asked_to_close(&permits[0]), "another peer has more");
        assert!(is_asked_to_close(&permits[1]), "the older one of that peer");
        permits.remove(1);
        let new_connection = admit(&registry, "10.0.0.3").unwrap();
        assert!(!new_connection.is_reserved);
        drop((permits, new_connection));
        assert!(registry.is_empty() && registry.lock().by_peer.is_empty());
    }

    #[test]
    fn a_crowded_peer_closes_its_own() {
        let registry = Registry::new(9, 1);
        let other = admit(&registry, "10.0.0.2").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let first = admit(&registry, "10.0.0.1").unwrap();
        assert!(admit(&registry, "10.0.0.1").is_none());
        assert!(is_asked_to_close(&first) && !is_asked_to_close(&other));
    }

    #[test]
    fn busy_connections_leave_reserved_ones() {
        let registry = Registry::new(2, 2);
        let busy: Vec<_> = (0..2).map(|_| admit(&registry, "10.0.0.1").unwrap()).collect();
        let begin = |permit: &ConnectionPermit| permit.activity.begin_request();
        let requests: Vec<_> = busy.iter().map(begin).collect();
        let mut reserved: Vec<_> =
            (0..RESERVED_CONNECTIONS).map(|_| admit(&registry, "10.0.0.1").unwrap()).collect();
        assert!(reserved.iter().all(|permit| permit.is_reserved));
        assert!(admit(&registry, "10.0.0.1").is_none(), "one of these is to close first");
        assert!(is_asked_to_close(&reserved[0]) && busy.iter().all(|it| !is_asked_to_close(it)));
        reserved.iter().map(begin).for_each(drop);
        assert!(admit(&registry, "10.0.0.1").is_none());
        reserved.remove(0);
        assert!(admit(&registry, "10.0.0.1").is_some_and(|permit| permit.is_reserved));
        busy[0].activity.end_request(requests[0]);
        assert!(admit(&registry, "10.0.0.2").is_none() && is_asked_to_close(&busy[0]));
    }
}
