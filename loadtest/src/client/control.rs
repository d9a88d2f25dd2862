//! What the run tells its generators while they work.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Shared by all threads of a run. The schedule's clock starts at `start` and stands still while the run is paused.
#[derive(Debug)]
pub(crate) struct Control {
    start: Instant,
    /// Wall clock at the start, microseconds since 1970.
    start_unix_us: i64,
    /// How long the schedule stood still until now.
    paused_ns: AtomicU64,
    paused: AtomicBool,
    drain: AtomicBool,
    abort: AtomicBool,
    in_flight: AtomicI64,
}

impl Control {
    /// A run that starts then.
    pub(crate) fn new(start: Instant) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let ahead = i64::try_from(start.saturating_duration_since(now).as_micros()).unwrap_or(0);
        Self {
            start,
            start_unix_us: i64::try_from(wall.as_micros()).unwrap_or(0) + ahead,
            paused_ns: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            abort: AtomicBool::new(false),
            in_flight: AtomicI64::new(0),
        }
    }

    /// When it starts.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// The wall clock's time of an instant, microseconds since 1970.
    pub(crate) fn unix_us(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.start).as_micros();
        let before = self.start.saturating_duration_since(at).as_micros();
        self.start_unix_us + i64::try_from(since).unwrap_or(0) - i64::try_from(before).unwrap_or(0)
    }

    /// When something is due that the schedule has at `due`.
    pub(crate) fn at(&self, due: Duration) -> Instant {
        self.start + due + Duration::from_nanos(self.paused_ns.load(Ordering::Relaxed))
    }

    /// How far the schedule is.
    pub(crate) fn elapsed(&self) -> Duration {
        let paused = Duration::from_nanos(self.paused_ns.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(paused)
    }

    /// Stops the schedule's clock.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    /// Lets it go on; it stood still for `paused`.
    pub(crate) fn resume(&self, paused: Duration) {
        let ns = u64::try_from(paused.as_nanos()).unwrap_or(u64::MAX);
        self.paused_ns.fetch_add(ns, Ordering::Release);
        self.paused.store(false, Ordering::Release);
    }

    /// Whether it stands still.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Nothing more is sent; what is in flight may end.
    pub(crate) fn drain(&self) {
        self.drain.store(true, Ordering::Release);
    }

    /// Whether nothing more is sent.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    /// Everything ends now.
    pub(crate) fn abort(&self) {
        self.abort.store(true, Ordering::Release);
        self.drain();
    }

    /// Whether everything ends now.
    pub(crate) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Acquire)
    }

    /// Requests that wait for their answers, over all threads.
    pub(crate) fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// One more or less of them.
    pub(crate) fn add_in_flight(&self, change: i64) {
        self.in_flight.fetch_add(change, Ordering::Relaxed);
    }
}
