//! What columns are made of: a section's integers, codes into dictionaries, tuples.

use super::Block;
use crate::state::block::{BlockError, head::Section, ints, names::Names, wire::Reader};

impl<'a> Block<'a> {
    pub(super) fn section(&self, section: Section) -> Reader<'a> {
        Reader::new(&self.bytes[self.head.sections[section as usize].clone()])
    }

    /// An integer column; absent ones are zeros.
    pub(super) fn ints(&self, section: Section, count: usize) -> Result<Vec<u64>, BlockError> {
        let mut from = self.section(section);
        if from.left() == 0 {
            return Ok(vec![0; count]);
        }
        let values = ints::read(&mut from, count)?;
        from.end()?;
        Ok(values)
    }

    /// A code column; every code is below `values` when this returns.
    pub(super) fn codes(&self, section: Section, values: usize) -> Result<Vec<u32>, BlockError> {
        if values == 1 && self.section(section).left() == 0 {
            return Ok(vec![0; self.rows()]);
        }
        let mut seen = 0u64;
        let code = |coded: u64| {
            let code = if coded == 0 { seen } else { coded - 1 };
            seen += u64::from(coded == 0);
            if code < seen { Some(code as u32) } else { None }
        };
        let codes: Option<Vec<u32>> = self.ints(section, self.rows())?.into_iter().map(code).collect();
        match codes {
            Some(codes) if seen == values as u64 => Ok(codes),
            _ => Err(BlockError::Damaged("a code outside its dictionary")),
        }
    }

    /// A table of tuples, field by field.
    pub(super) fn tuples<const FIELDS: usize>(&self, section: Section) -> Result<[Vec<u64>; FIELDS], BlockError> {
        let mut from = self.section(section);
        let count = from.count(self.rows(), "more tuples than rows")?;
        let mut fields = [const { Vec::new() }; FIELDS];
        for field in &mut fields {
            *field = ints::read(&mut from, count)?;
        }
        from.end()?;
        Ok(fields)
    }

    pub(in crate::state) fn names(&self) -> Result<Names, BlockError> {
        Names::read(self.section(Section::Names), self.rows())
    }
}
