//! What came back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Deserialize;

/// Longest problem that is read for its code.
pub(crate) const MAX_PROBLEM_BYTES: usize = 16 * 1024;

/// The end of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// 0 without an answer.
    pub(crate) status: u16,
    /// `X-Request-Id`, when it is a UUID.
    pub(crate) id: u128,
    /// The problem's code; why there was no answer, when there was none.
    pub(crate) code: Option<String>,
    /// `Retry-After` in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// We went away on purpose.
    pub(crate) hung_up: bool,
    /// Nothing of it was sent: the target did not take the connection.
    pub(crate) refused: bool,
    /// It was not sent, or the target has said that it did nothing of it: sending it again does it once.
    pub(crate) unprocessed: bool,
}

impl Answer {
    /// None came.
    pub(crate) fn none(why: &str) -> Self {
        Self { code: Some(why.to_owned()), ..Self::default() }
    }

    /// From an answer's head.
    pub(crate) fn of(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            id: text("x-request-id").and_then(uuid).unwrap_or(0),
            retry_after: text("retry-after").and_then(|text| retry_after(text, jiff::Timestamp::now())),
            ..Self::default()
        }
    }

    /// Reads the code of a problem (RFC 9457, with Tollgate's member `code`).
    pub(crate) fn read_code(&mut self, body: &[u8]) {
        #[derive(Deserialize)]
        struct Problem {
            code: Option<String>,
        }
        let problem = serde_json::from_slice::<Problem>(body).ok();
        // It is shown on a terminal: nothing that a terminal would obey.
        let is_code = |code: &String| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_graphic());
        self.code = problem.and_then(|problem| problem.code).filter(is_code);
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3): one that is past is now.
fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// Whether an answer is a problem whose code is wanted.
pub(crate) fn is_problem(status: u16, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    status >= 400 && kind.starts_with(b"application/problem+json")
}

/// Collects a body up to the bound.
pub(crate) fn collect(into: &mut Vec<u8>, part: &Bytes) {
    let room = MAX_PROBLEM_BYTES.saturating_sub(into.len());
    into.extend_from_slice(&part[..part.len().min(room)]);
}

/// A UUID's number.
pub(crate) fn uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut number = 0u128;
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        number = number << 4 | u128::from((*byte as char).to_digit(16)?);
    }
    Some(number)
}

/// A UUID's text.
pub(crate) fn uuid_text(number: u128) -> String {
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        let text = "01a1fcbf-ddfa-7afd-b03e-aa2842c0410f";
        assert_eq!(uuid_text(uuid(text).expect("a UUID")), text);
        assert_eq!(uuid("01a1fcbf-ddfa-7afd-b03e-aa2842c0410"), None);
        assert_eq!(uuid("01a1fcbf-ddfa-7afd-b03eaa2842c0410f0"), None);
        assert_eq!(uuid("01a1fcbf-ddfa-7afd-b03e-äa2842c0410"), None);
    }

    #[test]
    fn a_problems_code_is_read() {
        let mut answer = Answer::default();
        answer.read_code(br#"{"title":"Too Many Requests","code":"rate-limited","violated-policies":["x"]}"#);
        assert_eq!(answer.code.as_deref(), Some("rate-limited"));
        for none in [
            &b"<html>"[..],
            br#"{"code":"a\u001b[31m"}"#,
            br#"{"code":"a\nb"}"#,
            br#"{"code":"\u202e"}"#,
            br#"{"code":"a b"}"#,
        ] {
            answer.read_code(none);
            assert_eq!(answer.code, None, "{}", String::from_utf8_lossy(none));
        }
    }

    #[test]
    fn a_retry_may_be_told_as_seconds_or_as_a_date() {
        let now: jiff::Timestamp = "2026-11-22T04:00:00Z".parse().expect("a time");
        let after = |text: &str| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!((after("3"), after("Sun, 22 Nov 2026 04:00:07 GMT")), (Some(3), Some(7)));
        assert_eq!(after("Sun, 22 Nov 2026 03:59:00 GMT"), Some(0));
        for none in ["", "-5", "soon", "99999999999999999999"] {
            assert_eq!(after(none), None, "{none}");
        }
    }
}
