//! Wall-clock time as it is stored: microseconds since 1970, UTC.

use std::{fmt, str::FromStr};

use jiff::fmt::temporal::Pieces;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::platform;

/// Microseconds since 1970-01-01T00:00:00Z. Its outside form is RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub i64);

impl Timestamp {
    /// The system's clock. Store code takes the time as an argument; only edges call this.
    pub fn now() -> Self {
        Self(i64::try_from(platform::wall_clock().as_micros()).unwrap_or(i64::MAX))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The start of a whole second.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// This time and some seconds more (or fewer).
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Whole minutes since 1970, the unit of the usage rollups.
    pub fn minute(self) -> i64 {
        self.0.div_euclid(60_000_000)
    }

    /// As `jiff` has it; a time beyond its range (year 9999) is its nearest.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_jiff(), f)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = text.parse::<jiff::Timestamp>();
        let time = time.or_else(|error| if is_of_the_last_day(text) { Ok(jiff::Timestamp::MAX) } else { Err(error) });
        time.map(|time| Self(time.as_microsecond()))
    }
}

/// Whether a time is behind the calendar's last one, 9999-12-30T22:00:00.999999Z (so that each zone can show it), and still of
/// its last year: `9999-12-31T23:59:59Z` is what other systems write for never.
fn is_of_the_last_day(text: &str) -> bool {
    let Ok(pieces) = Pieces::parse(text) else { return false };
    pieces.date() >= jiff::civil::date(9999, 12, 30) && pieces.time().is_some() && pieces.offset().is_some()
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendars_last_hours_are_its_last_time() {
        let last: Timestamp = "9999-12-30T22:00:00.999999Z".parse().expect("a time");
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999+00:00", "9999-12-30T23:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>().ok(), Some(last), "{text}");
        }
        assert_eq!(last.to_string().parse::<Timestamp>().ok(), Some(last), "what is shown can be given back");
        for bad in ["10000-01-01T00:00:00Z", "9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "never"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
