//! The addresses to which a guest may connect: those of the public internet, and those
//! that the operator allowed. A grant of a name does not cover its addresses: the
//! name's owner may point it at the host's own network.
//!
//! Not here: name look-ups (`network`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits)
}

/// IPv4 networks outside the public internet (IANA's special-purpose registry), and one
/// public address at which a cloud serves its own machines.
const SPECIAL_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),          // this network; 0.0.0.0 reaches the machine itself
    v4(10, 0, 0, 0, 8),         // private
    v4(100, 64, 0, 0, 10),      // shared by a carrier's customers
    v4(127, 0, 0, 0, 8),        // loopback
    v4(168, 63, 129, 16, 32),   // Azure's own services for a machine
    v4(169, 254, 0, 0, 16),     // link-local, the metadata of clouds among it
    v4(172, 16, 0, 0, 12),      // private
    v4(192, 0, 0, 0, 24),       // protocol assignments
    v4(192, 0, 2, 0, 24),       // documentation
    v4(192, 88, 99, 0, 24),     // relays of 6to4
    v4(192, 168, 0, 0, 16),     // private
    v4(198, 18, 0, 0, 15),      // benchmarks
    v4(198, 51, 100, 0, 24),    // documentation
    v4(203, 0, 113, 0, 24),     // documentation
    v4(224, 0, 0, 0, 4),        // multicast
    v4(240, 0, 0, 0, 4),        // reserved
    v4(255, 255, 255, 255, 32), // broadcast
];

/// The allocated part of IPv6. Loopback, link-local and unique local addresses,
/// multicast, and IPv4 in its deprecated form lie outside.
const ALLOCATED_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// IPv6 networks in that part that are not the public internet. Teredo and 6to4 carry
/// an IPv4 address that a relay would follow; refusing them closes a bypass of the IPv4
/// list.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 0, 23), // protocol assignments, Teredo and benchmarks among them
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x2002, 0, 0, 16), // 6to4
    v6(0x3fff, 0, 0, 20), // documentation
];

/// The prefix of translated IPv4 addresses (NAT64). In networks without IPv4, every
/// name that has no IPv6 address resolves to it.
const NAT64_PREFIX: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// Returns whether a guest may connect to an address.
pub(super) fn is_allowed(ip: IpAddr, allow: &[IpNet]) -> bool {
    let effective = effective_address(ip);
    is_public(effective) || allow.iter().any(|net| net.contains(&effective) || net.contains(&ip))
}

/// Returns the address that is really reached: the embedded IPv4 address, if the system
/// or a translator would extract it.
fn effective_address(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(mapped) = v6.to_ipv4_mapped() {
        return mapped.into();
    }
    if NAT64_PREFIX.contains(&v6) {
        let [.., a, b, c, d] = v6.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    ip
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => {
            ALLOCATED_V6.contains(&ip) && !SPECIAL_V6.iter().any(|net| net.contains(&ip))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_public_internet_is_allowed() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!is_allowed(ip.parse().unwrap(), &[]), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_allowed(ip.parse().unwrap(), &[]), "{ip}");
        }
    }

    #[test]
    fn the_operator_can_allow_more() {
        let nets: Vec<IpNet> =
            ["127.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("64:ff9b::127.0.0.1", true),
            ("fd00::1", true),
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("::1", false),
            ("fc00::1", false),
        ] {
            assert_eq!(is_allowed(ip.parse().unwrap(), &nets), expected, "{ip}");
        }
        // The operator may also allow translated addresses in their translated form.
        let net: IpNet = "64:ff9b::/96".parse().unwrap();
        assert!(is_allowed("64:ff9b::10.0.0.1".parse().unwrap(), &[net]));
    }

    proptest! {
        // The standard library has its own predicates for some special addresses. An
        // address that it calls special is never allowed.
        #[test]
        fn special_addresses_of_std_are_refused(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            let is_special = ip.is_private() || ip.is_loopback() || ip.is_link_local()
                || ip.is_broadcast() || ip.is_documentation() || ip.is_multicast()
                || ip.is_unspecified();
            prop_assert!(!(is_special && is_allowed(ip.into(), &[])));
        }

        #[test]
        fn an_embedded_address_counts_as_itself(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            let [a, b, c, d] = ip.octets();
            let is_public_address = is_allowed(ip.into(), &[]);
            prop_assert_eq!(is_allowed(ip.to_ipv6_mapped().into(), &[]), is_public_address);
            let [high, low] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            let translated = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low);
            prop_assert_eq!(is_allowed(translated.into(), &[]), is_public_address);
            for tunnel in [
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low),
                ip.to_ipv6_compatible(),
            ] {
                prop_assert!(!is_allowed(tunnel.into(), &[]));
            }
        }

        #[test]
        fn only_allocated_ipv6_is_allowed(bits: u128) {
            let ip = Ipv6Addr::from(bits);
            let is_special = ip.is_unique_local() || ip.is_unicast_link_local()
                || ip.is_multicast() || ip.is_loopback() || ip.is_unspecified();
            prop_assert!(!(is_special && is_allowed(ip.into(), &[])));
        }
    }
}
