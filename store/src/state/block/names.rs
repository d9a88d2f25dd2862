//! The names section: eight dictionaries as one column, so that a small block pays for one head and one heap.

use super::{
    BlockError, MAX_CHARGES, MAX_TEXT, MAX_TEXT_BYTES, ints, ulid,
    wire::{Reader, put_varint},
    zip,
};

/// The dictionaries, in their stored order.
#[derive(Clone, Copy)]
pub(super) enum Dictionary {
    Account = 0,
    Key = 1,
    Tier = 2,
    Route = 3,
    Method = 4,
    Node = 5,
    Region = 6,
    Quota = 7,
}

const DICTIONARIES: usize = 8;

/// Writes their counts; for each text `2 * length`, or `2 * length of prefix + 1` when a ULID follows that is not in the
/// heap; the ULIDs in halves; the heap.
pub(super) fn put(out: &mut Vec<u8>, dictionaries: [&[&str]; DICTIONARIES]) {
    let all = dictionaries.iter().map(|texts| texts.len()).sum();
    let (mut lengths, mut high, mut low) = (Vec::with_capacity(all), Vec::with_capacity(all), Vec::with_capacity(all));
    let mut heap = Vec::with_capacity(all * 8);
    for texts in dictionaries {
        put_varint(out, texts.len() as u64);
        for name in texts {
            let (text, has_ulid) = match ulid::split(name) {
                Some((prefix, bits)) => {
                    high.push((bits >> 64) as u64);
                    low.push(bits as u64);
                    (prefix, 1)
                }
                None => (*name, 0),
            };
            lengths.push(text.len() as u64 * 2 + has_ulid);
            heap.extend_from_slice(text.as_bytes());
        }
    }
    for column in [&lengths, &high, &low] {
        ints::put(out, column);
    }
    zip::put_heap(out, &heap);
}

/// The section as it was read; a text is built when it is asked for.
pub(super) struct Names {
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

    /// All texts of a dictionary.
    pub(super) fn all<T: for<'t> From<&'t str> + From<String>>(&self, of: Dictionary) -> Vec<T> {
        self.entries[self.starts[of as usize]..self.starts[of as usize + 1]]
            .iter()
            .map(|&(start, length, ulid)| {
                let text = &self.heap[start as usize..(start + length) as usize];
                ulid.map_or_else(|| T::from(text), |bits| T::from(ulid::joined(text, bits)))
            })
            .collect()
    }

    /// A text's code; none when the block has no row with it. No text is built.
    pub(super) fn find(&self, of: Dictionary, text: &str) -> Option<u64> {
        let (text, ulid) = ulid::split(text).map_or((text, None), |(prefix, bits)| (prefix, Some(bits)));
        let entries = &self.entries[self.starts[of as usize]..self.starts[of as usize + 1]];
        let same = |&(start, length, bits): &(u32, u32, Option<u128>)| {
            bits == ulid && &self.heap[start as usize..(start + length) as usize] == text
        };
        entries.iter().position(same).map(|code| code as u64)
    }
}

const MISFIT: &str = "texts that do not fit their lengths";

/// A heap as text.
pub(super) fn utf8(heap: Vec<u8>) -> Result<String, BlockError> {
    String::from_utf8(heap).map_err(|_| BlockError::Damaged("text that is not UTF-8"))
}

fn text_at(heap: &str, at: usize, length: u64) -> Result<&str, BlockError> {
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_TEXT);
    length.and_then(|length| heap.get(at..at + length)).ok_or(BlockError::Damaged(MISFIT))
}

/// A heap cut at these lengths, which must cover it.
pub(super) fn split<'h>(heap: &'h str, lengths: &[u64]) -> Result<Vec<&'h str>, BlockError> {
    let mut texts = Vec::with_capacity(lengths.len());
    let mut at = 0;
    for &length in lengths {
        let text = text_at(heap, at, length)?;
        at += text.len();
        texts.push(text);
    }
    if at == heap.len() { Ok(texts) } else { Err(BlockError::Damaged(MISFIT)) }
}
