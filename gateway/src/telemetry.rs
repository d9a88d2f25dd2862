//! Metrics of the data plane: every name, unit and help in one place.
//!
//! Handles are looked up once a core and held (16 ns a use; a look-up by label costs 100 to 195).

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use store::model::Outcome;

/// Requests by outcome (label `outcome`).
pub const REQUESTS: &str = "tollgate_requests_total";
/// Answers by status class (label `class`).
pub const RESPONSES: &str = "tollgate_responses_total";
/// Arrival to the release of the answer's head.
pub const DURATION: &str = "tollgate_request_duration_seconds";
/// The upstream call to its first byte.
pub const UPSTREAM: &str = "tollgate_upstream_duration_seconds";
/// A row handed in to its quorum.
pub const COMMIT: &str = "tollgate_commit_wait_seconds";
/// Requests being served.
pub const IN_FLIGHT: &str = "tollgate_requests_in_flight";
/// Client connections open.
pub const CONNECTIONS: &str = "tollgate_client_connections";
/// Connections to upstreams made.
pub const UPSTREAM_CONNECTS: &str = "tollgate_upstream_connects_total";
/// Requests without a known key; they have no row.
pub const UNKNOWN_KEYS: &str = "tollgate_unknown_key_requests_total";
/// Rejections that were coalesced.
pub const COALESCED: &str = "tollgate_coalesced_rejections_total";
/// Connections refused at the node's bound.
pub const CONNECTIONS_REFUSED: &str = "tollgate_client_connections_refused_total";
/// `accept` failures.
pub const ACCEPT_ERRORS: &str = "tollgate_accept_errors_total";
/// Unix time until which a certificate is valid (labels `listener`, `name`).
pub const TLS_NOT_AFTER: &str = "tollgate_tls_certificate_not_after_seconds";
/// Certificates that were read anew (label `listener`).
pub const TLS_RELOADS: &str = "tollgate_tls_reloads_total";
/// Certificates that changed and cannot be used (label `listener`).
pub const TLS_RELOAD_FAILURES: &str = "tollgate_tls_reload_failures_total";
/// Handshakes that failed (label `listener`).
pub const TLS_HANDSHAKE_FAILURES: &str = "tollgate_tls_handshake_failures_total";
/// Rows whose commit failed or took too long: answered 503.
pub const COMMIT_FAILURES: &str = "tollgate_commit_failures_total";

/// Handles of one core.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names above")]
pub struct Telemetry {
    outcomes: [Counter; Outcome::ALL.len()],
    bad_requests: Counter,
    classes: [Counter; 5],
    pub duration: Histogram,
    pub upstream: Histogram,
    pub commit: Histogram,
    pub in_flight: Gauge,
    pub connections: Gauge,
    pub upstream_connects: Counter,
    pub unknown_keys: Counter,
    pub coalesced: Counter,
    pub connections_refused: Counter,
    pub accept_errors: Counter,
    pub commit_failures: Counter,
}

impl Telemetry {
    /// Looks every handle up in the recorder that is installed now; install it first.
    pub fn new() -> Self {
        describe();
        Self {
            outcomes: Outcome::ALL.map(|outcome| counter!(REQUESTS, "outcome" => outcome.as_str())),
            bad_requests: counter!(REQUESTS, "outcome" => "bad-request"),
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| counter!(RESPONSES, "class" => class)),
            duration: histogram!(DURATION),
            upstream: histogram!(UPSTREAM),
            commit: histogram!(COMMIT),
            in_flight: gauge!(IN_FLIGHT),
            connections: gauge!(CONNECTIONS),
            upstream_connects: counter!(UPSTREAM_CONNECTS),
            unknown_keys: counter!(UNKNOWN_KEYS),
            coalesced: counter!(COALESCED),
            connections_refused: counter!(CONNECTIONS_REFUSED),
            accept_errors: counter!(ACCEPT_ERRORS),
            commit_failures: counter!(COMMIT_FAILURES),
        }
    }

    /// An answer is released.
    pub fn answered(&self, outcome: Outcome, status: u16, duration: Duration) {
        self.outcomes[outcome as usize].increment(1);
        self.class(status);
        self.duration.record(duration);
    }

    /// A request that was refused before its key was looked at.
    pub fn bad_request(&self, status: u16) {
        self.bad_requests.increment(1);
        self.class(status);
    }

    fn class(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].increment(1);
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

fn describe() {
    use metrics::Unit::{Count, Seconds};
    describe_counter!(REQUESTS, Count, "Requests by outcome.");
    describe_counter!(RESPONSES, Count, "Answers by status class.");
    describe_histogram!(DURATION, Seconds, "From arrival to the release of the answer's head.");
    describe_histogram!(UPSTREAM, Seconds, "From the upstream call to its first byte.");
    describe_histogram!(COMMIT, Seconds, "From handing a row in to its quorum.");
    describe_gauge!(IN_FLIGHT, Count, "Requests being served.");
    describe_gauge!(CONNECTIONS, Count, "Client connections open.");
    describe_counter!(UPSTREAM_CONNECTS, Count, "Connections made to upstreams.");
    describe_counter!(UNKNOWN_KEYS, Count, "Requests without a known key.");
    describe_counter!(COALESCED, Count, "Rejections that share a row with others.");
    describe_counter!(CONNECTIONS_REFUSED, Count, "Connections refused at the node's bound.");
    describe_gauge!(TLS_NOT_AFTER, Seconds, "Unix time until which a certificate is valid.");
    describe_counter!(TLS_RELOADS, Count, "Certificates that were read anew.");
    describe_counter!(TLS_RELOAD_FAILURES, Count, "Certificates that changed and cannot be used: the old ones stay.");
    describe_counter!(TLS_HANDSHAKE_FAILURES, Count, "TLS handshakes that failed.");
    describe_counter!(ACCEPT_ERRORS, Count, "Failures to accept a connection.");
    describe_counter!(COMMIT_FAILURES, Count, "Rows whose commit failed or took too long.");
}
