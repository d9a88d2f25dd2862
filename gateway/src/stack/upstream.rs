//! Last link: a connection to the upstream, the request on it, and the first byte of its answer in time.

mod budget;
mod connect;
pub(crate) mod health;
mod pool;
mod reply;
mod sender;
mod standing;

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use hyper::body::Incoming;

pub(crate) use health::Health;
pub(crate) use pool::Pools;
pub(crate) use reply::{Reply, ReplyError};

use self::pool::{Connection, Pool};
use super::{
    Inbound, Ledger, Upload,
    entry::{Entry, micros},
    headers,
    link::Link,
};
use crate::{
    error::{Fault, SWITCHING_PROTOCOLS},
    telemetry::Telemetry,
};

/// A pooled connection that was idle for longer may have been closed by the upstream at this very moment: a request
/// without a body is kept in copy, to be sent again on a fresh one.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// The link.
#[derive(Debug)]
pub(crate) struct Upstream<B: Inbound> {
    pools: Arc<Pools<B>>,
}

impl<B: Inbound> Upstream<B> {
    pub(crate) fn new(pools: Arc<Pools<B>>) -> Self {
        Self { pools }
    }
}

impl<L: Ledger, B: Inbound> Link<L, Request<Upload<B>>> for Upstream<B> {
    type Response = Response<Reply<B>>;

    async fn call(&self, entry: &mut Entry<L>, mut request: Request<Upload<B>>) -> Result<Self::Response, Fault> {
        let Some(view) = &entry.route().upstream else {
            return Err(Fault::UpstreamUnreachable("the route's upstream does not exist"));
        };
        let pool = self.pools.pool(view);
        let slot = pool.slot().await?;
        let route = &entry.route().route;
        let first_byte = route.timeout_ms.map(Duration::from_millis);
        let first_byte = first_byte.unwrap_or(entry.shared.settings.timeouts.upstream_first_byte);
        // From here to the end of the answer.
        let until = route.total_timeout_ms.map(|total| Instant::now() + Duration::from_millis(total));
        let mut retries = Retries(route.retries);
        let repeats = retries.0 > 0 && may_repeat(&request);
        if retries.0 > 0 {
            pool.budget.pay_in();
        }
        let mut target = pool.pick()?;
        // A connection that was closed while it was idle costs no retry: once, or a request that crashes its server would crash
        // one for each connection that is idle.
        let mut may_be_stale = true;
        loop {
            let idle = if may_be_stale { pool.idle(target) } else { None };
            let (mut connection, fresh) = match idle {
                Some(connection) => (connection, false),
                None => match pool.connect(target, may_be_stale).await {
                    Ok((connection, fresh)) => {
                        entry.shared.telemetry.upstream_connects.increment(u64::from(fresh));
                        (connection, fresh)
                    }
                    Err(fault) => {
                        if !retries.take(&pool, &entry.shared.telemetry) {
                            return Err(fault);
                        }
                        target = pool.pick()?;
                        continue;
                    }
                },
            };
            pool.address(target, &mut request);
            let stale = !fresh && connection.idle_for() > STALE_AFTER && may_repeat(&request);
            let copy = if repeats || stale { Some(replay(&request)) } else { None };
            let called = Instant::now();
            let before = entry.called.replace(called);
            match send(&mut connection, request, entry, first_byte, until).await {
                // Another protocol, for which nobody asked.
                Sent::Answered(response)
                    if response.status() == SWITCHING_PROTOCOLS
                        && (entry.upgrade.is_none() || !headers::upgrades(response.headers())) =>
                {
                    entry.upstream_us = micros(called);
                    return Err(Fault::UpstreamInvalid);
                }
                Sent::Answered(response) => {
                    entry.upstream_us = micros(called);
                    entry.shared.telemetry.upstream_answered(&entry.route().route.upstream, called.elapsed());
                    let status = response.status();
                    pool.answered(target, status);
                    let statuses = entry.route().route.retry_statuses.as_deref().unwrap_or_default();
                    if let Some(again) = copy.filter(|_| repeats && statuses.contains(&status.as_u16()))
                        && let Ok(other) = pool.pick()
                        && retries.take(&pool, &entry.shared.telemetry)
                    {
                        (request, target) = (again, other);
                        continue;
                    }
                    entry.note_cost(response.headers());
                    let idle = pool.idle_timeout();
                    return Ok(response.map(|body| Reply::new(body, connection, pool, target, slot, idle, until)));
                }
                // Nothing of it was written: not a call at all. An idle connection was closed under it, so the next one.
                Sent::Unsent(back) => {
                    entry.called = before;
                    if fresh {
                        if !retries.take(&pool, &entry.shared.telemetry) {
                            return Err(Fault::UpstreamUnreachable("the upstream closed the connection"));
                        }
                        target = pool.pick()?;
                    }
                    request = back;
                }
                Sent::Broke => {
                    entry.upstream_us = micros(called);
                    if let Some(fault) = entry.upload.as_ref().and_then(|meter| meter.fault()) {
                        return Err(fault);
                    }
                    match copy {
                        // It was closed under the request, which is nobody's failure.
                        Some(again) if stale => (request, may_be_stale) = (again, false),
                        Some(again) => {
                            pool.failed(target);
                            if !retries.take(&pool, &entry.shared.telemetry) {
                                return Err(Fault::UpstreamBroke);
                            }
                            (request, target) = (again, pool.pick()?);
                        }
                        None => {
                            pool.failed(target);
                            return Err(Fault::UpstreamBroke);
                        }
                    }
                }
                Sent::Invalid => {
                    entry.upstream_us = micros(called);
                    pool.failed(target);
                    return Err(Fault::UpstreamInvalid);
                }
                Sent::Lapsed => {
                    entry.upstream_us = micros(called);
                    return Err(Fault::Busy(super::LAPSED));
                }
                // Of the client's making: nothing against the target, or slow bodies would eject one after the other.
                Sent::BodyLate => {
                    entry.upstream_us = micros(called);
                    return Err(Fault::BodyStalled);
                }
                Sent::TimedOut => {
                    entry.upstream_us = micros(called);
                    pool.failed(target);
                    return Err(Fault::UpstreamTimeout);
                }
            }
        }
    }
}

/// The tries that are left, as far as the upstream's budget goes.
struct Retries(u8);

impl Retries {
    /// Whether one more may be made; then it is counted.
    fn take<B: Inbound>(&mut self, pool: &Pool<B>, telemetry: &Telemetry) -> bool {
        if self.0 == 0 {
            return false;
        }
        if !pool.budget.spend() {
            telemetry.retry_budget_spent.increment(1);
            return false;
        }
        self.0 -= 1;
        telemetry.upstream_retries.increment(1);
        true
    }
}

/// What became of a request on a connection.
enum Sent<B: Inbound> {
    Answered(Response<Incoming>),
    Unsent(Request<Upload<B>>),
    Broke,
    Invalid,
    TimedOut,
    /// The route's total time is over, and the client has not sent all of its body.
    BodyLate,
    Lapsed,
}

async fn send<L: Ledger, B: Inbound>(
    connection: &mut Connection<B>,
    request: Request<Upload<B>>,
    entry: &Entry<L>,
    first_byte: Duration,
    until: Option<Instant>,
) -> Sent<B> {
    let Connection { sender, deadline, .. } = connection;
    let mut answer = pin!(sender.send(request));
    let called = Instant::now();
    let left = |now| until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
    // Rings each lease time as well, to see whether the request may still run.
    let recheck = entry.shared.settings.timeouts.recheck;
    deadline.set(entry.look_within(recheck.min(first_byte).min(left(called))));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(match answer {
                Ok(response) => Sent::Answered(response),
                Err(mut error) => match error.take_message() {
                    Some(request) => Sent::Unsent(request),
                    None if error.error().is_parse() || error.error().is_parse_too_large() => Sent::Invalid,
                    None => Sent::Broke,
                },
            });
        }
        while deadline.poll(cx).is_ready() {
            if entry.has_lapsed() {
                return Poll::Ready(Sent::Lapsed);
            }
            let now = Instant::now();
            let upload = entry.upload.as_ref();
            let awaits_client = upload.is_some_and(|meter| meter.awaits_client());
            if left(now).is_zero() {
                return Poll::Ready(if awaits_client { Sent::BodyLate } else { Sent::TimedOut });
            }
            // While the body goes up, or its next part is the client's to send, the upstream cannot be late.
            let since = match upload {
                Some(_) if awaits_client => now,
                Some(meter) => meter.moved_at().max(called),
                None => called,
            };
            let patience = (since + first_byte).saturating_duration_since(now);
            if patience.is_zero() {
                return Poll::Ready(Sent::TimedOut);
            }
            deadline.set(entry.look_within(recheck.min(patience).min(left(now))));
        }
        Poll::Pending
    })
    .await
}

/// Whether a request may be sent twice: idempotent (RFC 9110 §9.2.2) and without a body.
fn may_repeat<B: Inbound>(request: &Request<Upload<B>>) -> bool {
    use http_body::Body as _;
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE];
    request.body().is_end_stream() && idempotent.contains(request.method())
}

/// A copy of a request without a body.
fn replay<B: Inbound>(request: &Request<Upload<B>>) -> Request<Upload<B>> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
