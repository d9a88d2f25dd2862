//! Reading entries back: from memory, or from the files in as few reads as their places allow.

use std::io;

use bytes::Bytes;

use super::{
    frame,
    index::{Found, Loc},
    record,
    shared::Shared,
};
use crate::model::GroupId;

/// The most that one read of a file fetches, unless one entry is larger.
const SPAN_BYTES: usize = 1 << 20;
/// Bytes between two entries (frame headers, other groups' records) that are read rather than skipped.
const GAP_BYTES: u64 = 4096;

pub(super) fn read(
    shared: &Shared,
    group: GroupId,
    from: u64,
    to: u64,
    max_bytes: usize,
) -> io::Result<Vec<(u64, Bytes)>> {
    let found = shared.lock().index.find(group, from, to, max_bytes);
    let mut entries = Vec::with_capacity(found.len());
    let mut at = 0;
    while at < found.len() {
        match &found[at] {
            Found::Cached(bytes) => {
                entries.push((from + at as u64, bytes.clone()));
                at += 1;
            }
            Found::OnDisk(first) => {
                let span = span(*first, &found[at..]);
                let wanted = span.len();
                let read = read_span(shared, group, from + at as u64, &span)?;
                let complete = read.len() == wanted;
                entries.extend((from + at as u64..).zip(read));
                if !complete {
                    break; // truncated or purged meanwhile: what follows is of another time
                }
                at += wanted;
            }
        }
    }
    Ok(entries)
}

/// The places, beginning with `first`, that one read fetches.
fn span(first: Loc, found: &[Found]) -> Vec<Loc> {
    let mut span: Vec<Loc> = Vec::new();
    for found in found {
        let Found::OnDisk(loc) = found else { break };
        if let Some(last) = span.last() {
            let near = loc.generation == last.generation
                && u64::from(loc.offset).checked_sub(end(*last)).is_some_and(|gap| gap <= GAP_BYTES);
            if !near || end(*loc) - u64::from(first.offset) > SPAN_BYTES as u64 {
                break;
            }
        }
        span.push(*loc);
    }
    span
}

fn end(loc: Loc) -> u64 {
    u64::from(loc.offset) + record::ENTRY_HEAD as u64 + u64::from(loc.bytes)
}

/// The entries from `index` on that lie in `span`; fewer when they are not the log's any more.
fn read_span(shared: &Shared, group: GroupId, index: u64, span: &[Loc]) -> io::Result<Vec<Bytes>> {
    let (first, last) = (span[0], span[span.len() - 1]);
    let Some(segment) = shared.lock().segments.get(&first.generation).cloned() else { return Ok(Vec::new()) };
    let mut buf = vec![0; (end(last) - u64::from(first.offset)) as usize];
    let outcome = segment.file.read_at(&mut buf, u64::from(first.offset));
    let buf = Bytes::from(buf);
    let seed = frame::seed(first.generation);
    let mut entries = Vec::with_capacity(span.len());
    for (index, loc) in (index..).zip(span) {
        let start = (loc.offset - first.offset) as usize;
        let record = buf.slice(start..start + record::ENTRY_HEAD + loc.bytes as usize);
        if outcome.is_err() || !record::is_entry(&record, seed, group, index) {
            // The segment may have been recycled under our hands; then the entry is purged, and not missed.
            if !shared.lock().index.lies_at(group, index, *loc) {
                break;
            }
            let what = format!(
                "read entry {index} of group {} from {} at offset {}",
                group.0,
                segment.path.display(),
                loc.offset
            );
            return Err(match outcome {
                Err(error) => io::Error::new(error.kind(), format!("{what}: {error}")),
                Ok(()) => io::Error::new(io::ErrorKind::InvalidData, format!("{what}: its crc32c does not match")),
            });
        }
        entries.push(record.slice(record::ENTRY_HEAD..));
    }
    Ok(entries)
}
