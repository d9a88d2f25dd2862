//! What this room keeps with an account's view: its concurrency and its quotas' slices, found once and not a request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{group::Group, slice::Slice, units::Entry};
use crate::{
    model::{MAX_LEDGER_GROUPS, Timestamp, slot_of},
    view::{AccountView, Policies, QuotaPolicy},
};

/// An account's, in one group of one node.
#[derive(Debug)]
pub(super) struct Handle {
    group: u64,
    pub(super) policies: Arc<Policies>,
    pub(super) units: Arc<Entry>,
    /// Of each of the policies' quotas, in their order; then of those that they replace, which have counters of their own
    /// where a key's quota replaces its account's.
    slices: Box<[Box<[Arc<Slice>]>]>,
}

/// Tells groups of one process apart, also those that are gone.
pub(super) fn next_serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

impl Handle {
    /// The account's, from its view or made.
    pub(super) fn of(group: &Group, account: &AccountView) -> Arc<Self> {
        let mut attachment = account.attachment();
        // One for each group that the account has been in.
        for _ in 0..MAX_LEDGER_GROUPS {
            match attachment.get_or_init(|| Arc::new(Self::new(group, account))) {
                Some(handle) if handle.group == group.serial => {
                    return attachment.shared().expect("it is there, of this type");
                }
                _ => attachment = attachment.next(),
            }
        }
        // A view that many nodes of one process share.
        Arc::new(Self::new(group, account))
    }

    fn new(group: &Group, account: &AccountView) -> Self {
        let slice = |policy: &QuotaPolicy| group.slice((&account.id, account.number), (&policy.counter, policy.number));
        let chain = |policy| {
            std::iter::successors(Some(policy), |policy: &&QuotaPolicy| policy.fallback.as_deref()).map(slice).collect()
        };
        let units = group.units.entry(account.number);
        units.set_slot(slot_of(&account.id));
        Self {
            group: group.serial,
            policies: account.policies.clone(),
            units,
            slices: account.policies.quotas.iter().map(chain).collect(),
        }
    }

    /// The quotas in force, with their slices.
    pub(super) fn quotas(&self, now: Timestamp) -> impl Iterator<Item = (&QuotaPolicy, &Arc<Slice>)> {
        let all = self.policies.quotas.iter().zip(&self.slices);
        all.filter_map(move |(policy, slices)| {
            let (in_force, depth) = policy.in_force_at(now)?;
            Some((in_force, slices.get(depth)?))
        })
    }
}
