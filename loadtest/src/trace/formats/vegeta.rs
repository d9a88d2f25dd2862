//! vegeta's JSON targets: `{"method":"GET","url":"http://host/path","header":{"X":["v"]},"body":"base64"}`. They have no
//! times: read at a rate that has to be given.

use std::{collections::BTreeMap, io::BufRead};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{Names, Seen, Source};
use crate::trace::{Bad, Body, Record, reader::Lines};

#[derive(Debug, Serialize, Deserialize)]
struct Target {
    method: String,
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    header: BTreeMap<String, Vec<String>>,
}

/// Headers that carry a key; what they held becomes a pseudonym.
pub(crate) const KEY_HEADERS: [&str; 2] = ["authorization", "x-api-key"];

/// Reads one, `rate` targets a second from the time 0.
pub(crate) fn read(input: impl BufRead + Send + 'static, file: &str, names: Names, rate: f64) -> Source {
    let (mut lines, mut number) = (Lines::new(input, file), 0u64);
    Box::new(std::iter::from_fn(move || {
        let parsed = match lines.next()? {
            Ok(line) => serde_json::from_slice::<Target>(line)
                .map_err(|error| (error.column(), format!("expected a target {{\"method\", \"url\", …}}: {error}")))
                .and_then(|target| record(target, &names)),
            Err(bad) => return Some(Err(bad)),
        };
        let line = lines.number();
        Some(match parsed {
            Ok(record) => {
                let at_ns = (number as f64 / rate * 1e9).round() as i128;
                number += 1;
                Ok((line, Seen { at_ns, whole_seconds: false, record }))
            }
            Err((column, what)) => Err(Bad::line(lines.file(), line, column, what)),
        })
    }))
}

fn record(target: Target, names: &Names) -> Result<Record, (usize, String)> {
    let p = path(&target.url).ok_or_else(|| (1, format!("{:?}: expected a url", target.url)))?;
    let body = target.body.filter(|body| !body.is_empty()).map(|body| STANDARD.decode(body)).transpose();
    let body = body.map_err(|error| (1, format!("the body is not base64: {error}")))?;
    let (mut k, mut h) = (None, BTreeMap::new());
    for (name, values) in target.header {
        let name = name.to_ascii_lowercase();
        let Some(value) = values.into_iter().next() else { continue };
        if KEY_HEADERS.contains(&name.as_str()) {
            k = Some(names.keep_or_make("k", value.strip_prefix("Bearer ").unwrap_or(&value)));
        } else {
            h.insert(name, value);
        }
    }
    Ok(Record { m: target.method, p, k, b: body.map(Body::of), h: (!h.is_empty()).then_some(h), ..Record::default() })
}

/// Writes a line for a host.
pub(crate) fn write(seen: &Seen, host: &str) -> String {
    let record = &seen.record;
    let mut header: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in record.h.iter().flatten() {
        header.insert(name.clone(), vec![value.clone()]);
    }
    if let Some(key) = &record.k {
        // The pseudonym where the key was.
        header.insert("authorization".into(), vec![format!("Bearer {key}")]);
    }
    let body = record.b.as_ref().map(|body| STANDARD.encode(body.content()));
    let target = Target { method: record.m.clone(), url: format!("{host}{}", record.p), body, header };
    format!("{}\n", serde_json::to_string(&target).expect("plain values"))
}

/// Path and query of an URL.
pub(crate) fn path(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Some(if path.is_empty() { "/".to_owned() } else { path.to_owned() })
}
