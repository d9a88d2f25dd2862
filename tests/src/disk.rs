//! A disk whose power can be cut: a file system in memory that forgets what was not synced.
//!
//! Every file and directory is kept twice: as processes see it, and as it was at its last `fsync` or `fdatasync`.
//! [`Disk::cut`] goes back to the second. It is strict where file systems differ: a file's sync does not make its name
//! durable, only its directory's does. Pages of zeros take no memory.
//!
//! One file because it is one thing: the two sides of each inode and the file system's calls that move them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    io,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

const PAGE: usize = 4096;
/// The kernel keeps nothing: after a cut all is different.
const TTL: Duration = Duration::ZERO;

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Nothing.
    Nothing,
    /// Each page and each directory, or not, by a seed: a disk writes in what order it likes.
    Some(u64),
}

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    mount: tempfile::TempDir,
    tree: Arc<Mutex<Tree>>,
    ignores_sync: Arc<AtomicBool>,
    fails_sync: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts an empty one.
    ///
    /// # Errors
    /// This machine does not permit it: no `/dev/fuse`, or neither root nor `fusermount3`.
    pub fn mount() -> io::Result<Self> {
        let mut disk = Self {
            mount: tempfile::tempdir()?,
            tree: Arc::new(Mutex::new(Tree::new())),
            ignores_sync: Arc::default(),
            fails_sync: Arc::default(),
            syncs: Arc::default(),
            session: None,
        };
        disk.remount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// From now on a sync answers that it was done and does nothing (`true`), or works (`false`).
    pub fn ignore_sync(&self, ignore: bool) {
        self.ignores_sync.store(ignore, Ordering::SeqCst);
    }

    /// From now on a sync fails with EIO and makes nothing durable (`true`), or works (`false`).
    pub fn fail_sync(&self, fail: bool) {
        self.fails_sync.store(fail, Ordering::SeqCst);
    }

    /// Syncs that were asked for.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    /// Cuts the power and turns it on again. No process may have a file open.
    ///
    /// # Panics
    /// When it cannot be mounted again.
    pub fn cut(&mut self, keep: Cut) {
        self.unmount();
        lock(&self.tree).cut(keep);
        self.remount().expect("mount it again");
    }

    fn remount(&mut self) -> io::Result<()> {
        let files = Files {
            tree: Arc::clone(&self.tree),
            ignores_sync: Arc::clone(&self.ignores_sync),
            fails_sync: Arc::clone(&self.fails_sync),
            syncs: Arc::clone(&self.syncs),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".to_owned())];
        self.session = Some(fuser::spawn_mount(files, self.mount.path(), &config)?);
        Ok(())
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        // A killed process lets go of its files a moment after its end.
        let path = self.mount.path();
        let try_with =
            |command: &mut Command| command.arg(path).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
        let try_it = || try_with(&mut Command::new("umount")) || try_with(Command::new("fusermount3").arg("-u"));
        crate::until("the end of all use of the disk", || try_it().then_some(()));
        drop(session);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // After a failed test a node may still have files open: then the session ends on its own.
        if !std::thread::panicking() {
            self.unmount();
        }
    }
}

type Page = Arc<[u8; PAGE]>;
type Names = BTreeMap<OsString, u64>;

/// A file or directory, as it is and as it is on the disk.
#[derive(Debug, Default, Clone)]
struct Inode {
    directory: bool,
    size: u64,
    synced_size: u64,
    pages: BTreeMap<u64, Page>,
    synced_pages: BTreeMap<u64, Page>,
    dirty: BTreeSet<u64>,
    names: Names,
    synced_names: Names,
}

impl Inode {
    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let size = size.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; size];
        for (page, at, part) in parts(offset, size) {
            if let Some(found) = self.pages.get(&page) {
                bytes[part.clone()].copy_from_slice(&found[at..at + part.len()]);
            }
        }
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, at, part) in parts(offset, bytes.len()) {
            let bytes = &bytes[part];
            self.dirty.insert(number);
            if bytes.len() == PAGE && bytes.iter().all(|byte| *byte == 0) {
                self.pages.remove(&number);
                continue;
            }
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    fn resize(&mut self, size: u64) {
        if size < self.size {
            let first_gone = size.div_ceil(PAGE as u64);
            let gone = self.pages.split_off(&first_gone);
            self.dirty.extend(gone.into_keys());
            let rest = usize::try_from(size % PAGE as u64).unwrap_or_default();
            if rest > 0
                && let Some(page) = self.pages.get_mut(&(size / PAGE as u64))
            {
                Arc::make_mut(page)[rest..].fill(0);
                self.dirty.insert(size / PAGE as u64);
            }
        }
        self.size = size;
    }

    /// Makes a page durable as it is.
    fn keep(&mut self, number: u64) {
        match self.pages.get(&number) {
            Some(page) => self.synced_pages.insert(number, Arc::clone(page)),
            None => self.synced_pages.remove(&number),
        };
    }

    fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            self.keep(number);
        }
        self.synced_size = self.size;
        if self.directory {
            self.synced_names = self.names.clone();
        }
    }

    fn attr(&self, ino: u64) -> FileAttr {
        FileAttr {
            ino: INodeNo(ino),
            size: self.size,
            blocks: self.size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if self.directory { FileType::Directory } else { FileType::RegularFile },
            perm: if self.directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The pages that a range of a file touches: number, offset in the page, range of the bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE as u64).unwrap_or_default();
        let count = (PAGE - within).min(length - done);
        done += count;
        Some((at / PAGE as u64, within, done - count..done))
    })
}

#[derive(Debug)]
struct Tree {
    inodes: HashMap<u64, Inode>,
    next: u64,
}

impl Tree {
    fn new() -> Self {
        let root = Inode { directory: true, ..Inode::default() };
        Self { inodes: HashMap::from([(INodeNo::ROOT.0, root)]), next: 2 }
    }

    fn inode(&mut self, ino: INodeNo) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino.0).ok_or(Errno::ENOENT)
    }

    fn find(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        self.inode(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, directory: bool) -> Result<FileAttr, Errno> {
        if self.inode(parent)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        self.inode(parent)?.names.insert(name.to_owned(), ino);
        let inode = Inode { directory, ..Inode::default() };
        let attr = inode.attr(ino);
        self.inodes.insert(ino, inode);
        Ok(attr)
    }

    /// The inode stays: it may be open, and its name may be durable.
    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let ino = self.find(parent, name)?;
        if !self.inode(INodeNo(ino))?.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.inode(parent)?.names.remove(name);
        Ok(())
    }

    fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Result<(), Errno> {
        let ino = self.find(from.0, from.1)?;
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && self.find(to.0, to.1).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.inode(from.0)?.names.remove(from.1);
        self.inode(to.0)?.names.insert(to.1.to_owned(), ino);
        Ok(())
    }

    fn cut(&mut self, keep: Cut) {
        let mut seed = match keep {
            Cut::Nothing => None,
            Cut::Some(seed) => Some(seed | 1),
        };
        let mut coin = || {
            seed.as_mut().is_some_and(|seed| {
                // xorshift64
                *seed ^= *seed << 13;
                *seed ^= *seed >> 7;
                *seed ^= *seed << 17;
                *seed & (1 << 20) != 0
            })
        };
        let mut order: Vec<u64> = self.inodes.keys().copied().collect();
        order.sort_unstable();
        for ino in order {
            let inode = self.inodes.get_mut(&ino).expect("it was listed");
            for number in std::mem::take(&mut inode.dirty) {
                if coin() {
                    inode.keep(number);
                }
            }
            if coin() {
                inode.synced_size = inode.size;
            }
            if coin() {
                inode.synced_names = inode.names.clone();
            }
            let size = inode.synced_size;
            inode.pages.clone_from(&inode.synced_pages);
            inode.names.clone_from(&inode.synced_names);
            // No page may be behind the end.
            inode.size = u64::MAX;
            inode.resize(size);
            inode.sync();
        }
        self.forget_unreachable();
    }

    fn forget_unreachable(&mut self) {
        let (mut reached, mut next) = (BTreeSet::new(), vec![INodeNo::ROOT.0]);
        while let Some(ino) = next.pop() {
            if reached.insert(ino) {
                next.extend(self.inodes[&ino].names.values());
            }
        }
        self.inodes.retain(|ino, _| reached.contains(ino));
    }
}

fn lock(tree: &Mutex<Tree>) -> MutexGuard<'_, Tree> {
    tree.lock().expect("no holder of this lock panics")
}

/// What the kernel asks.
#[derive(Debug)]
struct Files {
    tree: Arc<Mutex<Tree>>,
    ignores_sync: Arc<AtomicBool>,
    fails_sync: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
}

impl Files {
    fn sync(&self, ino: INodeNo, reply: ReplyEmpty) {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.fails_sync.load(Ordering::SeqCst) {
            return reply.error(Errno::EIO);
        }
        if self.ignores_sync.load(Ordering::SeqCst) {
            return reply.ok();
        }
        answer(lock(&self.tree).inode(ino).map(Inode::sync), reply);
    }

    fn entry(&self, made: Result<FileAttr, Errno>, reply: ReplyEntry) {
        match made {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = lock(&self.tree);
        let found = tree.find(parent, name).and_then(|ino| Ok(tree.inode(INodeNo(ino))?.attr(ino)));
        self.entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match lock(&self.tree).inode(ino) {
            Ok(inode) => reply.attr(&TTL, &inode.attr(ino.0)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match lock(&self.tree).inode(ino) {
            Ok(inode) => {
                if let Some(size) = size {
                    inode.resize(size);
                }
                reply.attr(&TTL, &inode.attr(ino.0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = lock(&self.tree).add(parent, name, true);
        self.entry(made, reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match lock(&self.tree).add(parent, name, false) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(lock(&self.tree).remove(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(lock(&self.tree).remove(parent, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        answer(lock(&self.tree).rename((parent, name), (new_parent, new_name), flags), reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match lock(&self.tree).inode(ino) {
            Ok(inode) => reply.data(&inode.read(offset, size as usize)),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match lock(&self.tree).inode(ino) {
            Ok(inode) => {
                inode.write(offset, data);
                reply.written(u32::try_from(data.len()).expect("the kernel's writes are small"));
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino, reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut tree = lock(&self.tree);
        let names = match tree.inode(ino) {
            Ok(inode) => inode.names.clone(),
            Err(error) => return reply.error(error),
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (number, (name, child)) in names.iter().enumerate().skip(skip) {
            let directory = tree.inodes.get(child).is_some_and(|inode| inode.directory);
            let kind = if directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(*child), number as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 30, 1 << 30, 1 << 30, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
    };

    use super::*;

    #[test]
    fn a_cut_forgets_what_was_not_synced_and_nothing_else() {
        let mut disk = match Disk::mount() {
            Ok(disk) => disk,
            Err(error) => return eprintln!("skipped: cannot mount a FUSE file system here: {error}"),
        };
        let path = |disk: &Disk, name: &str| disk.path().join(name);
        let mut file = File::create(path(&disk, "a")).expect("create");
        file.write_all(b"synced").expect("write");
        file.sync_data().expect("sync");
        file.write_all(b", not").expect("write");
        drop(file);
        File::open(disk.path()).and_then(|dir| dir.sync_all()).expect("sync the directory");
        // A name that its directory has not synced is gone, though the file's bytes are.
        let file = File::create(path(&disk, "b")).expect("create");
        file.sync_all().expect("sync");
        drop(file);
        assert_eq!(fs::read(path(&disk, "a")).expect("read"), b"synced, not");
        disk.cut(Cut::Nothing);
        assert_eq!(fs::read(path(&disk, "a")).expect("read"), b"synced");
        assert!(!path(&disk, "b").exists());

        disk.ignore_sync(true);
        let mut file = File::options().append(true).open(path(&disk, "a")).expect("open");
        file.write_all(b" again").expect("write");
        file.sync_all().expect("a sync that says it worked");
        drop(file);
        disk.cut(Cut::Nothing);
        assert_eq!(fs::read(path(&disk, "a")).expect("read"), b"synced");
        assert!(disk.syncs() >= 4);
    }
}
