//! A timer that is exact to some microseconds.
//!
//! The runtime's own timers have steps of a millisecond, which would be most of what a fast service's latency is. On Linux
//! the kernel's timerfd wakes the thread; elsewhere the steps stay and show as lag.

use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
mod exact {
    use std::{io, os::fd::OwnedFd, time::Duration};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    /// A timerfd.
    #[derive(Debug)]
    pub(super) struct Exact(AsyncFd<OwnedFd>);

    impl Exact {
        pub(super) fn new() -> io::Result<Self> {
            let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            // SAFETY: an OwnedFd stays the same open file as long as it lives, and here it lives as long as its AsyncFd.
            #[allow(unsafe_code, reason = "tokio's safe constructor is deprecated in favour of this one")]
            let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            Ok(Self(registered.map_err(|error| io::Error::other(error.to_string()))?))
        }

        pub(super) async fn sleep(&self, time: Duration) -> io::Result<()> {
            let value = Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                // 0 would switch it off.
                tv_nsec: i64::from(time.subsec_nanos()).max(1),
            };
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            timerfd_settime(
                self.0.get_ref(),
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: zero, it_value: value },
            )?;
            loop {
                let mut ready = self.0.readable().await?;
                let mut ticks = [0; 8];
                match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut ticks)?)) {
                    Ok(read) => return read.map(drop),
                    Err(_would_block) => {}
                }
            }
        }
    }
}

/// The timer of one thread.
#[derive(Debug)]
pub(crate) struct Timer {
    #[cfg(target_os = "linux")]
    exact: Option<exact::Exact>,
}

impl Timer {
    /// Within a runtime.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            exact: exact::Exact::new().ok(),
        }
    }

    /// Sleeps until then; returns at once when it is past.
    pub(crate) async fn until(&self, at: Instant) {
        let time = at.saturating_duration_since(Instant::now());
        if time.is_zero() {
            return;
        }
        self.sleep(time).await;
    }

    #[cfg(target_os = "linux")]
    async fn sleep(&self, time: Duration) {
        match &self.exact {
            Some(exact) if exact.sleep(time).await.is_ok() => {}
            _ => tokio::time::sleep(time).await,
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
