//! Quotas by calendar period, in a timezone.

use jiff::{ToSpan, civil, tz::TimeZone};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{KeyId, Name, Timestamp, limit::is_false};

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
    /// Day that a week (1 Monday to 7 Sunday) or a month begins on (1 to 31; in a shorter month its last day); 1 when not
    /// said. Hours and days have none.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor_day: Option<u8>,
    /// Percentages of the limit whose use raises an alert; [`Quota::THRESHOLDS`] when not said.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<u16>>,
    /// Evaluated and reported, never refusing.
    #[n(9)]
    #[cbor(default)]
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
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
    /// Percentages at which an alert is raised when the quota does not say.
    pub const THRESHOLDS: &'static [u16] = &[80, 100];

    /// Percentages at which an alert is raised.
    pub fn thresholds(&self) -> &[u16] {
        self.thresholds.as_deref().unwrap_or(Self::THRESHOLDS)
    }

    /// The name of its counter in the ledger: the quota's name and what tells its periods and units from others'. A quota
    /// whose period, anchor, timezone or unit is changed counts anew, for what was counted before says nothing about the
    /// new period; so does one that was reset (`resets` times), and a key's own.
    pub fn counter(&self, resets: u32, key: Option<&KeyId>) -> Name {
        let mut text = format!("{}|{}", self.name, self.period.as_str());
        if self.unit != Unit::Requests {
            text = format!("{text}|{}", self.unit.as_str());
        }
        if self.timezone.as_str() != "UTC" {
            text = format!("{text}|{}", self.timezone);
        }
        if let Some(day) = self.anchor_day.filter(|day| *day > 1) {
            text = format!("{text}|from {day}");
        }
        if resets > 0 {
            text = format!("{text}|reset {resets}");
        }
        if let Some(key) = key {
            text = format!("{text}|{key}");
        }
        text.into()
    }

    /// The quota's own name in the name of its counter.
    pub fn name_of_counter(counter: &str) -> &str {
        counter.split('|').next().unwrap_or(counter)
    }

    /// The key in the name of a key's own counter.
    pub fn key_of_counter(counter: &str) -> Option<&str> {
        let (_, key) = counter.rsplit_once('|')?;
        key.starts_with("key_").then_some(key)
    }

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
        self.period.bounds_from(&self.time_zone()?, self.anchor_day.unwrap_or(1), at)
    }
}

impl Period {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The period of a timezone that `at` falls in.
    ///
    /// A local midnight that a daylight-saving change skips or repeats is its first valid instant, so periods always
    /// join without a gap. A repeated hour is two periods of one hour each.
    ///
    /// # Errors
    /// [`QuotaError::Calendar`] beyond year 9999.
    pub fn bounds_in(self, zone: &TimeZone, at: Timestamp) -> Result<PeriodBounds, QuotaError> {
        self.bounds_from(zone, 1, at)
    }

    /// The same, of weeks and months that begin on another day (see [`Quota::anchor_day`]).
    ///
    /// # Errors
    /// [`QuotaError::Calendar`] beyond year 9999.
    pub fn bounds_from(self, zone: &TimeZone, anchor_day: u8, at: Timestamp) -> Result<PeriodBounds, QuotaError> {
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
                        let first = i64::from(anchor_day.clamp(1, 7)) - 1;
                        let back = (i64::from(today.weekday().to_monday_zero_offset()) - first).rem_euclid(7);
                        let first = today.checked_sub(back.days()).map_err(|_| beyond())?;
                        (first, first.checked_add(7.days()).map_err(|_| beyond())?)
                    }
                    _ => {
                        // Of a month without such a day, its last.
                        let anchored = |month: civil::Date| {
                            let day = i8::try_from(anchor_day.clamp(1, 31)).expect("at most 31");
                            month.with().day(day.min(month.days_in_month())).build().map_err(|_| beyond())
                        };
                        let month = today.first_of_month();
                        let here = anchored(month)?;
                        if here <= today {
                            (here, anchored(month.checked_add(1.month()).map_err(|_| beyond())?)?)
                        } else {
                            (anchored(month.checked_sub(1.month()).map_err(|_| beyond())?)?, here)
                        }
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

    fn quota(period: Period, timezone: &str) -> Quota {
        Quota {
            name: "q".into(),
            unit: Unit::Requests,
            limit: 1,
            period,
            timezone: timezone.into(),
            overage: Overage::Block,
            expires_at: None,
            anchor_day: None,
            thresholds: None,
            shadow: false,
        }
    }

    fn bounds(period: Period, timezone: &str, at: &str) -> (String, String) {
        from(1, quota(period, timezone), at)
    }

    fn from(day: u8, quota: Quota, at: &str) -> (String, String) {
        let quota = Quota { anchor_day: Some(day), ..quota };
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
    fn anchored_periods_join_without_a_gap_also_where_a_month_lacks_the_day() {
        for (period, day, at, start, end) in [
            (Period::Month, 15, "2026-11-14T23:59:59Z", "2026-10-15", "2026-11-15"),
            (Period::Month, 15, "2026-11-15T00:00:00Z", "2026-11-15", "2026-12-15"),
            (Period::Month, 31, "2026-02-27T12:00:00Z", "2026-01-31", "2026-02-28"),
            (Period::Month, 31, "2026-02-28T12:00:00Z", "2026-02-28", "2026-03-31"),
            (Period::Month, 31, "2026-04-30T00:00:00Z", "2026-04-30", "2026-05-31"),
            // 2026-11-21 is a Saturday.
            (Period::Week, 7, "2026-11-21T12:00:00Z", "2026-11-15", "2026-11-22"),
            (Period::Week, 6, "2026-11-21T12:00:00Z", "2026-11-21", "2026-11-28"),
        ] {
            let bounds = from(day, quota(period, "UTC"), at);
            assert_eq!(bounds, (format!("{start}T00:00:00Z"), format!("{end}T00:00:00Z")), "{period:?} {day} {at}");
        }
        // Whatever the day, each period ends where the next begins.
        for day in 1..=31 {
            let zone = TimeZone::get("Europe/Berlin").expect("known");
            let mut at: Timestamp = "2026-01-05T00:00:00Z".parse().expect("a time");
            for _ in 0..30 {
                let this = Period::Month.bounds_from(&zone, day, at).expect("a period");
                assert_eq!(
                    Period::Month.bounds_from(&zone, day, this.end).map(|next| next.start),
                    Ok(this.end),
                    "{day}"
                );
                assert!(this.start <= at && at < this.end);
                at = this.end;
            }
        }
    }

    #[test]
    fn a_counters_name_tells_its_periods_from_others_and_reads_back() {
        let (day, month) = (quota(Period::Day, "UTC"), quota(Period::Month, "UTC"));
        let berlin = quota(Period::Day, "Europe/Berlin");
        let (anchored, cost) =
            (Quota { anchor_day: Some(15), ..month.clone() }, Quota { unit: Unit::Cost, ..day.clone() });
        let key = KeyId::from("key_1");
        let names = [
            day.counter(0, None),
            month.counter(0, None),
            berlin.counter(0, None),
            anchored.counter(0, None),
            cost.counter(0, None),
            day.counter(1, None),
            day.counter(0, Some(&key)),
            day.counter(1, Some(&key)),
        ];
        let distinct: std::collections::BTreeSet<&str> = names.iter().map(Name::as_str).collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| Quota::name_of_counter(name) == "q"));
        assert_eq!(names.iter().filter_map(|name| Quota::key_of_counter(name)).collect::<Vec<_>>(), ["key_1", "key_1"]);
        assert_eq!(Quota { limit: 9, overage: Overage::Allow, ..day.clone() }.counter(0, None), day.counter(0, None));
    }

    #[test]
    fn hours_follow_the_zones_own_minutes() {
        assert_eq!(
            bounds(Period::Hour, "Asia/Kolkata", "2026-01-01T00:10:00Z"),
            ("2025-12-31T23:30:00Z".into(), "2026-01-01T00:30:00Z".into())
        );
    }
}
