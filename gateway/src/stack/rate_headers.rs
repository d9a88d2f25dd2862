//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), and the compatibility headers.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use store::{
    lease::{Policy, Standing},
    view::Policies,
};

use super::CompatHeaders;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-rate-limit-remaining");
const X_QUOTA_REMAINING: HeaderName = HeaderName::from_static("x-quota-remaining");
const X_QUOTA_PERIOD_END: HeaderName = HeaderName::from_static("x-quota-period-end");

/// The draft's default unit, left out.
const DEFAULT_UNIT: &str = "requests";
/// Bytes that a policy's item takes at most, mostly.
const ITEM_BYTES: usize = 64;

/// Where the client stands; without standings (refused before units were asked for) the policies alone.
pub(crate) fn insert(
    headers: &mut HeaderMap,
    standings: Option<&[Standing]>,
    policies: &Policies,
    compat: CompatHeaders,
) {
    // What an upstream says of limits of its own is not what this client has with us.
    for name in [RATELIMIT_POLICY, RATELIMIT, X_RATE_LIMIT_REMAINING, X_QUOTA_REMAINING, X_QUOTA_PERIOD_END] {
        headers.remove(name);
    }
    let Some(standings) = standings.filter(|standings| !standings.is_empty()) else {
        let policy = from_policies(policies);
        if !policy.is_empty() {
            set(headers, RATELIMIT_POLICY, policy);
        }
        return;
    };
    let mut policy = BytesMut::with_capacity(2 * ITEM_BYTES * standings.len());
    for standing in standings {
        item(&mut policy, standing.name.as_str());
        parameter(&mut policy, b";q=", standing.quota);
        if standing.unit != DEFAULT_UNIT {
            unit(&mut policy, standing.unit);
        }
        if let Some(seconds) = standing.window_seconds {
            parameter(&mut policy, b";w=", seconds);
        }
    }
    let mut now = policy.split_off(policy.len());
    for standing in standings {
        item(&mut now, standing.name.as_str());
        parameter(&mut now, b";r=", standing.remaining);
        if let Some(seconds) = standing.reset_seconds {
            parameter(&mut now, b";t=", seconds);
        }
    }
    set(headers, RATELIMIT_POLICY, policy);
    set(headers, RATELIMIT, now);
    if compat.rate_limit || compat.quota {
        insert_compat(headers, standings, compat);
    }
}

/// The tightest rate, and the quota with the least left.
fn insert_compat(headers: &mut HeaderMap, standings: &[Standing], compat: CompatHeaders) {
    let least = |policy| standings.iter().filter(move |s| s.policy == policy).min_by_key(|s| s.remaining);
    if let (true, Some(rate)) = (compat.rate_limit, least(Policy::Rate)) {
        headers.insert(X_RATE_LIMIT_REMAINING, rate.remaining.into());
    }
    if let (true, Some(quota)) = (compat.quota, least(Policy::Quota)) {
        headers.insert(X_QUOTA_REMAINING, quota.remaining.into());
        if let Some(end) = quota.period_end {
            set(headers, X_QUOTA_PERIOD_END, BytesMut::from(end.to_string().as_str()));
        }
    }
}

fn from_policies(policies: &Policies) -> BytesMut {
    let mut out = BytesMut::new();
    if let Some(concurrency) = policies.concurrency {
        item(&mut out, "concurrency");
        parameter(&mut out, b";q=", concurrency.into());
        unit(&mut out, "concurrent-requests");
    }
    for limit in policies.limits.iter().filter(|policy| !policy.limit.shadow) {
        item(&mut out, limit.limit.name.as_str());
        parameter(&mut out, b";q=", limit.limit.rate.units);
        parameter(&mut out, b";w=", limit.limit.rate.period_seconds.into());
    }
    for quota in policies.quotas.iter().filter(|policy| !policy.shadow) {
        item(&mut out, quota.name.as_str());
        parameter(&mut out, b";q=", quota.limit);
        if quota.unit.as_str() != DEFAULT_UNIT {
            unit(&mut out, quota.unit.as_str());
        }
    }
    out
}

/// `, "name"`: a string of RFC 9651 §3.3.3.
fn item(out: &mut BytesMut, name: &str) {
    if !out.is_empty() {
        out.put_slice(b", ");
    }
    out.put_u8(b'"');
    for byte in name.bytes().filter(|byte| (0x20..0x7f).contains(byte)) {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(byte);
    }
    out.put_u8(b'"');
}

fn unit(out: &mut BytesMut, unit: &str) {
    out.put_slice(b";qu=\"");
    out.put_slice(unit.as_bytes());
    out.put_u8(b'"');
}

/// An integer of RFC 9651 §3.3.1: at most fifteen digits.
fn parameter(out: &mut BytesMut, name: &[u8], value: u64) {
    out.put_slice(name);
    let mut rest = value.min(999_999_999_999_999);
    let mut digits = [0u8; 15];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: BytesMut) {
    let value = HeaderValue::from_maybe_shared(Bytes::from(text)).expect("visible ASCII");
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use store::model::Timestamp;

    use super::*;

    fn standing(name: &str, policy: Policy, unit: &'static str, numbers: [u64; 4]) -> Standing {
        let [quota, window, remaining, reset] = numbers;
        Standing {
            name: name.into(),
            policy,
            unit,
            quota,
            window_seconds: (window > 0).then_some(window),
            remaining,
            is_known: true,
            reset_seconds: (reset > 0).then_some(reset),
            period_end: (policy == Policy::Quota).then_some(Timestamp(1_700_000_000_000_000)),
        }
    }

    #[test]
    fn headers_have_the_drafts_form() {
        let standings = [
            standing("concurrency", Policy::Concurrency, "concurrent-requests", [20, 0, 19, 0]),
            standing("per-second", Policy::Rate, "requests", [5, 1, 4, 1]),
            standing("daily \"bytes\"", Policy::Quota, "content-bytes", [10_000, 86_400, 0, 77]),
        ];
        let policies = Policies {
            limits: Vec::new(),
            quotas: Vec::new(),
            concurrency: None,
            max_body_bytes: None,
            routes: None,
            log_retention_days: None,
            revision: 0,
            resets: Vec::new().into(),
            has_shadow_limits: false,
        };
        let mut headers = HeaderMap::new();
        insert(&mut headers, Some(&standings), &policies, CompatHeaders { rate_limit: true, quota: true });
        assert_eq!(
            headers[RATELIMIT_POLICY],
            r#""concurrency";q=20;qu="concurrent-requests", "per-second";q=5;w=1, "daily \"bytes\"";q=10000;qu="content-bytes";w=86400"#
        );
        assert_eq!(headers[RATELIMIT], r#""concurrency";r=19, "per-second";r=4;t=1, "daily \"bytes\"";r=0;t=77"#);
        assert_eq!(headers[X_RATE_LIMIT_REMAINING], "4");
        assert_eq!(headers[X_QUOTA_REMAINING], "0");
        assert_eq!(headers[X_QUOTA_PERIOD_END], "2023-11-14T22:13:20Z");
    }
}
