//! Who asks, when a proxy in front is believed: `X-Forwarded-For`, read from its end.
//!
//! Each proxy appends whom it was asked by, so the list is true from its end up to the first address that is no trusted
//! proxy's; what is before that address was said by a stranger.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use super::{entry::Client, headers::X_FORWARDED_FOR};

/// Addresses that are looked at; a longer list is a client's invention.
const MAX_HOPS: usize = 32;

/// The client that a peer speaks for; the peer itself, where it is not trusted.
pub(crate) fn client(peer: Client, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if trusted.is_empty() || !is_trusted(peer.ip) {
        return peer;
    }
    let mut ip = peer.ip;
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for text in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MAX_HOPS) {
        // What is no address cannot be looked behind.
        let Some(hop) = address(text.trim()) else { break };
        ip = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    Client { ip, trusted: true, ..peer }
}

/// An address, also with a port, as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(inside, _)| inside);
    let parsed = bare.parse::<IpAddr>().ok();
    parsed.or_else(|| text.parse().ok().map(|addr: std::net::SocketAddr| addr.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn list_is_believed_from_its_end_up_to_the_first_stranger() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a net"), "fd00::/8".parse().expect("a net")];
        for (peer, lines, expected, believed) in [
            ("10.0.0.1", vec![], "10.0.0.1", true),
            ("10.0.0.1", vec!["1.2.3.4"], "1.2.3.4", true),
            ("10.0.0.1", vec!["6.6.6.6, 1.2.3.4, 10.0.0.9"], "1.2.3.4", true),
            ("10.0.0.1", vec!["6.6.6.6", "1.2.3.4", "10.0.0.9"], "1.2.3.4", true),
            ("fd00::1", vec!["[2001:db8::1]:443"], "2001:db8::1", true),
            ("10.0.0.1", vec!["1.2.3.4:5678"], "1.2.3.4", true),
            ("10.0.0.1", vec!["::ffff:1.2.3.4"], "1.2.3.4", true),
            ("10.0.0.1", vec!["1.2.3.4, nonsense, 10.0.0.2"], "10.0.0.2", true),
            ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3", true),
            ("9.9.9.9", vec!["1.2.3.4"], "9.9.9.9", false),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let found = client(Client::new(peer.parse().expect("an address")), &headers, &trusted);
            assert_eq!((found.ip.to_string().as_str(), found.trusted), (expected, believed), "{peer} {lines:?}");
            assert_eq!(found.peer_value, peer);
        }
        let found = client(Client::default(), &HeaderMap::new(), &[]);
        assert!(!found.trusted);
    }
}
