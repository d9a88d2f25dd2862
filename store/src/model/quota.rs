//! Quotas by calendar period, in a timezone.

use jiff::{ToSpan, civil, tz::TimeZone};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{Name, Timestamp};

/// A calendar period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// From a full hour of the timezone's clock to the next.
    #[n(0)]
    Hour,
    /// From midnight to midnight: 23 or 25 hours on a day with a daylight-saving change.
    #[n(1)]
    Day,
    /// From Monday (ISO 8601).
    #[n(2)]
    Week,
    /// From the first of the month.
    #[n(3)]
    Month,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Admitted requests.
    #[default]
    #[n(0)]
    Requests,
    /// Bytes of request bodies.
    #[n(1)]
    ContentBytes,
    /// The routes' `cost`.
    #[n(2)]
    Cost,
}

impl Unit {
    /// Its name in headers and answers (draft-ietf-httpapi-ratelimit-headers-10).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::ContentBytes => "content-bytes",
            Self::Cost => "cost",
        }
    }
}

/// What happens above a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Overage {
    /// Refused with `quota-exceeded`.
    #[default]
    #[n(0)]
    Block,
    /// Served and counted.
    #[n(1)]
    Allow,
}

/// A quota of a tier or an override.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Its name in headers, answers and reports.
    #[n(0)]
    pub name: Name,
    /// What it counts.
    #[n(1)]
    #[cbor(default)]
    #[serde(default)]
    pub unit: Unit,
    /// Units a period.
    #[n(2)]
    pub limit: u64,
    /// The calendar period.
    #[n(3)]
    pub period: Period,
    /// IANA name; `UTC` when not said.
    #[n(4)]
    #[cbor(default)]
    #[serde(default = "utc")]
    pub timezone: Name,
    /// What happens above the limit.
    #[n(5)]
    #[cbor(default)]
    #[serde(default)]
    pub overage: Overage,
    /// When an override ends; never in a tier.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

fn utc() -> Name {
    "UTC".into()
}

/// Where a period begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodBounds {
    /// First instant of the period.
    pub start: Timestamp,
    /// First instant of the next one.
    pub end: Timestamp,
}

/// A quota that cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// The timezone is not an IANA name that this build knows.
    #[error("timezone {0:?} is not known: use an IANA name like Europe/Berlin")]
    Timezone(String),
    /// Beyond the calendar (year 9999).
    #[error("no {0:?} period can be computed at {1}")]
    Calendar(Period, Timestamp),
}

impl Quota {
    /// The timezone, looked up by name.
    ///
    /// # Errors
    /// [`QuotaError::Timezone`].
    pub fn time_zone(&self) -> Result<TimeZone, QuotaError> {
        TimeZone::get(self.timezone.as_str()).map_err(|_| QuotaError::Timezone(self.timezone.to_string()))
    }

    /// The period that `at` falls in.
    ///
    /// # Errors
    /// An unknown timezone, or a time beyond the calendar.
    pub fn period_at(&self, at: Timestamp) -> Result<PeriodBounds, QuotaError> {
        self.period.bounds_in(&self.time_zone()?, at)
    }
}

impl Period {
    /// The period of a timezone that `at` falls in.
    ///
    /// A local midnight that a daylight-saving change skips or repeats is its first valid instant, so periods always
    /// join without a gap. A repeated hour is two periods of one hour each.
    ///
    /// # Errors
    /// [`QuotaError::Calendar`] beyond year 9999.
    pub fn bounds_in(self, zone: &TimeZone, at: Timestamp) -> Result<PeriodBounds, QuotaError> {
        let beyond = || QuotaError::Calendar(self, at);
        let local = at.to_jiff().to_zoned(zone.clone());
        let (start, end) = match self {
            Self::Hour => {
                // By elapsed time, so that a repeated or half-hour-offset hour stays one hour long.
                let into = i64::from(local.minute()) * 60 + i64::from(local.second());
                let start = at.unix_seconds() - into;
                (Timestamp::from_unix_seconds(start), Timestamp::from_unix_seconds(start + 3_600))
            }
            Self::Day | Self::Week | Self::Month => {
                let today = local.date();
                let (first, next): (civil::Date, civil::Date) = match self {
                    Self::Day => (today, today.checked_add(1.day()).map_err(|_| beyond())?),
                    Self::Week => {
                        let back = i64::from(today.weekday().to_monday_zero_offset());
                        let monday = today.checked_sub(back.days()).map_err(|_| beyond())?;
                        (monday, monday.checked_add(7.days()).map_err(|_| beyond())?)
                    }
                    _ => {
                        let first = today.first_of_month();
                        (first, first.checked_add(1.month()).map_err(|_| beyond())?)
                    }
                };
                let instant = |date: civil::Date| {
                    date.to_zoned(zone.clone()).map(|z| Timestamp(z.timestamp().as_microsecond())).map_err(|_| beyond())
                };
                (instant(first)?, instant(next)?)
            }
        };
        Ok(PeriodBounds { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(period: Period, timezone: &str, at: &str) -> (String, String) {
        let quota = Quota {
            name: "q".into(),
            unit: Unit::Requests,
            limit: 1,
            period,
            timezone: timezone.into(),
            overage: Overage::Block,
            expires_at: None,
        };
        let bounds = quota.period_at(at.parse().expect("a time")).expect("a period");
        (bounds.start.to_string(), bounds.end.to_string())
    }

    #[test]
    fn a_day_with_a_daylight_saving_change_has_23_or_25_hours() {
        // Europe/Berlin: clocks go forward on 2026-03-29 and back on 2026-10-25.
        assert_eq!(
            bounds(Period::Day, "Europe/Berlin", "2026-03-29T12:00:00Z"),
            ("2026-03-28T23:00:00Z".into(), "2026-03-29T22:00:00Z".into())
        );
        assert_eq!(
            bounds(Period::Day, "Europe/Berlin", "2026-10-25T12:00:00Z"),
            ("2026-10-24T22:00:00Z".into(), "2026-10-25T23:00:00Z".into())
        );
    }

    #[test]
    fn a_skipped_midnight_starts_at_its_first_valid_instant() {
        // America/Sao_Paulo skipped 2018-11-04T00:00 to 01:00.
        assert_eq!(
            bounds(Period::Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z"),
            ("2018-11-04T03:00:00Z".into(), "2018-11-05T02:00:00Z".into())
        );
    }

    #[test]
    fn weeks_start_on_monday_and_months_on_the_first() {
        assert_eq!(
            bounds(Period::Week, "UTC", "2026-11-22T23:59:59Z"),
            ("2026-11-16T00:00:00Z".into(), "2026-11-23T00:00:00Z".into())
        );
        assert_eq!(
            bounds(Period::Month, "Asia/Tokyo", "2026-02-28T16:00:00Z"),
            ("2026-02-28T15:00:00Z".into(), "2026-03-31T15:00:00Z".into())
        );
    }

    #[test]
    fn hours_follow_the_zones_own_minutes() {
        assert_eq!(
            bounds(Period::Hour, "Asia/Kolkata", "2026-01-01T00:10:00Z"),
            ("2025-12-31T23:30:00Z".into(), "2026-01-01T00:30:00Z".into())
        );
    }
}
