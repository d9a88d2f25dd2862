//! nginx's log as JSON lines, with the names that nginx's variables have (`$time_iso8601` as `time_iso8601` or `time`, …).

use std::io::BufRead;

use serde_json::{Map, Value, json};

use super::{Clock, Names, Seen, Source, nanoseconds, rfc3339, vegeta};
use crate::trace::{Bad, Body, Record, reader::Lines};

const TIMES: [&str; 7] = ["msec", "time_iso8601", "time_local", "time", "ts", "timestamp", "@timestamp"];
const METHODS: [&str; 2] = ["request_method", "method"];
/// Names whose value, or whose value with `$args`, is a path; `$request_uri` and `$request` have the client's own text and
/// come before them.
const PATHS: [&str; 3] = ["uri", "path", "url"];
const KEYS: [&str; 4] = ["key", "api_key", "remote_user", "remote_addr"];

/// Reads one.
pub(crate) fn read(input: impl BufRead + Send + 'static, file: &str, names: Names) -> Source {
    let mut lines = Lines::new(input, file);
    Box::new(std::iter::from_fn(move || {
        let parsed = match lines.next()? {
            Ok(line) => serde_json::from_slice::<Map<String, Value>>(line)
                .map_err(|error| (error.column(), format!("expected a JSON object: {error}")))
                .and_then(|line| parse(&line, &names)),
            Err(bad) => return Some(Err(bad)),
        };
        let number = lines.number();
        Some(match parsed {
            Ok(seen) => Ok((number, seen)),
            Err((column, what)) => Err(Bad::line(lines.file(), number, column, what)),
        })
    }))
}

/// Writes a line.
pub(crate) fn write(seen: &Seen) -> String {
    let record = &seen.record;
    let mut line = Map::new();
    line.insert("time".into(), json!(rfc3339(seen.at_ns)));
    line.insert("request_method".into(), json!(record.m));
    line.insert("request_uri".into(), json!(record.p));
    line.insert("status".into(), json!(record.s));
    if let Some(key) = &record.k {
        line.insert("key".into(), json!(key));
    }
    if let Some(account) = &record.a {
        line.insert("account".into(), json!(account));
    }
    if let Some(bytes) = record.b.as_ref().map(Body::bytes) {
        line.insert("request_body_bytes".into(), json!(bytes));
    }
    if let Some(d) = record.d {
        line.insert("request_time".into(), json!(d as f64 / 1e9));
    }
    line.retain(|_, value| !value.is_null());
    format!("{}\n", Value::Object(line))
}

/// A value's text, whatever JSON type it was written as.
fn text(line: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match line.get(*name)? {
        Value::String(text) if text.is_empty() || text == "-" => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn parse(line: &Map<String, Value>, names: &Names) -> Result<Seen, (usize, String)> {
    let wrong = |what: String| (1, what);
    let time = text(line, &TIMES).ok_or_else(|| wrong(format!("no time; expected one of {}", TIMES.join(", "))))?;
    let clock = Clock::read(&time).or_else(|| Clock::read_log(&time));
    let clock = clock
        .ok_or_else(|| wrong(format!("{time:?}: expected a time like 2026-01-31T12:00:00.5Z or 1763706338.562")))?;
    let (mut method, mut path) = (text(line, &METHODS), text(line, &["request_uri"]));
    // `$request`: method, target and version in one.
    if let Some(request) = text(line, &["request"]) {
        let mut words = request.split(' ').map(str::to_owned);
        let (first, second) = (words.next(), words.next());
        method = method.or(first);
        path = path.or(second);
    }
    let path = path.or_else(|| {
        let path = text(line, &PATHS)?;
        match text(line, &["args", "query_string"]) {
            Some(query) if !path.contains('?') => Some(format!("{path}?{query}")),
            _ => Some(path),
        }
    });
    let (Some(m), Some(p)) = (method, path) else {
        return Err(wrong("no method or path; expected request, or request_method and request_uri".to_owned()));
    };
    let p = vegeta::path_or_url(&p).ok_or_else(|| wrong(format!("{p:?}: expected a path")))?;
    let number = |names: &[&str]| text(line, names).and_then(|text| text.parse::<f64>().ok());
    let record = Record {
        m,
        p,
        k: text(line, &KEYS).map(|key| names.keep_or_make("k", &key)),
        a: text(line, &["account"]).map(|account| names.keep_or_make("a", &account)),
        // `$request_length` counts the head too; what is sent again has its own head.
        b: number(&["request_body_bytes", "bytes_in"]).filter(|b| *b >= 0.0).map(|bytes| Body::Bytes(bytes as u64)),
        s: number(&["status"]).filter(|s| (100.0..600.0).contains(s)).map(|status| status as u16),
        d: number(&["request_time", "duration"]).and_then(nanoseconds),
        ..Record::default()
    };
    Ok(Seen { at_ns: clock.ns, whole_seconds: clock.whole_seconds, record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_that_nginx_has_for_it_is_read() {
        let cases = [
            (
                json!({ "time_local": "01/Jan/2026:00:00:01 +0100", "request_method": "GET", "uri": "/a", "args": "b=c" }),
                "/a?b=c",
            ),
            (
                json!({ "msec": "1767222001.000", "request": "GET /a%20b?c HTTP/1.1", "uri": "/a b", "args": "c" }),
                "/a%20b?c",
            ),
            (
                json!({ "time": "2026-01-01T00:00:01+01:00", "method": "GET", "url": "https://h/x?y#z", "args": "y" }),
                "/x?y",
            ),
            (
                json!({ "ts": 1_767_222_001, "method": "GET", "request_uri": "/r?s", "uri": "/r", "query_string": "s" }),
                "/r?s",
            ),
            (json!({ "ts": 1_767_222_001, "method": "GET", "uri": "/r", "args": "" }), "/r"),
        ];
        for (line, path) in cases {
            let seen = parse(line.as_object().expect("an object"), &Names::new(None)).expect("a request");
            assert_eq!(
                (seen.at_ns, seen.record.m.as_str(), seen.record.p.as_str()),
                (1_767_222_001_000_000_000, "GET", path)
            );
        }
    }
}
