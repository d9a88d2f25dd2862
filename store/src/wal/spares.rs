//! Segment files before and after their use: zeroed ahead of need, kept when purged.
//!
//! Both take long (64 MiB of zeros, a directory sync), so a helper thread does them while the writer goes on; without
//! threads they are done where they are asked for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
};

use super::{
    disk::{Disk, DiskFile},
    segment::{self, Name, Segment},
    shared::Shared,
};

/// Zeros go out in pieces, each synced, so that no frame's sync has to wait behind all of them.
const ZERO_BYTES: usize = 1 << 20;
const ZERO_SYNC_BYTES: u64 = 8 << 20;

/// A file that is ready to become a segment.
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

enum Job {
    Fill,
    Recycle(Segment),
}

pub(super) struct Spares {
    core: Arc<Core>,
    helper: Option<(mpsc::Sender<Job>, JoinHandle<()>)>,
}

struct Core {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Arc<Shared>,
    ready: Mutex<Vec<Spare>>,
    next_id: AtomicU32,
}

impl Spares {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        shared: Arc<Shared>,
        ready: Vec<Spare>,
        next_id: u32,
        threaded: bool,
    ) -> io::Result<Self> {
        shared.counters.spare_segments.store(ready.len() as u64, Relaxed);
        let core = Arc::new(Core {
            disk,
            dir: dir.to_owned(),
            shared,
            ready: Mutex::new(ready),
            next_id: AtomicU32::new(next_id),
        });
        let helper = if threaded {
            let (sender, jobs) = mpsc::channel();
            let core = Arc::clone(&core);
            let work = move || jobs.into_iter().for_each(|job| core.work(job));
            Some((sender, std::thread::Builder::new().name("wal-spares".to_owned()).spawn(work)?))
        } else {
            None
        };
        Ok(Self { core, helper })
    }

    /// Makes the next segment: a ready file if its length fits, else a new one.
    pub(super) fn begin(&self, header: segment::Header) -> io::Result<Segment> {
        let ready = if header.bytes == self.core.shared.options.segment_bytes { self.core.ready().pop() } else { None };
        let spare = match ready {
            Some(spare) => spare,
            None => self.core.make(header.bytes)?,
        };
        self.core.count();
        self.core.activate(spare, header)
    }

    /// Has one spare made if there is none. Not more: under a steady load purged segments come back in time.
    pub(super) fn fill(&self) {
        self.run(Job::Fill);
    }

    /// Takes a segment whose entries are all purged. The order of calls is kept, so that those that remain are without gaps.
    pub(super) fn recycle(&self, segment: Segment) {
        self.run(Job::Recycle(segment));
    }

    /// Does what was asked for, then ends.
    pub(super) fn close(&mut self) {
        if let Some((sender, helper)) = self.helper.take() {
            drop(sender);
            if helper.join().is_err() {
                tracing::error!("the write-ahead log's helper thread panicked");
            }
        }
    }

    fn run(&self, job: Job) {
        match &self.helper {
            // The helper ends only after the sender is dropped, or by a panic, and then files stay where they are.
            Some((sender, _)) => drop(sender.send(job)),
            None => self.core.work(job),
        }
    }
}

impl Core {
    fn ready(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.ready.lock().expect("nothing panics while it holds the list of spares")
    }

    fn count(&self) {
        self.shared.counters.spare_segments.store(self.ready().len() as u64, Relaxed);
    }

    fn work(&self, job: Job) {
        match job {
            Job::Fill => {
                while self.ready().len() < self.shared.options.spare_segments.min(1) {
                    match self.make(self.shared.options.segment_bytes) {
                        Ok(spare) => self.ready().push(spare),
                        // Not the end: when a segment is needed, the writer tries again, and that is.
                        Err(error) => return tracing::warn!(error = %error, "prepare a spare segment"),
                    }
                }
            }
            Job::Recycle(segment) => {
                // After one failed, a later one must not succeed: the segments that remain would have a gap.
                let poisoned = self.shared.lock().poison.is_some();
                if poisoned {
                    return;
                }
                if let Err(error) = self.try_recycle(segment) {
                    let message = error.to_string();
                    self.shared.poison(&error, message);
                }
            }
        }
        self.count();
    }

    fn try_recycle(&self, segment: Segment) -> io::Result<()> {
        let options = &self.shared.options;
        let keep = segment.bytes == options.segment_bytes && self.ready().len() < options.spare_segments;
        self.shared.counters.recycled.fetch_add(1, Relaxed);
        if keep {
            let path = Name::Spare(self.next_id.fetch_add(1, Relaxed)).path(&self.dir);
            self.disk.rename(&segment.path, &path).map_err(|error| context("recycle", &segment.path, &error))?;
            self.sync_dir()?;
            self.ready().push(Spare { path, file: segment.file });
            Ok(())
        } else {
            self.disk.remove(&segment.path).map_err(|error| context("remove", &segment.path, &error))?;
            self.sync_dir()
        }
    }

    /// Creates a file of zeros. They are really written, so that a later sync of a frame finds its blocks allocated and
    /// has no metadata to write.
    fn make(&self, bytes: u64) -> io::Result<Spare> {
        let id = self.next_id.fetch_add(1, Relaxed);
        let (unfinished, path) = (Name::Unfinished(id).path(&self.dir), Name::Spare(id).path(&self.dir));
        let made = self.disk.create(&unfinished).and_then(|file| {
            write_zeros(&*file, 0, bytes)?;
            self.disk.rename(&unfinished, &path)?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                self.shared.counters.created.fetch_add(1, Relaxed);
                Ok(Spare { path, file })
            }
            Err(error) => {
                // Gives a full disk its space back; what is left behind is removed at the next start.
                let _ = self.disk.remove(&unfinished);
                Err(context("create a write-ahead log segment,", &unfinished, &error))
            }
        }
    }

    /// Gives a spare its header, then its name. A crash between leaves a spare; a segment's name implies a true header.
    fn activate(&self, spare: Spare, header: segment::Header) -> io::Result<Segment> {
        let path = Name::Segment(header.generation).path(&self.dir);
        let mut page = [0; segment::HEADER_BYTES];
        let encoded = header.encode();
        page[..encoded.len()].copy_from_slice(&encoded);
        spare.file.write_at(&page, 0).map_err(|error| context("write the header of", &path, &error))?;
        spare.file.sync().map_err(|error| context("sync the header of", &path, &error))?;
        self.disk.rename(&spare.path, &path).map_err(|error| context("name", &path, &error))?;
        self.sync_dir()?;
        Ok(Segment { generation: header.generation, bytes: header.bytes, path, file: spare.file })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir).map_err(|error| context("sync", &self.dir, &error))
    }
}

/// Zeros from `from` to before `to`, durable when this returns.
pub(super) fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES.min(to.saturating_sub(from) as usize)];
    let (mut at, mut synced) = (from, from);
    while at < to {
        let piece = (to - at).min(zeros.len() as u64);
        file.write_at(&zeros[..piece as usize], at)?;
        at += piece;
        if at - synced >= ZERO_SYNC_BYTES {
            file.sync()?;
            synced = at;
        }
    }
    file.sync()
}

/// `error`, with what was being done and to what.
pub(super) fn context(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{verb} {}: {error}", path.display()))
}
