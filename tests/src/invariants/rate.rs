//! P2 for rates: in any window of `t` seconds at most `burst + rate * t` requests are admitted.
//!
//! A request is admitted at the instant of the decision that lets it through; what becomes of it later changes nothing. The
//! clock that refills may be fast by the drift that the simulation gives.

use std::{collections::BTreeMap, time::Duration};

use super::{First, Violation};

const LAW: &str = "no over-admission: rate";
/// By how much a clock may be fast.
const DRIFT: f64 = 0.000_4;

/// A rate limit.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// Units …
    pub units: u64,
    /// … in so many seconds.
    pub period_seconds: u32,
    /// Units at once.
    pub burst: u64,
}

/// The limits of the simulation's accounts: a slow and a small one together, large with a quota, wide with a bound on
/// requests at once, slow, without any.
pub const LIMITS: [&[RateLimit]; 5] = [
    &[RateLimit { units: 150, period_seconds: 60, burst: 40 }, RateLimit { units: 5, period_seconds: 1, burst: 10 }],
    &[RateLimit { units: 40, period_seconds: 1, burst: 20 }],
    &[RateLimit { units: 100, period_seconds: 1, burst: 100 }],
    &[RateLimit { units: 60, period_seconds: 60, burst: 30 }],
    &[],
];

/// Admissions by account.
#[derive(Debug, Default)]
pub struct Rates {
    /// In seconds, ascending.
    admitted: BTreeMap<String, Vec<f64>>,
    first: First,
}

impl Rates {
    /// A request of an account was admitted now: every window that ends here is looked at.
    pub fn admitted(&mut self, account: &str, at: Duration) {
        let admitted = self.admitted.entry(account.to_owned()).or_default();
        let to = at.as_secs_f64();
        admitted.push(to);
        let number: usize = account.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        for limit in LIMITS[number % LIMITS.len()] {
            let rate = limit.units as f64 / f64::from(limit.period_seconds);
            for (before, from) in admitted.iter().rev().enumerate() {
                let allowed = limit.burst as f64 + rate * (to - from) * (1.0 + DRIFT) + 1e-6;
                if (before + 1) as f64 > allowed {
                    self.first.is(LAW, || {
                        format!(
                            "{account}: {} admitted from {from:.3} s to {to:.3} s, at most {allowed:.2} are allowed",
                            before + 1
                        )
                    });
                }
            }
        }
    }

    pub(crate) fn take_violation(&mut self) -> Option<Violation> {
        self.first.take()
    }
}
