//! A thread's idle connections, a stack for each target: the one used last is used next, so that few stay warm.

use std::time::{Duration, Instant};

use super::connection::Connection;

/// Idle connections and the health of targets.
pub(crate) struct Pool {
    targets: Vec<Place>,
    next: usize,
    eject: Duration,
}

#[derive(Default)]
struct Place {
    idle: Vec<Connection>,
    out_until: Option<Instant>,
}

impl Pool {
    /// For so many targets.
    pub(crate) fn new(targets: usize, first: usize, eject: Duration) -> Self {
        Self { targets: (0..targets).map(|_| Place::default()).collect(), next: first, eject }
    }

    /// The next target in turn that is not left out.
    pub(crate) fn choose(&mut self, now: Instant) -> usize {
        let count = self.targets.len();
        for _ in 0..count {
            let at = self.next % count;
            self.next = self.next.wrapping_add(1);
            let place = &mut self.targets[at];
            if place.out_until.is_none_or(|until| now >= until) {
                place.out_until = None;
                return at;
            }
        }
        // All of them refuse: in turn again, so that the first that is back is found.
        self.next = self.next.wrapping_add(1);
        self.next % count
    }

    /// An idle connection, if there is one that is open as far as is known.
    pub(crate) fn take(&mut self, target: usize) -> Option<Connection> {
        let idle = &mut self.targets[target].idle;
        while let Some(connection) = idle.pop() {
            if connection.is_open() {
                idle.extend(connection.share());
                return Some(connection);
            }
        }
        None
    }

    /// Gives one back.
    pub(crate) fn give(&mut self, target: usize, connection: Connection) {
        let idle = &mut self.targets[target].idle;
        // One that is shared is there already.
        if connection.is_open() && (connection.share().is_none() || idle.is_empty()) {
            idle.push(connection);
        }
    }

    /// The target refused a connection.
    pub(crate) fn refused(&mut self, target: usize, now: Instant) {
        self.targets[target].idle.clear();
        if !self.eject.is_zero() {
            self.targets[target].out_until = Some(now + self.eject);
        }
    }
}
