//! What nodes say to a group's leader and what it answers: a version byte, then minicbor (indexed, so that a newer node's
//! fields are skipped). Drawn in `store/README.md`.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{authority::Holder, bucket::Wanted, group::Wants};
use crate::model::{GroupId, NodeId};

const VERSION: u8 = 2;

/// A node's message: what it holds, what it has spent, what it asks for. In this order, so that what comes back can be
/// granted again at once.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Ask {
    #[n(0)]
    pub(super) group: GroupId,
    #[n(1)]
    pub(super) node: NodeId,
    #[n(2)]
    pub(super) incarnation: u64,
    /// 1, 2, 3, … within the incarnation and group. A message that comes after a later one is not acted on.
    #[n(3)]
    pub(super) number: u64,
    /// `held` and `reports` are all that the node holds, rather than what has changed since its last message.
    #[n(4)]
    pub(super) full: bool,
    /// Concurrency units that the node holds, by account.
    #[n(5)]
    pub(super) held: Vec<(u64, u32)>,
    #[n(6)]
    pub(super) demands: Vec<WireDemand>,
    /// The rate units that it holds on lease.
    #[n(7)]
    pub(super) reports: Vec<Report>,
    #[n(8)]
    pub(super) ahead: Vec<Ahead>,
}

/// What became of a lease of rate units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Report {
    /// The bucket.
    #[n(0)]
    pub(super) name: u64,
    #[n(1)]
    pub(super) lease: u64,
    /// Of the leader that gave it.
    #[n(2)]
    pub(super) term: u64,
    /// Units spent since it began.
    #[n(3)]
    pub(super) spent: u64,
    /// Units that the node may still spend.
    #[n(4)]
    pub(super) left: u64,
    /// Since the last of them was spent.
    #[n(5)]
    pub(super) age_ns: u64,
}

/// Units wanted ahead of demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Ahead {
    #[n(0)]
    pub(super) wanted: Wanted,
    #[n(1)]
    pub(super) units: u64,
}

/// One request's demand on the leader.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct WireDemand {
    #[n(0)]
    pub(super) account: u64,
    /// The concurrency limit.
    #[n(1)]
    pub(super) concurrency: Option<u32>,
    #[n(2)]
    pub(super) rates: Vec<Wanted>,
    /// Only looks.
    #[n(3)]
    #[cbor(default)]
    pub(super) look: bool,
    /// The account's slot; none where there is one ledger group.
    #[n(4)]
    pub(super) slot: Option<u16>,
}

/// The leader's answer.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) enum Answer {
    /// Not (or no longer, or not yet) the leader; nothing was done.
    #[n(0)]
    NotLeading,
    /// The leader does not know what this node holds: say it in full. Nothing was done.
    #[n(1)]
    SayAll,
    /// Overtaken by a later message of the node; nothing was done.
    #[n(2)]
    Stale,
    /// Not understood, and why; nothing was done.
    #[n(3)]
    Unreadable(#[n(0)] String),
    #[n(4)]
    Decided(#[n(0)] Decided),
}

/// What the leader did.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub(super) struct Decided {
    #[n(0)]
    pub(super) term: u64,
    /// The leader's lease clock when it decided.
    #[n(1)]
    pub(super) now_ns: u64,
    /// A verdict for each demand, in order.
    #[n(2)]
    pub(super) verdicts: Vec<Verdict>,
    /// Units lent, one a bucket: those of the demands that were granted, and those ahead.
    #[n(3)]
    pub(super) lent: Vec<Lent>,
    /// Accounts of which the node may keep so many concurrency units idle, where that has changed.
    #[n(4)]
    pub(super) keep: Vec<(u64, u32)>,
}

/// Units of a bucket that a node may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Lent {
    #[n(0)]
    pub(super) name: u64,
    /// The lease that they are added to.
    #[n(1)]
    pub(super) lease: u64,
    #[n(2)]
    pub(super) units: u64,
    /// Of the policies that they were lent under.
    #[n(3)]
    pub(super) revision: u64,
    /// The bucket is nearly empty: say soon what was spent.
    #[n(4)]
    pub(super) prompt: bool,
}

/// What became of a demand.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Verdict {
    #[n(0)]
    pub(super) decision: Decision,
    /// The account's concurrency units that somebody holds, after it.
    #[n(1)]
    pub(super) in_use: u64,
    /// Each rate, in the order asked.
    #[n(2)]
    pub(super) rates: Vec<RateLevel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Decision {
    /// Taken (or, when only looking, it would be).
    #[n(0)]
    Granted,
    #[n(1)]
    Concurrency,
    #[n(2)]
    Rate,
    /// The leader may not decide yet: it is new, or the replicated state must let it spend first.
    #[n(3)]
    NotYet,
}

/// A bucket after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct RateLevel {
    #[n(0)]
    pub(super) tat_ns: u64,
    /// The time to wait, when this bucket refused.
    #[n(1)]
    pub(super) retry_after_ns: Option<u64>,
    /// So long certainly no unit is there, whatever other nodes give back.
    #[n(2)]
    pub(super) none_for_ns: u64,
}

impl WireDemand {
    pub(super) fn wants(&self) -> Wants {
        let rates = self.rates.iter().copied().collect();
        Wants { account: self.account, slot: self.slot, concurrency: self.concurrency, rates }
    }
}

impl Ask {
    pub(super) fn holder(&self) -> Holder {
        Holder { node: self.node, incarnation: self.incarnation }
    }
}

pub(super) fn encode<T: Encode<()>>(message: &T) -> Bytes {
    let mut out = vec![VERSION];
    minicbor::encode(message, &mut out).expect("writing to memory cannot fail");
    out.into()
}

/// Reads a message.
///
/// # Errors
/// A newer version, by number, or damage: for logs and for [`Answer::Unreadable`].
pub(super) fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, String> {
    match bytes {
        [VERSION, body @ ..] => minicbor::decode(body).map_err(|error| format!("damaged lease message: {error}")),
        [version, ..] => {
            Err(format!("lease message version {version} is not known to this build (it knows {VERSION})"))
        }
        [] => Err("empty lease message".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_damage_never_panics() {
        let wanted = Wanted { name: 1, emission_ns: 2, capacity_ns: 3, revision: 4, since_ns: 0 };
        let ask = Ask {
            group: GroupId(1),
            node: NodeId(7),
            incarnation: 3,
            number: 9,
            full: true,
            held: vec![(1, 2)],
            demands: vec![WireDemand {
                account: 1,
                concurrency: Some(20),
                rates: vec![wanted],
                look: false,
                slot: Some(3),
            }],
            reports: vec![Report { name: 1, lease: 2, term: 3, spent: 4, left: 5, age_ns: 6 }],
            ahead: vec![Ahead { wanted, units: 7 }],
        };
        let bytes = encode(&ask);
        assert_eq!(decode(&bytes), Ok(ask));
        for cut in 0..bytes.len() {
            assert!(decode::<Ask>(&bytes[..cut]).is_err());
        }
        assert!(decode::<Ask>(&[VERSION + 1, 0]).expect_err("a newer version").contains("version 3"));
    }

    /// Nodes of different builds talk to each other: these bytes never change.
    #[test]
    fn golden_bytes() {
        let answer = Answer::Decided(Decided {
            term: 2,
            now_ns: 1_000,
            verdicts: vec![Verdict {
                decision: Decision::Rate,
                in_use: 3,
                rates: vec![RateLevel { tat_ns: 7, retry_after_ns: Some(5), none_for_ns: 4 }],
            }],
            lent: vec![Lent { name: 9, lease: 8, units: 7, revision: 6, prompt: true }],
            keep: vec![(1, 2)],
        });
        let hex: String = encode(&answer).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0282048185021903e88183020381830705048185090807 06f5818201 02".replace(' ', ""));
    }
}
