//! One atomic change of metadata: its operations, what they expect, and how often it may happen.

use minicbor::{Decode, Encode};

use super::{Account, AccountId, AuditNote, Key, KeyId, Name, Revision, Role, Route, Tier, Timestamp, Token, Upstream};

/// What an object must be for an operation to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Expect {
    /// Anything.
    #[default]
    #[n(0)]
    Any,
    /// It must not exist.
    #[n(1)]
    Absent,
    /// It must exist.
    #[n(2)]
    Present,
    /// It must exist at this revision.
    #[n(3)]
    Revision(#[n(0)] Revision),
}

/// One operation on metadata. Objects are whole: the caller has read, changed and validated them.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[allow(missing_docs, reason = "each names its object")]
pub enum MetaOp {
    #[n(0)]
    PutAccount {
        #[n(0)]
        account: Account,
        #[n(1)]
        expect: Expect,
    },
    /// Refused while the account has keys that are not revoked; its tombstoned keys go with it.
    #[n(1)]
    DeleteAccount {
        #[n(0)]
        id: AccountId,
        #[n(1)]
        expect: Expect,
    },
    #[n(2)]
    PutKey {
        #[n(0)]
        key: Key,
        #[n(1)]
        expect: Expect,
    },
    #[n(3)]
    PutTier {
        #[n(0)]
        tier: Tier,
        #[n(1)]
        expect: Expect,
    },
    /// Refused while an account uses it.
    #[n(4)]
    DeleteTier {
        #[n(0)]
        name: Name,
        #[n(1)]
        expect: Expect,
    },
    #[n(5)]
    PutRoute {
        #[n(0)]
        route: Route,
        #[n(1)]
        expect: Expect,
    },
    #[n(6)]
    DeleteRoute {
        #[n(0)]
        name: Name,
        #[n(1)]
        expect: Expect,
    },
    #[n(7)]
    PutUpstream {
        #[n(0)]
        upstream: Upstream,
        #[n(1)]
        expect: Expect,
    },
    /// Refused while a route uses it.
    #[n(8)]
    DeleteUpstream {
        #[n(0)]
        name: Name,
        #[n(1)]
        expect: Expect,
    },
    #[n(9)]
    PutToken {
        #[n(0)]
        token: Token,
        #[n(1)]
        expect: Expect,
    },
    #[n(10)]
    DeleteToken {
        #[n(0)]
        id: Name,
        #[n(1)]
        expect: Expect,
    },
}

/// One atomic change: all operations happen or none.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct MetaWrite {
    /// When the node that took the request read its clock.
    #[n(0)]
    pub at: Timestamp,
    /// Who: the token's id, `bootstrap` or `system`.
    #[n(1)]
    pub actor: String,
    /// The admin request's id, for the audit.
    #[n(2)]
    #[cbor(default)]
    pub request_id: String,
    /// The operations, in order; later ones see earlier ones.
    #[n(3)]
    pub ops: Vec<MetaOp>,
    /// The actor's role, for the audit.
    #[n(4)]
    pub role: Option<Role>,
    /// The address that the request came from, for the audit.
    #[n(5)]
    #[cbor(default)]
    pub source: String,
    /// Says that the write happens once, however often it is asked for.
    #[n(6)]
    pub once: Option<Once>,
    /// Requests that changed nothing, for the audit.
    #[n(7)]
    #[cbor(default)]
    pub notes: Vec<AuditNote>,
    /// For the audit, by the number of the operation: pointers to what it changes and does not carry.
    #[n(8)]
    pub changed: Option<Vec<(u32, Vec<String>)>>,
}

/// A write that happens once within [`Once::KEPT_SECONDS`]: a second one with its key changes nothing and is answered with
/// what the first one was.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct Once {
    /// SHA-256 over the actor and the key that it chose.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// SHA-256 of the request: another one with the same key is told apart.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub fingerprint: Vec<u8>,
    /// What to answer, in the gateway's own words; no secret and no personal data.
    #[n(2)]
    pub answer: String,
}

/// What is kept of a write that happens once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Happened {
    /// When, by the clock of the node that took the request.
    #[n(0)]
    pub at: Timestamp,
    /// The entry.
    #[n(1)]
    pub revision: Revision,
    /// In which admin request.
    #[n(2)]
    pub request_id: String,
    /// SHA-256 of the request.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub fingerprint: Vec<u8>,
    /// What was answered.
    #[n(4)]
    pub answer: String,
}

impl Once {
    /// A day.
    pub const KEPT_SECONDS: i64 = 86_400;
    /// Most that are kept; at the bound, writes with a key are refused until some have ended.
    pub const MOST: u64 = 1_000_000;
}

impl MetaOp {
    /// Kind and id of the object.
    pub fn subject(&self) -> (&'static str, &str) {
        match self {
            Self::PutAccount { account, .. } => ("account", account.id.as_str()),
            Self::DeleteAccount { id, .. } => ("account", id.as_str()),
            Self::PutKey { key, .. } => ("key", key.id.as_str()),
            Self::PutTier { tier, .. } => ("tier", tier.name.as_str()),
            Self::DeleteTier { name, .. } => ("tier", name.as_str()),
            Self::PutRoute { route, .. } => ("route", route.name.as_str()),
            Self::DeleteRoute { name, .. } => ("route", name.as_str()),
            Self::PutUpstream { upstream, .. } => ("upstream", upstream.name.as_str()),
            Self::DeleteUpstream { name, .. } => ("upstream", name.as_str()),
            Self::PutToken { token, .. } => ("token", token.id.as_str()),
            Self::DeleteToken { id, .. } => ("token", id.as_str()),
        }
    }

    /// The key that a caller may revoke or change.
    pub fn key_id(&self) -> Option<&KeyId> {
        match self {
            Self::PutKey { key, .. } => Some(&key.id),
            _ => None,
        }
    }
}
