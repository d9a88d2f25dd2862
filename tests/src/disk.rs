//! A disk whose power can be cut: a file system in memory that forgets what was not synced.
//!
//! Every file and directory is kept twice: as processes see it, and as it was at its last `fsync` or `fdatasync`.
//! [`Disk::cut`] goes back to the second. It is strict where file systems differ: a file's sync does not make its name
//! durable, only its directory's does. Pages of zeros take no memory.

mod files;
mod tree;

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use fuser::{BackgroundSession, Config, MountOption};

use self::{
    files::Files,
    tree::{Tree, lock},
};

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
