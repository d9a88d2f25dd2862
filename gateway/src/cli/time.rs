//! Times and spans as people type them.

use store::model::Timestamp;

/// Seconds of `90s`, `15m`, `12h`, `7d`.
pub(crate) fn span(text: &str) -> Result<i64, String> {
    let form = || format!("{text:?} is not a span: expected one like 90s, 15m, 12h or 7d");
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(form()),
    };
    let number: u32 = number.parse().map_err(|_| form())?;
    Ok(i64::from(number) * seconds)
}

/// A time, or a span before now.
pub(crate) fn past(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = span(text) {
        return Ok(Timestamp::now().plus_seconds(-seconds));
    }
    text.parse().map_err(|_| {
        format!("{text:?} is not a time: expected one like 2026-01-31T12:00:00Z, or how long ago, like 15m")
    })
}

/// A time, or a span after now.
pub(crate) fn future(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = span(text) {
        return Ok(Timestamp::now().plus_seconds(seconds));
    }
    text.parse().map_err(|_| {
        format!("{text:?} is not a time: expected one like 2026-01-31T12:00:00Z, or a span from now, like 30d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_refuse() {
        assert_eq!(span("15m"), Ok(900));
        assert_eq!(span("7d"), Ok(604_800));
        for bad in ["", "m", "15", "-1m", "1.5h", "1w", "é"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert!(past("1h").expect("a time") < Timestamp::now());
        assert_eq!(future("2026-01-31T12:00:00Z").map(|time| time.to_string()), Ok("2026-01-31T12:00:00Z".into()));
    }
}
