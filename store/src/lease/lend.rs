//! The leader's side of rate units that other nodes hold: lending, hearing what became of them, and their end.

use std::collections::HashSet;

use super::{
    bucket::{NumberMap, Wanted},
    group::{DRIFT, LENT_FOR_NS, Remote, RemoteNode, with_drift},
    reign::Reign,
    wire::{Lent, Report},
};
use crate::model::NodeId;

/// Units of one bucket that one node may spend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// Its number, never given again.
    number: u64,
    revision: u64,
    /// Units that it may still spend, as far as is known.
    out: u64,
    /// Units that it has said to have spent.
    spent: u64,
    end_ns: u64,
}

/// When a lease may end.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) end_ns: u64,
    node: NodeId,
    name: u64,
    lease: u64,
}

/// What is lent with one answer, one a bucket.
#[derive(Debug, Default)]
pub(super) struct Lending {
    pub(super) all: Vec<Lent>,
    places: NumberMap<usize>,
}

/// Takes over what a node says about its leases; with a message that names all of them, those that it does not name have
/// never reached it.
pub(super) fn hear(reign: Reign<'_>, remote: &mut Remote, node: NodeId, reports: &[Report], full: bool, now_ns: u64) {
    end(reign, remote, now_ns);
    let Remote { nodes, ends, .. } = remote;
    let Some(of) = nodes.get_mut(&node) else { return };
    for report in reports.iter().filter(|report| report.term == reign.term()) {
        // One that has ended is spent already.
        let Some(lease) = of.leases.get_mut(&report.name).filter(|lease| lease.number == report.lease) else {
            continue;
        };
        let spent = report.spent.saturating_sub(lease.spent).min(lease.out);
        let left = report.left.min(lease.out - spent);
        let returned = lease.out - spent - left;
        // Not after it was sent, by a clock that may run faster than this one.
        let age_ns = report.age_ns - report.age_ns.min(report.age_ns / DRIFT + 1);
        reign.buckets.settle(report.name, spent, returned, now_ns.saturating_sub(age_ns));
        (lease.spent, lease.out) = (lease.spent + spent, left);
        if left == 0 {
            of.leases.remove(&report.name);
        } else {
            lease.end_ns = now_ns + with_drift(LENT_FOR_NS);
            ends.push_back(End { end_ns: lease.end_ns, node, name: report.name, lease: lease.number });
        }
    }
    if full {
        let all: HashSet<_> = reports.iter().map(|report| (report.name, report.lease)).collect();
        of.leases.retain(|name, lease| {
            let named = all.contains(&(*name, lease.number));
            if !named {
                reign.buckets.settle(*name, 0, lease.out, now_ns);
            }
            named
        });
    }
}

/// Counts units, which the bucket has counted as out, to a node's lease.
pub(super) fn lend(
    reign: Reign<'_>,
    remote: &mut Remote,
    node: NodeId,
    wanted: &Wanted,
    units: u64,
    lending: &mut Lending,
    now_ns: u64,
) {
    let end_ns = now_ns + with_drift(LENT_FOR_NS);
    let of = remote.nodes.get_mut(&node).expect("it was heard with this message");
    let lease = of.leases.entry(wanted.name).or_insert_with(|| {
        remote.last_lease += 1;
        // Not one that another reign gave.
        let number = (reign.term() << 32) + remote.last_lease;
        Lease { number, revision: wanted.revision, out: 0, spent: 0, end_ns }
    });
    lease.out += units;
    lease.revision = lease.revision.max(wanted.revision);
    lease.end_ns = end_ns;
    remote.ends.push_back(End { end_ns, node, name: wanted.name, lease: lease.number });
    let new = Lent { name: wanted.name, lease: lease.number, units, revision: lease.revision, prompt: false };
    let place = *lending.places.entry(wanted.name).or_insert(lending.all.len());
    match lending.all.get_mut(place) {
        Some(other) => *other = Lent { units: other.units + units, ..new },
        None => lending.all.push(new),
    }
}

/// Leases that have ended unheard: their units are spent, at the latest now.
pub(super) fn end(reign: Reign<'_>, remote: &mut Remote, now_ns: u64) {
    while let Some(end) = remote.ends.front().copied().filter(|end| end.end_ns <= now_ns) {
        remote.ends.pop_front();
        let Some(of) = remote.nodes.get_mut(&end.node) else { continue };
        let over = |lease: &&Lease| lease.number == end.lease && lease.end_ns <= now_ns;
        if let Some(lease) = of.leases.get(&end.name).filter(over) {
            reign.buckets.settle(end.name, lease.out, 0, lease.end_ns);
            of.leases.remove(&end.name);
        }
    }
}

/// The process that held them is gone: what it did not report is spent.
pub(super) fn forfeit(reign: Reign<'_>, node: &mut RemoteNode, now_ns: u64) {
    for (name, lease) in node.leases.drain() {
        reign.buckets.settle(name, lease.out, 0, now_ns);
    }
}
