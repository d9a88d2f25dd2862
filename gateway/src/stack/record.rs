//! First link: the request's id and entry, its row on a quorum, and only then its answer (P1).

use std::{borrow::Cow, sync::Arc, time::Instant};

use http::{HeaderMap, Request, Response, header};
use store::model::{Completion, Outcome};

use super::{
    Inbound, Ledger, Permit, Shared,
    body::{Download, Whole},
    cors::{self, Allowed},
    entry::{Client, End, Entry, Known, cut, micros},
    forwarded, grpc,
    headers::{self, X_REQUEST_ID},
    hold::{self, Held},
    link::Link,
    problem, rate_headers,
    rejections::Place,
    tunnel,
    upstream::Reply,
};
use crate::{
    error::{Fault, SWITCHING_PROTOCOLS},
    telemetry::method_of,
};

/// The link.
#[derive(Debug)]
pub(crate) struct Record<L, S> {
    shared: Arc<Shared<L>>,
    inner: S,
}

impl<L: Ledger, S> Record<L, S> {
    pub(crate) fn new(shared: Arc<Shared<L>>, inner: S) -> Self {
        Self { shared, inner }
    }

    pub(crate) fn shared(&self) -> &Shared<L> {
        &self.shared
    }

    pub(crate) async fn serve<B>(&self, client: Client, request: Request<B>) -> Response<Download<L, B>>
    where
        B: Inbound,
        S: Link<L, Request<B>, Response = Response<Reply<B>>>,
    {
        let client = forwarded::client(client, request.headers(), &self.shared.settings.trusted_proxies);
        let mut entry = Entry::new(self.shared.clone(), client);
        entry.method = method_of(request.method());
        entry.grpc = grpc::is_call(&request);
        entry.trace(&request);
        if tells() {
            entry.told_path = Some(cut(request.uri().path()).into());
        }
        if request.headers().contains_key(header::ORIGIN) {
            entry.cors = Allowed::find(&*self.shared.ledger, &request);
            if let Some(mut answer) = entry.cors.as_ref().and_then(|allowed| allowed.preflight(&request)) {
                self.shared.telemetry.preflights.increment(1);
                answer.headers_mut().insert(X_REQUEST_ID, entry.id_value.clone());
                entry.answered("preflight", answer.status().as_u16());
                return answer;
            }
        }
        let answer = match headers::check(&request) {
            Ok(()) => self.inner.call(&mut entry, request).await,
            Err(fault) => Err(fault),
        };
        let held = match answer {
            Ok(response) => hold::hold(&entry, response).await,
            Err(fault) => Err(fault),
        };
        match held {
            Ok(held) => release(entry, held).await,
            Err(fault) if entry.known.is_none() => refuse_unknown(&mut entry, &fault),
            Err(fault) => refuse(entry, fault).await,
        }
    }
}

/// An access event's target; off unless the log's level says `access=info`.
const ACCESS: &str = "access";

/// Whether access events are on: one look at a flag.
fn tells() -> bool {
    tracing::enabled!(target: ACCESS, tracing::Level::INFO)
}

/// One event a request whose answer is released, apart from its row. Where it is off it costs one look at a flag.
fn tell<L: Ledger>(entry: &mut Entry<L>, outcome: &'static str, status: u16) {
    entry.answered(outcome, status);
    if !tells() {
        return;
    }
    let known = entry.known.as_ref();
    tracing::info!(
        target: ACCESS,
        request_id = entry.id_value.to_str().unwrap_or_default(),
        account = known.map(|known| known.key.account.id.as_str()),
        route = entry.route.as_ref().map(|route| route.route.name.as_str()),
        method = known.map_or(entry.method, Known::method),
        path = known.map(Known::path).or(entry.told_path.as_deref()),
        status,
        outcome,
        client_ip = %entry.client.ip,
        duration_us = micros(entry.started),
        upstream_us = entry.upstream_us,
        trace_id = format_args!("{:032x}", entry.trace_id),
    );
}

/// The upstream's answer, once its row (for one that is streamed: its open row) is committed.
async fn release<L: Ledger, B: Inbound>(mut entry: Entry<L>, held: Held<B>) -> Response<Download<L, B>> {
    let (status, completion, bytes_out) = match &held {
        Held::Whole(parts, body) => (parts.status, Completion::Complete, body.bytes()),
        Held::Open(parts, ..) => (parts.status, Completion::Open, 0),
    };
    let end = End { status: status.as_u16(), outcome: Outcome::Admitted, completion, bytes_out, settles: false };
    if let Err(fault) = commit(&mut entry, &end).await {
        // The row's fate is unknown, so nothing of the upstream's answer may be seen.
        return problem_response(&mut entry, &fault);
    }
    entry.shared.telemetry.answered(end.outcome, entry.counted(end.status));
    tell(&mut entry, end.outcome.as_str(), end.status);
    match held {
        Held::Whole(mut parts, body) => {
            headers::to_client(&mut parts.headers, false);
            edit(&mut parts.headers, &entry);
            stamp(&mut parts.headers, &entry, None);
            Response::from_parts(parts, Download::Whole(body))
        }
        Held::Open(mut parts, _, reply) if status == SWITCHING_PROTOCOLS => {
            let upstream = hyper::upgrade::on(Response::from_parts(parts.clone(), ()));
            headers::to_client(&mut parts.headers, true);
            stamp(&mut parts.headers, &entry, None);
            tunnel::spawn(entry, upstream, reply);
            Response::from_parts(parts, Download::Whole(Whole::default()))
        }
        Held::Open(mut parts, prefix, reply) => {
            headers::to_client(&mut parts.headers, false);
            edit(&mut parts.headers, &entry);
            stamp(&mut parts.headers, &entry, None);
            Response::from_parts(parts, Download::stream(entry, end.status, prefix, reply))
        }
    }
}

/// The gateway's own answer to a request whose key is known: its row first, or its share of a coalesced one.
async fn refuse<L: Ledger, B: Inbound>(mut entry: Entry<L>, fault: Fault) -> Response<Download<L, B>> {
    let outcome = fault.outcome();
    if let Fault::Refused(refusal) = &fault {
        entry.violated.clone_from(&refusal.violated);
    }
    if let (Fault::Unavailable(_) | Fault::Busy(_), false) = (&fault, entry.executed()) {
        return problem_response(&mut entry, &fault);
    }
    let body = problem::body(&fault, &entry);
    let status = fault.status().as_u16();
    let place = if outcome.is_rejected() && !entry.executed() {
        let known = entry.known.as_ref().expect("refused with a known key");
        entry.shared.rejections.place(&known.key, entry.ts)
    } else {
        Place::OwnRow
    };
    if place == Place::OwnRow {
        if let Fault::Refused(refusal) = &fault {
            entry.stood.clone_from(&refusal.standings);
        }
        let completion = match fault {
            Fault::UpstreamBroke | Fault::UpstreamInvalid => Completion::UpstreamAbort,
            Fault::BodyBroken | Fault::BodyStalled => Completion::ClientAbort,
            _ => Completion::Complete,
        };
        let end = End { status, outcome, completion, bytes_out: body.len() as u64, settles: false };
        if let Err(fault) = commit(&mut entry, &end).await {
            return problem_response(&mut entry, &fault);
        }
    } else {
        // Its row comes later, in a sum: the decision itself must be one that this node may take now (P5).
        if let Err(unavailable) = entry.shared.ledger.check(entry.view) {
            return problem_response(&mut entry, &Fault::Unavailable(unavailable));
        }
        let known = entry.known.as_ref().expect("refused with a known key");
        entry.shared.rejections.count(&entry, known, outcome, status);
        entry.shared.telemetry.coalesced.increment(1);
    }
    entry.shared.telemetry.answered(outcome, entry.counted(status));
    tell(&mut entry, fault.code(), status);
    let mut response = problem::response(&fault, body, &entry);
    stamp(response.headers_mut(), &entry, Some(&fault));
    response
}

/// The gateway's own answer to a request without a known key: counted, and no more.
fn refuse_unknown<L: Ledger, B: Inbound>(entry: &mut Entry<L>, fault: &Fault) -> Response<Download<L, B>> {
    entry.shared.telemetry.unknown_keys.increment(1);
    problem_response(entry, fault)
}

/// An answer that has no row, or one whose fate is unknown.
fn problem_response<L: Ledger, B: Inbound>(entry: &mut Entry<L>, fault: &Fault) -> Response<Download<L, B>> {
    let telemetry = &entry.shared.telemetry;
    match fault {
        Fault::BadRequest(_) => telemetry.bad_request(entry.counted(fault.status().as_u16())),
        _ => telemetry.answered(fault.outcome(), entry.counted(fault.status().as_u16())),
    }
    if let Fault::Unavailable(unavailable) = fault {
        // Clients are not told; operators may ask.
        tracing::debug!(reason = unavailable.reason, "a request could not be decided or recorded");
    }
    tell(entry, fault.code(), fault.status().as_u16());
    let mut response = problem::response(fault, problem::body(fault, entry), entry);
    stamp(response.headers_mut(), entry, Some(fault));
    response
}

/// Hands the row in and waits for its quorum.
async fn commit<L: Ledger>(entry: &mut Entry<L>, end: &End) -> Result<(), Fault> {
    let permit = match entry.permit.take() {
        Some(permit) => permit,
        None => entry.shared.ledger.permit(&entry.key().account.id, entry.view).map_err(Fault::Unavailable)?,
    };
    let row = entry.row(end).expect("only requests with a known key are committed");
    let handed_in = Instant::now();
    let committed = permit.commit(row).await;
    entry.shared.telemetry.commit.record(handed_in.elapsed());
    committed.map_err(|error| {
        entry.shared.telemetry.commit_failures.increment(1);
        Fault::Unavailable(error.0)
    })
}

/// What the route changes of the upstream's headers.
fn edit<L: Ledger>(headers: &mut HeaderMap, entry: &Entry<L>) {
    if let Some(edits) = &entry.route().route.response_headers {
        headers::edit(headers, edits);
    }
}

/// What every answer carries: its id and, once the key is known, where the client stands.
fn stamp<L: Ledger>(headers: &mut HeaderMap, entry: &Entry<L>, fault: Option<&Fault>) {
    headers.insert(X_REQUEST_ID, entry.id_value.clone());
    if let Some(allowed) = &entry.cors {
        allowed.stamp(headers);
    } else if let Some(route) = &entry.route {
        cors::vary(&route.route, headers);
    }
    if let Some(known) = &entry.known {
        let standings = match fault {
            Some(Fault::Refused(refusal)) => Some(refusal.standings.as_slice().into()),
            _ => entry.standings().or_else(|| entry.stands().map(Cow::Owned)),
        };
        rate_headers::insert(
            headers,
            standings.as_deref(),
            &known.key.account.policies,
            entry.shared.settings.compat_headers,
        );
    }
}
