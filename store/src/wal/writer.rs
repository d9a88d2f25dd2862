//! The one thread that writes: everything that waits, one frame, one sync, then everyone's answer.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::Bytes;

use super::{
    OpenError, Options, Record,
    disk::Disk,
    frame,
    index::{Loc, Ticket},
    record, recovery,
    segment::{self, PAGE, Segment},
    shared::{Item, Shared, State, Wake},
    spares::{Spares, context},
    view::View,
};
use crate::{model::GroupId, platform::planted};

/// Appends are gathered into a frame up to this many bytes; one that is larger has a frame of its own. Bounds what waits for
/// one sync, and the buffer.
const FRAME_BYTES: usize = 4 << 20;
/// Segments may not be larger: places are 32 bits.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// What became durable with a frame.
enum Written {
    Entry { group: GroupId, index: u64, ticket: Ticket, loc: Loc },
    Purge { group: GroupId, index: u64 },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    spares: Spares,
    view: View,
    /// Those that hold something, oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Where the next frame goes in it.
    offset: usize,
    /// It has no frame yet: the first one begins with every group's state.
    fresh: bool,
    /// The next frame's number. All before it are synced: there is never more than one on its way.
    seq: u64,
    /// The newest frame's sync is on no disk yet.
    unrecorded: bool,
    last_sync: Instant,
    /// Taken from the queue and not written yet.
    backlog: VecDeque<Item>,
    buf: Vec<u8>,
    written: Vec<Written>,
    spares_asked: bool,
}

impl Writer {
    /// Recovers the log in `dir`, or begins one.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        mut options: Options,
        threaded: bool,
    ) -> Result<(Self, Arc<Shared>), OpenError> {
        options.segment_bytes = options.segment_bytes.max(2 * PAGE as u64).next_multiple_of(PAGE as u64);
        if options.segment_bytes > MAX_SEGMENT_BYTES {
            let message = format!("segments of {} bytes; the limit is {MAX_SEGMENT_BYTES}", options.segment_bytes);
            return Err(OpenError::Options(message));
        }
        let recovered = recovery::recover(&*disk, dir, &options)?;
        let state = State {
            index: recovered.index,
            segments: recovered.segments.iter().map(|segment| (segment.generation, segment.clone())).collect(),
            ..State::default()
        };
        let shared = Arc::new(Shared::new(options, state));
        let spares = Spares::new(disk, dir, Arc::clone(&shared), recovered.spares, recovered.next_spare_id, threaded)
            .map_err(|source| OpenError::io("start the helper thread of", dir, source))?;
        let mut writer = Self {
            shared: Arc::clone(&shared),
            spares,
            view: recovered.view,
            segments: recovered.segments.into(),
            offset: recovered.end,
            fresh: recovered.fresh,
            seq: recovered.next_seq,
            unrecorded: recovered.unrecorded,
            last_sync: Instant::now(),
            backlog: VecDeque::new(),
            buf: Vec::new(),
            written: Vec::new(),
            spares_asked: false,
        };
        if writer.segments.is_empty() {
            writer.roll(0).map_err(|source| OpenError::io("begin a log in", dir, source))?;
        }
        writer.count_segments();
        Ok((writer, shared))
    }

    /// Works until the log is closed.
    pub(super) fn run(mut self) {
        let guard = PoisonOnPanic(Arc::clone(&self.shared));
        loop {
            let deadline = self.unrecorded.then(|| self.last_sync + self.shared.options.frontier_interval);
            match self.shared.next_work(deadline) {
                Wake::Work => while self.step() {},
                Wake::Idle => self.frontier(),
                Wake::Close => break,
            }
        }
        self.frontier();
        self.spares.close();
        drop(guard);
    }

    /// Writes one frame of what waits, if anything does; whether it did.
    fn step(&mut self) -> bool {
        let marks = self.shared.take(&mut self.backlog);
        if self.backlog.is_empty() {
            return false;
        }
        let mut bytes = 0;
        let fits = |item: &&Item| {
            bytes += item.bytes;
            bytes <= FRAME_BYTES
        };
        let count = self.backlog.iter().take_while(fits).count().max(1);
        let batch: Vec<Item> = self.backlog.drain(..count).collect();
        let poisoned = self.shared.lock().poison.is_some();
        if poisoned {
            self.fail(batch);
            return true;
        }
        match self.write(&batch, &marks) {
            Ok(()) => self.complete(batch),
            Err(error) => {
                let message = error.to_string();
                self.shared.poison(&error, message);
                self.fail(batch);
            }
        }
        true
    }

    /// Records that everything is synced, unless that is recorded.
    fn frontier(&mut self) {
        if !self.unrecorded || self.shared.lock().poison.is_some() {
            return;
        }
        // The queue stays where it is: whether it is empty decides if the writer sleeps.
        let marks = self.shared.lock().index.take_committed();
        match self.write_frame(&[], &marks) {
            Ok(()) => {
                self.unrecorded = false;
                self.shared.counters.frontier_frames.fetch_add(1, Relaxed);
            }
            Err(error) => {
                let message = error.to_string();
                self.shared.poison(&error, message);
                self.fail(Vec::new());
            }
        }
    }
}

impl Writer {
    /// Makes `batch` durable. Without anything to write it is already: the frames before are synced.
    fn write(&mut self, batch: &[Item], marks: &[(GroupId, Bytes)]) -> io::Result<()> {
        if marks.is_empty() && batch.iter().all(|item| item.records.is_empty()) {
            return Ok(());
        }
        self.write_frame(batch, marks)?;
        self.unrecorded = true;
        Ok(())
    }

    fn write_frame(&mut self, batch: &[Item], marks: &[(GroupId, Bytes)]) -> io::Result<()> {
        let records = batch.iter().map(|item| item.bytes).sum::<usize>();
        let body = records + marks.iter().map(|(_, mark)| record::committed_bytes(mark)).sum::<usize>();
        let head = if self.fresh { record::states_bytes(&self.view) } else { 0 };
        if (self.offset + frame::padded(body + head)) as u64 > self.current().bytes {
            self.roll(frame::padded(body + record::states_bytes(&self.view)))?;
        }

        self.encode(batch, marks);
        let generation = self.current().generation;
        frame::seal(&mut self.buf, frame::seed(generation), self.seq, self.seq - 1);
        let frame_bytes = self.buf.len().next_multiple_of(frame::ALIGN);
        // Up to the page's end zeros, so that the page need not be read first, as it would in a recycled segment.
        let page_end = (self.offset + frame_bytes).next_multiple_of(PAGE);
        self.buf.resize(page_end - self.offset, 0);

        let began = Instant::now();
        let segment = self.current();
        let at = self.offset as u64;
        segment.file.write_at(&self.buf, at).map_err(|error| context("write", &segment.path, &error))?;
        if !planted!(SkipsFsync) {
            segment.file.sync().map_err(|error| context("sync", &segment.path, &error))?;
        }
        self.last_sync = Instant::now();
        self.shared.counters.synced(self.last_sync - began, frame_bytes);
        self.shared.counters.frames.fetch_add(1, Relaxed);
        self.offset += frame_bytes;
        self.seq += 1;
        self.fresh = false;
        // A rare large frame must not keep its memory.
        self.buf.shrink_to(FRAME_BYTES + PAGE);
        // Late, so that a log that stays small never pays for zeros, and a purged segment may come first.
        if !self.spares_asked && self.offset as u64 > self.current().bytes / 4 * 3 {
            self.spares_asked = true;
            self.spares.fill();
        }
        Ok(())
    }

    /// Puts the frame, with room for its header, into `buf`, and what it says into the view.
    fn encode(&mut self, batch: &[Item], marks: &[(GroupId, Bytes)]) {
        let generation = self.current().generation;
        let seed = frame::seed(generation);
        self.buf.clear();
        self.written.clear();
        self.buf.resize(frame::HEADER_BYTES, 0);
        if self.fresh {
            record::put_states(&mut self.buf, &self.view);
        }
        for item in batch {
            let mut ticket = item.ticket;
            let group = item.group;
            for record in &item.records {
                let offset = u32::try_from(self.offset + self.buf.len()).expect("segments are shorter than 4 GiB");
                record::put(&mut self.buf, seed, group, record);
                match record {
                    Record::Entry { index, bytes } => {
                        let length = u32::try_from(bytes.len()).expect("an append is bounded far below 4 GiB");
                        let loc = Loc { generation, offset, bytes: length };
                        self.written.push(Written::Entry { group, index: *index, ticket, loc });
                        ticket += 1;
                        self.view.entry(group, *index, generation).expect("append checked the order");
                    }
                    Record::TruncateFrom { index } => self.view.truncate(group, *index),
                    Record::PurgeUpTo { index, mark } => {
                        self.written.push(Written::Purge { group, index: *index });
                        self.view.purge(group, *index, mark.clone());
                    }
                    Record::Vote(vote) => self.view.vote(group, vote.clone()),
                }
            }
        }
        for (group, mark) in marks {
            record::put_committed(&mut self.buf, *group, mark);
            self.view.committed(*group, mark.clone());
        }
    }

    /// Begins the next segment, one in which a frame of `frame_bytes` fits.
    fn roll(&mut self, frame_bytes: usize) -> io::Result<()> {
        let generation = match self.segments.back() {
            Some(segment) => segment.generation.checked_add(1).ok_or_else(|| io::Error::other("out of generations"))?,
            None => 1,
        };
        let fitting = (segment::HEADER_BYTES + frame_bytes).next_multiple_of(PAGE) as u64;
        let bytes = self.shared.options.segment_bytes.max(fitting);
        let segment = self.spares.begin(segment::Header { generation, first_seq: self.seq, bytes })?;
        self.shared.lock().segments.insert(generation, segment.clone());
        self.segments.push_back(segment);
        self.offset = segment::HEADER_BYTES;
        self.fresh = true;
        self.spares_asked = false;
        self.shared.counters.rolls.fetch_add(1, Relaxed);
        self.count_segments();
        Ok(())
    }

    fn current(&self) -> &Segment {
        self.segments.back().expect("open begins a segment if there is none")
    }

    /// The batch is durable: tells the index, the waiters, and lets segments go that are not needed any more.
    fn complete(&mut self, batch: Vec<Item>) {
        let mut state = self.shared.lock();
        for written in self.written.drain(..) {
            match written {
                Written::Entry { group, index, ticket, loc } => state.index.written(group, index, ticket, loc),
                Written::Purge { group, index } => state.index.purge_written(group, index),
            }
        }
        state.queued_bytes -= batch.iter().map(|item| item.bytes).sum::<usize>();
        state.index.evict(self.shared.options.cache_bytes);
        self.shared.wake_durable_waiters(state);
        for item in batch {
            (item.done)(Ok(()));
        }
        // The newest segment's head, which is durable now, has the votes and marks of all before it.
        if !self.fresh {
            let oldest = self.view.oldest_generation().unwrap_or(u32::MAX);
            while self.segments.len() > 1 && self.segments[0].generation < oldest {
                let segment = self.segments.pop_front().expect("there is more than one");
                self.shared.lock().segments.remove(&segment.generation);
                self.count_segments();
                self.spares.recycle(segment);
            }
        }
    }

    /// The log is poisoned: tells everyone who waits, in order.
    fn fail(&mut self, batch: Vec<Item>) {
        let _ = self.shared.take(&mut self.backlog);
        let poison = self.shared.lock().poison.clone().expect("only a poisoned log fails appends");
        let failed = batch.into_iter().chain(self.backlog.drain(..));
        let mut bytes = 0;
        for item in failed {
            bytes += item.bytes;
            (item.done)(Err(poison.error()));
        }
        self.shared.lock().queued_bytes -= bytes;
    }

    fn count_segments(&self) {
        self.shared.counters.segments.store(self.segments.len() as u64, Relaxed);
        self.shared.counters.bytes.store(self.segments.iter().map(|segment| segment.bytes).sum(), Relaxed);
    }
}

/// A writer that panics (a bug, or a waiter's callback) must not leave a log that takes appends nobody writes.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(&io::Error::other("panic"), "the write-ahead log's writer panicked".to_owned());
        }
    }
}

/// Drives a log that has no threads: see [`super::Wal::open_stepped`].
pub struct Stepper {
    writer: Writer,
}

impl Stepper {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer }
    }

    /// Writes and syncs one frame of what waits and runs its callbacks; whether anything waited.
    pub fn step(&mut self) -> bool {
        self.writer.step()
    }

    /// What the writer does when nothing came for [`super::Options::frontier_interval`]: records that everything is synced.
    pub fn idle(&mut self) {
        self.writer.frontier();
    }
}
