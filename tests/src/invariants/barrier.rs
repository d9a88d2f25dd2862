//! P3: when a write of a key was answered, no node that may decide acts on what was before.

use std::time::Duration;

use super::{First, Violation};

const LAW: &str = "a write that returned is in force everywhere";

/// What a node that may decide makes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It knows no such key: 401.
    Unknown,
    /// It lets it through.
    Active,
    /// It refuses it: 401.
    Revoked,
}

#[derive(Debug, Default)]
struct Key {
    created: Option<Duration>,
    revoking: bool,
    revoked: Option<Duration>,
}

/// What was written of each key.
#[derive(Debug, Default)]
pub struct Barrier {
    keys: Vec<Key>,
    first: First,
}

impl Barrier {
    /// A key that will be created; its number.
    pub fn new_key(&mut self) -> usize {
        self.keys.push(Key::default());
        self.keys.len() - 1
    }

    /// Its creation was answered.
    pub fn created(&mut self, number: usize, at: Duration) {
        self.keys[number].created = Some(at);
    }

    /// It is about to be revoked.
    pub fn revoking(&mut self, number: usize) {
        self.keys[number].revoking = true;
    }

    /// Its revocation was answered.
    pub fn revoked(&mut self, number: usize, at: Duration) {
        self.keys[number].revoked.get_or_insert(at);
    }

    /// A node decided about a request with the key.
    pub fn seen(&mut self, number: usize, seen: Seen, node: &str, at: Duration) {
        let key = &self.keys[number];
        let before = |answered: Option<Duration>| answered.filter(|answered| *answered < at);
        match seen {
            Seen::Active => {
                if let Some(revoked) = before(key.revoked) {
                    self.first.is(LAW, || {
                        format!("{node} lets key {number} in at {at:?}, its revocation was answered at {revoked:?}")
                    });
                }
            }
            Seen::Unknown | Seen::Revoked => {
                if let (Some(created), false) = (before(key.created), key.revoking) {
                    self.first.is(LAW, || format!("{node} refuses key {number} at {at:?} as {seen:?}, its creation was answered at {created:?}"));
                }
            }
        }
    }

    pub(crate) fn take_violation(&mut self) -> Option<Violation> {
        self.first.take()
    }
}
