//! CSV with a header line: `timestamp` and, as far as they are there, `method, path, key, account, bytes, status,
//! duration_us` (`url` and `uri` are names of the path too). A file with nothing but times is a rate over time: each line
//! is a `GET /`.

use std::io::BufRead;

use super::{Clock, Names, Seen, Source, rfc3339, vegeta};
use crate::trace::{Bad, Body, Record};

const COLUMNS: [&str; 8] = ["timestamp", "method", "path", "key", "account", "bytes", "status", "duration_us"];
/// What others call the path.
const PATHS: [&str; 3] = ["path", "url", "uri"];

/// Reads one.
pub(crate) fn read(input: impl BufRead + Send + 'static, file: &str, names: Names) -> Source {
    let mut csv = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(input);
    let file = file.to_owned();
    let headers = match csv.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => return once(Bad::fatal(&file, 1, format!("cannot be read: {error}"))),
    };
    let place = |column: &str| headers.iter().position(|name| name.eq_ignore_ascii_case(column));
    let mut at = COLUMNS.map(place);
    at[2] = PATHS.iter().find_map(|name| place(name));
    // Columns that nobody knows are left out, but not where one of them may be the path under another name: each line would
    // become a request to / and nobody would be told.
    let is_known = |name: &str| COLUMNS.iter().any(|column| column.eq_ignore_ascii_case(name));
    let missing = match at {
        [None, ..] => Some("timestamp"),
        [_, _, None, ..] if !headers.iter().all(is_known) => Some("path (or url)"),
        _ => None,
    };
    if let Some(missing) = missing {
        let found = headers.iter().collect::<Vec<_>>().join(",");
        let known = COLUMNS.join(", ");
        let what = format!("expected a header line with {missing} in it, found {found:?}; known columns are {known}");
        return once(Bad::fatal(&file, 1, what));
    }
    let mut records = csv.into_records();
    Box::new(std::iter::from_fn(move || {
        let row = match records.next()? {
            Ok(row) => row,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                return Some(Err(Bad::line(&file, line, 1, format!("cannot be read: {error}"))));
            }
        };
        let line = row.position().map_or(0, csv::Position::line);
        let field = |n: usize| at[n].and_then(|at| row.get(at)).filter(|text| !text.is_empty());
        Some(parse(&field, &names).map(|seen| (line, seen)).map_err(|(n, what)| {
            // Where the field begins, as far as it can be known without its quotes.
            let before = at[n].map_or(0, |at| row.iter().take(at).map(|field| field.len() + 1).sum());
            Bad::line(&file, line, before + 1, what)
        }))
    }))
}

fn once(bad: Bad) -> Source {
    Box::new(std::iter::once(Err(bad)))
}

fn parse<'a>(field: &impl Fn(usize) -> Option<&'a str>, names: &Names) -> Result<Seen, (usize, String)> {
    let time = field(0).unwrap_or_default();
    let clock = Clock::read(time)
        .ok_or_else(|| (0, format!("{time:?}: expected a time like 2026-01-31T12:00:00.5Z, or a number since 1970")))?;
    let p = field(2).unwrap_or("/");
    let p = vegeta::path_or_url(p).ok_or_else(|| (2, format!("{p:?}: expected a path like /v3/scan, or a URL")))?;
    let number = |n: usize| -> Result<Option<u64>, (usize, String)> {
        field(n)
            .map(|text| text.parse().map_err(|_| (n, format!("{text:?}: expected a whole number of {}", COLUMNS[n]))))
            .transpose()
    };
    let status = number(6)?.map(|s| match u16::try_from(s) {
        Ok(status @ 100..600) => Ok(status),
        _ => Err((6, format!("{s}: expected a status, 100 to 599"))),
    });
    let status = status.transpose()?;
    let record = Record {
        m: field(1).unwrap_or("GET").to_ascii_uppercase(),
        p,
        k: field(3).map(|key| names.keep_or_make("k", key)),
        a: field(4).map(|account| names.keep_or_make("a", account)),
        b: number(5)?.map(Body::Bytes),
        s: status,
        d: number(7)?.map(|us| us.saturating_mul(1_000)),
        ..Record::default()
    };
    Ok(Seen { at_ns: clock.ns, whole_seconds: clock.whole_seconds, record })
}

/// The header line.
pub(crate) fn head() -> String {
    format!("{}\n", COLUMNS.join(","))
}

/// Writes a line.
pub(crate) fn write(seen: &Seen) -> Result<Vec<u8>, csv::Error> {
    let record = &seen.record;
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
    line.write_record([
        rfc3339(seen.at_ns),
        record.m.clone(),
        record.p.clone(),
        record.k.clone().unwrap_or_default(),
        record.a.clone().unwrap_or_default(),
        number(record.b.as_ref().map(Body::bytes)),
        number(record.s.map(u64::from)),
        number(record.d.map(|d| d / 1_000)),
    ])?;
    line.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &'static str) -> Vec<Result<String, Bad>> {
        read(text.as_bytes(), "f", Names::new(None)).map(|item| item.map(|(_, seen)| seen.record.p)).collect()
    }

    #[test]
    fn a_path_may_be_a_url_and_is_never_made_up_for_one_under_another_name() {
        assert_eq!(read_all("timestamp,URL,agent\n1,http://h/a?b,x\n2,/c,y\n"), [Ok("/a?b".into()), Ok("/c".into())]);
        assert_eq!(read_all("timestamp,status\n1,200\n"), [Ok("/".into())]);
        for (header, missing) in [("timestamp,target\n1,/a\n", "path (or url)"), ("time;path\n1;/a\n", "timestamp")] {
            let read = read_all(header);
            let bad = read[0].as_ref().expect_err("refused");
            let header = header.lines().next().expect("a header");
            assert!(bad.fatal && bad.what.contains(&format!("with {missing} in it, found {header:?}")), "{bad}");
        }
    }
}
