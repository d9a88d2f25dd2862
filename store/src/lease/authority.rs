//! Who decides, and how to reach them: what the lease room needs from the raft room, and nothing of Raft itself.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::model::{AccountId, GroupId, NodeId, Reservation, Unavailable};

/// This node's leadership of a ledger group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// Raft's term; names the leader.
    pub term: u64,
    /// When this node began to use the leadership, on its lease clock ([`Authority::now_ns`]): after the leader lease of
    /// its predecessor had certainly run out. Later in the same term when it was given up and taken again.
    pub since_ns: u64,
    /// Nobody can have decided for this group before: its log was empty when the term began. Buckets start full only then.
    pub fresh: bool,
}

/// Which run of which node holds units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its incarnation, minted durably at every start; greater than those before.
    pub incarnation: u64,
}

/// What a reservation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    /// Units reserved for the asker; fewer than wanted (down to none) when the quota has no more.
    pub units: u64,
    /// Units of the period that nobody has used or reserved, right after this reservation, where that is known. It is
    /// for the `RateLimit` header and for smaller slices near the end, never for a decision.
    pub free: Option<u64>,
}

/// Where an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its ledger group.
    pub group: GroupId,
    /// Its slot; none where there is one ledger group.
    pub slot: Option<u16>,
    /// Requests are let through: the slot is not on its way to another group.
    pub is_open: bool,
}

/// Who decides and how to reach them. Implemented over Raft; all but the two futures answer from memory, in nanoseconds.
pub trait Authority: Send + Sync + 'static {
    /// The lease clock: `CLOCK_BOOTTIME` in nanoseconds. It never stops, also while the machine sleeps.
    fn now_ns(&self) -> u64;

    /// This run of this node.
    fn holder(&self) -> Holder;

    /// The ledger groups that there are, so that this node also tells a leader what it holds when it has no demand.
    fn groups(&self) -> Vec<GroupId> {
        vec![GroupId::LEDGER]
    }

    /// The ledger group that an account is placed in.
    fn group(&self, account: &AccountId) -> GroupId;

    /// Where an account is as this node acts on. What a request has taken before this call is seen by whoever closes its slot.
    fn place(&self, account: &AccountId) -> Place {
        Place { group: self.group(account), slot: None, is_open: true }
    }

    /// Whether this node, as the group's leader, may decide about accounts in a slot, and since when the slot is the group's
    /// (lease clock; 0: since before this node led): what an earlier group let through was let through before. None when it may
    /// not: the slot is another group's, or on its way, or this node does not know yet what the earlier group left.
    fn decides(&self, group: GroupId, slot: Option<u16>) -> Option<u64> {
        let _ = (group, slot);
        Some(0)
    }

    /// This node's leadership of the group, if it has a leader lease that is valid at `now_ns` and has waited out its
    /// predecessor's. While it drains or hands leadership over: none.
    fn leading(&self, group: GroupId, now_ns: u64) -> Option<Leadership>;

    /// All other nodes that may serve requests of the group's accounts: every member, voter or not.
    fn peers(&self, group: GroupId) -> Vec<NodeId>;

    /// Hands a message to the group's leader, whose [`super::Leases::answer`] makes the answer.
    ///
    /// Delivers at most once (no retry below this call after bytes have left) and gives up by itself within a second or so.
    ///
    /// # Errors
    /// [`Unavailable`]: no leader is known, or no answer came. The message may have been acted on.
    fn ask(&self, group: GroupId, body: Bytes) -> BoxFuture<'static, Result<Bytes, Unavailable>>;

    /// What the replicated state has reserved for a made-up account (see `lease::debt`), by the number that stands for a
    /// period. As this replica has applied; on a leader that is everything from before it led.
    ///
    /// # Errors
    /// The disk: nothing is known.
    fn reserved(&self, group: GroupId, account: &AccountId) -> Result<Vec<(i64, u64)>, Unavailable>;

    /// Replicates reservations (`ColdCommand::Reserve`) and says what each came to, in order. Negative units are returns;
    /// what they come to is not looked at.
    ///
    /// # Errors
    /// [`Unavailable`]: no quorum in time. The reservations may have been made; their units are then lost to the period.
    fn reserve(
        &self,
        group: GroupId,
        reservations: Vec<Reservation>,
    ) -> BoxFuture<'static, Result<Vec<Granted>, Unavailable>>;
}
