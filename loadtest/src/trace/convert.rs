//! From every format into every format, as a stream.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Bad, Header, Ordered, Pseudonyms, Reader, Record, Tolerant, Writer, create,
    formats::{Clock, Seen, Source, combined, gor, har, nginx_json, rfc3339, table, vegeta},
    open,
    record::VERSION,
    spread::Spread,
};

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
    ensure!(settings.rate > 0.0, "--rate must be above 0");
    let name = from.display().to_string();
    let source = source(settings, from, &name)?;
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

fn source(settings: &ConvertSettings, from: &Path, name: &str) -> Result<Source> {
    let input = open(from)?;
    let names = Pseudonyms::new(settings.salt.as_deref());
    Ok(match settings.from {
        Format::Trace => {
            let reader = Reader::new(input, name)?;
            let start = reader.header().start.clone();
            let start = start.map_or(Some(0), |text| Clock::read(&text).map(|clock| clock.ns));
            let Some(start) = start else { bail!("{name}:1:1: \"start\" is not a time like 2026-01-31T12:00:00Z") };
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
                let source = format!("{:?}", settings.from).to_ascii_lowercase();
                let header = Header { tollgate_trace: VERSION, start: Some(rfc3339(start_ns)), source: Some(source) };
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
