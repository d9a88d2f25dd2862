//! A timer that is set anew for every request and nearly never rings.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// Setting it later is one store: the timer below rings at the old time, and is moved then. (Registering a timer takes a
/// lock and a place in the runtime's wheel, some 100 ns and as much again to leave.)
#[derive(Debug)]
pub(crate) struct Deadline {
    timer: Pin<Box<Sleep>>,
    at: Instant,
}

impl Deadline {
    pub(crate) fn after(duration: Duration) -> Self {
        let timer = Box::pin(tokio::time::sleep(duration));
        Self { at: timer.deadline(), timer }
    }

    /// Rings after this time from now.
    pub(crate) fn set(&mut self, duration: Duration) {
        let now = Instant::now();
        self.at = now.checked_add(duration).unwrap_or(self.at);
        if self.timer.deadline() > self.at {
            self.timer.as_mut().reset(self.at);
        }
    }

    /// Ready when the time has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_at_the_time_that_was_set_last() {
        let start = Instant::now();
        let mut deadline = Deadline::after(Duration::from_secs(5));
        deadline.set(Duration::from_secs(9));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 9);
        deadline.set(Duration::from_secs(60));
        deadline.set(Duration::from_secs(1));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
