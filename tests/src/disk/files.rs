//! The kernel's calls.

use std::{
    ffi::OsStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::tree::{Inode, Tree, lock};

/// The kernel keeps nothing: after a cut all is different.
const TTL: Duration = Duration::ZERO;

/// What the kernel asks.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) tree: Arc<Mutex<Tree>>,
    pub(super) ignores_sync: Arc<AtomicBool>,
    pub(super) fails_sync: Arc<AtomicBool>,
    pub(super) syncs: Arc<AtomicU64>,
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
