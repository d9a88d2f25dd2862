//! Rate limits: the generic cell rate algorithm as a pure function.
//!
//! Source: ITU-T I.371 (GCRA, virtual scheduling); the form with a theoretical arrival time (TAT) as in Brandur Leach's
//! "Rate limiting, cells, and GCRA". In any window of `t` seconds it admits at most `burst + rate * t` (contract, P2).

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Name, tier::Dimension};

/// So many units in a period: `5/s`, `300/m`, `1000/h`, `100/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Rate {
    /// Units a period.
    #[n(0)]
    pub units: u64,
    /// Length of the period in seconds: 1, 60, 3600 or 86400.
    #[n(1)]
    pub period_seconds: u32,
}

/// A rate that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate: expected a whole number of at least 1 and a period, like 5/s, 300/m, 1000/h or 100/d")]
pub struct RateParseError(String);

impl FromStr for Rate {
    type Err = RateParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || RateParseError(text.chars().take(40).collect());
        let (units, period) = text.split_once('/').ok_or_else(error)?;
        let units: u64 = units.trim().parse().map_err(|_| error())?;
        let period_seconds = match period.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(error()),
        };
        // Above one unit a nanosecond the emission interval would be zero.
        if units == 0 || units > u64::from(period_seconds) * 1_000_000_000 {
            return Err(error());
        }
        Ok(Self { units, period_seconds })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period_seconds {
            1 => "s",
            60 => "m",
            3_600 => "h",
            _ => "d",
        };
        write!(f, "{}/{period}", self.units)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A rate limit of a tier or an override.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Its name in headers, answers and reports.
    #[n(0)]
    pub name: Name,
    /// What it counts apart; `[account]` when not said.
    #[n(1)]
    #[cbor(default)]
    #[serde(default = "per_account")]
    pub per: Vec<Dimension>,
    /// The sustained rate.
    #[n(2)]
    pub rate: Rate,
    /// How many may come at once; at least 1.
    #[n(3)]
    pub burst: u64,
    /// When an override ends; never in a tier.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<super::Timestamp>,
    /// Evaluated and reported, never refusing.
    #[n(5)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

fn per_account() -> Vec<Dimension> {
    vec![Dimension::Account]
}

impl Limit {
    /// The pure decision function of this limit.
    pub fn gcra(&self) -> Gcra {
        Gcra::new(self.rate, self.burst)
    }
}

/// The parameters of a limit, in nanoseconds. The state is one number, the theoretical arrival time (TAT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Time between two units at the sustained rate, rounded up, so that rounding never admits more.
    pub emission_ns: u64,
    /// How far the TAT may be ahead of now after admitting: `burst * emission_ns`.
    pub capacity_ns: u64,
}

/// No unit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Nanoseconds until the same demand would be admitted; `u64::MAX` when it never can (more units than the burst).
    pub retry_after_ns: u64,
}

impl Gcra {
    /// Parameters of a rate and a burst.
    pub fn new(rate: Rate, burst: u64) -> Self {
        let period_ns = u64::from(rate.period_seconds) * 1_000_000_000;
        let emission_ns = period_ns.div_ceil(rate.units.max(1)).max(1);
        Self { emission_ns, capacity_ns: emission_ns.saturating_mul(burst.max(1)) }
    }

    /// Takes `units` at `now_ns` from a bucket whose state is `tat_ns` (0: never used, full).
    ///
    /// # Errors
    /// [`Refused`] with the time to wait; the state stays as it was.
    pub fn take(&self, tat_ns: u64, now_ns: u64, units: u64) -> Result<u64, Refused> {
        let cost = self.emission_ns.saturating_mul(units);
        if cost > self.capacity_ns {
            return Err(Refused { retry_after_ns: u64::MAX });
        }
        let next = tat_ns.max(now_ns).saturating_add(cost);
        let latest = now_ns.saturating_add(self.capacity_ns);
        if next > latest { Err(Refused { retry_after_ns: next - latest }) } else { Ok(next) }
    }

    /// Units that could be taken at once.
    pub fn remaining(&self, tat_ns: u64, now_ns: u64) -> u64 {
        let ahead = tat_ns.saturating_sub(now_ns);
        self.capacity_ns.saturating_sub(ahead) / self.emission_ns
    }

    /// Nanoseconds until the bucket is full again.
    pub fn full_after_ns(&self, tat_ns: u64, now_ns: u64) -> u64 {
        tat_ns.saturating_sub(now_ns)
    }

    /// The state of an empty bucket at `now_ns`: what a new leader starts with.
    pub fn empty_at(&self, now_ns: u64) -> u64 {
        now_ns.saturating_add(self.capacity_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gcra(rate: &str, burst: u64) -> Gcra {
        Gcra::new(rate.parse().expect("a rate"), burst)
    }

    #[test]
    fn burst_then_the_rate() {
        let limit = gcra("5/s", 15);
        let (mut tat, now) = (0, 1_000_000_000_000);
        for left in (0..15).rev() {
            tat = limit.take(tat, now, 1).expect("within the burst");
            assert_eq!(limit.remaining(tat, now), left);
        }
        assert_eq!(limit.take(tat, now, 1), Err(Refused { retry_after_ns: 200_000_000 }));
        assert!(limit.take(tat, now + 199_999_999, 1).is_err());
        assert!(limit.take(tat, now + 200_000_000, 1).is_ok());
    }

    #[test]
    fn more_units_than_the_burst_never_pass() {
        assert_eq!(gcra("5/s", 3).take(0, 7, 4), Err(Refused { retry_after_ns: u64::MAX }));
    }

    #[test]
    fn rates_read_and_refuse() {
        assert_eq!("300/m".parse(), Ok(Rate { units: 300, period_seconds: 60 }));
        for bad in ["", "5", "0/s", "-1/s", "5/w", "1.5/s", "2000000000/s", "99999999999999999999/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// P2: in any window of t seconds at most burst + rate * t.
        #[test]
        fn no_window_admits_more_than_burst_and_rate(
            units in 1u64..50, burst in 1u64..20, steps in prop::collection::vec(0u64..400_000_000, 1..300),
        ) {
            let limit = gcra(&format!("{units}/s"), burst);
            let (mut tat, mut now, mut admitted) = (0, 1_000_000_000_000u64, Vec::new());
            for step in steps {
                now += step;
                if let Ok(next) = limit.take(tat, now, 1) {
                    tat = next;
                    admitted.push(now);
                }
            }
            for (i, from) in admitted.iter().enumerate() {
                for (j, to) in admitted.iter().enumerate().skip(i) {
                    let window = u128::from(to - from);
                    let most = u128::from(burst) + u128::from(units) * window / 1_000_000_000;
                    prop_assert!((j - i + 1) as u128 <= most, "{} in {window} ns", j - i + 1);
                }
            }
        }
    }
}
