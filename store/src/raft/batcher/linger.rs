//! Whether a small batch waits a moment for more rows.
//!
//! A batch costs all nodes together some hundred microseconds of CPU, three flushes and a frame's bytes, however few rows it
//! has, so rows that come steadily one by one are better sent by the dozen. But when all who write wait already, as clients
//! do that send one request after the other, a wait brings nobody: what the last waits brought says which it is.

use std::{pin::Pin, time::Duration};

use tokio::time::Sleep;

/// A batch of so many rows goes at once.
const ENOUGH_ROWS: usize = 16;
/// Fewer rows than these never wait: too few come for company.
const LONELY_ROWS: usize = 4;
/// How long a batch waits for more rows.
const WAIT: Duration = Duration::from_millis(1);
/// After a wait that brought less than half as many rows again, so many batches go at once; doubled with each such wait up to
/// the second.
const AT_ONCE: (u32, u32) = (4, 256);

/// What the last waits were worth, and the one under way.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// The wait under way: its end, and the rows at its beginning.
    wait: Option<(Pin<Box<Sleep>>, usize)>,
    /// So many batches go at once before the next wait.
    skip: u32,
    /// What `skip` was set to last.
    skipped: u32,
}

impl Linger {
    /// Whether a batch of so many rows, for which nothing else stands in the way, goes now.
    pub(super) fn lets_go(&mut self, rows: usize) -> bool {
        if let Some((sleep, before)) = &self.wait {
            if rows < ENOUGH_ROWS && !sleep.is_elapsed() {
                return false;
            }
            let paid = rows >= ENOUGH_ROWS.min(before + before / 2);
            self.wait = None;
            self.skipped = if paid { 0 } else { (self.skipped * 2).clamp(AT_ONCE.0, AT_ONCE.1) };
            self.skip = self.skipped;
            return true;
        }
        if !(LONELY_ROWS..ENOUGH_ROWS).contains(&rows) {
            return true;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return true;
        }
        self.wait = Some((Box::pin(tokio::time::sleep(WAIT)), rows));
        false
    }

    /// With how many rows [`Linger::lets_go`] is worth asking, before [`Linger::over`] ends.
    pub(super) fn enough(&self) -> usize {
        if self.wait.is_some() { ENOUGH_ROWS } else { 1 }
    }

    /// Ends with the wait under way, if there is one.
    pub(super) async fn over(&mut self) {
        match &mut self.wait {
            Some((sleep, _)) => sleep.await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_that_come_steadily_wait_for_company() {
        let mut linger = Linger::default();
        for _ in 0..3 {
            assert!(!linger.lets_go(5));
            assert!(!linger.lets_go(ENOUGH_ROWS - 1), "there is time left");
            assert!(linger.lets_go(ENOUGH_ROWS), "enough");
            assert!(!linger.lets_go(5));
            linger.over().await;
            assert!(linger.lets_go(8), "the time is over, and it has brought more than half as many again");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_row_and_many_rows_never_wait() {
        let mut linger = Linger::default();
        for rows in [1, LONELY_ROWS - 1, ENOUGH_ROWS, 1_000] {
            assert!(linger.lets_go(rows));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_in_vain_become_rare() {
        let mut linger = Linger::default();
        for at_once in [4, 8, 16, 32, 64, 128, 256, 256] {
            assert!(!linger.lets_go(8));
            linger.over().await;
            for _ in 0..=at_once {
                assert!(linger.lets_go(8), "after a wait that brought nothing {at_once} go at once");
            }
        }
        assert!(!linger.lets_go(8));
        linger.over().await;
        assert!(linger.lets_go(12), "half as many again: it was worth it");
        assert!(!linger.lets_go(8), "so the next waits too");
    }
}
