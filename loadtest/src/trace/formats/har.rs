//! HAR 1.2, as browsers save it. One JSON document; its entries are read one by one, so that its length does not matter.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, BufReader, Read},
    sync::mpsc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};

use super::{Clock, Names, Seen, Source, nanoseconds, rfc3339, vegeta};
use crate::trace::{Bad, Body, Record, target};

/// Entries read ahead.
const AHEAD: usize = 64;

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "startedDateTime")]
    started: String,
    #[serde(default)]
    time: f64,
    request: Request,
    #[serde(default)]
    response: Option<Response>,
}

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default, rename = "postData")]
    post: Option<Post>,
}

#[derive(Debug, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Post {
    #[serde(default)]
    text: Option<String>,
    /// `base64` for bytes that are no text.
    #[serde(default, alias = "_encoding")]
    encoding: Option<String>,
    #[serde(default, rename = "mimeType")]
    mime: String,
    /// A form's fields, which stand there instead of the text.
    #[serde(default)]
    params: Vec<Param>,
}

#[derive(Debug, Deserialize)]
struct Param {
    name: String,
    #[serde(default)]
    value: String,
}

/// A form's name or value as it is sent (`application/x-www-form-urlencoded`).
fn form_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'*' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

impl Post {
    fn body(self) -> Result<Option<Body>, String> {
        let Some(text) = self.text.filter(|text| !text.is_empty()) else {
            if self.params.is_empty() {
                return Ok(None);
            }
            // Between the parts of other forms stands what only their text has.
            if !self.mime.starts_with("application/x-www-form-urlencoded") {
                return Err(format!("postData has params of {:?} and no text: its body cannot be known", self.mime));
            }
            let pair = |param: &Param| format!("{}={}", form_encoded(&param.name), form_encoded(&param.value));
            return Ok(Some(Body::Text(self.params.iter().map(pair).collect::<Vec<_>>().join("&"))));
        };
        if self.encoding.as_deref() != Some("base64") {
            return Ok(Some(Body::Text(text)));
        }
        let bytes = STANDARD.decode(text).map_err(|error| format!("postData is not base64: {error}"))?;
        Ok(Some(Body::of(bytes)))
    }
}

#[derive(Debug, Deserialize)]
struct Response {
    #[serde(default)]
    status: u16,
}

/// Reads one. "Lines" are entries, from 1: the document has no lines of its own.
pub(crate) fn read(input: impl BufRead + Send + 'static, file: &str, names: Names) -> Source {
    let (sender, receiver) = mpsc::sync_channel(AHEAD);
    let name = file.to_owned();
    // serde drives the document; a thread turns that into a stream.
    std::thread::spawn(move || {
        let mut number = 0;
        let (entries, file) = (sender.clone(), name.clone());
        let mut hand_over = move |entry: Value| {
            number += 1;
            // One by one: what is no entry is a bad line and not the end of the document.
            let entry = serde_json::from_value::<Entry>(entry).map_err(|error| format!("expected an entry: {error}"));
            let seen = entry.and_then(|entry| seen(entry, &names)).map(|seen| (number, seen));
            entries.send(seen.map_err(|what| Bad::line(&file, number, 1, what))).is_ok()
        };
        let reader: Box<dyn Read> = Box::new(BufReader::new(input));
        let mut deserializer = serde_json::Deserializer::from_reader(reader);
        if let Err(error) = Document(&mut hand_over).deserialize(&mut deserializer) {
            let what = format!("expected a HAR document {{\"log\":{{\"entries\":[…]}}}}: {error}");
            let bad = Bad { column: error.column(), ..Bad::fatal(&name, error.line() as u64, what) };
            let _ = sender.send(Err(bad));
        }
    });
    Box::new(receiver.into_iter())
}

fn seen(entry: Entry, names: &Names) -> Result<Seen, String> {
    let clock = Clock::read(&entry.started).ok_or_else(|| format!("startedDateTime {:?}", entry.started))?;
    let p = vegeta::path(&entry.request.url).ok_or_else(|| format!("url {:?}", entry.request.url))?;
    let (mut k, mut h) = (None, BTreeMap::new());
    for Header { name, value } in entry.request.headers {
        let name = name.to_ascii_lowercase();
        if vegeta::KEY_HEADERS.contains(&name.as_str()) {
            k = Some(names.keep_or_make("k", value.strip_prefix("Bearer ").unwrap_or(&value)));
        } else {
            target::add_header(&mut h, name, &value);
        }
    }
    let record = Record {
        m: entry.request.method,
        p,
        k,
        b: entry.request.post.map(Post::body).transpose()?.flatten(),
        h: (!h.is_empty()).then_some(h),
        s: entry.response.map(|response| response.status).filter(|status| *status != 0),
        d: nanoseconds(entry.time / 1_000.0).filter(|d| *d > 0),
        ..Record::default()
    };
    Ok(Seen { at_ns: clock.ns, whole_seconds: false, record })
}

/// What comes before the entries.
pub(crate) const HEAD: &str =
    "{\"log\":{\"version\":\"1.2\",\"creator\":{\"name\":\"tollgate-loadtest\",\"version\":\"1\"},\"entries\":[\n";
/// What comes after them.
pub(crate) const TAIL: &str = "\n]}}\n";

/// Writes an entry for a host, without a comma.
pub(crate) fn write(seen: &Seen, host: &str) -> String {
    let record = &seen.record;
    let mut headers: Vec<Value> =
        record.h.iter().flatten().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    if let Some(key) = &record.k {
        headers.push(json!({ "name": "authorization", "value": format!("Bearer {key}") }));
    }
    let mut request = json!({
        "method": record.m, "url": format!("{host}{}", target::encoded(&record.p)), "httpVersion": "HTTP/1.1", "cookies": [],
        "headers": headers, "queryString": [], "headersSize": -1, "bodySize": -1,
    });
    if let Some(body) = &record.b {
        request["postData"] = json!({ "mimeType": "application/json", "text": body.content_text() });
    }
    json!({
        "startedDateTime": rfc3339(seen.at_ns),
        "time": record.d.map_or(0.0, |d| d as f64 / 1e6),
        "request": request,
        "response": {
            "status": record.s.unwrap_or(0), "statusText": "", "httpVersion": "HTTP/1.1", "cookies": [], "headers": [],
            "content": { "size": 0, "mimeType": "" }, "redirectURL": "", "headersSize": -1, "bodySize": -1,
        },
        "cache": {}, "timings": { "send": 0, "wait": 0, "receive": 0 },
    })
    .to_string()
}

/// `{"log": {"entries": [...]}}`, each entry handed over as it is read; the hand-over says whether it wants more.
struct Document<'a>(&'a mut dyn FnMut(Value) -> bool);
struct Log<'a>(&'a mut dyn FnMut(Value) -> bool);
struct Entries<'a>(&'a mut dyn FnMut(Value) -> bool);

macro_rules! map_with {
    ($outer:ident, $field:literal, $inner:ident, $what:literal) => {
        impl<'de> DeserializeSeed<'de> for $outer<'_> {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_map(self)
            }
        }

        impl<'de> Visitor<'de> for $outer<'_> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                while let Some(name) = map.next_key::<String>()? {
                    if name == $field {
                        map.next_value_seed($inner(&mut *self.0))?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(())
            }
        }
    };
}

map_with!(Document, "log", Log, "an object with \"log\"");
map_with!(Log, "entries", Entries, "an object with \"entries\"");

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(entry) = seq.next_element::<Value>()? {
            if !(self.0)(entry) {
                // Nobody reads any more; the rest is skipped.
                while seq.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_entry_is_one_bad_line_and_bytes_come_back_from_base64() {
        let entry = |request: Value| json!({ "startedDateTime": "2026-01-01T00:00:00.5Z", "request": request });
        let document = json!({ "log": { "version": "1.2", "entries": [
            entry(json!({ "url": "http://h/no-method" })),
            entry(json!({ "method": "POST", "url": "http://h/a\"b", "postData": { "text": "aMO8", "encoding": "base64" } })),
            entry(json!({ "method": "POST", "url": "http://h/", "postData": { "text": "???", "encoding": "base64" } })),
            entry(json!({ "method": "GET", "url": "http://h/", "headers": [
                { "name": "Accept", "value": "a" }, { "name": "accept", "value": "b" }, { "name": ":path", "value": "/" },
            ] })),
            entry(json!({ "method": "POST", "url": "http://h/", "postData": {
                "mimeType": "application/x-www-form-urlencoded; charset=UTF-8",
                "params": [{ "name": "a", "value": "1 ü" }, { "name": "b&" }],
            } })),
            entry(json!({ "method": "POST", "url": "http://h/", "postData": {
                "mimeType": "multipart/form-data", "params": [{ "name": "file", "fileName": "a.png" }],
            } })),
        ] } });
        let text = std::io::Cursor::new(document.to_string());
        let read: Vec<_> = read(text, "f", Names::new(None)).collect();
        let bad: Vec<_> = read.iter().filter_map(|item| item.as_ref().err()).map(|bad| (bad.line, bad.fatal)).collect();
        assert_eq!(bad, [(1, false), (3, false), (6, false)]);
        let good: Vec<&Record> =
            read.iter().filter_map(|item| item.as_ref().ok()).map(|(_, seen)| &seen.record).collect();
        assert_eq!((good.len(), &good[0].b), (3, &Some(Body::Text("hü".into()))));
        assert_eq!(good[1].h, Some([("accept".to_owned(), "a, b".to_owned())].into()));
        assert_eq!(good[2].b, Some(Body::Text("a=1+%C3%BC&b%26=".into())));
    }
}
