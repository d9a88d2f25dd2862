//! A core's open connections: who they are waiting for, and how to wake them for a drain or a timeout.
//!
//! Timeouts towards clients are kept here, by one look a second over all connections, so that a request sets no timer.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::stack::Timeouts;

/// A time that does not come.
const NEVER: u64 = u64::MAX;
/// The connection serves on.
const OPEN: u8 = 0;
/// It ends when what is in flight ends.
const DRAIN: u8 = 1;
/// It ends now.
const KILL: u8 = 2;

/// A connection's state. Times are ticks of the registry (seconds).
#[derive(Debug, Default)]
pub(super) struct State {
    order: AtomicU8,
    waker: Mutex<Option<Waker>>,
    /// Requests whose answers are not made or not handed over yet.
    in_flight: AtomicU32,
    /// The connection's last request ended, or it was opened.
    idle_since: AtomicU32,
    /// The first byte of a head came; 0 for none.
    head_since: AtomicU32,
    /// A write could not go on; 0 when none waits.
    write_stalled_since: AtomicU32,
    /// Its end was sent; 0 while it lasts.
    lingers_since: AtomicU32,
    http2: AtomicBool,
    /// When its client is told to go, in milliseconds of the registry's clock; 0 before it was chosen.
    leaves_at_ms: AtomicU64,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Registry {
    connections: Mutex<Vec<Arc<State>>>,
    /// Seconds since the start, from 1: 0 is "never".
    now: AtomicU32,
    timeouts: Timeouts,
    started: Instant,
    /// When all clients have been told to go, in milliseconds after `started`; [`NEVER`] while nobody is.
    left_at_ms: AtomicU64,
    draining: AtomicBool,
    changed: Notify,
}

impl Registry {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            connections: Mutex::default(),
            now: AtomicU32::new(1),
            timeouts,
            started: Instant::now(),
            left_at_ms: AtomicU64::new(NEVER),
            draining: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    pub(super) fn add(self: &Arc<Self>) -> Member {
        let state = Arc::new(State { idle_since: AtomicU32::new(self.now()), ..State::default() });
        if self.draining.load(Ordering::Acquire) {
            state.order.store(DRAIN, Ordering::Release);
        }
        lock(&self.connections).push(state.clone());
        Member { registry: self.clone(), state }
    }

    /// A second has passed: connections that kept us waiting for too long are closed.
    pub(super) fn tick(&self) {
        let now = self.now.fetch_add(1, Ordering::AcqRel) + 1;
        for state in lock(&self.connections).iter() {
            if state.is_overdue(now, &self.timeouts) {
                state.order(KILL);
            }
        }
    }

    /// Connections end with an answer, each at a moment of its own until then.
    pub(super) fn leave(&self, until: Instant) {
        let until = until.saturating_duration_since(self.started).as_millis();
        self.left_at_ms.store(u64::try_from(until).unwrap_or(NEVER), Ordering::Release);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// No new ones come. Those of HTTP/2 hear it at once, by a GOAWAY that leaves no request in doubt. HTTP/1 has no such word
    /// before an answer: a request may be on its way, so these serve on until [`Registry::drain`], and end with an answer.
    pub(super) fn say_goodbye(&self) {
        self.leave(self.started);
        for state in lock(&self.connections).iter().filter(|state| state.http2.load(Ordering::Acquire)) {
            state.order(DRAIN);
        }
    }

    /// Those without a request end now, the others with what is in flight.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        for state in lock(&self.connections).iter() {
            state.order(DRAIN);
        }
    }

    pub(super) fn kill(&self) {
        for state in lock(&self.connections).iter() {
            state.order(KILL);
        }
    }

    /// A connection has ended since.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.connections).len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn now(&self) -> u32 {
        self.now.load(Ordering::Acquire)
    }
}

impl State {
    fn is_overdue(&self, now: u32, timeouts: &Timeouts) -> bool {
        let longer = |since: u32, limit: Duration| since > 0 && u64::from(now - since.min(now)) > limit.as_secs();
        let (head, stalled) =
            (self.head_since.load(Ordering::Acquire), self.write_stalled_since.load(Ordering::Acquire));
        let idle = self.in_flight.load(Ordering::Acquire) == 0;
        longer(stalled, timeouts.write_stall)
            || longer(self.lingers_since.load(Ordering::Acquire), timeouts.linger)
            || idle && longer(head, timeouts.header_read)
            || idle && head == 0 && longer(self.idle_since.load(Ordering::Acquire), timeouts.keep_alive)
    }

    fn order(&self, order: u8) {
        self.order.fetch_max(order, Ordering::AcqRel);
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Serve,
    Drain,
    Close,
}

/// A connection's place in the registry.
#[derive(Debug)]
pub(super) struct Member {
    registry: Arc<Registry>,
    state: Arc<State>,
}

impl Member {
    /// The connection's task; it is woken when the order changes.
    pub(super) fn woken_by(&self, waker: &Waker) {
        *lock(&self.state.waker) = Some(waker.clone());
    }

    /// Waits for another order than to serve.
    pub(super) async fn told_to_end(&self) {
        poll_fn(|cx| {
            self.woken_by(cx.waker());
            if self.ordered() == Order::Serve { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    pub(super) fn ordered(&self) -> Order {
        match self.state.order.load(Ordering::Acquire) {
            OPEN => Order::Serve,
            DRAIN => Order::Drain,
            _ => Order::Close,
        }
    }

    /// Whether the connection shall end with the answer that is given now.
    pub(super) fn is_leaving(&self) -> bool {
        let left_at = self.registry.left_at_ms.load(Ordering::Acquire);
        if left_at == NEVER {
            return false;
        }
        let now = self.registry.now_ms();
        let Some(left) = left_at.checked_sub(now).filter(|left| *left > 0) else { return true };
        // Connections that clients make instead while they can still find this node choose among what is left.
        let mut at = self.state.leaves_at_ms.load(Ordering::Relaxed);
        if at == 0 {
            at = now + 1 + u64::from(getrandom::u32().unwrap_or_default()) % left;
            self.state.leaves_at_ms.store(at, Ordering::Relaxed);
        }
        now >= at
    }

    /// What is in flight is the last of this connection.
    pub(super) fn leave(&self) {
        self.state.order(DRAIN);
    }

    /// The connection speaks HTTP/2.
    pub(super) fn is_http2(&self) {
        self.state.http2.store(true, Ordering::Release);
    }

    /// Whether a request is being read: a part of its head is there.
    pub(super) fn is_reading(&self) -> bool {
        self.state.in_flight.load(Ordering::Acquire) == 0 && self.state.head_since.load(Ordering::Acquire) > 0
    }

    /// Whether nothing more is sent, and the client has yet to close.
    pub(super) fn is_lingering(&self) -> bool {
        self.state.lingers_since.load(Ordering::Acquire) > 0
    }

    /// Nothing more is sent; the client has yet to close.
    pub(super) fn lingers(&self) {
        self.state.lingers_since.store(self.registry.now(), Ordering::Release);
    }

    /// A request's head is complete.
    pub(super) fn request_begins(&self) {
        self.state.in_flight.fetch_add(1, Ordering::AcqRel);
        self.state.head_since.store(0, Ordering::Release);
    }

    /// Its answer was handed over, or its client is gone.
    pub(super) fn request_ends(&self) {
        self.state.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.state.idle_since.store(self.registry.now(), Ordering::Release);
    }

    /// Bytes came.
    pub(super) fn has_read(&self) {
        let state = &self.state;
        if state.in_flight.load(Ordering::Relaxed) == 0 && state.head_since.load(Ordering::Relaxed) == 0 {
            state.head_since.store(self.registry.now(), Ordering::Release);
        }
    }

    /// The client took bytes, or takes none now.
    pub(super) fn write_is_stalled(&self, stalled: bool) {
        let since = &self.state.write_stalled_since;
        match (stalled, since.load(Ordering::Relaxed)) {
            (true, 0) => since.store(self.registry.now(), Ordering::Release),
            (true, _) | (false, 0) => {}
            (false, _) => since.store(0, Ordering::Release),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut connections = lock(&self.registry.connections);
        if let Some(place) = connections.iter().position(|state| Arc::ptr_eq(state, &self.state)) {
            connections.swap_remove(place);
        }
        self.registry.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
