//! Quota slices: units that the replicated state has reserved for this node, spent from memory.
//!
//! A slice is what about a second of recent demand spends, at most a hundredth of the limit, less as the quota runs out,
//! and exactly the demand at its very end. The next one is fetched in the background before the last is used up, so steady
//! traffic never waits. When there is nothing left to reserve, that is remembered, and a flood is refused from memory.

mod meter;
mod take;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use self::meter::Meter;
pub(super) use self::take::{Awaited, Take};
use super::authority::Granted;
use crate::{
    model::{AccountId, Name, Overage, PeriodBounds, Timestamp, Unavailable, Unit, Watch},
    view::QuotaPolicy,
};

/// A slice is at most this part of the limit.
const SLICE_OF_LIMIT: u64 = 100;
/// A slice is at most this part of what nobody has reserved: slices shrink towards the end of a quota.
const SLICE_OF_FREE: u64 = 16;
/// Fetched ahead only when a slice is worth so many requests; below, each request reserves for itself.
const PREFETCH_REQUESTS: u64 = 4;
/// A quota without units is asked for again at most this often: other nodes may give some back.
const ASK_AGAIN_NS: u64 = 250_000_000;
/// Units that nobody has spent from for so long go back.
const IDLE_NS: u64 = 1_000_000_000;
/// A reservation is never greater, whatever the demand: it travels as an `i64`.
const MOST: u64 = 1 << 62;

/// One account's quota on this node.
#[derive(Debug)]
pub(super) struct Slice {
    /// Takes that have ended, of [`State::takes`].
    ended: AtomicU64,
    state: Mutex<State>,
    pub(super) account: AccountId,
    pub(super) quota: Name,
}

/// What a take looks at comes first, so that it lies on few cache lines.
#[derive(Debug, Default)]
struct State {
    /// Edition of the policy, and start of the period, of the last demand: the same ones again change nothing here.
    seen: (u64, i64),
    /// Reserved and not spent.
    left: u64,
    /// Takes that were given out, ever.
    takes: u64,
    /// How often the limit has changed.
    limits: u32,
    /// The limit that the units were reserved under.
    limit: u64,
    /// The policy's, which clients are shown also where more is served.
    shown_limit: u64,
    /// What nobody had reserved when last heard.
    free: Option<u64>,
    /// Reserved for this node in the period, less what it gave back.
    reserved: u64,
    /// Seconds since 1970. Never goes back.
    period_start: i64,
    meter: Meter,
    /// When units were last spent. A refusal is no spending: what is left and too little for it goes back, for another node
    /// to make a whole of.
    spent_ns: u64,
    /// Refuse from memory until then (lease clock).
    none_until_ns: u64,
    /// A reservation is under way; at most one.
    asking: bool,
    /// The last reservation came short: the end of the quota is near.
    short: bool,
    /// Boxed, so that none cost a word.
    #[allow(clippy::box_collection, reason = "nearly always none")]
    waiters: Option<Box<VecDeque<Waiter>>>,
    /// What the ledger is to notice.
    watch: Option<Arc<Watch>>,
}

#[derive(Debug)]
struct Waiter {
    place: u32,
    units: u64,
    unit: Unit,
    answer: oneshot::Sender<Result<Awaited, Short>>,
}

/// Why a waiter got nothing.
#[derive(Debug)]
pub(super) enum Short {
    /// The quota has no more.
    Exhausted,
    /// No quorum.
    Unavailable(Unavailable),
}

/// A reservation that must be made.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) slice: Arc<Slice>,
    pub(super) period_start: i64,
    pub(super) limit: u64,
    /// Negative: given back.
    pub(super) units: i64,
    /// What the ledger is to notice.
    pub(super) watch: Option<Arc<Watch>>,
}

/// The answer to a demand.
#[derive(Debug)]
pub(super) enum Step {
    Taken(Take),
    /// Refused from memory.
    Exhausted,
    /// The answer comes with the next reservation.
    Wait(oneshot::Receiver<Result<Awaited, Short>>),
}

impl Slice {
    pub(super) fn new(account: AccountId, quota: Name) -> Self {
        Self { account, quota, state: Mutex::default(), ended: AtomicU64::new(0) }
    }

    /// Takes units, or says why not; and the reservations that must be made now (a fetch; a return, after the limit fell).
    pub(super) fn take(
        self: &Arc<Self>,
        (policy, place): (&QuotaPolicy, u32),
        bounds: PeriodBounds,
        units: u64,
        now_ns: u64,
    ) -> (Step, Vec<Want>) {
        let mut wants = Vec::new();
        let mut state = self.lock();
        self.enter(&mut state, policy, bounds, &mut wants);
        state.meter.count(units, now_ns);
        // Those who wait are served first, or a large demand would starve.
        let step = if state.waiters.is_none() && state.left >= units {
            state.left -= units;
            state.spent_ns = now_ns;
            Step::Taken(state.taken(place, policy.unit, units))
        } else if units > state.limit || (now_ns < state.none_until_ns && state.left < units) {
            Step::Exhausted
        } else {
            if state.none_until_ns > 0 {
                // This one asks again for all; the others are refused until its answer.
                state.none_until_ns = now_ns + ASK_AGAIN_NS;
            }
            let (answer, wait) = oneshot::channel();
            state.waiters.get_or_insert_default().push_back(Waiter { place, units, unit: policy.unit, answer });
            Step::Wait(wait)
        };
        wants.extend(self.next_want(&mut state, units, now_ns));
        (step, wants)
    }

    /// What a reservation came to; the reservations that must be made next.
    pub(super) fn reserved(
        self: &Arc<Self>,
        want: &Want,
        granted: Result<Granted, Unavailable>,
        now_ns: u64,
    ) -> Vec<Want> {
        let (mut answers, mut wants) = (Vec::new(), Vec::new());
        {
            let mut state = self.lock();
            state.asking = false;
            let current = state.period_start == want.period_start && state.limit == want.limit;
            match granted {
                Err(unavailable) => {
                    for waiter in state.waiters.take().into_iter().flat_map(|waiters| *waiters) {
                        answers.push((waiter.answer, Err(Short::Unavailable(unavailable.clone()))));
                    }
                }
                // Units of a period that has ended are forgotten; those of a limit that changed meanwhile go back.
                Ok(granted) if !current => {
                    let units = i64::try_from(granted.units.min(MOST)).expect("bounded");
                    if units > 0 && state.period_start == want.period_start {
                        wants.push(Want { units: -units, ..want.clone() });
                    }
                }
                Ok(granted) => {
                    state.left = state.left.saturating_add(granted.units);
                    state.reserved = state.reserved.saturating_add(granted.units);
                    state.free = granted.free;
                    state.short = granted.units < want.units.unsigned_abs();
                    state.none_until_ns = 0;
                    let mut waiters = state.waiters.take().unwrap_or_default();
                    while let Some(waiter) = waiters.pop_front_if(|waiter| state.short || state.left >= waiter.units) {
                        let answer = if state.left >= waiter.units {
                            state.left -= waiter.units;
                            state.spent_ns = now_ns;
                            Ok(Awaited::new(self, state.taken(waiter.place, waiter.unit, waiter.units)))
                        } else {
                            state.none_until_ns = now_ns + ASK_AGAIN_NS;
                            Err(Short::Exhausted)
                        };
                        answers.push((waiter.answer, answer));
                    }
                    state.waiters = Some(waiters).filter(|waiters| !waiters.is_empty());
                }
            }
            wants.extend(self.next_want(&mut state, 0, now_ns));
        }
        // Outside the lock: units sent to one who no longer waits come straight back.
        for (answer, result) in answers {
            let _ = answer.send(result);
        }
        wants
    }

    /// Units left in the period as far as this node knows; none before it has taken any.
    pub(super) fn remaining(&self, period_start: i64) -> Option<u64> {
        let state = self.lock();
        (state.period_start == period_start).then(|| state.remaining())
    }

    /// Whether `units` could be taken now as far as this node knows; takes nothing.
    pub(super) fn would_pass(&self, period_start: i64, units: u64, now_ns: u64) -> bool {
        let state = self.lock();
        if state.period_start != period_start || state.left >= units {
            return true;
        }
        now_ns >= state.none_until_ns && state.free.is_none_or(|free| free.saturating_add(state.left) >= units)
    }

    /// Whether [`Slice::take`] would refuse from memory.
    pub(super) fn refuses(&self, policy: &QuotaPolicy, bounds: PeriodBounds, units: u64, now_ns: u64) -> bool {
        let state = self.lock();
        let current = state.period_start == bounds.start.unix_seconds() && state.limit == limit_of(policy);
        units > limit_of(policy) || (current && state.left < units && now_ns < state.none_until_ns)
    }

    /// The unspent units, if nobody has spent from them for a while (or at once), to be given back.
    pub(super) fn idle(self: &Arc<Self>, now_ns: u64, at_once: bool) -> Option<Want> {
        let mut state = self.lock();
        let idle = at_once || now_ns.saturating_sub(state.spent_ns) >= IDLE_NS;
        if !idle || state.asking || state.waiters.is_some() || state.left == 0 {
            return None;
        }
        let left = std::mem::take(&mut state.left);
        state.free = state.free.map(|free| free.saturating_add(left));
        state.reserved = state.reserved.saturating_sub(left);
        Some(self.back(&state, left))
    }

    /// A reservation is under way, or somebody waits for one.
    pub(super) fn is_waiting(&self) -> bool {
        let state = self.lock();
        state.asking || state.waiters.is_some()
    }

    /// A request has units of it, and its row has not come to an end.
    pub(super) fn is_in_use(&self) -> bool {
        // In this order: both only grow, and as many as have ended were taken.
        let ended = self.ended.load(Ordering::Acquire);
        ended != self.lock().takes
    }

    /// Nothing reserved or wanted, and not used for a while.
    pub(super) fn is_idle(&self, now_ns: u64) -> bool {
        let state = self.lock();
        !state.asking
            && state.left == 0
            && state.waiters.is_none()
            && now_ns.saturating_sub(state.spent_ns.max(state.none_until_ns)) > 4 * IDLE_NS
    }

    /// Moves on to the period of a demand, and to a changed limit.
    fn enter(self: &Arc<Self>, state: &mut State, policy: &QuotaPolicy, bounds: PeriodBounds, wants: &mut Vec<Want>) {
        let limit = limit_of(policy);
        let start = bounds.start.unix_seconds();
        if state.seen == (policy.edition(), start) {
            return;
        }
        if start > state.period_start || (state.limit == 0 && state.period_start == 0) {
            // What is left of the old period is worth nothing in the new one.
            *state = State {
                period_start: start,
                limit,
                takes: state.takes,
                limits: state.limits.wrapping_add(u32::from(limit != state.limit)),
                asking: state.asking,
                waiters: std::mem::take(&mut state.waiters),
                meter: state.meter,
                ..State::default()
            };
        } else if limit != state.limit {
            // A lowered limit is in force at once: what was reserved under the old one goes back and is decided anew.
            if state.left > 0 {
                wants.push(self.back(state, state.left));
                state.reserved = state.reserved.saturating_sub(state.left);
            }
            (state.left, state.free, state.short, state.none_until_ns, state.limit) = (0, None, false, 0, limit);
            state.limits = state.limits.wrapping_add(1);
        }
        let is_watched = |watch: &Arc<Watch>| {
            watch.limit == policy.limit
                && watch.period_end == bounds.end.unix_seconds()
                && watch.shadow == policy.shadow
                && *watch.thresholds == *policy.thresholds
        };
        if !state.watch.as_ref().is_some_and(is_watched) {
            state.watch = Some(Arc::new(policy.watch(bounds)));
        }
        state.shown_limit = policy.limit;
        state.seen = (policy.edition(), start);
    }

    fn back(self: &Arc<Self>, state: &State, units: u64) -> Want {
        let units = i64::try_from(units.min(MOST)).expect("bounded");
        Want { slice: self.clone(), period_start: state.period_start, limit: state.limit, units: -units, watch: None }
    }

    fn next_want(self: &Arc<Self>, state: &mut State, typical: u64, now_ns: u64) -> Option<Want> {
        if state.asking {
            return None;
        }
        let waiting: u64 = state
            .waiters
            .iter()
            .flat_map(|waiters| waiters.iter())
            .fold(0, |sum: u64, waiter| sum.saturating_add(waiter.units));
        // A slice that is worth it, and less than half of one left.
        let worth = || typical.saturating_mul(PREFETCH_REQUESTS).max(state.left.saturating_mul(2).saturating_add(2));
        let ahead = !state.short && typical > 0 && now_ns >= state.none_until_ns && state.is_target(worth(), now_ns);
        if waiting == 0 && !ahead {
            return None;
        }
        let missing = waiting.saturating_sub(state.left);
        let units = if state.short { missing } else { missing.max(state.target(now_ns)) }.clamp(1, MOST);
        state.asking = true;
        let units = i64::try_from(units).expect("bounded");
        let (period_start, limit, watch) = (state.period_start, state.limit, state.watch.clone());
        Some(Want { slice: self.clone(), period_start, limit, units, watch })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn taken(&mut self, place: u32, unit: Unit, units: u64) -> Take {
        self.takes += 1;
        let (remaining, is_over) = (self.remaining(), self.used() > self.shown_limit);
        Take { place, unit, period_start: self.period_start, limits: self.limits, units, remaining, is_over }
    }

    /// Its own units and what nobody had reserved when it last heard; without that word, what this node has not spent.
    fn remaining(&self) -> u64 {
        self.shown_limit.saturating_sub(self.used())
    }

    /// Units used in the period, those that other nodes hold among them; without word of those, what this node has spent.
    fn used(&self) -> u64 {
        let taken = self.free.map_or(self.reserved, |free| self.limit.saturating_sub(free));
        taken.saturating_sub(self.left)
    }

    /// How large a slice should be.
    fn target(&self, now_ns: u64) -> u64 {
        let of_free = self.free.map_or(u64::MAX, |free| free / SLICE_OF_FREE);
        self.meter.per_second(now_ns).min(self.limit / SLICE_OF_LIMIT).min(of_free)
    }

    /// Whether [`State::target`] is that large, or larger.
    fn is_target(&self, units: u64, now_ns: u64) -> bool {
        self.limit / SLICE_OF_LIMIT >= units
            && self.free.is_none_or(|free| free / SLICE_OF_FREE >= units)
            && self.meter.reaches(units, now_ns)
    }
}

/// What is reserved against.
fn limit_of(policy: &QuotaPolicy) -> u64 {
    match policy.overage {
        Overage::Block => policy.limit,
        Overage::Allow => u64::MAX,
    }
}

/// Seconds of the wall clock until a period ends, in nanoseconds.
pub(super) fn until_ns(end: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0).saturating_mul(1_000)
}
