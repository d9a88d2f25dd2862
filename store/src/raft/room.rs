//! Whether a data directory's disk has room for a node, found out before anything is written to it.

use std::path::Path;

use super::node::StartError;
use crate::wal;

/// Room for the state's files, whose checkpoints are written beside the old ones.
const STATE_BYTES: u64 = 32 << 20;
/// The log grows to about 1 GiB before its oldest segments are given up, and the state with what it keeps.
const COMFORTABLE_BYTES: u64 = 2 << 30;

/// Refuses a disk without room for a segment of the log, its spare, and the state; says so when it has little more.
pub(super) fn check(data_dir: &Path) -> Result<(), StartError> {
    let Ok(disk) = rustix::fs::statvfs(data_dir) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let there = bytes_below(&data_dir.join("wal"));
    let needed = (2 * wal::Options::default().segment_bytes + STATE_BYTES).saturating_sub(there);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if free < needed {
        return Err(StartError::Room { path: data_dir.to_owned(), free_mib: free >> 20, needed_mib: mib(needed) });
    }
    if free + there < COMFORTABLE_BYTES {
        tracing::warn!(
            free_mib = mib(free),
            "{} has little room: the log alone may take 1 GiB, and a node whose disk is full stops",
            data_dir.display()
        );
    }
    Ok(())
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}
