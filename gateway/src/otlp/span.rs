//! What a request leaves to be exported: a span of its own and, once an upstream was called, one of the call.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::{self as proto, Status, span::SpanKind, status::StatusCode as Code};
use store::model::{Name, Timestamp};

use super::encode::{attribute, integer};

/// A request that has ended. Names are those of OpenTelemetry's conventions for HTTP, and the ledger's for the rest.
#[derive(Debug, Default, Clone)]
pub struct Span {
    /// The trace.
    pub trace_id: u128,
    /// The request's own span.
    pub id: u64,
    /// The client's span; 0 where the trace begins here.
    pub parent: u64,
    /// When the request arrived.
    pub start: Timestamp,
    /// To the end of its answer.
    pub duration: Duration,
    /// In upper case.
    pub method: Name,
    /// Without the query.
    pub path: Name,
    /// The connection is encrypted.
    pub secure: bool,
    /// Name of the route, once there is one.
    pub route: Option<Name>,
    /// The account's id, once the key is known.
    pub account: Option<Name>,
    /// Id of the request and of its row.
    pub request_id: String,
    /// Status of the answer.
    pub status: u16,
    /// The row's outcome.
    pub outcome: &'static str,
    /// The call of the upstream, if it came to one.
    pub upstream: Option<Upstream>,
}

/// The call of an upstream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upstream {
    /// Its span, which the upstream is told as its parent.
    pub id: u64,
    /// From the arrival to the call.
    pub after: Duration,
    /// To the first byte of the answer.
    pub duration: Duration,
}

impl Span {
    /// How many spans it makes.
    pub fn count(&self) -> u64 {
        1 + u64::from(self.upstream.is_some())
    }

    /// As OTLP has them.
    pub(super) fn encode(&self, spans: &mut Vec<proto::Span>) {
        let start = u64::try_from(self.start.0).unwrap_or_default().saturating_mul(1_000);
        let name = match &self.route {
            Some(route) => format!("{} {route}", self.method),
            None => self.method.to_string(),
        };
        let mut attributes = vec![
            attribute("http.request.method", &*self.method),
            attribute("url.path", &*self.path),
            attribute("url.scheme", if self.secure { "https" } else { "http" }),
            integer("http.response.status_code", i64::from(self.status)),
            attribute("tollgate.outcome", self.outcome),
            attribute("tollgate.request_id", &*self.request_id),
        ];
        attributes.extend(self.route.as_ref().map(|route| attribute("http.route", &**route)));
        attributes.extend(self.account.as_ref().map(|account| attribute("tollgate.account", &**account)));
        // For a server a client's mistake is no error of its own.
        let failed = self.status >= 500;
        spans.push(proto::Span {
            parent_span_id: if self.parent == 0 { Vec::new() } else { self.parent.to_be_bytes().to_vec() },
            ..span(self.trace_id, self.id, name, SpanKind::Server, start, self.duration, attributes, failed)
        });
        let Some(upstream) = self.upstream else { return };
        let called = start.saturating_add(nanos(upstream.after));
        let mut attributes = vec![attribute("http.request.method", &*self.method)];
        let answered = self.outcome == "admitted";
        if answered {
            attributes.push(integer("http.response.status_code", i64::from(self.status)));
        }
        let name = self.method.to_string();
        // For a client a 4xx is one as well.
        let failed = !answered || self.status >= 400;
        spans.push(proto::Span {
            parent_span_id: self.id.to_be_bytes().to_vec(),
            ..span(self.trace_id, upstream.id, name, SpanKind::Client, called, upstream.duration, attributes, failed)
        });
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts that both kinds of spans have")]
fn span(
    trace_id: u128,
    id: u64,
    name: String,
    kind: SpanKind,
    start: u64,
    duration: Duration,
    attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>,
    failed: bool,
) -> proto::Span {
    let code = if failed { Code::Error } else { Code::Unset };
    proto::Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        // Sampled; whether the parent is remote is not told.
        flags: 1,
        name,
        kind: kind as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(nanos(duration)),
        attributes,
        status: Some(Status { message: String::new(), code: code as i32 }),
        ..proto::Span::default()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
