//! Problem details (RFC 9457) from a fault.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Map, Value, json};

use super::{
    Inbound, Ledger,
    body::{Download, Whole},
    entry::Entry,
    grpc, id,
};
use crate::error::Fault;

/// Longest `Retry-After` in seconds: more than the longest period of a quota, a month.
const MAX_RETRY_AFTER_SECONDS: u64 = 32 * 86_400;

/// The problem's JSON text; nothing for a gRPC call, whose answer has no body.
pub(crate) fn body<L: Ledger>(fault: &Fault, entry: &Entry<L>) -> Bytes {
    if entry.grpc {
        return Bytes::new();
    }
    let status = fault.status();
    let id = id::request_id_text(entry.id);
    let mut problem = Map::new();
    problem.insert("type".into(), fault.problem_type().into());
    problem.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
    problem.insert("status".into(), status.as_u16().into());
    problem.insert("detail".into(), fault.detail().into());
    problem.insert("code".into(), fault.code().into());
    problem.insert("request_id".into(), std::str::from_utf8(&id).expect("ASCII").into());
    match fault {
        Fault::Refused(refusal) => {
            let names: Vec<Value> = refusal.violated.iter().map(|name| name.as_str().into()).collect();
            problem.insert("violated-policies".into(), names.into());
        }
        Fault::Unavailable(_) | Fault::Busy(_) if entry.executed() => {
            problem.insert("upstream_executed".into(), json!(true));
        }
        _ => {}
    }
    Bytes::from(Value::Object(problem).to_string())
}

/// The answer with its headers.
pub(crate) fn response<L: Ledger, B: Inbound>(
    fault: &Fault,
    body: Bytes,
    entry: &Entry<L>,
) -> Response<Download<L, B>> {
    if entry.grpc {
        return grpc::refusal(fault, entry.executed());
    }
    let mut response = Response::new(Download::Whole(Whole::from(body)));
    *response.status_mut() = fault.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(challenge) = fault.challenge() {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(after) = fault.retry_after() {
        // Rounded up: who waits as long as told is not told to wait again.
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        headers.insert(header::RETRY_AFTER, seconds.clamp(1, MAX_RETRY_AFTER_SECONDS).into());
    }
    response
}
