//! Metrics of the data plane: every name, unit and help in one place. What OpenTelemetry has a name for has that one, as
//! Prometheus writes it (`http.server.request.duration` in seconds); the rest begins with `tollgate_`.
//!
//! Handles are looked up once a core and held (16 ns a use; a look-up by label costs 100 to 195).

mod series;

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
pub(crate) use series::method_of;
use series::{Requests, Upstreams};
use store::{
    model::{Name, Outcome},
    view::RouteView,
};

/// A metric, for those who look it up.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// How it is counted.
    pub kind: Kind,
    /// In what.
    pub unit: Unit,
    /// Labels, beside those of a histogram.
    pub labels: &'static [&'static str],
    /// A sentence.
    pub help: &'static str,
}

/// How a metric is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "Prometheus' own words")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! metrics {
    ($($name:ident = $text:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $name: &str = $text;
        )+

        /// Every metric of this crate; the store's are [`store::Store::stats`].
        pub const ALL: &[Metric] = &[$(
            Metric { name: $text, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help },
        )+];
    };
}

metrics! {
    REQUESTS = "tollgate_requests_total", Counter, Count, ["outcome"], "Requests by outcome.";
    RESPONSES = "tollgate_responses_total", Counter, Count, ["class"], "Answers by status class.";
    DURATION =
        "http_server_request_duration_seconds", Histogram, Seconds, ["http_request_method", "http_response_status_code", "http_route"], "From arrival to the release of the answer's head.";
    UPSTREAM =
        "http_client_request_duration_seconds", Histogram, Seconds, ["upstream"], "From the upstream call to its first byte.";
    COMMIT = "tollgate_commit_wait_seconds", Histogram, Seconds, [], "From handing a row in to its quorum.";
    IN_FLIGHT = "http_server_active_requests", Gauge, Count, [], "Requests being served.";
    CONNECTIONS = "tollgate_client_connections", Gauge, Count, [], "Client connections open.";
    UPSTREAM_CONNECTS = "tollgate_upstream_connects_total", Counter, Count, [], "Connections made to upstreams.";
    UNKNOWN_KEYS = "tollgate_unknown_key_requests_total", Counter, Count, [], "Requests without a known key; they have no row.";
    COALESCED = "tollgate_coalesced_rejections_total", Counter, Count, [], "Rejections that share a row with others.";
    CONNECTIONS_REFUSED =
        "tollgate_client_connections_refused_total", Counter, Count, [], "Connections refused at the node's bound, or at that of their address.";
    HEADS_REFUSED =
        "tollgate_client_heads_refused_total", Counter, Count, [], "Heads of HTTP/1 that cannot be read: answered 400, 414 or 431 before there is a request, and the connection closed.";
    PREFLIGHTS = "tollgate_preflights_total", Counter, Count, [], "Preflights of pages of allowed origins.";
    UPSTREAM_RETRIES =
        "tollgate_upstream_retries_total", Counter, Count, [], "Requests that were sent to an upstream once more.";
    RETRY_BUDGET_SPENT =
        "tollgate_upstream_retry_budget_spent_total", Counter, Count, [], "Retries not made because the upstream's budget was spent.";
    UPSTREAM_EJECTIONS =
        "tollgate_upstream_ejections_total", Counter, Count, ["upstream"], "Targets that were left out for what they answered.";
    UPSTREAM_HEALTHY =
        "tollgate_upstream_target_healthy", Gauge, Count, ["upstream", "target"], "What health checks say of a target: 1 healthy, 0 not.";
    TLS_NOT_AFTER =
        "tollgate_tls_certificate_not_after_seconds", Gauge, Seconds, ["listener", "name"], "Unix time until which a certificate is valid.";
    TLS_RELOADS = "tollgate_tls_reloads_total", Counter, Count, ["listener"], "Certificates that were read anew.";
    TLS_RELOAD_FAILURES =
        "tollgate_tls_reload_failures_total", Counter, Count, ["listener"], "Certificates that changed and cannot be used: the old ones stay.";
    TLS_HANDSHAKE_FAILURES =
        "tollgate_tls_handshake_failures_total", Counter, Count, ["listener"], "TLS handshakes that failed.";
    ACCEPT_ERRORS = "tollgate_accept_errors_total", Counter, Count, [], "Failures to accept a connection.";
    ADMIN_REFUSED =
        "tollgate_admin_unauthenticated_total", Counter, Count, ["reason"], "Requests of the admin API without a token that is known.";
    LEASE_WAIT =
        "tollgate_lease_wait_seconds", Histogram, Seconds, [], "From asking for units that memory does not have to the decision.";
    OTLP_SPANS = "tollgate_otlp_spans_total", Counter, Count, [], "Spans that the collector has taken.";
    OTLP_SPANS_DROPPED =
        "tollgate_otlp_spans_dropped_total", Counter, Count, [], "Spans dropped: the queue was full, or the collector did not take them.";
    OTLP_EXPORT_FAILURES =
        "tollgate_otlp_export_failures_total", Counter, Count, [], "Messages that the collector did not take, each try.";
    COMMIT_FAILURES =
        "tollgate_commit_failures_total", Counter, Count, [], "Rows whose commit failed or took too long: answered 503.";
}

/// Handles of one core.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names above")]
pub struct Telemetry {
    outcomes: [Counter; Outcome::ALL.len()],
    bad_requests: Counter,
    classes: [Counter; 5],
    durations: Requests,
    upstreams: Upstreams,
    pub commit: Histogram,
    pub lease_wait: Histogram,
    pub in_flight: Gauge,
    pub connections: Gauge,
    pub upstream_connects: Counter,
    pub unknown_keys: Counter,
    pub coalesced: Counter,
    pub connections_refused: Counter,
    pub heads_refused: Counter,
    pub preflights: Counter,
    pub upstream_retries: Counter,
    pub retry_budget_spent: Counter,
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
            durations: Requests::default(),
            upstreams: Upstreams::default(),
            commit: histogram!(COMMIT),
            lease_wait: histogram!(LEASE_WAIT),
            in_flight: gauge!(IN_FLIGHT),
            connections: gauge!(CONNECTIONS),
            upstream_connects: counter!(UPSTREAM_CONNECTS),
            unknown_keys: counter!(UNKNOWN_KEYS),
            coalesced: counter!(COALESCED),
            heads_refused: counter!(HEADS_REFUSED),
            connections_refused: counter!(CONNECTIONS_REFUSED),
            preflights: counter!(PREFLIGHTS),
            upstream_retries: counter!(UPSTREAM_RETRIES),
            retry_budget_spent: counter!(RETRY_BUDGET_SPENT),
            accept_errors: counter!(ACCEPT_ERRORS),
            commit_failures: counter!(COMMIT_FAILURES),
        }
    }

    /// An answer is released.
    pub fn answered(&self, outcome: Outcome, answer: Answer<'_>) {
        self.outcomes[outcome as usize].increment(1);
        self.finished(answer);
    }

    /// A request that was refused before its key was looked at.
    pub fn bad_request(&self, answer: Answer<'_>) {
        self.bad_requests.increment(1);
        self.finished(answer);
    }

    /// An upstream has begun to answer.
    pub fn upstream_answered(&self, upstream: &Name, duration: Duration) {
        self.upstreams.record(upstream, duration);
    }

    fn finished(&self, answer: Answer<'_>) {
        let class = usize::from(answer.status / 100).clamp(1, 5) - 1;
        self.classes[class].increment(1);
        self.durations.record(answer.route, answer.method, answer.status, answer.duration);
    }
}

/// An answer, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Where the request was routed, if it came so far.
    pub route: Option<&'a RouteView>,
    /// One of the known methods, or `_OTHER`.
    pub method: &'static str,
    /// Its status.
    pub status: u16,
    /// Since the request's arrival.
    pub duration: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

fn describe() {
    for Metric { name, kind, unit, help, .. } in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *help),
            Kind::Gauge => describe_gauge!(*name, *unit, *help),
            Kind::Histogram => describe_histogram!(*name, *unit, *help),
        }
    }
}
