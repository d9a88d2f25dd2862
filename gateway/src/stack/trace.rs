//! W3C trace context: a valid `traceparent` is continued with a parent id of ours, else a trace is started.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use store::model::Name;

use super::{
    Ledger,
    entry::{Client, Entry, cut},
    id::{Ids, write_hex},
};
use crate::{
    error::CLIENT_CLOSED_REQUEST,
    otlp::{Span, Tracer, Upstream},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` trace id `-` parent id `-` flags.
const LEN: usize = 55;

/// A request's place in its trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) trace_id: u128,
    /// The client's span; 0 for a trace that starts here.
    pub(crate) parent: u64,
    pub(crate) sampled: bool,
}

/// A request's spans while it is under way; only where traces are exported.
#[derive(Debug)]
pub(crate) struct Tracing {
    pub(crate) context: Context,
    /// The span of the upstream's call.
    pub(crate) call: u64,
    /// None when the trace is not sampled.
    pub(crate) span: Option<Span>,
}

impl Context {
    /// Continues the client's trace, or starts one.
    pub(crate) fn of(headers: &HeaderMap, ids: &Ids) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let incoming = values.next().filter(|_| values.next().is_none()).and_then(|value| parse(value.as_bytes()));
        // A trace that starts here is sampled, so that upstreams that follow their parent trace as they would without us.
        incoming.unwrap_or_else(|| Self { trace_id: ids.trace(), parent: 0, sampled: true })
    }
}

impl Tracing {
    /// What is exported of a request that has just arrived.
    pub(crate) fn begin<B>(tracer: &Tracer, request: &Request<B>, client: &Client, method: Name, ids: &Ids) -> Self {
        let mut context = Context::of(request.headers(), ids);
        if context.parent == 0 {
            context.sampled = tracer.samples(context.trace_id);
        }
        let span = context.sampled.then(|| Span {
            trace_id: context.trace_id,
            id: ids.next() | 1,
            parent: context.parent,
            method,
            path: cut(request.uri().path()).into(),
            secure: client.secure,
            // What it is unless somebody says otherwise: the client went away.
            status: CLIENT_CLOSED_REQUEST,
            outcome: "client-abort",
            ..Span::default()
        });
        Self { context, call: 0, span }
    }
}

impl<L: Ledger> Entry<L> {
    /// Where traces are exported: the request's begins.
    pub(super) fn trace<B>(&mut self, request: &Request<B>) {
        let Some(tracer) = &self.shared.settings.tracer else { return };
        let method = self.shared.methods.name(request.method());
        let tracing = Tracing::begin(tracer, request, &self.client, method, &self.shared.ids);
        self.trace_id = tracing.context.trace_id;
        self.tracing = Some(Box::new(tracing));
    }

    /// The request has its answer.
    pub(super) fn answered(&mut self, outcome: &'static str, status: u16) {
        if let Some(span) = self.tracing.as_mut().and_then(|tracing| tracing.span.as_mut()) {
            (span.outcome, span.status) = (outcome, status);
        }
    }

    /// It has ended: its spans go.
    pub(super) fn export(&mut self) {
        let Some(tracing) = self.tracing.take() else { return };
        let (Some(span), Some(tracer)) = (tracing.span, &self.shared.settings.tracer) else { return };
        let upstream = self.called.map(|called| Upstream {
            id: tracing.call,
            after: called.duration_since(self.started),
            duration: Duration::from_micros(self.upstream_us),
        });
        tracer.export(Box::new(Span {
            start: self.ts,
            duration: self.started.elapsed(),
            route: self.route.as_ref().map(|route| route.route.name.clone()),
            account: self.known.as_ref().map(|known| known.key.account.id.as_str().into()),
            request_id: self.id_value.to_str().unwrap_or_default().to_owned(),
            upstream,
            ..span
        }));
    }
}

/// Tells the upstream its place: below the call's span. The state of a trace that we did not continue goes.
pub(crate) fn insert(headers: &mut HeaderMap, context: Context, call: u64) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(context.trace_id, &mut text[3..35]);
    write_hex(u128::from(call), &mut text[36..52]);
    write_hex(u128::from(context.sampled), &mut text[53..55]);
    headers.insert(TRACEPARENT, HeaderValue::from_bytes(&text).expect("digits and hyphens"));
    if context.parent == 0 {
        headers.remove(TRACESTATE);
    }
}

/// Versions to come may be longer (W3C Trace Context §4.3); `ff` is never valid.
fn parse(text: &[u8]) -> Option<Context> {
    let (head, rest) = text.split_at_checked(LEN)?;
    let version = hex(&head[..2])?;
    let well_formed = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    let tail = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    if version == 0xff || !well_formed || !tail {
        return None;
    }
    let (trace_id, parent, flags) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..55])?);
    let parent = u64::try_from(parent).expect("sixteen digits");
    (trace_id != 0 && parent != 0).then_some(Context { trace_id, parent, sampled: flags & 1 == 1 })
}

/// Lower-case digits only, as the specification demands.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_trace_is_continued_with_a_new_parent() {
        let mut headers = HeaderMap::new();
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(TRACEPARENT, HeaderValue::from_static(sent));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let ours = Context::of(&headers, &Ids::new());
        assert_eq!(ours.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        insert(&mut headers, ours, 0xab);
        let now = headers[TRACEPARENT].to_str().expect("ASCII");
        assert_eq!((&now[..36], &now[52..]), (&sent[..36], &sent[52..]));
        assert_ne!(&now[36..52], &sent[36..52]);
        assert!(headers.contains_key(TRACESTATE));
    }

    #[test]
    fn invalid_trace_is_replaced() {
        for sent in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "rubbish",
        ] {
            assert!(parse(sent.as_bytes()).is_none(), "{sent}");
        }
        let ours = Context::of(&HeaderMap::new(), &Ids::new());
        assert!(ours.trace_id != 0 && ours.sampled);
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        insert(&mut headers, ours, 0xab);
        let told = parse(headers[TRACEPARENT].as_bytes()).expect("valid");
        assert_eq!((told.trace_id, told.parent, headers.contains_key(TRACESTATE)), (ours.trace_id, 0xab, false));
    }
}
