//! Fields of requests, for the fuzzer.

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::{auth, entry::Client, forwarded, headers, id::Ids, trace};

/// Lines of `name: value`, as a request's header.
pub(crate) fn headers(bytes: &[u8]) {
    let mut map = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(100) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(&line[at + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    // What is most worth reading, also where nobody has guessed its name.
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        for name in ["traceparent", "x-forwarded-for", "x-api-key", "authorization", "origin"] {
            map.append(HeaderName::from_static(name), value.clone());
        }
        let path = String::from_utf8_lossy(bytes);
        if let Ok(mut request) = Request::builder().uri(&*path).body(()) {
            *request.headers_mut() = map.clone();
            let _ = headers::check(&request);
        }
    }
    let trusted = ["0.0.0.0/0".parse().expect("a network"), "::/0".parse().expect("a network")];
    let _ = forwarded::client(Client::default(), &map, &trusted);
    let context = trace::Context::of(&map, &IDS);
    trace::insert(&mut map, context, 1);
    let _ = headers::upgrades(&map);
    let _ = auth::key_hash(&map, &[HeaderName::from_static("x-api-key"), header::AUTHORIZATION]);
    headers::to_client(&mut map, false);
}

static IDS: std::sync::LazyLock<Ids> = std::sync::LazyLock::new(Ids::new);
