//! Texts in one heap.

use crate::state::block::{BlockError, MAX_TEXT_BYTES, names, wire::Reader, zip};

/// Texts in one heap, some of which may be none.
pub(in crate::state::block) struct Strings {
    heap: String,
    /// Where each ends, and whether there is one.
    ends: Vec<(u32, bool)>,
}

impl Strings {
    /// One empty text.
    pub(super) fn nothing() -> Self {
        Self { heap: String::new(), ends: vec![(0, true)] }
    }

    pub(super) fn read(from: &mut Reader<'_>, lengths: impl Iterator<Item = Option<u64>>) -> Result<Self, BlockError> {
        let heap = names::utf8(zip::read_heap(from, MAX_TEXT_BYTES)?)?;
        let mut at = 0;
        let end = |length: Option<u64>| {
            at += length.map_or(Ok(0), |length| names::text_at(&heap, at, length).map(str::len))?;
            Ok((at as u32, length.is_some()))
        };
        let ends: Vec<(u32, bool)> = lengths.map(end).collect::<Result<_, BlockError>>()?;
        if at == heap.len() { Ok(Self { heap, ends }) } else { Err(BlockError::Damaged(names::MISFIT)) }
    }

    /// The texts.
    pub(in crate::state::block) fn options(&self) -> impl Iterator<Item = Option<&str>> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, is_there)| {
            let text = &self.heap[start as usize..end as usize];
            start = end;
            is_there.then_some(text)
        })
    }

    /// The texts that are there.
    pub(in crate::state::block) fn iter(&self) -> impl Iterator<Item = &str> {
        self.options().flatten()
    }
}
