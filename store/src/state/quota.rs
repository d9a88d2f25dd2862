//! Quota counters: units used, reserved by live incarnations, and held by incarnations that are gone.
//!
//! `used + reserved + unsettled <= limit` holds unless rows charge more than was reserved for them. A reservation names its
//! node's incarnation; whether that incarnation still runs is one number a node ([`Nodes`]), so that a node's start
//! forfeits its old reservations without touching a single counter.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::{
    model::{AccountId, Carried, Name, NodeId, Reservation, Watch},
    platform::planted,
};

/// The newest incarnation of each node that has started.
pub(super) type Nodes = BTreeMap<NodeId, u64>;

/// Periods that always stay.
const NEWEST_PERIODS: usize = 2;
/// Older ones stay while they began at most so long before the newest: rows of long streams settle late.
const LATE_SECONDS: i64 = 2 * 86_400;
/// Incarnations of one node that are told apart in a period; older ones' units are put together.
const INCARNATIONS: usize = 8;

/// One account's quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Counter {
    /// By start of the period, ascending.
    #[n(0)]
    periods: Vec<Period>,
}

/// One period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Period {
    #[n(0)]
    pub(super) start: i64,
    #[n(1)]
    pub(super) used: u64,
    /// Units of incarnations so old that they are not told apart.
    #[n(2)]
    unsettled: u64,
    /// Units that incarnations hold, sorted; never 0.
    #[n(3)]
    held: Vec<(NodeId, u64, u64)>,
    /// What is to be noticed about its use, as the newest reservation said.
    #[n(4)]
    pub(super) watch: Option<Watch>,
    /// The highest threshold that was passed.
    #[n(5)]
    raised: Option<u16>,
}

/// What a charge has made noticeable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// Thresholds that were passed, ascending.
    pub(super) thresholds: Vec<u16>,
    /// More than the limit is used.
    pub(super) is_over: bool,
}

impl Counter {
    pub(super) fn periods(&self) -> &[Period] {
        &self.periods
    }

    pub(super) fn period(&self, start: i64) -> Option<&Period> {
        self.periods.iter().find(|period| period.start == start)
    }

    /// Grants what is left of the limit, or takes units back; says how many units were granted.
    pub(super) fn reserve(&mut self, nodes: &Nodes, demand: &Reservation) -> u64 {
        if is_gone(nodes, demand.node, demand.incarnation) {
            return 0;
        }
        let Ok(wanted) = u64::try_from(demand.units) else {
            if let Some(period) = self.periods.iter_mut().find(|period| period.start == demand.period_start) {
                period.release(demand.node, demand.incarnation, demand.units.unsigned_abs());
            }
            return 0;
        };
        if self.periods.last().is_some_and(|newest| newest.start > demand.period_start) {
            return 0;
        }
        let Some(period) = self.period_mut(demand.period_start) else { return 0 };
        let left = demand.limit.saturating_sub(period.taken());
        let granted = if planted!(OverReserves) { wanted } else { wanted.min(left) };
        period.hold(demand.node, demand.incarnation, granted);
        if let Some(watch) = &demand.watch {
            period.follow(watch);
        }
        granted
    }

    /// Thresholds of a period that its use has passed and nobody was told of: the policy has changed, and no row has come
    /// since.
    pub(super) fn look(&mut self, start: i64) -> Option<(&Period, Vec<u16>)> {
        let period = self.periods.iter_mut().find(|period| period.start == start)?;
        let thresholds = period.notice().thresholds;
        Some((period, thresholds))
    }

    /// The newest period, if [`Self::look`] would find something there under this policy.
    pub(super) fn would_notice(&self, watch: impl FnOnce(i64) -> Option<Watch>) -> Option<(i64, Watch)> {
        let newest = self.periods.last().filter(|newest| newest.used > 0 && newest.watch.is_some())?;
        let watch = watch(newest.start)?;
        let mut then = newest.clone();
        then.follow(&watch);
        (!then.notice().thresholds.is_empty()).then_some((newest.start, watch))
    }

    /// Charges a row's units to its period, from its incarnation's reservation as far as that goes.
    pub(super) fn charge(&mut self, nodes: &Nodes, node: NodeId, incarnation: u64, start: i64, units: u64) -> Noticed {
        let Some(period) = self.period_mut(start) else { return Noticed::default() };
        period.used = period.used.saturating_add(units);
        if planted!(AppliesUnevenly) {
            period.used += u64::from(crate::platform::wall_clock().subsec_millis().is_multiple_of(7));
        }
        let short = units - period.release(node, incarnation, units);
        if is_gone(nodes, node, incarnation) {
            period.unsettled = period.unsettled.saturating_sub(short);
        }
        period.notice()
    }

    /// Takes over what another group counts of a period. What it counts may have come before already, and units may have been
    /// used here since: those used, and those taken, are never fewer than either says.
    pub(super) fn take_over(&mut self, carried: &Carried) {
        let Some(period) = self.period_mut(carried.period_start) else { return };
        let taken = period.taken().max(carried.used.saturating_add(carried.unsettled));
        period.used = period.used.max(carried.used);
        // What is held here stays so; the rest is nobody's that could still say so.
        period.unsettled = taken.saturating_sub(period.used).saturating_sub(period.total_held());
        period.raised = period.raised.max(carried.raised);
        if period.watch.is_none() {
            period.watch.clone_from(&carried.watch);
        }
    }

    /// The newest periods, as another group is to take them over.
    pub(super) fn carried<'c>(&'c self, account: &AccountId, quota: &Name) -> impl Iterator<Item = Carried> + use<'c> {
        let (account, quota) = (account.clone(), quota.clone());
        self.periods.iter().rev().take(NEWEST_PERIODS).map(move |period| {
            // All fields by name: whatever a period keeps moves with it.
            let Period { start, used, unsettled: _, held: _, watch, raised } = period;
            Carried {
                account: account.clone(),
                quota: quota.clone(),
                period_start: *start,
                used: *used,
                unsettled: period.taken().saturating_sub(*used),
                watch: watch.clone(),
                raised: *raised,
            }
        })
    }

    /// The period, made if it is new; none when it is so old that it is kept no more.
    fn period_mut(&mut self, start: i64) -> Option<&mut Period> {
        let at = match self.periods.binary_search_by_key(&start, |period| period.start) {
            Ok(at) => return self.periods.get_mut(at),
            Err(at) => at,
        };
        self.periods.insert(at, Period { start, ..Period::default() });
        let newest = self.periods.last().map_or(start, |period| period.start);
        let late = newest.saturating_sub(LATE_SECONDS);
        let kept = self.periods.len().saturating_sub(NEWEST_PERIODS);
        let old = self.periods[..kept].partition_point(|period| period.start < late);
        self.periods.drain(..old);
        self.periods.iter_mut().find(|period| period.start == start)
    }
}

impl Period {
    /// Units that live incarnations hold, and those of incarnations that are gone.
    pub(super) fn reserved_and_unsettled(&self, nodes: &Nodes) -> (u64, u64) {
        self.held.iter().fold((0, self.unsettled), |(reserved, unsettled), (node, incarnation, units)| {
            if is_gone(nodes, *node, *incarnation) {
                (reserved, unsettled + units)
            } else {
                (reserved + units, unsettled)
            }
        })
    }

    /// Is watched as a policy says now.
    fn follow(&mut self, watch: &Watch) {
        if self.watch.as_ref() == Some(watch) {
            return;
        }
        // Under a greater limit its thresholds can be passed again.
        if self.watch.as_ref().is_some_and(|old| watch.limit > old.limit) {
            self.raised = Some(self.passed(watch));
        }
        self.watch = Some(watch.clone());
    }

    /// What its use has come to since the last look.
    fn notice(&mut self) -> Noticed {
        let Some(watch) = &self.watch else { return Noticed::default() };
        let mut thresholds: Vec<u16> = watch
            .thresholds
            .iter()
            .copied()
            .filter(|threshold| *threshold > self.raised.unwrap_or(0) && self.has_passed(watch, *threshold))
            .collect();
        thresholds.sort_unstable();
        let is_over = self.used > watch.limit;
        self.raised = thresholds.last().copied().or(self.raised);
        Noticed { thresholds, is_over }
    }

    fn has_passed(&self, watch: &Watch, threshold: u16) -> bool {
        self.used > 0 && u128::from(self.used) * 100 >= u128::from(watch.limit) * u128::from(threshold)
    }

    /// The highest threshold of a watch that its use has passed already.
    fn passed(&self, watch: &Watch) -> u16 {
        watch.thresholds.iter().copied().filter(|threshold| self.has_passed(watch, *threshold)).max().unwrap_or(0)
    }

    /// Units that are used, or that somebody may hold.
    fn taken(&self) -> u64 {
        self.used.saturating_add(self.total_held()).saturating_add(self.unsettled)
    }

    fn total_held(&self) -> u64 {
        self.held.iter().fold(0, |sum, (_, _, units)| sum.saturating_add(*units))
    }

    fn hold(&mut self, node: NodeId, incarnation: u64, units: u64) {
        if units == 0 {
            return;
        }
        match self.held.binary_search_by_key(&(node, incarnation), |(node, incarnation, _)| (*node, *incarnation)) {
            Ok(at) => self.held[at].2 = self.held[at].2.saturating_add(units),
            Err(at) => self.held.insert(at, (node, incarnation, units)),
        }
        let first = self.held.partition_point(|held| held.0 < node);
        let of_node = self.held[first..].partition_point(|held| held.0 == node);
        if of_node > INCARNATIONS {
            self.unsettled = self.unsettled.saturating_add(self.held.remove(first).2);
        }
    }

    /// Takes units from an incarnation's reservation, at most what it holds; says how many.
    fn release(&mut self, node: NodeId, incarnation: u64, units: u64) -> u64 {
        let key = (node, incarnation);
        let Ok(at) = self.held.binary_search_by_key(&key, |(node, incarnation, _)| (*node, *incarnation)) else {
            return 0;
        };
        let released = units.min(self.held[at].2);
        self.held[at].2 -= released;
        if self.held[at].2 == 0 {
            self.held.remove(at);
        }
        released
    }
}

fn is_gone(nodes: &Nodes, node: NodeId, incarnation: u64) -> bool {
    nodes.get(&node).is_some_and(|newest| incarnation < *newest)
}

#[cfg(test)]
mod tests;
