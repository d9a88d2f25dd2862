//! Leases on a view of group 0: "until then, whatever was answered is in this replica, or its writer has waited for me" (P3).
//!
//! A node asks the leader a few times a second. The answer names an index: the lease counts as soon as the replica's view is
//! that new, and until a fixed time after the ask was *sent*, so a slow answer makes it shorter and never longer. A node that
//! is in contact and does not apply what it receives has therefore no valid lease once the old ones have run out. The leader
//! notes when it grants, before it looks which index to name: a write that was applied after that look finds the note and
//! waits for that node, or for its lease to run out; leases granted later name that write's index. A node that is not yet as
//! far as its last lease named gets no other, so that a stuck node is waited for once and not with every write.
//!
//! A new leader does not know what its predecessor has granted and waits as if it had been everything to everybody, until
//! [`grants_of_predecessor`] (Gray and Cheriton 1989, 5).

use std::{collections::VecDeque, time::Duration};

use minicbor::{Decode, Encode};

use super::group::LEADER_TRUST;
use crate::model::{GroupId, NodeId, NodeInfo};

/// How long a lease lasts, by the leader's clock.
pub(crate) const VIEW_LEASE: Duration = Duration::from_secs(3);
/// How much the clocks of two nodes may drift apart over a lease; the holder's lease is shorter by it.
const DRIFT: Duration = Duration::from_millis(60);
/// How often a lease is asked for.
pub(super) const RENEWAL: Duration = Duration::from_millis(250);
/// Leases that wait for the view to be new enough; older ones are forgotten at the bound, which shortens and never lengthens.
const MAX_HELD: usize = 16;

/// The leader's answer to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct ViewGrant {
    /// The lease counts for a view that has this entry; none when there is no new lease.
    #[n(0)]
    pub(super) index: Option<u64>,
    /// How long the leader will wait for it.
    #[n(1)]
    pub(super) lease_ms: u64,
    /// The leader has waited out its predecessor and decides about units.
    #[n(2)]
    pub(super) decides: bool,
}

/// A node's ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct ViewAsk {
    #[n(0)]
    pub(super) group: GroupId,
    #[n(1)]
    pub(super) node: NodeId,
    /// The newest entry that it acts on.
    #[n(2)]
    pub(super) in_force: u64,
}

/// What the leader remembers of the last lease of a node.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) info: NodeInfo,
    /// Lease clock before the index was looked up.
    pub(super) at_ns: u64,
    pub(super) index: u64,
}

/// A stretch of the lease clock in which a view may be trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// What had been answered by then is in the view.
    pub(super) from_ns: u64,
    /// What is answered before then is in the view as well, or its writer has waited.
    pub(super) until_ns: u64,
}

impl Trust {
    /// By an ask that was sent at `asked_ns`, or a leader's by its own quorum at that time.
    pub(super) fn of(asked_ns: u64, lease: Duration) -> Self {
        let lease = ns(lease.min(VIEW_LEASE).saturating_sub(DRIFT));
        Self { from_ns: asked_ns, until_ns: asked_ns.saturating_add(lease) }
    }
}

/// The leases that a node holds on its view of one group.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<(u64, Trust)>);

impl Held {
    /// An ask that was sent at `asked_ns` was granted.
    pub(super) fn granted(&mut self, asked_ns: u64, grant: &ViewGrant) {
        let Some(index) = grant.index else { return };
        if self.0.len() >= MAX_HELD {
            self.0.pop_front();
        }
        self.0.push_back((index, Trust::of(asked_ns, Duration::from_millis(grant.lease_ms))));
    }

    /// The newest lease that a view which has every entry up to `in_force` fulfils; older ones are forgotten.
    pub(super) fn fulfilled(&mut self, in_force: u64) -> Option<Trust> {
        let newest = self.0.iter().rposition(|(index, _)| *index <= in_force)?;
        self.0.drain(..newest);
        self.0.front().map(|(_, trust)| *trust)
    }
}

/// Until when leases may run that the predecessor of a leadership which began at `since_ns` has granted. The predecessor may
/// have trusted its own leadership for a while after that, when it had handed it over.
pub(super) fn grants_of_predecessor(since_ns: u64) -> u64 {
    since_ns.saturating_add(ns(LEADER_TRUST + VIEW_LEASE))
}

/// Until when a lease that was granted at `at_ns` may run.
pub(super) fn end_of_grant(at_ns: u64) -> u64 {
    at_ns.saturating_add(ns(VIEW_LEASE))
}

pub(super) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn grant(index: u64) -> ViewGrant {
        ViewGrant { index: Some(index), lease_ms: 3_000, decides: true }
    }

    #[test]
    fn a_lease_counts_once_the_view_is_as_new_as_it_says_and_from_when_it_was_asked_for() {
        let mut held = Held::default();
        assert_eq!(held.fulfilled(9), None);
        held.granted(10 * SECOND, &grant(5));
        held.granted(11 * SECOND, &grant(8));
        assert_eq!(held.fulfilled(4), None, "neither");
        let trust = held.fulfilled(7).expect("the older one");
        assert_eq!((trust.from_ns, trust.until_ns), (10 * SECOND, 13 * SECOND - 60_000_000));
        // The holder's end comes before the one that the leader waits for, whenever the leader has answered.
        assert!(trust.until_ns < end_of_grant(10 * SECOND));
        assert_eq!(held.fulfilled(8).map(|trust| trust.from_ns), Some(11 * SECOND));
        assert_eq!(held.fulfilled(8).map(|trust| trust.from_ns), Some(11 * SECOND), "it still counts");
    }

    #[test]
    fn a_view_that_stands_still_gets_no_more_time() {
        let mut held = Held::default();
        held.granted(SECOND, &grant(5));
        let until = held.fulfilled(5).map(|trust| trust.until_ns);
        for n in 0..100 {
            held.granted(2 * SECOND + n, &grant(6));
            let now = held.fulfilled(5).map(|trust| trust.until_ns);
            assert!(now.is_none() || now == until, "{now:?}");
        }
        assert!(held.0.len() <= MAX_HELD);
    }

    #[test]
    fn a_leader_never_grants_more_than_its_successor_waits_for() {
        let long = ViewGrant { index: Some(0), lease_ms: 3_600_000, decides: true };
        let mut held = Held::default();
        held.granted(SECOND, &long);
        assert!(held.fulfilled(0).expect("held").until_ns < end_of_grant(SECOND));
    }
}
