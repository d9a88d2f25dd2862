//! A trace from Tollgate's request log.
//!
//! The log is read newest first, a trace is written oldest first: so the time is cut into slices that fit into memory, and
//! each slice is turned round. Keys and accounts become pseudonyms. A row of coalesced rejections stands for `count`
//! requests within a second; they are spread over it, with the last path that was seen of their key.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Body, Header, Pseudonyms, Record, Writer, create, files,
    formats::{Clock, rfc3339},
    record::VERSION,
};
use crate::admin::{Admin, escaped};

/// Rows of one slice; a slice with more is cut in two.
const MAX_SLICE_ROWS: usize = 50_000;
/// Rows asked for at once.
const PAGE_ROWS: usize = 1_000;
const FIRST_SLICE_NS: i128 = 10_000_000_000;
const LONGEST_SLICE_NS: i128 = 3_600_000_000_000;
/// The log's times have microseconds.
const SHORTEST_SLICE_NS: i128 = 1_000;
/// Keys whose last path is remembered; all are forgotten at the bound.
const MAX_PATHS: usize = 100_000;

/// What to record.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// From then, nanoseconds since 1970.
    pub(crate) since_ns: i128,
    /// Until then.
    pub(crate) until_ns: i128,
    /// One account only.
    pub(crate) account: Option<String>,
    /// Salt of the pseudonyms.
    pub(crate) salt: Option<String>,
    /// Seed of the spread of coalesced rejections.
    pub(crate) seed: u64,
}

/// Records; returns how many requests.
pub(crate) fn record(recording: &Recording, admin: &Admin, to: &Path) -> Result<u64> {
    ensure!(recording.since_ns < recording.until_ns, "--since must be before --until");
    let mut state = State {
        recording,
        names: Pseudonyms::new(recording.salt.as_deref()),
        paths: HashMap::new(),
        random: fastrand::Rng::with_seed(recording.seed),
        late: Vec::new(),
    };
    let mut output = Output { start_ns: recording.since_ns, to, writer: None };
    let (mut count, mut from, mut slice_ns) = (0, recording.since_ns, FIRST_SLICE_NS);
    while from < recording.until_ns {
        let until = (from + slice_ns).min(recording.until_ns);
        let Some(rows) = rows(recording, admin, from, until)? else {
            ensure!(slice_ns > SHORTEST_SLICE_NS, "more than {MAX_SLICE_ROWS} rows within a microsecond");
            slice_ns /= 2;
            continue;
        };
        if rows.len() < MAX_SLICE_ROWS / 4 {
            slice_ns = (slice_ns * 2).min(LONGEST_SLICE_NS);
        }
        for record in state.records(&rows, until)? {
            output.write(record)?;
            count += 1;
        }
        from = until;
    }
    for record in state.rest() {
        output.write(record)?;
        count += 1;
    }
    output.finish()?;
    Ok(count)
}

/// The trace, which begins with its first request: silence before it is nothing to replay.
struct Output<'a> {
    start_ns: i128,
    to: &'a Path,
    writer: Option<(u64, Writer<files::Output>)>,
}

impl Output<'_> {
    fn open(&self, first: u64) -> Result<Writer<files::Output>> {
        let header = Header {
            tollgate_trace: VERSION,
            start: Some(rfc3339(self.start_ns + i128::from(first))),
            source: Some("tollgate request log".into()),
        };
        Writer::new(create(self.to)?, &header)
    }

    fn write(&mut self, record: Record) -> Result<()> {
        if self.writer.is_none() {
            self.writer = Some((record.t, self.open(record.t)?));
        }
        let (first, writer) = self.writer.as_mut().expect("opened a line above");
        writer.write(&Record { t: record.t.saturating_sub(*first), ..record })
    }

    fn finish(self) -> Result<()> {
        let writer = match self.writer {
            Some((_, writer)) => writer,
            None => self.open(0)?,
        };
        writer.into_inner().finish().with_context(|| format!("write {}", self.to.display()))
    }
}

/// The rows of a slice, oldest first; nothing when they are too many.
fn rows(recording: &Recording, admin: &Admin, from: i128, until: i128) -> Result<Option<Vec<Value>>> {
    let mut query =
        format!("/v1/requests?limit={PAGE_ROWS}&since={}&until={}", escaped(&rfc3339(from)), escaped(&rfc3339(until)));
    if let Some(account) = &recording.account {
        query.push_str(&format!("&account={}", escaped(account)));
    }
    let (mut rows, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = match &cursor {
            None => admin.get(&query)?,
            Some(cursor) => admin.get(&format!("{query}&cursor={}", escaped(cursor)))?,
        };
        rows.extend(page["data"].as_array().cloned().unwrap_or_default());
        if rows.len() > MAX_SLICE_ROWS {
            return Ok(None);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    rows.reverse();
    Ok(Some(rows))
}

struct State<'a> {
    recording: &'a Recording,
    names: Pseudonyms,
    /// Method and path that a key was last seen with.
    paths: HashMap<String, (String, String)>,
    random: fastrand::Rng,
    /// Spread requests that belong behind the end of the slice at hand.
    late: Vec<Record>,
}

impl State<'_> {
    /// The records of a slice's rows, in order; what belongs behind its end waits.
    fn records(&mut self, rows: &[Value], until: i128) -> Result<Vec<Record>> {
        let mut records = std::mem::take(&mut self.late);
        for row in rows {
            self.record(row, &mut records)?;
        }
        records.sort_by_key(|record| record.t);
        let end = u64::try_from(until - self.recording.since_ns).unwrap_or(u64::MAX);
        let cut = records.partition_point(|record| record.t < end);
        self.late = records.split_off(cut);
        Ok(records)
    }

    fn rest(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.late)
    }

    fn record(&mut self, row: &Value, into: &mut Vec<Record>) -> Result<()> {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let clock = Clock::read(text("ts")).with_context(|| format!("read a row's time {:?}", text("ts")))?;
        // A page's bounds have microseconds; a row just before them is put on them.
        let t = u64::try_from(clock.ns - self.recording.since_ns).unwrap_or(0);
        let key = text("key_id").to_owned();
        let (m, p) = (text("method"), text("path"));
        if p.starts_with('/') && !m.is_empty() {
            if self.paths.len() >= MAX_PATHS {
                self.paths.clear();
            }
            self.paths.insert(key.clone(), (m.to_owned(), p.to_owned()));
        }
        let (m, p) = self.paths.get(&key).cloned().unwrap_or_else(|| ("GET".into(), "/".into()));
        let bytes = row["bytes_in"].as_u64().filter(|bytes| *bytes > 0);
        let record = Record {
            t,
            m,
            p,
            k: Some(self.names.of("k", &key)),
            a: Some(self.names.of("a", text("account"))),
            b: bytes.map(Body::Bytes),
            s: row["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
            d: row["duration_us"].as_u64().filter(|us| *us > 0).map(|us| us.saturating_mul(1_000)),
            ..Record::default()
        };
        let count = row["count"].as_u64().unwrap_or(1);
        if count <= 1 && !row["request_id"].is_null() {
            into.push(record);
            return Ok(());
        }
        // Rejected within the second after the row's time.
        for _ in 0..count {
            into.push(Record { t: t + self.random.u64(..1_000_000_000), ..record.clone() });
        }
        Ok(())
    }
}
