//! P2 for quotas: at most `limit` units are charged in a period.

use std::collections::BTreeMap;

use store::model::Name;

use super::{First, Violation};

const LAW: &str = "no over-admission: quota";

/// Units a period of the simulation's quota.
pub const QUOTA_UNITS: u64 = 60;

/// Charges by account, quota and period.
#[derive(Debug, Default)]
pub struct Quotas {
    charged: BTreeMap<(String, String, i64), u64>,
    first: First,
}

impl Quotas {
    /// A request was let through and charged.
    pub fn charged(&mut self, account: &str, quota: &Name, period_start: i64, units: u64) {
        let charged = self.charged.entry((account.to_owned(), quota.to_string(), period_start)).or_default();
        *charged += units;
        if *charged > QUOTA_UNITS {
            let charged = *charged;
            self.first.is(LAW, || {
                format!("{account}, {quota} from {period_start}: {charged} units of {QUOTA_UNITS} were charged")
            });
        }
    }

    /// Units that were charged to an account's newest period.
    pub fn newest(&self, account: &str) -> u64 {
        let of = self.charged.iter().filter(|((of, ..), _)| of == account);
        of.max_by_key(|((.., start), _)| *start).map_or(0, |(_, units)| *units)
    }

    pub(crate) fn take_violation(&mut self) -> Option<Violation> {
        self.first.take()
    }
}
