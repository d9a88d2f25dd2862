//! What reading a column gives.

use crate::model::{AccountId, Charge, Completion, KeyId, Name, Outcome};

/// A dictionary column: the distinct values in order of first appearance, and each row's index among them.
///
/// Test the values first and then only codes: a query on one account compares texts once a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Column<T> {
    /// Distinct values.
    pub values: Vec<T>,
    /// One a row, each below `values.len()`.
    pub codes: Vec<u32>,
}

impl<T> Column<T> {
    /// A row's value.
    ///
    /// # Panics
    /// When the block has no such row.
    pub fn get(&self, row: usize) -> &T {
        &self.values[self.codes[row] as usize]
    }

    /// Every row's value.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.codes.iter().map(|&code| &self.values[code as usize])
    }
}

/// Who asked: fields of a row that depend on its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose request.
    pub account: AccountId,
    /// With which key.
    pub key_id: KeyId,
    /// The tier that decided.
    pub tier: Name,
}

/// What became of it where: fields of a row that have few values each and mostly the same ones together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The route; empty when none matched.
    pub route: Name,
    /// Upper case.
    pub method: Name,
    /// The node that served it.
    pub node: Name,
    /// Its region.
    pub region: Name,
    /// The HTTP status that the client was sent.
    pub status: u16,
    /// How it was decided.
    pub outcome: Outcome,
    /// How the answer ended.
    pub completion: Completion,
    /// The second record of a streamed answer.
    pub settles: bool,
}

/// All charges of a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Charges {
    /// Each row's (quota, start of period), in order.
    pub lists: Column<Vec<(Name, i64)>>,
    /// Units of all charges, row after row.
    pub units: Vec<u64>,
    /// Where each row's units start in `units`.
    pub(super) starts: Vec<u32>,
}

impl Charges {
    /// A row's charges: quota, start of period, units.
    ///
    /// # Panics
    /// When the block has no such row.
    pub fn of(&self, row: usize) -> impl Iterator<Item = (&Name, i64, u64)> {
        let units = &self.units[self.starts[row] as usize..];
        self.lists.get(row).iter().zip(units).map(|((quota, start), units)| (quota, *start, *units))
    }

    pub(super) fn to_vec(&self, row: usize) -> Vec<Charge> {
        self.of(row).map(|(quota, period_start, units)| Charge { quota: quota.clone(), period_start, units }).collect()
    }
}
