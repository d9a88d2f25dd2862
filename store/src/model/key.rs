//! API keys, without their secrets.

use ipnet::IpNet;
use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Deserialize, Serialize};

use super::{AccountId, KeyHash, KeyId, Name, Overrides, Revision, Timestamp};

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
