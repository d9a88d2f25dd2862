//! Rows: listings, newest arrival first, and single ones.
//!
//! The order is (arrival, number in the group), both descending. A row's number never changes, whatever is sealed, so a
//! cursor is the last row's pair, and pages cover every row once while others are appended.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    ReadError, RowPage, RowQuery, State, StateError,
    block::{Block, BlockError, Filter},
    index::{BlockKey, BlockMeta},
    ledger::{DEFAULT_CLASS, SETTLED_CLASS},
    seal::lost,
    settled,
};
use crate::model::{Completion, RequestId, Row, Timestamp};

/// Rows of a page at most.
pub const PAGE_ROWS: usize = 1_000;
/// Records that one page looks at, about. At the bound the page is short, and its cursor goes on from there.
const SCAN_RECORDS: u64 = 4 << 20;
/// How far a request id's time may be from its row's arrival.
const ID_SLACK_US: i64 = 10_000_000;
/// Tries of a read whose blocks were joined and removed under it.
const TRIES: usize = 4;

/// A row's place in a listing: its arrival, and its number in the group.
pub type RowPlace = (Timestamp, u64);

type Place = RowPlace;

/// A page of rows with their places.
#[derive(Debug, Clone, Default)]
pub struct PlacedPage {
    /// The rows, newest arrival first.
    pub rows: Vec<(RowPlace, Row)>,
    /// All that is newer than this (and this itself, if it is a row) is on the page; none at the end.
    pub more: Option<RowPlace>,
}

/// A block that may hold matches, and its bytes when memory has them.
pub(super) struct Source {
    pub(super) key: BlockKey,
    pub(super) meta: Arc<BlockMeta>,
    bytes: Option<Bytes>,
}

pub(super) enum Missed {
    /// Its block was joined meanwhile: look again.
    Moved(BlockKey),
    Error(StateError),
}

impl From<StateError> for Missed {
    fn from(error: StateError) -> Self {
        Self::Error(error)
    }
}

impl State {
    /// Rows, newest arrival first, joined with their settling records.
    ///
    /// # Errors
    /// The disk, a damaged block, or a bad cursor.
    pub fn rows(&self, query: &RowQuery) -> Result<RowPage, ReadError> {
        let before = query.cursor.as_deref().map(parse_cursor).transpose()?;
        let page = self.rows_before(query, before)?;
        let rows = page.rows.into_iter().map(|(_, row)| row).collect();
        Ok(RowPage { rows, next_cursor: page.more.map(cursor) })
    }

    /// As [`State::rows`], before a place instead of the query's cursor, each row with its own.
    ///
    /// # Errors
    /// The disk or a damaged block.
    pub fn rows_before(&self, query: &RowQuery, before: Option<RowPlace>) -> Result<PlacedPage, ReadError> {
        let before = before.unwrap_or((Timestamp(i64::MAX), u64::MAX));
        let until = query.until.unwrap_or(Timestamp(i64::MAX));
        let filter = Filter {
            account: query.account.clone(),
            key: query.key.clone(),
            route: query.route.clone(),
            status: query.status,
            outcome: query.outcome,
            since: query.since,
            until: Some(until.min(Timestamp(before.0.0.saturating_add(1)))),
            request_id: None,
        };
        let limit = query.limit.clamp(1, PAGE_ROWS);
        Ok(again(|| self.page(&filter, before, limit))?)
    }

    /// A request's row, joined.
    ///
    /// # Errors
    /// The disk or a damaged block.
    pub fn row(&self, id: RequestId) -> Result<Option<Row>, ReadError> {
        let mut filter = Filter { request_id: Some(id), ..Filter::default() };
        if id.0 >> 76 & 0xf == 7 {
            let at = i64::try_from(id.unix_ms() * 1_000).unwrap_or(i64::MAX);
            filter.since = Some(Timestamp(at.saturating_sub(ID_SLACK_US)));
            filter.until = Some(Timestamp(at.saturating_add(ID_SLACK_US)));
        }
        Ok(again(|| self.find(&filter))?)
    }

    fn page(&self, filter: &Filter, before: Place, limit: usize) -> Result<PlacedPage, Missed> {
        let sources = self.sources(filter);
        let mut blocks: BTreeMap<usize, Bytes> = BTreeMap::new();
        // The best places seen that are not on the page yet, and on it: (place, block, record).
        let mut seen: BTreeSet<(Reverse<Place>, usize, u32)> = BTreeSet::new();
        let mut page: Vec<(Place, usize, u32)> = Vec::new();
        let (mut scanned, mut stopped_at) = (0, None);
        for (number, source) in sources.iter().enumerate() {
            // Nothing from here on is newer than this.
            let newest = source.meta.max_ts;
            take(&mut seen, &mut page, limit, |ts| ts > newest);
            let is_full = page.len() == limit;
            if is_full || scanned > SCAN_RECORDS && (newest, u64::MAX) < before {
                stopped_at = Some((newest, u64::MAX));
                break;
            }
            let bytes = self.bytes_of(source)?;
            scanned += u64::from(source.meta.rows);
            let open = Block::open(&bytes).map_err(damaged(source.key))?;
            for (record, ts) in listed(&open, filter).map_err(damaged(source.key))? {
                let place = (ts, source.meta.seq(record));
                if place < before {
                    seen.insert((Reverse(place), number, record));
                    if seen.len() > limit {
                        seen.pop_last();
                    }
                }
            }
            blocks.insert(number, bytes);
        }
        if stopped_at.is_none() {
            take(&mut seen, &mut page, limit, |_| true);
        }
        let is_full = page.len() == limit;
        let more = if is_full { page.last().map(|(place, ..)| *place) } else { stopped_at };
        let mut rows: Vec<Option<(RowPlace, Row)>> = vec![None; page.len()];
        for (number, bytes) in &blocks {
            let (places, records): (Vec<usize>, Vec<u32>) =
                page.iter().enumerate().filter(|(_, of)| of.1 == *number).map(|(place, of)| (place, of.2)).unzip();
            let key = sources[*number].key;
            let read = Block::open(bytes).and_then(|block| block.rows_at(&records)).map_err(damaged(key))?;
            for (place, mut row) in places.into_iter().zip(read) {
                self.settle(&mut row)?;
                rows[place] = Some((page[place].0, row));
            }
        }
        Ok(PlacedPage { rows: rows.into_iter().flatten().collect(), more })
    }

    fn find(&self, filter: &Filter) -> Result<Option<Row>, Missed> {
        for source in self.sources(filter) {
            let bytes = self.bytes_of(&source)?;
            let block = Block::open(&bytes).map_err(damaged(source.key))?;
            let records = block.matching(filter).map_err(damaged(source.key))?;
            let rows = block.rows_at(&records).map_err(damaged(source.key))?;
            if let Some(mut row) = rows.into_iter().find(|row| !row.settles) {
                self.settle(&mut row)?;
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Blocks that may hold matches, those with the newest rows first.
    pub(super) fn sources(&self, filter: &Filter) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        {
            let replica = self.read();
            let may = |meta: &BlockMeta| meta.min_ts <= meta.max_ts && filter.overlaps(meta.min_ts, meta.max_ts);
            let oldest_in_memory = replica.live.oldest_block();
            for (key, meta) in replica.live.index.iter().filter(|(_, meta)| may(meta)) {
                let bytes = if key.at >= oldest_in_memory { replica.live.block(key) } else { None };
                sources.push(Source { key, meta: Arc::clone(meta), bytes });
            }
        }
        sources.sort_by_key(|source| Reverse((source.meta.max_ts, source.key)));
        sources
    }

    pub(super) fn bytes_of(&self, source: &Source) -> Result<Bytes, Missed> {
        match &source.bytes {
            Some(bytes) => Ok(bytes.clone()),
            None => self.block_bytes(source.key)?.ok_or(Missed::Moved(source.key)),
        }
    }

    /// Joins an open row with its settling record, if that has come.
    pub(super) fn settle(&self, row: &mut Row) -> Result<(), StateError> {
        if row.completion != Completion::Open {
            return Ok(());
        }
        let day = settled::day_of(row.request_id, row.ts);
        let (storage, next_seq) = {
            let replica = self.read();
            let found = replica.live.layers().find_map(|layer| layer.settled.get(&row.request_id));
            if let Some((_, settled)) = found.cloned() {
                settled.join(row);
                return Ok(());
            }
            (Arc::clone(&replica.storage), replica.live.vars.next_seq)
        };
        // Before classes had files of their own, settling records were with the rows of the default class.
        for class in [SETTLED_CLASS, DEFAULT_CLASS] {
            let stored = storage.read_rows((day, class))?.map_or(Ok(None), |rows| rows.settled(row.request_id))?;
            if let Some(settled) = stored.filter(|settled| settled.seq < next_seq) {
                settled.join(row);
                break;
            }
        }
        Ok(())
    }
}

/// Matching records that are rows of their own, with their arrivals.
pub(super) fn listed(block: &Block<'_>, filter: &Filter) -> Result<Vec<(u32, Timestamp)>, BlockError> {
    let records = block.matching(filter)?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let (ts, shapes) = (block.timestamps()?, block.shapes()?);
    let rows = records.into_iter().filter(|record| !shapes.get(*record as usize).settles);
    Ok(rows.map(|record| (record, ts[record as usize])).collect())
}

/// Moves the best places to the page, as long as they are surely the next ones.
fn take(
    seen: &mut BTreeSet<(Reverse<Place>, usize, u32)>,
    page: &mut Vec<(Place, usize, u32)>,
    limit: usize,
    is_next: impl Fn(Timestamp) -> bool,
) {
    while page.len() < limit
        && let Some(best) = seen.first().copied()
        && is_next(best.0.0.0)
    {
        seen.pop_first();
        page.push((best.0.0, best.1, best.2));
    }
}

pub(super) fn again<T>(mut read: impl FnMut() -> Result<T, Missed>) -> Result<T, StateError> {
    let mut tries = 0;
    loop {
        match read() {
            Ok(found) => return Ok(found),
            Err(Missed::Error(error)) => return Err(error),
            Err(Missed::Moved(key)) if tries == TRIES => return Err(lost(key)),
            Err(Missed::Moved(_)) => tries += 1,
        }
    }
}

pub(super) fn damaged(key: BlockKey) -> impl FnOnce(BlockError) -> StateError {
    move |source| StateError::Block { index: key.at, source }
}

/// A cursor that goes on after a row.
pub fn cursor((ts, seq): RowPlace) -> String {
    format!("{:016x}{seq:016x}", ts.0 as u64 ^ 1 << 63)
}

/// The place that a cursor names.
///
/// # Errors
/// It is none.
pub fn parse_cursor(text: &str) -> Result<RowPlace, ReadError> {
    let hex = |part: Option<&str>| {
        let part = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u64::from_str_radix(part, 16).ok()
    };
    let place = match text.len() {
        32 => hex(text.get(..16)).zip(hex(text.get(16..))),
        _ => None,
    };
    place.map(|(ts, seq)| (Timestamp((ts ^ 1 << 63) as i64), seq)).ok_or(ReadError::Cursor)
}
