//! GoReplay's `.gor`: payloads separated by a line of three monkeys; each begins with `type id nanoseconds …`, type 1 being a
//! request, and then the request as it was on the wire. Responses (2, 3) are left out.

use std::io::BufRead;

use super::{Names, Seen, Source, vegeta::KEY_HEADERS};
use crate::trace::{Bad, Body, Record, target};

const SEPARATOR: &[u8] = "\n🐵🙈🙉\n".as_bytes();
/// Longest payload.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
const MAX_HEADERS: usize = 100;

/// Reads one.
pub(crate) fn read(input: impl BufRead + Send + 'static, file: &str, names: Names) -> Source {
    let mut payloads = Payloads { input, file: file.to_owned(), line: 1, over: false };
    Box::new(std::iter::from_fn(move || {
        loop {
            let (line, payload) = match payloads.next()? {
                Ok(payload) => payload,
                Err(bad) => return Some(Err(bad)),
            };
            match parse(&payload, &names) {
                Ok(None) => {}
                Ok(Some(seen)) => return Some(Ok((line, seen))),
                Err(what) => return Some(Err(Bad::line(&payloads.file, line, 1, what))),
            }
        }
    }))
}

struct Payloads<R> {
    input: R,
    file: String,
    line: u64,
    over: bool,
}

impl<R: BufRead> Payloads<R> {
    /// The next payload and its first line.
    fn next(&mut self) -> Option<Result<(u64, Vec<u8>), Bad>> {
        let (line, mut payload) = (self.line, Vec::new());
        while !self.over {
            let before = payload.len();
            let room = MAX_PAYLOAD_BYTES as u64 + 1 - before as u64;
            match std::io::Read::take(&mut self.input, room).read_until(b'\n', &mut payload) {
                Ok(0) => self.over = true,
                Ok(_) => {
                    self.line += 1;
                    if payload.len() > MAX_PAYLOAD_BYTES {
                        self.over = true;
                        let what = format!("a payload longer than {MAX_PAYLOAD_BYTES} bytes");
                        return Some(Err(Bad::fatal(&self.file, line, what)));
                    }
                    if payload.ends_with(SEPARATOR) {
                        payload.truncate(payload.len() - SEPARATOR.len());
                        return Some(Ok((line, payload)));
                    }
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(Bad::fatal(&self.file, self.line, format!("cannot be read: {error}"))));
                }
            }
        }
        // The last one may lack its separator.
        (!payload.trim_ascii().is_empty()).then_some(Ok((line, payload)))
    }
}

fn parse(payload: &[u8], names: &Names) -> Result<Option<Seen>, String> {
    let expected = "expected \"1 <id> <nanoseconds>\" and a request";
    let head_end = payload.iter().position(|byte| *byte == b'\n').ok_or(expected)?;
    let head = std::str::from_utf8(&payload[..head_end]).map_err(|_| expected)?;
    let mut words = head.split_whitespace();
    match words.next() {
        Some("1") => {}
        Some("2" | "3") => return Ok(None),
        _ => return Err(format!("{head:?}: {expected}")),
    }
    let at_ns: i128 = words.nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| format!("{head:?}: {expected}"))?;
    let wire = &payload[head_end + 1..];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let body_at = match request.parse(wire) {
        Ok(httparse::Status::Complete(at)) => at,
        Ok(httparse::Status::Partial) => return Err("the request's head is not complete".to_owned()),
        Err(error) => return Err(format!("the request cannot be read: {error}")),
    };
    let mut record = Record {
        m: request.method.unwrap_or_default().to_owned(),
        p: request.path.unwrap_or_default().to_owned(),
        ..Record::default()
    };
    if !record.p.starts_with('/') {
        return Err(format!("{:?}: expected a path", record.p));
    }
    let (mut kept, mut is_chunked) = (std::collections::BTreeMap::new(), false);
    for header in request.headers.iter() {
        let (name, value) = (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned());
        if KEY_HEADERS.contains(&name.as_str()) {
            record.k = Some(names.keep_or_make("k", value.strip_prefix("Bearer ").unwrap_or(&value)));
        } else {
            is_chunked |= name == "transfer-encoding" && value.to_ascii_lowercase().ends_with("chunked");
            target::add_header(&mut kept, name, &value);
        }
    }
    record.h = (!kept.is_empty()).then_some(kept);
    let body = if is_chunked { joined(&wire[body_at..])? } else { wire[body_at..].to_vec() };
    record.b = (!body.is_empty()).then(|| Body::of(body));
    Ok(Some(Seen { at_ns, whole_seconds: false, record }))
}

/// A chunked body without its frames. What a capture has cut off is missing at its end.
fn joined(mut wire: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(wire) {
            Ok(httparse::Status::Complete(read)) => read,
            Ok(httparse::Status::Partial) => break,
            Err(_) => return Err("the chunks of the body cannot be read".to_owned()),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let chunk = &wire[at..];
        if size == 0 || chunk.len() <= size {
            body.extend_from_slice(&chunk[..size.min(chunk.len())]);
            break;
        }
        body.extend_from_slice(&chunk[..size]);
        wire = chunk[size..].strip_prefix(b"\r\n").ok_or("a chunk of the body is longer than its size")?;
    }
    Ok(body)
}

/// Writes a payload for a host.
pub(crate) fn write(seen: &Seen, number: u64, host: &str) -> Vec<u8> {
    let record = &seen.record;
    let mut out = format!("1 {number:024x} {} 0\n{} {} HTTP/1.1\r\nHost: {host}\r\n", seen.at_ns, record.m, record.p);
    if let Some(key) = &record.k {
        out.push_str(&format!("authorization: Bearer {key}\r\n"));
    }
    for (name, value) in record.h.iter().flatten() {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = record.b.as_ref().map(Body::content).unwrap_or_default();
    if !body.is_empty() {
        out.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(&body);
    out.extend_from_slice(SEPARATOR);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_loses_its_frames() {
        let read = |body: &str| {
            let text = format!(
                "1 ab 5\nPOST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nA: 1\r\nA: 2\r\n\r\n{body}"
            );
            parse(text.as_bytes(), &Names::new(Some("salt"))).map(|seen| seen.expect("a request").record)
        };
        let record = read("5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\n\r\n").expect("chunks");
        assert_eq!(record.b, Some(Body::Text("hello, world".into())));
        assert_eq!(record.h, Some([("a".to_owned(), "1, 2".to_owned())].into()));
        // Cut off by the capture.
        assert_eq!(read("5\r\nhello\r\n7\r\n, wo").expect("a part").b, Some(Body::Text("hello, wo".into())));
        assert_eq!(read("0\r\n\r\n").expect("nothing").b, None);
        assert!(read("zz\r\nhello").is_err() && read("2\r\nhello\r\n").is_err());
    }
}
