//! Times as logs write them.

use jiff::{Timestamp, fmt::strtime};

/// A time in nanoseconds since 1970, and whether it knows seconds only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Clock {
    /// Nanoseconds since 1970.
    pub(crate) ns: i128,
    /// No finer than a second.
    pub(crate) whole_seconds: bool,
}

impl Clock {
    /// Reads RFC 3339, or a number since 1970 whose magnitude tells seconds, milli-, micro- or nanoseconds.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let number: i128 = whole.parse().ok()?;
            // Until the year 5138, seconds are below this.
            let unit: i128 = match number {
                0..100_000_000_000 => 1_000_000_000,
                100_000_000_000..100_000_000_000_000 => 1_000_000,
                100_000_000_000_000..100_000_000_000_000_000 => 1_000,
                _ => 1,
            };
            let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
            let part: i128 = digits.parse().ok()?;
            let ns = number.checked_mul(unit)?.checked_add(part * unit / 1_000_000_000)?;
            return Some(Self { ns, whole_seconds: unit == 1_000_000_000 && fraction.is_empty() });
        }
        let time: Timestamp = text.parse().ok()?;
        Some(Self { ns: time.as_nanosecond(), whole_seconds: !text.contains('.') })
    }

    /// Reads the time of Apache's and nginx's logs: `10/Oct/2000:13:55:36 -0700`.
    pub(crate) fn read_log(text: &str) -> Option<Self> {
        let time = strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?.to_timestamp().ok()?;
        Some(Self { ns: time.as_nanosecond(), whole_seconds: true })
    }
}

/// As Apache's and nginx's logs write it, in UTC.
pub(crate) fn log_time(ns: i128) -> String {
    let time = Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::UNIX_EPOCH);
    strtime::format("%d/%b/%Y:%H:%M:%S +0000", &time.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default()
}

/// RFC 3339 of nanoseconds since 1970. Always with its fraction: a time without one is a time that knows seconds only.
pub(crate) fn rfc3339(ns: i128) -> String {
    format!("{:.9}", Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Nanoseconds of a number of seconds with a fraction.
pub(crate) fn nanoseconds(seconds: f64) -> Option<u64> {
    (0.0..1e9).contains(&seconds).then(|| (seconds * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_the_same_instant() {
        let ns = 1_763_706_338_562_950_000i128;
        for text in [
            "1763706338.562950",
            "1763706338562.95",
            "1763706338562950",
            "1763706338562950000",
            "2025-11-21T06:25:38.56295Z",
            "2025-11-21T07:25:38.562950+01:00",
        ] {
            assert_eq!(Clock::read(text), Some(Clock { ns, whole_seconds: false }), "{text}");
        }
        let second = Some(Clock { ns: 1_763_706_338_000_000_000, whole_seconds: true });
        assert_eq!(Clock::read("1763706338"), second);
        assert_eq!(Clock::read("2025-11-21T06:25:38+00:00"), second);
        assert_eq!(Clock::read_log("21/Nov/2025:06:25:38 +0000"), second);
        assert_eq!(Clock::read_log("21/Nov/2025:01:25:38 -0500"), second);
        assert_eq!(Clock::read_log(&log_time(ns)), second);
        let whole = 1_763_706_338_000_000_000;
        assert_eq!(Clock::read(&rfc3339(whole)), Some(Clock { ns: whole, whole_seconds: false }));
        for wrong in ["", "x", "1763706338.x", "2025-11-21", "99999999999999999999999999999999999999999"] {
            assert_eq!(Clock::read(wrong), None, "{wrong}");
        }
    }
}
