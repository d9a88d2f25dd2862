//! Opening a log: what the files hold, and whether that can be what a crash left.
//!
//! A crash can lose or tear the newest frame only: every frame is synced before the next one is written. So the first frame
//! that is not whole ends the log, *if* nothing behind it shows that it had been synced. A later frame's header shows that,
//! and so does the next segment's. Then bytes were lost that someone was told are safe, and the log is refused: a replica
//! that forgets a vote or an entry it acknowledged can undo what a quorum decided.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    OpenError, Options, Record,
    disk::Disk,
    frame,
    index::{Index, Loc},
    record::{Decoded, Decoder},
    segment::{self, HeaderError, Name, PAGE, Segment},
    spares::{Spare, write_zeros},
    view::View,
};

/// A log as found, and made ready for writing.
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) view: View,
    /// Oldest first; none in a directory without a log.
    pub(super) segments: Vec<Segment>,
    /// Where the last one goes on.
    pub(super) end: usize,
    /// The last one has no frame.
    pub(super) fresh: bool,
    pub(super) next_seq: u64,
    /// The newest frame holds more than the frontier, and nothing after it says that it was synced.
    pub(super) unrecorded: bool,
    pub(super) spares: Vec<Spare>,
    pub(super) next_spare_id: u32,
}

/// Reads the log in `dir`. Changes nothing before it knows that it will not refuse.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<Recovered, OpenError> {
    disk.create_dir(dir).map_err(|source| OpenError::io("create", dir, source))?;
    let names = Names::list(disk, dir)?;
    let found = names.segments(disk)?;
    names.check_spares(disk, found.last().map_or(0, |(segment, _)| segment.generation))?;

    let mut replay = Replay::default();
    let mut end = End { offset: segment::HEADER_BYTES, frame: None, content: false, next_seq: 1 };
    let mut buf = Vec::new();
    let mut rest: u64 = found.iter().map(|(segment, _)| segment.bytes).sum();
    for (at, (segment, header)) in found.iter().enumerate() {
        let next = found.get(at + 1).map(|(_, next)| next.first_seq);
        if at > 0 && header.first_seq != end.next_seq {
            let reason = format!("it begins with frame {}, not {}", header.first_seq, end.next_seq);
            return Err(OpenError::damaged(&segment.path, 0, reason));
        }
        let length = segment.file.len().map_err(|source| OpenError::io("read", &segment.path, source))?;
        buf.resize(length.min(header.bytes) as usize, 0);
        segment.file.read_at(&mut buf, 0).map_err(|source| OpenError::io("read", &segment.path, source))?;
        // Only the newest entries go to memory: those of the segments that fit.
        let warm = rest <= (options.cache_bytes as u64).max(segment.bytes);
        rest -= segment.bytes;
        end = replay.segment(&segment.path, &buf, header, next, warm)?;
    }
    if let Some((group, first, last)) = replay.view.gone() {
        let reason =
            format!("entries {first} to {last} of group {} were in a segment before, which is missing", group.0);
        return Err(OpenError::damaged(&found[0].0.path, 0, reason));
    }

    if let Some((segment, _)) = found.last() {
        settle(segment, &buf, &end).map_err(|source| OpenError::io("repair the end of", &segment.path, source))?;
    }
    let (spares, next_spare_id) = names.tidy(disk, dir, options)?;
    let mut index = replay.index;
    index.evict(options.cache_bytes);
    Ok(Recovered {
        index,
        view: replay.view,
        segments: found.into_iter().map(|(segment, _)| segment).collect(),
        end: end.offset,
        fresh: end.frame.is_none(),
        next_seq: end.next_seq,
        unrecorded: end.content,
        spares,
        next_spare_id,
    })
}

/// Makes what was read durable, and what lies behind it harmless.
///
/// The newest frame may be in the page cache only: its writer died before the sync, or the sync failed and the kernel
/// thinks the pages clean. So it is written again, the same bytes in the same place, and synced. Behind it there may be parts
/// of a torn frame; all that is not zero is overwritten, so that no new frame can ever be completed by them.
fn settle(segment: &Segment, buf: &[u8], end: &End) -> std::io::Result<()> {
    if let Some(newest) = &end.frame {
        segment.file.write_at(&buf[newest.clone()], newest.start as u64)?;
    }
    let used = used(buf);
    if used > end.offset {
        write_zeros(&*segment.file, end.offset as u64, used as u64)?;
    }
    if (buf.len() as u64) < segment.bytes {
        tracing::warn!(file = %segment.path.display(), "a segment was cut off behind its last frame; its zeros are written again");
        write_zeros(&*segment.file, buf.len() as u64, segment.bytes)?;
    }
    segment.file.sync()
}

/// The length of `buf` without the pages of zeros at its end.
fn used(buf: &[u8]) -> usize {
    const ZEROS: [u8; PAGE] = [0; PAGE];
    let pages = buf.chunks(PAGE).rposition(|page| page != &ZEROS[..page.len()]).map_or(0, |page| page + 1);
    (pages * PAGE).min(buf.len())
}

/// The directory's names.
struct Names {
    dir: PathBuf,
    segments: BTreeMap<u32, PathBuf>,
    spares: BTreeMap<u32, PathBuf>,
    unfinished: Vec<PathBuf>,
}

impl Names {
    fn list(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let mut names =
            Self { dir: dir.to_owned(), segments: BTreeMap::new(), spares: BTreeMap::new(), unfinished: Vec::new() };
        for name in disk.list(dir).map_err(|source| OpenError::io("list", dir, source))? {
            let path = dir.join(&name);
            match name.to_str().map_or(Name::Foreign, Name::of) {
                Name::Segment(generation) => drop(names.segments.insert(generation, path)),
                Name::Spare(id) => drop(names.spares.insert(id, path)),
                Name::Unfinished(_) => names.unfinished.push(path),
                Name::Foreign => {
                    tracing::warn!(file = %path.display(), "not a file of the write-ahead log; left alone");
                }
            }
        }
        Ok(names)
    }

    /// The segments and their headers, without a gap between their generations.
    fn segments(&self, disk: &dyn Disk) -> Result<Vec<(Segment, segment::Header)>, OpenError> {
        let mut found: Vec<(Segment, segment::Header)> = Vec::new();
        for (generation, path) in &self.segments {
            if let Some((before, _)) = found.last()
                && before.generation + 1 != *generation
            {
                let missing = Name::Segment(before.generation + 1).path(&self.dir);
                return Err(OpenError::damaged(&missing, 0, "the segment is missing, later ones are there"));
            }
            let (file, header) = read_header(disk, path)?;
            let header = header.map_err(|error| match error {
                HeaderError::Damaged(reason) => OpenError::damaged(path, 0, reason),
                HeaderError::Newer(version) => {
                    OpenError::NewerVersion { file: path.clone(), version, supported: segment::VERSION }
                }
            })?;
            if header.generation != *generation {
                let reason = format!("the header is that of segment {:08x}", header.generation);
                return Err(OpenError::damaged(path, 0, reason));
            }
            found.push((Segment { generation: *generation, bytes: header.bytes, path: path.clone(), file }, header));
        }
        Ok(found)
    }

    /// Spares remember the last segment they were. There is always a newer one than that; a spare may at most have been on
    /// its way to be the next.
    fn check_spares(&self, disk: &dyn Disk, newest: u32) -> Result<(), OpenError> {
        for path in self.spares.values() {
            if let (_, Ok(header)) = read_header(disk, path)?
                && header.generation > newest + 1
            {
                let missing = Name::Segment(header.generation).path(&self.dir);
                let reason =
                    format!("the segment or a later one is missing: {} was already used as it", path.display());
                return Err(OpenError::damaged(&missing, 0, reason));
            }
        }
        Ok(())
    }

    /// Removes what a crash left half done and spares beyond those wanted; returns the others, and an id for the next.
    fn tidy(self, disk: &dyn Disk, dir: &Path, options: &Options) -> Result<(Vec<Spare>, u32), OpenError> {
        let next_id = self.spares.keys().next_back().map_or(0, |id| id + 1);
        let mut spares = Vec::new();
        let mut surplus = self.unfinished;
        for path in self.spares.into_values() {
            let file = disk.open(&path).map_err(|source| OpenError::io("open", &path, source))?;
            let length = file.len().map_err(|source| OpenError::io("read", &path, source))?;
            if spares.len() < options.spare_segments && length == options.segment_bytes {
                spares.push(Spare { path, file });
            } else {
                surplus.push(path);
            }
        }
        for path in surplus {
            disk.remove(&path).map_err(|source| OpenError::io("remove", &path, source))?;
        }
        // Also for names that a process gave which died before it could sync them.
        disk.sync_dir(dir).map_err(|source| OpenError::io("sync", dir, source))?;
        Ok((spares, next_id))
    }
}

type OpenFile = std::sync::Arc<dyn super::disk::DiskFile>;

fn read_header(disk: &dyn Disk, path: &Path) -> Result<(OpenFile, Result<segment::Header, HeaderError>), OpenError> {
    let file = disk.open(path).map_err(|source| OpenError::io("open", path, source))?;
    let length = file.len().map_err(|source| OpenError::io("read", path, source))?;
    let mut bytes = vec![0; (PAGE as u64).min(length) as usize];
    file.read_at(&mut bytes, 0).map_err(|source| OpenError::io("read", path, source))?;
    Ok((file, segment::Header::decode(&bytes)))
}

/// Where a segment's frames end.
struct End {
    offset: usize,
    /// Its last frame.
    frame: Option<Range<usize>>,
    /// That frame holds more than the frontier.
    content: bool,
    next_seq: u64,
}

/// The frames' meaning, as they are read.
#[derive(Default)]
struct Replay {
    view: View,
    index: Index,
}

impl Replay {
    /// Reads the frames of a segment. `next` is the number with which the next segment begins, if there is one: up to it
    /// everything was synced.
    fn segment(
        &mut self,
        path: &Path,
        buf: &[u8],
        header: &segment::Header,
        next: Option<u64>,
        warm: bool,
    ) -> Result<End, OpenError> {
        let seed = frame::seed(header.generation);
        let mut end = End { offset: segment::HEADER_BYTES, frame: None, content: false, next_seq: header.first_seq };
        while next != Some(end.next_seq) {
            let rest = buf.get(end.offset..).unwrap_or_default();
            let found = frame::Header::decode(rest, seed);
            let body = match found {
                None => Err("no frame's header is here"),
                Some(found) if found.seq != end.next_seq => Err("a frame with another number is here"),
                Some(found) => found.body(rest, seed),
            };
            let body = match body {
                Ok(body) => body,
                Err(reason) => {
                    self.judge(path, buf, header, found, &end, reason, next)?;
                    break;
                }
            };
            let content = self
                .body(body, header.generation, end.offset + frame::HEADER_BYTES, end.frame.is_none(), warm)
                .map_err(|reason| OpenError::damaged(path, end.offset, format!("frame {}: {reason}", end.next_seq)))?;
            let start = end.offset;
            let length = frame::padded(body.len());
            end.offset = start + length;
            end.frame = Some(start..(start + length).min(buf.len()));
            end.content = content;
            end.next_seq =
                end.next_seq.checked_add(1).ok_or_else(|| OpenError::damaged(path, start, "out of frame numbers"))?;
        }
        Ok(end)
    }

    /// The frame at `end` is not whole: is it what a crash leaves, or has something been lost?
    #[allow(clippy::too_many_arguments, reason = "everything that was found at the break")]
    fn judge(
        &self,
        path: &Path,
        buf: &[u8],
        header: &segment::Header,
        found: Option<frame::Header>,
        end: &End,
        reason: &str,
        next: Option<u64>,
    ) -> Result<(), OpenError> {
        let seq = end.next_seq;
        let refuse = |because: String| {
            Err(OpenError::damaged(path, end.offset, format!("frame {seq}: {reason}, but {because}")))
        };
        if let Some(next) = next {
            return refuse(format!("the next segment says that all frames before {next} were synced"));
        }
        let own = found.filter(|found| found.seq == seq);
        // A true header tells how far the frame reaches: what is inside of it are the callers' bytes, not frames.
        let behind = end.offset.saturating_add(own.map_or(0, |own| frame::padded(own.body_bytes)));
        let seed = frame::seed(header.generation);
        if let Some(at) = frame::evidence(&buf[..used(buf)], behind, seed, seq) {
            return refuse(format!("the frame at offset {at} says that it was synced"));
        }
        // Segments are created in full length: no crash makes them shorter. Zeros may be missing, a frame may not.
        let whole_header = end.offset + frame::HEADER_BYTES <= buf.len();
        let cut = (buf.len() as u64) < header.bytes;
        if cut && (!whole_header || own.is_some()) {
            return refuse(format!("the file was cut off: it has {} of {} bytes", buf.len(), header.bytes));
        }
        if own.is_some() || buf[end.offset..].iter().take(frame::ALIGN).any(|byte| *byte != 0) {
            tracing::info!(file = %path.display(), offset = end.offset, "the write-ahead log ends here: {reason}");
        }
        Ok(())
    }

    /// Takes a frame's records; whether there were any besides what is written along with a frontier.
    fn body(&mut self, body: &[u8], generation: u32, offset: usize, first: bool, warm: bool) -> Result<bool, String> {
        let mut content = false;
        let mut heads = 0;
        for (at, decoded) in Decoder::new(body, frame::seed(generation)).enumerate() {
            let decoded = decoded?;
            content |= !matches!(decoded, Decoded::States(_) | Decoded::Committed { .. });
            match decoded {
                Decoded::Entry { group, index, offset: at, bytes } => {
                    self.view.entry(group, index, generation)?;
                    let offset = u32::try_from(offset + at).map_err(|_| "its offset is impossible".to_owned())?;
                    let length = u32::try_from(bytes.len()).map_err(|_| "its length is impossible".to_owned())?;
                    let loc = Loc { generation, offset, bytes: length };
                    self.index.recovered(group, index, loc, warm.then(|| Bytes::copy_from_slice(bytes)));
                }
                Decoded::Truncate { group, index } => {
                    self.view.truncate(group, index);
                    self.index.apply(group, &Record::TruncateFrom { index });
                }
                Decoded::Purge { group, index, mark } => {
                    let mark = Bytes::copy_from_slice(mark);
                    self.view.purge(group, index, mark.clone());
                    self.index.apply(group, &Record::PurgeUpTo { index, mark });
                    self.index.purge_written(group, index);
                }
                Decoded::Vote { group, vote } => {
                    let vote = Bytes::copy_from_slice(vote);
                    self.view.vote(group, vote.clone());
                    self.index.apply(group, &Record::Vote(vote));
                }
                Decoded::Committed { group, mark } => {
                    let mark = Bytes::copy_from_slice(mark);
                    self.view.committed(group, mark.clone());
                    self.index.recovered_committed(group, mark);
                }
                Decoded::States(states) if first && at == 0 => {
                    heads += 1;
                    if !self.view.is_based() {
                        for (group, state) in &states {
                            self.index.recovered_state(*group, state.clone());
                        }
                    }
                    self.view.head(states)?;
                }
                Decoded::States(_) => return Err("a segment's head within the segment".to_owned()),
            }
        }
        if first && heads == 0 { Err("the segment's head is missing".to_owned()) } else { Ok(content) }
    }
}

/// Reads `bytes` as a segment and as a frame's body, with what recovery reads them with. For fuzzing.
#[doc(hidden)]
pub fn decode_segment_for_fuzz(bytes: &[u8]) {
    if let Ok(header) = segment::Header::decode(bytes) {
        for next in [None, Some(header.first_seq.saturating_add(3))] {
            let mut replay = Replay::default();
            let _ = replay.segment(Path::new("fuzz"), bytes, &header, next, true);
            replay.read_all();
        }
    }
    let mut replay = Replay::default();
    let _ = replay.body(bytes, 1, segment::HEADER_BYTES, true, true);
    let _ = replay.body(bytes, 2, segment::HEADER_BYTES, false, false);
    replay.read_all();
}

impl Replay {
    fn read_all(&mut self) {
        let _ = self.view.gone();
        for group in self.index.groups() {
            let state = self.index.state(group);
            let end = state.last_index.map_or(0, |last| last + 1);
            let _ = self.index.find(group, state.first_index, end, 1 << 20);
            let _ = self.index.durable_index(group);
        }
        self.index.evict(0);
    }
}
