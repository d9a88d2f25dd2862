//! Every answer that the gateway makes itself: when, with which status, code and words (contract, "Data plane").
//!
//! The only place with HTTP status codes of failures. The data plane's links return a [`Fault`]; the record link turns it into a
//! problem (RFC 9457) and into the outcome of the request's row. The admin API's handlers return problems with an
//! [`AdminCode`]. The demo's upstream is no gateway, and its refusals are here all the same: one place to look.

use std::time::Duration;

use http::StatusCode;
use store::{
    Unavailable,
    lease::{Policy, Refusal},
    model::{Name, Outcome},
};

/// What the row of a request says whose client went away before it was answered (the number that nginx made known).
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// An upgrade that the upstream agreed to.
pub const SWITCHING_PROTOCOLS: StatusCode = StatusCode::SWITCHING_PROTOCOLS;

/// The answer to a preflight of a page of an allowed origin.
pub const PREFLIGHT: StatusCode = StatusCode::NO_CONTENT;

/// The status of every answer to a gRPC call: how the call went is in `grpc-status`.
pub const GRPC_ANSWER: StatusCode = StatusCode::OK;

/// Written as it is to a connection beyond its address's bound, before any request is read.
pub const TOO_MANY_CONNECTIONS_OF_ONE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 236\r\n\r\n\
    {\"type\":\"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity\",\
    \"title\":\"Service Unavailable\",\"status\":503,\"code\":\"temporary-reduced-capacity\",\
    \"detail\":\"this address has as many connections as one address may have\"}";

/// Written as it is to a connection beyond the node's bound, before any request is read.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 223\r\n\r\n\
    {\"type\":\"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity\",\
    \"title\":\"Service Unavailable\",\"status\":503,\"code\":\"temporary-reduced-capacity\",\
    \"detail\":\"the node has as many connections as it may have\"}";

/// Why a request was not answered by its upstream.
#[derive(Debug)]
#[allow(missing_docs, reason = "the contract's codes by the same names")]
pub enum Fault {
    /// Ambiguous or broken framing, no host, dot segments: refused before the key is looked at.
    BadRequest(&'static str),
    MissingKey,
    MalformedKey,
    UnknownKey,
    ExpiredKey,
    RevokedKey,
    KeyDisabled,
    AccountSuspended,
    IpNotAllowed,
    /// The scope that the key lacks.
    ScopeMissing(Name),
    RouteNotInTier,
    NoRoute,
    /// The limit in bytes.
    BodyTooLarge(u64),
    /// The client's body broke off or was not well framed.
    BodyBroken,
    /// The client sent nothing of its body for too long.
    BodyStalled,
    /// A rate, quota or concurrency said no.
    Refused(Box<Refusal>),
    /// Could not be connected to. Says what happened.
    UpstreamUnreachable(&'static str),
    /// Took the request and broke off before its answer was whole.
    UpstreamBroke,
    /// What it answered is no HTTP, or more of a head than is read.
    UpstreamInvalid,
    UpstreamTimeout,
    /// No quorum, overload, drain. Its reason names nodes and addresses: it is for operators.
    Unavailable(Unavailable),
    /// This gateway's own bounds, told as they are.
    Busy(&'static str),
}

impl Fault {
    /// The outcome in the request's row and in the metrics.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::MissingKey => Outcome::MissingKey,
            Self::MalformedKey => Outcome::MalformedKey,
            Self::UnknownKey => Outcome::UnknownKey,
            Self::ExpiredKey => Outcome::ExpiredKey,
            Self::RevokedKey => Outcome::RevokedKey,
            Self::KeyDisabled => Outcome::KeyDisabled,
            Self::AccountSuspended => Outcome::AccountSuspended,
            Self::IpNotAllowed => Outcome::IpNotAllowed,
            Self::ScopeMissing(_) => Outcome::ScopeMissing,
            Self::RouteNotInTier => Outcome::RouteNotInTier,
            Self::NoRoute => Outcome::NoRoute,
            Self::BodyTooLarge(_) => Outcome::BodyTooLarge,
            Self::Refused(refusal) => match refusal.policy {
                Policy::Rate => Outcome::RateLimited,
                Policy::Quota => Outcome::QuotaExceeded,
                Policy::Concurrency => Outcome::ConcurrencyExceeded,
            },
            Self::UpstreamUnreachable(_) | Self::UpstreamBroke | Self::UpstreamInvalid => Outcome::UpstreamUnreachable,
            Self::UpstreamTimeout => Outcome::UpstreamTimeout,
            Self::Unavailable(_) | Self::Busy(_) => Outcome::TemporaryReducedCapacity,
            // The request was let through and the client broke it: no code of the contract's table.
            Self::BadRequest(_) | Self::BodyBroken | Self::BodyStalled => Outcome::Admitted,
        }
    }

    /// The stable code of the problem.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::BodyBroken => "bad-request",
            Self::BodyStalled => "request-timeout",
            _ => self.outcome().as_str(),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::MissingKey | Self::MalformedKey | Self::UnknownKey | Self::ExpiredKey | Self::RevokedKey => {
                StatusCode::UNAUTHORIZED
            }
            Self::KeyDisabled
            | Self::AccountSuspended
            | Self::IpNotAllowed
            | Self::ScopeMissing(_)
            | Self::RouteNotInTier => StatusCode::FORBIDDEN,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::UpstreamUnreachable(_) | Self::UpstreamBroke | Self::UpstreamInvalid => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) | Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The problem type: those that the IANA registry has; else none of its own, the code tells it apart.
    pub fn problem_type(&self) -> &'static str {
        match self {
            Self::Refused(_) => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            Self::Unavailable(_) | Self::Busy(_) => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            _ => "about:blank",
        }
    }

    /// A sentence for the client's developer; never a secret, never an internal address.
    pub fn detail(&self) -> String {
        let text = match self {
            Self::BadRequest(what) => what,
            Self::BodyBroken => "the request's body broke off or is not well framed",
            Self::BodyStalled => "the request's body did not arrive in time",
            Self::MissingKey => "no API key: send it as Authorization: Bearer <key> or X-API-Key: <key>",
            Self::MalformedKey => "this is not an API key: mistyped, cut, or of another kind",
            Self::UnknownKey => "the API key is not known",
            Self::ExpiredKey => "the API key has expired",
            Self::RevokedKey => "the API key has been revoked",
            Self::KeyDisabled => "the API key is switched off",
            Self::AccountSuspended => "the account is suspended",
            Self::IpNotAllowed => "the API key may not be used from this address",
            Self::ScopeMissing(scope) => return format!("the API key lacks the scope {scope}"),
            Self::RouteNotInTier => "the account's tier does not include this route",
            Self::NoRoute => "no route matches this host, path and method",
            Self::BodyTooLarge(limit) => return format!("the request's body is larger than {limit} bytes"),
            Self::Refused(refusal) => {
                let kind = match refusal.policy {
                    Policy::Rate => "rate limit",
                    Policy::Quota => "quota",
                    Policy::Concurrency => "bound of requests at once",
                };
                let names = refusal.violated.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
                return format!("the {kind} {names} is used up");
            }
            Self::UpstreamUnreachable(what) => what,
            Self::UpstreamBroke => "the upstream broke off before its answer was whole",
            Self::UpstreamInvalid => {
                "the upstream's answer is not valid HTTP, its head is too large (100 headers, 64 KiB), or it switches \
                 protocols unasked"
            }
            Self::UpstreamTimeout => "the upstream did not answer in time",
            Self::Unavailable(_) => {
                "the gateway can decide or record no request at the moment: its cluster has no quorum here, or is too busy"
            }
            Self::Busy(why) => why,
        };
        text.to_owned()
    }

    /// When to try again, for `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => Some(refusal.retry_after),
            Self::Unavailable(unavailable) => Some(unavailable.retry_after),
            Self::Busy(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// `grpc-status` of the answer to a gRPC call, as its clients would make it of the HTTP status, but where gRPC has a word of
    /// its own: limits, sizes, times.
    pub fn grpc_status(&self) -> u16 {
        const DEADLINE_EXCEEDED: u16 = 4;
        const PERMISSION_DENIED: u16 = 7;
        const RESOURCE_EXHAUSTED: u16 = 8;
        const UNIMPLEMENTED: u16 = 12;
        const INTERNAL: u16 = 13;
        const UNAVAILABLE: u16 = 14;
        const UNAUTHENTICATED: u16 = 16;
        match self {
            Self::BadRequest(_) | Self::BodyBroken => INTERNAL,
            Self::MissingKey | Self::MalformedKey | Self::UnknownKey | Self::ExpiredKey | Self::RevokedKey => {
                UNAUTHENTICATED
            }
            Self::KeyDisabled
            | Self::AccountSuspended
            | Self::IpNotAllowed
            | Self::ScopeMissing(_)
            | Self::RouteNotInTier => PERMISSION_DENIED,
            Self::NoRoute => UNIMPLEMENTED,
            Self::BodyTooLarge(_) | Self::Refused(_) => RESOURCE_EXHAUSTED,
            Self::BodyStalled | Self::UpstreamTimeout => DEADLINE_EXCEEDED,
            Self::UpstreamUnreachable(_)
            | Self::UpstreamBroke
            | Self::UpstreamInvalid
            | Self::Unavailable(_)
            | Self::Busy(_) => UNAVAILABLE,
        }
    }

    /// The challenge of a 401 (RFC 9110 §11.6.1, RFC 6750 §3).
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::MissingKey => Some(r#"Bearer realm="tollgate""#),
            Self::MalformedKey | Self::UnknownKey | Self::ExpiredKey | Self::RevokedKey => {
                Some(r#"Bearer realm="tollgate", error="invalid_token""#)
            }
            _ => None,
        }
    }
}

/// What the admin API refuses; the kebab-case text is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the codes by the same names")]
pub enum AdminCode {
    MalformedBody,
    MalformedQuery,
    MalformedHeader,
    InvalidBody,
    InvalidQuery,
    MissingToken,
    MalformedToken,
    UnknownToken,
    ExpiredToken,
    TooManyWrongTokens,
    SignInFailed,
    TooManySignIns,
    RoleTooLow,
    TokenLimited,
    NotFound,
    MethodNotAllowed,
    AlreadyExists,
    InUse,
    NotPossible,
    PreconditionFailed,
    IdempotencyKeyInProgress,
    IdempotencyKeyReused,
    BodyTooLarge,
    TemporaryReducedCapacity,
    StorageDamaged,
    Internal,
}

impl AdminCode {
    /// Status and stable text.
    pub(crate) fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::MalformedBody => (StatusCode::BAD_REQUEST, "malformed-body"),
            Self::MalformedQuery => (StatusCode::BAD_REQUEST, "malformed-query"),
            Self::MalformedHeader => (StatusCode::BAD_REQUEST, "malformed-header"),
            Self::InvalidBody => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-body"),
            Self::InvalidQuery => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-query"),
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "missing-token"),
            Self::MalformedToken => (StatusCode::UNAUTHORIZED, "malformed-token"),
            Self::UnknownToken => (StatusCode::UNAUTHORIZED, "unknown-token"),
            Self::ExpiredToken => (StatusCode::UNAUTHORIZED, "expired-token"),
            Self::TooManyWrongTokens => (StatusCode::TOO_MANY_REQUESTS, "too-many-wrong-tokens"),
            Self::SignInFailed => (StatusCode::UNAUTHORIZED, "sign-in-failed"),
            Self::TooManySignIns => (StatusCode::TOO_MANY_REQUESTS, "too-many-sign-ins"),
            Self::RoleTooLow => (StatusCode::FORBIDDEN, "role-too-low"),
            Self::TokenLimited => (StatusCode::FORBIDDEN, "token-limited"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::AlreadyExists => (StatusCode::CONFLICT, "already-exists"),
            Self::InUse => (StatusCode::CONFLICT, "in-use"),
            Self::NotPossible => (StatusCode::CONFLICT, "not-possible"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition-failed"),
            Self::IdempotencyKeyInProgress => (StatusCode::CONFLICT, "idempotency-key-in-progress"),
            Self::IdempotencyKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::TemporaryReducedCapacity => (StatusCode::SERVICE_UNAVAILABLE, "temporary-reduced-capacity"),
            Self::StorageDamaged => (StatusCode::INTERNAL_SERVER_ERROR, "storage-damaged"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal-error"),
        }
    }

    /// The problem type: the IANA registry's where it has one, else none of its own; the code tells them apart.
    pub(crate) fn problem_type(self) -> &'static str {
        match self {
            Self::TemporaryReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            _ => "about:blank",
        }
    }

    /// The stable text.
    pub fn as_str(self) -> &'static str {
        self.parts().1
    }

    /// For answers that axum makes without a problem.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            status if status.is_client_error() => Self::MalformedBody,
            _ => Self::Internal,
        }
    }
}

/// `/readyz` of a node that does not serve.
pub const NOT_READY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The demo's control of nodes, for a node or a verb that it does not know.
pub const NOT_CONTROLLED: StatusCode = StatusCode::NOT_FOUND;

/// What the demo's scan API refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanRefusal {
    /// Another path or method.
    NoEndpoint,
    /// The body is not JSON.
    NotJson,
    /// JSON without texts to scan.
    NoTexts,
}

impl ScanRefusal {
    /// Status and message.
    pub fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::NoEndpoint => (StatusCode::NOT_FOUND, "no such endpoint"),
            Self::NotJson => (StatusCode::BAD_REQUEST, "the body is not JSON"),
            Self::NoTexts => (StatusCode::UNPROCESSABLE_ENTITY, "payload: expected a text or a list of texts"),
        }
    }
}
