//! From every format into every format, as a stream.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;

use super::{
    Bad, Header, Ordered, Pseudonyms, Reader, Record, Tolerant, Writer, create,
    formats::{Clock, Seen, Source, combined, gor, har, nginx_json, rfc3339, table, vegeta},
    open,
    record::VERSION,
    spread::Spread,
    target,
};
use crate::exit::Usage;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tollgate's trace (NDJSON).
    Trace,
    /// Combined or common log of Apache and nginx.
    Combined,
    /// nginx's log as JSON lines.
    NginxJson,
    /// vegeta's JSON targets.
    Vegeta,
    /// HAR 1.2.
    Har,
    /// GoReplay.
    Gor,
    /// CSV with a `timestamp` column.
    Csv,
}

impl Format {
    /// By a file's name, without what says how it is compressed.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
        let ends = [
            (".ndjson", Self::Trace),
            (".jsonl", Self::Trace),
            (".trace", Self::Trace),
            (".log", Self::Combined),
            (".har", Self::Har),
            (".gor", Self::Gor),
            (".csv", Self::Csv),
        ];
        ends.into_iter().find(|(end, _)| name.ends_with(end)).map(|(_, format)| format)
    }
}

/// How to convert.
#[derive(Debug, Clone)]
pub(crate) struct ConvertSettings {
    /// What it is.
    pub(crate) from: Format,
    /// What it becomes.
    pub(crate) to: Format,
    /// Records held back to be ordered.
    pub(crate) sort_window: usize,
    /// Bad lines that are left out.
    pub(crate) skip_bad: u64,
    /// Seed of the spread within seconds.
    pub(crate) seed: u64,
    /// Targets a second, for formats without times.
    pub(crate) rate: f64,
    /// `http://host` for formats that want whole URLs.
    pub(crate) host: String,
    /// Salt of the pseudonyms.
    pub(crate) salt: Option<String>,
}

/// Reads, orders, spreads, writes. Returns how many requests.
pub(crate) fn convert(settings: &ConvertSettings, from: &Path, to: &Path) -> Result<u64> {
    ensure!(settings.rate > 0.0, Usage("--rate must be above 0".into()));
    let name = from.display().to_string();
    let source = resolved(settings, from, &name)?;
    let tolerant = Tolerant::new(source, settings.skip_bad);
    let mut seen = Spread::new(Ordered::new(tolerant, &name, settings.sort_window), settings.seed).peekable();
    let start_ns = match seen.peek() {
        Some(Ok(seen)) => seen.at_ns,
        _ => 0,
    };
    let mut sink = Sink::new(settings, create(to)?, start_ns)?;
    for seen in seen {
        sink.write(seen?)?;
    }
    sink.finish().with_context(|| format!("write {}", to.display()))
}

/// Lines of a stream that cannot be read twice, by which its resolution is told.
const LOOK_AHEAD: usize = 10_000;

/// The source with one resolution for all of it: a log with a fraction somewhere knows fractions, and what stands on a whole
/// second there did happen then. A file is looked through for one before it is read; a pipe only at its beginning.
fn resolved(settings: &ConvertSettings, from: &Path, name: &str) -> Result<Source> {
    let is_whole = |item: &Result<(u64, Seen), Bad>| item.as_ref().is_ok_and(|(_, seen)| seen.whole_seconds);
    let is_fine = |item: &Result<(u64, Seen), Bad>| item.as_ref().is_ok_and(|(_, seen)| !seen.whole_seconds);
    // The combined log has seconds by its form; all others but these two have fractions by theirs.
    let mut lines = source(settings, from, name)?;
    if !matches!(settings.from, Format::NginxJson | Format::Csv) {
        return Ok(lines);
    }
    let first: Vec<_> = lines.by_ref().take(LOOK_AHEAD).collect();
    let mut has_fractions = first.iter().any(is_fine);
    let is_file = std::fs::metadata(from).is_ok_and(|there| there.is_file());
    if !has_fractions && is_file && first.iter().any(is_whole) {
        has_fractions = source(settings, from, name)?.skip(first.len()).any(|item| is_fine(&item));
    }
    let lines = first.into_iter().chain(lines);
    Ok(Box::new(lines.map(move |item| {
        item.map(|(line, seen)| (line, Seen { whole_seconds: seen.whole_seconds && !has_fractions, ..seen }))
    })))
}

/// What a file has, each record so that it can be sent.
fn source(settings: &ConvertSettings, from: &Path, name: &str) -> Result<Source> {
    let (lines, file) = (read(settings, from, name)?, name.to_owned());
    Ok(Box::new(lines.map(move |item| {
        let (line, mut seen) = item?;
        target::tidy(&mut seen.record).map_err(|what| Bad::line(&file, line, 1, what))?;
        Ok((line, seen))
    })))
}

fn read(settings: &ConvertSettings, from: &Path, name: &str) -> Result<Source> {
    let input = open(from)?;
    let names = Pseudonyms::new(settings.salt.as_deref());
    Ok(match settings.from {
        Format::Trace => {
            let reader = Reader::new(input, name)?;
            let start = reader.header().start.clone();
            let start = start.map_or(Some(0), |text| Clock::read(&text).map(|clock| clock.ns));
            let start =
                start.ok_or_else(|| Bad::line(name, 1, 1, "\"start\" is not a time like 2026-01-31T12:00:00Z"))?;
            let seen = move |(line, record): (u64, Record)| {
                (line, Seen { at_ns: start + i128::from(record.t), whole_seconds: false, record })
            };
            Box::new(reader.map(move |item| item.map(seen)))
        }
        Format::Combined => combined::read(input, name, names),
        Format::NginxJson => nginx_json::read(input, name, names),
        Format::Vegeta => vegeta::read(input, name, names, settings.rate),
        Format::Har => har::read(input, name, names),
        Format::Gor => gor::read(input, name, names),
        Format::Csv => table::read(input, name, names),
    })
}

/// Where the converted requests go.
enum Sink<'a> {
    Trace { writer: Writer<super::files::Output>, start_ns: i128, count: u64 },
    Text { output: super::files::Output, settings: &'a ConvertSettings, count: u64 },
}

impl<'a> Sink<'a> {
    fn new(settings: &'a ConvertSettings, mut output: super::files::Output, start_ns: i128) -> Result<Self> {
        Ok(match settings.to {
            Format::Trace => {
                let source = settings.from.to_possible_value().map(|value| value.get_name().to_owned());
                let header = Header { tollgate_trace: VERSION, start: Some(rfc3339(start_ns)), source };
                Self::Trace { writer: Writer::new(output, &header)?, start_ns, count: 0 }
            }
            format => {
                match format {
                    Format::Har => output.write_all(har::HEAD.as_bytes())?,
                    Format::Csv => output.write_all(table::head().as_bytes())?,
                    _ => {}
                }
                Self::Text { output, settings, count: 0 }
            }
        })
    }

    fn write(&mut self, seen: Seen) -> Result<()> {
        match self {
            Self::Trace { writer, start_ns, count } => {
                *count += 1;
                let t = u64::try_from(seen.at_ns - *start_ns).context("times over more than 584 years")?;
                writer.write(&Record { t, ..seen.record })
            }
            Self::Text { output, settings, count } => {
                *count += 1;
                let bytes = match settings.to {
                    Format::Combined => combined::write(&seen).into_bytes(),
                    Format::NginxJson => nginx_json::write(&seen).into_bytes(),
                    Format::Vegeta => vegeta::write(&seen, &settings.host).into_bytes(),
                    Format::Gor => gor::write(&seen, *count, &settings.host_name()),
                    Format::Csv => table::write(&seen)?,
                    Format::Har => {
                        let comma = if *count > 1 { ",\n" } else { "" };
                        format!("{comma}{}", har::write(&seen, &settings.host)).into_bytes()
                    }
                    Format::Trace => unreachable!("it has its own sink"),
                };
                output.write_all(&bytes).context("write the converted trace")
            }
        }
    }

    fn finish(self) -> Result<u64> {
        let (mut output, count, is_har) = match self {
            Self::Trace { writer, count, .. } => (writer.into_inner(), count, false),
            Self::Text { output, settings, count } => (output, count, settings.to == Format::Har),
        };
        if is_har {
            output.write_all(har::TAIL.as_bytes())?;
        }
        output.finish()?;
        Ok(count)
    }
}

impl ConvertSettings {
    fn host_name(&self) -> String {
        self.host.split_once("://").map_or(self.host.as_str(), |(_, host)| host).to_owned()
    }
}

/// The records of a trace file, in order, ready to be replayed.
pub(crate) fn records(
    path: &Path,
    sort_window: usize,
    skip_bad: u64,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let name = path.display().to_string();
    let reader = Reader::new(open(path)?, &name)?;
    let ordered = Ordered::new(Tolerant::new(reader, skip_bad), &name, sort_window);
    Ok(ordered.map(|record: Result<Record, Bad>| record.map_err(anyhow::Error::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(from: Format, to: Format) -> ConvertSettings {
        ConvertSettings {
            from,
            to,
            sort_window: 100,
            skip_bad: 0,
            seed: 1,
            rate: 100.0,
            host: "http://h".into(),
            salt: Some("salt".into()),
        }
    }

    fn times(directory: &Path, from: Format, text: &str) -> Vec<u64> {
        let (input, output) = (directory.join("in"), directory.join("out.ndjson"));
        std::fs::write(&input, text).expect("write");
        convert(&settings(from, Format::Trace), &input, &output).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        let records = records(&output, 100, 0).expect("a trace");
        records.map(|record| record.expect("a record").t).collect()
    }

    #[test]
    fn whole_seconds_among_fractions_stay_where_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let time =
            |ms: u64| jiff::Timestamp::from_millisecond(1_700_000_000_000 + ms as i64).expect("a time").to_string();
        // As others write them: without a fraction where it is zero. The first fraction may come late.
        let csv = |times: &[u64]| times.iter().map(|ms| time(*ms) + "\n").collect::<String>();
        let fine = [0, 0, 1_000, 1_500, 2_000, 2_001, 3_000];
        let text = format!("timestamp\n{}", csv(&fine));
        assert_eq!(times(directory, Format::Csv, &text), fine.map(|ms| ms * 1_000_000));
        let mut late: Vec<u64> = (0..12_000).map(|n| n / 10 * 1_000).collect();
        late.push(1_200_500);
        let text = format!("timestamp\n{}", csv(&late));
        assert_eq!(times(directory, Format::Csv, &text), late.iter().map(|ms| ms * 1_000_000).collect::<Vec<_>>());
        // All of them whole: spread, in order.
        let spread = times(directory, Format::Csv, &format!("timestamp\n{}", csv(&[0, 0, 0, 1_000, 1_000])));
        assert!(spread.is_sorted() && spread[1] > 0, "{spread:?}");
        let json: String =
            fine.iter().map(|ms| format!("{{\"time\":{:?},\"request\":\"GET / HTTP/1.1\"}}\n", time(*ms))).collect();
        assert_eq!(times(directory, Format::NginxJson, &json), fine.map(|ms| ms * 1_000_000));
    }

    #[test]
    fn what_we_write_we_read_with_the_same_times() {
        let directory = tempfile::tempdir().expect("a directory");
        let trace = directory.path().join("t.ndjson");
        let mut text = "{\"tollgate_trace\":1,\"start\":\"2026-01-01T00:00:00Z\"}\n".to_owned();
        let expected = [0, 0, 1_000_000_000, 1_000_000_001, 2_000_000_000u64];
        for t in expected {
            text.push_str(&format!("{{\"t\":{t},\"m\":\"GET\",\"p\":\"/\"}}\n"));
        }
        std::fs::write(&trace, text).expect("write");
        for format in [Format::Csv, Format::NginxJson, Format::Har, Format::Gor] {
            let there = directory.path().join("there");
            convert(&settings(Format::Trace, format), &trace, &there).expect("written");
            let written = std::fs::read_to_string(&there).expect("text");
            assert_eq!(times(directory.path(), format, &written), expected, "{format:?}");
        }
    }

    #[test]
    fn a_conversion_that_fails_leaves_no_file_and_an_old_one_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (input, output) = (directory.path().join("in"), directory.path().join("out.ndjson.gz"));
        let log = "::1 - - [10/Oct/2000:13:55:36 +0000] \"GET /<x> HTTP/1.1\" 200 1\n";
        std::fs::write(&input, format!("{log}nonsense\n")).expect("write");
        let mut settings = settings(Format::Combined, Format::Trace);
        let refused = convert(&settings, &input, &output).expect_err("a bad line").to_string();
        assert!(refused.contains("in:2:"), "{refused}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("entries").count(), 1, "something was left");
        std::fs::write(&output, "old").expect("write");
        convert(&settings, &input, &output).expect_err("a bad line");
        assert_eq!(std::fs::read(&output).expect("the old file"), b"old");
        settings.skip_bad = 1;
        assert_eq!(convert(&settings, &input, &output).expect("one is tolerated"), 1);
        let record = records(&output, 0, 0).expect("a trace").next().expect("one").expect("a record");
        assert_eq!(record.p, "/%3Cx%3E");
    }
}
