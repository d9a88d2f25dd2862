//! Times as the API writes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as RFC 3339 text in UTC, to the millisecond.
///
/// # Panics
/// Before 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
    let (mut days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= month_days(month, leap(year)) {
        days -= month_days(month, leap(year));
        month += 1;
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", days + 1, since.subsec_millis())
}

/// Seconds since 1970 of an RFC 3339 text in UTC.
///
/// # Panics
/// When it is none.
pub fn unix_seconds(text: &str) -> f64 {
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("a number");
    assert!(text.ends_with('Z') && text.len() >= 20, "{text} is not a time in UTC");
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let year = number(0, 4);
    let days: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum::<u64>()
        + (1..number(5, 7)).map(|month| month_days(month, leap(year))).sum::<u64>()
        + number(8, 10)
        - 1;
    let seconds: f64 = text[17..text.len() - 1].parse().expect("seconds");
    (days * 86_400 + number(11, 13) * 3_600 + number(14, 16) * 60) as f64 + seconds
}

fn month_days(month: u64, leap: bool) -> u64 {
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_read_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696, "2000-02-29T12:34:56.000Z"),
            (1_774_821_600, "2026-03-29T22:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
            assert!((unix_seconds(text) - seconds as f64).abs() < 1e-6);
        }
    }
}
