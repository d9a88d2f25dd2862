//! A disk whose power fails: writes that were not synced are lost, kept, or torn at a sector, each on its own.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::state::Files;

const SECTOR: usize = 512;

#[derive(Debug, Default, Clone)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Since the last sync, in order: offset and bytes, or a new length.
    pending: Vec<Result<(usize, Vec<u8>), usize>>,
}

#[derive(Debug, Default)]
struct Power {
    files: BTreeMap<PathBuf, Content>,
    /// Writes and syncs until the power fails.
    left: Option<u64>,
    /// How often it has come back: handles of before are dead.
    life: u64,
    writes: u64,
    random: u64,
}

/// All files of a machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Faulty(Arc<Mutex<Power>>);

#[derive(Debug)]
struct Handle {
    power: Faulty,
    path: PathBuf,
    life: u64,
}

impl Faulty {
    /// Fails after so many writes and syncs.
    pub(super) fn fail_after(&self, writes: u64) {
        self.power(|power| power.left = Some(writes));
    }

    /// Writes and syncs so far.
    pub(super) fn writes(&self) -> u64 {
        self.power(|power| power.writes)
    }

    /// The power comes back. What was synced is there; of the rest, chance decides.
    pub(super) fn restart(&self, seed: u64) {
        self.power(|power| {
            power.life += 1;
            power.left = None;
            power.random = seed | 1;
            let mut random = power.random;
            let mut chance = |of: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % of
            };
            for content in power.files.values_mut() {
                let mut bytes = std::mem::take(&mut content.durable);
                for write in content.pending.drain(..) {
                    match write {
                        Err(length) if chance(2) == 0 => bytes.resize(length, 0),
                        Ok((at, new)) => {
                            let kept = match chance(3) {
                                0 => 0,
                                1 => new.len(),
                                _ => (chance(new.len() as u64 + 1) as usize) / SECTOR * SECTOR,
                            };
                            if bytes.len() < at + kept {
                                bytes.resize(at + kept, 0);
                            }
                            bytes[at..at + kept].copy_from_slice(&new[..kept]);
                        }
                        Err(_) => {}
                    }
                }
                content.now.clone_from(&bytes);
                content.durable = bytes;
            }
        });
    }

    fn handle(&self, path: &Path) -> Handle {
        Handle { power: self.clone(), path: path.to_owned(), life: self.power(|power| power.life) }
    }

    fn power<T>(&self, f: impl FnOnce(&mut Power) -> T) -> T {
        f(&mut self.0.lock().expect("no panic while locked"))
    }
}

impl Handle {
    fn content<T>(&self, counts: bool, f: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        self.power.power(|power| {
            if power.life != self.life || power.left == Some(0) {
                return Err(io::Error::other("no power"));
            }
            if counts {
                power.writes += 1;
                power.left = power.left.map(|left| left - 1);
            }
            let content = power.files.get_mut(&self.path).ok_or_else(|| io::Error::other("the file is gone"))?;
            Ok(f(content))
        })
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> Result<u64, io::Error> {
        self.content(false, |content| content.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = offset as usize;
        let found = self.content(false, |content| content.now.get(at..at + out.len()).map(<[u8]>::to_vec))?;
        out.copy_from_slice(&found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.content(true, |content| {
            content.now.resize(len as usize, 0);
            content.pending.push(Err(len as usize));
        })
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.content(true, |content| {
            content.durable.clone_from(&content.now);
            content.pending.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = offset as usize;
        self.content(true, |content| {
            content.now[at..at + data.len()].copy_from_slice(data);
            content.pending.push(Ok((at, data.to_vec())));
        })
    }
}

impl Files for Faulty {
    fn open(&self, path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
        if !self.exists(path) {
            // A file gets its name when it is whole, as on a real disk.
            let unfinished = path.with_extension("new");
            self.power(|power| power.files.insert(unfinished.clone(), Content::default()));
            let made = Builder::new().create_with_backend(self.handle(&unfinished)).map(drop);
            let content = self.power(|power| power.files.remove(&unfinished)).expect("put there above");
            made?;
            let Content { now, .. } = content;
            let whole = Content { durable: now.clone(), now, pending: Vec::new() };
            self.power(|power| power.files.insert(path.to_owned(), whole));
        }
        Builder::new().set_cache_size(cache_bytes).create_with_backend(self.handle(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.power(|power| power.files.contains_key(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.power(|power| power.files.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.power(|power| power.files.remove(path));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.power(|power| power.files.retain(|path, _| !path.starts_with(dir)));
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.power(|power| {
            if power.left == Some(0) {
                return Err(io::Error::other("no power"));
            }
            let moved =
                std::mem::take(&mut power.files).into_iter().map(|(path, content)| match path.strip_prefix(from) {
                    Ok(rest) => (to.join(rest), content),
                    Err(_) => (path, content),
                });
            power.files = moved.collect();
            fs::rename(from, to)
        })
    }

    fn bytes(&self, path: &Path) -> u64 {
        self.power(|power| power.files.get(path).map_or(0, |content| content.now.len() as u64))
    }
}
