//! What a request line may hold. Logs have paths that no client library sends (`<`, `|`, spaces, half a UTF-8 character): a
//! converter writes them percent-encoded, a trace has to have them so.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use super::Record;

/// Headers that belong to the connection, or are made anew; and cookies, which are secrets of people.
const NOT_KEPT: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "cookie"];

/// Whether it can be sent as it is. A fragment cannot: it would be cut off silently.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str().len() == path.len())
}

/// A path as RFC 3986 has it: whatever else is in it is percent-encoded, what is encoded already stays.
pub(super) fn encoded(path: &str) -> Cow<'_, str> {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    if path.bytes().all(may_stand) {
        return path.into();
    }
    let mut out = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if may_stand(byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out.into()
}

/// Adds a header of a file; several of one name become one, as RFC 9110 (5.3) lets a recipient do.
pub(super) fn add_header(headers: &mut BTreeMap<String, String>, name: String, value: &str) {
    if NOT_KEPT.contains(&name.as_str()) || !is_header(&name, value) {
        return;
    }
    match headers.get_mut(&name) {
        Some(all) => {
            all.push_str(", ");
            all.push_str(value);
        }
        None => {
            headers.insert(name, value.to_owned());
        }
    }
}

fn is_header(name: &str, value: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_bytes(value.as_bytes()).is_ok()
}

/// The field of a record that cannot be sent, and what was expected there.
pub(super) fn check(record: &Record) -> Result<(), (&'static str, String)> {
    if Method::from_bytes(record.m.as_bytes()).is_err() {
        return Err(("m", format!("\"m\" is {:?}; expected a method like GET", record.m)));
    }
    if !is_path(&record.p) {
        let what = "expected a path like /v3/scan, percent-encoded where a URI needs it";
        return Err(("p", format!("\"p\" is {:?}; {what}", shortened(&record.p))));
    }
    for (name, value) in record.h.iter().flatten() {
        if !is_header(name, value) {
            return Err(("h", format!("\"h\" has the header {name:?}, which cannot be sent with its value")));
        }
    }
    Ok(())
}

/// Makes a record of another format sendable.
///
/// # Errors
/// It cannot be made so.
pub(super) fn tidy(record: &mut Record) -> Result<(), String> {
    if !is_path(&record.p) {
        record.p = encoded(&record.p).into_owned();
    }
    check(record).map_err(|(_, what)| what)
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_encoded_once() {
        for (raw, expected) in [
            ("/a?b=c%20d&e=[1]", "/a?b=c%20d&e=[1]"),
            ("/a<script>", "/a%3Cscript%3E"),
            ("/a b|c", "/a%20b%7Cc"),
            ("/ü#x", "/%C3%BC%23x"),
            ("/{\"q\":1}\\`^", "/%7B%22q%22:1%7D%5C%60%5E"),
        ] {
            let mut record = Record { m: "GET".into(), p: raw.into(), ..Record::default() };
            tidy(&mut record).expect(raw);
            let once = record.p.clone();
            tidy(&mut record).expect(raw);
            assert_eq!(record.p, once, "{raw}");
            assert!(once == expected || is_path(raw) && once == raw, "{raw}: {once}");
            assert!(!encoded(&once).contains(['<', '"', '{', ' ', '|']), "{raw}");
        }
        for (m, p) in [("", "/"), ("G T", "/"), ("GET", "x"), ("GET", "")] {
            let mut record = Record { m: m.into(), p: p.into(), ..Record::default() };
            assert!(tidy(&mut record).is_err(), "{m} {p}");
        }
    }

    #[test]
    fn headers_of_one_name_are_joined_and_what_cannot_be_sent_is_left_out() {
        let mut headers = BTreeMap::new();
        for (name, value) in [("accept", "a"), ("accept", "b"), ("cookie", "secret"), ("x", "a\nb"), ("a b", "c")] {
            add_header(&mut headers, name.to_owned(), value);
        }
        assert_eq!(headers, BTreeMap::from([("accept".to_owned(), "a, b".to_owned())]));
    }
}
