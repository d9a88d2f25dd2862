//! The combined log of Apache and nginx (and its shorter brother, the common log):
//! `ip ident user [time] "METHOD /path HTTP/1.1" status bytes "referer" "agent"`.
//!
//! It has no request bytes. Who asked is the user when there is one, else the address; both become pseudonyms.

use std::io::BufRead;

use super::{Clock, Names, Seen, Source, time::log_time};
use crate::trace::{Bad, Record, reader::Lines, target};

/// Reads one.
pub(crate) fn read(input: impl BufRead + Send + 'static, file: &str, names: Names) -> Source {
    let mut lines = Lines::new(input, file);
    Box::new(std::iter::from_fn(move || {
        let parsed = match lines.next()? {
            Ok(line) => parse(&String::from_utf8_lossy(line), &names),
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
    format!(
        "- - {} [{}] \"{} {} HTTP/1.1\" {} - \"-\" \"-\"\n",
        record.k.as_deref().or(record.a.as_deref()).unwrap_or("-"),
        log_time(seen.at_ns),
        record.m,
        target::encoded(&record.p),
        record.s.unwrap_or(0)
    )
}

/// A place in a line, from 1, and what was expected there.
type Wrong = (usize, String);

fn parse(line: &str, names: &Names) -> Result<Seen, Wrong> {
    let at = |rest: &str| line.len() - rest.len() + 1;
    let word = |rest: &'_ str, what: &str| -> Result<(String, usize), Wrong> {
        let end = rest.find(' ').ok_or_else(|| (at(rest), format!("expected {what} and a space")))?;
        Ok((rest[..end].to_owned(), end + 1))
    };
    if line.starts_with('{') {
        // Such a file is mostly named .log as well.
        return Err((1, "expected a line of the combined log, found JSON: give --from nginx-json".to_owned()));
    }
    let mut rest = line;
    let (ip, used) = word(rest, "an address")?;
    rest = &rest[used..];
    let (_, used) = word(rest, "the ident, mostly -")?;
    rest = &rest[used..];
    // A user may hold spaces; the time's bracket ends it.
    let open = rest.find(" [").ok_or_else(|| (at(rest), "expected a user and [time]".to_owned()))?;
    let user = &rest[..open];
    rest = &rest[open + 2..];
    let close = rest.find(']').ok_or_else(|| (at(rest), "expected ] after the time".to_owned()))?;
    let clock = Clock::read_log(&rest[..close])
        .ok_or_else(|| (at(rest), format!("{:?}: expected a time like 10/Oct/2000:13:55:36 -0700", &rest[..close])))?;
    rest = rest[close + 1..].trim_start();
    let inner = rest.strip_prefix('"').ok_or_else(|| (at(rest), "expected \"METHOD /path HTTP/1.1\"".to_owned()))?;
    let end = quote_end(inner).ok_or_else(|| (at(inner), "expected \" after the request".to_owned()))?;
    let request = unescaped(&inner[..end]);
    // A path may hold spaces: the version ends it, where there is one.
    let (method, path) = request.split_once(' ').unwrap_or_default();
    let path = path.rfind(" HTTP/").map_or(path, |version| &path[..version]);
    let is_method = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
    // An absolute target, as proxies get it.
    let path = match path.split_once("://") {
        Some((_, after)) => after.find('/').map_or("/", |slash| &after[slash..]),
        None => path,
    };
    if !is_method || !path.starts_with('/') {
        return Err((at(inner), format!("{request:?}: expected \"METHOD /path HTTP/1.1\"")));
    }
    rest = inner[end + 1..].trim_start();
    let status = rest.split(' ').next().unwrap_or_default();
    let number = status.parse().ok().filter(|status| *status == 0 || (100..600).contains(status));
    let status: u16 = number.ok_or_else(|| (at(rest), format!("{status:?}: expected a status")))?;
    let who = if user == "-" || user.is_empty() { (ip != "-").then_some(ip.as_str()) } else { Some(user) };
    let record = Record {
        m: method.to_owned(),
        p: path.to_owned(),
        k: who.map(|who| names.keep_or_make("k", who)),
        s: (status != 0).then_some(status),
        ..Record::default()
    };
    Ok(Seen { at_ns: clock.ns, whole_seconds: true, record })
}

/// The text that a server wrote with `\xHH`, `\"` and `\\`; bytes that are no UTF-8 are percent-encoded.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let digit = |byte: u8| (byte as char).to_digit(16);
    let hex = |high: u8, low: u8| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) if hex(*high, *low).is_some() => {
                (hex(*high, *low).unwrap_or_default(), after)
            }
            (b'\\', [quoted @ (b'"' | b'\\'), after @ ..]) => (*quoted, after),
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    let encoded = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let chunks = bytes.utf8_chunks().map(|chunk| format!("{}{}", chunk.valid(), encoded(chunk.invalid())));
    chunks.collect()
}

/// The closing quote; one after a backslash does not count.
fn quote_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Seen, Wrong> {
        parse(line, &Names::new(Some("salt")))
    }

    #[test]
    fn lines_as_servers_write_them() {
        let seen = one(
            r#"203.0.113.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif?a=\"b\" HTTP/1.0" 200 2326 "http://x/" "Mozilla/4.08""#,
        )
        .expect("a combined line");
        assert_eq!((seen.at_ns, seen.whole_seconds), (971_211_336_000_000_000, true));
        assert_eq!((seen.record.m.as_str(), seen.record.s), ("GET", Some(200)));
        let short = one(r#"::1 - - [10/Oct/2000:13:55:36 +0000] "POST http://h/x HTTP/1.1" 404 -"#).expect("common");
        assert_eq!(short.record.p, "/x");
        assert_ne!(short.record.k, seen.record.k);
        assert!(!format!("{seen:?}").contains("frank"));
    }

    #[test]
    fn paths_that_scanners_ask_for_are_read_as_they_were_sent() {
        for (request, path) in [
            (r"GET /a b/c HTTP/1.1", "/a b/c"),
            (r"GET /a", "/a"),
            (r"GET /\x22q\x22?\xC3\xBC\xFF HTTP/1.1", "/\"q\"?ü%FF"),
            (r#"GET /a=\"b\"\\ HTTP/1.0"#, r#"/a="b"\"#),
        ] {
            let line = format!(r#"::1 - - [10/Oct/2000:13:55:36 +0000] "{request}" 200 1"#);
            assert_eq!(one(&line).expect(request).record.p, path);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_column() {
        for (line, column, what) in [
            ("nonsense", 1, "address"),
            (r#"{"request":"GET / HTTP/1.1","status":"200"}"#, 1, "--from nginx-json"),
            (r#"1.2.3.4 - - [yesterday] "GET / HTTP/1.1" 200 1"#, 14, "10/Oct/2000"),
            (r#"1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] "\x16\x03\x01" 400 1"#, 43, "METHOD /path"),
            (r#"1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" abc 1"#, 59, "a status"),
            (r#"1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 999 1"#, 59, "a status"),
        ] {
            let (at, text) = one(line).expect_err(line);
            assert!(at == column && text.contains(what), "{line}: {at} {text}");
        }
    }
}
