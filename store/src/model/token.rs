//! Admin tokens.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{KeyHash, Name, Revision, Timestamp};

/// What an admin token may do; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    #[default]
    #[n(0)]
    Viewer,
    /// Writes accounts and keys.
    #[n(1)]
    Operator,
    /// Writes everything.
    #[n(2)]
    Admin,
}

/// An admin token, without its secret.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Token {
    /// `tok_` and a ULID.
    #[n(0)]
    pub id: Name,
    /// What people call it.
    #[n(1)]
    pub name: Name,
    /// SHA-256 of the secret.
    #[n(2)]
    pub hash: KeyHash,
    /// What it may do.
    #[n(3)]
    pub role: Role,
    /// When it was made.
    #[n(4)]
    pub created_at: Timestamp,
    /// When it stops working.
    #[n(5)]
    pub expires_at: Option<Timestamp>,
    /// Set by apply: the entry that last changed it.
    #[n(6)]
    #[cbor(default)]
    pub revision: Revision,
}
