//! Which addresses lie in the public Internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the public Internet: nothing private, local, shared, reserved or multicast, no example
/// address, no metadata service of a cloud, and no IPv6 form that leads to such an IPv4 address.
///
/// Sources: the IANA registries of special-purpose addresses (RFC 6890), RFC 6598, RFC 4193, RFC 6052, RFC 3056.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Networks of IPv4 that are not public, as first address and length of the prefix.
const SPECIAL_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Carrier-grade NAT; also the metadata service of Alibaba Cloud.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local; also the metadata services of most clouds.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // The host's own service address in Azure, out of a public network.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !SPECIAL_V4
        .iter()
        .any(|(network, prefix)| (bits ^ network.to_bits()) >> (32 - prefix) == 0)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match parts {
        // IPv4-mapped, and NAT64 with the well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Protocol assignments with Teredo and benchmarking (2001::/23), and the two documentation networks.
        [0x2001, ..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, ..=0x0fff, ..] => false,
        // An interface id of ISATAP, which tunnels to the IPv4 address at its end.
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] if !is_public_v4(v4(high, low)) => false,
        // Only 2000::/3 was ever given out for global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
