//! The gateway's own answers to gRPC calls, as their clients read them: a head that is the trailers as well
//! (`Trailers-Only` of gRPC over HTTP/2), whose `grpc-status` says how the call went. Problem details would be told to the
//! caller as "unexpected content type".
//!
//! Rows and metrics keep the status of the problem that it is: a refused call is a 429 there, not one of all the 200s.

use http::{HeaderName, HeaderValue, Request, Response, Version, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Inbound, Ledger, body::Download};
use crate::error::{Fault, GRPC_ANSWER};

const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When to try again, in milliseconds (gRFC A6): clients that try again by themselves go by it.
const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// What a message may not hold as it is; all that is no ASCII is encoded besides.
const IN_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// Whether a request is a gRPC call. gRPC-Web is another protocol, and one of HTTP/1.1 is none.
pub(crate) fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).filter(|_| request.version() == Version::HTTP_2);
    kind.and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len())).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(GRPC) && rest.first().is_none_or(|next| b"+; ".contains(next))
    })
}

/// The answer to a call that the gateway refuses, or whose upstream failed.
pub(crate) fn refusal<L: Ledger, B: Inbound>(fault: &Fault, executed: bool) -> Response<Download<L, B>> {
    let mut response = Response::new(Download::Whole(Default::default()));
    *response.status_mut() = GRPC_ANSWER;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, fault.grpc_status().into());
    let executed = if executed { " (the upstream was called)" } else { "" };
    let message = format!("{}: {}{executed}", fault.code(), fault.detail());
    if let Ok(message) = HeaderValue::from_str(&utf8_percent_encode(&message, IN_MESSAGE).to_string()) {
        headers.insert(GRPC_MESSAGE, message);
    }
    // A call that may have been executed is not to be made again without a thought.
    if let Some(after) = fault.retry_after().filter(|_| executed.is_empty()) {
        let millis = i32::try_from(after.as_millis()).unwrap_or(i32::MAX).max(1);
        headers.insert(GRPC_RETRY_PUSHBACK_MS, millis.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_version_and_content_type() {
        for (version, kind, is) in [
            (Version::HTTP_2, "application/grpc", true),
            (Version::HTTP_2, "application/grpc+proto", true),
            (Version::HTTP_2, "Application/gRPC; charset=utf-8", true),
            (Version::HTTP_2, "application/grpc-web", false),
            (Version::HTTP_2, "application/json", false),
            (Version::HTTP_2, "app", false),
            (Version::HTTP_11, "application/grpc", false),
        ] {
            let request = Request::builder().version(version).header("content-type", kind).body(()).expect("a request");
            assert_eq!(is_call(&request), is, "{version:?} {kind}");
        }
        assert!(!is_call(&Request::builder().version(Version::HTTP_2).body(()).expect("a request")));
    }
}
