//! HAR 1.2, as browsers save it. One JSON document; its entries are read one by one, so that its length does not matter.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, BufReader, Read},
    sync::mpsc,
};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};

use super::{Clock, Names, Seen, Source, nanoseconds, rfc3339, vegeta};
use crate::trace::{Bad, Body, Record};

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
        let mut hand_over = move |entry: Entry| {
            number += 1;
            let seen = seen(entry, &names).map(|seen| (number, seen));
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
        } else if !name.starts_with(':')
            && !matches!(name.as_str(), "host" | "connection" | "content-length" | "cookie")
        {
            // Cookies are secrets of people; they are not replayed.
            h.insert(name, value);
        }
    }
    let record = Record {
        m: entry.request.method,
        p,
        k,
        b: entry.request.post.and_then(|post| post.text).filter(|text| !text.is_empty()).map(Body::Text),
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
        "method": record.m, "url": format!("{host}{}", record.p), "httpVersion": "HTTP/1.1", "cookies": [],
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
struct Document<'a>(&'a mut dyn FnMut(Entry) -> bool);
struct Log<'a>(&'a mut dyn FnMut(Entry) -> bool);
struct Entries<'a>(&'a mut dyn FnMut(Entry) -> bool);

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
        while let Some(entry) = seq.next_element::<Entry>()? {
            if !(self.0)(entry) {
                // Nobody reads any more; the rest is skipped.
                while seq.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}
