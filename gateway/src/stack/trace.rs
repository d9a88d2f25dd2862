//! W3C trace context: a valid `traceparent` is continued with a parent id of ours, else a trace is started.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::id::{Ids, write_hex};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` trace id `-` parent id `-` flags.
const LEN: usize = 55;

/// What goes to the upstream.
#[derive(Debug)]
pub(crate) struct Traceparent {
    value: HeaderValue,
    continued: bool,
}

/// The trace id of the row, and the header for the upstream.
pub(crate) fn continue_or_start(headers: &HeaderMap, ids: &Ids) -> (u128, Traceparent) {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let incoming = values.next().filter(|_| values.next().is_none()).and_then(|value| parse(value.as_bytes()));
    // A trace that starts here is sampled, so that upstreams that follow their parent trace as they would without us.
    let (trace_id, flags) = incoming.unwrap_or_else(|| (ids.trace(), 1));
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(trace_id, &mut text[3..35]);
    write_hex(u128::from(ids.next() | 1), &mut text[36..52]);
    write_hex(u128::from(flags), &mut text[53..55]);
    let value = HeaderValue::from_bytes(&text).expect("digits and hyphens");
    (trace_id, Traceparent { value, continued: incoming.is_some() })
}

/// Replaces the client's header; the state of a trace that we did not continue goes.
pub(crate) fn insert(headers: &mut HeaderMap, traceparent: Traceparent) {
    headers.insert(TRACEPARENT, traceparent.value);
    if !traceparent.continued {
        headers.remove(TRACESTATE);
    }
}

/// Trace id and flags. Versions to come may be longer (W3C Trace Context §4.3); `ff` is never valid.
fn parse(text: &[u8]) -> Option<(u128, u8)> {
    let (head, rest) = text.split_at_checked(LEN)?;
    let version = hex(&head[..2])?;
    let well_formed = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    let tail = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
    if version == 0xff || !well_formed || !tail {
        return None;
    }
    let (trace_id, parent, flags) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..55])?);
    (trace_id != 0 && parent != 0).then_some((trace_id, (flags & 1) as u8))
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
        let (id, ours) = continue_or_start(&headers, &Ids::new());
        assert_eq!(id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        insert(&mut headers, ours);
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
            assert_eq!(parse(sent.as_bytes()), None, "{sent}");
        }
        let (id, ours) = continue_or_start(&HeaderMap::new(), &Ids::new());
        assert_ne!(id, 0);
        assert_eq!(parse(ours.value.as_bytes()).map(|(id, _)| id), Some(id));
    }
}
