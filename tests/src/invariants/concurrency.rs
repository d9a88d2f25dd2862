//! P2 for concurrency: at most so many requests of an account at once, over all nodes. A node that crashes ends its own.

use std::collections::BTreeMap;

use super::{First, Violation};

const LAW: &str = "no over-admission: concurrency";

/// The account that has a bound …
const ACCOUNT: &str = "acct-2";
/// … and its bound.
pub const CONCURRENCY: u32 = 3;

/// Requests under way.
#[derive(Debug, Default)]
pub struct Concurrency {
    open: BTreeMap<u64, usize>,
    next: u64,
    first: First,
}

impl Concurrency {
    /// A request of an account is let through on a node; its number.
    pub fn begun(&mut self, account: &str, node: usize) -> Option<u64> {
        if account != ACCOUNT {
            return None;
        }
        self.next += 1;
        self.open.insert(self.next, node);
        let open = self.open.len();
        if open > CONCURRENCY as usize {
            let nodes: Vec<_> = self.open.values().copied().collect();
            self.first
                .is(LAW, || format!("{account}: {open} requests at once, on nodes {nodes:?}, {CONCURRENCY} allowed"));
        }
        Some(self.next)
    }

    /// It ended.
    pub fn ended(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.open.remove(&number);
        }
    }

    /// A node is gone, and with it all that it did.
    pub fn crashed(&mut self, node: usize) {
        self.open.retain(|_, on| *on != node);
    }

    pub(crate) fn take_violation(&mut self) -> Option<Violation> {
        self.first.take()
    }
}
