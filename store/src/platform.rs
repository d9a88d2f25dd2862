//! The operating system as the store needs it: clocks, connections, work that blocks.
//!
//! A production build calls it straight: these functions are one line each and [`net`] is a re-export. With the feature
//! `simulation`, a thread that has entered a simulation gets the simulation's instead, so that whole nodes run on one
//! thread, in simulated time, the same way for the same seed. Disks come in by `wal::Disk` and `state::Files`.

pub(crate) mod net;
pub(crate) mod panics;
#[cfg(feature = "simulation")]
pub(crate) mod simulation;

use std::{
    io,
    time::{Duration, SystemTime},
};

/// The lease clock in nanoseconds: `CLOCK_BOOTTIME`, which neither stops nor jumps.
pub(crate) fn lease_clock_ns() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(clocks) = simulation::clocks() {
        return (clocks.lease_ns)();
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Time since 1970, UTC.
pub(crate) fn wall_clock() -> Duration {
    #[cfg(feature = "simulation")]
    if let Some(clocks) = simulation::clocks() {
        return (clocks.wall)();
    }
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Whether this thread runs a simulation.
#[cfg(feature = "simulation")]
pub(crate) fn simulated() -> bool {
    simulation::clocks().is_some()
}

/// Never, in a production build.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn simulated() -> bool {
    false
}

/// Does work that blocks, off the runtime's threads. In a simulation it takes no time.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Whether a defect is planted that the simulation must find.
#[cfg(feature = "simulation")]
macro_rules! planted {
    ($defect:ident) => {
        $crate::platform::simulation::is_planted($crate::platform::simulation::Defect::$defect)
    };
}

/// Never, in a production build.
#[cfg(not(feature = "simulation"))]
macro_rules! planted {
    ($defect:ident) => {
        $crate::platform::simulated()
    };
}
pub(crate) use planted;
