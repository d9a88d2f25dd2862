//! API keys, without their secrets.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Deserialize, Serialize};

use super::{AccountId, KeyHash, KeyId, Name, Overrides, Revision, Timestamp};

/// Bits of an IPv6 address before the IPv4 address that it carries (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A network as clients' addresses are: an IPv4 network that is written as IPv6 (`::ffff:10.0.0.0/104`) is the IPv4 one.
pub fn canonical_network(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|addr| Ipv4Net::new(addr, v6.prefix_len() - MAPPED_BITS).ok())
            .map_or(net, IpNet::V4),
        _ => net,
    }
}

/// Whether an address is in one of some networks, however either is written.
pub fn is_within(nets: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    nets.iter().any(|net| canonical_network(*net).contains(&ip))
}

/// Live or test traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Env {
    /// `tg_live_…`
    #[default]
    #[n(0)]
    Live,
    /// `tg_test_…`
    #[n(1)]
    Test,
}

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// Requests are served.
    #[default]
    #[n(0)]
    Active,
    /// Switched off, can be switched on again: `key-disabled`.
    #[n(1)]
    Disabled,
    /// For ever; the record is its tombstone: `revoked-key`.
    #[n(2)]
    Revoked,
}

/// A key: everything but its secret.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Key {
    /// Public id.
    #[n(0)]
    pub id: KeyId,
    /// Whose it is.
    #[n(1)]
    pub account: AccountId,
    /// SHA-256 of the secret.
    #[n(2)]
    pub hash: KeyHash,
    /// What people call it.
    #[n(3)]
    #[cbor(default)]
    pub name: Name,
    /// Live or test.
    #[n(4)]
    #[cbor(default)]
    pub env: Env,
    /// Last four characters of the secret.
    #[n(5)]
    #[cbor(default)]
    pub last4: String,
    /// What it may do; a route can ask for scopes.
    #[n(6)]
    #[cbor(default)]
    pub scopes: Vec<Name>,
    /// Networks it may come from; empty for any.
    #[n(7)]
    #[cbor(default, with = "nets")]
    pub allowed_ips: Vec<IpNet>,
    /// When it stops working.
    #[n(8)]
    pub expires_at: Option<Timestamp>,
    /// Whether it works.
    #[n(9)]
    #[cbor(default)]
    pub state: KeyState,
    /// When it was made.
    #[n(10)]
    pub created_at: Timestamp,
    /// When it was revoked.
    #[n(11)]
    pub revoked_at: Option<Timestamp>,
    /// The key whose rotation made it.
    #[n(12)]
    pub rotated_from: Option<KeyId>,
    /// Set by apply: the entry that last changed it.
    #[n(13)]
    #[cbor(default)]
    pub revision: Revision,
    /// Policies of its own: each replaces the account's of the same name for this key, and counts it alone.
    #[n(14)]
    #[cbor(default)]
    pub overrides: Overrides,
}

/// Networks are stored as text (`10.0.0.0/8`).
mod nets {
    use super::*;

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        nets: &[IpNet],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(nets.len() as u64)?;
        for net in nets {
            e.str(&net.to_string())?;
        }
        Ok(())
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<IpNet>, minicbor::decode::Error> {
        let texts: Vec<String> = Decode::decode(d, ctx)?;
        texts.iter().map(|text| text.parse().map_err(minicbor::decode::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_network_in_ipv6s_clothes_is_itself() {
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        for (written, canonical) in [
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::ffff:1.2.3.4/128", "1.2.3.4/32"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            assert_eq!(canonical_network(net(written)), net(canonical), "{written}");
        }
        let is_in = |text: &str, ip: &str| is_within(&[net(text)], ip.parse().expect("an address"));
        for ip in ["1.2.3.4", "::ffff:1.2.3.4"] {
            assert!(is_in("::ffff:1.2.3.4/128", ip) && is_in("1.2.3.0/24", ip) && !is_in("::ffff:1.2.3.5/128", ip));
            assert!(!is_in("::/0", ip), "all of IPv6 is not IPv4");
        }
    }
}
