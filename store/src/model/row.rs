//! The request's log row.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};

use super::{AccountId, KeyId, Name, RequestId, Timestamp};

/// How a request was decided: admitted, or the code of the refusal (contract, "Data plane").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the contract's code of the same name")]
pub enum Outcome {
    Admitted = 0,
    MissingKey = 1,
    MalformedKey = 2,
    UnknownKey = 3,
    ExpiredKey = 4,
    RevokedKey = 5,
    KeyDisabled = 6,
    AccountSuspended = 7,
    IpNotAllowed = 8,
    ScopeMissing = 9,
    RouteNotInTier = 10,
    NoRoute = 11,
    BodyTooLarge = 12,
    RateLimited = 13,
    QuotaExceeded = 14,
    ConcurrencyExceeded = 15,
    UpstreamUnreachable = 16,
    UpstreamTimeout = 17,
    TemporaryReducedCapacity = 18,
}

impl Outcome {
    /// Every outcome, in the order of its stored number.
    pub const ALL: [Self; 19] = [
        Self::Admitted,
        Self::MissingKey,
        Self::MalformedKey,
        Self::UnknownKey,
        Self::ExpiredKey,
        Self::RevokedKey,
        Self::KeyDisabled,
        Self::AccountSuspended,
        Self::IpNotAllowed,
        Self::ScopeMissing,
        Self::RouteNotInTier,
        Self::NoRoute,
        Self::BodyTooLarge,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::ConcurrencyExceeded,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::TemporaryReducedCapacity,
    ];

    /// From its stored number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The contract's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::MissingKey => "missing-key",
            Self::MalformedKey => "malformed-key",
            Self::UnknownKey => "unknown-key",
            Self::ExpiredKey => "expired-key",
            Self::RevokedKey => "revoked-key",
            Self::KeyDisabled => "key-disabled",
            Self::AccountSuspended => "account-suspended",
            Self::IpNotAllowed => "ip-not-allowed",
            Self::ScopeMissing => "scope-missing",
            Self::RouteNotInTier => "route-not-in-tier",
            Self::NoRoute => "no-route",
            Self::BodyTooLarge => "body-too-large",
            Self::RateLimited => "rate-limited",
            Self::QuotaExceeded => "quota-exceeded",
            Self::ConcurrencyExceeded => "concurrency-exceeded",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::TemporaryReducedCapacity => "temporary-reduced-capacity",
        }
    }

    /// Refused before the upstream was called: counted as `rejected`.
    pub fn is_rejected(self) -> bool {
        !matches!(self, Self::Admitted | Self::UpstreamUnreachable | Self::UpstreamTimeout)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Completion {
    /// All of it was handed to the client's connection.
    #[default]
    Complete = 0,
    /// The answer is still being streamed; a second record follows.
    Open = 1,
    /// The client went away.
    ClientAbort = 2,
    /// The upstream broke off.
    UpstreamAbort = 3,
    /// The node died while the answer was streamed.
    Unknown = 4,
}

impl Completion {
    /// From its stored number.
    pub fn from_u8(number: u8) -> Option<Self> {
        [Self::Complete, Self::Open, Self::ClientAbort, Self::UpstreamAbort, Self::Unknown]
            .get(usize::from(number))
            .copied()
    }

    /// The contract's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Open => "open",
            Self::ClientAbort => "client-abort",
            Self::UpstreamAbort => "upstream-abort",
            Self::Unknown => "unknown",
        }
    }
}

impl Serialize for Completion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Units that a row takes from one quota's period.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Charge {
    /// The quota's name.
    pub quota: Name,
    /// Start of the period that the units were reserved in, seconds since 1970.
    pub period_start: i64,
    /// Units.
    pub units: u64,
}

/// One request in the ledger.
///
/// A streamed answer has two records: the first with [`Completion::Open`], the second with `settles` set and the same
/// `request_id`. Readers see them joined: the second's `bytes_out, duration_us, cost, completion` replace the first's, and
/// its charges are what is added to the first's.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The request; nil for coalesced rejections.
    pub request_id: RequestId,
    /// When it arrived.
    pub ts: Timestamp,
    /// Whose request.
    pub account: AccountId,
    /// With which key.
    pub key_id: KeyId,
    /// The tier that decided.
    pub tier: Name,
    /// The route; empty when none matched.
    pub route: Name,
    /// Upper case.
    pub method: Name,
    /// Without query string, at most 1,024 bytes.
    pub path: Name,
    /// The HTTP status that the client was sent.
    pub status: u16,
    /// How it was decided.
    pub outcome: Outcome,
    /// Cost units.
    pub cost: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// Time of the upstream, to its first byte; 0 when it was not called.
    pub upstream_us: u64,
    /// From arrival to the end of the answer.
    pub duration_us: u64,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
    /// The client's own `X-Request-Id`.
    pub client_request_id: Option<Box<str>>,
    /// W3C trace id; 0 for none.
    pub trace_id: u128,
    /// The node that served it.
    pub node: Name,
    /// Its region.
    pub region: Name,
    /// How the answer ended.
    pub completion: Completion,
    /// 1, or the number of coalesced rejections.
    pub count: u32,
    /// The second record of a streamed answer.
    pub settles: bool,
    /// What it takes from quotas.
    pub charges: Vec<Charge>,
    /// The policies that refused it, and those that would have if they were not shadows; empty for none. See [`super::Decided`].
    pub decided_by: Name,
    /// Days that it is kept, as the tier said when the request was served; 0 for the default. No column: it names the file
    /// that the row goes to, and a row that is read says 0.
    pub retention_days: u16,
}
