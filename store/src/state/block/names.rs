//! The names section: eight dictionaries as one column, so that a small block pays for one head and one heap.
//!
//! A name is handled in its [`Parts`]: joining blocks builds no text, and never takes one apart again.

use std::hash::{Hash, Hasher};

use super::{
    BlockError, MAX_CHARGES, MAX_TEXT, MAX_TEXT_BYTES, ints,
    texts::Text,
    ulid,
    wire::{Reader, put_varint},
    zip,
};

/// The dictionaries, in their stored order.
#[derive(Clone, Copy)]
pub(in crate::state) enum Dictionary {
    Account = 0,
    Key = 1,
    Tier = 2,
    Route = 3,
    Method = 4,
    Node = 5,
    Region = 6,
    Quota = 7,
}

pub(super) const DICTIONARIES: usize = 8;

/// A name as blocks have it: a text, and the ULID that followed it in its canonical spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) text: &'a str,
    pub(super) ulid: Option<u128>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        ulid::split(name).map_or(Self { text: name, ulid: None }, |(text, bits)| Self { text, ulid: Some(bits) })
    }

    /// Bytes of the whole name.
    pub(super) fn len(&self) -> usize {
        self.text.len() + if self.ulid.is_some() { ulid::LENGTH } else { 0 }
    }

    /// The whole name.
    pub(super) fn to_name<T: Text>(self) -> T {
        self.ulid.map_or_else(|| T::from(self.text), |bits| T::from(ulid::joined(self.text, bits)))
    }
}

impl Hash for Parts<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Some(bits) = self.ulid {
            state.write_u64((bits >> 64) as u64);
            state.write_u64(bits as u64);
        }
        state.write(self.text.as_bytes());
    }
}

/// Writes their counts; for each text `2 * length`, or `2 * length of prefix + 1` when a ULID follows that is not in the
/// heap; the ULIDs in halves; the heap.
pub(super) fn put(out: &mut Vec<u8>, dictionaries: [&[Parts<'_>]; DICTIONARIES]) {
    let all = dictionaries.iter().map(|names| names.len()).sum();
    let (mut lengths, mut high, mut low) = (Vec::with_capacity(all), Vec::with_capacity(all), Vec::with_capacity(all));
    let mut heap = Vec::with_capacity(all * 8);
    for names in dictionaries {
        put_varint(out, names.len() as u64);
        for name in names {
            if let Some(bits) = name.ulid {
                high.push((bits >> 64) as u64);
                low.push(bits as u64);
            }
            lengths.push(name.text.len() as u64 * 2 + u64::from(name.ulid.is_some()));
            heap.extend_from_slice(name.text.as_bytes());
        }
    }
    for column in [&lengths, &high, &low] {
        ints::put(out, column);
    }
    zip::put_heap(out, &heap);
}

/// The section as it was read; a text is built when it is asked for.
pub(in crate::state) struct Names {
    heap: String,
    /// Start and length in the heap, and what follows.
    entries: Vec<(u32, u32, Option<u128>)>,
    starts: [usize; DICTIONARIES + 1],
}

impl Names {
    pub(super) fn read(mut from: Reader<'_>, rows: usize) -> Result<Self, BlockError> {
        let mut starts = [0; DICTIONARIES + 1];
        for dictionary in 0..DICTIONARIES {
            let max = if dictionary == Dictionary::Quota as usize { MAX_CHARGES } else { rows };
            starts[dictionary + 1] = starts[dictionary] + from.count(max, "more names than rows")?;
        }
        let lengths = ints::read(&mut from, starts[DICTIONARIES])?;
        let ulids = lengths.iter().filter(|length| **length % 2 == 1).count();
        let high = ints::read(&mut from, ulids)?;
        let low = ints::read(&mut from, ulids)?;
        let heap = utf8(zip::read_heap(&mut from, MAX_TEXT_BYTES)?)?;
        from.end()?;
        let mut ulids = high.into_iter().zip(low).map(|(high, low)| u128::from(high) << 64 | u128::from(low));
        let mut entries = Vec::with_capacity(lengths.len());
        let mut at = 0;
        for length in lengths {
            let text = text_at(&heap, at, length / 2)?;
            entries.push((at as u32, text.len() as u32, if length % 2 == 1 { ulids.next() } else { None }));
            at += text.len();
        }
        if at == heap.len() { Ok(Self { heap, entries, starts }) } else { Err(BlockError::Damaged(MISFIT)) }
    }

    /// All names of a dictionary.
    pub(super) fn parts(&self, of: Dictionary) -> impl ExactSizeIterator<Item = Parts<'_>> {
        self.entries[self.starts[of as usize]..self.starts[of as usize + 1]].iter().map(|&(start, length, ulid)| {
            let text = &self.heap[start as usize..(start + length) as usize];
            // Only a forged block has a ULID in its heap.
            if ulid.is_some() { Parts { text, ulid } } else { Parts::of(text) }
        })
    }

    /// A text's code; none when the block has no row with it. No text is built.
    pub(super) fn find(&self, of: Dictionary, text: &str) -> Option<u64> {
        let name = Parts::of(text);
        self.parts(of).position(|other| other == name).map(|code| code as u64)
    }
}

pub(super) const MISFIT: &str = "texts that do not fit their lengths";

/// A heap as text.
pub(super) fn utf8(heap: Vec<u8>) -> Result<String, BlockError> {
    String::from_utf8(heap).map_err(|_| BlockError::Damaged("text that is not UTF-8"))
}

/// A piece of a heap.
pub(super) fn text_at(heap: &str, at: usize, length: u64) -> Result<&str, BlockError> {
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_TEXT);
    length.and_then(|length| heap.get(at..at + length)).ok_or(BlockError::Damaged(MISFIT))
}
