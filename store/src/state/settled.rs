//! Settling records by request: the second half of a streamed answer, found without looking for its block.

use minicbor::{Decode, Encode};
use redb::WriteTransaction;

use super::{StateError, index::FileKey, ledger::SETTLED_CLASS, tables::Table};
use crate::model::{Charge, Completion, Name, RequestId, Row, Timestamp};

/// What a settling record replaces in its row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Settled {
    /// The record's number in the group: files of rows can be ahead of the main file, whose next number says which count.
    #[n(0)]
    pub(super) seq: u64,
    #[n(1)]
    pub(super) bytes_out: u64,
    #[n(2)]
    pub(super) duration_us: u64,
    #[n(3)]
    pub(super) cost: u64,
    #[n(4)]
    pub(super) completion: u8,
    #[n(5)]
    #[cbor(default)]
    pub(super) charges: Vec<(Name, i64, u64)>,
}

impl Settled {
    /// Makes an open row whole.
    pub(super) fn join(self, row: &mut Row) {
        row.bytes_out = self.bytes_out;
        row.duration_us = self.duration_us;
        row.cost = self.cost;
        row.completion = Completion::from_u8(self.completion).unwrap_or_default();
        let charges = self.charges.into_iter();
        row.charges.extend(charges.map(|(quota, period_start, units)| Charge { quota, period_start, units }));
    }
}

/// The day, since 1970 in UTC, whose file keeps a request's settling record. Both records of a request have the same id,
/// so its time names the day; an id without one (none that a gateway made) leaves the arrival.
pub(super) fn day_of(id: RequestId, ts: Timestamp) -> i32 {
    let is_v7 = id.0 >> 76 & 0xf == 7;
    let seconds = if is_v7 { (id.unix_ms() / 1_000) as i64 } else { ts.unix_seconds() };
    day(seconds)
}

/// Says in the main file that a day's file of settling records has this request's: proof, at the next start, that the file
/// is the one that was written.
pub(super) fn note_file(
    txn: &WriteTransaction,
    (day, _): FileKey,
    id: RequestId,
    error: impl Fn(redb::Error) -> StateError,
) -> Result<(), StateError> {
    let mut files = txn.open_table(Table::SettledFiles.definition()).map_err(|what| error(what.into()))?;
    let noted = files.insert(&day.to_be_bytes()[..], &id.0.to_be_bytes()[..]);
    noted.map(drop).map_err(|what| error(what.into()))
}

/// Reads back what [`note_file`] wrote.
pub(super) fn stored_file(key: &[u8], value: &[u8]) -> Option<(FileKey, RequestId)> {
    let day = i32::from_be_bytes(key.try_into().ok()?);
    Some(((day, SETTLED_CLASS), RequestId(u128::from_be_bytes(value.try_into().ok()?))))
}

/// The day of a time in seconds.
pub(super) fn day(unix_seconds: i64) -> i32 {
    let day = unix_seconds.div_euclid(86_400);
    i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX })
}
