//! Headers on their way through: hop-by-hop ones end here (RFC 9110 §7.6.1), keys never go on, forwarding ones are added.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header, request::Parts};

use store::model::HeaderEdits;

use super::{Ledger, entry::Entry};
use crate::error::Fault;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_TOLLGATE_ACCOUNT: HeaderName = HeaderName::from_static("x-tollgate-account");
const X_TOLLGATE_TIER: HeaderName = HeaderName::from_static("x-tollgate-tier");
const X_TOLLGATE_PREFIX: &str = "x-tollgate-";
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The longest name of a method.
const MAX_METHOD_BYTES: usize = 32;

/// Refuses what is ambiguous, before anything is decided by it.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Fault> {
    let headers = request.headers();
    // RFC 9112 §6.3: both framings at once is how requests are smuggled.
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Fault::BadRequest("both Content-Length and Transfer-Encoding"));
    }
    // Any other coding would end here with its header and reach the upstream as if there had been none.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Err(Fault::BadRequest("a Transfer-Encoding other than chunked"));
    }
    if headers.get_all(header::TRANSFER_ENCODING).iter().nth(1).is_some() {
        return Err(Fault::BadRequest("more than one Transfer-Encoding"));
    }
    // Rows keep it, and no registered one is longer than 17 (RFC 5323, RFC 9110 §16.1).
    if request.method().as_str().len() > MAX_METHOD_BYTES {
        return Err(Fault::BadRequest("a method of more than 32 characters"));
    }
    // A gateway opens no tunnels to wherever a client says.
    if *request.method() == Method::CONNECT {
        return Err(Fault::BadRequest("CONNECT is for forward proxies"));
    }
    if request.version() <= Version::HTTP_11 {
        let mut hosts = headers.get_all(header::HOST).iter();
        let first = hosts.next();
        if hosts.next().is_some() {
            return Err(Fault::BadRequest("more than one Host"));
        }
        if first.is_none() && request.version() == Version::HTTP_11 {
            return Err(Fault::BadRequest("no Host"));
        }
        if first.is_some_and(|host| !host.as_bytes().iter().all(|byte| is_host(*byte))) {
            return Err(Fault::BadRequest("a Host that is no host and port"));
        }
    }
    // RFC 9113 §8.3.1: hyper lets a request without `:path` through as one of an empty path, when it has no `:authority` either.
    if request.uri().path().is_empty() {
        return Err(Fault::BadRequest("no path"));
    }
    if has_dot_segment(request.uri().path()) {
        return Err(Fault::BadRequest("dot segments in the path"));
    }
    Ok(())
}

/// Whether a byte may stand in `uri-host [ ":" port ]` (RFC 3986 §3.2.2).
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte)
}

/// Whether a path has a `.` or `..` segment, also one in percent-encoding, between backslashes or with parameters: an upstream
/// that resolves it would serve what no route was asked for.
fn has_dot_segment(path: &str) -> bool {
    // Nearly every path has none of these; look closer only at one that has.
    if !path.contains("/.") && !path.bytes().any(|byte| byte == b'%' || byte == b'\\') {
        return false;
    }
    let plain =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\").replace("%3b", ";");
    plain.split(['/', '\\']).any(|segment| {
        let name = segment.split(';').next().unwrap_or_default();
        name == "." || name == ".."
    })
}

/// Whether a message asks for, or changes to, WebSocket on this connection: the only protocol that is let through. In a tunnel
/// of any other that carries requests (`h2c`) these would pass without key, limits and rows.
pub(crate) fn upgrades(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    protocols.next().is_some_and(|protocol| protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
        && lists(headers, &header::CONNECTION, "upgrade")
}

/// Makes the client's headers the upstream's, in place.
pub(crate) fn to_upstream<L: Ledger>(parts: &mut Parts, entry: &Entry<L>, upgrade: bool) {
    // The version that the message came by (RFC 9110 §7.6.3).
    let via = HeaderValue::from_static(match parts.version {
        Version::HTTP_2 => "2.0 tollgate",
        Version::HTTP_10 => "1.0 tollgate",
        _ => "1.1 tollgate",
    });
    let authority = parts.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let headers = &mut parts.headers;
    let trailers = headers.contains_key(header::TE) && lists(headers, &header::TE, "trailers");
    remove_keys(headers, &entry.shared.settings.key_headers);
    remove_hop_by_hop(headers, true);
    if upgrade {
        headers.insert(header::UPGRADE, WEBSOCKET);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }

    let account = &entry.key().account;
    headers.insert(X_REQUEST_ID, entry.id_value.clone());
    insert_text(headers, X_TOLLGATE_ACCOUNT, &account.id);
    insert_text(headers, X_TOLLGATE_TIER, &account.tier);
    let trusted = entry.client.trusted;
    if trusted {
        append_list(headers, X_FORWARDED_FOR, &entry.client.peer_value);
    } else {
        // What anybody can say is not handed on as if it were known.
        headers.remove(header::FORWARDED);
        headers.remove(X_REAL_IP);
        headers.insert(X_FORWARDED_FOR, entry.client.peer_value.clone());
    }
    if !(trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        let scheme = if entry.client.secure { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    // HTTP/2 has the host in its URI. The upstream link sets the upstream's own.
    let host = authority.and_then(Result::ok).or_else(|| headers.remove(header::HOST));
    if let Some(host) = host
        && !(trusted && headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    append_list(headers, header::VIA, &via);
    if let Some(edits) = &entry.route().route.request_headers {
        edit(headers, edits);
    }
}

/// What a route changes; names and values were checked when it was written.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in &edits.set {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}

/// Has a body of unknown length sent in chunks. The HTTP/1 client does so by itself for most methods, and for `GET`, `HEAD`
/// and `CONNECT`, which nearly always come without a body, would leave it out.
pub(crate) fn frame(headers: &mut HeaderMap, body: &impl http_body::Body) {
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Makes the upstream's headers the client's, in place.
pub(crate) fn to_client(headers: &mut HeaderMap, upgrade: bool) {
    // RFC 9112 §6.3: chunks are what was read, and a length beside them is of no message.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers, false);
    if upgrade {
        headers.insert(header::UPGRADE, WEBSOCKET);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Leaves of a request's trailers what may stand there (RFC 9110 §6.5.1): nothing that frames, routes, says who asks, or that
/// the head's rules are about. Upstreams that merge them into the head would take it for ours.
pub(crate) fn trailers(trailers: &mut HeaderMap, key_headers: &[HeaderName]) {
    const NOT_THERE: [HeaderName; 12] = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::FORWARDED,
        header::TRAILER,
        header::VIA,
        X_REAL_IP,
        X_REQUEST_ID,
    ];
    remove_keys(trailers, key_headers);
    remove_hop_by_hop(trailers, true);
    let is_not_there = |name: &&HeaderName| NOT_THERE.contains(name) || name.as_str().starts_with("x-forwarded-");
    while let Some(name) = trailers.keys().find(is_not_there).cloned() {
        trailers.remove(name);
    }
}

/// Every header that may carry a key, and whatever a client says in our name.
fn remove_keys(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        if *name != header::AUTHORIZATION {
            headers.remove(name);
        } else if headers.get_all(name).iter().any(is_bearer) {
            // Another scheme than Bearer is not ours (see `auth`).
            let others: Vec<_> = headers.get_all(name).iter().filter(|value| !is_bearer(value)).cloned().collect();
            headers.remove(name);
            for value in others {
                headers.append(name, value);
            }
        }
    }
    while let Some(name) = headers.keys().find(|name| is_in_our_name(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Whether a value may hold a bearer's key, also one that is written so that it was not taken for one.
fn is_bearer(value: &HeaderValue) -> bool {
    const SCHEME: &[u8] = b"bearer";
    value.as_bytes().trim_ascii_start().split_at_checked(SCHEME.len()).is_some_and(|(scheme, rest)| {
        scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric())
    })
}

/// Whether a name is one that upstreams trust because we set it, or one that many of them (CGI, WSGI) cannot tell from such
/// a name: `_` for `-`.
fn is_in_our_name(name: &str) -> bool {
    name.starts_with(X_TOLLGATE_PREFIX)
        || name.contains('_') && {
            let dashed = name.replace('_', "-");
            dashed.starts_with(X_TOLLGATE_PREFIX)
                || [X_REQUEST_ID, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST]
                    .iter()
                    .any(|ours| dashed == ours.as_str())
        }
}

/// One pass over the names; most messages have one such header or none.
fn remove_hop_by_hop(headers: &mut HeaderMap, request: bool) {
    if headers.contains_key(header::CONNECTION) {
        remove_listed(headers);
    }
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name, request)).cloned() {
        headers.remove(name);
    }
}

/// `Connection` and the headers that it lists. A sender may not list end-to-end fields there; those that would change the
/// message's meaning stay (RFC 9110 §7.6.1 forbids them).
fn remove_listed(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = match headers.entry(header::CONNECTION) {
        http::header::Entry::Occupied(entry) => entry.remove_entry_mult().1.collect(),
        http::header::Entry::Vacant(_) => return,
    };
    for token in values.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')) {
        let token = token.trim();
        if token.is_empty() || token.eq_ignore_ascii_case("close") || token.eq_ignore_ascii_case("keep-alive") {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(token.as_bytes())
            && ![header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE].contains(&name)
        {
            headers.remove(name);
        }
    }
}

fn is_hop_by_hop(name: &HeaderName, request: bool) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == HTTP2_SETTINGS
        // A hop's credentials; and the expectation, which was answered here (RFC 9110 §10.1.1).
        || request && (*name == header::PROXY_AUTHORIZATION || *name == header::EXPECT)
}

/// Whether a list-valued header has a token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Adds an item to a list-valued header; the common case is that we are the first.
fn append_list(headers: &mut HeaderMap, name: HeaderName, item: &HeaderValue) {
    let mut joined = Vec::new();
    for value in headers.get_all(&name) {
        joined.extend_from_slice(value.as_bytes());
        joined.extend_from_slice(b", ");
    }
    if joined.is_empty() {
        headers.insert(name, item.clone());
        return;
    }
    joined.extend_from_slice(item.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, value);
    }
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_in_any_spelling() {
        for (path, dots) in [
            ("/", false),
            ("/v3/scan", false),
            ("/v3/.well-known/x", false),
            ("/v3/a..b", false),
            ("/a%20b", false),
            ("/v3/../admin", true),
            ("/v3/./x", true),
            ("/v3/%2e%2E/admin", true),
            ("/v3/..", true),
            ("/v3/..%2fadmin", true),
            ("/v3\\..\\admin%2", true),
            ("/v3/x\\..\\admin", true),
            ("/v3/x%5c..%5Cadmin", true),
            ("/v3/..%5cadmin", true),
            ("/v3/..;/admin", true),
            ("/v3/.;a=b/x", true),
            ("/v3/%2e%2e%3bx/admin", true),
            ("/v3/a;b=..", false),
            ("/v3/%5cx", false),
        ] {
            assert_eq!(has_dot_segment(path), dots, "{path}");
        }
    }

    #[test]
    fn connection_takes_what_it_lists_with_it_but_not_the_framing() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "content-length, host"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers, true);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length"]);
    }

    #[test]
    fn no_spelling_of_a_key_or_of_our_names_goes_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic abc"),
            ("authorization", "Bearer tg_live_x"),
            ("authorization", "bearer\ttg_live_x"),
            ("authorization", "BearerToken opaque"),
            ("x-api-key", "tg_live_x"),
            ("x-tollgate-account", "evil"),
            ("x_tollgate_account", "evil"),
            ("x_forwarded-for", "6.6.6.6"),
            ("x_request_id", "6"),
            ("x_other", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_keys(&mut headers, &[HeaderName::from_static("x-api-key"), header::AUTHORIZATION]);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        left.sort_unstable();
        let expected: [(&str, &[u8]); 3] =
            [("authorization", b"Basic abc"), ("authorization", b"BearerToken opaque"), ("x_other", b"1")];
        assert_eq!(left, expected);
    }

    #[test]
    fn trailers_say_nothing_that_the_head_would() {
        let mut all = HeaderMap::new();
        for name in [
            "x-tollgate-account",
            "x_tollgate_tier",
            "x-api-key",
            "authorization",
            "x-forwarded-for",
            "x-forwarded-proto",
            "forwarded",
            "x-real-ip",
            "x-request-id",
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "te",
            "trailer",
            "cookie",
            "via",
            "grpc-status",
            "x-checksum",
        ] {
            all.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        trailers(&mut all, &[HeaderName::from_static("x-api-key"), header::AUTHORIZATION]);
        let mut left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn forwarded_for_grows_at_its_end() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("2.2.2.2"));
        append_list(&mut headers, X_FORWARDED_FOR, &HeaderValue::from_static("3.3.3.3"));
        assert_eq!(headers[X_FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 3.3.3.3");
    }
}
