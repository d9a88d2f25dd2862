//! Dictionaries while a block is gathered: a value's code is its rank by first appearance.
//!
//! Maps are only asked, never walked, so the codes do not depend on their hashing.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    thread,
};

use super::{EncodeError, MAX_TEXT, names::Parts};

/// Names. Rows share theirs, so the same address is mostly met again, and its code is found without reading it.
pub(super) struct Names<'a> {
    field: &'static str,
    pub(super) names: Vec<Parts<'a>>,
    by_name: HashMap<Parts<'a>, u64, Seeded>,
    by_address: HashMap<(usize, usize), u64, Seeded>,
    last: (&'a str, u64),
}

impl<'a> Names<'a> {
    pub(super) fn new(field: &'static str) -> Self {
        Self {
            field,
            names: Vec::new(),
            by_name: HashMap::default(),
            by_address: HashMap::default(),
            last: ("", u64::MAX),
        }
    }

    pub(super) fn reserve(&mut self, names: usize) {
        self.names.reserve(names);
        self.by_name.reserve(names);
        self.by_address.reserve(names);
    }

    /// The code of a row's name.
    pub(super) fn code(&mut self, name: &'a str) -> Result<u64, EncodeError> {
        if std::ptr::eq(self.last.0, name) && self.last.1 != u64::MAX {
            return Ok(self.last.1);
        }
        let address = (name.as_ptr() as usize, name.len());
        let code = match self.by_address.get(&address) {
            Some(&code) => code,
            None => {
                check_length(self.field, name.len())?;
                let code = self.code_of(Parts::of(name))?;
                self.by_address.insert(address, code);
                code
            }
        };
        self.last = (name, code);
        Ok(code)
    }

    /// The code of another block's name.
    pub(super) fn code_of(&mut self, name: Parts<'a>) -> Result<u64, EncodeError> {
        check_length(self.field, name.len())?;
        Ok(*self.by_name.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() as u64 - 1
        }))
    }
}

/// Texts that are each row's own.
pub(super) struct Texts<'a> {
    field: &'static str,
    pub(super) texts: Vec<&'a str>,
    codes: HashMap<&'a str, u64, Seeded>,
    last: u64,
}

impl<'a> Texts<'a> {
    pub(super) fn new(field: &'static str) -> Self {
        Self { field, texts: Vec::new(), codes: HashMap::default(), last: 0 }
    }

    pub(super) fn reserve(&mut self, texts: usize) {
        self.texts.reserve(texts);
        self.codes.reserve(texts);
    }

    /// The text's code.
    pub(super) fn code(&mut self, text: &'a str) -> Result<u64, EncodeError> {
        if self.texts.get(self.last as usize).is_some_and(|last| *last == text) {
            return Ok(self.last);
        }
        check_length(self.field, text.len())?;
        self.last = *self.codes.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u64 - 1
        });
        Ok(self.last)
    }
}

fn check_length(field: &'static str, bytes: usize) -> Result<(), EncodeError> {
    if bytes > MAX_TEXT { Err(EncodeError::TextTooLong { field, bytes, max: MAX_TEXT }) } else { Ok(()) }
}

/// Values of another kind: tuples of codes, addresses, lists.
pub(super) struct Table<K> {
    pub(super) values: Vec<K>,
    codes: HashMap<K, u64, Seeded>,
    last: u64,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { values: Vec::new(), codes: HashMap::default(), last: 0 }
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    pub(super) fn reserve(&mut self, values: usize) {
        self.values.reserve(values);
        self.codes.reserve(values);
    }

    /// The value's code.
    pub(super) fn code<Q>(&mut self, value: &Q) -> u64
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        if self.values.get(self.last as usize).is_some_and(|last| last.borrow() == value) {
            return self.last;
        }
        self.last = match self.codes.get(value) {
            Some(&code) => code,
            None => {
                let code = self.values.len() as u64;
                self.codes.insert(value.to_owned(), code);
                self.values.push(value.to_owned());
                code
            }
        };
        self.last
    }
}

/// Hashing by folded multiplication from a secret start: clients choose paths and addresses, and must not be able to choose
/// ones that collide. Several times faster than the standard library's on texts this short.
#[derive(Clone, Copy)]
pub(super) struct Seeded(u64);

thread_local! {
    static SEED: u64 = RandomState::new().hash_one(thread::current().id());
}

impl Default for Seeded {
    fn default() -> Self {
        Self(SEED.with(|seed| *seed))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.0, secret: self.0.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15 }
    }
}

/// See [`Seeded`].
pub(super) struct Folded {
    state: u64,
    secret: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.secret | 1);
        self.state = (product as u64) ^ ((product >> 64) as u64).wrapping_add(self.secret);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
