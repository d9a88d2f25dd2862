//! A thread's idle connections, a stack for each target: the one used last is used next, so that few stay warm. Those that are
//! shared stay in it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

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
    opening: Arc<Mutex<()>>,
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

    /// An idle connection, if there is one that is open as far as is known. Looks at the last ones only: a run that was late
    /// once has thousands of them, and to look at all for every request kept it late for good.
    pub(crate) fn take(&mut self, target: usize) -> Option<Connection> {
        let idle = &mut self.targets[target].idle;
        let mut place = idle.len();
        while place > 0 {
            place -= 1;
            if !idle[place].is_open() {
                idle.remove(place);
            } else if !idle[place].is_full() {
                return idle[place].share().or_else(|| Some(idle.remove(place)));
            }
        }
        None
    }

    /// Gives one back; one that is shared is there already.
    pub(crate) fn give(&mut self, target: usize, connection: Connection) {
        if connection.is_open() && connection.share().is_none() {
            self.targets[target].idle.push(connection);
        }
    }

    /// A new one for all.
    pub(crate) fn share(&mut self, target: usize, connection: Connection) {
        let idle = &mut self.targets[target].idle;
        idle.retain(Connection::is_open);
        idle.push(connection);
    }

    /// Whose turn it is to open a connection that is to be shared.
    pub(crate) fn opening(&self, target: usize) -> Arc<Mutex<()>> {
        self.targets[target].opening.clone()
    }

    /// The target refused a connection.
    pub(crate) fn refused(&mut self, target: usize, now: Instant) {
        self.targets[target].idle.clear();
        if !self.eject.is_zero() {
            self.targets[target].out_until = Some(now + self.eject);
        }
    }
}
