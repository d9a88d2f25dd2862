//! A write of the log that a crash tore: the beginning of a frame behind the last whole one. The format is drawn in
//! `store/README.md`.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Frames begin here.
const SEGMENT_HEADER: usize = 4096;
const FRAME_HEADER: usize = 32;
const MAGIC: &[u8] = b"TGFR";

/// Puts the first `part` (of 100) of a frame behind the last one of a stopped node's log; where.
///
/// # Errors
/// There is no log, or the disk has failed.
pub(super) fn tear(data_dir: &Path, part: usize) -> io::Result<String> {
    let newest = segments(data_dir)?.into_iter().max().ok_or_else(|| io::Error::other("there is no log"))?;
    let bytes = fs::read(&newest)?;
    let long = |at: usize| bytes.get(at..at + 8).map(|word| u64::from_le_bytes(word.try_into().expect("eight")));
    let (mut at, mut last) = (SEGMENT_HEADER, None);
    while bytes.get(at..at + 4) == Some(MAGIC) {
        let (Some(sizes), Some(seq)) = (long(at + 8), long(at + 16)) else { break };
        // What a recycled file held before is not a frame of this segment: its numbers do not go on.
        if last.is_some_and(|(_, _, before)| seq != before + 1) {
            break;
        }
        let length = (FRAME_HEADER + (sizes & 0xffff_ffff) as usize).next_multiple_of(8);
        last = Some((at, length, seq));
        at += length;
    }
    let Some((from, length, seq)) = last else { return Ok(format!("{} has no frame yet", newest.display())) };
    let mut torn = bytes[from..(from + length).min(bytes.len())].to_vec();
    torn[16..24].copy_from_slice(&(seq + 1).to_le_bytes());
    torn.truncate((length * part / 100).max(FRAME_HEADER / 2).min(bytes.len().saturating_sub(at)));
    File::options().write(true).open(&newest)?.write_all_at(&torn, at as u64)?;
    Ok(format!("{} bytes of a frame at {at} of {}", torn.len(), newest.display()))
}

/// The log's files in use: eight hexadecimal digits, `.wal`.
fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            found.extend(segments(&path)?);
        } else if name.len() == 12 && name.ends_with(".wal") {
            found.push(path);
        }
    }
    Ok(found)
}
