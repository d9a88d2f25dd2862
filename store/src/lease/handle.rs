//! What this room keeps with an account's view: its concurrency and its quotas' slices, found once and not a request.

use std::{iter, sync::Arc};

use super::{few::Few, group::Group, slice::Slice, units::Entry};
use crate::{
    model::{MAX_LEDGER_GROUPS, Timestamp, slot_of},
    view::{AccountView, Attached, Policies, QuotaPolicy},
};

/// An account's, in one group of one node.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) group: Arc<Group>,
    pub(super) policies: Arc<Policies>,
    pub(super) units: Arc<Entry>,
    /// Of each of the policies' quotas, in their order, each followed by those that it replaces, which have counters of their
    /// own where a key's quota replaces its account's.
    slices: Few<Arc<Slice>>,
}

impl Handle {
    /// The account's, from its view or made.
    pub(super) fn of(group: &Arc<Group>, account: &AccountView) -> Arc<Self> {
        let mut attachment = account.attachment();
        // One for each group that the account has been in.
        for _ in 0..MAX_LEDGER_GROUPS {
            match attachment.get_or_init(|| Self::new(group, account).with_near()) {
                Some(handle) if Arc::ptr_eq(&handle.group, group) => return handle,
                _ => attachment = attachment.next(),
            }
        }
        // A view that many nodes of one process share.
        Arc::new(Self::new(group, account))
    }

    fn new(group: &Arc<Group>, account: &AccountView) -> Self {
        let slice = |policy: &QuotaPolicy| group.slice((&account.id, account.number), (&policy.counter, policy.number));
        let units = group.units.entry(account.number);
        units.set_slot(slot_of(&account.id));
        Self {
            group: group.clone(),
            policies: account.policies.clone(),
            units,
            slices: account.policies.quotas.iter().flat_map(chain).map(slice).collect(),
        }
    }

    /// With what a decision goes on to from here.
    fn with_near(self) -> (Arc<Self>, [Option<Arc<Attached>>; 2]) {
        let units = self.policies.concurrency.map(|_| self.units.clone() as Arc<Attached>);
        let slice = self.slices.first().cloned().map(|slice| slice as Arc<Attached>);
        (Arc::new(self), [units, slice])
    }

    /// The quotas in force, with their slices.
    pub(super) fn quotas(&self, now: Timestamp) -> impl Iterator<Item = (&QuotaPolicy, &Arc<Slice>)> {
        self.placed_quotas(now).map(|(policy, place)| (policy, self.slice(place)))
    }

    /// The quotas in force, each with the place of its slice.
    pub(super) fn placed_quotas(&self, now: Timestamp) -> impl Iterator<Item = (&QuotaPolicy, u32)> {
        let mut next = 0;
        self.policies.quotas.iter().filter_map(move |policy| {
            let first = next;
            next += chain(policy).count();
            let (in_force, depth) = policy.in_force_at(now)?;
            Some((in_force, u32::try_from(first + depth).ok()?))
        })
    }

    /// The slice at a place.
    pub(super) fn slice(&self, place: u32) -> &Arc<Slice> {
        &self.slices[place as usize]
    }
}

/// A quota and those that it replaces.
fn chain(policy: &QuotaPolicy) -> impl Iterator<Item = &QuotaPolicy> {
    iter::successors(Some(policy), |policy| policy.fallback.as_deref())
}
