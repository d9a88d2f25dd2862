//! vegeta's JSON targets: `{"method":"GET","url":"http://host/path","header":{"X":["v"]},"body":"base64"}`. They have no
//! times: read at a rate that has to be given.

use std::{collections::BTreeMap, io::BufRead};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{Names, Seen, Source};
use crate::trace::{Bad, Body, Record, reader::Lines, target};

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
        for value in values {
            if KEY_HEADERS.contains(&name.as_str()) {
                k = Some(names.keep_or_make("k", value.strip_prefix("Bearer ").unwrap_or(&value)));
            } else {
                target::add_header(&mut h, name.clone(), &value);
            }
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
    let target =
        Target { method: record.m.clone(), url: format!("{host}{}", target::encoded(&record.p)), body, header };
    format!("{}\n", serde_json::to_string(&target).expect("plain values"))
}

/// Path and query of an URL, whatever characters it has.
pub(crate) fn path(url: &str) -> Option<String> {
    let (scheme, after) = url.split_once("://")?;
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return None;
    }
    let authority = after.find(['/', '?', '#']).unwrap_or(after.len());
    let path = after[authority..].split('#').next().unwrap_or_default();
    (authority > 0).then(|| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// The path of what may be one already, or a URL.
pub(crate) fn path_or_url(text: &str) -> Option<String> {
    if text.starts_with('/') { Some(text.to_owned()) } else { path(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_paths_and_headers_all_their_values() {
        for (url, expected) in [
            ("http://h", Some("/")),
            ("http://h?a=b", Some("/?a=b")),
            ("https://h:1/a<b>?c#d", Some("/a<b>?c")),
            ("/a", None),
            ("http:///a", None),
        ] {
            assert_eq!(path(url).as_deref(), expected, "{url}");
        }
        let target = r#"{"method":"GET","url":"http://h/","header":{"Accept":["a","b"],"Cookie":["secret"]}}"#;
        let record = record(serde_json::from_str(target).expect("a target"), &Names::new(None)).expect("a record");
        assert_eq!(record.h, Some([("accept".to_owned(), "a, b".to_owned())].into()));
    }

    #[test]
    fn a_url_is_written_as_one() {
        let record = Record { m: "GET".into(), p: "/a?q=\"x\"&r={|}".into(), ..Record::default() };
        let line = write(&Seen { at_ns: 0, whole_seconds: false, record }, "http://h");
        assert!(line.contains(r#""url":"http://h/a?q=%22x%22&r=%7B%7C%7D""#), "{line}");
    }
}
