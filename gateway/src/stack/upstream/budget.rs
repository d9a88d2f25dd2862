//! How many retries an upstream may get: a share of the requests that may be retried, so that retries never multiply the load
//! on one that fails under it.

use std::sync::atomic::{AtomicI64, Ordering};

/// Retries of 100 requests where the upstream does not say.
const DEFAULT_PERCENT: u8 = 20;
/// A retry's price; a request pays the percentage in.
const PRICE: i64 = 100;
/// What a budget begins with, and the most that it saves up, in retries.
const FIRST: i64 = 10;
const MOST: i64 = 100;

/// One core's budget for one upstream.
#[derive(Debug)]
pub(super) struct Budget {
    balance: AtomicI64,
    percent: i64,
}

impl Budget {
    pub(super) fn new(percent: Option<u8>) -> Self {
        let percent = i64::from(percent.unwrap_or(DEFAULT_PERCENT));
        // Without a share there is nothing to begin with either.
        Self { balance: AtomicI64::new(if percent == 0 { 0 } else { FIRST * PRICE }), percent }
    }

    /// A request that may be retried has come.
    pub(super) fn pay_in(&self) {
        if self.balance.load(Ordering::Relaxed) < MOST * PRICE {
            self.balance.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// Whether a retry may be made; then it is paid for.
    pub(super) fn spend(&self) -> bool {
        let take = |balance: i64| (balance >= PRICE).then(|| balance - PRICE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_beyond_the_first_few() {
        let budget = Budget::new(Some(25));
        let spent = (0..1_000)
            .filter(|_| {
                budget.pay_in();
                budget.spend()
            })
            .count();
        assert_eq!(spent, 10 + 250);
        for _ in 0..100_000 {
            budget.pay_in();
        }
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 100, "no more is saved up");
        let none = Budget::new(Some(0));
        none.pay_in();
        assert!(!none.spend());
    }
}
