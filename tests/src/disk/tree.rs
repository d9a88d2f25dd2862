//! Files and directories, each as processes see it and as it is on the disk.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    sync::{Arc, Mutex, MutexGuard},
    time::UNIX_EPOCH,
};

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags};

use super::Cut;

const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;
type Names = BTreeMap<OsString, u64>;

/// A file or directory, as it is and as it is on the disk.
#[derive(Debug, Default, Clone)]
pub(super) struct Inode {
    pub(super) directory: bool,
    size: u64,
    synced_size: u64,
    pages: BTreeMap<u64, Page>,
    synced_pages: BTreeMap<u64, Page>,
    dirty: BTreeSet<u64>,
    pub(super) names: Names,
    synced_names: Names,
}

impl Inode {
    pub(super) fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let size = size.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; size];
        for (page, at, part) in parts(offset, size) {
            if let Some(found) = self.pages.get(&page) {
                bytes[part.clone()].copy_from_slice(&found[at..at + part.len()]);
            }
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
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

    pub(super) fn resize(&mut self, size: u64) {
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

    pub(super) fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            self.keep(number);
        }
        self.synced_size = self.size;
        if self.directory {
            self.synced_names = self.names.clone();
        }
    }

    pub(super) fn attr(&self, ino: u64) -> FileAttr {
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
pub(super) struct Tree {
    pub(super) inodes: HashMap<u64, Inode>,
    next: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Inode { directory: true, ..Inode::default() };
        Self { inodes: HashMap::from([(INodeNo::ROOT.0, root)]), next: 2 }
    }

    pub(super) fn inode(&mut self, ino: INodeNo) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino.0).ok_or(Errno::ENOENT)
    }

    pub(super) fn find(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        self.inode(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn add(&mut self, parent: INodeNo, name: &OsStr, directory: bool) -> Result<FileAttr, Errno> {
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
    pub(super) fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let ino = self.find(parent, name)?;
        if !self.inode(INodeNo(ino))?.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.inode(parent)?.names.remove(name);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
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

    pub(super) fn cut(&mut self, keep: Cut) {
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

pub(super) fn lock(tree: &Mutex<Tree>) -> MutexGuard<'_, Tree> {
    tree.lock().expect("no holder of this lock panics")
}
